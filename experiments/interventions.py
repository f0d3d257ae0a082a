"""All interventions on the regime of collapse, each with its learning rate and its coefficient swept.

Every cell of an arm's grid is trained on the seeds that choose, its best one on others (``fair.py``). What ships with the package
and has a setting that switches it is in ``GRIDS``; add a line for an intervention of your own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cli
import compared
import fair
from interventions_table import ENTRIES

# Of each intervention the values of the setting that switches it (``interventions_table.ENTRIES``), swept with the learning rate.
GRIDS: dict[str, Sequence[float]] = {
    "l2": (1e-5, 1e-4, 1e-3),
    "weight_decay": (1e-3, 1e-2, 1e-1),
    "l2_init": (1e-5, 1e-4, 1e-3),
    "l2_init_mean": (1e-2, 1e-1, 1.0),
    "l2_init_norm": (1e-4, 1e-3, 1e-2),
    "wasserstein_init": (1e-5, 1e-4, 1e-3),
    "parseval": (1e-5, 1e-4, 1e-3),
    "spectral": (1e-5, 1e-4, 1e-3),
    "shrink_perturb": (10.0, 50.0, 200.0),
    "soft_shrink_perturb": (1e-6, 1e-5, 1e-4),
    "layer_reset": (50.0, 100.0, 200.0),
    "continual_backprop": (1e-5, 1e-4, 1e-3),
    "snr": (0.01, 0.02, 0.05),
    "regrama": (10.0, 50.0, 200.0),
    "redo": (1.0, 10.0, 50.0),
    "adam_reset": (1.0, 4.0, 16.0),
    "adam_rel": (1.0, 4.0, 16.0),
    "weight_clipping": (1.0, 2.0, 4.0),
    "normalize_project": (0.5, 1.0),
    "chain": (0.1, 1.0, 10.0),
    "plasticity_injection": (50.0, 100.0, 200.0),
    "trac": (),
    "spo": (0.5, 1.0),
}
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
        entry, values = ENTRIES[name], GRIDS[name]
        setting = next(iter(entry.on), "")
        changes = {"interventions": (name,), **entry.needs}
    return fair.changed(changes, study.env, {setting: list(values)} if setting else {}, num_epochs=study.num_epochs)


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
