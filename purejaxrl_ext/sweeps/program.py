"""An algorithm compiled for many runs side by side, and the memory that takes.

The runs' axis is sharded over this process's devices by a mesh and ``shard_map``; on a CPU its cores are the devices. Where
each run is itself spread over devices (:mod:`~purejaxrl_ext.loops.shards`), between updates all of them hold all runs.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from purejaxrl_ext.loops import f32
from purejaxrl_ext.loops.shards import AXIS
from purejaxrl_ext.loops.train import is_measured
from purejaxrl_ext.types import Algorithm, Array, Metrics, PyTree, State, abstract_key

CAPACITY = 256  # updates that a chunk's metric buffer holds
NEVER = -1  # the update at which a run diverged that did not


class Program(NamedTuple):
    """Compiled functions of R runs.

    Both are compiled ahead of time: what they take must be sharded as their ``input_shardings`` say.

    Attributes:
        init: ``(keys [R], hparams) -> State``.
        chunk: ``(state, diverged_at [R], hparams, num_updates, last) -> (State, diverged_at, metrics [R, CAPACITY])``;
            ``last`` is the run's last update. State and ``diverged_at`` are donated.
        state: shapes of its State.
        memory: bytes that it needs at most, on all devices together.
    """

    init: Any
    chunk: Any
    state: State
    memory: int


@functools.lru_cache(maxsize=256)
def program(loop: Any, axes: Any, devices: tuple, together: int, num_runs: int) -> Program:
    """Compile for ``num_runs`` runs sharded over ``devices``.

    Args:
        loop: of the algorithm; equal settings give the same object.
        axes: hparams with 0 where a value differs between runs, else None.
        devices: ``num_runs`` must be a multiple of their number, unless they share each run.
        together: a device vmaps at most so many of its runs, one such group after another; 0: all.
        num_runs: R.
    """
    shared = loop.data_parallel > 1
    mesh = Mesh(np.array(devices), (AXIS if shared else "run",))
    runs_spec = P() if shared else P("run")
    state_specs = State.axes(runs_spec, P())
    hparam_specs = jax.tree.map(lambda a: runs_spec if a == 0 else P(), axes, is_leaf=lambda a: a is None)

    def everywhere(function: Any, in_specs: Any, out_specs: Any) -> Any:
        if shared:
            return function
        return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    def sharding(specs: Any) -> Any:
        return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda s: isinstance(s, P))

    def one(
        state: State, diverged_at: Array, hparams: PyTree, num_updates: Array, last: Array
    ) -> tuple[State, Array, Metrics]:
        def measure(state: State) -> Array:
            return is_measured(state.update, last, loop.metrics_every)

        logged = jax.eval_shape(lambda s: loop.step(s, hparams, measure(s))[1], state)
        buffers = jax.tree.map(lambda x: jnp.full((CAPACITY, *x.shape), jnp.nan, x.dtype), logged)

        def update(i: Array, carry: tuple[State, Array, Metrics]) -> tuple[State, Array, Metrics]:
            state, diverged_at, buffers = carry
            after, logged = loop.step(state, hparams, measure(state))
            after, diverged_at, logged = isolate(state, after, diverged_at, logged)
            return after, diverged_at, jax.tree.map(lambda b, x: b.at[i].set(x), buffers, logged)

        return jax.lax.fori_loop(0, num_updates, update, (state, diverged_at, buffers))

    def shard(state: State, diverged_at: Array, hparams: PyTree, num_updates: Array, last: Array) -> tuple:
        vmapped = jax.vmap(one, in_axes=(State.axes(), 0, axes, None, None), out_axes=(State.axes(), 0, 0))
        count = diverged_at.shape[0]
        width = _largest_divisor(count, together or count)
        if width == count:
            return vmapped(state, diverged_at, hparams, num_updates, last)
        # Groups one after another, the runs of each side by side; alone, a run needs no vmap.
        swept = {f.name: getattr(hparams, f.name) for f in dataclasses.fields(axes) if getattr(axes, f.name) == 0}
        shape = (count // width, width) if width > 1 else (count,)
        groups = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), (state.replace(update=()), diverged_at, swept))

        def run(group: tuple[State, Array, dict]) -> tuple[State, Array, Metrics]:
            function = vmapped if width > 1 else one
            state_of, diverged_of, swept_of = group
            whole = state_of.replace(update=state.update)
            return function(whole, diverged_of, hparams.replace(**swept_of), num_updates, last)

        after, diverged_at, logged = jax.lax.map(run, groups)
        update = after.update[0]
        if width > 1:
            after, diverged_at, logged = jax.tree.map(
                lambda x: x.reshape(count, *x.shape[2:]), (after.replace(update=()), diverged_at, logged)
            )
        return after.replace(update=update), diverged_at, logged

    def start(keys: Array, hparams: PyTree) -> State:
        return jax.vmap(loop.init, in_axes=(0, axes), out_axes=State.axes())(keys, hparams)

    in_specs: tuple = (runs_spec, hparam_specs)
    init = jax.jit(
        everywhere(start, in_specs=in_specs, out_specs=state_specs),
        in_shardings=sharding(in_specs),
        out_shardings=sharding(state_specs),
    )
    in_specs, out_specs = (state_specs, runs_spec, hparam_specs, P(), P()), (state_specs, runs_spec, runs_spec)
    chunk = jax.jit(
        everywhere(shard, in_specs=in_specs, out_specs=out_specs),
        in_shardings=sharding(in_specs),
        out_shardings=sharding(out_specs),
        donate_argnums=(0, 1),
    )
    keys = jax.ShapeDtypeStruct((num_runs,), abstract_key().dtype)
    hparams = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((num_runs,) if a == 0 else (), jnp.float32), axes, is_leaf=lambda a: a is None
    )
    scalar, runs = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((num_runs,), jnp.int32)
    state = init.eval_shape(keys, hparams)
    compiled_init = init.lower(keys, hparams).compile()
    compiled_chunk = chunk.lower(state, runs, hparams, scalar, scalar).compile()
    memory = max(_peak(c) for c in (compiled_init, compiled_chunk)) * len(devices)
    return Program(compiled_init, compiled_chunk, state, memory)


def isolate(before: State, after: State, diverged_at: Array, logged: Metrics) -> tuple[State, Array, Metrics]:
    """Keep a run's last finite values from the update on at which its loss or parameters are not finite.

    What it learned (weights, optimiser, statistics, what interventions keep) stays as it was before that update; its later metrics
    are NaN. No other run is touched, and one that stays finite gets its own values back.

    Args:
        before, after: one run's State around an update.
        diverged_at: int32, the update at which it diverged, NEVER if it did not.
        logged: the update's metrics.
    """
    finite = jnp.isfinite(logged["loss"])
    for leaf in jax.tree.leaves(after.params):
        finite = finite & jnp.isfinite(leaf).all()
    was_fine = diverged_at == NEVER
    diverged_at = jnp.where(was_fine & ~finite, before.update, diverged_at)
    is_fine = diverged_at == NEVER

    def keep(new: PyTree, old: PyTree) -> PyTree:
        return jax.tree.map(lambda x, y: jnp.where(is_fine, x, y), new, old)

    learned = ("params", "opt_state", "target_params", "normalizer", "memory")
    after = after.replace(**{name: keep(getattr(after, name), getattr(before, name)) for name in learned})
    return after, diverged_at, jax.tree.map(lambda x: jnp.where(was_fine, x, jnp.nan), logged)


class Runs(NamedTuple):
    """The runs of one wave, flattened: R = grid cells × seeds, seeds fastest, padded to whole devices if those split them.

    Attributes:
        shape: (*grid, seed).
        keys: ``[R]``.
        hparams: scalars, or ``[R]`` where swept.
        axes: 0 where swept, else None.
        devices: that split the runs, or share each.
    """

    shape: tuple[int, ...]
    keys: Array
    hparams: PyTree
    axes: PyTree
    devices: tuple

    @property
    def num_runs(self) -> int:
        """Without the padding."""
        return int(np.prod(self.shape))

    def unflatten(self, x: Any) -> np.ndarray:
        """``[R, ...]`` to ``[*grid, seed, ...]`` on the host, without the padding."""
        x = np.asarray(x)
        return x[: self.num_runs].reshape(*self.shape, *x.shape[1:])

    def pad(self, x: np.ndarray) -> np.ndarray:
        """``[runs, ...]`` to ``[R, ...]``: the padding repeats the last run."""
        return x[np.minimum(np.arange(len(self.keys)), self.num_runs - 1)]


def lay_out(algorithm: Algorithm, seeds: list[int], grid: dict[str, list[float]]) -> Runs:
    """Keys and hparams of every run. Seed s has ``jax.random.key(s)``, whatever else is swept."""
    shape = (*map(len, grid.values()), len(seeds))
    count = int(np.prod(shape))
    shared = algorithm.loop.data_parallel
    devices = tuple(jax.local_devices()[: shared if shared > 1 else count])
    rows = count if shared > 1 else -(-count // len(devices)) * len(devices)
    index = np.minimum(np.arange(rows), count - 1)
    cells = np.array(list(itertools.product(*grid.values(), range(len(seeds)))), dtype=np.float64)[index]
    keys = jax.vmap(jax.random.key)(jnp.asarray(np.array(seeds)[cells[:, -1].astype(int)]))
    swept = {name: jnp.asarray(cells[:, i], jnp.float32) for i, name in enumerate(grid)}
    hparams = f32(algorithm.hparams).replace(**swept)
    names = [f.name for f in dataclasses.fields(hparams)]
    axes = type(hparams)(**{name: 0 if name in swept else None for name in names})
    return Runs(shape, keys, hparams, axes, devices)


def compiled(algorithm: Algorithm, runs: Runs) -> Program:
    """The program of a wave, compiled once for equal settings and equal numbers of runs."""
    return program(algorithm.loop, runs.axes, runs.devices, together(algorithm), len(runs.keys))


def together(algorithm: Algorithm) -> int:
    """Runs that a CPU core vmaps at once: as many as its caches hold. Accelerators take all.

    Measured on 2 cores: MinAtar runs, whose minibatches are large, are 10 to 20% faster one by one; 64 DQN runs on CartPole
    do 236k steps/s in groups of 8 and 199k all at once.
    """
    if jax.default_backend() != "cpu":
        return 0
    return 1 if int(np.prod(algorithm.env.observation_shape)) >= 100 else 8


def available_memory() -> float:
    """Bytes that this process may still use, of its devices or of the machine whose cores they are; infinite if unknown."""
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        return min(psutil.virtual_memory().available, _cgroup_memory())
    stats = [device.memory_stats() or {} for device in devices]
    return sum(s.get("bytes_limit", math.inf) - s.get("bytes_in_use", 0) for s in stats)


def _cgroup_memory(root: Path = Path("/")) -> float:
    """What a container or a cluster's job has left of its own limit, which the machine's figures do not show."""
    left = math.inf
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return left
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            top, names, cached = root / "sys/fs/cgroup", ("memory.max", "memory.current"), "inactive_file"
        elif "memory" in controllers.split(","):  # version 1
            top, names = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
            cached = "total_inactive_file"
        else:
            continue
        # The limits of all groups around it hold too. From inside a container its own group may be the top.
        folder = top / group.lstrip("/")
        for at in (folder, *folder.parents[: len(folder.relative_to(top).parts)]):
            try:
                limit, used = ((at / name).read_text().strip() for name in names)
                stat = dict(row.split() for row in (at / "memory.stat").read_text().splitlines())
            except OSError:
                continue
            if limit != "max":
                # The system gives back what it merely keeps of files that were read or written.
                left = min(left, int(limit) - int(used) + int(stat.get(cached, 0)))
    return left


def _peak(executable: Any) -> int:
    """Bytes on one device: arguments, results and temporaries, what is donated counted once."""
    sizes = executable.memory_analysis()
    if sizes is None:
        return 0
    return (
        sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes - sizes.alias_size_in_bytes
    )


def _largest_divisor(number: int, most: int) -> int:
    return next(d for d in range(min(most, number), 0, -1) if number % d == 0)
