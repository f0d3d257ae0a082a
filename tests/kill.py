"""A sweep in a process of its own, for the tests that kill it: ``python kill.py DIRECTORY [ARM ...]``.

Starts the run, or goes on with it; all arms, or those named. Every chunk is one update and every update is saved.
"""

from __future__ import annotations

import sys
from pathlib import Path

from toys import tiny

import purejaxrl_ext as prx
from purejaxrl_ext.sweeps import wave

SEEDS = [3, 8, 5]
UPDATES = 12
SLOW = {"checkpoint_seconds": 1e-9, "progress": False}


def arms(*names: str) -> dict[str, prx.Algorithm]:
    """PPO and PFO with everything a State can hold on-policy, and DQN with all its replay."""
    running = {"normalize_observations": True, "normalize_rewards": True}
    made = {
        "ppo": tiny("ppo", num_steps=8, **running),
        "pfo": tiny("pfo"),
        "dqn": tiny("dqn", prioritized=True, n_step=2, updates_per_step=8),
    }
    return {name: made[name] for name in names or made}


def main(path: Path, *names: str) -> None:
    wave.CHUNK_SECONDS = 0.0
    named = arms(*names)
    if (path / "config.json").exists():
        prx.resume(path, arms=named, **SLOW)
    else:
        prx.sweep(named, seeds=SEEDS, total_steps=UPDATES * 16, out=path, wave_size=2, save_every=5, **SLOW)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
