"""One of several processes that save at the same time: ``python saver.py DIRECTORY COORDINATOR COUNT INDEX``."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from toys import tiny

import purejaxrl_ext as prx
from purejaxrl_ext.sweeps.checkpoints import Checkpoints

SAVES = 50


def main(path: Path, coordinator: str, count: str, index: str) -> None:
    prx.initialize(coordinator, int(count), int(index))
    state = jax.vmap(tiny("ppo").init)(jax.random.split(jax.random.key(0), 1)).replace(update=np.int32(0))
    with Checkpoints(path, "ppo", index) as checkpoints:
        for update in range(SAVES):
            multihost_utils.sync_global_devices(f"before {update}")
            checkpoints.save(update, state, np.zeros(1, np.int32), num_runs=1)
            checkpoints.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
