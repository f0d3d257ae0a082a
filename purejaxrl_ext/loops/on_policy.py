"""The on-policy loop: T steps of N environments with the current network, then epochs of minibatches over them.

collect   o, a, r, ends for T × N steps by a scan; then the network once on all of it, and at the true successors
targets   the rule's, once
learn     E epochs of minibatches: ∇ of the rule's loss and of penalties, the optimiser, what interventions do after it
finish    measures, interventions' ``after``, one more update done
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_ext.envs.vector import Transition, max_truncations, reset_pool, vec_reset, vec_step
from purejaxrl_ext.errors import check
from purejaxrl_ext.interventions.base import Context, act_on, penalty_gradient
from purejaxrl_ext.loops import normalize, packing
from purejaxrl_ext.loops.base import Loop, f32, greedy_value
from purejaxrl_ext.loops.layouts import Trees
from purejaxrl_ext.loops.measure import episode_metrics, spread
from purejaxrl_ext.loops.memory import Recurrent, Samples, flatten
from purejaxrl_ext.loops.shards import Shards
from purejaxrl_ext.rules import returns
from purejaxrl_ext.types import Array, Learner, Metrics, PyTree, Rollout, State


class Seen(NamedTuple):
    """What a rollout's scan leaves; leaves ``[T, N, ...]``.

    Attributes:
        obs, action, policy, transition: as they were.
        start: whether ``obs`` is the first of an episode.
        beyond: final observations and the hidden states there: of every step, or of each environment's truncated steps
            ``[K, N, ...]`` where a time limit says how many there can be.
    """

    obs: Array
    start: Array
    action: Array
    policy: Any
    transition: Transition
    beyond: tuple


@dataclasses.dataclass(frozen=True, eq=False)
class OnPolicy(Loop):
    """Collect T × N transitions with the current network, aim with ``rule.targets``, and learn for E epochs.

    With ``config.episodic`` every environment begins the rollout with a fresh episode, and the metrics count that one alone.
    Minibatches are of transitions; with a memory, of whole sequences. With ``config.data_parallel`` what is below ``step`` is of
    one device's share of the environments (see :mod:`~purejaxrl_ext.loops.shards`).

    Raises:
        ValueError: ``num_minibatches`` does not divide the sequences of a network with a memory; when ``step`` is traced:
            there are fewer devices than ``data_parallel``.
    """

    def __post_init__(self) -> None:
        share = " / data_parallel = " if self.shards.num_devices > 1 else "="
        allowed = f"a divisor of num_envs{share}{self.share.num_envs}: minibatches are of whole sequences"
        count = self.share.num_minibatches
        check(self.num_samples % count == 0, "num_minibatches", count, allowed)

    @functools.cached_property
    def shards(self) -> Shards:
        """The devices that share a run."""
        return Shards(self.config.data_parallel)

    @functools.cached_property
    def share(self) -> Any:
        """The config of one device's share of the environments."""
        return self.shards.part(self.config)

    @functools.cached_property
    def num_samples(self) -> int:
        """What minibatches are drawn from: transitions, or whole sequences."""
        return self.share.num_envs if isinstance(self.agent, Recurrent) else self.share.steps_per_update

    @functools.cached_property
    def num_final(self) -> int:
        """Final observations to keep per environment and rollout; as many as steps: each step's own."""
        return 0 if self.config.time_limit_terminates else max_truncations(self.env, self.config.num_steps)

    def init(self, key: Array, hparams: Any) -> State:
        """A State before the first update."""
        return self.first_state(hparams, *jax.random.split(key, 4))

    @functools.cached_property
    def step(self) -> Any:
        """``(state, hparams, measure=None) -> (State, metrics)``: one update."""
        return self.shards.spread(self.update)

    def update(self, state: State, hparams: Any, measure: Array | None = None) -> tuple[State, Metrics]:
        """One update of one device's share."""
        key, *own = jax.random.split(state.key, 5)
        noise_key, env_key, pool_key, learn_key = map(self.shards.fold, own)
        env_steps = state.update.astype(jnp.float32) * self.config.steps_per_update
        context = self.context(state, f32(hparams), env_steps)

        before, first_carry = state.params, state.carry
        state, rollout, seen = self.collect(state, context.hparams, (noise_key, env_key, pool_key), env_steps)
        samples = self.agent.samples(self.rule.targets(rollout, context.hparams), seen.start, first_carry)
        learner, logged = self.learn(state.learner, samples, learn_key, context)
        logged |= self.told(rollout, seen.transition)
        state = state.learned(learner).replace(key=key)
        sample = functools.partial(self.sample, samples)
        return self.finish(state, before, logged, measure, sample, context)

    def collect(
        self, state: State, hparams: Any, keys: tuple[Array, Array, Array], env_steps: Array
    ) -> tuple[State, Rollout, Seen]:
        """T × N steps with the network as it is.

        Args:
            state: before.
            hparams: of this update.
            keys: of the actions' noise, of the environments, and of the pool of resets.
            env_steps: float32 scalar, how far training has come.

        Returns:
            the State with its environments, hidden states and statistics after them; the data; and what was seen.
        """
        noise_key, env_key, pool_key = keys
        shape = (self.share.num_steps, self.share.num_envs)
        pool = reset_pool(self.env, pool_key, self.share.pool_size)
        noise, step_keys = self.rule.noise(noise_key, shape), jax.random.split(env_key, shape)
        if self.config.episodic:
            state = state.replace(env=vec_reset(self.env, jax.random.fold_in(pool_key, 1), shape[1]))
        keeps_some = self.num_final < shape[0]

        def env_step(carry: tuple, now: tuple) -> tuple[tuple, Seen]:
            vec_state, memory, num_resets, final = carry
            step_noise, step_key = now
            obs, start = vec_state.obs, vec_state.episode_length == 0
            acted = self.act(state.params, state.normalizer, obs, step_noise, hparams, env_steps, memory, start)
            after, transition, num_resets = vec_step(self.env, step_key, vec_state, acted.env_action, pool, num_resets)
            beyond: tuple = (transition.final_obs, acted.carry)
            if keeps_some:
                final, beyond = keep_final(final, beyond, transition.truncated), ()
            seen = Seen(obs, start, acted.action, acted.policy, transition.replace(final_obs=()), beyond)
            return (after, acted.carry, num_resets, final), seen

        final = self.no_final(state) if keeps_some else ()
        carry: tuple = (state.env, state.carry, jnp.zeros((), jnp.int32), final)
        (vec_state, memory, _, final), seen = packing.scan(env_step, carry, (noise, step_keys), shape[1])
        if keeps_some:
            seen = seen._replace(beyond=jax.tree.map(lambda x: x.swapaxes(0, 1), final[0]))
        rollout, normalizer = self.look_back(state, hparams, seen, (vec_state.obs, memory))
        rollout = rollout.replace(env_steps=jnp.full_like(rollout.reward, env_steps))
        return state.replace(env=vec_state, carry=memory, normalizer=normalizer), rollout, seen

    def no_final(self, state: State) -> tuple[PyTree, Array]:
        """Room for the final observations and hidden states of a rollout, and how many of it are taken."""
        like = (state.env.obs, state.carry)
        empty = jax.tree.map(lambda x: jnp.zeros((len(x), self.num_final, *x.shape[1:]), x.dtype), like)
        return empty, jnp.zeros(self.share.num_envs, jnp.int32)

    def look_back(
        self, state: State, hparams: Any, seen: Seen, last: tuple[Array, PyTree]
    ) -> tuple[Rollout, normalize.Normalizer]:
        """Evaluate the network on the whole rollout at once, and at the successors that the rollout does not hold: each with
        the hidden state that its step left."""
        normalizer, transition, together = state.normalizer, seen.transition, self.gathered
        reward, terminated, truncated = transition.reward, transition.terminated, transition.truncated
        done = terminated | truncated
        if self.config.time_limit_terminates:
            terminated, truncated = done, jnp.zeros_like(done)
        obs = normalize.normalize_obs(normalizer, seen.obs)
        beyond, memory = jax.tree.map(lambda x, more: flatten(jnp.concatenate([x[None], more])), last, seen.beyond)
        beyond = normalize.normalize_obs(normalizer, beyond)
        # The policy is the one that acted: computed again beside features that one rule reads and another does not, its
        # last bits could differ, and PFO(0) would not be PPO.
        output = self.agent.sequence(state.params, state.carry, obs, seen.start).replace(policy=seen.policy)
        _, output_beyond = self.agent.step(state.params, memory, beyond, jnp.zeros(len(beyond), bool))
        output_beyond = self.rule.successor(output_beyond)
        output_beyond = jax.tree.map(lambda x: x.reshape(-1, self.share.num_envs, *x.shape[1:]), output_beyond)
        if self.config.normalize_rewards:
            clip = self.config.reward_clip
            normalizer, reward = normalize.scale_rewards(normalizer, reward, done, hparams.gamma, together, clip)
        if self.config.normalize_observations == "running":
            normalizer = normalize.take_in(normalizer, together(seen.obs))
        following = jax.tree.map(
            functools.partial(successor, truncated=truncated, stored_whole=self.num_final == self.share.num_steps),
            self.rule.successor(output),
            output_beyond,
        )
        return Rollout(
            obs=obs,
            action=seen.action,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            output=output,
            next_output=following,
            next_online=following,
            discount=jnp.full_like(reward, hparams.gamma),
        ), normalizer

    def learn(self, learner: Learner, samples: Samples, key: Array, context: Context) -> tuple[Learner, Metrics]:
        """E epochs of minibatches over an update's data, each in an order of its own.

        Returns:
            the learner after them, and the mean of each metric.
        """
        learner = act_on(self.interventions, "before", self.net, learner, context)
        num_updates = self.share.num_epochs * self.share.num_minibatches
        # Where there is one minibatch the order means nothing.
        indices = self.orders(key) if self.share.num_minibatches > 1 else self.in_order()
        others = self.orders(jax.random.fold_in(key, 1)) if self.has_penalty else ()
        lying = self.layout(learner.params)
        deck = packing.Deck(samples, self.num_samples)

        def minibatch(carry: tuple[Learner, Array], now: tuple) -> tuple[tuple[Learner, Array], tuple]:
            learner, stopped = carry
            i, index, dealt, other = now
            part, apart = deck.part(index, dealt), take(samples, other) if self.has_penalty else ()
            told = context._replace(key=jax.random.fold_in(context.key, i))
            after, logged = self.improve_on(learner, part, apart, told, lying)
            if self.share.stop_at_kl:
                stopped = stopped | (logged["approx_kl"] > context.hparams.target_kl)
                after = jax.tree.map(lambda new, old: jnp.where(stopped, old, new), after, learner)
                logged |= {"minibatches_skipped": stopped.astype(jnp.float32) * num_updates}
            return (after, stopped), (logged, ())

        xs = (jnp.arange(num_updates), indices, deck.deal(indices), others)
        carry = (lying.pack(learner), jnp.zeros((), bool))
        (learner, _), (logged, _) = packing.metrics_scan(minibatch, carry, xs)
        return lying.unpack(learner), self.shards.mean({name: x.mean() for name, x in logged.items()})

    @functools.cached_property
    def has_penalty(self) -> bool:
        """Whether an intervention adds to the loss."""
        return any(i.penalty is not None for i in self.interventions)

    def orders(self, key: Array) -> Array:
        """``[E · M, samples of a minibatch]`` indices: each epoch all samples, in a random order."""
        order = shuffles(key, self.share.num_epochs, self.num_samples)
        return order.reshape(self.share.num_epochs * self.share.num_minibatches, -1)

    def in_order(self) -> Array:
        """The same, not shuffled."""
        return jnp.broadcast_to(jnp.arange(self.num_samples), (self.share.num_epochs, self.num_samples))

    def improve_on(
        self, learner: Learner, part: Samples, other: Any, context: Context, lying: Trees
    ) -> tuple[Learner, Metrics]:
        """One gradient step on a minibatch; ``other`` are samples drawn apart from it, for penalties."""

        def loss(params: PyTree) -> tuple[Array, Metrics]:
            return self.net.loss(params, part, context.hparams)

        (value, logged), grads = jax.value_and_grad(loss, has_aux=True)(lying.shown(learner.params))
        grads = lying.gradient(grads)
        if self.has_penalty:
            tree = lying.unpack(learner)
            penalties, more = penalty_gradient(self.interventions, self.net, tree, part, other, context.hparams)
            # Apart, so that the rule's gradient is computed as without penalties.
            grads, penalties = jax.lax.optimization_barrier((grads, lying.arrays(penalties)))
            grads, logged = jax.tree.map(jnp.add, grads, penalties), logged | more
        learner, norms = self.improve(learner, self.shards.mean(grads), context, lying)
        return learner, logged | {"loss": value} | norms

    def told(self, rollout: Rollout, transition: Transition) -> Metrics:
        """What an update's data say: its episodes, and the values that the network gave its states."""
        counted = None
        if self.config.episodic:
            counted = returns.first_episode(transition.terminated | transition.truncated)
            transition = jax.tree.map(lambda x, c=counted: jnp.where(c, x, jnp.zeros((), x.dtype)), transition)
        logged = episode_metrics(self.gathered(transition))
        value, counted = self.gathered((greedy_value(rollout.output), counted))
        return logged | {"value": value.mean(where=counted), "value_std": value.std(where=counted)}

    def sample(self, samples: Samples) -> Samples:
        """At most ``metrics_samples`` of an update's data, of all environments and devices."""
        if isinstance(self.agent, Recurrent):
            most = -(-self.share.metrics_samples // self.share.num_steps) or self.share.num_envs
            count = min(most, self.share.num_envs)
            index = jnp.arange(count) * self.share.num_envs // count
        else:
            index = spread(self.num_samples, self.share.num_envs, self.share.metrics_samples)
        return self.shards.gather(take(samples, index), axis=0)

    def gathered(self, x: PyTree) -> PyTree:
        """Leaves ``[T, N, ...]`` of all devices' environments."""
        return self.shards.gather(x, axis=1)


def take(samples: Samples, index: Array) -> Samples:
    """Some of the samples."""
    return jax.tree.map(lambda x: x[index], samples)


def shuffles(key: Array, count: int, size: int) -> Array:
    """``[count, size]`` random orders of 0 … size − 1, each from sorting random numbers.

    The index rides in a number's low bits, which spares the sort a second operand and the comparison a function (measured
    on a CPU: a quarter of the time of ``argsort``). Of two equal high parts the smaller index goes first, which at 2¹⁴
    and 18 random bits concerns one pair in 2¹⁸; larger sizes are sorted the plain way.
    """
    bits = jax.random.bits(key, (count, size))
    width = max(size - 1, 1).bit_length()
    if width > 14:
        return jnp.argsort(bits)
    packed = (bits >> width << width) | jnp.arange(size, dtype=jnp.uint32)[None]
    mask = jnp.uint32((1 << width) - 1)
    return (jax.lax.sort(packed, is_stable=False) & mask).astype(jnp.int32)


def keep_final(final: tuple[PyTree, Array], now: PyTree, truncated: Array) -> tuple[PyTree, Array]:
    """Put what belongs to episodes truncated just now into each environment's next slot of ``[N, K, ...]``."""
    stored, count = final
    slots = jnp.arange(jax.tree.leaves(stored)[0].shape[1])[None]
    here = (slots == count[:, None]) & truncated[:, None]

    def put(stored: Array, now: Array) -> Array:
        return jnp.where(here.reshape(here.shape + (1,) * (stored.ndim - 2)), now[:, None], stored)

    return jax.tree.map(put, stored, now), count + truncated


def successor(inside: Array, beyond: Array, *, truncated: Array, stored_whole: bool) -> Array:
    """A value ``[T, N, ...]`` at each step's true successor.

    Args:
        inside: ``[T, N, ...]`` at the rollout's own observations.
        beyond: ``[1 + K, N, ...]`` at the observation after the last step, then at the final observations: of every
            step if ``stored_whole`` (K = T), else of each environment's truncated steps in order.
    """
    following = jnp.concatenate([inside[1:], beyond[:1]])
    final = beyond[1:]
    if final.shape[0] == 0:
        return following
    if not stored_whole:
        nth = jnp.clip(jnp.cumsum(truncated, axis=0) - 1, 0, final.shape[0] - 1)
        final = jnp.take_along_axis(final, nth.reshape(nth.shape + (1,) * (final.ndim - 2)), axis=0)
    return jnp.where(truncated.reshape(truncated.shape + (1,) * (final.ndim - 2)), final, following)
