"""The pytrees and records that every algorithm shares.

Axis letters: T time, N environments, B batch, F features, A actions, S seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
from flax import struct

Array = jax.Array
PyTree = Any
Metrics = dict[str, Array]


def abstract_key() -> jax.ShapeDtypeStruct:
    """The shape of a random key, for ``jax.eval_shape``: a real one would be a first computation."""
    return jax.eval_shape(jax.random.key, 0)


@dataclass(frozen=True)
class Discrete:
    """Actions 0 … n − 1, int32 scalars."""

    n: int
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Box:
    """Real vectors of ``shape`` between ``low`` and ``high`` (tuples of one number per entry; may be infinite)."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.low),)

    @property
    def n(self) -> int:
        return len(self.low)


class Representation(struct.PyTreeNode):
    """What the hidden layers of one network said.

    Attributes:
        features: ``[..., F]`` the last hidden layer after its activation.
        preactivations: one ``[..., F_l]`` per hidden layer, first to last, flattened, before the activation.
    """

    features: Array
    preactivations: tuple[Array, ...]


class Output(struct.PyTreeNode):
    """What a network says about a batch of observations. Unused parts are ``()``.

    Attributes:
        policy: a policy record of ``purejaxrl_ext.networks.policies`` with leaves ``[..., A]``.
        value: ``[...]`` state values.
        q_values: ``[..., A]`` action values.
        actor: the policy network's :class:`Representation`.
        critic: that of the value network or of the Q-network.
    """

    policy: Any = ()
    value: Any = ()
    q_values: Any = ()
    actor: Any = ()
    critic: Any = ()


class Rollout(struct.PyTreeNode):
    """Transitions of one update, as a rule's ``targets`` sees them; every leaf but the last begins with ``[T, N]``.

    Attributes:
        obs: ``[T, N, ...]`` observations, as the network receives them.
        action: ``[T, N, ...]`` what ``act`` returned (a Gaussian's action is not yet clipped).
        reward: ``[T, N]``.
        terminated: ``[T, N]`` bool, the episode ended here and nothing follows.
        truncated: ``[T, N]`` bool, the episode was cut here; its value goes on.
        output: the network's :class:`Output` at the parameters that collected the data.
        next_output: the value part of the Output at the true successor of each step, which at an episode's end is the
            final observation and never the reset one. Where ``terminated`` it has no meaning. In the replay loop the
            target network's, and the leaves begin with ``[B]``.
        next_online: the same by the online network, where that is another.
        discount: γ for each step; γ^m where ``reward`` sums m steps.
        env_steps: ``[T, N]``, as ``act`` was given it, for targets that follow an exploration schedule; ``()`` in the replay
            loop, whose data are of many.
    """

    obs: Array
    action: Array
    reward: Array
    terminated: Array
    truncated: Array
    output: Output
    next_output: Output
    next_online: Output
    discount: Array
    env_steps: Any = ()


class VecState(struct.PyTreeNode):
    """N environments side by side, each in the middle of an episode.

    Attributes:
        env_state: ``[N, ...]`` the environments' own states.
        obs: ``[N, ...]`` what the agent sees now.
        episode_return: ``[N]`` float32, undiscounted return so far.
        episode_length: ``[N]`` int32, steps so far.
    """

    env_state: PyTree
    obs: Array
    episode_return: Array
    episode_length: Array


class State(struct.PyTreeNode):
    """All that an algorithm carries from one update to the next. An unused slot is ``()``.

    It holds arrays only, so it can be saved, restored, pickled, vmapped and indexed by seed.

    Attributes:
        params: network weights.
        opt_state: optimiser moments.
        env: the environments, :class:`VecState`.
        key: the random key for all updates to come.
        update: ``[]`` int32, updates done. One scalar for all seeds: vmap takes and returns it with axis None.
        target_params: weights of the target network.
        replay: replay buffer.
        carry: ``[N, ...]`` hidden state of a recurrent network before ``env.obs``; where an episode starts there
            (``env.episode_length`` is 0) it is not yet set to zero.
        normalizer: running statistics of observations and rewards.
    """

    params: PyTree
    opt_state: PyTree
    env: VecState
    key: Array
    update: Array
    target_params: PyTree = ()
    replay: PyTree = ()
    carry: PyTree = ()
    normalizer: PyTree = ()

    @classmethod
    def axes(cls, batched: Any = 0, shared: Any = None) -> State:
        """A tree of vmap axes (or shardings): ``batched`` for every slot but the update count, which gets ``shared``."""
        names = cls.__dataclass_fields__
        return cls(**{name: shared if name == "update" else batched for name in names})


class Acted(NamedTuple):
    """What a network and its rule did for ``[B]`` observations.

    Attributes:
        env_action: ``[B, ...]`` as the environment takes it.
        action: ``[B, ...]`` as the rule made it.
        policy: the policy it was drawn from; () of Q-networks.
        carry: the hidden state after these observations; () without a memory.
    """

    env_action: Array
    action: Array
    policy: Any
    carry: PyTree


class Rule(NamedTuple):
    """A learning rule: pure functions of arrays, which never see a network, parameters or an environment.

    Attributes:
        noise: ``(key, shape) -> noise``; all the action randomness of a rollout of leading ``shape`` (T, N), at once.
        act: ``(output, noise, hparams, env_steps) -> action``; ``noise=None`` asks for the greedy action, ``env_steps``
            (float32 scalar) says how far exploration schedules have come.
        targets: ``(rollout, hparams) -> batch``; what to aim at. The batch's ``obs`` is what the network is shown.
        loss: ``(output, batch, hparams) -> (scalar, metrics)``; the loops average each metric, whatever its shape.
        diagnose: ``(start, end, batch, hparams) -> metrics``; what to log of the Outputs before and after an update's
            epochs, at the updates that measure the representation.
    """

    noise: Callable[[Array, tuple[int, ...]], Array]
    act: Callable[..., Array]
    targets: Callable[..., PyTree]
    loss: Callable[..., tuple[Array, Metrics]]
    diagnose: Callable[..., Metrics] = lambda start, end, batch, hparams: {}


class Network(Protocol):
    """What the loops ask of a flax module: ``init(key, obs)`` and ``apply(params, obs) -> Output``.

    One with a memory has ``initial_carry(num_envs)`` and takes sequences; see :mod:`purejaxrl_ext.loops.memory`.
    """

    def init(self, key: Array, obs: Array) -> PyTree: ...

    def apply(self, params: PyTree, obs: Array) -> Output: ...


@dataclass(frozen=True, eq=False)
class Algorithm:
    """A rule in a loop: pure functions over :class:`State`, and the settings that they were made with.

    Attributes:
        name: the name given to :func:`purejaxrl_ext.algorithms.make`.
        env_name: the environment's name.
        init: ``(key, hparams=None) -> State``.
        step: ``(state, hparams=None, measure=None) -> (State, metrics)``, one update. ``measure`` (a bool scalar, not
            batched) says whether to compute the representation metrics; None means every ``config.metrics_every``.
        act: ``(params, normalizer, obs [B, ...], noise, hparams, env_steps, carry=None, start=None) -> Acted``. ``carry``
            is the hidden state before ``obs``, set to zero where ``start [B]``; None: an episode's first, and none starts.
        noise: ``(key, shape) -> noise`` for ``act``; ``None`` in its place asks for the greedy action.
        loop: ``init``, ``step``, ``act``, ``noise`` and ``initial_carry(num_envs)`` as the loop made them, without
            the default hparams; equal settings share one such object, and so one compiled program.
        config: what fixes shapes, loop lengths and code paths.
        hparams: the default traced settings.
        env: the environment.
        network: the flax module.
        settings: what rebuilds this algorithm with ``make`` (plain values, or objects for a custom env or network).
    """

    name: str
    env_name: str
    init: Callable[..., State]
    step: Callable[..., tuple[State, Metrics]]
    act: Callable[..., Acted]
    noise: Callable[..., Array]
    loop: Any
    config: Any
    hparams: Any
    env: Any
    network: Any
    settings: dict[str, Any]

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one ``step``, over all its environments."""
        return self.config.steps_per_update

    def num_updates(self, total_steps: int) -> int:
        """Updates that reach at least ``total_steps`` environment steps."""
        return -(-int(total_steps) // self.steps_per_update)
