"""The pytrees and records that every algorithm shares.

Axis letters: T time, N environments, B batch, F features, A actions, S seeds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
from flax import struct

from purejaxrl_ext.devices import isolated
from purejaxrl_ext.spaces import Box as Box
from purejaxrl_ext.spaces import Discrete as Discrete
from purejaxrl_ext.spaces import MultiDiscrete as MultiDiscrete

Array = jax.Array
PyTree = Any
Metrics = dict[str, Array]


def abstract_key() -> jax.ShapeDtypeStruct:
    """The shape of a random key, for ``jax.eval_shape``: a real one would be a first computation."""
    return jax.eval_shape(jax.random.key, 0)


# ---------------------------------------------------------------------------------------------------------------------
# Traced settings
# ---------------------------------------------------------------------------------------------------------------------


def hparam(
    default: float,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
    whole: bool = False,
) -> Any:
    """A traced setting with the values that it may have, which :func:`~purejaxrl_ext.make` and sweeps check.

    Args:
        default: its value unless one is given.
        low, high: the range.
        open_low, open_high: whether that end is itself outside.
        whole: whole numbers only (an infinite end is allowed).

    Example::

        class MyHparams(OptimizerHparams):
            temperature: Any = hparam(1.0, low=0.0, open_low=True)
    """
    return struct.field(default=default, metadata={"range": (low, high, open_low, open_high, whole)})


class OptimizerHparams(struct.PyTreeNode):
    """The optimiser's traced settings, which every rule's extend with defaults of their own.

    Attributes:
        learning_rate: the optimiser's.
        anneal_steps: the learning rate falls linearly to 0 over so many environment steps; 0 keeps it constant.
        critic_learning_rate: of the critic's parameters; 0: ``learning_rate``. It is annealed with the other.
        max_grad_norm: gradients are scaled down to this global norm; infinite: never.
        adam_b1, adam_b2, adam_eps: Adam's and its relatives'; RMSProp's decay is ``adam_b2``.
        weight_decay: of ``optimizer="adamw"``, decoupled (Loshchilov & Hutter 2019).
    """

    learning_rate: Any = hparam(2.5e-4, 0.0, open_low=True)
    anneal_steps: Any = hparam(0.0, 0.0)
    critic_learning_rate: Any = hparam(0.0, 0.0)
    max_grad_norm: Any = hparam(math.inf, 0.0, open_low=True)
    adam_b1: Any = hparam(0.9, 0.0, 1.0, open_high=True)
    adam_b2: Any = hparam(0.999, 0.0, 1.0, open_high=True)
    adam_eps: Any = hparam(1e-8, 0.0, open_low=True)
    weight_decay: Any = hparam(0.0, 0.0)


# --- what networks say, and what environments gave ---


class Representation(struct.PyTreeNode):
    """What the hidden layers of one network said.

    Attributes:
        features: ``[..., F]`` the last hidden layer after its activation.
        preactivations: one ``[..., F_l]`` per hidden layer, first to last, flattened, before the activation.
        activation: what the features came through, by name; it decides which units count as dead. "": a unit is dead where
            it says the same of all samples.
    """

    features: Array
    preactivations: tuple[Array, ...]
    activation: str = struct.field(pytree_node=False, default="")


class Output(struct.PyTreeNode):
    """What a network says about a batch of observations. Unused parts are ``()``.

    Attributes:
        policy: a policy record of ``purejaxrl_ext.networks.policies`` with leaves ``[..., A]``.
        value: ``[...]`` state values.
        q_values: ``[..., A]`` action values.
        returns: ``[..., A, K]`` what a distributional Q-network says of each action's return: logits of atoms, or quantiles.
        actor: the policy network's :class:`Representation`.
        critic: that of the value network or of the Q-network.
        legal: ``[..., A]`` bool, the actions that there are; (): all. ``policy`` and ``q_values`` heed it already.
    """

    policy: Any = ()
    value: Any = ()
    q_values: Any = ()
    returns: Any = ()
    actor: Any = ()
    critic: Any = ()
    legal: Any = ()


class Rollout(struct.PyTreeNode):
    """Transitions of one update, as a rule's ``targets`` sees them; every leaf but the last begins with ``[T, N]``.

    Attributes:
        obs: ``[T, N, ...]`` observations, as the network receives them.
        action: ``[T, N, ...]`` what ``act`` returned (a Gaussian's action is not yet clipped).
        reward: ``[T, N]``.
        terminated: ``[T, N]`` bool, the episode ended here and nothing follows.
        truncated: ``[T, N]`` bool, the episode was cut here; its value goes on.
        output: the network's :class:`Output` at the parameters that collected the data.
        next_output: what the rule's ``successor`` keeps of the Output at the true successor of each step, which at an
            episode's end is the final observation and never the reset one. Where ``terminated`` it has no meaning. In the
            replay loop the target network's, and the leaves begin with ``[B]``.
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


class Learner(struct.PyTreeNode):
    """What learns: the part of the State that interventions may change.

    Attributes:
        params: network weights.
        opt_state: optimiser moments.
        memory: what interventions keep, by their names. An intervention itself is shown its own alone.
    """

    params: PyTree
    opt_state: PyTree
    memory: PyTree = ()


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
        memory: what interventions keep, by their names.
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
    memory: PyTree = ()

    @classmethod
    def axes(cls, batched: Any = 0, shared: Any = None) -> State:
        """A tree of vmap axes (or shardings): ``batched`` for every slot but the update count, which gets ``shared``."""
        names = cls.__dataclass_fields__
        return cls(**{name: shared if name == "update" else batched for name in names})

    @property
    def learner(self) -> Learner:
        """The part that learns."""
        return Learner(self.params, self.opt_state, self.memory)

    def learned(self, learner: Learner) -> State:
        """This State with another part that learns."""
        return self.replace(params=learner.params, opt_state=learner.opt_state, memory=learner.memory)

    @isolated()
    def _repr_html_(self) -> str:
        import treescope  # comes with flax; only notebooks need wait for it

        return treescope.render_to_html(vars(self))


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


def values_of(output: Output) -> Output:
    """The part of an Output from which targets bootstrap, unless a rule says otherwise."""
    return Output(value=output.value, q_values=output.q_values, legal=output.legal)


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
        successor: ``output -> output``; what targets need of the network at the true successors. The rest is not kept.
        schedule: ``(hparams, env_steps) -> hparams``; those of an update, where some change over training.
    """

    noise: Callable[[Array, tuple[int, ...]], Array]
    act: Callable[..., Array]
    targets: Callable[..., PyTree]
    loss: Callable[..., tuple[Array, Metrics]]
    diagnose: Callable[..., Metrics] = lambda start, end, batch, hparams: {}
    successor: Callable[[Output], Output] = values_of
    schedule: Callable[..., Any] = lambda hparams, env_steps: hparams


class Network(Protocol):
    """What the loops ask of a flax module: ``init(key, obs)`` and ``apply(params, obs) -> Output``.

    One with a memory has ``initial_carry(num_envs)`` and takes sequences; see :mod:`purejaxrl_ext.loops.memory`.
    """

    def init(self, key: Array, obs: Array) -> PyTree: ...

    def apply(self, params: PyTree, obs: Array) -> Output: ...


class Net(NamedTuple):
    """What interventions and added metrics see of a network and its rule.

    Attributes:
        init: ``key -> params``; fresh parameters.
        evaluate: ``(params, samples) -> (Output, batch)``; leaves ``[B, ...]``.
        loss: ``(params, samples, hparams) -> (scalar, metrics)``; the rule's own.
        layers: ``params -> tuple[Layer, ...]``; see :mod:`purejaxrl_ext.networks.structure`.
        first_moments: ``(params, hparams) -> opt_state``; the optimiser's state before its first step.
    """

    init: Callable[[Array], PyTree]
    evaluate: Callable[..., tuple[Output, PyTree]]
    loss: Callable[..., tuple[Array, Metrics]]
    layers: Callable[[PyTree], tuple[Any, ...]]
    first_moments: Callable[..., PyTree]


@dataclass(frozen=True, eq=False)
class Algorithm:
    """A rule in a loop: pure functions over :class:`State`, and the settings that they were made with.

    Attributes:
        name: of the recipe given to :func:`purejaxrl_ext.make`.
        env_name: the environment's name.
        loop: what makes an algorithm of a rule; equal settings share one, and so one compiled program.
        hparams: the default traced settings.
        settings: what rebuilds this algorithm with ``make`` (plain values, or objects for what is your own).
        remake: ``make``, by which a pickled algorithm comes back.
    """

    name: str
    env_name: str
    loop: Any
    hparams: Any
    settings: Mapping[str, Any]
    remake: Callable[..., Algorithm] = field(repr=False)

    @property
    def config(self) -> Any:
        """What fixes shapes, loop lengths and code paths."""
        return self.loop.config

    @property
    def env(self) -> Any:
        """The environment, in its wrappers."""
        return self.loop.env

    @property
    def network(self) -> Any:
        """The module."""
        return self.loop.network

    @isolated()
    def init(self, key: Array, hparams: Any = None) -> State:
        """A State before the first update."""
        return self.loop.init(key, self.hparams if hparams is None else hparams)

    @isolated()
    def step(self, state: State, hparams: Any = None, measure: Array | None = None) -> tuple[State, Metrics]:
        """One update. ``measure`` (a bool scalar, not batched) says whether to compute the representation metrics; None means
        every ``config.metrics_every``."""
        return self.loop.step(state, self.hparams if hparams is None else hparams, measure)

    def act(self, *arguments: Any, **named: Any) -> Acted:
        """``(params, normalizer, obs [B, ...], noise, hparams, env_steps, carry=None, start=None) -> Acted``. ``carry`` is the
        hidden state before ``obs``, set to zero where ``start [B]``; None: an episode's first, and none starts."""
        return self.loop.act(*arguments, **named)

    def noise(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Randomness for ``act``; ``None`` in its place asks for the greedy action."""
        return self.loop.rule.noise(key, shape)

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one ``step``, over all its environments."""
        return self.loop.steps_per_update

    def num_updates(self, total_steps: int) -> int:
        """Updates that reach at least ``total_steps`` environment steps."""
        return -(-int(total_steps) // self.steps_per_update)

    def __repr__(self) -> str:
        return f"<{self.name} on {self.env_name}, {self.steps_per_update} environment steps per update>"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{k}</td><td>{str(v)[:80]}</td></tr>" for k, v in self.settings.items())
        return f"<details><summary>{self.name} on {self.env_name}</summary><table>{rows}</table></details>"

    def __reduce__(self) -> Any:
        return functools.partial(self.remake, **self.settings), ()
