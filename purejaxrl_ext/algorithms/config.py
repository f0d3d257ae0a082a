"""Static settings: what fixes a shape, a loop length or a code path. Changing one compiles anew.

Traced settings (``Hparams``) stand with their rule; :mod:`~purejaxrl_ext.algorithms.settings` sorts the names a user gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from purejaxrl_ext.errors import check, is_int
from purejaxrl_ext.loops.optim import OPTIMIZERS
from purejaxrl_ext.networks.init import INITIALIZERS
from purejaxrl_ext.networks.torsos import ACTIVATIONS, Conv


@dataclass(frozen=True)
class NetworkConfig:
    """The default networks.

    Attributes:
        hidden_sizes: widths of the dense layers; None: (64, 64) for vectors, (128,) for small images, (512,) for large.
        conv_layers: (features, kernel size, stride) each, for images; None: by their size (MinAtar's or Atari's usual).
        activation: ``"tanh"``, ``"relu"``, ``"leaky_relu"``, ``"elu"``, ``"gelu"`` or ``"silu"``.
        initializer: ``"orthogonal"`` or ``"fan_in"`` (uniform ±1/√fan_in, biases too).
        layer_norm: LayerNorm before each activation.
    """

    hidden_sizes: tuple[int, ...] | None = None
    conv_layers: tuple[Conv, ...] | None = None
    activation: str = "tanh"
    initializer: str = "orthogonal"
    layer_norm: bool = False

    def __post_init__(self) -> None:
        # Lists, as JSON gives them, become tuples: a config must be hashable.
        object.__setattr__(self, "hidden_sizes", _tuple(self.hidden_sizes))
        object.__setattr__(self, "conv_layers", _tuple(self.conv_layers))
        choice(self, "activation", *ACTIVATIONS)
        choice(self, "initializer", *INITIALIZERS)
        sizes, convs = self.hidden_sizes, self.conv_layers
        ok = sizes is None or (isinstance(sizes, tuple) and all(is_int(s) and s > 0 for s in sizes))
        check(ok, "hidden_sizes", sizes, "a sequence of positive ints")
        ok = convs is None or (
            isinstance(convs, tuple)
            and all(isinstance(c, tuple) and len(c) == 3 and all(is_int(n) and n > 0 for n in c) for c in convs)
        )
        check(ok, "conv_layers", convs, "a sequence of (features, kernel size, stride), positive ints")


@dataclass(frozen=True)
class LoopConfig(NetworkConfig):
    """What every loop needs.

    Attributes:
        num_envs: environments side by side, N.
        metrics_every: updates between measurements of the representation (first and last always); 0: never.
        metrics_samples: at most so many samples, spread evenly over the update's data, enter them; 0: all. With a memory
            they are of whole sequences, the last of which may go beyond it.
        reset_pool_size: initial states drawn per update, from which resets are served; 0: 1 per 16 environment
            steps, at least one per environment.
        time_limit_terminates: treat a time limit as the end, with no value beyond it.
        normalize_observations: False, ``"running"`` (statistics of all data so far, from the first update on; True means
            this) or ``"frozen"`` (those of ``normalizer_steps`` random steps before training).
        normalizer_steps: environment steps of random actions for ``"frozen"``.
        observation_clip: normalised observations stay within ± this; infinite: as they are.
        optimizer: ``"adam"``, ``"adamw"``, ``"radam"``, ``"rmsprop"`` or ``"sgd"``, or a function of your own at the top of a
            module, ``(hparams, learning_rate) -> optax.GradientTransformation``.
    """

    num_envs: int = 4
    metrics_every: int = 10
    metrics_samples: int = 2048
    reset_pool_size: int = 0
    time_limit_terminates: bool = False
    normalize_observations: bool | str = False
    normalizer_steps: int = 4000
    observation_clip: float = 10.0
    optimizer: str | Callable[..., Any] = "adam"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.optimizer):
            choice(self, "optimizer", *OPTIMIZERS)
        is_number = isinstance(self.observation_clip, int | float) and self.observation_clip > 0
        check(is_number, "observation_clip", self.observation_clip, "a number greater than 0")
        if self.normalize_observations is True:
            object.__setattr__(self, "normalize_observations", "running")
        positive(self, "num_envs", "normalizer_steps")
        at_least(self, 0, "metrics_every", "metrics_samples", "reset_pool_size")
        flag(self, "layer_norm", "time_limit_terminates")
        choice(self, "normalize_observations", False, "running", "frozen")

    # What a config has no field for.
    separate_optimizers = False
    stop_at_kl = False

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one update, over all environments."""
        raise NotImplementedError

    @property
    def pool_size(self) -> int:
        return self.reset_pool_size or max(self.num_envs, self.steps_per_update // 16)


@dataclass(frozen=True)
class OnPolicyConfig(LoopConfig):
    """The on-policy loop: T steps of N environments, then epochs of minibatches over them.

    Attributes:
        num_steps: T; None (where ``episodic``): the environment's time limit.
        num_epochs: passes over the data of an update.
        num_minibatches: minibatches of a pass; must divide ``num_envs * num_steps``.
        normalize_rewards: divide rewards by the running standard deviation of the discounted return.
        data_parallel: devices of this process that share each run's environments (see :mod:`purejaxrl_ext.loops.shards`); must
            divide ``num_envs``, and ``num_minibatches`` each device's share of the data. 1: a run has one device, and a
            sweep's runs are divided among the devices.
    """

    num_steps: int | None = 128
    num_epochs: int = 4
    num_minibatches: int = 4
    normalize_rewards: bool = False
    data_parallel: int = 1

    # Whether each rollout begins with a fresh episode in every environment, of which the first is what counts.
    episodic = False

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_epochs", "num_minibatches", "data_parallel")
        flag(self, "normalize_rewards")
        devices = self.data_parallel
        check(self.num_envs % devices == 0, "data_parallel", devices, f"a divisor of num_envs={self.num_envs}")
        if self.episodic and self.num_steps is None:
            return  # until the environment is known
        positive(self, "num_steps")
        check(
            self.steps_per_update % self.num_minibatches == 0,
            "num_minibatches",
            self.num_minibatches,
            f"a divisor of num_envs * num_steps = {self.num_envs} * {self.num_steps} = {self.steps_per_update}",
        )
        share = self.steps_per_update // devices
        allowed = f"a divisor of num_envs * num_steps / data_parallel = {share}, a device's share"
        check(share % self.num_minibatches == 0, "num_minibatches", self.num_minibatches, allowed)

    @property
    def steps_per_update(self) -> int:
        assert self.num_steps is not None
        return self.num_envs * self.num_steps


@dataclass(frozen=True)
class ActorCriticConfig(OnPolicyConfig):
    """The on-policy loop's settings and those of a policy with a state value.

    Attributes:
        policy: for a Box action space ``"gaussian"`` or ``"tanh_gaussian"``; None: ``"gaussian"``, or ``"categorical"``
            where actions are discrete.
        shared_torso: one torso for policy and value.
        separate_optimizers: an optimiser and gradient clipping for actor and critic each, instead of one for both. A shared
            torso's parameters are then in both, and stepped by both.
        memory: ``"gru"``: recurrent units between hidden layers and heads, of policy and value each, for what isn't Markov;
            ``num_minibatches`` must then divide ``num_envs``. None: none.
        memory_size: how many units.
    """

    policy: str | None = None
    shared_torso: bool = False
    separate_optimizers: bool = False
    memory: str | None = None
    memory_size: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        flag(self, "shared_torso", "separate_optimizers")
        positive(self, "memory_size")
        choice(self, "memory", None, "gru")
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
        normalize_advantage: zero mean, unit standard deviation per minibatch.
        stop_at_kl: end an update's epochs at the first minibatch whose ``approx_kl`` exceeds ``target_kl``; that and the
            following ones change nothing.
    """

    normalize_advantage: bool = True
    stop_at_kl: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        flag(self, "normalize_advantage", "stop_at_kl")
        if self.num_steps is not None:
            samples = self.steps_per_update // self.num_minibatches // self.data_parallel
            allowed = "fewer: the normalised advantage of a single sample is 0, and nothing would be learned"
            check(samples > 1 or not self.normalize_advantage, "num_minibatches", self.num_minibatches, allowed)


@dataclass(frozen=True)
class PFOConfig(PPOConfig):
    """PPO's config and PFO's variants (see :mod:`purejaxrl_ext.rules.pfo`)."""

    feature_layers: str = "last"
    feature_distance: str = "squared"
    feature_networks: str = "actor"
    feature_mode: str = "penalty"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice(self, "feature_layers", "last", "all")
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
        assert self.env_steps_per_update is not None
        return self.env_steps_per_update * self.updates_per_step


def _tuple(value: Any) -> Any:
    return tuple(_tuple(v) for v in value) if isinstance(value, list | tuple) else value


def choice(config: Any, field: str, *allowed: Any) -> None:
    value = getattr(config, field)
    check(value in allowed, field, value, f"one of {', '.join(map(repr, allowed))}")


def at_least(config: Any, least: int, *fields: str) -> None:
    for field in fields:
        value = getattr(config, field)
        check(is_int(value) and value >= least, field, value, f"an int of at least {least}")


def positive(config: Any, *fields: str) -> None:
    at_least(config, 1, *fields)


def flag(config: Any, *fields: str) -> None:
    for field in fields:
        value = getattr(config, field)
        check(isinstance(value, bool), field, value, "True or False")
