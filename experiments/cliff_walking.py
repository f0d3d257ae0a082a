"""Cliff walking (Sutton & Barto, example 6.6): SARSA, Q-learning and Expected SARSA, their returns as lived and their paths."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cli
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from purejaxrl_ext.envs import mdps
from purejaxrl_ext.tabular import control, exact

ARMS = {"SARSA": control.sarsa, "Q-learning": control.q_learning, "Expected SARSA": control.expected_sarsa}
COLORS = ("#0072B2", "#D55E00", "#009E73")
LIMIT = 100  # steps of a greedy path before it is called endless


@dataclass(frozen=True)
class Study:
    """Settings of the study."""

    num_seeds: int = 500
    """runs of each method"""
    num_episodes: int = 500
    """episodes that the figure shows"""
    num_steps: int = 20_000
    """environment steps of a run; enough for the episodes"""
    alpha: float = 0.5
    """step size"""
    epsilon: float = 0.1
    """of ε-greedy"""
    figure: Path = Path("runs/cliff_walking.png")
    """where the figure goes"""


def main(study: Study) -> None:
    """Run the three methods; lines of numbers and the figure."""
    if not (study.num_seeds >= 1 and study.num_episodes >= 1 and study.num_steps >= 1):
        raise ValueError(f"{study} is not allowed: num_seeds, num_episodes and num_steps must be at least 1")
    began = time.perf_counter()
    mdp = mdps.cliff_walking()
    cells = mdps.read_map(mdps.CLIFF).cells
    figure = Figure(figsize=(11.5, 4.2), dpi=90, layout="constrained")
    returns, grid = figure.subplots(1, 2, width_ratios=(1, 1.35))
    draw_cliff(grid)
    for i, ((name, bootstrap), color) in enumerate(zip(ARMS.items(), COLORS, strict=True)):
        learned = run(study, mdp, bootstrap)
        finished = np.isfinite(learned.episode_return).all(-1)
        if not finished.any():
            raise ValueError(
                f"num_steps={study.num_steps} is not allowed: no run finished {study.num_episodes} episodes"
            )
        lived = np.asarray(learned.episode_return)[finished]
        returns.plot(np.arange(study.num_episodes) + 1, smooth(lived.mean(0)), color=color, label=name)
        # The path of the mean table: single runs' last updates still toss theirs about at this step size.
        path = greedy_path(mdp, np.asarray(learned.q.mean(0)))
        worth = 1 - len(path) if mdp.terminal[path[-1]] else "endless"
        draw_path(grid, cells[path], 0.12 * (i - 1), color, f"{name}: {worth}")
        last = lived[:, -min(100, study.num_episodes) :]
        each = np.asarray(jax.vmap(partial(greedy_return, mdp))(learned.q))
        near = {r: f"{np.mean(each == r):.0%}" for r in (-13, -15, -17)}
        print(
            f"{name}: return as lived, last {last.shape[1]} episodes {last.mean():.1f}; greedy path of the mean Q "
            f"{worth}, of the single runs' {near}; {finished.mean():.0%} of runs finished"
        )
    best = exact.objective(mdp, exact.optimal(mdp, 1.0).policy, 1.0)
    print(f"optimal return {best:.0f}")
    returns.set(ylim=(-100, -15), xlabel="episode", ylabel="sum of rewards in the episode")
    returns.legend(frameon=False)
    grid.legend(
        frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, title="greedy path and its return"
    )
    figure.suptitle(f"Cliff walking, ε = {study.epsilon}, α = {study.alpha}, mean over {study.num_seeds} seeds")
    study.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(study.figure)
    print(f"{study.figure}; {time.perf_counter() - began:.0f} s")


def run(study: Study, mdp: mdps.MDP, bootstrap: Callable) -> control.Learned:
    """What every seed learned by one method."""
    learn = partial(
        control.learn,
        mdp=mdp,
        bootstrap=bootstrap,
        num_steps=study.num_steps,
        num_episodes=study.num_episodes,
        alpha=study.alpha,
        epsilon=study.epsilon,
        gamma=1.0,
    )
    return jax.jit(jax.vmap(learn))(jax.random.split(jax.random.key(0), study.num_seeds))


def smooth(x: np.ndarray, width: int = 10) -> np.ndarray:
    """Mean over the last ``width`` entries, or as many as there are."""
    sums = np.cumsum(x)
    earlier = np.concatenate([np.zeros(width), sums[:-width]])[: len(x)]
    return (sums - earlier) / np.minimum(np.arange(len(x)) + 1, width)


def greedy_path(mdp: mdps.MDP, q: np.ndarray) -> list[int]:
    """States from the start along the greedy actions, cut after ``LIMIT`` steps."""
    path = [int(jnp.argmax(mdp.initial))]
    while not mdp.terminal[path[-1]] and len(path) <= LIMIT:
        path.append(int(jnp.argmax(mdp.transition[path[-1], int(q[path[-1]].argmax())])))
    return path


def greedy_return(mdp: mdps.MDP, q: jax.Array) -> jax.Array:
    """J of the greedy policy, with γ so near 1 that it also has a value where the policy never ends."""
    policy = jax.nn.one_hot(jnp.argmax(q, axis=-1), mdp.num_actions)
    return jnp.round(exact.objective(mdp, policy, 0.99999))


def draw_cliff(panel: Axes) -> None:
    """The grid, its cliff, start and goal."""
    for row in range(4):
        for column in range(12):
            cliff = row == 3 and 0 < column < 11
            panel.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5), 1, 1, facecolor="#BBBBBB" if cliff else "white", edgecolor="#888888"
                )
            )
    panel.text(5.5, 3, "cliff", ha="center", va="center")
    panel.text(-0.3, 3.35, "S")
    panel.text(11.25, 3.35, "G")
    panel.set(xlim=(-0.55, 11.55), ylim=(3.55, -0.55), aspect="equal", xticks=[], yticks=[])
    panel.spines[:].set_visible(False)


def draw_path(panel: Axes, cells: np.ndarray, shift: float, color: str, label: str) -> None:
    """A line through the middles of its cells, shifted to be told from others."""
    panel.plot(cells[:, 1] + shift, cells[:, 0] + shift, color=color, linewidth=2, label=label)


if __name__ == "__main__":
    cli.run(main, __doc__, Study)
