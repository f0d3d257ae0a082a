"""The first updates of each algorithm: numbers of before the loops were packed, on a CPU and as an accelerator computes them."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from toys import Gate, tiny

from purejaxrl_ext import devices

STORED = json.loads((Path(__file__).parent / "first_updates.json").read_text())
CASES = {
    "reinforce": ("reinforce", {}),
    "ppo": ("ppo", {}),
    "ppo gaussian": ("ppo", {"env": "Pendulum-v1", "normalize_observations": "running", "normalize_rewards": True}),
    "ppo separate": ("ppo", {"separate_optimizers": True, "initializer": "fan_in", "activation": "relu"}),
    "ppo shared": ("ppo", {"shared_torso": True, "critic_learning_rate": 1e-4}),
    "ppo gru": ("ppo", {"memory": "gru", "memory_size": 4}),
    # With Adam's usual ε the signs of gradients of 1e-8, which rounding decides, would be a tenth of a percent of the drift.
    "pfo minatar": ("pfo", {"env": "Breakout-MinAtar", "num_steps": 16, "activation": "relu", "adam_eps": 1e-3}),
    "pfo": ("pfo", {"env_params": {"max_steps_in_episode": 5}}),
    "pqn": ("pqn", {}),
    "dqn": ("dqn", {}),
    "dqn all": ("dqn", {"double": True, "dueling": True, "prioritized": True, "n_step": 2}),
    "sarsa": ("sarsa", {}),
}


# What came later: an accelerator's way against a CPU's.
LATER = {
    "hooks": ("ppo", {"interventions": ("l2_init", "redo", "weight_clipping", "adam_rel"), "redo_every": 1.0}),
    "injected": ("ppo", {"interventions": ("plasticity_injection",), "plasticity_injection_at": 2.0}),
    "simba": ("ppo", {"block": "simba", "activation": "relu", "critic_learning_rate": 1e-4}),
    "masked": ("ppo", {"env": Gate()}),
    "masked dqn": ("dqn", {"env": Gate()}),
    "stopped": ("ppo", {"stop_at_kl": True, "target_kl": 1e-6}),
}


def first_updates(name):
    """Metrics ``[3]`` of the first three updates, and sums over the parameters after them."""
    kind, settings = (CASES | LATER)[name]
    algorithm = tiny(kind, **({"metrics_every": 0} | settings))
    state = algorithm.init(jax.random.key(3))
    rows, step = [], jax.jit(lambda state: algorithm.step(state))
    for _ in range(3):
        state, logged = step(state)
        rows.append(logged)
    found = {metric: [float(row[metric]) for row in rows] for metric in rows[0]}
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(state.params)]
    return found | {"params": [sum(x.sum() for x in leaves), sum(np.abs(x).sum() for x in leaves)]}


@pytest.mark.parametrize("target", ["cpu", "gpu"])
@pytest.mark.parametrize("name", CASES)
def test_numbers_are_those_of_before(name, target):
    with devices.compiled_for(target):
        close(name, first_updates(name), STORED[name])


@pytest.mark.parametrize("name", LATER)
def test_an_accelerator_computes_the_same(name):
    with devices.compiled_for("gpu"):
        found = first_updates(name)
    close(name, found, first_updates(name))


def close(name, found, stored):
    assert found.keys() == stored.keys()
    for metric, values in stored.items():
        # Losses are differences of numbers of about 1, and may be small themselves.
        np.testing.assert_allclose(found[metric], values, rtol=1e-5, atol=1e-6, err_msg=f"{name}: {metric}")
