"""Collapse at a glance: PPO with few and with many epochs, PFO with many, each at the learning rate that suits it.

The regime is that of ``collapse.py``: many small gradient steps. That is the longer study; it sweeps the learning rates and has
more arms. This one trains the three at the rates that were chosen there, and ends in a table and figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cli
import fair
from report import Report, run_and_report

import purejaxrl_ext as prx

TABLE = ("episode_return", "actor_rank_end", "actor_dead_units_end", "actor_preactivation_norm_end")
FIGURE = (*TABLE, "policy_variance_end", "ratio_below")


@dataclass(frozen=True)
class Study(Report):
    """Settings of the study."""

    num_seeds: int = 6
    """seeds of each arm"""
    total_steps: int = 400_000
    """environment steps of each run"""
    env: str = "SpaceInvaders-MinAtar"
    """gymnax's name, or "brax:" and Brax's"""
    few_epochs: int = 4
    """passes over an update's data of PPO's first arm"""
    many_epochs: int = 16
    """passes of PPO's second arm and of PFO"""
    learning_rates: tuple[float, float, float] = (1e-3, 2.5e-4, 2.5e-4)
    """of PPO at few epochs, PPO at many, PFO at many"""
    num_envs: int = fair.REGIME["num_envs"]
    """environments side by side"""
    num_steps: int = fair.REGIME["num_steps"]
    """steps of each environment per update"""
    num_minibatches: int = fair.REGIME["num_minibatches"]
    """minibatches of a pass"""
    network: Literal["mlp", "default"] = "mlp"
    """dense layers on the flattened observation, or what the package takes for it (images: a CNN, slower on a CPU)"""
    hidden_sizes: tuple[int, ...] = fair.REGIME["hidden_sizes"]
    """widths of the dense layers"""
    activation: Literal["relu", "tanh", "leaky_relu", "elu", "gelu", "silu"] = fair.REGIME["activation"]
    entropy_coef: float = 0.01
    clip_eps: float = 0.2
    """clip range of PPO's ratio"""
    feature_coef: float = 1.0
    """PFO's coefficient"""
    feature_layers: Literal["last", "all"] = "last"
    """PFO's layers"""
    metrics_every: int = fair.REGIME["metrics_every"]
    """updates between measurements of the representation"""


def arms_of(study: Study) -> dict[str, prx.Algorithm]:
    """The three arms by their names."""
    of_all = (
        "num_envs",
        "num_steps",
        "num_minibatches",
        "hidden_sizes",
        "activation",
        "entropy_coef",
        "clip_eps",
        "metrics_every",
    )
    shared: dict[str, Any] = fair.REGIME | {name: getattr(study, name) for name in of_all}
    shared["conv_layers"] = () if study.network == "mlp" else None
    pfo = {"feature_coef": study.feature_coef, "feature_layers": study.feature_layers}
    kinds = (("ppo", study.few_epochs, {}), ("ppo", study.many_epochs, {}), ("pfo", study.many_epochs, pfo))
    return {
        f"{name}, {epochs} epochs": prx.make(name, study.env, num_epochs=epochs, learning_rate=rate, **shared | own)
        for (name, epochs, own), rate in zip(kinds, study.learning_rates, strict=True)
    }


def main(study: Study) -> None:
    """Train the arms and report."""
    if study.network == "mlp" and not study.hidden_sizes:
        raise ValueError("hidden_sizes=() is not allowed: the study is about hidden layers")
    if study.metrics_every < 1:
        raise ValueError(f"metrics_every={study.metrics_every} is not allowed: the study is about what it measures")
    if study.few_epochs == study.many_epochs:
        raise ValueError(f"few_epochs={study.few_epochs} is not allowed: another number than many_epochs")
    run_and_report(arms_of(study), study, f"{study.env}: PPO and PFO", TABLE, FIGURE)


if __name__ == "__main__":
    cli.run(main, __doc__, Study)
