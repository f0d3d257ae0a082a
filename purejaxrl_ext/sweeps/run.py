"""How a sweep is run: what it is (:class:`Plan`), and the host's loop over jitted chunks of updates.

Progress, logs, results and checkpoints live between chunks, on the host; there is no callback inside a compiled loop. A chunk's
length never changes the result: its trip count is a traced argument of the one program, and metrics go into a buffer.

An arm's seeds run in **waves**, one after another, each all grid cells of some seeds. They are of one width (spare places
repeat a seed), and so one program with one result, however many there are; unless they do not fit into memory any more, or
more seeds are added later than the waves before are wide. A wave is what is
checkpointed and resumed; a block of seeds is what a process has to itself.
"""

from __future__ import annotations

import functools
import json
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg  # noqa: F401  (loads the BLAS that threadpool_limits limits)
import xarray as xr
from threadpoolctl import threadpool_limits

from purejaxrl_ext.loops.evaluate import evaluate
from purejaxrl_ext.sweeps import checkpoints, logs, results
from purejaxrl_ext.sweeps.checkpoints import Checkpoints, folder, one_run
from purejaxrl_ext.sweeps.locks import hold
from purejaxrl_ext.sweeps.program import CAPACITY, NEVER, Program, Runs, available_memory, compiled, lay_out
from purejaxrl_ext.sweeps.progress import Progress
from purejaxrl_ext.types import Algorithm, Array, PyTree, State, abstract_key

CHUNK_SECONDS = 1.0
MEMORY_SHARE = 0.8  # of what is available, that a wave may need


class Wave(NamedTuple):
    """Places ``start`` to ``stop`` on the seed axis, run as ``width`` seeds: beyond them the last is repeated."""

    start: int
    stop: int
    width: int

    @property
    def name(self) -> str:
        return f"{self.start}-{self.stop}"


@dataclass
class Plan:
    """What a sweep is; ``config.json`` holds it.

    Attributes:
        arms: by name.
        grid: values of each swept setting.
        slots: the store's seed axis: seeds, and PADDING where a block is not full.
        seed_block: seeds per block; one process writes a block.
        waves: of each arm.
        wave_size: the most seeds of a wave that were asked for; None: as many as fit.
        total_steps: environment steps of each run.
        eval_every, eval_episodes: see :func:`~purejaxrl_ext.sweeps.sweep.sweep`.
    """

    arms: dict[str, Algorithm]
    grid: dict[str, list[float]]
    slots: list[int]
    seed_block: int
    waves: dict[str, list[Wave]]
    wave_size: int | None
    total_steps: int
    eval_every: int
    eval_episodes: int

    @property
    def seeds(self) -> list[int]:
        return [s for s in self.slots if s != results.PADDING]

    def num_updates(self, arm: str) -> int:
        return self.arms[arm].num_updates(self.total_steps)

    def wave_seeds(self, wave: Wave) -> list[int]:
        seeds = self.slots[wave.start : wave.stop]
        return seeds + seeds[-1:] * (wave.width - len(seeds))

    def blank(self) -> xr.Dataset:
        """The dataset without its variables, with all slots."""
        longest = max(self.num_updates(name) for name in self.arms)
        env_steps = np.full((len(self.arms), longest), np.nan)
        for i, (name, algorithm) in enumerate(self.arms.items()):
            count = self.num_updates(name)
            env_steps[i, :count] = (np.arange(count) + 1.0) * algorithm.steps_per_update
        return results.blank(list(self.arms), self.grid, self.slots, env_steps)

    def metrics(self) -> list[str]:
        """Names of all arms' metrics."""
        names = dict.fromkeys(name for algorithm in self.arms.values() for name in metric_names(algorithm))
        return [*names, *(["eval_return"] if self.eval_every else [])]

    def config(self) -> dict[str, Any]:
        return {
            "total_steps": self.total_steps,
            "seeds": self.seeds,
            "grid": self.grid,
            "eval_every": self.eval_every,
            "eval_episodes": self.eval_episodes,
            "arms": {
                name: {
                    "settings": {k: checkpoints.plain(v) for k, v in a.settings.items()},
                    "steps_per_update": a.steps_per_update,
                    "num_updates": self.num_updates(name),
                }
                for name, a in self.arms.items()
            },
            "slots": self.slots,
            "seed_block": self.seed_block,
            "waves": {name: [list(w) for w in waves] for name, waves in self.waves.items()},
            "wave_size": self.wave_size,
        }


@functools.lru_cache(maxsize=1024)
def metric_names(algorithm: Algorithm) -> tuple[str, ...]:
    """What a step logs. Kept, since it takes tracing a step, and every wave asks."""
    state = jax.eval_shape(algorithm.init, abstract_key())
    return tuple(jax.eval_shape(algorithm.step, state)[1])


def place(seeds: list[int], share: int, seed_block: int) -> list[int]:
    """Slots for seeds: each process's ``share`` in blocks of their own, filled up with PADDING."""
    slots: list[int] = []
    for i in range(0, len(seeds), share):
        mine = seeds[i : i + share]
        slots += mine + [results.PADDING] * (-len(mine) % seed_block)
    return slots


def cut(slots: list[int], seed_block: int, width: int, start: int = 0) -> list[Wave]:
    """Waves of at most ``width`` seeds over the slots from ``start`` on, each in one block, or all seeds of several blocks.

    So no block is written by two waves that could be two processes'.
    """
    waves, begin = [], start
    while begin < len(slots):
        end = begin - begin % seed_block + seed_block
        while (
            end < len(slots) and slots[end - 1] != results.PADDING and _held(slots[begin : end + seed_block]) <= width
        ):
            end += seed_block
        stop = begin + _held(slots[begin:end])
        waves += [Wave(i, min(i + width, stop), width) for i in range(begin, stop, width)]
        begin = end
    return waves


def _held(slots: list[int]) -> int:
    return sum(seed != results.PADDING for seed in slots)


def fitting_width(name: str, algorithm: Algorithm, grid: dict[str, list[float]], width: int, copies: int) -> int:
    """The most seeds, up to ``width``, whose program fits into the memory there is, by the compiler's own count.

    Args:
        name, algorithm: the arm.
        grid: swept settings: a wave has every combination of them.
        width: seeds.
        copies: of the State that are held besides the program's own, on the host.

    Raises:
        MemoryError: not even one seed fits.
    """
    while True:
        built = compiled(algorithm, lay_out(algorithm, list(range(width)), grid))
        need = built.memory + copies * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(built.state))
        limit = MEMORY_SHARE * available_memory()
        if need <= limit:
            return width
        if width == 1:
            cells = int(np.prod([len(v) for v in grid.values()]))
            raise MemoryError(
                f"arm {name!r}: one seed of its {cells} grid cells needs {need / 2**30:.2f} GiB, and "
                f"{limit / 2**30:.2f} GiB may be used; make the grid, num_envs or the replay smaller"
            )
        width = max(1, min(width // 2, int(width * limit / need)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device said that its memory is full."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


class Stop:
    """Turns the first Ctrl-C or SIGTERM into a flag, to be read between chunks; the second acts as ever.

    A handler may do no more: the state given to a running chunk is gone until the chunk returns.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            # A SIGTERM that somebody handles is theirs: submitit's jobs wait for the signal that sends them again.
            free = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
            self.before = {s: signal.signal(s, self._note) for s in [signal.SIGINT, *[signal.SIGTERM] * free]}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def raise_if_asked(self, message: str) -> None:
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt(message)
        if self.signal is not None:
            print(message, file=sys.stderr, flush=True)
            raise SystemExit(128 + self.signal)


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
        only: arms to run; None: all.
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
    """What a run without a directory leaves: host arrays ``[arm, *grid, seed(, update)]``, and states by arm."""

    data: dict[str, np.ndarray]
    diverged_at: np.ndarray
    states: dict[str, State] = field(default_factory=dict)

    @classmethod
    def blank(cls, plan: Plan) -> Outcome:
        shape = tuple(plan.blank().sizes[d] for d in results.dims(plan.grid))
        data = {name: np.full(shape, np.nan, np.float32) for name in plan.metrics()}
        return cls(data, np.full(shape[:-1], np.nan, np.float32))


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
    states: dict[str, list[State]] = {}
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
        checked: set[tuple[str, int]] = set()
        while todo:
            name, wave = todo[0]
            width = wave.width
            if is_finished(plan, options.path, name, wave):
                bar.advance(name, lengths[name], 0, np.empty(0))
                todo.pop(0)
                continue
            # Once for an arm and a width: what the wave before has freed may not show yet. One that has begun keeps its
            # width, of which its numbers are.
            if (name, width) not in checked and not saved_updates(options.path, name, wave):
                checked.add((name, width))
                width = fitting(plan, options, name, wave)
            if width == wave.width:
                try:
                    state = WaveRun(plan, options, name, wave, bar, stop, outcome).run()
                    if options.keep_states:
                        states.setdefault(name, []).append(valid(plan, wave, state))
                    del state  # else the next wave would run beside it
                    todo.pop(0)
                except jax.errors.JaxRuntimeError as error:
                    if not is_out_of_memory(error) or wave.width == 1:
                        raise
                    width = wave.width // 2
            # Not in the handler, whose traceback holds the arrays that must go.
            if width < wave.width:
                bar.warn(f"arm {name!r}: {wave.width} seeds at once do not fit into memory; going on with {width}")
                # Those that have begun keep their width as long as they can.
                wider = [w for n, w in todo if n == name and w.width > width]
                mine = [w for w in wider if w == wave or not saved_updates(options.path, name, w)]
                narrower = [(name, w) for w in narrow(plan, options, name, mine, width)]
                todo = [*narrower, *(t for t in todo if t[0] != name or t[1] not in mine)]
                bar.more_waves(name, len(narrower) - len(mine))
    if outcome is not None:
        outcome.states = {name: join(parts) for name, parts in states.items()}
    return outcome


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


def store_config(path: Path, plan: Plan) -> None:
    """Write what a run is; what else its ``config.json`` holds stays."""
    file = path / "config.json"
    before = results.read_config(path) if file.exists() else results.provenance()
    results.write_json(file, before | plan.config())


def note_conditions(path: Path) -> None:
    """Add to ``config.json`` with what versions, device and commit a run goes on, if with others than so far."""
    with hold(path, "config", "config.json", wait=True):
        config, now = results.read_config(path), results.provenance()
        known = [{key: config[key] for key in now}, *config.get("resumed_with", [])]
        if now not in known:
            results.write_json(path / "config.json", config | {"resumed_with": [*known[1:], now]})


def valid(plan: Plan, wave: Wave, state: State) -> State:
    """``[R, ...]`` to ``[cells, seeds, ...]`` without what pads a wave."""
    cells = int(np.prod([len(values) for values in plan.grid.values()]))

    def rows(x: Array) -> Array:
        shaped = x[: cells * wave.width].reshape(cells, wave.width, *x.shape[1:])
        return shaped[:, : wave.stop - wave.start]

    return jax.tree.map(rows, state.replace(update=())).replace(update=state.update)


def join(parts: list[State]) -> State:
    """The waves' ``[cells, seeds, ...]`` as ``[R, ...]``."""

    def rows(*xs: Array) -> Array:
        whole = jnp.concatenate(xs, axis=1)
        return whole.reshape(-1, *whole.shape[2:])

    return jax.tree.map(rows, *(p.replace(update=()) for p in parts)).replace(update=parts[0].update)


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
            saved = Checkpoints(path, self.name, self.wave.name, self.options.keep_checkpoints)
        with saved:
            return self._train(saved)

    def _train(self, saved: Checkpoints | None) -> State:
        self.began, self.seconds = time.perf_counter(), 0.0
        self.runs = lay_out(self.algorithm, self.plan.wave_seeds(self.wave), self.plan.grid)
        built = compiled(self.algorithm, self.runs)
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
                rows = {name: self._host(x)[..., :length] for name, x in jax.device_get(logged).items()}
                seconds = time.perf_counter() - start
                self._evaluate(rows, after, after_diverged)
                # From here on they are kept together, whatever fails.
                fresh = self._take(rows, after_diverged)
                state, diverged_at = after, after_diverged
                self._tell(rows, fresh)
                length = int(np.clip(CHUNK_SECONDS * length / max(seconds, 1e-6), 1, CAPACITY))
                if time.perf_counter() - saved_at > self.options.checkpoint_seconds:
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
        """Updates of the next chunk: about a second, and no further than the next evaluation or the end."""
        every = self.plan.eval_every
        until_eval = every - self.done % every if every else CAPACITY
        return min(length, CAPACITY, self.num_updates - self.done, until_eval)

    def _start(self, built: Program, hparams: PyTree, saved: Checkpoints | None) -> tuple[State, Array]:
        state_sharding, runs_sharding, *_ = built.chunk.input_shardings[0]
        found = None if saved is None else saved.restore(one_run(self.algorithm), self.runs.num_runs, repair=True)
        if found is None:
            state = built.init(jax.device_put(self.runs.keys, built.init.input_shardings[0][0]), hparams)
            return state, jax.device_put(np.full(len(self.runs.keys), NEVER, np.int32), runs_sharding)
        self.done, (state, diverged_at) = found
        self.saved = self.done
        assert self.options.path is not None
        timing = folder(self.options.path, self.name, self.wave.name) / "timing.json"
        self.seconds = json.loads(timing.read_text())["seconds"] if timing.exists() else 0.0
        held = results.read_rows(self.options.path, self.index, self.slots, list(self.rows), self.done)
        for name, x in held.items():
            self.rows[name][..., : self.done] = x
        self._mark(diverged_at)
        self._advance(self.done)
        padded = jax.tree.map(self.runs.pad, state.replace(update=()))
        state = padded.replace(update=state.update, key=jax.random.wrap_key_data(jnp.asarray(padded.key)))
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

    def _evaluate(self, rows: dict[str, np.ndarray], state: State, diverged_at: Array) -> None:
        """Add the evaluation after a chunk to its rows, if one is due."""
        length, every = rows["loss"].shape[-1], self.plan.eval_every
        done = self.done + length
        if every and (done % every == 0 or done == self.num_updates):
            value = self._host(greedy_returns(self.algorithm, self.runs, state, self.plan.eval_episodes))
            rows["eval_return"] = np.full((*value.shape, length), np.nan, np.float32)
            rows["eval_return"][..., -1] = np.where(self._host(diverged_at) == NEVER, value, np.nan)

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
            cell = ", ".join(f"{name}={values[i]:g}" for (name, values), i in zip(coords.items(), where, strict=True))
            update = int(self.diverged[tuple(where)])
            self.bar.warn(
                f"arm {self.name!r}, {cell}: loss or parameters are not finite from update {update} on; its last finite "
                "values are kept, other runs go on untouched"
            )
        length, steps = rows["loss"].shape[-1], self.algorithm.steps_per_update
        self._advance(length, length * steps * self.runs.num_runs, rows["episode_return"])
        with self._disk("logging") if self.options.path is not None else nullcontext():
            self.log(self.label, (np.arange(self.done - length, self.done) + 1.0) * steps, rows)

    def _advance(self, updates: int, gained: int = 0, returns: np.ndarray | None = None) -> None:
        steps = updates * self.algorithm.steps_per_update
        self.bar.advance(self.name, steps, gained, np.empty(0) if returns is None else returns)

    def _save(self, saved: Checkpoints | None, state: State | None, diverged_at: Array) -> None:
        """Results first, then the state after them if there is one: a checkpoint's own rows are always in the store."""
        path = self.options.path
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


def greedy_returns(algorithm: Algorithm, runs: Runs, state: State, num_episodes: int) -> Array:
    """Mean greedy return of each run ``[R]``, on the same initial states for all."""
    # A key that no seed's own stream can meet: those start from key(s), s ≥ 0.
    key = jax.random.fold_in(jax.random.key(0), 2**32 - 1)

    def one(state: State, hparams: PyTree) -> Array:
        return evaluate(algorithm, state, key, num_episodes, hparams=hparams).mean()

    return jax.vmap(one, in_axes=(State.axes(), runs.axes))(state, runs.hparams)
