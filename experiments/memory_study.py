"""What memory is for: PPO without any, with a stack of frames and with a GRU, where one observation does not tell the state."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cli
import jax
import numpy as np
import xarray as xr
from report import cell_text, fresh_directory
from rich.console import Console
from rich.table import Table

import purejaxrl_ext as prx
from purejaxrl_ext.analysis import plots, stats

# A maze of which the robot feels the four walls around it; a bit shown first and asked for five steps later; a pole whose
# velocities are hidden.
ENVS: dict[str, tuple[str, dict[str, Any]]] = {
    "maze": ("mdp:maze", {"gamma": 0.95}),
    "chain": ("MemoryChain-bsuite", {}),
    "cartpole": ("CartPole-v1", {"observe": (0, 2)}),
}
TITLES = {"maze": "wall-sensing maze", "chain": "MemoryChain", "cartpole": "masked CartPole"}


@dataclass(frozen=True)
class Study:
    """Settings of the study."""

    envs: tuple[str, ...] = tuple(ENVS)
    """maze, chain, cartpole"""
    num_seeds: int = 5
    """seeds of each arm"""
    total_steps: int = 400_000
    """environment steps of each run, over which the learning rate falls to 0"""
    num_episodes: int = 128
    """greedy episodes of each trained agent"""
    frame_stack: int = 6
    """observations that the agent with a stack of frames sees"""
    memory_size: int = 32
    """units of the GRU"""
    learning_rate: float = 2e-3
    out: Path | None = None
    """where table and figure go, a new directory; default: runs/study-1, -2, ..."""


def arms(study: Study, env: str) -> dict[str, prx.Algorithm]:
    """The three agents on one environment, by name."""
    name, settings = ENVS[env]
    shared: dict[str, Any] = settings | {
        "num_envs": 16,
        "num_steps": 128,
        "hidden_sizes": (32,),
        "learning_rate": study.learning_rate,
        "anneal_steps": study.total_steps,
        "metrics_every": 0,
    }
    return {
        "feed-forward": prx.make("ppo", name, **shared),
        f"{study.frame_stack} frames": prx.make("ppo", name, **shared, frame_stack=study.frame_stack),
        "GRU": prx.make("ppo", name, **shared, memory="gru", memory_size=study.memory_size),
    }


def main(study: Study) -> None:
    """Train every agent on every environment; table and figure."""
    unknown = [env for env in study.envs if env not in ENVS]
    if unknown or not study.envs:
        raise ValueError(f"envs={study.envs} is not allowed: it must be some of {', '.join(ENVS)}")
    if study.num_episodes < 1:
        raise ValueError(f"num_episodes={study.num_episodes} is not allowed: it must be at least 1")
    began = time.perf_counter()
    # What is wrong with any environment is said before the first is trained.
    made = {env: arms(study, env) for env in study.envs}
    out = study.out or fresh_directory(Path("runs"))
    if out.exists():
        raise ValueError(f"--out {out} is there already: choose another")
    out.mkdir(parents=True)
    table = Table(
        title=f"Greedy return after {study.total_steps:,} steps, mean [95% interval]; worst of {study.num_seeds} seeds"
    )
    for column in ("environment", "arm", "greedy return", "worst seed"):
        table.add_column(column, justify="left" if column in ("environment", "arm") else "right")
    curves: dict[str, xr.DataArray] = {}
    for env, algorithms in made.items():
        # Greedy returns: a policy that samples its actions gets out of any maze by and by.
        every = max(1, algorithms["GRU"].num_updates(study.total_steps) // 20)
        dataset = prx.sweep(
            algorithms, num_seeds=study.num_seeds, total_steps=study.total_steps, eval_every=every, keep_states=True
        )
        greedy = dataset["eval_return"].where(np.isnan(dataset["diverged_at"]))
        curves[env] = greedy.assign_attrs(long_name=f"{TITLES[env]}: greedy return", units="")
        for arm, algorithm in algorithms.items():
            table.add_row(TITLES[env], arm, *judged(study, dataset, arm, algorithm))
    finished = dataset["diverged_at"] * np.nan
    figure = xr.Dataset(curves | {"diverged_at": finished}, coords={"env_step": dataset["env_step"]})
    path = out / "memory.png"
    plots.curves(figure, tuple(curves), path=path)
    Console(width=120).print(table)
    print(f"figure: {path}\ntook {time.perf_counter() - began:.0f} s")


def judged(study: Study, dataset: xr.Dataset, arm: str, algorithm: prx.Algorithm) -> tuple[str, str]:
    """The mean over seeds with its interval, and the worst seed, on episodes that no seed has trained on."""
    key = jax.random.key(2**31 - 1)
    states = [prx.load_state(dataset, arm=arm, seed=int(seed)) for seed in dataset["seed"]]
    returns = np.array([prx.evaluate(algorithm, s, key, study.num_episodes).mean() for s in states])
    names = ("estimate", "low", "high")
    return cell_text(dict(zip(names, map(float, stats.bootstrap(returns)), strict=True))), f"{returns.min():.4g}"


if __name__ == "__main__":
    cli.run(main, __doc__, Study)
