"""What trained agents reach per environment with tuned settings: the mean over seeds of greedy episodes."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cli
import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import purejaxrl_ext as prx
from purejaxrl_ext.analysis import stats

# Environment steps after which the tuned settings are judged.
BUDGETS = {
    "CartPole-v1": 500_000,
    "Acrobot-v1": 500_000,
    "Pendulum-v1": 1_000_000,
    "MountainCarContinuous-v0": 1_000_000,
    "Breakout-MinAtar": 10_000_000,
}


@dataclass(frozen=True)
class Learning:
    """What is trained and how it is judged."""

    envs: tuple[str, ...] = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCarContinuous-v0")
    algorithm: str = "ppo"
    num_seeds: int = 5
    num_episodes: int = 128
    """greedy episodes of each trained agent"""
    total_steps: int | None = None
    """environment steps of each run; default: by environment, 500,000 to 10,000,000"""
    preset: str | None = "tuned"
    """named settings; none: the defaults"""
    results: Path = Path("runs/learning")
    """directory of the table, learning-<algorithm>.md; what it says of other environments stays. The project's own tables
    are in experiments/results"""


def main(learning: Learning) -> None:
    """Train on every environment, show the table and write it."""
    if not learning.envs:
        raise ValueError("envs=() is not allowed: it must be at least one environment")
    # What is wrong with any environment is said before the first is trained.
    algorithms = {env: prx.make(learning.algorithm, env, preset=learning.preset) for env in learning.envs}
    if learning.num_episodes < 1:
        raise ValueError(f"num_episodes={learning.num_episodes} is not allowed: it must be at least 1")
    if learning.total_steps is not None and learning.total_steps < 1:
        raise ValueError(f"total_steps={learning.total_steps} is not allowed: it must be at least 1")
    rows = {}
    for env, algorithm in algorithms.items():
        began = time.perf_counter()
        steps = learning.total_steps or budget(env)
        returns = trained_returns(algorithm, learning, steps)
        rows[env] = row(env, learning, steps, returns, time.perf_counter() - began)
        print(f"{env}: {returns.mean():.4g}, seeds {np.round(returns, 1).tolist()}", file=sys.stderr)
    show(rows, learning)
    path = learning.results / f"learning-{learning.algorithm}.md"
    save(path, rows, learning)
    print(f"written to {path}")


def trained_returns(algorithm: prx.Algorithm, learning: Learning, total_steps: int) -> np.ndarray:
    """Mean greedy return of each seed's trained agent, ``[S]``."""
    dataset = prx.sweep(algorithm, num_seeds=learning.num_seeds, total_steps=total_steps, keep_states=True)
    # Not a seed's own key: the episodes are new ones.
    key = jax.random.key(2**31 - 1)
    return np.array(
        [
            float(
                prx.evaluate(algorithm, prx.load_state(dataset, seed=s), key, learning.num_episodes, greedy=True).mean()
            )
            for s in range(learning.num_seeds)
        ]
    )


def budget(env: str) -> int:
    """Environment steps of a run where none are asked for."""
    return BUDGETS.get(env, 10_000_000 if env.endswith("-MinAtar") else 500_000)


COLUMNS = ("environment", "env steps", "seeds", "greedy return [95% bootstrap interval]", "worst seed", "seconds")


def row(env: str, learning: Learning, steps: int, returns: np.ndarray, seconds: float) -> tuple[str, ...]:
    """An environment's line of the table, as text by column."""
    estimate, low, high = (float(x) for x in stats.bootstrap(returns, num_resamples=10_000))
    bounds = f"{low:.1f}, {high:.1f}" if np.isfinite(low) else "one seed"
    text = f"{estimate:.1f} [{bounds}]"
    return env, f"{steps:,}", str(learning.num_seeds), text, f"{returns.min():.1f}", f"{seconds:.0f}"


def heading(learning: Learning) -> str:
    """The table's title, which says what its numbers are."""
    preset = "default settings" if learning.preset is None else f"preset {learning.preset!r}"
    return f"{learning.algorithm}, {preset}: mean over seeds of {learning.num_episodes} greedy episodes"


def show(rows: dict[str, tuple[str, ...]], learning: Learning) -> None:
    """Print the table."""
    table = Table(title=heading(learning))
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if i == 0 else "right")
    for cells in rows.values():
        table.add_row(*(c.replace("[", "\\[") for c in cells))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def save(path: Path, rows: dict[str, tuple[str, ...]], learning: Learning) -> None:
    """Write the table, keeping the rows of other environments that stand under the same heading."""
    lines = [f"# {heading(learning)}", "", "| " + " | ".join(COLUMNS) + " |", "|:--|" + "--:|" * (len(COLUMNS) - 1)]
    kept = {}
    if path.exists() and path.read_text().startswith(lines[0] + "\n"):
        old = [line.strip("| \n").split(" | ") for line in path.read_text().splitlines()[4:] if line.startswith("|")]
        kept = {cells[0]: tuple(cells) for cells in old}
    lines += ["| " + " | ".join(cells) + " |" for cells in (kept | rows).values()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    cli.run(main, __doc__, Learning)
