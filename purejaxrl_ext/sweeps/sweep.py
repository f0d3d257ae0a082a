"""``sweep``: arms × grid × seeds, each arm one compiled program; ``resume``: go on with one, or extend it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from purejaxrl_ext.devices import isolated
from purejaxrl_ext.errors import check
from purejaxrl_ext.sweeps import arguments, guards, logs, planning, results, states
from purejaxrl_ext.sweeps import dims as dimensions
from purejaxrl_ext.sweeps.arguments import Arms
from purejaxrl_ext.sweeps.directory import allocate, make_directory, meet, warn_of_changes
from purejaxrl_ext.sweeps.locks import hold
from purejaxrl_ext.sweeps.plan import Plan
from purejaxrl_ext.sweeps.run import in_memory, is_finished, run
from purejaxrl_ext.sweeps.wave import Options
from purejaxrl_ext.types import Algorithm, State

Probes = Mapping[str, Callable] | Sequence[Callable] | Callable | None

# Arguments of sweep that a run keeps.
UNCHANGING = (
    *("grid", "eval_every", "eval_episodes", "eval_common_starts", "probes", "probe_every", "save_every", "dims"),
    "wave_size",
)


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
    eval_common_starts: bool = False,
    probes: Probes = None,
    probe_every: int = 0,
    save_every: int = 0,
    keep_states: bool = False,
    dims: Sequence[str] | None = None,
    wave_size: int | None = None,
    log: Any = (),
) -> xr.Dataset:
    """Train every arm with every combination of ``grid`` and every seed.

    A seed depends on its companions, after a while: seed s starts from ``jax.random.key(s)`` wherever it runs, but a program of
    another width (seeds at once × grid cells) or of other devices rounds otherwise in the last bits, which training
    amplifies. The same sweep again gives the same bits; seed 2 alone is another sample than seed 2 of 8. ``config.json`` keeps
    each wave's width, and :func:`replay` runs one seed again in it.

    Args:
        arms: an algorithm, or several by name; their configs may differ. With ``dims`` a name is a tuple of labels.
        total_steps: environment steps of each run; rounded up to whole updates.
        num_seeds: seeds 0 … n − 1; or ``seeds``: which ones. Default: one, seed 0.
        grid: values by the name of a traced setting, all combinations; every arm must have the setting.
        out: a directory, which must not hold a run; results are written there while they come, and the trained states.
        progress: a bar; on something other than a terminal one line a minute.
        checkpoint_seconds: the states are saved to ``out`` this often, in the background, and at the end.
        keep_checkpoints: how many of each wave stay.
        eval_every: evaluate every so many updates, and at the end (``eval_return``); 0: never.
        eval_episodes: greedy episodes of an evaluation. A run's ``eval_return`` is their mean, from initial states of its own
            that follow from its seed and the update. So an interval over seeds has the episodes' noise in it too.
        eval_common_starts: the same initial states for all runs and updates, for comparisons in pairs. What they have in
            common by chance then stays in the mean, and no interval over seeds shows it.
        probes: functions ``(algorithm, state, key, hparams) -> {name: scalar}`` of one run's State, a list or by name. They
            are run on all runs between updates, and what they give are metrics, NaN at other updates.
        probe_every: run them every so many updates, and at the end; 0: at the end alone.
        save_every: keep the states after every so many updates, before the first and after the last, for
            :func:`load_states`: on disk, or in memory with ``keep_states``; 0: only the last.
        keep_states: keep the trained states for :func:`load_state` where there is no ``out``.
        dims: dimensions of the dataset in the place of ``arm``: ``sweep({("ppo", 4): a, ("ppo", 8): b},
            dims=("algorithm", "num_epochs"))``. NaN where there is no such arm.
        wave_size: at most so many seeds at once, the others in further waves of the same width. None, or more than the
            memory there is holds: as many as fit.
        log: a logger or several, objects or ``"tensorboard"`` and ``"wandb"``; see :mod:`purejaxrl_ext.sweeps.logs`.

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
    kept = path is not None or keep_states
    check(kept or not save_every, "save_every", save_every, "0 without out=... or keep_states=True")
    plan = planning.make(
        arms,
        on_disk=path is not None,
        total_steps=total_steps,
        num_seeds=num_seeds,
        seeds=seeds,
        grid=grid,
        wave_size=wave_size,
        eval_every=eval_every,
        eval_episodes=eval_episodes,
        eval_common_starts=eval_common_starts,
        probes=probes,
        probe_every=probe_every,
        save_every=save_every,
        dims=dims,
    )
    if path is None:
        return in_memory(plan, options)
    make_directory(path)
    allocate(path, plan)
    return _on_disk(path, plan, options)


@isolated()
def create(arms: Arms, *, out: str | Path, **settings: Any) -> None:
    """Make a run's directory without running it, for :func:`resume` to work on.

    Args:
        settings: the arguments of :func:`sweep` that say what is trained and measured.
    """
    plan = planning.make(arms, on_disk=True, **settings)
    path = guards.run_path(out)
    make_directory(path)
    allocate(path, plan)


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
        check(name in UNCHANGING, "settings", name, "an argument of sweep")
        now = planning.as_stored(name, value)
        check(now == config.get(name), name, value, f"{config.get(name)!r}, with which the run was made")
    plan = planning.grown(path, config, arms, total_steps, num_seeds, seeds)
    try:
        allocate(path, plan, config)  # also where nothing grows: the store may not have been finished
    except BlockingIOError:
        if planning.has_grown(plan, config):
            raise


@isolated()
def unfinished(out: str | Path, arms: Arms | None = None) -> list[str]:
    """Names of a run's arms that are not finished.

    Raises:
        ValueError: one of ``arms`` is the run's by name and has other settings.
    """
    path = guards.run_path(out)
    config = results.read_config(path)
    given = {} if arms is None else arguments.named(arms, tuple(config["dims"]))[0]
    plan = planning.stored(path, config, given)
    return [name for name, waves in plan.waves.items() if any(not is_finished(plan, path, name, w) for w in waves)]


@isolated()
def resume(
    out: str | Path,
    *,
    arms: Arms | None = None,
    total_steps: int | None = None,
    num_seeds: int | None = None,
    seeds: Sequence[int] | None = None,
    probes: Probes = None,
    only: Sequence[Any] | None = None,
    progress: bool = True,
    checkpoint_seconds: float = 60.0,
    keep_checkpoints: int = 2,
    log: Any = (),
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
        probes: the run's own, by name, where they cannot be imported again.
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
    plan = planning.grown(path, config, arms, total_steps, num_seeds, seeds, probes)
    if only is not None:
        names = {labels if len(plan.dims) > 1 else labels[0]: name for name, labels in plan.labels.items()}
        names |= {name: name for name in plan.arms}
        for name in only:
            check(name in names, "only", name, f"one of {', '.join(map(repr, plan.arms))}")
        check(not planning.has_grown(plan, config), "only", only, "None where the run becomes larger")
        options.only = [names[name] for name in only]
    warn_of_changes(path, config)
    if only is None:
        allocate(path, plan, config)
    return _on_disk(path, plan, options)


@isolated()
def load_state(
    source: str | Path | xr.Dataset,
    arm: Any = None,
    seed: int = 0,
    algorithm: Algorithm | str | None = None,
    **cell: Any,
) -> State:
    """The trained state of one run: of its last checkpoint.

    Args:
        source: a run's directory, or the dataset of a sweep with ``keep_states=True``.
        arm: its name, or the tuple of its labels; may be left out where there is one.
        seed: the seed.
        algorithm: what the arm ran, where its environment or network cannot be imported again.
        **cell: the value of each swept setting; also of each dimension of the arms, in the place of ``arm``.

    Raises:
        ValueError: an arm, seed or cell that the sweep does not have, or no state saved yet.
    """
    arm, made, cell = dimensions.resolve(results.arm_dims(source), arm, algorithm, cell)
    return states.load_state(source, arm, seed, made, cell)


def _on_disk(path: Path, plan: Plan, options: Options) -> xr.Dataset:
    # Others may be at work on other arms or blocks of seeds; none may grow the store meanwhile.
    with hold(path, "run", "the store", shared=True):
        run(plan, options)
    meet("finished")
    return results.load(path)


def _options(
    path: Path | None, progress: bool, checkpoint_seconds: float, keep_checkpoints: int, keep_states: bool, log: Any
) -> Options:
    check(checkpoint_seconds > 0, "checkpoint_seconds", checkpoint_seconds, "greater than 0")
    whole = isinstance(keep_checkpoints, int) and keep_checkpoints > 0
    check(whole, "keep_checkpoints", keep_checkpoints, "an int of at least 1")
    return Options(path, progress, checkpoint_seconds, keep_checkpoints, keep_states, logs.loggers(log))
