"""``sweep``: arms × grid × seeds, each arm one compiled program; ``resume``: go on with one, or extend it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import xarray as xr

from purejaxrl_ext.algorithms.settings import check_hparam
from purejaxrl_ext.errors import check, unknown_name
from purejaxrl_ext.sweeps import checkpoints, results
from purejaxrl_ext.sweeps.locks import hold
from purejaxrl_ext.sweeps.run import Options, Plan, Wave, cut, is_finished, place, run, store_config
from purejaxrl_ext.types import Algorithm, State

Arms = Algorithm | Mapping[str, Algorithm]

# Seeds of a block of the store, at least: a run that gets more seeds shall not have a file and a lock for each.
SEED_BLOCK = 32
PATIENCE = 20 * 24 * 3600  # seconds that a process waits for the others
_MEETINGS = itertools.count()


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
    path = None if out is None else Path(out)
    options = _options(path, progress, checkpoint_seconds, keep_checkpoints, keep_states, log)
    plan = _plan(arms, total_steps, num_seeds, seeds, grid, eval_every, eval_episodes, wave_size, path is not None)
    if path is None:
        return _in_memory(plan, options)
    _make_directory(path)
    _allocate(path, plan)
    return _on_disk(path, plan, options)


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
    plan = _plan(arms, total_steps, num_seeds, seeds, grid, eval_every, eval_episodes, wave_size, True)
    _make_directory(Path(out))
    _allocate(Path(out), plan)


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
    path = Path(out)
    config = results.read_config(path)
    for name, value in others.items():
        check(name in ("grid", "eval_every", "eval_episodes", "wave_size"), "settings", name, "an argument of sweep")
        value = {k: [float(v) for v in values] for k, values in (value or {}).items()} if name == "grid" else value
        check(value == config.get(name), name, value, f"{config.get(name)!r}, with which the run was made")
    plan = _grown(path, config, arms, total_steps, num_seeds, seeds)
    try:
        _allocate(path, plan, config)  # also where nothing grows: the store may not have been finished
    except BlockingIOError:
        if _has_grown(plan, config):
            raise


def unfinished(out: str | Path, arms: Arms | None = None) -> list[str]:
    """Names of a run's arms that are not finished.

    Raises:
        ValueError: one of ``arms`` is the run's by name and has other settings.
    """
    path = Path(out)
    config = results.read_config(path)
    plan = _stored_plan(path, config, {} if arms is None else _named(arms))
    return [name for name, waves in plan.waves.items() if any(not is_finished(plan, path, name, w) for w in waves)]


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
    path = Path(out)
    options = _options(path, progress, checkpoint_seconds, keep_checkpoints, False, log)
    config = results.read_config(path)
    plan = _grown(path, config, arms, total_steps, num_seeds, seeds)
    if only is not None:
        for name in only:
            check(name in plan.arms, "only", name, f"one of {', '.join(map(repr, plan.arms))}")
        check(not _has_grown(plan, config), "only", only, "None where the run becomes larger")
        options.only = list(only)
    _warn_of_changes(path, config)
    if only is None:
        _allocate(path, plan, config)
    return _on_disk(path, plan, options)


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
    return checkpoints.load_state(source, arm, seed, algorithm, cell)


def _in_memory(plan: Plan, options: Options) -> xr.Dataset:
    check(jax.process_count() == 1, "out", None, "a directory that all processes share, where there are several")
    outcome = run(plan, options)
    assert outcome is not None
    names, real = results.dims(plan.grid), np.flatnonzero(np.array(plan.slots) != results.PADDING)
    dataset = plan.blank().assign(
        {m: (names, x) for m, x in outcome.data.items()} | {"diverged_at": (names[:-1], outcome.diverged_at)}
    )
    dataset = dataset.isel(seed=real).assign_attrs(total_steps=plan.total_steps)
    return dataset.assign_attrs(states=checkpoints.States(outcome.states, plan.arms)) if outcome.states else dataset


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
            store_config(path, plan)
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


def _plan(
    arms: Arms,
    total_steps: int,
    num_seeds: int | None,
    seeds: Sequence[int] | None,
    grid: Mapping[str, Sequence[float]] | None,
    eval_every: int,
    eval_episodes: int,
    wave_size: int | None,
    on_disk: bool,
) -> Plan:
    named = _named(arms)
    listed = _seeds(num_seeds, seeds)
    values = _grid(named, grid or {})
    check(eval_every >= 0, "eval_every", eval_every, "0 or greater")
    check(eval_episodes > 0, "eval_episodes", eval_episodes, "greater than 0")
    check(total_steps > 0, "total_steps", total_steps, "greater than 0")
    whole = wave_size is None or (isinstance(wave_size, int) and wave_size > 0)
    check(whole, "wave_size", wave_size, "None or an int of at least 1")
    share = -(-len(listed) // jax.process_count())
    block = max(share, SEED_BLOCK) if on_disk else share
    slots = place(listed, share, block)
    waves = {name: cut(slots, block, min(wave_size or share, share)) for name in named}
    plan = Plan(named, values, slots, block, waves, wave_size, int(total_steps), eval_every, eval_episodes)
    plan.metrics()  # An arm that cannot train fails here, before anything is written.
    return plan


def _stored_plan(path: Path, config: dict[str, Any], given: dict[str, Algorithm]) -> Plan:
    """The plan that a run's ``config.json`` holds, its arms made again or as given."""
    return Plan(
        arms={
            name: checkpoints.arm_algorithm(path, name, arm["settings"], given.get(name))
            for name, arm in config["arms"].items()
        },
        grid=config["grid"],
        slots=config["slots"],
        seed_block=config["seed_block"],
        waves={name: [Wave(*wave) for wave in waves] for name, waves in config["waves"].items()},
        wave_size=config.get("wave_size"),
        total_steps=config["total_steps"],
        eval_every=config["eval_every"],
        eval_episodes=config["eval_episodes"],
    )


def _grown(
    path: Path,
    config: dict[str, Any],
    arms: Arms | None,
    total_steps: int | None,
    num_seeds: int | None,
    seeds: Sequence[int] | None,
) -> Plan:
    """A run's plan with more steps, arms and seeds."""
    given = {} if arms is None else _named(arms)
    plan = _stored_plan(path, config, given)
    if total_steps is not None:
        check(total_steps >= plan.total_steps, "total_steps", total_steps, f"at least the run's {plan.total_steps}")
        plan.total_steps = int(total_steps)
    _add_arms(plan, given)
    if num_seeds is not None or seeds is not None:
        _add_seeds(plan, _seeds(num_seeds, seeds))
    return plan


def _has_grown(plan: Plan, config: dict[str, Any]) -> bool:
    now = json.loads(json.dumps(plan.config()))
    return now != {key: config.get(key) for key in now}


def _add_arms(plan: Plan, given: dict[str, Algorithm]) -> None:
    new = {name: algorithm for name, algorithm in given.items() if name not in plan.arms}
    _grid(new, plan.grid)
    widest = max(wave.width for waves in plan.waves.values() for wave in waves)
    plan.arms = plan.arms | new
    for name in new:
        plan.waves[name] = cut(plan.slots, plan.seed_block, widest)


def _add_seeds(plan: Plan, seeds: list[int]) -> None:
    missing = sorted(set(plan.seeds) - set(seeds))
    check(not missing, "seeds", seeds, f"all that the run has and more; {missing[:10]} are missing")
    new, held = [s for s in seeds if s not in plan.seeds], len(plan.slots)
    if not new:
        return
    share = -(-len(new) // jax.process_count())
    plan.slots = plan.slots + place(new, share, plan.seed_block)
    for waves in plan.waves.values():
        width = max(waves[-1].width, min(share, plan.wave_size or share))
        waves += cut(plan.slots, plan.seed_block, width, held)


def _warn_of_changes(path: Path, config: dict[str, Any]) -> None:
    now = results.provenance()
    changed = [
        f"{what} {before} → {after}"
        for key in ("versions", "device")
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


def _named(arms: Arms) -> dict[str, Algorithm]:
    named = {arms.name: arms} if isinstance(arms, Algorithm) else dict(arms)
    check(len(named) > 0, "arms", arms, "at least one algorithm")
    for name, algorithm in named.items():
        check(isinstance(algorithm, Algorithm), f"arms[{name!r}]", algorithm, "an algorithm from prx.make")
        check("/" not in name and name not in ("", ".", ".."), "arms", name, "names that can be a directory's")
    return named


def _seeds(num_seeds: int | None, seeds: Sequence[int] | None) -> list[int]:
    check(num_seeds is None or seeds is None, "seeds", seeds, "None where num_seeds is given")
    if seeds is None:
        count = 1 if num_seeds is None else num_seeds
        whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
        check(whole and count > 0, "num_seeds", count, "an int of at least 1")
        return list(range(int(count)))
    check(all(int(s) == s for s in seeds), "seeds", seeds, "whole numbers")
    listed = [int(s) for s in seeds]
    check(len(listed) > 0, "seeds", seeds, "at least one seed")
    check(len(set(listed)) == len(listed), "seeds", seeds, "different seeds")
    check(all(0 <= s < 2**31 for s in listed), "seeds", seeds, "between 0 and 2**31 - 1")
    return listed


def _grid(arms: dict[str, Algorithm], grid: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    for name, values in grid.items():
        for arm, algorithm in arms.items():
            known = [f.name for f in dataclasses.fields(algorithm.hparams)]
            static = {f.name for f in dataclasses.fields(algorithm.config)}
            if name in static:
                raise ValueError(
                    f"grid={name!r} is not allowed: it is static (compiled in); make one arm per value of it"
                )
            if name not in known:
                raise ValueError(unknown_name(f"setting to sweep for arm {arm!r}", name, known))
        sequence = isinstance(values, Sequence | np.ndarray) and not isinstance(values, str)
        check(sequence and len(values) > 0, f"grid[{name!r}]", values, "a sequence of numbers")
        check(len(set(values)) == len(values), f"grid[{name!r}]", values, "different numbers")
        for algorithm in arms.values():
            for value in values:
                check_hparam(name, value, type(algorithm.hparams))
    return {name: [float(v) for v in values] for name, values in grid.items()}
