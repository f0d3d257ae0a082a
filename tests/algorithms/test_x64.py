"""Double precision (``JAX_ENABLE_X64=1``): one update of each algorithm, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import jax
import purejaxrl_ext as prx
from toys import tiny

assert jax.config.jax_enable_x64
EXTRA = {"dqn": {"prioritized": True, "n_step": 2, "normalize_observations": "running"}, "pqn": {"memory": "gru", "memory_size": 4}}
for name in prx.ALGORITHMS:
    algorithm = tiny(name, metrics_every=1, **EXTRA.get(name, {}))
    state = algorithm.init(jax.random.key(0))
    after, logged = jax.jit(algorithm.step)(state)
    assert logged["loss"] == logged["loss"], name
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(after)):
        assert x.dtype == y.dtype, (name, path, x.dtype, y.dtype)
"""


def test_one_update_of_each_algorithm():
    """It runs, and its State keeps its types, so that a scan can carry it."""
    env = {
        **os.environ,
        "JAX_ENABLE_X64": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
    }
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
