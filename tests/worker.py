"""One process of a sweep: ``python worker.py DIRECTORY [COORDINATOR COUNT INDEX]``."""

from __future__ import annotations

import sys
from pathlib import Path

from toys import tiny

import purejaxrl_ext as prx

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
        prx.sweep(arms, out=path, **settings)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
