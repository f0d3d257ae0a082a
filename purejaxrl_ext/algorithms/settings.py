"""Settings by name: which are static and which are traced, what values they may have, and what an environment settles."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from typing import Any

import jax
import numpy as np
from flax import struct

from purejaxrl_ext import networks
from purejaxrl_ext.algorithms.config import ActorCriticConfig, NetworkConfig
from purejaxrl_ext.envs.base import Environment, plain
from purejaxrl_ext.envs.vector import default_pool_size
from purejaxrl_ext.errors import check, unknown_name
from purejaxrl_ext.interventions.base import Intervention
from purejaxrl_ext.types import Box

# What only the default networks read.
OF_DEFAULT_NETWORKS = {f.name for f in dataclasses.fields(NetworkConfig)} | {
    "policy",
    "shared_torso",
    "memory",
    "memory_size",
    "dueling",
    "critic_hidden_sizes",
    "initial_log_std",
    "state_dependent_std",
    "num_atoms",
    "num_quantiles",
}


def check_hparam(name: str, value: Any, hparams: type) -> None:
    """Raise ``ValueError`` where a traced setting's value is none that its :func:`~purejaxrl_ext.types.hparam` allows.

    Args:
        name: of the setting.
        value: a number; one that is traced is not looked at.
        hparams: the dataclass that has it. A field that is not declared by ``hparam`` may have any value but NaN.
    """
    if isinstance(value, jax.core.Tracer):
        return
    is_number = isinstance(value, int | float | np.number | np.ndarray | jax.Array) and np.ndim(value) == 0
    check(is_number and not isinstance(value, bool), name, value, "a number")
    number = float(value)
    check(not math.isnan(number), name, value, "a number")
    field = next(f for f in dataclasses.fields(hparams) if f.name == name)
    low, high, open_low, open_high, whole = field.metadata.get("range", (-math.inf, math.inf, False, False, False))
    inside = (number > low if open_low else number >= low) and (number < high if open_high else number <= high)
    if whole:
        inside = inside and (math.isinf(number) or number == int(number))
    check(inside, name, value, _range(low, high, open_low, open_high, whole))


def _range(low: float, high: float, open_low: bool, open_high: bool, whole: bool) -> str:
    if math.isfinite(high):
        return f"in {'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
    if whole:
        return f"a whole number of at least {low:g}"
    return f"greater than {low:g}" if open_low else f"{low:g} or greater"


@functools.lru_cache(maxsize=1024)
def with_interventions(hparams: type, interventions: tuple[Intervention, ...]) -> type:
    """A rule's traced settings and those of interventions, as one dataclass.

    Raises:
        ValueError: two have the same name.
    """
    more: dict[str, Any] = {}
    taken = {f.name for f in dataclasses.fields(hparams)}
    for intervention in interventions:
        for name, default in intervention.hparams.items():
            check(
                name not in taken,
                "interventions",
                name,
                "settings that are called otherwise than the rule's and each other's",
            )
            taken.add(name)
            # A field belongs to one class: each gets its own.
            copied = isinstance(default, dataclasses.Field)
            more[name] = struct.field(default=default.default, metadata=dict(default.metadata)) if copied else default
    if not more:
        return hparams

    def reduce(self: Any) -> Any:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return _rebuilt, (hparams, interventions, values)

    names = {"__annotations__": dict.fromkeys(more, Any), "__module__": hparams.__module__, "__reduce__": reduce}
    return type(hparams.__name__, (hparams,), names | more)


def _rebuilt(hparams: type, interventions: tuple[Intervention, ...], values: dict[str, Any]) -> Any:
    return with_interventions(hparams, interventions)(**values)


def split(
    config_type: type, hparams_type: type, settings: dict[str, Any], more: set[str], hint: Any
) -> tuple[Any, Any]:
    """Make a config and hparams of mixed settings.

    Args:
        config_type, hparams_type: dataclasses.
        settings: by name.
        more: names that are also known to the caller, for the error's suggestions.
        hint: ``name -> text``, what else to say of one that is not known.

    Raises:
        ValueError: a name that neither knows, or a value that is not allowed.
    """
    config_names = {f.name for f in dataclasses.fields(config_type)}
    hparam_names = {f.name for f in dataclasses.fields(hparams_type)}
    for name in settings:
        if name not in config_names | hparam_names:
            raise ValueError(unknown_name("setting", name, config_names | hparam_names | more, hint(name)))
    hparams = {name: value for name, value in settings.items() if name in hparam_names}
    for name, value in hparams.items():
        check_hparam(name, value, hparams_type)
    static = {name: plain(value) for name, value in settings.items() if name in config_names}
    return config_type(**static), hparams_type(**hparams)


# Settings that only some code path reads: (where it is chosen, the choice).
_READ_ONLY_WITH: dict[str, tuple[Any, ...]] = {
    "normalizer_steps": ("normalize_observations", "frozen"),
    "discounted_visits": ("reward_to_go", True),
    "value_coef": ("baseline", True),
    "memory_size": ("memory", "gru", "lstm"),
    "critic_hidden_sizes": ("baseline", True),
    "critic_learning_rate": ("baseline", True),
    "initial_log_std": ("policy", "gaussian", "tanh_gaussian"),
    "state_dependent_std": ("policy", "gaussian"),
    "reward_clip": ("normalize_rewards", True),
    "feature_clip": ("feature_mode", "clip"),
    "priority_exponent": ("prioritized", True),
    "importance_exponent": ("prioritized", True),
    "importance_anneal_steps": ("prioritized", True),
    "target_kl": ("stop_at_kl", True),
    "weight_decay": ("optimizer", "adamw"),
    "observation_clip": ("normalize_observations", "running", "frozen"),
}


def check_effect(config: Any, hparams: Any) -> None:
    """Raise ``ValueError`` where a setting was changed that nothing will read."""
    for record in (config, hparams):
        for field in dataclasses.fields(record):
            value = getattr(record, field.name)
            unread = field.name in config.unread and value != field.default
            check(not unread, field.name, value, "left alone: this algorithm does not read it")
            if field.name in _READ_ONLY_WITH and value != field.default:
                chooser, *choices = _READ_ONLY_WITH[field.name]
                chosen = getattr(config, chooser, choices[0])  # PPO's value is always learned: it has no choice.
                # An optimiser of one's own may read what it likes.
                fits = chosen in choices or callable(chosen)
                allowed = f"left alone unless {chooser} is {' or '.join(map(repr, choices))}"
                check(fits, field.name, value, allowed)
    if hasattr(hparams, "v_min") and not isinstance(hparams.v_min + hparams.v_max, jax.core.Tracer):
        check(hparams.v_min < hparams.v_max, "v_min", hparams.v_min, f"less than v_max={hparams.v_max}")


def check_module(network: Any) -> None:
    """Raise ``ValueError`` where what is given as ``network`` cannot be one: an nnx module, a class, or what has no hash."""
    name = type(network).__name__
    nnx = sys.modules.get("flax.nnx")  # There is no module of it that has not imported it.
    if nnx is not None and isinstance(network, nnx.Module):
        how = "networks.Nnx(make), make being rngs -> module"
        raise ValueError(f"network {name} is an nnx.Module, which holds its own arrays: give purejaxrl_ext.{how}")
    check(not isinstance(network, type), "network", network, "a module, not a class")
    lacks = [part for part in ("init", "apply") if not callable(getattr(network, part, None))]
    check(not lacks, "network", name, f"a module with init and apply; it has no {' and no '.join(lacks)}")
    try:
        hash(network)
    except TypeError as error:
        fields = dataclasses.fields(network) if dataclasses.is_dataclass(network) else ()
        bad = [f.name for f in fields if not _has_hash(getattr(network, f.name, None))]
        of = f"its fields {', '.join(bad)} are not (lists can be tuples)" if bad else str(error)
        raise ValueError(f"network {name} must be hashable, since equal ones share a compiled program: {of}") from None


def _has_hash(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def resolve(config: Any, env: Environment) -> Any:
    """Fill in what depends on the environment, so that a stored config says all."""
    shape = env.observation_shape
    new: dict[str, Any] = {}
    is_image = len(shape) == 3
    if config.conv_layers is None:
        large = is_image and min(shape[:2]) >= 36
        new["conv_layers"] = (networks.LARGE_IMAGE if large else networks.SMALL_IMAGE) if is_image else ()
    elif config.conv_layers:
        check(is_image, "conv_layers", config.conv_layers, f"None for {env.name}, whose observation has shape {shape}")
    if is_image:
        size = min(shape[:2])
        for _, kernel, stride in new.get("conv_layers", config.conv_layers):
            check(size >= kernel, "conv_layers", config.conv_layers, f"small enough for an image of shape {shape}")
            size = (size - kernel) // stride + 1
    if config.hidden_sizes is None:
        new["hidden_sizes"] = ((512,) if min(shape[:2]) >= 36 else (128,)) if is_image else (64, 64)
    layers = new.get("conv_layers", config.conv_layers) or new.get("hidden_sizes", config.hidden_sizes)
    check(bool(layers), "hidden_sizes", config.hidden_sizes, "at least one layer: its features are measured")
    if getattr(config, "episodic", False):
        # Fewer steps would cut the return, and more would not be used.
        limit = env.time_limit
        check(limit is not None, "env", env.name, "one with a time limit: the returns are those of whole episodes")
        check(config.num_steps in (None, limit), "num_steps", config.num_steps, f"None, or the time limit {limit}")
        new["num_steps"] = limit
    if isinstance(config, ActorCriticConfig):
        discrete = not isinstance(env.action_space, Box)
        allowed = (None, "categorical") if discrete else (None, "gaussian", "tanh_gaussian")
        check(config.policy in allowed, "policy", config.policy, f"one of {allowed} for the actions of {env.name}")
        new["policy"] = config.policy or ("categorical" if discrete else "gaussian")
    config = dataclasses.replace(config, **new)
    pool = config.reset_pool_size or default_pool_size(env, config.num_envs, config.steps_per_update)
    return dataclasses.replace(config, reset_pool_size=pool)
