"""Presets: the papers' values, and that each runs."""

import dataclasses
import importlib.util
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_ext as prx
from purejaxrl_ext import presets
from purejaxrl_ext.loops import normalize

KEY = jax.random.key(0)

# Moalla et al. 2024, appendix (its tables of Atari and MuJoCo), and the configuration files of its code.
COMMON: dict[str, Any] = {
    "separate_optimizers": True,
    "time_limit_terminates": True,
    "initializer": "fan_in",
    "optimizer": "adam",
    "adam_b1": 0.9,
    "adam_b2": 0.999,
    "adam_eps": 1e-8,
    "max_grad_norm": 0.5,
    "anneal_steps": 0,
    "value_clip_eps": math.inf,
    "normalize_advantage": "minibatch",
    # Its loss is 0.5 · mean (V − G)²; ours has the ½ already.
    "value_coef": 1.0,
    "feature_coef": 1.0,
    "feature_layers": "last",
    "feature_networks": "actor",
    "feature_part": "preactivation",
}
ATARI = {"num_envs": 8, "num_steps": 128, "num_epochs": 4, "learning_rate": 2.5e-4, "clip_eps": 0.1}
ATARI |= {"entropy_coef": 0.01, "gamma": 0.99, "gae_lambda": 0.95, "hidden_sizes": (512,), "activation": "relu"}
MUJOCO = {"num_envs": 2, "num_steps": 1024, "num_epochs": 10, "learning_rate": 3e-4, "clip_eps": 0.2}
MUJOCO |= {"entropy_coef": 0.0, "gamma": 0.99, "gae_lambda": 0.95, "hidden_sizes": (64, 64), "activation": "tanh"}
CARTPOLE = {"num_envs": 4, "num_steps": 256, "num_epochs": 4, "learning_rate": 2.5e-4, "clip_eps": 0.2}
CARTPOLE |= {"entropy_coef": 0.01, "gamma": 1.0, "gae_lambda": 1.0, "hidden_sizes": (64,), "activation": "tanh"}
VECTORS = {"normalize_observations": "frozen", "observation_clip": math.inf, "append_time": True}
# By preset: an environment of its kind, the minibatch's size, and the values.
PAPERS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "pfo-paper-atari": (
        "Breakout-MinAtar",
        256,
        ATARI | {"normalize_observations": False, "sticky_actions": 0.25, "sign_rewards": True},
    ),
    "pfo-paper-mujoco": ("Pendulum-v1", 64, MUJOCO | VECTORS | {"policy": "tanh_gaussian"}),
    "pfo-paper-cartpole": ("CartPole-v1", 128, CARTPOLE | VECTORS),
}


@pytest.mark.parametrize("preset", PAPERS)
def test_a_papers_preset_holds_its_values(preset):
    env, minibatch, values = PAPERS[preset]
    settings = prx.make("pfo", env, preset=preset).settings
    for name, value in (COMMON | values).items():
        assert settings[name] == value, name
    samples = settings["num_envs"] * settings["num_steps"]
    assert samples // settings["num_minibatches"] == minibatch


def test_every_preset_is_looked_at():
    """Those of emulators are in ``envs/test_ale``."""
    assert set(PAPERS) | {"pfo-paper-ale", "mnih-2015"} == set(presets.PAPERS)


SMALL = {"num_envs": 2, "num_steps": 8, "num_minibatches": 2, "num_epochs": 1, "hidden_sizes": (8,), "metrics_every": 0}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("preset", PAPERS)
def test_a_papers_preset_runs(preset, shared):
    """One update of it, smaller; with the trunk in both optimisers too."""
    env, _, values = PAPERS[preset]
    frozen = {"normalizer_steps": 32} if values["normalize_observations"] else {}
    algorithm = prx.make("pfo", env, preset=preset, shared_torso=shared, **SMALL, **frozen)
    state, logged = jax.jit(algorithm.step)(jax.jit(algorithm.init)(KEY))
    assert np.isfinite(logged["loss"])
    assert set(state.opt_state) == {"actor", "critic"}
    if not frozen:
        return
    # The time comes after the normalisation, and is the network's last input as it is.
    seen = algorithm.env.observation_shape[0]
    assert state.normalizer.obs.mean.shape == (seen - 1,)
    obs = jnp.full((1, seen), 1e6).at[0, -1].set(0.25)
    normal = np.asarray(normalize.normalize_obs(state.normalizer, obs))
    assert normal[0, -1] == 0.25
    assert np.abs(normal[0, :-1]).max() > 1e3, "clipped"


@pytest.mark.parametrize("name", [n for n in presets.TUNED if n != "pfo"])
def test_tuned_presets_can_be_made(name):
    """And hold nothing that the algorithm does not have."""
    recipe = prx.ALGORITHMS[name]
    known = {f.name for kind in (recipe.config, recipe.hparams) for f in dataclasses.fields(kind)}
    for env, settings in presets.TUNED[name].items():
        assert set(settings) <= known
        needs = {"envpool": "envpool", "gymnasium": "Box2D"}.get(env.partition(":")[0])
        if needs is None or importlib.util.find_spec(needs):
            prx.make(name, env, preset="tuned")


@pytest.mark.parametrize(
    ("algorithm", "preset", "message"),
    [
        (prx.ALGORITHMS["ppo"].but(name="mine"), "tuned", "preset='tuned' .*algorithm 'mine'.*ppo"),
        ("sarsa", "tuned", "preset='tuned' .*algorithm 'sarsa'.*pqn"),
        ("dqn", "pfo-paper-atari", "preset='pfo-paper-atari' .*algorithm 'dqn': it is for ppo and pfo"),
        ("ppo", "tuend", "unknown preset 'tuend'. Did you mean 'tuned'"),
    ],
)
def test_a_preset_that_is_none(algorithm, preset, message):
    with pytest.raises(ValueError, match=message):
        prx.make(algorithm, "CartPole-v1", preset=preset)
