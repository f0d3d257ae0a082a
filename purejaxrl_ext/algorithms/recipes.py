"""Recipes: what an algorithm's name stands for, a value that can be changed in parts and given to ``make`` in its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from purejaxrl_ext import networks
from purejaxrl_ext.algorithms import config as configs
from purejaxrl_ext.envs.base import Environment
from purejaxrl_ext.errors import check, unknown_name
from purejaxrl_ext.loops.base import Loop
from purejaxrl_ext.loops.off_policy import OffPolicy
from purejaxrl_ext.loops.on_policy import OnPolicy
from purejaxrl_ext.rules import distributional, dqn, pfo, ppo, q_learning, reinforce
from purejaxrl_ext.types import Discrete, Rule


@dataclass(frozen=True)
class Recipe:
    """A rule in a loop, its settings and its default network.

    Attributes:
        name: for results and messages.
        rule: ``(config, action_space) -> Rule``.
        loop: ``(rule, env, network, config, ...) -> Loop``.
        config: a frozen dataclass, of :mod:`~purejaxrl_ext.algorithms.config` or one that extends it.
        hparams: a ``flax.struct`` dataclass that extends :class:`~purejaxrl_ext.types.OptimizerHparams`.
        network: ``(config, env) -> module``.

    Example::

        class Tempered(ppo.PPOHparams):
            temperature: Any = hparam(1.0, low=0.0)

        mine = prx.ALGORITHMS["ppo"].but(name="tempered", rule=my_rule, hparams=Tempered)
        prx.make(mine, "CartPole-v1", temperature=0.5)
    """

    name: str
    rule: Callable[[Any, Any], Rule]
    loop: Callable[..., Loop]
    config: type
    hparams: type
    network: Callable[[Any, Environment], Any]

    def but(self, **changes: Any) -> Recipe:
        """This recipe with other parts.

        Raises:
            ValueError: a part that no recipe has.
        """
        parts = [f.name for f in dataclasses.fields(self)]
        for name in changes:
            if name not in parts:
                raise ValueError(unknown_name("part of a recipe", name, parts))
        return dataclasses.replace(self, **changes)


def actor_critic(config: Any, env: Environment) -> networks.ActorCritic:
    """The default policy and value network of an on-policy algorithm."""
    settings: dict[str, Any] = {
        "num_actions": env.action_space.n,
        "policy": config.policy,
        "torso": torso(config),
        "shared_torso": config.shared_torso,
        "initializer": config.initializer,
        "initial_log_std": config.initial_log_std,
        "state_dependent_std": config.state_dependent_std,
        "action_sizes": getattr(env.action_space, "sizes", ()),
    }
    if config.critic_hidden_sizes is not None:
        settings["value_torso"] = torso(config).clone(hidden_sizes=config.critic_hidden_sizes)
    if config.memory is None:
        return networks.ActorCritic(**settings)
    return networks.RecurrentActorCritic(**settings, memory=config.memory, memory_size=config.memory_size)


def q_network(config: Any, env: Environment) -> networks.QNetwork:
    """The default Q-network of the on-policy loop."""
    settings = _of_q_network(config, env)
    if config.memory is None:
        return networks.QNetwork(**settings)
    return networks.RecurrentQNetwork(**settings, memory=config.memory, memory_size=config.memory_size)


def replay_q_network(config: Any, env: Environment) -> networks.QNetwork:
    """The default Q-network of the replay loop."""
    return networks.QNetwork(**_of_q_network(config, env), dueling=config.dueling)


def c51_network(config: Any, env: Environment) -> networks.DistributionalQNetwork:
    """C51's: logits of atoms."""
    settings = _of_q_network(config, env)
    return networks.DistributionalQNetwork(**settings, dueling=config.dueling, size=config.num_atoms, atoms=True)


def qr_network(config: Any, env: Environment) -> networks.DistributionalQNetwork:
    """QR-DQN's: quantiles."""
    settings = _of_q_network(config, env)
    return networks.DistributionalQNetwork(**settings, dueling=config.dueling, size=config.num_quantiles, atoms=False)


def _of_q_network(config: Any, env: Environment) -> dict[str, Any]:
    check(isinstance(env.action_space, Discrete), "env", env.name, "one of discrete actions for Q-learning")
    return {"num_actions": env.action_space.n, "torso": torso(config), "initializer": config.initializer}


def torso(config: Any) -> networks.Torso:
    """Hidden layers as the config says."""
    names = [f.name for f in dataclasses.fields(configs.NetworkConfig)]
    return networks.Torso(**{name: getattr(config, name) for name in names})


_REINFORCE = Recipe(
    "reinforce", reinforce.rule, OnPolicy, configs.REINFORCEConfig, reinforce.REINFORCEHparams, actor_critic
)
_PPO = Recipe("ppo", ppo.rule, OnPolicy, configs.PPOConfig, ppo.PPOHparams, actor_critic)
_PFO = _PPO.but(name="pfo", rule=pfo.rule, config=configs.PFOConfig, hparams=pfo.PFOHparams)
_Q = Recipe("q_learning", q_learning.rule, OnPolicy, configs.QLearningConfig, q_learning.QHparams, q_network)
_SARSA = _Q.but(name="sarsa", rule=q_learning.sarsa_rule)
_EXPECTED_SARSA = _Q.but(name="expected_sarsa", rule=q_learning.expected_sarsa_rule)
_PQN = _Q.but(name="pqn", rule=q_learning.pqn_rule, config=configs.PQNConfig, hparams=q_learning.PQNHparams)
_DQN = Recipe("dqn", q_learning.dqn_rule, OffPolicy, configs.DQNConfig, dqn.DQNHparams, replay_q_network)
_C51 = _DQN.but(
    name="c51",
    rule=distributional.c51_rule,
    config=configs.C51Config,
    hparams=distributional.C51Hparams,
    network=c51_network,
)
_QR_DQN = _DQN.but(
    name="qr_dqn",
    rule=distributional.qr_rule,
    config=configs.QRDQNConfig,
    hparams=distributional.QRDQNHparams,
    network=qr_network,
)

BUILT_IN = {r.name: r for r in (_REINFORCE, _PPO, _PFO, _Q, _SARSA, _EXPECTED_SARSA, _PQN, _DQN, _C51, _QR_DQN)}

# Recipes by name; one of your own may be added. What stands under a name when an algorithm is made is what it is made of.
ALGORITHMS: dict[str, Recipe] = dict(BUILT_IN)
