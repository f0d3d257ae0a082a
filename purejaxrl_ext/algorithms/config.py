"""Static settings: what fixes a shape, a loop length or a code path. Changing one compiles anew.

Those of the loops stand in :mod:`~purejaxrl_ext.algorithms.loop_config`, traced settings (``Hparams``) with their rule;
:mod:`~purejaxrl_ext.algorithms.settings` sorts the names a user gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from purejaxrl_ext.algorithms.loop_config import (
    LoopConfig,
    NetworkConfig,
    OnPolicyConfig,
    as_tuple,
    at_least,
    choice,
    flag,
    positive,
    sizes,
)
from purejaxrl_ext.errors import check
from purejaxrl_ext.networks.actor_critic import LOG_STD_BOUNDS

__all__ = ["NetworkConfig"]


@dataclass(frozen=True)
class ActorCriticConfig(OnPolicyConfig):
    """The on-policy loop's settings and those of a policy with a state value.

    Attributes:
        policy: for a Box action space ``"gaussian"`` or ``"tanh_gaussian"``; None: ``"gaussian"``, or ``"categorical"``
            where actions are discrete.
        shared_torso: one torso for policy and value.
        separate_optimizers: an optimiser and gradient clipping for actor and critic each, instead of one for both. A shared
            torso's parameters are then in both, and stepped by both.
        critic_hidden_sizes: widths of the value network's dense layers; None: ``hidden_sizes``.
        initial_log_std: log σ of a Gaussian's first policy, in units in which the actions' bounds are ±1 (for ``"tanh_gaussian"``
            before tanh).
        state_dependent_std: σ of ``"gaussian"`` is a function of the state, and no parameter; that of ``"tanh_gaussian"`` always
            is.
    """

    policy: str | None = None
    shared_torso: bool = False
    separate_optimizers: bool = False
    critic_hidden_sizes: tuple[int, ...] | None = None
    initial_log_std: float = 0.0
    state_dependent_std: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "critic_hidden_sizes", as_tuple(self.critic_hidden_sizes))
        sizes(self, "critic_hidden_sizes")
        own = self.critic_hidden_sizes is not None
        check(
            not (own and self.shared_torso), "critic_hidden_sizes", self.critic_hidden_sizes, "None with shared_torso"
        )
        flag(self, "shared_torso", "separate_optimizers", "state_dependent_std")
        low, high = LOG_STD_BOUNDS
        is_number = isinstance(self.initial_log_std, int | float) and low <= self.initial_log_std <= high
        check(is_number, "initial_log_std", self.initial_log_std, f"in [{low:g}, {high:g}]")
        choice(self, "policy", None, "categorical", "gaussian", "tanh_gaussian")


@dataclass(frozen=True)
class REINFORCEConfig(ActorCriticConfig):
    """REINFORCE's settings (see :mod:`purejaxrl_ext.rules.reinforce`): a rollout is one episode of each environment.

    Attributes:
        baseline: subtract a learned state value from the return.
        reward_to_go: weigh an action by the return from its step on; else by the whole episode's.
        discounted_visits: weigh step t by γ^t, which makes the gradient that of the discounted return.
    """

    num_envs: int = 16
    num_steps: int | None = None
    num_epochs: int = 1
    num_minibatches: int = 1
    baseline: bool = True
    reward_to_go: bool = True
    discounted_visits: bool = False

    episodic = True

    def __post_init__(self) -> None:
        super().__post_init__()
        flag(self, "baseline", "reward_to_go", "discounted_visits")
        check(not self.normalize_rewards, "normalize_rewards", True, "False: full returns are not rescaled on the way")


@dataclass(frozen=True)
class PPOConfig(ActorCriticConfig):
    """The actor-critic's settings and PPO's.

    Attributes:
        normalize_advantage: zero mean, unit standard deviation over each ``"minibatch"`` (True means this), or over the whole
            ``"batch"`` of an update before its epochs; False: neither. With ``data_parallel`` over a device's part of either.
        stop_at_kl: end an update's epochs at the first minibatch whose ``approx_kl`` exceeds ``target_kl``; that and the
            following ones change nothing.
    """

    normalize_advantage: bool | str = "minibatch"
    stop_at_kl: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalize_advantage is True:
            object.__setattr__(self, "normalize_advantage", "minibatch")
        choice(self, "normalize_advantage", False, "minibatch", "batch")
        flag(self, "stop_at_kl")
        if self.num_steps is not None and self.normalize_advantage:
            whole, share = self.normalize_advantage == "batch", self.steps_per_update // self.data_parallel
            field, samples = ("num_steps", share) if whole else ("num_minibatches", share // self.num_minibatches)
            allowed = "such that more than one sample is left: a single one's normalised advantage is 0"
            check(samples > 1, field, getattr(self, field), allowed)


@dataclass(frozen=True)
class PFOConfig(PPOConfig):
    """PPO's config and PFO's variants: the choices are those of :mod:`purejaxrl_ext.rules.pfo`."""

    feature_layers: str = "last"
    feature_part: str = "preactivation"
    feature_distance: str = "squared"
    feature_networks: str = "actor"
    feature_mode: str = "penalty"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice(self, "feature_layers", "last", "all")
        choice(self, "feature_part", "preactivation", "feature")
        both = self.feature_part == "feature" and self.feature_layers == "all"
        check(not both, "feature_layers", "all", "'last' where feature_part='feature': of other layers none are kept")
        choice(self, "feature_distance", "squared", "cosine")
        choice(self, "feature_networks", "actor", "both")
        choice(self, "feature_mode", "penalty", "clip")


@dataclass(frozen=True)
class QLearningConfig(OnPolicyConfig):
    """One-step Q-learning on the data of the current policy: one pass over a short rollout."""

    num_steps: int | None = 4
    num_epochs: int = 1
    num_minibatches: int = 1
    activation: str = "relu"


@dataclass(frozen=True)
class PQNConfig(OnPolicyConfig):
    """PQN's settings (Gallici et al. 2024): many environments, short rollouts, LayerNorm."""

    num_envs: int = 32
    num_steps: int | None = 32
    num_epochs: int = 2
    num_minibatches: int = 8
    activation: str = "relu"
    layer_norm: bool = True


@dataclass(frozen=True)
class DQNConfig(LoopConfig):
    """The replay loop, and DQN's variants.

    Attributes:
        env_steps_per_update: environment steps (over all environments) before each gradient update; a multiple of
            ``num_envs``. None: the least that is at least 10.
        updates_per_step: gradient updates of one ``step``, that is of one row of metrics.
        replay_capacity: transitions that the replay holds.
        batch_size: transitions of a gradient update.
        prefill_steps: steps of random actions put into the replay before training; they count neither as environment steps
            nor in schedules. A multiple of ``num_envs``. None: the least that is at least 1,000, or fits.
        n_step: steps of reward in a target before the bootstrap.
        double: choose the next action by the online network, value it by the target network.
        dueling: Q = V + A − mean A.
        prioritized: draw transitions in proportion to their error, not uniformly.
    """

    num_envs: int = 10
    activation: str = "relu"
    env_steps_per_update: int | None = None
    updates_per_step: int = 100
    replay_capacity: int = 10_000
    batch_size: int = 128
    prefill_steps: int | None = None
    n_step: int = 1
    double: bool = False
    dueling: bool = False
    prioritized: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "replay_capacity", "n_step")
        if self.env_steps_per_update is None:
            object.__setattr__(self, "env_steps_per_update", -(-10 // self.num_envs) * self.num_envs)
        if self.prefill_steps is None:
            most = self.replay_capacity // self.num_envs * self.num_envs
            wanted = max(1000, self.n_step * self.num_envs)
            object.__setattr__(self, "prefill_steps", min(-(-wanted // self.num_envs) * self.num_envs, most))
        positive(
            self, "env_steps_per_update", "updates_per_step", "replay_capacity", "batch_size", "prefill_steps", "n_step"
        )
        flag(self, "double", "dueling", "prioritized")
        envs, capacity = self.num_envs, self.replay_capacity
        assert self.env_steps_per_update is not None and self.prefill_steps is not None
        for field in ("env_steps_per_update", "prefill_steps"):
            value = getattr(self, field)
            check(value % envs == 0, field, value, f"a multiple of num_envs={envs}")
        check(self.batch_size <= capacity, "batch_size", self.batch_size, f"at most replay_capacity={capacity}")
        least, new = self.n_step * envs, self.env_steps_per_update + (self.n_step - 1) * envs
        check(
            capacity >= new,
            "replay_capacity",
            capacity,
            f"at least env_steps_per_update + (n_step - 1) num_envs = {new}",
        )
        check(
            self.prefill_steps <= capacity, "prefill_steps", self.prefill_steps, f"at most replay_capacity={capacity}"
        )
        check(self.prefill_steps >= least, "prefill_steps", self.prefill_steps, f"at least n_step * num_envs = {least}")

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one ``step``, over all environments."""
        assert self.env_steps_per_update is not None
        return self.env_steps_per_update * self.updates_per_step


@dataclass(frozen=True)
class C51Config(DQNConfig):
    """DQN's settings and ``num_atoms`` K, the support's size (see :mod:`purejaxrl_ext.rules.distributional`)."""

    num_atoms: int = 51

    # Its loss is a cross-entropy.
    unread: ClassVar[tuple[str, ...]] = ("huber_delta",)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 2, "num_atoms")


@dataclass(frozen=True)
class QRDQNConfig(DQNConfig):
    """DQN's settings and ``num_quantiles`` K (see :mod:`purejaxrl_ext.rules.distributional`)."""

    num_quantiles: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_quantiles")
