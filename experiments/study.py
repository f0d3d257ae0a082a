"""PPO against PFO: learning curves and representation curves over several seeds, ending in a table and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cli
from report import Report, run_and_report

import purejaxrl_ext as prx

TABLE = ("episode_return", "actor_rank", "actor_dead_units", "actor_preactivation_norm")
FIGURE = (*TABLE, "policy_variance", "clip_fraction")


@dataclass(frozen=True)
class Study(Report):
    """Settings of the study."""

    env: str = "Breakout-MinAtar"
    """gymnax's name, or "brax:" and Brax's"""
    num_envs: int = 64
    """environments side by side"""
    num_steps: int = 128
    """steps of each environment per update"""
    num_epochs: int = 4
    """passes over an update's data; more of them bring collapse on sooner"""
    num_minibatches: int = 8
    """minibatches of a pass"""
    network: Literal["mlp", "default"] = "mlp"
    """dense layers on the flattened observation, or what the package takes for it (images: a CNN, slower on a CPU)"""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """widths of the dense layers"""
    activation: Literal["relu", "tanh", "leaky_relu", "elu", "gelu", "silu"] = "relu"
    learning_rate: float = 1e-3
    entropy_coef: float = 0.01
    clip_eps: float = 0.2
    """clip range of PPO's ratio"""
    feature_coef: float = 1.0
    """PFO's coefficient"""
    feature_layers: Literal["last", "all"] = "last"
    """PFO's layers"""
    metrics_every: int = 5
    """updates between measurements of the representation"""


def main(study: Study) -> None:
    """Train both arms and report."""
    shared = {
        "num_envs": study.num_envs,
        "num_steps": study.num_steps,
        "num_epochs": study.num_epochs,
        "num_minibatches": study.num_minibatches,
        "conv_layers": () if study.network == "mlp" else None,
        "hidden_sizes": study.hidden_sizes,
        "activation": study.activation,
        "learning_rate": study.learning_rate,
        "entropy_coef": study.entropy_coef,
        "clip_eps": study.clip_eps,
        "metrics_every": study.metrics_every,
    }
    if study.network == "mlp" and not study.hidden_sizes:
        raise ValueError("hidden_sizes=() is not allowed: the study is about hidden layers")
    if study.metrics_every < 1:
        raise ValueError(f"metrics_every={study.metrics_every} is not allowed: the study is about what it measures")
    arms = {
        "ppo": prx.make("ppo", study.env, **shared),
        "pfo": prx.make(
            "pfo", study.env, **shared, feature_coef=study.feature_coef, feature_layers=study.feature_layers
        ),
    }
    title = f"{study.env}: PPO and PFO"
    run_and_report(arms, study, title, TABLE, FIGURE)


if __name__ == "__main__":
    cli.run(main, __doc__, Study)
