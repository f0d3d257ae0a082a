"""All interventions on the regime of collapse, each with its learning rate and its coefficient swept.

Every cell of an arm's grid is trained on the seeds that choose, its best one on others (``fair.py``). What ships with the package
and has a setting that switches it is in ``GRIDS``; add a line for an intervention of your own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cli
import compared
import fair

import purejaxrl_ext as prx

# Of each intervention the setting that is swept with the learning rate, and its values.
GRIDS: dict[str, tuple[str, Sequence[float]]] = {
    "l2": ("l2_coef", (1e-5, 1e-4, 1e-3)),
    "weight_decay": ("weight_decay_coef", (1e-3, 1e-2, 1e-1)),
    "l2_init": ("l2_init_coef", (1e-5, 1e-4, 1e-3)),
    "l2_init_mean": ("l2_init_mean_coef", (1e-2, 1e-1, 1.0)),
    "l2_init_norm": ("l2_init_norm_coef", (1e-4, 1e-3, 1e-2)),
    "wasserstein_init": ("wasserstein_init_coef", (1e-5, 1e-4, 1e-3)),
    "parseval": ("parseval_coef", (1e-5, 1e-4, 1e-3)),
    "spectral": ("spectral_coef", (1e-5, 1e-4, 1e-3)),
    "shrink_perturb": ("shrink_perturb_every", (10.0, 50.0, 200.0)),
    "soft_shrink_perturb": ("soft_shrink_perturb_noise", (1e-6, 1e-5, 1e-4)),
    "layer_reset": ("layer_reset_every", (50.0, 100.0, 200.0)),
    "continual_backprop": ("continual_backprop_rate", (1e-5, 1e-4, 1e-3)),
    "snr": ("snr_eta", (0.01, 0.02, 0.05)),
    "regrama": ("regrama_every", (10.0, 50.0, 200.0)),
    "redo": ("redo_every", (1.0, 10.0, 50.0)),
    "adam_reset": ("adam_reset_every", (1.0, 4.0, 16.0)),
    "adam_rel": ("adam_rel_every", (1.0, 4.0, 16.0)),
    "weight_clipping": ("weight_clipping_kappa", (1.0, 2.0, 4.0)),
    "normalize_project": ("normalize_project_share", (0.5, 1.0)),
    "chain": ("chain_coef", (0.1, 1.0, 10.0)),
    "plasticity_injection": ("plasticity_injection_at", (50.0, 100.0, 200.0)),
    "trac": ("", ()),
    "spo": ("spo_share", (0.5, 1.0)),
}
# Settings without which an intervention is refused.
NEEDS: dict[str, dict[str, Any]] = {"normalize_project": {"layer_norm": True}}
# What is a setting, or another rule, with what is swept of it.
SETTINGS: dict[str, tuple[dict[str, Any], str, Sequence[float]]] = {
    "none": ({}, "", ()),
    "pfo_last": (fair.CHANGES["pfo_last"], "feature_coef", (0.1, 1.0, 10.0)),
    "pfo_all": (fair.CHANGES["pfo_all"], "feature_coef", (1.0, 10.0, 100.0)),
    "equal_betas": (fair.CHANGES["equal_betas"], "", ()),
    "adamw": ({"optimizer": "adamw"}, "weight_decay", (1e-3, 1e-2, 1e-1)),
    "shared_trunk": (fair.CHANGES["shared_trunk"], "", ()),
    "layer_norm": ({"layer_norm": True}, "", ()),
    "crelu": ({"activation": "crelu"}, "", ()),
    "hadamard": ({"activation": "hadamard"}, "", ()),
    "simba": ({"block": "simba"}, "", ()),
    "multi_skip": ({"block": "multi_skip"}, "", ()),
}
KNOWN = (*SETTINGS, *GRIDS)


@dataclass(frozen=True)
class Interventions(fair.Comparison):
    """Settings of the study."""

    env: str = "SpaceInvaders-MinAtar"
    """the environment"""
    only: tuple[str, ...] = KNOWN
    """the arms; "none" is plain PPO, with which all are compared"""
    num_epochs: int = 16
    """passes over an update's data"""
    learning_rates: tuple[float, ...] = (2.5e-4, 1e-3, 4e-3)
    """that every arm chooses from; all are reported at the highest as well"""
    num_seeds: int = 4
    """seeds that are reported"""
    total_steps: int = 140_000
    """environment steps of each run; with all arms reckoned to be two hours on two cores (9,000 steps a second on each)"""
    out: Path = Path("runs/interventions")
    """where results go; what is there already is gone on with"""


def arm_of(name: str, study: Interventions) -> fair.Arm:
    """An arm and the grid of its own setting.

    Raises:
        ValueError: an unknown name.
    """
    if name not in KNOWN:
        raise ValueError(f"only={name!r} is not allowed: of {', '.join(KNOWN)}")
    if name in SETTINGS:
        changes, setting, values = SETTINGS[name]
    else:
        setting, values = GRIDS[name]
        changes = {"interventions": (name,), **NEEDS.get(name, {})}
    algorithm = "pfo" if "feature_coef" in changes else "ppo"
    make = partial(prx.make, algorithm, study.env)
    settings = fair.REGIME | {"num_epochs": study.num_epochs} | changes
    return fair.Arm(lambda **chosen: make(**settings | chosen), {setting: list(values)} if setting else {})


def main(study: Interventions) -> None:
    """Train, choose, report."""
    if "none" not in study.only:
        raise ValueError(f"only={study.only} is not allowed: 'none' among them, to compare with")
    columns = {k: compared.COLUMNS[k] for k in ("return", "rank", "dead units", "norm", "low ratio")}
    told = compared.Told(f"{study.env}, {study.num_epochs} epochs", "none", columns)
    arms = {name: arm_of(name, study) for name in study.only}
    compared.report(arms, study, told)


if __name__ == "__main__":
    cli.run(main, __doc__, Interventions)
