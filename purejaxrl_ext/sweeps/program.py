"""An algorithm compiled for many runs side by side.

The runs' axis is sharded over this process's devices by a mesh and ``shard_map``; on a CPU its cores are the devices. Where
each run is itself spread over devices (:mod:`~purejaxrl_ext.loops.shards`), between updates all of them hold all runs.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from purejaxrl_ext.loops import f32
from purejaxrl_ext.loops.shards import AXIS
from purejaxrl_ext.loops.train import is_measured
from purejaxrl_ext.types import Algorithm, Array, Metrics, PyTree, State, abstract_key

CAPACITY = 256  # updates that a chunk's metric buffer holds
NEVER = -1  # the update at which a run diverged that did not


class Logged(struct.PyTreeNode):
    """Metrics side by side: a loop writes all of an update's at once, and XLA compiles one write instead of dozens.

    Attributes:
        rows: ``[..., M]`` float32.
        names: of the M.
    """

    rows: Array
    names: tuple[str, ...] = struct.field(pytree_node=False)

    @classmethod
    def of(cls, logged: Metrics, names: tuple[str, ...]) -> Logged:
        """An update's scalars."""
        return cls(jnp.stack([jnp.asarray(logged[name], jnp.float32) for name in names]), names)


class Program(NamedTuple):
    """Compiled functions of R runs.

    Both are compiled ahead of time: what they take must be sharded as their ``input_shardings`` say.

    Attributes:
        init: ``(keys [R], hparams) -> State``.
        chunk: ``(state, diverged_at [R], hparams, num_updates, last) -> (State, diverged_at, Logged [R, CAPACITY, M])``;
            ``last`` is the run's last update. State and ``diverged_at`` are donated.
        state: shapes of its State.
        memory: bytes that it needs at most, on all devices together.
    """

    init: Any
    chunk: Any
    state: State
    memory: int


@dataclasses.dataclass(frozen=True)
class SideBySide:
    """R runs of a loop on some devices: the functions that :func:`program` compiles.

    Attributes:
        loop: of the algorithm; equal settings give the same object.
        axes: hparams with 0 where a value differs between runs, else None.
        names: of what a step logs.
        devices: they split the runs, or share each.
        together: a device vmaps at most so many of its runs, one such group after another; 0: all.
    """

    loop: Any
    axes: Any
    names: tuple[str, ...]
    devices: tuple
    together: int = 0

    @property
    def shared(self) -> bool:
        """Whether each run is spread over all devices."""
        return self.loop.data_parallel > 1

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        return Mesh(np.array(self.devices), (AXIS if self.shared else "run",))

    @property
    def runs_spec(self) -> P:
        """How an array ``[R, ...]`` lies on the devices."""
        return P() if self.shared else P("run")

    @property
    def state_specs(self) -> State:
        """How a State is divided: all but the update count as the runs are."""
        return State.axes(self.runs_spec, P())

    @property
    def hparam_specs(self) -> PyTree:
        """How hparams are divided: what is swept as the runs are."""
        return _per_field(self.axes, self.runs_spec, P())

    def jit(self, function: Any, in_specs: Any, out_specs: Any, donate: tuple[int, ...] = ()) -> Any:
        """A function of each device's runs as one of all runs."""

        def sharding(specs: Any) -> Any:
            return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), specs, is_leaf=lambda s: isinstance(s, P))

        if not self.shared:
            function = jax.shard_map(function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
        return jax.jit(
            function, in_shardings=sharding(in_specs), out_shardings=sharding(out_specs), donate_argnums=donate
        )

    def init(self, keys: Array, hparams: PyTree) -> State:
        """First states of a device's runs."""
        return jax.vmap(self.loop.init, in_axes=(0, self.axes), out_axes=State.axes())(keys, hparams)

    def chunk(self, state: State, diverged_at: Array, hparams: PyTree, num_updates: Array, last: Array) -> tuple:
        """``num_updates`` updates of a device's runs, all at once or group by group."""
        count = diverged_at.shape[0]
        width = _largest_divisor(count, self.together or count)
        if width == count:
            return self._vmapped(state, diverged_at, hparams, num_updates, last)
        return self._groups(width, state, diverged_at, hparams, num_updates, last)

    def one(
        self, state: State, diverged_at: Array, hparams: PyTree, num_updates: Array, last: Array
    ) -> tuple[State, Array, Logged]:
        """``num_updates`` updates of one run; its metrics lie in the first so many rows of ``[CAPACITY, M]``."""

        def measure(state: State) -> Array:
            return is_measured(state.update, last, self.loop.metrics_every)

        def update(i: Array, carry: tuple[State, Array, Logged]) -> tuple[State, Array, Logged]:
            state, diverged_at, buffer = carry
            after, logged = self.loop.step(state, hparams, measure(state))
            after, diverged_at, row = isolate(state, after, diverged_at, logged["loss"], Logged.of(logged, self.names))
            return after, diverged_at, buffer.replace(rows=buffer.rows.at[i].set(row.rows))

        buffer = Logged(jnp.full((CAPACITY, len(self.names)), jnp.nan, jnp.float32), self.names)
        return jax.lax.fori_loop(0, num_updates, update, (state, diverged_at, buffer))

    def _vmapped(self, *arguments: Any) -> tuple[State, Array, Logged]:
        in_axes, out_axes = (State.axes(), 0, self.axes, None, None), (State.axes(), 0, 0)
        return jax.vmap(self.one, in_axes=in_axes, out_axes=out_axes)(*arguments)

    def _groups(
        self, width: int, state: State, diverged_at: Array, hparams: PyTree, num_updates: Array, last: Array
    ) -> tuple[State, Array, Logged]:
        """Groups one after another, the ``width`` runs of each side by side; alone, a run needs no vmap."""
        count, axes = diverged_at.shape[0], self.axes
        swept = {f.name: getattr(hparams, f.name) for f in dataclasses.fields(axes) if getattr(axes, f.name) == 0}
        shape = (count // width, width) if width > 1 else (count,)
        groups = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), (state.replace(update=()), diverged_at, swept))

        def run(group: tuple[State, Array, dict]) -> tuple[State, Array, Logged]:
            function = self._vmapped if width > 1 else self.one
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


@functools.lru_cache(maxsize=256)
def program(loop: Any, axes: Any, names: tuple[str, ...], devices: tuple, together: int, num_runs: int) -> Program:
    """Compile for ``num_runs`` runs; arguments as of :class:`SideBySide`.

    ``num_runs`` must be a multiple of the devices' number, unless they share each run.
    """
    runs = SideBySide(loop, axes, names, devices, together)
    spec, state_specs, hparam_specs = runs.runs_spec, runs.state_specs, runs.hparam_specs
    init = runs.jit(runs.init, (spec, hparam_specs), state_specs)
    in_specs: tuple = (state_specs, spec, hparam_specs, P(), P())
    chunk = runs.jit(runs.chunk, in_specs, (state_specs, spec, spec), donate=(0, 1))
    keys = jax.ShapeDtypeStruct((num_runs,), abstract_key().dtype)
    float32, int32 = jnp.float32, jnp.int32
    hparams = _per_field(axes, jax.ShapeDtypeStruct((num_runs,), float32), jax.ShapeDtypeStruct((), float32))
    scalar, per_run = jax.ShapeDtypeStruct((), int32), jax.ShapeDtypeStruct((num_runs,), int32)
    state = init.eval_shape(keys, hparams)
    with ThreadPoolExecutor(1) as pool:
        # XLA compiles the one while Python traces the other.
        compiling = pool.submit(init.lower(keys, hparams).compile)
        compiled_chunk = chunk.lower(state, per_run, hparams, scalar, scalar).compile()
        compiled_init = compiling.result()
    memory = max(_peak(c) for c in (compiled_init, compiled_chunk)) * len(devices)
    return Program(compiled_init, compiled_chunk, state, memory)


def _per_field(axes: Any, batched: Any, shared: Any) -> Any:
    """A tree like ``axes``: ``batched`` where it is 0, ``shared`` where it is None."""
    return jax.tree.map(lambda a: batched if a == 0 else shared, axes, is_leaf=lambda a: a is None)


def isolate(
    before: State, after: State, diverged_at: Array, loss: Array, logged: Logged
) -> tuple[State, Array, Logged]:
    """Keep a run's last finite values from the update on at which its loss or parameters are not finite.

    What it learned (weights, optimiser, statistics, what interventions keep) stays as it was before that update; its later metrics
    are NaN. No other run is touched, and one that stays finite gets its own values back.

    Args:
        before, after: one run's State around an update.
        diverged_at: int32, the update at which it diverged, NEVER if it did not.
        loss: the update's.
        logged: the update's metrics.
    """
    # One test of all numbers: each is a program's kernel to compile and to run.
    finite = jnp.isfinite(jnp.concatenate([loss[None], *(x.ravel() for x in jax.tree.leaves(after.params))])).all()
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
    names = tuple(outline(algorithm)[2])
    return program(algorithm.loop, runs.axes, names, runs.devices, together(algorithm), len(runs.keys))


def side_by_side(algorithm: Algorithm, runs: Runs) -> SideBySide:
    """The functions of a wave's runs."""
    names = tuple(outline(algorithm)[2])
    return SideBySide(algorithm.loop, runs.axes, names, runs.devices, together(algorithm))


@functools.lru_cache(maxsize=1024)
def outline(algorithm: Algorithm) -> tuple[State, State, Metrics]:
    """Shapes of one run's State before and after a step, and of what the step logs. Kept, since it takes tracing a step, and every
    wave asks."""
    before = jax.eval_shape(algorithm.init, abstract_key())
    return before, *jax.eval_shape(algorithm.step, before)


def together(algorithm: Algorithm) -> int:
    """Runs that a CPU core vmaps at once: as many as its caches hold. Accelerators take all.

    Measured on 2 cores: MinAtar runs, whose minibatches are large, are 10 to 20% faster one by one; 64 DQN runs on CartPole
    do 236k steps/s in groups of 8 and 199k all at once.
    """
    if jax.default_backend() != "cpu":
        return 0
    return 1 if int(np.prod(algorithm.env.observation_shape)) >= 100 else 8


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
