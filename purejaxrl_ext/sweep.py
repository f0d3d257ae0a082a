"""``sweep``: arms × grid × seeds, each arm one compiled program, driven from Python in chunks of updates.

Progress, results and checkpoints live between chunks, on the host; there is no callback inside a compiled loop. A chunk's
length never changes the result: its trip count is a traced argument of the one program, and metrics go into a buffer.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg  # noqa: F401  (loads the BLAS that threadpool_limits limits)
import xarray as xr
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from threadpoolctl import threadpool_limits

from purejaxrl_ext import checkpoints, results
from purejaxrl_ext.config import check_hparam
from purejaxrl_ext.errors import check, unknown_name
from purejaxrl_ext.loops import f32
from purejaxrl_ext.progress import Progress
from purejaxrl_ext.train import evaluate, is_measured
from purejaxrl_ext.types import Algorithm, Array, Metrics, PyTree, State, abstract_key

CAPACITY = 256  # updates that a chunk's metric buffer holds
CHUNK_SECONDS = 1.0


class Program(NamedTuple):
    """An algorithm compiled for R runs side by side.

    Attributes:
        init: ``(keys [R], hparams) -> State``.
        chunk: ``(state, hparams, num_updates, last) -> (State, metrics [R, CAPACITY])``; ``last`` is the run's last update.
    """

    init: Any
    chunk: Any


@functools.lru_cache(maxsize=256)
def program(functions: Any, axes: Any, devices: tuple, together: int) -> Program:
    """Compile-once functions for runs sharded over ``devices``.

    Args:
        functions: of the algorithm; equal settings give the same object.
        axes: hparams with 0 where a value differs between runs, else None.
        devices: the runs' number must be a multiple of theirs.
        together: a device vmaps at most so many of its runs, one such group after another; 0: all.
    """
    mesh = Mesh(np.array(devices), ("run",))
    state_specs = State.axes(P("run"), P())
    hparam_specs = jax.tree.map(lambda a: P("run") if a == 0 else P(), axes, is_leaf=lambda a: a is None)
    everywhere = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)

    def one(state: State, hparams: PyTree, num_updates: Array, last: Array) -> tuple[State, Metrics]:
        def measure(state: State) -> Array:
            return is_measured(state.update, last, functions.metrics_every)

        logged = jax.eval_shape(lambda s: functions.step(s, hparams, measure(s))[1], state)
        buffers = jax.tree.map(lambda x: jnp.full((CAPACITY, *x.shape), jnp.nan, x.dtype), logged)

        def update(i: Array, carry: tuple[State, Metrics]) -> tuple[State, Metrics]:
            state, buffers = carry
            state, logged = functions.step(state, hparams, measure(state))
            return state, jax.tree.map(lambda b, x: b.at[i].set(x), buffers, logged)

        return jax.lax.fori_loop(0, num_updates, update, (state, buffers))

    def shard(state: State, hparams: PyTree, num_updates: Array, last: Array) -> tuple[State, Metrics]:
        vmapped = jax.vmap(one, in_axes=(State.axes(), axes, None, None), out_axes=(State.axes(), 0))
        num_runs = jax.tree.leaves(state.params)[0].shape[0]
        width = _largest_divisor(num_runs, together or num_runs)
        if width == num_runs:
            return vmapped(state, hparams, num_updates, last)
        # Groups one after another, the runs of each side by side; alone, a run needs no vmap.
        swept = {f.name: getattr(hparams, f.name) for f in dataclasses.fields(axes) if getattr(axes, f.name) == 0}
        shape = (num_runs // width, width) if width > 1 else (num_runs,)
        groups = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), (state.replace(update=()), swept))

        def run(group: tuple[State, dict]) -> tuple[State, Metrics]:
            function = vmapped if width > 1 else one
            return function(group[0].replace(update=state.update), hparams.replace(**group[1]), num_updates, last)

        after, logged = jax.lax.map(run, groups)
        update = after.update[0]
        if width > 1:
            after, logged = jax.tree.map(
                lambda x: x.reshape(num_runs, *x.shape[2:]), (after.replace(update=()), logged)
            )
        return after.replace(update=update), logged

    def start(keys: Array, hparams: PyTree) -> State:
        return jax.vmap(functions.init, in_axes=(0, axes), out_axes=State.axes())(keys, hparams)

    init = jax.jit(everywhere(start, in_specs=(P("run"), hparam_specs), out_specs=state_specs))
    chunk = jax.jit(
        everywhere(shard, in_specs=(state_specs, hparam_specs, P(), P()), out_specs=(state_specs, P("run"))),
        donate_argnums=0,
    )
    return Program(init, chunk)


class Runs(NamedTuple):
    """The runs of one arm, flattened: R = grid cells × seeds, seeds fastest, padded to whole devices.

    Attributes:
        shape: (*grid, seed).
        keys: ``[R]``.
        hparams: scalars, or ``[R]`` where swept.
        axes: 0 where swept, else None.
        devices: to shard over.
    """

    shape: tuple[int, ...]
    keys: Array
    hparams: PyTree
    axes: PyTree
    devices: tuple

    @property
    def num_runs(self) -> int:
        return int(np.prod(self.shape))

    def unflatten(self, x: Any) -> np.ndarray:
        """``[R, ...]`` to ``[*grid, seed, ...]`` on the host, without the padding."""
        x = np.asarray(x)
        return x[: self.num_runs].reshape(*self.shape, *x.shape[1:])


def lay_out(algorithm: Algorithm, seeds: list[int], grid: dict[str, list[float]]) -> Runs:
    """Keys and hparams of every run. Seed s has ``jax.random.key(s)``, whatever else is swept."""
    shape = (*map(len, grid.values()), len(seeds))
    count = int(np.prod(shape))
    devices = tuple(jax.local_devices()[: min(count, jax.local_device_count())])
    # Padding repeats the last run.
    index = np.minimum(np.arange(-(-count // len(devices)) * len(devices)), count - 1)
    cells = np.array(list(itertools.product(*grid.values(), range(len(seeds)))), dtype=np.float64)[index]
    keys = jax.vmap(jax.random.key)(jnp.asarray(np.array(seeds)[cells[:, -1].astype(int)]))
    swept = {name: jnp.asarray(cells[:, i], jnp.float32) for i, name in enumerate(grid)}
    hparams = f32(algorithm.hparams).replace(**swept)
    names = [f.name for f in dataclasses.fields(hparams)]
    axes = type(hparams)(**{name: 0 if name in swept else None for name in names})
    return Runs(shape, keys, hparams, axes, devices)


def sweep(
    arms: Algorithm | Mapping[str, Algorithm],
    *,
    total_steps: int,
    num_seeds: int | None = None,
    seeds: Sequence[int] | None = None,
    grid: Mapping[str, Sequence[float]] | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    checkpoint_seconds: float = 60.0,
    eval_every: int = 0,
    eval_episodes: int = 32,
    keep_states: bool = False,
) -> xr.Dataset:
    """Train every arm with every combination of ``grid`` and every seed.

    Args:
        arms: an algorithm, or several by name; their configs may differ.
        total_steps: environment steps of each run; rounded up to whole updates.
        num_seeds: seeds 0 … n − 1; or ``seeds``: which ones. Default: one, seed 0.
        grid: values by the name of a traced setting, all combinations; every arm must have the setting.
        out: a directory, which must not hold a run; results are written there while they come, and the trained states.
        progress: a bar; on something other than a terminal one line a minute.
        checkpoint_seconds: the states are saved to ``out`` this often, and at an arm's end.
        eval_every: evaluate every so many updates, and at the end (``eval_return``), all runs on the same initial
            states; 0: never.
        eval_episodes: greedy episodes of an evaluation.
        keep_states: keep the trained states for :func:`load_state` where there is no ``out``.

    Returns:
        dataset with dimensions ``arm``, one per swept setting, ``seed`` and ``update``, and coordinate ``env_step``.
        ``diverged_at`` is the first update at which a run's loss was not finite (NaN: never); no other run is touched.

    Raises:
        ValueError: a setting that is unknown or not allowed.
        FileExistsError: ``out`` holds a run.
    """
    named = {arms.name: arms} if isinstance(arms, Algorithm) else dict(arms)
    check(len(named) > 0, "arms", arms, "at least one algorithm")
    for name, algorithm in named.items():
        check(isinstance(algorithm, Algorithm), f"arms[{name!r}]", algorithm, "an algorithm from prx.make")
    check(total_steps > 0, "total_steps", total_steps, "greater than 0")
    check(eval_every >= 0, "eval_every", eval_every, "0 or greater")
    check(eval_episodes > 0, "eval_episodes", eval_episodes, "greater than 0")
    check(checkpoint_seconds > 0, "checkpoint_seconds", checkpoint_seconds, "greater than 0")
    seeds = _seeds(num_seeds, seeds)
    values = _grid(named, grid or {})

    updates = {name: algorithm.num_updates(total_steps) for name, algorithm in named.items()}
    dataset = results.blank(list(named), values, seeds, _env_steps(named, updates))
    path = None if out is None else Path(out)
    metrics = _metric_names(named, bool(eval_every))
    if path is not None:
        _create(path, dataset, metrics, named, seeds, values, total_steps, eval_every, eval_episodes)

    shape = tuple(dataset.sizes[d] for d in results.dims(values))
    data = {name: np.full(shape, np.nan, np.float32) for name in metrics}
    diverged = np.full(shape[:-1], np.nan, np.float32)
    states: dict[str, State] = {}
    timing = {}
    totals = {n: updates[n] * a.steps_per_update for n, a in named.items()}
    # A device each has a core: LAPACK's own threads under it would fight for them (measured: the SVDs ten times slower).
    with threadpool_limits(1, user_api="blas"), Progress(progress, totals) as bar:
        for i, (name, algorithm) in enumerate(named.items()):
            runs = lay_out(algorithm, seeds, values)
            arm = _Arm(
                name,
                i,
                algorithm,
                runs,
                {**values, "seed": seeds},
                updates[name],
                {m: x[i] for m, x in data.items()},
                diverged[i],
            )
            state, timing[name] = _run_arm(arm, bar, path, checkpoint_seconds, eval_every, eval_episodes)
            if keep_states:
                states[name] = state
    if path is not None:
        (path / "timing.json").write_text(json.dumps(timing, indent=1))

    names = results.dims(values)
    dataset = dataset.assign({m: (names, x) for m, x in data.items()} | {"diverged_at": (names[:-1], diverged)})
    dataset = dataset.assign_attrs(total_steps=total_steps)
    if path is not None:
        return dataset.assign_attrs(path=str(path))
    return dataset.assign_attrs(states=checkpoints.States(states, named)) if keep_states else dataset


def load_state(
    source: str | Path | xr.Dataset,
    arm: str | None = None,
    seed: int = 0,
    algorithm: Algorithm | None = None,
    **cell: float,
) -> State:
    """The trained state of one run.

    Args:
        source: a run's directory, or the dataset of a sweep with ``keep_states=True``.
        arm: its name; may be left out where there is one.
        seed: the seed.
        algorithm: what the arm ran, where it has an environment or a network of your own.
        **cell: the value of each swept setting.

    Raises:
        ValueError: an arm, seed or cell that the sweep does not have, or no state saved yet.
    """
    return checkpoints.load_state(source, arm, seed, algorithm, cell)


@dataclasses.dataclass
class _Arm:
    """An arm on its way: what to run, and host arrays ``[*grid, seed(, update)]`` to fill."""

    name: str
    index: int
    algorithm: Algorithm
    runs: Runs
    coords: dict[str, list]
    num_updates: int
    data: dict[str, np.ndarray]
    diverged: np.ndarray


def _run_arm(
    arm: _Arm, bar: Progress, path: Path | None, checkpoint_seconds: float, eval_every: int, eval_episodes: int
) -> tuple[State, dict[str, float]]:
    """Run an arm to its end: its state, and how long that took. What is done is on disk, also if it is interrupted."""
    algorithm, runs = arm.algorithm, arm.runs
    compiled = program(algorithm.functions, runs.axes, runs.devices, _together(algorithm))
    began = saved_at = time.perf_counter()
    state = compiled.init(runs.keys, runs.hparams)
    last = np.int32(arm.num_updates - 1)
    done, saved, length, until_first = 0, 0, 1, 0.0
    try:
        while done < arm.num_updates:
            until_eval = eval_every - done % eval_every if eval_every else CAPACITY
            length = min(length, CAPACITY, arm.num_updates - done, until_eval)
            start = time.perf_counter()
            after, logged = compiled.chunk(state, runs.hparams, np.int32(length), last)
            logged = {name: runs.unflatten(x)[..., :length] for name, x in jax.device_get(logged).items()}
            seconds = time.perf_counter() - start
            until_first = until_first or time.perf_counter() - began
            for name, x in logged.items():
                arm.data[name][..., done : done + length] = x
            state, done = after, done + length
            _note_divergence(arm, logged["loss"], done - length, bar)
            if eval_every and (done % eval_every == 0 or done == arm.num_updates):
                arm.data["eval_return"][..., done - 1] = _evaluate_runs(algorithm, runs, state, eval_episodes)
            steps = length * algorithm.steps_per_update
            bar.advance(arm.name, done * algorithm.steps_per_update, steps * runs.num_runs, logged["episode_return"])
            # The first chunk includes compiling, so it says little of the next.
            fitting = int(np.clip(CHUNK_SECONDS * length / max(seconds, 1e-6), 1, CAPACITY))
            length = fitting if done > length else min(fitting, 16)
            if time.perf_counter() - saved_at > checkpoint_seconds:
                _save(arm, path, saved, done, state)
                saved, saved_at = done, time.perf_counter()
    finally:
        # Also on Ctrl-C. The state given to a chunk that was interrupted is gone (donated): then only the results are kept.
        _save(arm, path, saved, done, None if jax.tree.leaves(state.params)[0].is_deleted() else state)
    return state, {"seconds": time.perf_counter() - began, "until_first_chunk_seconds": until_first}


def _save(arm: _Arm, path: Path | None, start: int, stop: int, state: State | None) -> None:
    """Write the results of updates ``start`` to ``stop``, and the state after them if there is one."""
    if path is None or stop == start:
        return
    results.write_blocks(path, arm.index, arm.data, start, stop)
    results.write_diverged(path, arm.index, arm.diverged)
    if state is not None:
        checkpoints.save(path, arm.name, stop, state, arm.runs.num_runs)


def _note_divergence(arm: _Arm, loss: np.ndarray, done: int, bar: Progress) -> None:
    """Mark runs whose loss was not finite, each once, by its grid cell and seed."""
    bad = ~np.isfinite(loss)
    fresh = bad.any(-1) & np.isnan(arm.diverged)
    arm.diverged[fresh] = done + bad.argmax(-1)[fresh]
    for where in np.argwhere(fresh):
        cell = ", ".join(f"{name}={values[i]:g}" for (name, values), i in zip(arm.coords.items(), where, strict=True))
        update = int(arm.diverged[tuple(where)])
        bar.warn(
            f"arm {arm.name!r}, {cell}: the loss is not finite from update {update} on; other runs go on untouched"
        )


def _evaluate_runs(algorithm: Algorithm, runs: Runs, state: State, num_episodes: int) -> np.ndarray:
    """Mean greedy return of each run, on the same initial states for all."""
    # A key that no seed's own stream can meet: those start from key(s), s ≥ 0.
    key = jax.random.fold_in(jax.random.key(0), 2**32 - 1)

    def one(state: State, hparams: PyTree) -> Array:
        return evaluate(algorithm, state, key, num_episodes, hparams=hparams).mean()

    return runs.unflatten(jax.vmap(one, in_axes=(State.axes(), runs.axes))(state, runs.hparams))


def _together(algorithm: Algorithm) -> int:
    """Runs that a CPU core vmaps at once: as many as its caches hold. Accelerators take all.

    Measured on 2 cores: MinAtar runs, whose minibatches are large, are 10 to 20% faster one by one; 64 DQN runs on CartPole
    do 236k steps/s in groups of 8 and 199k all at once.
    """
    if jax.default_backend() != "cpu":
        return 0
    return 1 if int(np.prod(algorithm.env.observation_shape)) >= 100 else 8


def _largest_divisor(number: int, most: int) -> int:
    return next(d for d in range(min(most, number), 0, -1) if number % d == 0)


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
        for value in values:
            check_hparam(name, value)
    return {name: [float(v) for v in values] for name, values in grid.items()}


def _env_steps(arms: dict[str, Algorithm], updates: dict[str, int]) -> np.ndarray:
    env_steps = np.full((len(arms), max(updates.values())), np.nan)
    for i, (name, algorithm) in enumerate(arms.items()):
        env_steps[i, : updates[name]] = (np.arange(updates[name]) + 1.0) * algorithm.steps_per_update
    return env_steps


def _metric_names(arms: dict[str, Algorithm], with_eval: bool) -> list[str]:
    names: dict[str, None] = {}
    for algorithm in arms.values():
        state = jax.eval_shape(algorithm.init, abstract_key())
        names |= dict.fromkeys(jax.eval_shape(algorithm.step, state)[1])
    return [*names, *(["eval_return"] if with_eval else [])]


def _create(
    path: Path,
    dataset: xr.Dataset,
    metrics: list[str],
    arms: dict[str, Algorithm],
    seeds: list[int],
    grid: dict[str, list[float]],
    total_steps: int,
    eval_every: int,
    eval_episodes: int,
) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"out={str(path)!r} holds a run or other files already; choose another directory")
    path.mkdir(parents=True, exist_ok=True)
    config = results.provenance() | {
        "total_steps": total_steps,
        "seeds": seeds,
        "grid": grid,
        "eval_every": eval_every,
        "eval_episodes": eval_episodes,
        "arms": {
            name: {
                "settings": {k: checkpoints.plain(v) for k, v in a.settings.items()},
                "steps_per_update": a.steps_per_update,
                "num_updates": a.num_updates(total_steps),
            }
            for name, a in arms.items()
        },
    }
    results.allocate(path, dataset, metrics, grid)
    # Last: a directory with a config is a run.
    (path / "config.json").write_text(json.dumps(config, indent=1))
