"""``sweep``: arms × grid × seeds, each arm one compiled program; ``resume``: go on with one, or extend it."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import xarray as xr

from purejaxrl_ext.devices import isolated
from purejaxrl_ext.errors import check
from purejaxrl_ext.sweeps import guards, results, states
from purejaxrl_ext.sweeps import plan as plans
from purejaxrl_ext.sweeps.arguments import Arms, named
from purejaxrl_ext.sweeps.locks import hold
from purejaxrl_ext.sweeps.plan import Plan
from purejaxrl_ext.sweeps.run import is_finished, run
from purejaxrl_ext.sweeps.wave import Options
from purejaxrl_ext.types import Algorithm, State

PATIENCE = 20 * 24 * 3600  # seconds that a process waits for the others
_MEETINGS = itertools.count()


@isolated()
def sweep(
    arms: Arms,
    *,
    total_steps: int,
    num_seeds: int | None = None,
    seeds: Sequence[int] | None = None,
    grid: Mapping[str, Sequence[float]] | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    checkpoint_seconds: float = 60.0,
    keep_checkpoints: int = 2,
    eval_every: int = 0,
    eval_episodes: int = 32,
    keep_states: bool = False,
    wave_size: int | None = None,
    log: Sequence[Any] = (),
) -> xr.Dataset:
    """Train every arm with every combination of ``grid`` and every seed.

    Args:
        arms: an algorithm, or several by name; their configs may differ.
        total_steps: environment steps of each run; rounded up to whole updates.
        num_seeds: seeds 0 … n − 1; or ``seeds``: which ones. Default: one, seed 0.
        grid: values by the name of a traced setting, all combinations; every arm must have the setting.
        out: a directory, which must not hold a run; results are written there while they come, and the trained states.
        progress: a bar; on something other than a terminal one line a minute.
        checkpoint_seconds: the states are saved to ``out`` this often, in the background, and at the end.
        keep_checkpoints: how many of each wave stay.
        eval_every: evaluate every so many updates, and at the end (``eval_return``), all runs on the same initial
            states; 0: never.
        eval_episodes: greedy episodes of an evaluation.
        keep_states: keep the trained states for :func:`load_state` where there is no ``out``.
        wave_size: at most so many seeds at once, the others in further waves of the same width. None, or more than the
            memory there is holds: as many as fit.
        log: loggers, see :mod:`purejaxrl_ext.sweeps.logs`.

    Returns:
        dataset with dimensions ``arm``, one per swept setting, ``seed`` and ``update``, and coordinate ``env_step``.
        ``diverged_at`` is the first update at which a run's loss or parameters were not finite (NaN: never); its metrics
        end there, its last finite parameters are kept, and no other run is touched.

    Raises:
        ValueError: a setting that is unknown or not allowed.
        FileExistsError: ``out`` holds a run; :func:`resume` goes on with it.
        MemoryError: not even one seed fits.
    """
    guards.check_flags()
    path = None if out is None else guards.run_path(out)
    options = _options(path, progress, checkpoint_seconds, keep_checkpoints, keep_states, log)
    plan = plans.make(arms, total_steps, num_seeds, seeds, grid, eval_every, eval_episodes, wave_size, path is not None)
    if path is None:
        return _in_memory(plan, options)
    _make_directory(path)
    _allocate(path, plan)
    return _on_disk(path, plan, options)


@isolated()
def create(
    arms: Arms,
    *,
    out: str | Path,
    total_steps: int,
    num_seeds: int | None = None,
    seeds: Sequence[int] | None = None,
    grid: Mapping[str, Sequence[float]] | None = None,
    eval_every: int = 0,
    eval_episodes: int = 32,
    wave_size: int | None = None,
) -> None:
    """Make a run's directory without running it, for :func:`resume` to work on; arguments as of :func:`sweep`."""
    plan = plans.make(arms, total_steps, num_seeds, seeds, grid, eval_every, eval_episodes, wave_size, True)
    path = guards.run_path(out)
    _make_directory(path)
    _allocate(path, plan)


@isolated()
def extend(
    out: str | Path,
    *,
    arms: Arms | None = None,
    total_steps: int | None = None,
    num_seeds: int | None = None,
    seeds: Sequence[int] | None = None,
    **others: Any,
) -> None:
    """Make a run larger without running it, for :func:`resume` to work on; arguments as of :func:`resume`.

    Args:
        others: arguments of :func:`sweep` that cannot change: they must be those with which the run was made.

    Raises:
        ValueError: one of ``others`` is not; and as :func:`resume`.
        BlockingIOError: it would grow while another process is at work on it.
    """
    path = guards.run_path(out)
    config = results.read_config(path)
    for name, value in others.items():
        check(name in ("grid", "eval_every", "eval_episodes", "wave_size"), "settings", name, "an argument of sweep")
        value = {k: [float(v) for v in values] for k, values in (value or {}).items()} if name == "grid" else value
        check(value == config.get(name), name, value, f"{config.get(name)!r}, with which the run was made")
    plan = plans.grown(path, config, arms, total_steps, num_seeds, seeds)
    try:
        _allocate(path, plan, config)  # also where nothing grows: the store may not have been finished
    except BlockingIOError:
        if plans.has_grown(plan, config):
            raise


@isolated()
def unfinished(out: str | Path, arms: Arms | None = None) -> list[str]:
    """Names of a run's arms that are not finished.

    Raises:
        ValueError: one of ``arms`` is the run's by name and has other settings.
    """
    path = guards.run_path(out)
    config = results.read_config(path)
    plan = plans.stored(path, config, {} if arms is None else named(arms))
    return [name for name, waves in plan.waves.items() if any(not is_finished(plan, path, name, w) for w in waves)]


@isolated()
def resume(
    out: str | Path,
    *,
    arms: Arms | None = None,
    total_steps: int | None = None,
    num_seeds: int | None = None,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] | None = None,
    progress: bool = True,
    checkpoint_seconds: float = 60.0,
    keep_checkpoints: int = 2,
    log: Sequence[Any] = (),
) -> xr.Dataset:
    """Go on with a sweep that was stopped, from its last checkpoints; or extend one.

    A run that was killed at any moment and resumed ends with the results, bit for bit on the same machine with the same
    number of devices, of one that was never stopped. What had not reached a checkpoint starts again; what is finished is
    only read.

    Args:
        out: the run's directory.
        arms: arms to add. Also the run's own arms, by name: needed where an environment or a network cannot be imported
            again; their settings must be those stored.
        total_steps: environment steps of each run, at least those of the run; finished runs go on. (The update that was the
            last then has a measurement of the representation, and an evaluation, more than it would have had.)
        num_seeds, seeds: seeds that the run shall have, at least those that it has; the new ones run at once, or in waves
            of the run's ``wave_size``.
        only: names of the arms to go on with, when several processes share the work; None: all. The run cannot grow then.
        progress, checkpoint_seconds, keep_checkpoints, log: as in :func:`sweep`.

    Returns:
        the whole dataset.

    Raises:
        FileNotFoundError: no run is there.
        ValueError: it was written by another version, an arm has other settings, or it has more steps or seeds than asked.
        BlockingIOError: another process is at work on it.
    """
    guards.check_flags()
    path = guards.run_path(out)
    options = _options(path, progress, checkpoint_seconds, keep_checkpoints, False, log)
    config = results.read_config(path)
    plan = plans.grown(path, config, arms, total_steps, num_seeds, seeds)
    if only is not None:
        for name in only:
            check(name in plan.arms, "only", name, f"one of {', '.join(map(repr, plan.arms))}")
        check(not plans.has_grown(plan, config), "only", only, "None where the run becomes larger")
        options.only = list(only)
    _warn_of_changes(path, config)
    if only is None:
        _allocate(path, plan, config)
    return _on_disk(path, plan, options)


@isolated()
def load_state(
    source: str | Path | xr.Dataset,
    arm: str | None = None,
    seed: int = 0,
    algorithm: Algorithm | None = None,
    **cell: float,
) -> State:
    """The trained state of one run: of its last checkpoint.

    Args:
        source: a run's directory, or the dataset of a sweep with ``keep_states=True``.
        arm: its name; may be left out where there is one.
        seed: the seed.
        algorithm: what the arm ran, where its environment or network cannot be imported again.
        **cell: the value of each swept setting.

    Raises:
        ValueError: an arm, seed or cell that the sweep does not have, or no state saved yet.
    """
    return states.load_state(source, arm, seed, algorithm, cell)


def _in_memory(plan: Plan, options: Options) -> xr.Dataset:
    check(jax.process_count() == 1, "out", None, "a directory that all processes share, where there are several")
    outcome = run(plan, options)
    assert outcome is not None
    names, real = results.dims(plan.grid), np.flatnonzero(np.array(plan.slots) != results.PADDING)
    dataset = plan.blank().assign(
        {m: (names, x) for m, x in outcome.data.items()} | {"diverged_at": (names[:-1], outcome.diverged_at)}
    )
    envs = [algorithm.env_name for algorithm in plan.arms.values()]
    dataset = results.described(dataset.isel(seed=real), plan.total_steps, envs)
    record = states.States(outcome.states, plan.arms, {**plan.grid, "seed": plan.seeds})
    return dataset.assign_attrs(states=record.kept()) if outcome.states else dataset


def _on_disk(path: Path, plan: Plan, options: Options) -> xr.Dataset:
    # Others may be at work on other arms or blocks of seeds; none may grow the store meanwhile.
    with hold(path, "run", "the store", shared=True):
        run(plan, options)
    _meet("finished")
    return results.load(path)


def _make_directory(path: Path) -> None:
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


def _allocate(path: Path, plan: Plan, config: dict[str, Any] | None = None) -> None:
    """Make ``config.json``, after which the run can be resumed, and the store; or make both follow a plan that has grown.

    Args:
        config: what ``plan`` was made from.
    """
    if jax.process_index() == 0:
        with results.clear_disk_errors(path, f"writing to out={str(path)!r}"), hold(path, "run", "the store"):
            if config is not None and results.read_config(path) != config:
                raise BlockingIOError(f"another process has just worked on the run {str(path)!r}; call again")
            plans.store_config(path, plan)
            results.allocate(path, plan.blank(), plan.metrics(), plan.grid, plan.seed_block)
    _meet("the store is there")


def _meet(name: str) -> None:
    """Wait for the other processes, if there are any, however long they take."""
    everyone = set(range(jax.process_count()))
    if len(everyone) > 1:
        # Named processes meet at the coordinator; without names they would meet in a computation on their devices, which
        # gives up after minutes. A barrier's name serves once.
        name = f"purejaxrl_ext {next(_MEETINGS)}: {name}"
        ocp.multihost.sync_global_processes(name, processes=everyone, timeout=PATIENCE)


def _warn_of_changes(path: Path, config: dict[str, Any]) -> None:
    now = results.provenance()
    changed = [
        f"{what} {before} → {after}"
        for key in ("versions", "device", "conditions")
        for what, before in config[key].items()
        if (after := now[key].get(what)) != before
    ]
    if changed and any(path.glob("checkpoints/*/*/[0-9]*")):
        warnings.warn(
            f"the run {str(path)!r} goes on with other conditions than it began with, so that its numbers will not be those "
            f"of one never stopped: {'; '.join(changed)}",
            RuntimeWarning,
            stacklevel=3,
        )


def _options(
    path: Path | None, progress: bool, checkpoint_seconds: float, keep_checkpoints: int, keep_states: bool, log: Any
) -> Options:
    check(checkpoint_seconds > 0, "checkpoint_seconds", checkpoint_seconds, "greater than 0")
    whole = isinstance(keep_checkpoints, int) and keep_checkpoints > 0
    check(whole, "keep_checkpoints", keep_checkpoints, "an int of at least 1")
    return Options(path, progress, checkpoint_seconds, keep_checkpoints, keep_states, tuple(log))
