"""DQN, double DQN, dueling DQN and PQN: learning curves and their Q-networks' representations over several seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cli
from report import Report, run_and_report

import purejaxrl_ext as prx

TABLE = ("episode_return", "value", "critic_rank", "critic_dead_units", "critic_preactivation_norm")
FIGURE = (*TABLE, "td_error")


@dataclass(frozen=True)
class Study(Report):
    """Settings of the study."""

    env: str = "Breakout-MinAtar"
    """gymnax's name"""
    num_seeds: int = 4
    """seeds of each arm"""
    total_steps: int = 1_000_000
    """environment steps of each run"""
    sticky_actions: float = 0.1
    """probability that the environment repeats the previous action"""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """widths of the dense layers, on the flattened observation"""
    learning_rate: float = 5e-4
    """of DQN and its variants"""
    replay_capacity: int = 100_000
    """transitions that each DQN's replay holds"""
    metrics_every: int = 5
    """rows of metrics between measurements of the representation"""


def main(study: Study) -> None:
    """Train the four arms and report."""
    if study.metrics_every < 1:
        raise ValueError(f"metrics_every={study.metrics_every} is not allowed: the study is about what it measures")
    shared: dict[str, Any] = {
        "sticky_actions": study.sticky_actions,
        "conv_layers": (),
        "hidden_sizes": study.hidden_sizes,
        "metrics_every": study.metrics_every,
        # The same exploration for all, whatever the length: the tuned schedules are made for other ones.
        "epsilon_decay_steps": study.total_steps / 4,
    }
    dqn = shared | {"learning_rate": study.learning_rate, "replay_capacity": study.replay_capacity}
    arms = {
        "dqn": prx.make("dqn", study.env, preset="tuned", **dqn),
        "double": prx.make("dqn", study.env, preset="tuned", double=True, **dqn),
        "dueling": prx.make("dqn", study.env, preset="tuned", dueling=True, **dqn),
        "pqn": prx.make("pqn", study.env, preset="tuned", **shared),
    }
    run_and_report(arms, study, f"{study.env}: DQN, its variants and PQN", TABLE, FIGURE)


if __name__ == "__main__":
    cli.run(main, __doc__, Study)
