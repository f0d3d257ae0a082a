"""An algorithm written outside the package (:mod:`outside`): made, trained, swept, stopped, and found again by its import path."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import outside
import pytest
from toys import equal_trees

import purejaxrl_ext as prx

KEY = jax.random.key(0)
SMALL = {
    "num_envs": 2,
    "hidden_sizes": (8,),
    "replay_capacity": 200,
    "batch_size": 16,
    "prefill_steps": 20,
    "env_steps_per_update": 2,
    "updates_per_step": 20,
    "learning_rate": 1e-2,
    "metrics_every": 0,
}


@dataclass(frozen=True)
class Right:
    """Ten steps, each of which rewards action 2 of 3."""

    name: str = "right"
    observation_shape: tuple[int, ...] = (1,)
    action_space: Any = prx.Discrete(3)
    time_limit: int | None = 10

    def reset(self, key):
        return jnp.zeros(()), jnp.ones(1)

    def step(self, key, env_state, action):
        return prx.EnvStep(env_state, jnp.ones(1), jnp.float32(action == 2), jnp.zeros((), bool))


def test_it_is_one_short_file():
    code = Path(outside.__file__).read_text().split('"""', 2)[2].strip().splitlines()
    assert len([line for line in code if line.strip()]) < 70


@pytest.mark.thorough
def test_it_learns():
    algorithm = prx.make(outside.SAC, Right(), gamma=0.5, tau=0.05, target_period=1, **SMALL)
    state, logged = prx.train(algorithm, KEY, 10 * algorithm.steps_per_update)
    assert float(prx.evaluate(algorithm, state, KEY, 4).min()) == 10.0
    assert float(logged["entropy"][0]) > float(logged["entropy"][-1])


def test_it_is_swept_stopped_and_found_again(tmp_path):
    """Nothing is given again: its settings name the functions of ``outside``."""
    algorithm = prx.make(outside.SAC, "CartPole-v1", **SMALL)
    settings = {"num_seeds": 2, "grid": {"temperature": [0.0, 0.1]}, "progress": False}
    whole = prx.sweep(algorithm, total_steps=120, keep_states=True, **settings)
    prx.sweep(algorithm, total_steps=80, out=tmp_path / "x", **settings)
    assert '"outside:rule"' in (tmp_path / "x" / "config.json").read_text()
    ds = prx.resume(tmp_path / "x", total_steps=120, progress=False)
    np.testing.assert_array_equal(ds["loss"], whole["loss"])
    where = {"seed": 1, "temperature": 0.1}
    equal_trees(prx.load_state(tmp_path / "x", **where), prx.load_state(whole, **where))
