"""One process of a sweep: ``python worker.py DIRECTORY [COORDINATOR COUNT INDEX]``.

With WORKER_SLOW=1 every chunk is one update and every update is saved.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from toys import tiny

import purejaxrl_ext as prx
from purejaxrl_ext.sweeps import wave

UPDATES = 10
SEEDS = [3, 8, 5, 1, 2, 7, 9]


def main(path: Path, *cluster: str) -> None:
    if cluster:
        coordinator, count, index = cluster
        prx.initialize(coordinator, int(count), int(index))
    arms = {"ppo": tiny("ppo")}
    settings = {"seeds": SEEDS, "grid": {"gamma": [0.9, 0.99]}, "total_steps": UPDATES * 16, "progress": False}
    if (path / "config.json").exists():
        prx.resume(path, arms=arms, progress=False)
    else:
        slow = os.environ.get("WORKER_SLOW") == "1"
        wave.CHUNK_SECONDS = 0.0 if slow else wave.CHUNK_SECONDS
        prx.sweep(arms, out=path, checkpoint_seconds=1e-9 if slow else 60.0, **settings)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
