"""How a sweep is run: its waves one after another, made narrower where they do not fit into memory."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.linalg  # noqa: F401  (loads the BLAS that threadpool_limits limits)
import xarray as xr
from threadpoolctl import threadpool_limits

from purejaxrl_ext.errors import check
from purejaxrl_ext.sweeps import checkpoints, dims, results, states
from purejaxrl_ext.sweeps.along import join, valid
from purejaxrl_ext.sweeps.checkpoints import folder
from purejaxrl_ext.sweeps.locks import hold
from purejaxrl_ext.sweeps.memory import fitting_width, is_out_of_memory
from purejaxrl_ext.sweeps.plan import Plan, Wave, cut
from purejaxrl_ext.sweeps.planning import note_conditions
from purejaxrl_ext.sweeps.progress import Progress
from purejaxrl_ext.sweeps.stop import Stop
from purejaxrl_ext.sweeps.wave import Options, Outcome, WaveRun
from purejaxrl_ext.types import State


def my_waves(plan: Plan, only: Sequence[str] | None) -> list[tuple[str, Wave]]:
    """This process's waves: all, or of the blocks that they start in every ``process_count``-th's."""
    mine = []
    for name, waves in plan.waves.items():
        blocks = sorted({wave.start // plan.seed_block for wave in waves})
        own = blocks[jax.process_index() :: jax.process_count()]
        if only is None or name in only:
            mine += [(name, wave) for wave in waves if wave.start // plan.seed_block in own]
    return mine


def run(plan: Plan, options: Options) -> Outcome | None:
    """Run what is not done yet of a plan. With a directory the results are there, also if this is interrupted."""
    todo = my_waves(plan, options.only)
    lengths = {name: plan.num_updates(name) * plan.arms[name].steps_per_update for name, _ in todo}
    outcome = None if options.path is not None else Outcome.blank(plan)
    with ExitStack() as stack:
        # A device each has a core: LAPACK's own threads under it would fight for them (measured: SVDs ten times slower).
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        stop = stack.enter_context(Stop())
        bar = stack.enter_context(Progress(options.progress, lengths, Counter(name for name, _ in todo)))
        if options.path is not None:
            held = {(n, i // plan.seed_block): None for n, wave in todo for i in range(wave.start, wave.stop)}
            for name, block in held:
                stack.enter_context(hold(options.path, f"{name}-{block}", f"arm {name!r}"))
            if not all(is_finished(plan, options.path, name, wave) for name, wave in todo):
                note_conditions(options.path)
        Queue(plan, options, bar, stop, outcome, todo).run()
    return outcome


class Queue:
    """A process's waves that are still to be run, the next one first."""

    def __init__(
        self,
        plan: Plan,
        options: Options,
        bar: Progress,
        stop: Stop,
        outcome: Outcome | None,
        todo: list[tuple[str, Wave]],
    ):
        self.plan, self.options, self.bar, self.stop, self.outcome, self.todo = plan, options, bar, stop, outcome, todo
        self.checked: set[tuple[str, int]] = set()
        self.states: dict[str, list[State]] = {}
        self.along: dict[str, dict[int, list[State]]] = {}

    def run(self) -> None:
        """Until none is left."""
        while self.todo:
            name, wave = self.todo[0]
            if is_finished(self.plan, self.options.path, name, wave):
                self.bar.advance(name, self.bar.lengths[name], 0, np.full(self.plan.num_updates(name), np.nan))
                self.todo.pop(0)
                continue
            width = self._width(name, wave)
            if width == wave.width:
                width = self._attempt(name, wave)
            # Not in the handler, whose traceback holds the arrays that must go.
            if width < wave.width:
                self._narrow(name, wave, width)
            else:
                self.todo.pop(0)
        if self.outcome is not None:
            self.outcome.states = {name: join(parts) for name, parts in self.states.items()}
            self.outcome.along = {
                name: {update: join(parts) for update, parts in kept.items()} for name, kept in self.along.items()
            }

    def _width(self, name: str, wave: Wave) -> int:
        """How many of a wave's seeds fit into memory at once, looked at before its first update.

        Once for an arm and a width: what the wave before has freed may not show yet. A wave that has begun keeps its width,
        of which its numbers are.
        """
        if (name, wave.width) in self.checked or saved_updates(self.options.path, name, wave):
            return wave.width
        self.checked.add((name, wave.width))
        return fitting(self.plan, self.options, name, wave)

    def _attempt(self, name: str, wave: Wave) -> int:
        """Run a wave; returns its width, or half of it if the device was out of memory."""
        try:
            wave_run = WaveRun(self.plan, self.options, name, wave, self.bar, self.stop, self.outcome)
            state = wave_run.run()
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error) or wave.width == 1:
                raise
            return wave.width // 2
        if self.options.keep_states:
            cells = int(np.prod([len(values) for values in self.plan.grid.values()]))
            self.states.setdefault(name, []).append(valid(cells, wave, state))
            for update, kept in wave_run.kept.items():
                self.along.setdefault(name, {}).setdefault(update, []).append(kept)
        return wave.width

    def _narrow(self, name: str, wave: Wave, width: int) -> None:
        """Put narrower waves in the place of one that does not fit, and of those as wide after it."""
        self.bar.warn(f"arm {name!r}: {wave.width} seeds at once do not fit into memory; going on with {width}")
        # Those that have begun keep their width as long as they can.
        wider = [w for n, w in self.todo if n == name and w.width > width]
        mine = [w for w in wider if w == wave or not saved_updates(self.options.path, name, w)]
        narrower = [(name, w) for w in narrow(self.plan, self.options, name, mine, width)]
        self.todo = [*narrower, *(t for t in self.todo if t[0] != name or t[1] not in mine)]
        self.bar.more_waves(name, len(narrower) - len(mine))


def saved_updates(path: Path | None, name: str, wave: Wave) -> set[int]:
    """Numbers of updates after which a wave has a checkpoint."""
    if path is None:
        return set()
    return {int(p.name) for p in folder(path, name, wave.name).glob("[0-9]*") if p.name.isdigit()}


def is_finished(plan: Plan, path: Path | None, name: str, wave: Wave) -> bool:
    """Whether a wave's last state is saved."""
    last = plan.num_updates(name)
    return path is not None and checkpoints.is_whole(folder(path, name, wave.name) / str(last))


def fitting(plan: Plan, options: Options, name: str, wave: Wave) -> int:
    """How many seeds of a wave fit into memory; of several waves, all are as wide."""
    # A checkpoint's copy is the host's, whose memory is also that of its cores; JAX keeps one of what several hold.
    copies = 2 * int(options.path is not None and jax.default_backend() == "cpu")
    width = fitting_width(name, plan.arms[name], plan.grid, wave.width, copies)
    count = -(-wave.width // width)
    return -(-wave.width // count)


def narrow(plan: Plan, options: Options, name: str, waves: list[Wave], width: int) -> list[Wave]:
    """Put narrower waves in the place of an arm's unfinished ones, which start again."""
    narrower = [w for wave in waves for w in cut(plan.slots[: wave.stop], plan.seed_block, width, wave.start)]
    plan.waves[name] = [w for w in plan.waves[name] if w not in waves] + narrower
    if options.path is not None:
        for wave in waves:
            shutil.rmtree(folder(options.path, name, wave.name), ignore_errors=True)
        # Other waves may be other processes' to change.
        with hold(options.path, "config", "config.json", wait=True):
            config = results.read_config(options.path)
            others = [w for w in config["waves"][name] if Wave(*w) not in waves]
            config["waves"][name] = others + [list(w) for w in narrower]
            results.write_json(options.path / "config.json", config)
    return narrower


def in_memory(plan: Plan, options: Options) -> xr.Dataset:
    """Run a plan, and give its results, with states if they are kept, as a dataset."""
    check(jax.process_count() == 1, "out", None, "a directory that all processes share, where there are several")
    outcome = run(plan, options)
    assert outcome is not None
    names, real = results.dims(plan.grid), np.flatnonzero(np.array(plan.slots) != results.PADDING)
    dataset = plan.blank().assign(
        {m: (names, x) for m, x in outcome.data.items()} | {"diverged_at": (names[:-1], outcome.diverged_at)}
    )
    envs = [algorithm.env_name for algorithm in plan.arms.values()]
    dataset = results.described(dataset.isel(seed=real), plan.total_steps, envs)
    dataset = dims.spread(dataset, plan.dims, [plan.labels[name] for name in plan.arms])
    if not outcome.states:
        return dataset

    def by_label(x: dict[str, Any]) -> dict[Any, Any]:
        return {plan.labels[name] if len(plan.dims) > 1 else plan.labels[name][0]: value for name, value in x.items()}

    coords: dict[str, list] = {**plan.grid, "seed": plan.seeds}
    kept, arms, along = by_label(outcome.states), by_label(dict(plan.arms)), by_label(outcome.along)
    return dataset.assign_attrs(states=states.States(kept, arms, coords, tuple(plan.dims), along).kept())
