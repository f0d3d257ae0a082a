"""The replay loop: U times a few steps of N environments into a replay, then one gradient update on a batch drawn from it.

    collect   K = env_steps_per_update / N steps of N environments
    draw      B transitions with their n-step rewards, as a Rollout with leaves [B]; uniformly or by priority
    learn     ∇ of the rule's loss and of penalties, the optimiser, what interventions do after it
    target    every C gradient updates θ⁻ ← (1 − τ) θ⁻ + τ θ

A static nested scan: no ``cond`` decides whether to learn, so none copies the replay, and no modulo of steps starves the
learning. Randomness is drawn once for all U.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_ext.envs.vector import Pool, Transition, default_pool_size, reset_pool, vec_step
from purejaxrl_ext.errors import check
from purejaxrl_ext.interventions.base import Context, act_on, penalty_gradient
from purejaxrl_ext.loops import normalize, packing, replay
from purejaxrl_ext.loops.base import Loop, f32, greedy_value, random_steps
from purejaxrl_ext.loops.layouts import Trees
from purejaxrl_ext.loops.measure import EPISODES, episode_means, episode_sums, mean_and_std
from purejaxrl_ext.loops.memory import FeedForward, Samples, flatten
from purejaxrl_ext.rules import dqn
from purejaxrl_ext.types import Array, Learner, Metrics, Output, PyTree, Rollout, State


class Observed(NamedTuple):
    """A batch of which only the observations matter."""

    obs: Array


class Draw(NamedTuple):
    """A batch drawn from the replay.

    Attributes:
        rollout: as ``targets`` sees it; leaves ``[B, ...]``.
        slots: ``[B]`` where in the replay.
        relative: ``[B]`` N P(i), the probability relative to uniform drawing.
    """

    rollout: Rollout
    slots: Array
    relative: Array


@dataclasses.dataclass(frozen=True, eq=False)
class OffPolicy(Loop):
    """U times: step N environments into the replay, then learn from one batch drawn from it.

    The rule's ``targets`` see a Rollout with leaves ``[B, ...]``, whose ``next_output`` is the target network's; its batch has a
    ``weight``, which is multiplied by that of prioritised replay, and its loss logs ``td_error [B]`` for the priorities.

    The steps before training (``prefill_steps``, of random actions) count neither as environment steps nor in schedules; running
    statistics of observations take them in.

    Raises:
        ValueError: a network with a memory.
    """

    def __post_init__(self) -> None:
        fits = isinstance(self.agent, FeedForward)
        check(fits, "network", type(self.network).__name__, "one without a memory for a replay")

    @property
    def margin(self) -> int:
        """The newest transitions, whose n steps are not complete."""
        return (self.config.n_step - 1) * self.config.num_envs

    @property
    def per_step(self) -> int:
        """Environment steps of one ``step``."""
        return self.config.updates_per_step * self.config.env_steps_per_update

    def init(self, key: Array, hparams: Any) -> State:
        """A State before the first update, its replay filled by random actions."""
        config = self.config
        params_key, env_key, prefill_key, normalizer_key, key = jax.random.split(key, 5)
        state = self.first_state(hparams, params_key, env_key, normalizer_key, key)
        num_steps = config.prefill_steps // config.num_envs
        pool_size = default_pool_size(self.env, config.num_envs, config.prefill_steps)
        vec_state, obs, action, transition = random_steps(self.env, state.env, prefill_key, num_steps, pool_size)
        ring = replay.create(jax.tree.map(flatten, stored(obs, action, transition)), config.replay_capacity)
        if config.prioritized:
            first = replay.first_priorities(config.replay_capacity, config.prefill_steps - self.margin)
            ring = ring.replace(priorities=first)
        if config.normalize_observations == "running":
            state = state.replace(normalizer=normalize.take_in(state.normalizer, obs))
        return state.replace(target_params=state.params, env=vec_state, replay=ring)

    def step(self, state: State, hparams: Any, measure: Array | None = None) -> tuple[State, Metrics]:
        """U gradient updates, and the environment steps before each."""
        config, hparams = self.config, f32(hparams)
        num_steps = config.env_steps_per_update // config.num_envs
        key, noise_key, env_key, pool_key, draw_key, sample_key = jax.random.split(state.key, 6)
        pool = reset_pool(self.env, pool_key, config.pool_size)
        shape = (config.updates_per_step, num_steps, config.num_envs)
        noise, step_keys = self.rule.noise(noise_key, shape), jax.random.split(env_key, shape)
        bits = jax.random.bits(draw_key, (config.updates_per_step, config.batch_size))
        before_steps = state.update.astype(jnp.float32) * config.steps_per_update
        context = self.context(state, hparams, before_steps)

        before, update_count = state.params, state.update
        state = state.learned(act_on(self.interventions, "before", self.net, state.learner, context))
        lying = self.layout(state.params)
        update = functools.partial(self.update, pool=pool, context=context, before_steps=before_steps, lying=lying)
        xs = (jnp.arange(config.updates_per_step), noise, step_keys, bits)
        state = state.learned(lying.pack(state.learner)).replace(target_params=lying.arrays(state.target_params))
        # The count of updates stays out of what is carried, which vmap batches.
        carry = (state.replace(update=()), jnp.zeros((), jnp.int32))
        (state, _), (logged, seen) = packing.metrics_scan(update, carry, xs, config.num_envs)
        state = state.learned(lying.unpack(state.learner)).replace(target_params=lying.tree(state.target_params))
        if config.normalize_observations == "running":
            state = state.replace(normalizer=normalize.take_in(state.normalizer, seen))
        episodes = episode_means({name: logged.pop(name).sum() for name in EPISODES})
        logged = {name: x.mean() for name, x in logged.items()} | episodes
        state = state.replace(key=key, update=update_count)
        sample = functools.partial(self.sample, state, sample_key)
        return self.finish(state, before, logged, measure, sample, context)

    def update(
        self,
        carry: tuple[State, Array],
        now: tuple,
        *,
        pool: Pool,
        context: Context,
        before_steps: Array,
        lying: Trees,
    ) -> tuple[tuple[State, Array], tuple]:
        """Environment steps, one gradient update, and the target network's; the State's parameters are ``lying`` so."""
        (state, num_resets), (i, noise, keys, bits), config = carry, now, self.config
        per_update, capacity = config.env_steps_per_update, config.replay_capacity
        learner, target = state.learner, state.target_params
        env_steps = before_steps + i.astype(jnp.float32) * per_update
        state = state.replace(
            params=lying.tree(learner.params), target_params=lying.tree(target), update=context.update
        )
        state, num_resets, new, transition = self.collect(
            state, context.hparams, noise, keys, pool, num_resets, env_steps
        )
        first_slot, first_held = replay.position(config.prefill_steps, self.per_step, state.update, capacity)
        state = state.replace(replay=self.put(state.replay, new, (first_slot + i * per_update) % capacity))
        slot = (first_slot + (i + 1) * per_update) % capacity
        held = jnp.minimum(first_held + (i + 1) * per_update, capacity)

        drawn = self.draw(state, context.hparams, bits, slot, held)
        weight = replay.importance_weights(drawn.relative, dqn.importance_exponent(context.hparams, env_steps))
        told = context._replace(key=jax.random.fold_in(context.key, i))
        apart = functools.partial(self.apart, state, told, slot, held)
        learner, logged = self.learn(learner, drawn.rollout, weight, told, lying, apart)
        if config.prioritized:
            priority = (logged["td_error"] + 1e-6) ** context.hparams.priority_exponent
            priorities = replay.set_priorities(state.replay.priorities, drawn.slots, priority)
            state = state.replace(replay=state.replay.replace(priorities=priorities))
        done_updates = state.update * config.updates_per_step + i + 1
        target = dqn.update_target(target, learner.params, done_updates, context.hparams)
        seen = new.obs if config.normalize_observations == "running" else ()
        state = state.learned(learner).replace(target_params=target, update=())
        return (state, num_resets), (logged | episode_sums(transition), seen)

    def collect(
        self,
        state: State,
        hparams: Any,
        noise: Array,
        keys: Array,
        pool: Pool,
        num_resets: Array,
        env_steps: Array,
    ) -> tuple[State, Array, replay.Transitions, Transition]:
        """K steps of N environments: the State after them, resets so far, and the transitions ``[K, N, ...]``."""

        def env_step(carry: tuple, now: tuple) -> tuple[tuple, tuple]:
            vec_state, num_resets = carry
            action = self.act(state.params, state.normalizer, vec_state.obs, now[0], hparams, env_steps).env_action
            after, transition, num_resets = vec_step(self.env, now[1], vec_state, action, pool, num_resets)
            return (after, num_resets), (vec_state.obs, action, transition)

        (vec_state, num_resets), seen = packing.scan(
            env_step, (state.env, num_resets), (noise, keys), self.config.num_envs
        )
        return state.replace(env=vec_state), num_resets, stored(*seen), seen[2]

    def put(self, ring: replay.Replay, new: replay.Transitions, slot: Array) -> replay.Replay:
        """The ring with transitions ``[K, N, ...]`` from ``slot`` on."""
        config = self.config
        per_update, capacity = config.env_steps_per_update, config.replay_capacity
        aligned = capacity % per_update == 0 and config.prefill_steps % per_update == 0
        ring = replay.add(ring, jax.tree.map(flatten, new), slot, aligned)
        if not config.prioritized:
            return ring
        priorities = replay.open_and_close(ring.priorities, slot, per_update, config.num_envs, config.n_step, capacity)
        return ring.replace(priorities=priorities)

    def draw(self, state: State, hparams: Any, bits: Array, slot: Array, held: Array) -> Draw:
        """A batch from the replay, the next transition being due at ``slot`` and ``held`` of them there."""
        config, ring = self.config, state.replay
        if config.prioritized:
            slots, probability = replay.proportional(ring.priorities, uniform_floats(bits))
            relative = probability * held
        else:
            slots = replay.uniform(bits, slot, held, config.replay_capacity, self.margin)
            relative = jnp.ones(len(slots))
        reward, discount, last = replay.window(ring, slots, config.num_envs, config.n_step, hparams.gamma)
        first, final = ring.at(slots), ring.at(last)
        next_obs = normalize.normalize_obs(state.normalizer, final.next_obs)
        rollout = Rollout(
            obs=normalize.normalize_obs(state.normalizer, first.obs),
            action=first.action,
            reward=reward,
            terminated=final.terminated | (config.time_limit_terminates & final.truncated),
            truncated=final.truncated,
            output=Output(),
            next_output=self.rule.successor(self.network.apply(state.target_params, next_obs)),
            next_online=self.rule.successor(self.network.apply(state.params, next_obs)),
            discount=discount,
        )
        return Draw(rollout, slots, relative)

    def learn(
        self,
        learner: Learner,
        rollout: Rollout,
        weight: Array,
        context: Context,
        lying: Trees,
        apart: Callable[[], Samples],
    ) -> tuple[Learner, Metrics]:
        """One gradient step on a batch, samples of it weighted; penalties see others, drawn ``apart``."""
        batch = self.rule.targets(rollout, context.hparams)
        batch = batch.replace(weight=batch.weight * weight)

        def loss(params: PyTree) -> tuple[Array, Any]:
            output = self.agent.whole.apply(params, batch.obs)
            value, logged = self.rule.loss(output, batch, context.hparams)
            greedy = greedy_value(output)
            # A rule whose Q-values are in other units says what they are worth.
            return value, mean_and_std("value", greedy) | logged

        (value, logged), grads = jax.value_and_grad(loss, has_aux=True)(lying.shown(learner.params))
        grads = lying.gradient(grads)
        if any(i.penalty is not None for i in self.interventions):
            penalties, more = penalty_gradient(
                self.interventions, self.net, lying.unpack(learner), Samples(batch), apart(), context.hparams
            )
            # Apart, so that the rule's gradient is computed as without penalties.
            grads, penalties = jax.lax.optimization_barrier((grads, lying.arrays(penalties)))
            grads, logged = jax.tree.map(jnp.add, grads, penalties), logged | more
        learner, norms = self.improve(learner, grads, context, lying)
        return learner, logged | {"loss": value} | norms

    def apart(self, state: State, context: Context, slot: Array, held: Array) -> Samples:
        """Another batch than the update's own."""
        bits = jax.random.bits(jax.random.fold_in(context.key, 1), (self.config.batch_size,))
        rollout = self.draw(state, context.hparams, bits, slot, held).rollout
        return Samples(self.rule.targets(rollout, context.hparams))

    def sample(self, state: State, key: Array) -> Samples:
        """States from the whole replay: a batch may hold fewer than the features' width."""
        config = self.config
        size = config.metrics_samples or config.replay_capacity
        slot, held = replay.position(config.prefill_steps, self.per_step, state.update + 1, config.replay_capacity)
        slots = replay.uniform(jax.random.bits(key, (size,)), slot, held, config.replay_capacity, 0)
        return Samples(Observed(normalize.normalize_obs(state.normalizer, state.replay.at(slots).obs)))


def stored(obs: Array, action: Array, transition: Transition) -> replay.Transitions:
    """Transitions as the replay keeps them, leaves ``[T, N, ...]``."""
    return replay.Transitions(
        obs, action, transition.reward, transition.terminated, transition.truncated, transition.final_obs
    )


def uniform_floats(bits: Array) -> Array:
    """Random uint32 bits as floats in [0, 1): the upper 24, which float32 holds exactly."""
    return (bits >> 8).astype(jnp.float32) * 2.0**-24
