"""A run's directory: made, filled and grown by one process while the others wait."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import jax

from purejaxrl_ext.sweeps import planning, results
from purejaxrl_ext.sweeps.locks import hold
from purejaxrl_ext.sweeps.plan import Plan

PATIENCE = 20 * 24 * 3600  # seconds that a process waits for the others
_MEETINGS = itertools.count()


def make_directory(path: Path) -> None:
    """Make the run's directory, unless it holds something."""
    if jax.process_index() == 0:
        content = {p.name for p in path.iterdir()} - {"locks"} if path.is_dir() else set()
        if path.is_file() or any(not name.endswith(".partial") for name in content):
            raise FileExistsError(
                f"out={str(path)!r} holds a run or other files already; choose another directory, or go on with the run by "
                f"prx.resume({str(path)!r})"
            )
        with results.clear_disk_errors(path, f"making out={str(path)!r}"):
            path.mkdir(parents=True, exist_ok=True)


def allocate(path: Path, plan: Plan, config: dict[str, Any] | None = None) -> None:
    """Make ``config.json``, after which the run can be resumed, and the store; or make both follow a plan that has grown.

    Args:
        config: what ``plan`` was made from.
    """
    if jax.process_index() == 0:
        with results.clear_disk_errors(path, f"writing to out={str(path)!r}"), hold(path, "run", "the store"):
            if config is not None and results.read_config(path) != config:
                raise BlockingIOError(f"another process has just worked on the run {str(path)!r}; call again")
            planning.store_config(path, plan)
            results.allocate(path, plan.blank(), plan.metrics(), plan.grid, plan.seed_block)
    meet("the store is there")


def meet(name: str) -> None:
    """Wait for the other processes, if there are any, however long they take."""
    everyone = set(range(jax.process_count()))
    if len(everyone) > 1:
        import orbax.checkpoint as ocp

        # Named processes meet at the coordinator; without names they would meet in a computation on their devices, which
        # gives up after minutes. A barrier's name serves once.
        name = f"purejaxrl_ext {next(_MEETINGS)}: {name}"
        ocp.multihost.sync_global_processes(name, processes=everyone, timeout=PATIENCE)


def warn_of_changes(
    path: Path,
    config: dict[str, Any],
    what: str = "goes on with other conditions than it began with, so that its numbers will not be those of one never stopped",
) -> None:
    """Warn where versions or devices are not those that a run began with, if anything of it is computed."""
    now = results.provenance()
    changed = [
        f"{name} {before} → {after}"
        for key in ("versions", "device", "conditions")
        for name, before in config[key].items()
        if (after := now[key].get(name)) != before
    ]
    if changed and any(path.glob("checkpoints/*/*/[0-9]*")):
        warnings.warn(f"the run {str(path)!r} {what}: {'; '.join(changed)}", RuntimeWarning, stacklevel=3)
