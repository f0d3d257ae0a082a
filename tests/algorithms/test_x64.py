"""Double precision (``JAX_ENABLE_X64=1``): each algorithm, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import jax
import purejaxrl_ext as prx
from toys import Echo, tiny

assert jax.config.jax_enable_x64
SETTINGS = {
    "ppo": [{"env": Echo()}, {"env": Echo(), "policy": "tanh_gaussian", "optimizer": "rmsprop"}],
    "dqn": [{"prioritized": True, "n_step": 2, "normalize_observations": "running"}],
    "pqn": [{"memory": "gru", "memory_size": 4}, {"memory": "lstm", "memory_size": 4, "initializer": "he_normal"}],
}
for name in prx.ALGORITHMS:
    for settings in [{}, *SETTINGS.get(name, [])]:
        algorithm = tiny(name, metrics_every=1, **settings)
        state = jax.eval_shape(algorithm.init, jax.random.key(0))
        after, _ = jax.eval_shape(algorithm.step, state)
        for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(after)):
            assert x.dtype == y.dtype, (name, settings, path, x.dtype, y.dtype)
            # What the environment keeps is its own.
            assert "64" not in str(x.dtype) or "env_state" in str(path), (name, settings, path, x.dtype)

dqn = tiny("dqn", **SETTINGS["dqn"][0])
_, logged = jax.jit(lambda key: dqn.step(dqn.init(key)))(jax.random.key(0))
assert logged["loss"] == logged["loss"]
"""


@pytest.mark.thorough
def test_each_algorithm_keeps_its_types():
    """So that a scan can carry its State; one runs as well."""
    env = {
        **os.environ,
        "JAX_ENABLE_X64": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
    }
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
