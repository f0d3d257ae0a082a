"""What both kinds of loop are made of: a :class:`Loop` is a frozen record of a rule, where it acts, and what it acts with."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_ext.devices import launches_cost
from purejaxrl_ext.envs.base import Environment
from purejaxrl_ext.envs.vector import reset_pool, vec_reset, vec_step
from purejaxrl_ext.interventions.base import Context, Intervention, act_after, act_on, first_memory
from purejaxrl_ext.loops import normalize, optim, packing
from purejaxrl_ext.loops.layouts import Trees, layout
from purejaxrl_ext.loops.measure import measured
from purejaxrl_ext.loops.memory import FeedForward, Recurrent, Samples, adapt
from purejaxrl_ext.networks import policies, short_axis
from purejaxrl_ext.networks.structure import layers
from purejaxrl_ext.rules.schedules import anneal
from purejaxrl_ext.spaces import uniform_legal
from purejaxrl_ext.types import Acted, Array, Learner, Metrics, Net, Output, PyTree, Rule, State, VecState


def f32(hparams: PyTree) -> PyTree:
    """Settings as float32 arrays, so that every value of them has one type and so one compiled program."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hparams)


@dataclasses.dataclass(frozen=True, eq=False)
class Loop:
    """A way of collecting data, around a rule.

    Attributes:
        rule: the learning rule.
        env: the environment.
        network: a module from observations ``[B, ...]`` to an Output, or a recurrent one (:mod:`~purejaxrl_ext.loops.memory`).
        config: what fixes shapes, loop lengths and code paths.
        optimizer: ``(hparams, learning_rate) -> optax.GradientTransformation``.
        interventions: what else changes how the network learns, in order.
        metrics: more measures of an update, ``(net, before, after, samples, hparams) -> {name: scalar}``: parameters before and
            after it, and a sample of its data; computed where the representation is measured.
    """

    rule: Rule
    env: Environment
    network: Any
    config: Any
    optimizer: optim.Optimizer = optim.adam
    interventions: tuple[Intervention, ...] = ()
    metrics: tuple[Callable[..., Metrics], ...] = ()

    @functools.cached_property
    def agent(self) -> FeedForward | Recurrent:
        """The network as the loop uses it."""
        return adapt(self.network)

    @functools.cached_property
    def net(self) -> Net:
        """The network and its rule as interventions and added metrics see them."""

        def init(key: Array) -> PyTree:
            # One environment's observation: only its shape matters.
            return self.agent.init(key, jax.vmap(self.env.reset)(key[None])[1])

        def loss(params: PyTree, samples: Samples, hparams: Any) -> tuple[Array, Metrics]:
            return self.rule.loss(*self.agent.evaluate(params, samples), hparams)

        def first_moments(params: PyTree, hparams: Any) -> PyTree:
            return optim.init(self.optimizer, hparams, params, self.config.separate_optimizers)

        return Net(init, self.agent.evaluate, loss, functools.partial(layers, self.network), first_moments)

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one ``step``, over all environments."""
        return self.config.steps_per_update

    @property
    def metrics_every(self) -> int:
        """Updates between measurements of the representation; 0: never."""
        return self.config.metrics_every

    @property
    def data_parallel(self) -> int:
        """Devices that share each run."""
        return getattr(self.config, "data_parallel", 1)

    def noise(self, key: Array, shape: tuple[int, ...]) -> Array:
        """All the action randomness of a rollout of leading ``shape``."""
        return self.rule.noise(key, shape)

    def initial_carry(self, num_envs: int) -> PyTree:
        """The hidden state before an episode's first observation; () without a memory."""
        return self.agent.initial_carry(num_envs)

    def first_state(self, hparams: Any, params_key: Array, env_key: Array, normalizer_key: Array, key: Array) -> State:
        """A State before the first update, as far as all loops share it."""
        vec_state = vec_reset(self.env, env_key, self.config.num_envs)
        params = self.agent.init(params_key, vec_state.obs)
        return State(
            params=params,
            opt_state=self.net.first_moments(params, f32(hparams)),
            env=vec_state,
            key=key,
            update=jnp.zeros((), jnp.int32),
            carry=self.agent.initial_carry(self.config.num_envs),
            normalizer=first_normalizer(self.env, self.config, normalizer_key),
            memory=first_memory(self.interventions, params_key, params),
        )

    def act(
        self,
        params: PyTree,
        normalizer: Any,
        obs: Array,
        noise: Any,
        hparams: Any,
        env_steps: Array,
        carry: PyTree = None,
        start: Array | None = None,
    ) -> Acted:
        """What loops and evaluation do with an observation; see :class:`~purejaxrl_ext.types.Algorithm`."""
        carry = self.agent.initial_carry(len(obs)) if carry is None else carry
        start = jnp.zeros(len(obs), bool) if start is None else start
        carry, output = self.agent.step(params, carry, normalize.normalize_obs(normalizer, obs), start)
        action = self.rule.act(output, noise, hparams, env_steps)
        return Acted(policies.to_env(output.policy, action, self.env.action_space), action, output.policy, carry)

    def context(self, state: State, hparams: Any, env_steps: Array) -> Context:
        """What the hooks of an update are told; its key is apart from the update's own streams."""
        learning_rate = anneal(hparams.learning_rate, hparams.anneal_steps, env_steps)
        hparams = self.rule.schedule(hparams, env_steps)
        return Context(hparams, state.update, jax.random.fold_in(state.key, 0x1E4), learning_rate)

    def layout(self, params: PyTree) -> Trees:
        """How parameters and moments lie while the optimiser steps them."""
        if not launches_cost() or self.optimizer not in optim.ELEMENTWISE:
            return Trees()
        return layout(params, self.config.separate_optimizers, together=getattr(self.agent.whole, "together", False))

    def improve(self, learner: Learner, grads: PyTree, context: Context, lying: Trees) -> tuple[Learner, Metrics]:
        """One step of the optimiser, and what interventions do after it; learner and gradients lie as ``lying`` says."""
        made = optim.apply(
            self.optimizer,
            grads,
            learner.opt_state,
            learner.params,
            context.hparams,
            context.learning_rate,
            self.config.separate_optimizers,
            lying,
        )
        learner = learner.replace(params=made.params, opt_state=made.opt_state)
        if any(i.each is not None for i in self.interventions):
            learner = lying.pack(act_on(self.interventions, "each", self.net, lying.unpack(learner), context))
        return learner, made.norms

    def finish(
        self,
        state: State,
        before: PyTree,
        logged: Metrics,
        measure: Array | None,
        sample: Callable[[], Samples],
        context: Context,
    ) -> tuple[State, Metrics]:
        """After an update's learning: measure the representation where that is due, intervene, and count the update.

        Args:
            state: after the learning.
            before: the parameters before it.
            logged: the update's metrics so far.
            measure: whether the representation is measured; None: every ``metrics_every``.
            sample: gives some of the update's data.
            context: of the update.
        """
        if self.config.metrics_every:
            due = state.update % self.config.metrics_every == 0 if measure is None else measure
            logged = logged | measured(self, due, before, state.params, sample, context.hparams)
        if any(i.after is not None for i in self.interventions):
            learner, more = act_after(self.interventions, self.net, state.learner, sample(), context)
            state, logged = state.learned(learner), logged | more
        return state.replace(update=state.update + 1), logged


def greedy_value(output: Output) -> Array:
    """V(s), or max_a Q(s, a)."""
    return short_axis.largest(output.q_values) if isinstance(output.q_values, jax.Array) else output.value


def first_normalizer(env: Environment, config: Any, key: Array) -> Any:
    """The statistics that the config asks for, before any data or of random steps; ()."""
    normalize_rewards = getattr(config, "normalize_rewards", False)
    if not (config.normalize_observations or normalize_rewards):
        return ()
    normalizer = normalize.Normalizer(clip=config.observation_clip)
    if normalize_rewards:
        normalizer = normalizer.replace(
            reward=normalize.empty(()), discounted_return=jnp.zeros(config.num_envs, jnp.float32)
        )
    if config.normalize_observations:
        # What a wrapper appends, as the time, is scaled already.
        *lead, last = env.observation_shape or (0,)
        shape = (*lead, last - getattr(env, "appended", 0)) if env.observation_shape else ()
        normalizer = normalizer.replace(obs=normalize.empty(shape))
    if config.normalize_observations == "frozen":
        reset_key, step_key = jax.random.split(key)
        num_steps = -(-config.normalizer_steps // config.num_envs)
        fresh = vec_reset(env, reset_key, config.num_envs)
        _, obs, _, _ = random_steps(env, fresh, step_key, num_steps, config.normalizer_steps // 4)
        normalizer = normalize.take_in(normalizer, obs)
    return normalizer


def random_steps(
    env: Environment, vec_state: VecState, key: Array, num_steps: int, pool_size: int
) -> tuple[VecState, Array, Array, Any]:
    """``num_steps`` steps of N environments under uniformly random actions, legal ones alone: the environments after them, and
    observations, actions and transitions ``[T, N, ...]``."""
    num_envs = vec_state.episode_length.shape[0]
    pool_key, action_key, env_key = jax.random.split(key, 3)
    pool = reset_pool(env, pool_key, max(num_envs, pool_size))
    shape, legal = (num_steps, num_envs), getattr(env, "legal_actions", None)
    if legal is None:
        drawn = policies.uniform_actions(action_key, shape, env.action_space)
    else:
        drawn = jax.random.uniform(action_key, shape, jnp.float32)

    def step(carry: tuple, now: tuple) -> tuple[tuple, tuple]:
        vec_state, num_resets = carry
        action, keys = now
        if legal is not None:
            action = uniform_legal(action, jax.vmap(legal)(vec_state.env_state))
        after, transition, num_resets = vec_step(env, keys, vec_state, action, pool, num_resets)
        return (after, num_resets), (vec_state.obs, action, transition)

    keys = jax.random.split(env_key, (num_steps, num_envs))
    first = (vec_state, jnp.zeros((), jnp.int32))
    carry, (obs, actions, transition) = packing.scan(step, first, (drawn, keys), num_envs)
    return carry[0], obs, actions, transition
