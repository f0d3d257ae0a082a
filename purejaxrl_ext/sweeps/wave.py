"""One wave on its way: the host's loop over jitted chunks of updates.

Progress, logs, results and checkpoints live between chunks, on the host; there is no callback inside a compiled loop. A chunk's
length never changes the result: its trip count is a traced argument of the one program, and metrics go into a buffer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from purejaxrl_ext.sweeps import along, checkpoints, logs, probes, results
from purejaxrl_ext.sweeps.checkpoints import Checkpoints, folder, one_run
from purejaxrl_ext.sweeps.plan import Plan, Wave
from purejaxrl_ext.sweeps.program import CAPACITY, NEVER, Program, compiled, lay_out, side_by_side
from purejaxrl_ext.sweeps.progress import Progress
from purejaxrl_ext.sweeps.stop import Stop
from purejaxrl_ext.types import Array, PyTree, State

CHUNK_SECONDS = 1.0


@dataclass
class Options:
    """What does not change the numbers.

    Attributes:
        path: the run's directory; None: keep the results in memory.
        progress: show it.
        checkpoint_seconds: between checkpoints.
        keep_checkpoints: how many of each wave stay.
        keep_states: return the trained states.
        log: loggers.
        only: names of arms to run; None: all.
    """

    path: Path | None = None
    progress: bool = True
    checkpoint_seconds: float = 60.0
    keep_checkpoints: int = 2
    keep_states: bool = False
    log: Sequence[Any] = ()
    only: Sequence[str] | None = None


@dataclass
class Outcome:
    """What a run without a directory leaves: host arrays ``[arm, *grid, seed(, update)]``, and states by arm (and update)."""

    data: dict[str, np.ndarray]
    diverged_at: np.ndarray
    states: dict[str, State] = field(default_factory=dict)
    along: dict[str, dict[int, State]] = field(default_factory=dict)

    @classmethod
    def blank(cls, plan: Plan) -> Outcome:
        """All of a plan, NaN."""
        shape = tuple(plan.blank().sizes[d] for d in results.dims(plan.grid))
        data = {name: np.full(shape, np.nan, np.float32) for name in plan.metrics()}
        return cls(data, np.full(shape[:-1], np.nan, np.float32))


class WaveRun:
    """One wave on its way: how far it is, and its host arrays ``[*grid, seed(, update)]``."""

    def __init__(
        self,
        plan: Plan,
        options: Options,
        name: str,
        wave: Wave,
        bar: Progress,
        stop: Stop,
        outcome: Outcome | None,
    ):
        self.plan, self.options, self.name, self.wave = plan, options, name, wave
        self.bar, self.stop = bar, stop
        self.algorithm = plan.arms[name]
        self.index = list(plan.arms).index(name)
        self.num_updates = plan.num_updates(name)
        self.slots = slice(wave.start, wave.stop)
        self.seeds = plan.slots[self.slots]
        self.done = self.saved = 0
        self.kept: dict[int, State] = {}  # of chosen updates, where there is no directory
        if outcome is None:
            shape = (*map(len, plan.grid.values()), len(self.seeds), self.num_updates)
            self.rows = {metric: np.full(shape, np.nan, np.float32) for metric in plan.metrics()}
            self.diverged = np.full(shape[:-1], np.nan, np.float32)
        else:
            self.rows = {m: x[self.index, ..., self.slots, : self.num_updates] for m, x in outcome.data.items()}
            self.diverged = outcome.diverged_at[self.index, ..., self.slots]

    def run(self) -> State:
        """Go on from the newest checkpoint, if there is one, to the end. Returns the states, ``[R, ...]``."""
        path = self.options.path
        if path is None:
            return self._train(None)
        with self._disk("opening the checkpoints"):
            saved = Checkpoints(path, self.name, self.wave.name, self.options.keep_checkpoints, self.plan.save_every)
        with saved:
            return self._train(saved)

    def _train(self, saved: Checkpoints | None) -> State:
        self.began, self.seconds = time.perf_counter(), 0.0
        self.bar.compiling(self.name)
        self.runs = lay_out(self.algorithm, self.plan.wave_seeds(self.wave), self.plan.grid)
        built = compiled(self.algorithm, self.runs)
        together = side_by_side(self.algorithm, self.runs)
        self.probes = [(p, probes.compiled(p, self.algorithm, together)) for p in self.plan.all_probes()]
        hparams = jax.device_put(self.runs.hparams, built.init.input_shardings[0][1])
        state, diverged_at = self._start(built, hparams, saved)
        started = {self.label: self.done * self.algorithm.steps_per_update}
        with logs.opened(self.options.log, self.options.path, self._log_config(), started) as self.log:
            state, diverged_at = self._loop(built, hparams, state, diverged_at, saved)
        return state

    def _loop(
        self, built: Program, hparams: PyTree, state: State, diverged_at: Array, saved: Checkpoints | None
    ) -> tuple[State, Array]:
        last = np.int32(self.num_updates - 1)
        length, saved_at = 1, time.perf_counter()
        try:
            while self.done < self.num_updates:
                length = self._fit(length)
                start = time.perf_counter()
                after, after_diverged, logged = built.chunk(state, diverged_at, hparams, np.int32(length), last)
                host = self._host(jax.device_get(logged.rows))
                rows = {name: host[..., :length, i] for i, name in enumerate(logged.names)}
                seconds = time.perf_counter() - start
                self._probe(rows, after, after_diverged, hparams)
                # From here on they are kept together, whatever fails.
                fresh = self._take(rows, after_diverged)
                state, diverged_at = after, after_diverged
                self._tell(rows, fresh)
                length = int(np.clip(CHUNK_SECONDS * length / max(seconds, 1e-6), 1, CAPACITY))
                if self._is_chosen() or time.perf_counter() - saved_at > self.options.checkpoint_seconds:
                    self._save(saved, state, diverged_at)
                    saved_at = time.perf_counter()
                self.stop.raise_if_asked(self._how_to_go_on())
        finally:
            # Also on Ctrl-C. The state given to a chunk that was cut short is gone (donated): then only results are kept.
            gone = jax.tree.leaves(state.params)[0].is_deleted()
            self._save(saved, None if gone else state, diverged_at)
            if saved is not None:
                with self._disk("waiting for the last checkpoint"):
                    saved.wait()
        return state, diverged_at

    @property
    def label(self) -> str:
        """What logs call it: the arm; of further waves with their places on the seed axis."""
        return self.name if self.wave.start == 0 else f"{self.name}-{self.wave.name}"

    def _log_config(self) -> dict[str, Any]:
        config = self.plan.config()
        return config | {"seeds": self.seeds, "arms": {self.label: config["arms"][self.name]}}

    def _fit(self, length: int) -> int:
        """Updates of the next chunk: about a second, and no further than the next probe, chosen State or the end."""
        until = [every - self.done % every for every in self.plan.stops()]
        return min(length, CAPACITY, self.num_updates - self.done, *until)

    def _is_chosen(self) -> bool:
        return self.plan.save_every > 0 and self.plan.is_chosen(self.name, self.done)

    def _start(self, built: Program, hparams: PyTree, saved: Checkpoints | None) -> tuple[State, Array]:
        state_sharding, runs_sharding, *_ = built.chunk.input_shardings[0]
        found = None if saved is None else saved.restore(one_run(self.algorithm), self.runs.num_runs, repair=True)
        if found is None:
            state = built.init(jax.device_put(self.runs.keys, built.init.input_shardings[0][0]), hparams)
            diverged_at = np.full(len(self.runs.keys), NEVER, np.int32)
            if self._is_chosen():
                self._keep(saved, state, diverged_at)
            return state, jax.device_put(diverged_at, runs_sharding)
        self.done, (state, diverged_at) = found
        self.saved = self.done
        assert self.options.path is not None
        timing = folder(self.options.path, self.name, self.wave.name) / "timing.json"
        self.seconds = json.loads(timing.read_text())["seconds"] if timing.exists() else 0.0
        held = results.read_rows(self.options.path, self.index, self.slots, list(self.rows), self.done)
        for name, x in held.items():
            self.rows[name][..., : self.done] = x
        self._mark(diverged_at)
        self._advance(self.done, 0, self.rows["episode_return"][..., : self.done])
        padded = jax.tree.map(self.runs.pad, state.replace(update=()))
        state = checkpoints.with_keys(padded.replace(update=state.update))
        return jax.device_put((state, self.runs.pad(diverged_at)), (state_sharding, runs_sharding))

    def _host(self, x: Any) -> np.ndarray:
        """``[R, ...]`` to ``[*grid, seed, ...]`` without the seeds that pad the wave."""
        axis = len(self.plan.grid)
        return np.take(self.runs.unflatten(x), range(len(self.seeds)), axis=axis)

    def _mark(self, diverged_at: np.ndarray) -> np.ndarray:
        """Note at which updates runs diverged; returns which of them newly."""
        at = self._host(diverged_at).astype(np.float32)
        fresh = (at != NEVER) & np.isnan(self.diverged)
        self.diverged[...] = np.where(at == NEVER, np.nan, at)
        return fresh

    def _probe(self, rows: dict[str, np.ndarray], state: State, diverged_at: Array, hparams: PyTree) -> None:
        """Add to a chunk's rows what the probes that are due after it measure; of runs that diverged nothing."""
        length = rows["loss"].shape[-1]
        for probe, measure in self.probes:
            if not probe.is_due(self.done + length, self.num_updates):
                continue
            for name, x in jax.device_get(measure(state, self.runs.keys, hparams)).items():
                value = self._host(x)
                rows[name] = np.full((*value.shape, length), np.nan, np.float32)
                rows[name][..., -1] = np.where(self._host(diverged_at) == NEVER, value, np.nan)

    def _take(self, rows: dict[str, np.ndarray], diverged_at: Array) -> np.ndarray:
        """Keep a chunk's metrics; returns which runs diverged in it."""
        start, self.done = self.done, self.done + rows["loss"].shape[-1]
        for name, x in rows.items():
            self.rows[name][..., start : self.done] = x
        return self._mark(np.asarray(diverged_at))

    def _tell(self, rows: dict[str, np.ndarray], diverged: np.ndarray) -> None:
        """Warn of runs that diverged in a chunk, show it and log it."""
        for where in np.argwhere(diverged):
            coords: dict[str, list] = {**self.plan.grid, "seed": self.seeds}
            chosen = {name: values[i] for (name, values), i in zip(coords.items(), where, strict=True)}
            cell = ", ".join(f"{name}={x if name == 'seed' else f'{x:g}'}" for name, x in chosen.items())
            update = int(self.diverged[tuple(where)])
            self.bar.warn(
                f"arm {self.name!r}, {cell}: loss or parameters are not finite from update {update} on; its last finite "
                "values are kept, other runs go on untouched"
            )
        length, steps = rows["loss"].shape[-1], self.algorithm.steps_per_update
        self._warn_of_resets(rows)
        self._advance(length, length * steps * self.runs.num_runs, rows["episode_return"])
        with self._disk("logging") if self.options.path is not None else nullcontext():
            self.log(self.label, (np.arange(self.done - length, self.done) + 1.0) * steps, rows)

    def _warn_of_resets(self, rows: dict[str, np.ndarray]) -> None:
        """Warn, once per arm, where an update's episodes began with initial states that others of it began with too."""
        pool, ended = getattr(self.algorithm.config, "pool_size", None), rows.get("num_episodes", np.empty(0))
        most = np.max(ended, where=np.isfinite(ended), initial=0)
        if pool is not None and most > pool:
            self.bar.warn(
                f"arm {self.name!r}: {most:.0f} episodes began in one update and only {pool} initial states were drawn for "
                f"it, so that some began alike; reset_pool_size={most:.0f} or more draws enough",
                once=f"resets of {self.name}",
            )

    def _advance(self, updates: int, gained: int, returns: np.ndarray) -> None:
        self.bar.advance(self.name, updates * self.algorithm.steps_per_update, gained, returns)

    def _keep(self, saved: Checkpoints | None, state: State, diverged_at: Any) -> None:
        """Keep the State of a chosen update for good."""
        if saved is not None:
            with self._disk(f"saving update {self.done} of arm {self.name!r}"):
                saved.save(self.done, state, diverged_at, self.runs.num_runs)
        elif self.options.keep_states:
            self.kept[self.done] = along.on_host(self.plan, self.wave, state)

    def _save(self, saved: Checkpoints | None, state: State | None, diverged_at: Array) -> None:
        """Results first, then the state after them if there is one: a checkpoint's own rows are always in the store."""
        path = self.options.path
        if path is None and state is not None and self._is_chosen() and self.done < self.num_updates:
            self._keep(saved, state, diverged_at)
        if saved is None or path is None or self.done == self.saved:
            return
        with self._disk(f"saving update {self.done} of arm {self.name!r}"):
            results.write_blocks(path, self.index, self.slots, self.rows, self.diverged, self.saved, self.done)
            if state is not None:
                saved.save(self.done, state, diverged_at, self.runs.num_runs)
            # Seconds are not determined by the seeds, so they are no result.
            seconds = self.seconds + time.perf_counter() - self.began
            results.write_json(folder(path, self.name, self.wave.name) / "timing.json", {"seconds": seconds})
        self.saved = self.done

    def _disk(self, doing: str) -> Any:
        return results.clear_disk_errors(self.options.path or Path(), doing)

    def _how_to_go_on(self) -> str:
        path = self.options.path
        if path is None:
            return "stopped; there was no out=..., so nothing is kept"
        return f"stopped after update {self.done} of arm {self.name!r}; go on with prx.resume({str(path)!r})"
