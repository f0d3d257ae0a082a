"""Saved states: orbax checkpoints of a wave's runs, and how to get one run's state out of them."""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import warnings
import zipfile
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import xarray as xr

from purejaxrl_ext.algorithms.make import make
from purejaxrl_ext.errors import check
from purejaxrl_ext.sweeps import results
from purejaxrl_ext.types import Algorithm, PyTree, State, abstract_key


class States(NamedTuple):
    """States in memory, R = grid cells × seeds, seeds fastest.

    Attributes:
        states: trained ones by arm (a tuple, where arms have several dimensions), ``[R, ...]``.
        arms: what each ran.
        coords: values of each swept setting, then the seeds.
        along: those kept on the way, by arm and update; on the host, their keys as data.
    """

    states: dict[Any, State]
    arms: dict[Any, Algorithm]
    coords: dict[str, list]
    along: dict[Any, dict[int, State]]

    def __repr__(self) -> str:
        return f"<trained states of {', '.join(map(str, self.states))}>"


class Snapshot(NamedTuple):
    """The runs of a wave after an update, on the host; what pads them to whole devices is left out.

    Attributes:
        state: ``[R, ...]``, its key as data.
        diverged_at: ``[R]`` int32.
    """

    state: State
    diverged_at: np.ndarray


class MismatchError(ValueError):
    """A checkpoint that is whole, but of another algorithm's State."""


class ArraysHandler(ocp.AsyncCheckpointHandler):
    """A pytree of host arrays as one ``arrays.npz``, each with a checksum.

    Orbax's own handlers let process 0 alone write host arrays, and here every process writes its own runs'.
    """

    FILE = "arrays.npz"

    async def async_save(self, directory: Any, args: Arrays) -> list[Any]:
        async def write() -> None:
            leaves = jax.tree_util.tree_leaves_with_path(args.item)
            np.savez(str(directory / self.FILE), **{jax.tree_util.keystr(path): leaf for path, leaf in leaves})

        return [ocp.future.CommitFutureAwaitingContractedSignals(write())]

    def save(self, directory: Any, args: Arrays) -> None:
        raise NotImplementedError("the manager saves in the background")

    def restore(self, directory: Any, args: Arrays) -> PyTree:
        """The arrays, shaped and named as in ``args.item``."""
        with open(str(directory / self.FILE), "rb") as opened, np.load(opened) as file:

            def read(path: Any, like: np.ndarray) -> np.ndarray:
                name = jax.tree_util.keystr(path)
                array = file.get(name)
                if array is None or (array.shape, array.dtype) != (like.shape, like.dtype):
                    damaged = file.zip.testzip()
                    if damaged is not None:
                        raise zipfile.BadZipFile(f"{damaged} is not what was written")
                    held = "nothing" if array is None else f"{array.dtype}{list(array.shape)}"
                    raise MismatchError(
                        f"{directory} holds {held} as {name}, and not {like.dtype}{list(like.shape)}: it was written with "
                        "other settings or by another version of purejaxrl_ext; it was left as it is"
                    )
                return array

            return jax.tree_util.tree_map_with_path(read, args.item)


@ocp.args.register_with_handler(ArraysHandler, for_save=True, for_restore=True)
@dataclass
class Arrays(ocp.args.CheckpointArgs):
    """What :class:`ArraysHandler` saves, or what it restores looks like."""

    item: PyTree


class Checkpoints:
    """The checkpoints of one wave of one arm: written in the background, atomically; the last ``keep`` stay.

    Those of updates that ``keep_every`` divides stay too (0: none).

    Each process keeps its own waves' and waits for no other.
    """

    def __init__(self, path: Path, arm: str, wave: str, keep: int = 2, keep_every: int = 0):
        where = folder(path, arm, wave).absolute()
        where.mkdir(parents=True, exist_ok=True)
        alone = ocp.options.MultiprocessingOptions()
        if jax.process_count() > 1:
            index = jax.process_index()
            alone = ocp.options.MultiprocessingOptions(index, {index}, f"process{index}")
        # Directories made in the background are waited for under names that all processes share: one that has its own removes
        # what another still waits for.
        at_once = ocp.options.AsyncOptions(create_directories_asynchronously=False)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            keep_period=keep_every or None,
            create=False,
            multiprocessing_options=alone,
            async_options=at_once,
        )
        self.where, self.saved = where, False
        self.manager = ocp.CheckpointManager(where, item_handlers=ArraysHandler(), options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.manager.close()
        except Exception:
            # It raises once more what a save in the background did; what was raised first says more.
            if error is None:
                raise

    def save(self, update: int, state: State, diverged_at: Any, num_runs: int) -> None:
        """Save after ``update`` updates. Returns once it has its own copy; ``state`` may then be donated."""
        self.wait()  # Else two copies were held at once.
        state = state.replace(key=jax.random.key_data(state.key))
        rows = jax.tree.map(lambda x: np.array(x)[:num_runs], state.replace(update=()))
        snapshot = Snapshot(rows.replace(update=np.array(state.update)), np.array(diverged_at)[:num_runs])
        self.manager.save(update, args=Arrays(snapshot))
        self.saved = True

    def wait(self) -> None:
        """Until what is being written is on disk; raises what went wrong there."""
        self.manager.wait_until_finished()
        if self.saved:
            for aside in self.where.glob("*.damaged"):
                shutil.rmtree(aside, ignore_errors=True)

    def restore(self, one: State, num_runs: int, repair: bool = False) -> tuple[int, Snapshot] | None:
        """The newest checkpoint that can be read, and its number of updates; a damaged one is passed over, with a warning.

        Args:
            one: shapes of one run's State, its key as data.
            num_runs: R.
            repair: rename what is damaged to ``<update>.damaged``, so that this update can be saved again; once there is a
                newer one it is removed.

        Raises:
            MismatchError: a checkpoint is of another State than ``one``'s.
            OSError: the disk cannot be read.
        """
        target = like(one, num_runs)
        for update in sorted(self.manager.all_steps(), reverse=True):
            try:
                found = self.manager.restore(update, args=Arrays(target))
                if found.state.update != update:
                    raise ValueError(f"it holds update {found.state.update}")
                return update, found
            except Exception as error:
                of_disk = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
                if of_disk or isinstance(error, MismatchError | MemoryError):
                    raise
                reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            file = self.where / str(update)
            again = "" if repair else "; once it is removed, prx.resume makes it again"
            warnings.warn(
                f"the checkpoint {file} is damaged ({reason}): the one before it is used{again}",
                RuntimeWarning,
                stacklevel=2,
            )
            if repair:
                aside = file.with_name(f"{update}.damaged")
                shutil.rmtree(aside, ignore_errors=True)
                file.rename(aside)
                self.manager.reload()
        return None


def like(one: State, num_runs: int) -> Snapshot:
    """What a checkpoint of so many runs looks like; ``one``: shapes of one, its key as data."""
    shapes = jax.tree.map(lambda x: np.empty((num_runs, *x.shape), x.dtype), one.replace(update=()))
    return Snapshot(shapes.replace(update=np.zeros((), np.int32)), np.zeros(num_runs, np.int32))


def folder(path: Path, arm: str, wave: str) -> Path:
    """Where a wave of an arm has its checkpoints."""
    return path / "checkpoints" / arm / wave


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint's file is there and has its end; what is between is checked when it is read."""
    return any(zipfile.is_zipfile(file) for file in checkpoint.rglob(ArraysHandler.FILE))


def one_run(algorithm: Algorithm) -> State:
    """Shapes of one run's State, its key as data; nothing is computed."""

    def init(key: jax.Array) -> State:
        state = algorithm.init(key)
        return state.replace(key=jax.random.key_data(state.key))

    return jax.eval_shape(init, abstract_key())


def load_state(
    source: str | Path | xr.Dataset, arm: Any, seed: int, algorithm: Algorithm | None, cell: dict[str, float]
) -> State:
    """See :func:`purejaxrl_ext.sweeps.sweep.load_state`."""
    if isinstance(source, xr.Dataset) and "states" in source.attrs:
        kept: States = source.attrs["states"]
        arm = pick_arm({name: name if isinstance(name, tuple) else (name,) for name in kept.states}, arm)
        index, shape = run_index(kept.coords, seed, cell)
        return take(kept.states[arm], int(np.ravel_multi_index(index, shape)))
    path = Path(source.attrs.get("path", "") if isinstance(source, xr.Dataset) else source)
    check(path != Path(), "source", "dataset", "one of a sweep with out=... or keep_states=True")
    config = results.read_config(path)
    arm = pick_arm({name: tuple(stored["labels"]) for name, stored in config["arms"].items()}, arm)
    index, shape = run_index({**config["grid"], "seed": config["seeds"]}, seed, cell)
    algorithm = arm_algorithm(path, arm, config["arms"][arm]["settings"], algorithm)
    place = config["slots"].index(seed)
    start, stop, width = next(w for w in config["waves"][arm] if w[0] <= place < w[1])
    # The seed is the last dimension; here its index is that in the wave.
    index, shape = (*index[:-1], place - start), (*shape[:-1], width)
    with Checkpoints(path, arm, f"{start}-{stop}") as saved:
        found = saved.restore(one_run(algorithm), int(np.prod(shape)))
    check(found is not None, "source", str(path), f"a run that has saved a state of arm {arm!r}; it has not yet")
    assert found is not None
    state = found[1].state
    return take(
        state.replace(key=jax.random.wrap_key_data(jnp.asarray(state.key))), int(np.ravel_multi_index(index, shape))
    )


def take(state: State, run: int) -> State:
    """One run of ``[R, ...]``."""
    update = state.update
    picked = jax.tree.map(lambda x: jnp.asarray(x[run]), state.replace(update=()))
    return picked.replace(update=jnp.asarray(update))


def pick_arm(arms: dict[Any, tuple], arm: Any) -> Any:
    """The arm with these labels; None: the only one.

    Args:
        arms: each one's labels.
        arm: its name, or the tuple of its labels.
    """
    if arm is None and len(arms) == 1:
        return next(iter(arms))
    wanted = arm if isinstance(arm, tuple) else (arm,)
    found = [name for name, labels in arms.items() if labels == wanted]
    shown = [labels[0] if len(labels) == 1 else labels for labels in arms.values()]
    check(len(found) == 1, "arm", arm, f"one of {', '.join(map(repr, shown))}")
    return found[0]


def run_index(coords: dict[str, Any], seed: int, cell: dict[str, float]) -> tuple[tuple, tuple]:
    """A run's index along each of ``coords`` (values by dimension: the grid's, then ``seed``), and their sizes."""
    wanted = {"seed": seed} | cell
    check(set(wanted) == set(coords), "cell", sorted(cell), f"a value for each of {[n for n in coords if n != 'seed']}")
    index = []
    for name, values in coords.items():
        same = np.equal if name == "seed" else partial(np.isclose, rtol=1e-6, atol=0.0)
        close = np.flatnonzero(same(values, wanted[name]))
        check(len(close) == 1, name, wanted[name], f"one of {np.asarray(values).tolist()}")
        index.append(int(close[0]))
    return tuple(index), tuple(map(len, coords.values()))


def plain(value: Any) -> Any:
    """A setting as JSON. An object is stored by its import path and its fields; if that cannot bring it back, described.

    A frozen dataclass or a flax module at the top of a module comes back so, and a function.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0:
        return np.asarray(value).item()
    stored = _by_import_path(value)
    try:
        if stored is not None and restored(stored) == value:
            return stored
    except Exception:
        pass  # then it is an object that only its maker can bring back
    # Without its place in memory, which is another in each process.
    return {"object": re.sub(r" at 0x[0-9a-f]+", "", repr(value))}


def _by_import_path(value: Any) -> dict[str, Any] | None:
    named: Any = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
    if getattr(named, "__module__", "__main__") == "__main__" or "<" in getattr(named, "__qualname__", "<"):
        return None
    found = {"import": f"{named.__module__}:{named.__qualname__}"}
    if named is value:
        return found
    if not is_dataclass(value):
        return None
    inner = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
    if isinstance(value, nn.Module):
        inner = {k: v for k, v in inner.items() if k not in ("parent", "name")}  # flax's own bookkeeping
    inner = {k: plain(v) for k, v in inner.items()}
    return found | {"fields": inner}


def restored(stored: Any) -> Any:
    """What :func:`plain` stored; lists are tuples again, since a dataclass that can be hashed has no list."""
    if isinstance(stored, list):
        return tuple(restored(v) for v in stored)
    if not isinstance(stored, dict):
        return stored
    if "import" not in stored:
        return {k: restored(v) for k, v in stored.items()}
    module, _, name = stored["import"].partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found(**{k: restored(v) for k, v in stored["fields"].items()}) if "fields" in stored else found


def remake(settings: dict[str, Any]) -> Algorithm:
    """The algorithm that a run's stored settings stand for."""
    custom = [k for k, v in settings.items() if isinstance(v, dict) and "object" in v]
    check(
        not custom,
        "arms",
        None,
        f"the arms themselves (or algorithm=): the {' and '.join(custom)} of one is an object that cannot be imported again",
    )
    return make(**{k: restored(v) for k, v in settings.items()})


def arm_algorithm(path: Path, arm: str, stored: dict[str, Any], given: Algorithm | None) -> Algorithm:
    """What an arm of a run runs: what is given, or made again from the stored settings.

    Raises:
        ValueError: what is given has not the settings that the arm was started with.
    """
    if given is None:
        return remake(stored)
    mine = {k: plain(v) for k, v in given.settings.items()}
    for key in sorted(mine.keys() | stored.keys()):
        if mine.get(key) != stored.get(key):
            raise ValueError(
                f"arms[{arm!r}] has {key}={mine.get(key)!r}, but the run {str(path)!r} was started with "
                f"{stored.get(key)!r}; an arm with other settings needs another name"
            )
    return given
