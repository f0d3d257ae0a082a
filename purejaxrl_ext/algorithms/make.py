"""``make``: an algorithm by name or recipe, from mixed settings."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_ext.algorithms.presets import preset_settings
from purejaxrl_ext.algorithms.recipes import ALGORITHMS, BUILT_IN, Recipe
from purejaxrl_ext.algorithms.settings import (
    OF_DEFAULT_NETWORKS,
    check_effect,
    check_module,
    resolve,
    split,
    with_interventions,
)
from purejaxrl_ext.devices import isolated
from purejaxrl_ext.envs.base import Environment
from purejaxrl_ext.envs.make import make_env
from purejaxrl_ext.envs.wrappers import AppendLegal
from purejaxrl_ext.errors import check, unknown_name
from purejaxrl_ext.interventions import BUILT_IN as SHIPPED
from purejaxrl_ext.interventions import INTERVENTIONS, Intervention
from purejaxrl_ext.loops.base import Loop
from purejaxrl_ext.loops.memory import adapt
from purejaxrl_ext.loops.optim import OPTIMIZERS, networks
from purejaxrl_ext.networks import Masked, policies
from purejaxrl_ext.types import Algorithm, Output, abstract_key

_ENV_SETTINGS = tuple(inspect.signature(make_env).parameters)[1:]
# What other libraries call it.
_SYNONYMS = {"lr": "learning_rate", "discount": "gamma", "ent_coef": "entropy_coef", "vf_coef": "value_coef"}


@isolated()
def make(
    algorithm: str | Recipe,
    env: str | Environment,
    *,
    network: Any = None,
    preset: str | None = None,
    interventions: Sequence[str | Intervention] = (),
    metrics: Sequence[Callable[..., Any]] = (),
    **settings: Any,
) -> Algorithm:
    """An algorithm on an environment, ready to ``init`` and ``step``.

    Args:
        algorithm: a name in ``prx.ALGORITHMS``, such as ``"ppo"``, ``"pfo"`` or ``"dqn"``, or a :class:`Recipe`.
        env: as in :func:`~purejaxrl_ext.envs.make.make_env`: a gymnax name, ``"brax:"`` or ``"mdp:"`` and a name, or an object.
        network: a module from observations ``[B, ...]`` to an Output, or one with a memory, as
            :class:`~purejaxrl_ext.loops.memory.Recurrent` has it; None: the default, as the config says.
        preset: named settings, which ``settings`` override; see :func:`~purejaxrl_ext.algorithms.presets.presets`.
        interventions: what else changes how the network learns, in order: names in ``prx.INTERVENTIONS``, or an
            :class:`~purejaxrl_ext.interventions.base.Intervention`. Their settings are settings like all others.
        metrics: more measures of an update; see :class:`~purejaxrl_ext.loops.base.Loop`.
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
    recipe = find_recipe(algorithm)
    changes = find_interventions(interventions)
    if network is not None:
        check_module(network)
        for name in sorted(OF_DEFAULT_NETWORKS & set(settings)):
            check(False, name, settings[name], "left alone where network= is given: only the default networks read it")
    if preset is not None:
        named = preset_settings(preset, recipe, env if isinstance(env, str) else env.name, _ENV_SETTINGS)
        unread = OF_DEFAULT_NETWORKS if network is not None else set()
        settings = {k: v for k, v in named.items() if k not in unread} | settings
    env_settings = {k: settings.pop(k) for k in _ENV_SETTINGS if k in settings}
    hparams_type = with_interventions(recipe.hparams, changes)
    config, hparams = split(recipe.config, hparams_type, settings, set(_ENV_SETTINGS), _whose)
    made_env: Any = make_env(env, **env_settings)
    config = resolve(config, made_env)
    check_effect(config, hparams)
    module = recipe.network(config, made_env) if network is None else network
    loop = build(recipe, made_env, module, config, changes, tuple(metrics))
    check_network(loop, hparams, needs_policy=hasattr(config, "policy"))
    rebuild = {"algorithm": _stored(algorithm, recipe), "env": env, "network": network, **env_settings}
    rebuild |= {"interventions": tuple(map(_stored_intervention, changes))} if changes else {}
    rebuild |= {"metrics": tuple(metrics)} if metrics else {}
    fields = dataclasses.asdict(config)
    rebuild |= {k: v for k, v in fields.items() if network is None or k not in OF_DEFAULT_NETWORKS}
    rebuild |= dataclasses.asdict(hparams)
    return Algorithm(recipe.name, made_env.name, loop, hparams, rebuild, make)


def find_recipe(algorithm: str | Recipe) -> Recipe:
    """The recipe that a name stands for now."""
    if isinstance(algorithm, Recipe):
        return algorithm
    if not isinstance(algorithm, str):
        raise TypeError(f"algorithm must be a name or a prx.Recipe, got {type(algorithm).__name__}")
    if algorithm not in ALGORITHMS:
        more = "One that is registered elsewhere is known once the module that registers it has been imported."
        raise ValueError(unknown_name("algorithm", algorithm, ALGORITHMS, more))
    return ALGORITHMS[algorithm]


def find_interventions(names: Sequence[str | Intervention]) -> tuple[Intervention, ...]:
    """Interventions, by name or as they are."""
    several = isinstance(names, Sequence) and not isinstance(names, str)
    check(several, "interventions", names, "a sequence, also of one: (..., )")
    found = []
    for name in names:
        if isinstance(name, Intervention):
            found.append(name)
        elif not isinstance(name, str):
            kind = f"the class {name.__name__}" if isinstance(name, type) else type(name).__name__
            raise TypeError(f"interventions must hold names or prx.Intervention objects, got {kind}")
        elif name in INTERVENTIONS:
            found.append(INTERVENTIONS[name])
        else:
            raise ValueError(unknown_name("intervention", name, INTERVENTIONS))
    taken = [i.name for i in found]
    check(len(set(taken)) == len(taken), "interventions", taken, "of different names")
    return tuple(found)


def _stored(algorithm: str | Recipe, recipe: Recipe) -> str | Recipe:
    """How settings name the recipe: a name stands for the package's own alone, since only that is sure to come back."""
    return recipe.name if BUILT_IN.get(recipe.name) == recipe else recipe


def _stored_intervention(intervention: Intervention) -> str | Intervention:
    """The same of an intervention."""
    return intervention.name if SHIPPED.get(intervention.name) is intervention else intervention


def _whose(name: str) -> str:
    """What to say of a setting that an algorithm does not have."""
    if name in _SYNONYMS:
        return f"{name!r} is called {_SYNONYMS[name]!r} here."
    of = [
        r.name
        for r in ALGORITHMS.values()
        if name in {f.name for kind in (r.config, r.hparams) for f in dataclasses.fields(kind)}
    ]
    of_interventions = [i.name for i in INTERVENTIONS.values() if name in i.hparams]
    if of_interventions:
        return f"It is a setting of the intervention {of_interventions[0]!r}: interventions=({of_interventions[0]!r},)."
    return f"It is a setting of {', '.join(of)}." if of else ""


@functools.lru_cache(maxsize=1024)
def build(
    recipe: Recipe,
    env: Any,
    module: Any,
    config: Any,
    interventions: tuple[Intervention, ...],
    metrics: tuple[Callable[..., Any], ...],
) -> Loop:
    """The loop of equal settings: one object, and so one compiled program."""
    rule = recipe.rule(config, env.action_space)
    optimizer = OPTIMIZERS.get(config.optimizer, config.optimizer)
    for intervention in interventions:
        if intervention.loss is not None:
            rule = rule._replace(loss=intervention.loss(rule.loss))
        if intervention.network is not None:
            module = intervention.network(module)
        if intervention.optimizer is not None:
            optimizer = intervention.optimizer(optimizer)
    if isinstance(env, AppendLegal):
        module = Masked(module, env.action_space.n)
    return recipe.loop(rule, env, module, config, optimizer, interventions, metrics)


def check_network(loop: Loop, hparams: Any, needs_policy: bool) -> None:
    """Raise ``ValueError`` where a network's output does not fit the environment or the settings; compiles nothing.

    Args:
        loop: whose network and environment.
        hparams: the traced settings.
        needs_policy: whether the algorithm needs ``policy`` and ``value``, or ``q_values``.
    """

    module, env = loop.network, loop.env

    def run(key: jax.Array) -> Any:
        obs = jax.vmap(env.reset)(jax.random.split(key, 2))[1]
        agent = adapt(module)
        params = agent.init(key, obs)
        return params, agent.step(params, agent.initial_carry(2), obs, jnp.zeros(2, bool))[1]

    params, output = jax.eval_shape(run, abstract_key())
    name = type(module).__name__
    if not isinstance(output, Output):
        raise ValueError(f"network {name} must return a prx.Output, got {type(output).__name__}")
    check_critic(params, hparams)
    if not needs_policy:
        _check_shape(name, "q_values", output.q_values, env.action_space.n, env)
        return
    kinds = policies.KINDS[type(env.action_space)]
    if not isinstance(output.policy, kinds):
        got = type(output.policy).__name__
        wanted = " or ".join(f"prx.{kind.__name__}" for kind in kinds)
        raise ValueError(f"network {name} gives a policy of type {got}; the actions of {env.name} need a {wanted}")
    for leaf in jax.tree.leaves(output.policy):
        _check_shape(name, "policy", leaf, env.action_space.n, env)
    if getattr(output.value, "shape", None) != (2,):
        raise ValueError(f"network {name} must give a value of shape [B], got {getattr(output.value, 'shape', None)}")


def check_critic(params: Any, hparams: Any) -> None:
    """Raise ``ValueError`` where the critic has a learning rate of its own, but no parameters."""
    rate = hparams.critic_learning_rate
    if isinstance(rate, jax.core.Tracer) or rate == 0 or (isinstance(params, dict) and networks(params)):
        return
    allowed = "0 for a network without actor_... and critic_... among its parameters, as Q-networks are"
    check(False, "critic_learning_rate", rate, allowed)


def _check_shape(name: str, what: str, x: Any, size: int, env: Environment) -> None:
    shape = getattr(x, "shape", ())
    if shape != (2, size):
        raise ValueError(
            f"network {name} gives {what} of shape [B, {', '.join(map(str, shape[1:]))}]; the action space of "
            f"{env.name}, {env.action_space}, needs [B, {size}]"
        )
