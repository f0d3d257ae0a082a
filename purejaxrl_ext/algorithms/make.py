"""``make``: an algorithm by name, from mixed settings."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_ext import loops, networks
from purejaxrl_ext.algorithms import config as configs
from purejaxrl_ext.algorithms.presets import preset_settings
from purejaxrl_ext.envs.base import Environment
from purejaxrl_ext.envs.make import make_env
from purejaxrl_ext.errors import check, unknown_name
from purejaxrl_ext.loops.memory import adapt
from purejaxrl_ext.networks import policies
from purejaxrl_ext.rules import dqn, pfo, ppo, q_learning, reinforce
from purejaxrl_ext.types import Algorithm, Discrete, Output, Rule, abstract_key


class Recipe(NamedTuple):
    """What an algorithm's name stands for: a rule in a loop, its settings and its default network."""

    rule: Callable[[Any, Any], Rule]
    loop: Callable[..., loops.Functions]
    config: type
    hparams: type
    network: Callable[[Any, Environment], Any]


def actor_critic(config: Any, env: Environment) -> networks.ActorCritic:
    """The default policy and value network of an on-policy algorithm."""
    settings: dict[str, Any] = {
        "num_actions": env.action_space.n,
        "policy": config.policy,
        "torso": torso(config),
        "shared_torso": config.shared_torso,
        "initializer": config.initializer,
    }
    if config.memory is None:
        return networks.ActorCritic(**settings)
    return networks.RecurrentActorCritic(**settings, memory_size=config.memory_size)


def q_network(config: Any, env: Environment) -> networks.QNetwork:
    """The default Q-network."""
    check(isinstance(env.action_space, Discrete), "env", env.name, "one of discrete actions for Q-learning")
    return networks.QNetwork(
        num_actions=env.action_space.n,
        torso=torso(config),
        dueling=getattr(config, "dueling", False),
        initializer=config.initializer,
    )


def torso(config: Any) -> networks.Torso:
    """Hidden layers as the config says."""
    names = [f.name for f in dataclasses.fields(configs.NetworkConfig)]
    values = {name: getattr(config, name) for name in names}
    return networks.Torso(**values)


ALGORITHMS: dict[str, Recipe] = {
    "reinforce": Recipe(
        reinforce.rule, loops.on_policy, configs.REINFORCEConfig, reinforce.REINFORCEHparams, actor_critic
    ),
    "ppo": Recipe(ppo.rule, loops.on_policy, configs.PPOConfig, ppo.PPOHparams, actor_critic),
    "pfo": Recipe(pfo.rule, loops.on_policy, configs.PFOConfig, pfo.PFOHparams, actor_critic),
    "q_learning": Recipe(q_learning.rule, loops.on_policy, configs.QLearningConfig, q_learning.QHparams, q_network),
    "sarsa": Recipe(q_learning.sarsa_rule, loops.on_policy, configs.QLearningConfig, q_learning.QHparams, q_network),
    "expected_sarsa": Recipe(
        q_learning.expected_sarsa_rule, loops.on_policy, configs.QLearningConfig, q_learning.QHparams, q_network
    ),
    "pqn": Recipe(q_learning.pqn_rule, loops.on_policy, configs.PQNConfig, q_learning.PQNHparams, q_network),
    "dqn": Recipe(q_learning.dqn_rule, loops.off_policy, configs.DQNConfig, dqn.DQNHparams, q_network),
}

_ENV_SETTINGS = tuple(inspect.signature(make_env).parameters)[1:]


def make(
    algorithm: str, env: str | Environment, *, network: Any = None, preset: str | None = None, **settings: Any
) -> Algorithm:
    """An algorithm on an environment, ready to ``init`` and ``step``.

    Args:
        algorithm: ``"reinforce"``, ``"ppo"``, ``"pfo"``, ``"q_learning"``, ``"sarsa"``, ``"expected_sarsa"``, ``"pqn"`` or
            ``"dqn"``.
        env: as in :func:`~purejaxrl_ext.envs.make.make_env`: a gymnax name, ``"brax:"`` or ``"mdp:"`` and a name, or an object.
        network: a flax module from observations ``[B, ...]`` to an Output, or one with a memory, as
            :class:`~purejaxrl_ext.loops.memory.Recurrent` has it; None: the default, as the config says.
        preset: named settings, which ``settings`` override; see :func:`~purejaxrl_ext.algorithms.presets.presets`.
        **settings: fields of the algorithm's Config and Hparams and options of ``make_env``, mixed.

    Raises:
        ValueError: an unknown name (with the nearest ones), a value that is not allowed, or a network whose output does
            not fit the action space.
        TypeError: an environment that does not follow the protocol.

    Example::

        algorithm = prx.make("pfo", "Breakout-MinAtar", num_envs=64, learning_rate=2.5e-4, feature_coef=1.0)
        state = algorithm.init(jax.random.key(0))
        state, metrics = algorithm.step(state)
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(unknown_name("algorithm", algorithm, ALGORITHMS))
    recipe = ALGORITHMS[algorithm]
    if preset is not None:
        env_name = env if isinstance(env, str) else env.name
        settings = preset_settings(preset, algorithm, env_name, recipe, _ENV_SETTINGS) | settings
    env_settings = {k: settings.pop(k) for k in _ENV_SETTINGS if k in settings}
    config, hparams = configs.split_settings(recipe.config, recipe.hparams, settings, set(_ENV_SETTINGS))
    _check_effect(config, hparams)
    made_env: Any = make_env(env, **env_settings)
    config = _resolve(config, made_env)
    module = recipe.network(config, made_env) if network is None else network
    loop = _build(algorithm, made_env, module, config)
    check_network(module, made_env, needs_policy=hasattr(config, "policy"))
    rebuild = {"algorithm": algorithm, "env": env, "network": network, **env_settings}
    rebuild |= dataclasses.asdict(config) | dataclasses.asdict(hparams)
    return Algorithm(
        name=algorithm,
        env_name=made_env.name,
        init=_with_default(loop.init, hparams),
        step=_with_default(loop.step, hparams),
        act=loop.act,
        noise=loop.noise,
        loop=loop,
        config=config,
        hparams=hparams,
        env=made_env,
        network=module,
        settings=rebuild,
    )


@functools.lru_cache(maxsize=1024)
def _build(name: str, env: Any, module: Any, config: Any) -> loops.Functions:
    # Equal settings give the same functions, and those the same compiled programs.
    recipe = ALGORITHMS[name]
    return recipe.loop(recipe.rule(config, env.action_space), env, module, config)


def _with_default(function: Callable, default: Any) -> Callable:
    @functools.wraps(function)
    def call(first: Any, hparams: Any = None, *args: Any) -> Any:
        return function(first, default if hparams is None else hparams, *args)

    return call


# Settings that only some code path reads: (where it is chosen, the choice).
_READ_ONLY_WITH: dict[str, tuple[str, Any]] = {
    "normalizer_steps": ("normalize_observations", "frozen"),
    "discounted_visits": ("reward_to_go", True),
    "value_coef": ("baseline", True),
    "memory_size": ("memory", "gru"),
    "feature_clip": ("feature_mode", "clip"),
    "priority_exponent": ("prioritized", True),
    "importance_exponent": ("prioritized", True),
    "importance_anneal_steps": ("prioritized", True),
}


def _check_effect(config: Any, hparams: Any) -> None:
    """Raise ``ValueError`` where a setting was changed that nothing will read."""
    for record in (config, hparams):
        for field in dataclasses.fields(record):
            value = getattr(record, field.name)
            if field.name in _READ_ONLY_WITH and value != field.default:
                chooser, choice = _READ_ONLY_WITH[field.name]
                # Not every algorithm has the choice: PPO's value is always learned.
                check(
                    getattr(config, chooser, choice) == choice,
                    field.name,
                    value,
                    f"left alone unless {chooser}={choice!r}",
                )


def _resolve(config: Any, env: Environment) -> Any:
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
    if hasattr(config, "policy"):
        discrete = isinstance(env.action_space, Discrete)
        allowed = (None, "categorical") if discrete else (None, "gaussian", "tanh_gaussian")
        check(config.policy in allowed, "policy", config.policy, f"one of {allowed} for the actions of {env.name}")
        new["policy"] = config.policy or ("categorical" if discrete else "gaussian")
    return dataclasses.replace(config, **new)


def check_network(module: Any, env: Environment, needs_policy: bool) -> None:
    """Raise ``ValueError`` where a network's output does not fit the environment; compiles nothing.

    Args:
        module: from observations to an Output.
        env: what it will see and act in.
        needs_policy: whether the algorithm needs ``policy`` and ``value``, or ``q_values``.
    """

    def run(key: jax.Array) -> Any:
        obs = jax.vmap(env.reset)(jax.random.split(key, 2))[1]
        agent = adapt(module)
        return agent.step(agent.init(key, obs), agent.initial_carry(2), obs, jnp.zeros(2, bool))[1]

    output = jax.eval_shape(run, abstract_key())
    name = type(module).__name__
    if not isinstance(output, Output):
        raise ValueError(f"network {name} must return a prx.Output, got {type(output).__name__}")
    if not needs_policy:
        _check_shape(name, "q_values", output.q_values, env.action_space.n, env)
        return
    discrete = isinstance(env.action_space, Discrete)
    kind = policies.Categorical if discrete else (policies.Gaussian, policies.TanhGaussian)
    if not isinstance(output.policy, kind):
        got = type(output.policy).__name__
        wanted = "prx.Categorical" if discrete else "prx.Gaussian or prx.TanhGaussian"
        raise ValueError(f"network {name} gives a policy of type {got}; the actions of {env.name} need a {wanted}")
    for leaf in jax.tree.leaves(output.policy):
        _check_shape(name, "policy", leaf, env.action_space.n, env)
    if getattr(output.value, "shape", None) != (2,):
        raise ValueError(f"network {name} must give a value of shape [B], got {getattr(output.value, 'shape', None)}")


def _check_shape(name: str, what: str, x: Any, size: int, env: Environment) -> None:
    shape = getattr(x, "shape", ())
    if shape != (2, size):
        raise ValueError(
            f"network {name} gives {what} of shape [B, {', '.join(map(str, shape[1:]))}]; the action space of "
            f"{env.name}, {env.action_space}, needs [B, {size}]"
        )
