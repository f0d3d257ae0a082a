"""Loops: ways of collecting data, which turn a rule into an algorithm.

    on_policy     T steps of N environments with the current network, then epochs of minibatches over them
    off_policy    U times: a few steps of N environments into a replay, then one gradient update on a batch drawn from it

A loop's ``step`` is a pure function of a :class:`~purejaxrl_ext.types.State`, which holds no function and no tracer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_ext.envs.base import Environment
from purejaxrl_ext.envs.vector import Transition, max_truncations, reset_pool, vec_reset, vec_step
from purejaxrl_ext.errors import check
from purejaxrl_ext.loops import normalize, optim, replay
from purejaxrl_ext.loops.memory import FeedForward, Recurrent, Samples, adapt, flatten
from purejaxrl_ext.loops.shards import Shards
from purejaxrl_ext.networks import policies
from purejaxrl_ext.representation import metrics
from purejaxrl_ext.rules import dqn, returns
from purejaxrl_ext.types import Acted, Array, Metrics, Output, PyTree, Rollout, Rule, State, VecState


def f32(hparams: PyTree) -> PyTree:
    """Settings as float32 arrays, so that every value of them has one type and so one compiled program."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hparams)


class Functions(NamedTuple):
    """What a loop makes of a rule; see :class:`~purejaxrl_ext.types.Algorithm` for what the functions do."""

    init: Callable[..., State]
    step: Callable[..., tuple[State, Metrics]]
    act: Callable[..., Acted]
    noise: Callable[..., Array]
    initial_carry: Callable[[int], PyTree]
    steps_per_update: int
    metrics_every: int
    data_parallel: int = 1


def on_policy(rule: Rule, env: Environment, network: Any, config: Any) -> Functions:
    """Collect T × N transitions with the current network, aim with ``rule.targets``, and learn for E epochs.

    With ``config.episodic`` every environment begins the rollout with a fresh episode, and the metrics count that one alone.
    Minibatches are of transitions; with a memory, of whole sequences. With ``config.data_parallel`` all but ``init`` is of one
    device's share of the environments (see :mod:`~purejaxrl_ext.loops.shards`).

    Args:
        rule: the learning rule.
        env: the environment.
        network: a flax module from observations ``[B, ...]`` to an Output, or a recurrent one (:mod:`~purejaxrl_ext.loops.memory`).
        config: an :class:`~purejaxrl_ext.algorithms.config.OnPolicyConfig`.

    Returns:
        ``init(key, hparams) -> State`` and ``step(state, hparams, measure) -> (State, metrics)``.

    Raises:
        ValueError: ``num_minibatches`` does not divide the sequences of a network with a memory; when ``step`` is traced:
            there are fewer devices than ``data_parallel``.
    """
    whole, shards = config, Shards(config.data_parallel)
    config = shards.part(whole)
    num_steps, num_envs = config.num_steps, config.num_envs
    num_final = 0 if config.time_limit_terminates else max_truncations(env, num_steps)
    agent = adapt(network)
    act = make_act(rule, env, agent)
    num_samples = num_envs if isinstance(agent, Recurrent) else config.steps_per_update
    share = " / data_parallel = " if shards.num_devices > 1 else "="
    allowed = f"a divisor of num_envs{share}{num_envs}: minibatches are of whole sequences"
    check(num_samples % config.num_minibatches == 0, "num_minibatches", config.num_minibatches, allowed)

    # Of leaves [T, N, ...], all devices' environments.
    together = functools.partial(shards.gather, axis=1)

    def init(key: Array, hparams: Any) -> State:
        return first_state(env, agent, whole, hparams, *jax.random.split(key, 4))

    def collect(state: State, hparams: Any, keys: tuple, env_steps: Array) -> tuple[State, Rollout, Seen]:
        noise_key, env_key, pool_key = keys
        pool = reset_pool(env, pool_key, config.pool_size)
        noise = rule.noise(noise_key, (num_steps, num_envs))
        step_keys = jax.random.split(env_key, (num_steps, num_envs))
        if config.episodic:
            state = state.replace(env=vec_reset(env, jax.random.fold_in(pool_key, 1), num_envs))

        def env_step(carry: tuple, now: tuple) -> tuple[tuple, Seen]:
            vec_state, memory, num_resets, final = carry
            step_noise, step_key = now
            obs, start = vec_state.obs, vec_state.episode_length == 0
            acted = act(state.params, state.normalizer, obs, step_noise, hparams, env_steps, memory, start)
            after, transition, num_resets = vec_step(env, step_key, vec_state, acted.env_action, pool, num_resets)
            beyond: tuple = (transition.final_obs, acted.carry)
            if num_final < num_steps:
                final, beyond = _keep_final(final, beyond, transition.truncated), ()
            transition = transition.replace(final_obs=())
            seen = Seen(obs, start, acted.action, acted.policy, transition, beyond)
            return (after, acted.carry, num_resets, final), seen

        final: tuple = ()
        if num_final < num_steps:
            like = (state.env.obs, state.carry)
            stored = jax.tree.map(lambda x: jnp.zeros((num_final, *x.shape), x.dtype), like)
            final = (stored, jnp.zeros(num_envs, jnp.int32))
        carry: tuple = (state.env, state.carry, jnp.zeros((), jnp.int32), final)
        (vec_state, memory, _, final), seen = jax.lax.scan(env_step, carry, (noise, step_keys))
        if num_final < num_steps:
            seen = seen._replace(beyond=final[0])
        rollout, normalizer = finish(state, hparams, seen, (vec_state.obs, memory))
        rollout = rollout.replace(env_steps=jnp.full_like(rollout.reward, env_steps))
        return state.replace(env=vec_state, carry=memory, normalizer=normalizer), rollout, seen

    def finish(state: State, hparams: Any, seen: Seen, last: tuple[Array, PyTree]) -> tuple[Rollout, Any]:
        """Evaluate the network on the whole rollout at once, and at the successors that the rollout does not hold: each with
        the hidden state that its step left."""
        params, normalizer, transition = state.params, state.normalizer, seen.transition
        reward, terminated, truncated = transition.reward, transition.terminated, transition.truncated
        done = terminated | truncated
        if config.time_limit_terminates:
            terminated, truncated = done, jnp.zeros_like(done)
        obs = normalize.normalize_obs(normalizer, seen.obs)
        beyond, memory = jax.tree.map(lambda x, more: flatten(jnp.concatenate([x[None], more])), last, seen.beyond)
        beyond = normalize.normalize_obs(normalizer, beyond)
        # The policy is the one that acted: computed again beside features that one rule reads and another does not, its
        # last bits could differ, and PFO(0) would not be PPO.
        output = agent.sequence(params, state.carry, obs, seen.start).replace(policy=seen.policy)
        output_beyond = values_of(agent.step(params, memory, beyond, jnp.zeros(len(beyond), bool))[1])
        output_beyond = jax.tree.map(lambda x: x.reshape(-1, num_envs, *x.shape[1:]), output_beyond)
        if config.normalize_rewards:
            normalizer, reward = normalize.scale_rewards(normalizer, reward, done, hparams.gamma, together)
        if config.normalize_observations == "running":
            normalizer = normalizer.replace(obs=normalize.update(normalizer.obs, together(seen.obs)))
        successor = functools.partial(_successor, truncated=truncated, stored_whole=num_final == num_steps)
        return Rollout(
            obs=obs,
            action=seen.action,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            output=output,
            next_output=(following := jax.tree.map(successor, values_of(output), output_beyond)),
            next_online=following,
            discount=jnp.full_like(reward, hparams.gamma),
        ), normalizer

    def learn(
        params: PyTree, opt_state: PyTree, samples: Samples, key: Array, hparams: Any, learning_rate: Array
    ) -> tuple[PyTree, PyTree, Metrics]:
        # Where there is one minibatch the order means nothing.
        shape = (config.num_epochs, num_samples)
        order = shuffles(key, *shape) if config.num_minibatches > 1 else jnp.broadcast_to(jnp.arange(shape[1]), shape)

        def minibatch(carry: tuple, index: Array) -> tuple[tuple, Metrics]:
            params, opt_state = carry
            part = jax.tree.map(lambda x: x[index], samples)

            def loss(params: PyTree) -> tuple[Array, Metrics]:
                return rule.loss(*agent.evaluate(params, part), hparams)

            (value, logged), grads = jax.value_and_grad(loss, has_aux=True)(params)
            params, opt_state, norm = optim.apply(
                shards.mean(grads), opt_state, params, hparams, learning_rate, config.separate_optimizers
            )
            return (params, opt_state), logged | {"loss": value, "grad_norm": norm}

        indices = order.reshape(config.num_epochs * config.num_minibatches, -1)
        (params, opt_state), logged = jax.lax.scan(minibatch, (params, opt_state), indices)
        return params, opt_state, shards.mean({name: x.mean() for name, x in logged.items()})

    def step(state: State, hparams: Any, measure: Array | None = None) -> tuple[State, Metrics]:
        hparams = f32(hparams)
        key, *own = jax.random.split(state.key, 5)
        noise_key, env_key, pool_key, learn_key = map(shards.fold, own)
        env_steps = state.update.astype(jnp.float32) * whole.steps_per_update
        learning_rate = optim.anneal(hparams.learning_rate, hparams.anneal_steps, env_steps)

        before, first_carry = state.params, state.carry
        state, rollout, seen = collect(state, hparams, (noise_key, env_key, pool_key), env_steps)
        samples = agent.samples(rule.targets(rollout, hparams), seen.start, first_carry)
        params, opt_state, logged = learn(before, state.opt_state, samples, learn_key, hparams, learning_rate)

        counted, transition = None, seen.transition
        if config.episodic:
            counted = returns.first_episode(transition.terminated | transition.truncated)
            transition = jax.tree.map(lambda x: jnp.where(counted, x, jnp.zeros((), x.dtype)), transition)
        logged |= episode_metrics(together(transition))
        logged["value"] = together(greedy_value(rollout.output)).mean(where=together(counted))
        state = state.replace(params=params, opt_state=opt_state, key=key)

        def sample() -> Samples:
            some = jax.tree.map(lambda x: x[:: spread(config.steps_per_update, config)], samples)
            return shards.gather(some, axis=0)

        return finish_step(rule, agent, config, state, before, logged, measure, sample, hparams)

    return Functions(
        init,
        shards.spread(step),
        act,
        rule.noise,
        agent.initial_carry,
        whole.steps_per_update,
        config.metrics_every,
        shards.num_devices,
    )


def off_policy(rule: Rule, env: Environment, network: Any, config: Any) -> Functions:
    """U times: step N environments into the replay, then learn from one batch drawn from it.

    A static nested scan: no ``cond`` decides whether to learn, so none copies the replay, and no modulo of steps starves
    the learning. Randomness is drawn once for all U.

    Args:
        rule: its ``targets`` see a Rollout with leaves ``[B, ...]``, whose ``next_output`` is the target network's.
        env: the environment.
        network: a flax module from observations ``[B, ...]`` to an Output with ``q_values``.
        config: a :class:`~purejaxrl_ext.algorithms.config.DQNConfig`.
    """
    num_envs, capacity, num_updates = config.num_envs, config.replay_capacity, config.updates_per_step
    per_update, num_steps = config.env_steps_per_update, config.env_steps_per_update // config.num_envs
    agent = adapt(network)
    check(isinstance(agent, FeedForward), "network", type(network).__name__, "one without a memory for a replay")
    act = make_act(rule, env, agent)
    margin = (config.n_step - 1) * num_envs
    aligned = capacity % per_update == 0 and config.prefill_steps % per_update == 0

    def init(key: Array, hparams: Any) -> State:
        params_key, env_key, prefill_key, normalizer_key, key = jax.random.split(key, 5)
        state = first_state(env, agent, config, hparams, params_key, env_key, normalizer_key, key)
        vec_state, obs, action, transition = random_steps(
            env, state.env, prefill_key, config.prefill_steps // num_envs, config.prefill_steps // 16
        )
        held = replay.create(jax.tree.map(flatten, stored(obs, action, transition)), capacity)
        if config.prioritized:
            held = held.replace(priorities=replay.first_priorities(capacity, config.prefill_steps - margin))
        return state.replace(target_params=state.params, env=vec_state, replay=held)

    def collect(
        state: State, hparams: Any, noise: Array, keys: Array, pool: Any, num_resets: Array, env_steps: Array
    ) -> tuple[State, Array, replay.Replay, Transition]:
        def env_step(carry: tuple, now: tuple) -> tuple[tuple, tuple]:
            vec_state, num_resets = carry
            action = act(state.params, state.normalizer, vec_state.obs, now[0], hparams, env_steps).env_action
            after, transition, num_resets = vec_step(env, now[1], vec_state, action, pool, num_resets)
            return (after, num_resets), (vec_state.obs, action, transition)

        (vec_state, num_resets), (obs, action, transition) = jax.lax.scan(
            env_step, (state.env, num_resets), (noise, keys)
        )
        return state.replace(env=vec_state), num_resets, stored(obs, action, transition), transition

    def draw(state: State, hparams: Any, bits: Array, slot: Array, held: Array) -> tuple[Rollout, Array, Array]:
        """A batch as a Rollout, with the slots and the probabilities (relative to uniform: N P(i)) of its transitions."""
        ring = state.replay
        if config.prioritized:
            slots, probability = replay.proportional(ring.priorities, uniform_floats(bits))
            relative = probability * held
        else:
            slots = replay.uniform(bits, slot, held, capacity, margin)
            relative = jnp.ones(len(slots))
        reward, discount, last = replay.window(ring, slots, num_envs, config.n_step, hparams.gamma)
        next_obs = normalize.normalize_obs(state.normalizer, ring.next_obs[last])
        rollout = Rollout(
            obs=normalize.normalize_obs(state.normalizer, ring.obs[slots]),
            action=ring.action[slots],
            reward=reward,
            terminated=ring.terminated[last] | (config.time_limit_terminates & ring.truncated[last]),
            truncated=ring.truncated[last],
            output=Output(),
            next_output=values_of(network.apply(state.target_params, next_obs)),
            next_online=values_of(network.apply(state.params, next_obs)),
            discount=discount,
        )
        return rollout, slots, relative

    def learn(
        state: State, rollout: Rollout, weight: Array, hparams: Any, learning_rate: Array
    ) -> tuple[State, Metrics]:
        batch = rule.targets(rollout, hparams)
        batch = batch.replace(weight=batch.weight * weight)

        def loss(params: PyTree) -> tuple[Array, Any]:
            output = network.apply(params, batch.obs)
            value, logged = rule.loss(output, batch, hparams)
            return value, logged | {"value": greedy_value(output).mean()}

        (value, logged), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        params, opt_state, norm = optim.apply(grads, state.opt_state, state.params, hparams, learning_rate, False)
        return state.replace(params=params, opt_state=opt_state), logged | {"loss": value, "grad_norm": norm}

    def step(state: State, hparams: Any, measure: Array | None = None) -> tuple[State, Metrics]:
        hparams = f32(hparams)
        key, noise_key, env_key, pool_key, draw_key, sample_key = jax.random.split(state.key, 6)
        pool = reset_pool(env, pool_key, config.pool_size)
        noise = rule.noise(noise_key, (num_updates, num_steps, num_envs))
        step_keys = jax.random.split(env_key, (num_updates, num_steps, num_envs))
        bits = jax.random.bits(draw_key, (num_updates, config.batch_size))
        first_slot, first_held = replay.position(config.prefill_steps, num_updates * per_update, state.update, capacity)
        before_steps = state.update.astype(jnp.float32) * config.steps_per_update
        learning_rate = optim.anneal(hparams.learning_rate, hparams.anneal_steps, before_steps)

        def update(carry: tuple, now: tuple) -> tuple[tuple, tuple]:
            state, num_resets = carry
            i, noise, keys, bits = now
            env_steps = before_steps + i.astype(jnp.float32) * per_update
            state, num_resets, new, transition = collect(state, hparams, noise, keys, pool, num_resets, env_steps)
            slot = (first_slot + i * per_update) % capacity
            ring = replay.add(state.replay, jax.tree.map(flatten, new), slot, aligned)
            if config.prioritized:
                ring = ring.replace(
                    priorities=replay.open_and_close(
                        ring.priorities, slot, per_update, num_envs, config.n_step, capacity
                    )
                )
            state = state.replace(replay=ring)

            slot, held = (slot + per_update) % capacity, jnp.minimum(first_held + (i + 1) * per_update, capacity)
            rollout, slots, relative = draw(state, hparams, bits, slot, held)
            weight = replay.importance_weights(relative, dqn.importance_exponent(hparams, env_steps))
            state, logged = learn(state, rollout, weight, hparams, learning_rate)
            if config.prioritized:
                priority = (logged["td_error"] + 1e-6) ** hparams.priority_exponent
                ring = state.replay.replace(priorities=replay.set_priorities(state.replay.priorities, slots, priority))
                state = state.replace(replay=ring)
            done_updates = state.update * num_updates + i + 1
            target = dqn.update_target(state.target_params, state.params, done_updates, hparams)
            logged = {name: x.mean() for name, x in logged.items()}
            seen = new.obs if config.normalize_observations == "running" else ()
            return (state.replace(target_params=target), num_resets), (logged, transition.replace(final_obs=()), seen)

        before, update_count = state.params, state.update
        xs = (jnp.arange(num_updates), noise, step_keys, bits)
        (state, _), (logged, transition, seen) = jax.lax.scan(update, (state, jnp.zeros((), jnp.int32)), xs)
        if config.normalize_observations == "running":
            state = state.replace(normalizer=state.normalizer.replace(obs=normalize.update(state.normalizer.obs, seen)))
        logged = {name: x.mean() for name, x in logged.items()} | episode_metrics(transition)
        state = state.replace(key=key, update=update_count)

        def sample() -> Samples:
            # The representation on states from the whole replay: a batch may hold fewer than the features' width.
            size = config.metrics_samples or capacity
            slot, held = replay.position(config.prefill_steps, num_updates * per_update, update_count + 1, capacity)
            slots = replay.uniform(jax.random.bits(sample_key, (size,)), slot, held, capacity, 0)
            return Samples(Observed(normalize.normalize_obs(state.normalizer, state.replay.obs[slots])))

        return finish_step(rule, agent, config, state, before, logged, measure, sample, hparams)

    return Functions(init, step, act, rule.noise, agent.initial_carry, config.steps_per_update, config.metrics_every)


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


class Observed(NamedTuple):
    """A batch of which only the observations matter."""

    obs: Array


def stored(obs: Array, action: Array, transition: Transition) -> replay.Replay:
    """Transitions as the replay keeps them, leaves ``[T, N, ...]``."""
    return replay.Replay(
        obs, action, transition.reward, transition.terminated, transition.truncated, transition.final_obs
    )


def uniform_floats(bits: Array) -> Array:
    """Random uint32 bits as floats in [0, 1): the upper 24, which float32 holds exactly."""
    return (bits >> 8).astype(jnp.float32) * 2.0**-24


def first_state(
    env: Environment,
    agent: FeedForward | Recurrent,
    config: Any,
    hparams: Any,
    params_key: Array,
    env_key: Array,
    normalizer_key: Array,
    key: Array,
) -> State:
    """A State before the first update, as far as all loops share it."""
    vec_state = vec_reset(env, env_key, config.num_envs)
    params = agent.init(params_key, vec_state.obs)
    return State(
        params=params,
        opt_state=optim.init(f32(hparams), params, config.separate_optimizers),
        env=vec_state,
        key=key,
        update=jnp.zeros((), jnp.int32),
        carry=agent.initial_carry(config.num_envs),
        normalizer=_init_normalizer(env, config, normalizer_key),
    )


def make_act(rule: Rule, env: Environment, agent: FeedForward | Recurrent) -> Callable[..., Acted]:
    """What both loops and evaluation do with an observation; see :class:`~purejaxrl_ext.types.Algorithm`."""

    def act(
        params: PyTree,
        normalizer: Any,
        obs: Array,
        noise: Any,
        hparams: Any,
        env_steps: Array,
        carry: PyTree = None,
        start: Array | None = None,
    ) -> Acted:
        carry = agent.initial_carry(len(obs)) if carry is None else carry
        start = jnp.zeros(len(obs), bool) if start is None else start
        carry, output = agent.step(params, carry, normalize.normalize_obs(normalizer, obs), start)
        action = rule.act(output, noise, hparams, env_steps)
        return Acted(policies.to_env(output.policy, action, env.action_space), action, output.policy, carry)

    return act


def finish_step(
    rule: Rule,
    agent: FeedForward | Recurrent,
    config: Any,
    state: State,
    before: PyTree,
    logged: Metrics,
    measure: Array | None,
    sample: Callable[[], Samples],
    hparams: Any,
) -> tuple[State, Metrics]:
    """Count the update, and measure the representation where that is due."""
    if config.metrics_every:
        due = state.update % config.metrics_every == 0 if measure is None else measure
        logged = logged | measured(rule, agent, config.feature_activation, due, before, state.params, sample, hparams)
    return state.replace(update=state.update + 1), logged


def spread(size: int, config: Any) -> int:
    """The stride that leaves at most ``metrics_samples`` of ``size`` samples."""
    return -(-size // config.metrics_samples) if config.metrics_samples else 1


def measured(
    rule: Rule,
    agent: FeedForward | Recurrent,
    activation: str,
    due: Array,
    before: PyTree,
    after: PyTree,
    sample: Callable[[], Samples],
    hparams: Any,
) -> Metrics:
    """The representation at the start and (suffix ``_end``) at the end of an update, on a sample; NaN unless ``due``."""

    def measure() -> Metrics:
        part = sample()
        (start, batch), (end, _) = (agent.evaluate(params, part) for params in (before, after))
        logged = metrics.output_metrics(start, activation)
        logged |= {f"{k}_end": v for k, v in metrics.output_metrics(end, activation).items()}
        return logged | rule.diagnose(start, end, batch, hparams)

    skipped = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), jax.eval_shape(measure))
    return jax.lax.cond(due, measure, lambda: skipped)


def episode_metrics(transition: Transition) -> Metrics:
    """Means over the episodes that ended in ``[T, N]`` transitions: sums over counts, NaN where none ended."""
    count = jnp.sum(transition.terminated | transition.truncated).astype(jnp.float32)
    some = jnp.where(count > 0, count, jnp.nan)
    return {
        "episode_return": transition.finished_return.sum() / some,
        "episode_length": transition.finished_length.sum() / some,
        "num_episodes": count,
    }


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


def values_of(output: Output) -> Output:
    """The part of an Output from which targets bootstrap."""
    return Output(value=output.value, q_values=output.q_values)


def greedy_value(output: Output) -> Array:
    """V(s), or max_a Q(s, a)."""
    return output.q_values.max(axis=-1) if isinstance(output.q_values, jax.Array) else output.value


def _keep_final(final: tuple[PyTree, Array], now: PyTree, truncated: Array) -> tuple[PyTree, Array]:
    """Put what belongs to episodes truncated just now into each environment's next slot of ``[K, N, ...]``."""
    stored, count = final
    slots = jnp.arange(jax.tree.leaves(stored)[0].shape[0])[:, None]
    here = (slots == count[None]) & truncated[None]

    def put(stored: Array, now: Array) -> Array:
        return jnp.where(here.reshape(here.shape + (1,) * (stored.ndim - 2)), now[None], stored)

    return jax.tree.map(put, stored, now), count + truncated


def _successor(inside: Array, beyond: Array, *, truncated: Array, stored_whole: bool) -> Array:
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


def _init_normalizer(env: Environment, config: Any, key: Array) -> Any:
    normalize_rewards = getattr(config, "normalize_rewards", False)
    if not (config.normalize_observations or normalize_rewards):
        return ()
    normalizer = normalize.Normalizer()
    if normalize_rewards:
        normalizer = normalizer.replace(reward=normalize.empty(()), discounted_return=jnp.zeros(config.num_envs))
    if config.normalize_observations:
        normalizer = normalizer.replace(obs=normalize.empty(env.observation_shape))
    if config.normalize_observations == "frozen":
        reset_key, step_key = jax.random.split(key)
        num_steps = -(-config.normalizer_steps // config.num_envs)
        fresh = vec_reset(env, reset_key, config.num_envs)
        _, obs, _, _ = random_steps(env, fresh, step_key, num_steps, config.normalizer_steps // 16)
        normalizer = normalizer.replace(obs=normalize.update(normalizer.obs, obs))
    return normalizer


def random_steps(
    env: Environment, vec_state: VecState, key: Array, num_steps: int, pool_size: int
) -> tuple[VecState, Array, Array, Transition]:
    """``num_steps`` steps of N environments under uniformly random actions: the environments after them, and
    observations, actions and transitions ``[T, N, ...]``."""
    num_envs = vec_state.episode_length.shape[0]
    pool_key, action_key, env_key = jax.random.split(key, 3)
    pool = reset_pool(env, pool_key, max(num_envs, pool_size))
    actions = policies.uniform_actions(action_key, (num_steps, num_envs), env.action_space)

    def step(carry: tuple, now: tuple) -> tuple[tuple, tuple]:
        vec_state, num_resets = carry
        action, keys = now
        after, transition, num_resets = vec_step(env, keys, vec_state, action, pool, num_resets)
        return (after, num_resets), (vec_state.obs, transition)

    keys = jax.random.split(env_key, (num_steps, num_envs))
    carry, (obs, transition) = jax.lax.scan(step, (vec_state, jnp.zeros((), jnp.int32)), (actions, keys))
    return carry[0], obs, actions, transition
