"""What PQN's choices matter: its optimiser and initialiser, and a λ-return that is one state off, as in two libraries.

Arms, each at its best of some learning rates, chosen on the first half of the seeds and reported on the second:

    pqn         Adam and orthogonal weights, the library's defaults
    paper       RAdam and He-normal weights, as Gallici et al. (2024) have them
    one_off     the library's, but with V(s_{t+2}) in the place of V(s_{t+1}) in the λ-returns (rejax, issues 34 and 35)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cli
import jax.numpy as jnp

import purejaxrl_ext as prx
from purejaxrl_ext.analysis import stats
from purejaxrl_ext.rules import q_learning
from purejaxrl_ext.types import Rollout, Rule


@dataclass(frozen=True)
class Study:
    """Settings of the study, on Breakout-MinAtar with the tuned network and rollouts."""

    num_seeds: int = 8
    """seeds of each arm; the first half choose the learning rate"""
    total_steps: int = 1_000_000
    """environment steps of each run"""
    sticky_actions: float = 0.1
    """probability that the environment repeats the previous action"""
    learning_rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3)
    """swept for every arm"""
    last: float = 0.1
    """share of training, at its end, that the table is about"""
    out: Path | None = None
    """a file for the table too"""


def one_state_late(rollout: Rollout, hparams: Any) -> q_learning.QBatch:
    """λ-returns whose bootstrap at each step but the last is that of the step after it."""
    q_values = rollout.next_output.q_values
    late = rollout.next_output.replace(q_values=jnp.concatenate([q_values[1:], q_values[-1:]]))
    return q_learning.lambda_targets(rollout.replace(next_output=late), hparams)


def late_rule(config: Any, action_space: Any) -> Rule:
    """PQN's rule with such targets."""
    return q_learning.pqn_rule(config, action_space)._replace(targets=one_state_late)


def main(study: Study) -> None:
    """Train, choose, report."""
    if study.num_seeds < 4:
        raise ValueError(f"num_seeds={study.num_seeds} is not allowed: at least 4, half of which choose")
    settings = prx.presets.TUNED["pqn"]["Breakout-MinAtar"] | {
        "sticky_actions": study.sticky_actions,
        "metrics_every": 0,
        "anneal_steps": study.total_steps,
        "epsilon_decay_steps": study.total_steps / 4,
    }
    late = prx.ALGORITHMS["pqn"].but(name="one_off", rule=late_rule)
    arms = {
        "pqn": prx.make("pqn", "Breakout-MinAtar", **settings),
        "paper": prx.make("pqn", "Breakout-MinAtar", optimizer="radam", initializer="he_normal", **settings),
        "one_off": prx.make(late, "Breakout-MinAtar", **settings),
    }
    grid = {"learning_rate": list(study.learning_rates)}
    ds = prx.sweep(arms, num_seeds=study.num_seeds, grid=grid, total_steps=study.total_steps)
    half = study.num_seeds // 2
    choosing, reported = ds.sel(seed=range(half)), ds.sel(seed=range(half, study.num_seeds))
    best = stats.scores(choosing, last=study.last).mean("seed").idxmax("learning_rate")
    lines = ["| | learning rate | return | 95% interval | of all rates, all seeds |", "|:--|--:|--:|:--|:--|"]
    for arm in arms:
        rate = float(best.sel(arm=arm))
        row = stats.summary(reported.sel(arm=[arm], learning_rate=rate), last=study.last).iloc[0]
        every = stats.scores(ds.sel(arm=[arm]), last=study.last).mean("seed").values.ravel()
        lines.append(
            f"| {arm} | {rate:g} | {row['estimate']:.1f} | [{row['low']:.1f}, {row['high']:.1f}] | "
            f"{', '.join(f'{x:.1f}' for x in every)} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    if study.out is not None:
        study.out.write_text(text)


if __name__ == "__main__":
    cli.run(main, __doc__, Study)
