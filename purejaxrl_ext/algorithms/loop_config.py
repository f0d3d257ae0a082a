"""Static settings of networks and loops, which every algorithm's extend; see :mod:`~purejaxrl_ext.algorithms.config`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from purejaxrl_ext.errors import check, is_int
from purejaxrl_ext.loops.optim import OPTIMIZERS
from purejaxrl_ext.networks.init import INITIALIZERS
from purejaxrl_ext.networks.recurrent import MEMORIES
from purejaxrl_ext.networks.torsos import ACTIVATIONS, BLOCKS, Conv


@dataclass(frozen=True)
class NetworkConfig:
    """The default networks.

    Attributes:
        hidden_sizes: widths of the dense layers; None: (64, 64) for vectors, (128,) for small images, (512,) for large.
        conv_layers: (features, kernel size, stride) each, for images; None: by their size (MinAtar's or Atari's usual).
        activation: a name in ``purejaxrl_ext.networks.ACTIVATIONS``: ``"tanh"``, ``"relu"``, ``"leaky_relu"``, ``"elu"``,
            ``"gelu"``, ``"silu"``, ``"crelu"``, ``"hadamard"``, or one that was added.
        initializer: ``"orthogonal"``, ``"fan_in"`` (uniform ±1/√fan_in, biases too) or ``"he_normal"``.
        layer_norm: LayerNorm before each activation.
        block: what the dense layers are: ``"plain"``, ``"multi_skip"`` or ``"simba"``; see :mod:`purejaxrl_ext.networks.torsos`.
    """

    hidden_sizes: tuple[int, ...] | None = None
    conv_layers: tuple[Conv, ...] | None = None
    activation: str = "tanh"
    initializer: str = "orthogonal"
    layer_norm: bool = False
    block: str = "plain"

    def __post_init__(self) -> None:
        # Lists, as JSON gives them, become tuples: a config must be hashable.
        object.__setattr__(self, "hidden_sizes", as_tuple(self.hidden_sizes))
        object.__setattr__(self, "conv_layers", as_tuple(self.conv_layers))
        known = ", ".join(map(repr, ACTIVATIONS))
        allowed = f"a name: {known}; a function gets one by purejaxrl_ext.networks.ACTIVATIONS[name] = function"
        check(isinstance(self.activation, str), "activation", self.activation, allowed)
        choice(self, "activation", *ACTIVATIONS)
        choice(self, "initializer", *INITIALIZERS)
        choice(self, "block", *BLOCKS)
        sizes(self, "hidden_sizes")
        convs = self.conv_layers
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
        reset_pool_size: initial states drawn per update, from which resets are served; 0: 1 per 4 environment steps, at
            least one per environment, and one for each episode that the time limit ends.
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
        above_zero(self, "observation_clip")
        if self.normalize_observations is True:
            object.__setattr__(self, "normalize_observations", "running")
        positive(self, "num_envs", "normalizer_steps")
        at_least(self, 0, "metrics_every", "metrics_samples", "reset_pool_size")
        flag(self, "layer_norm", "time_limit_terminates")
        choice(self, "normalize_observations", False, "running", "frozen")

    # What a config has no field for.
    separate_optimizers = False
    stop_at_kl = False
    # Traced settings of its rule's kind that its rule does not read.
    unread: ClassVar[tuple[str, ...]] = ()

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one update, over all environments."""
        raise NotImplementedError

    @property
    def pool_size(self) -> int:
        """Initial states drawn per update, also where the environment has not settled their number."""
        return self.reset_pool_size or max(self.num_envs, self.steps_per_update // 4)


@dataclass(frozen=True)
class OnPolicyConfig(LoopConfig):
    """The on-policy loop: T steps of N environments, then epochs of minibatches over them.

    Attributes:
        num_steps: T; None (where ``episodic``): the environment's time limit.
        num_epochs: passes over the data of an update.
        num_minibatches: minibatches of a pass; must divide ``num_envs * num_steps``.
        normalize_rewards: divide rewards by the running standard deviation of the discounted return.
        reward_clip: normalised rewards stay within ± this; infinite: as they are.
        memory: ``"gru"`` or ``"lstm"``: recurrent units between hidden layers and heads (of policy and value each), for what
            isn't Markov; ``num_minibatches`` must then divide ``num_envs``. None: none.
        memory_size: how many units.
        data_parallel: devices of this process that share each run's environments (see :mod:`purejaxrl_ext.loops.shards`); must
            divide ``num_envs``, and ``num_minibatches`` each device's share of the data. 1: a run has one device, and a
            sweep's runs are divided among the devices.
    """

    num_steps: int | None = 128
    num_epochs: int = 4
    num_minibatches: int = 4
    normalize_rewards: bool = False
    reward_clip: float = math.inf
    memory: str | None = None
    memory_size: int = 64
    data_parallel: int = 1

    # Whether each rollout begins with a fresh episode in every environment, of which the first is what counts.
    episodic = False

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_epochs", "num_minibatches", "data_parallel", "memory_size")
        flag(self, "normalize_rewards")
        above_zero(self, "reward_clip")
        choice(self, "memory", None, *MEMORIES)
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
        """Environment steps of one update, over all environments."""
        assert self.num_steps is not None
        return self.num_envs * self.num_steps


def as_tuple(value: Any) -> Any:
    """Lists, also inside, as tuples."""
    return tuple(as_tuple(v) for v in value) if isinstance(value, list | tuple) else value


def sizes(config: Any, field: str) -> None:
    """Raise ``ValueError`` unless a field is None or a sequence of positive ints."""
    value = getattr(config, field)
    ok = value is None or (isinstance(value, tuple) and all(is_int(s) and s > 0 for s in value))
    check(ok, field, value, "a sequence of positive ints")


def choice(config: Any, field: str, *allowed: Any) -> None:
    """Raise ``ValueError`` unless a field has one of the allowed values."""
    value = getattr(config, field)
    check(value in allowed, field, value, f"one of {', '.join(map(repr, allowed))}")


def at_least(config: Any, least: int, *fields: str) -> None:
    """Raise ``ValueError`` unless these fields are ints of at least ``least``."""
    for field in fields:
        value = getattr(config, field)
        check(is_int(value) and value >= least, field, value, f"an int of at least {least}")


def above_zero(config: Any, field: str) -> None:
    """Raise ``ValueError`` unless these fields are numbers greater than 0."""
    value = getattr(config, field)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    check(is_number and value > 0, field, value, "a number greater than 0")


def positive(config: Any, *fields: str) -> None:
    """Raise ``ValueError`` unless these fields are ints of at least 1."""
    at_least(config, 1, *fields)


def flag(config: Any, *fields: str) -> None:
    """Raise ``ValueError`` unless these fields are bools."""
    for field in fields:
        value = getattr(config, field)
        check(isinstance(value, bool), field, value, "True or False")
