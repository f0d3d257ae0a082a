"""Saved states: orbax checkpoints of a wave's runs, and what the arm that they are of ran."""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from purejaxrl_ext.algorithms.make import ALGORITHMS, make
from purejaxrl_ext.errors import check
from purejaxrl_ext.sweeps.references import describe, difference, lost, plain, restored
from purejaxrl_ext.types import Algorithm, PyTree, State, abstract_key


class KeyData(struct.PyTreeNode):
    """Typed random keys as plain arrays, which can be on the host and in files.

    Attributes:
        data: ``[..., words]`` uint32.
        impl: which generator they are of.
    """

    data: Any
    impl: Any = struct.field(pytree_node=False)


def as_data(tree: PyTree) -> PyTree:
    """Every typed key as :class:`KeyData`, wherever in a State it is."""

    def data(x: Any) -> Any:
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x
        return KeyData(jax.random.key_data(x), jax.random.key_impl(x))

    return jax.tree.map(data, tree)


def with_keys(tree: PyTree) -> PyTree:
    """What :func:`as_data` took apart, together again."""

    def key(x: Any) -> Any:
        return jax.random.wrap_key_data(jnp.asarray(x.data), impl=x.impl) if isinstance(x, KeyData) else x

    return jax.tree.map(key, tree, is_leaf=lambda x: isinstance(x, KeyData))


class Snapshot(NamedTuple):
    """The runs of a wave after an update, on the host; what pads them to whole devices is left out.

    Attributes:
        state: ``[R, ...]``, its keys as :class:`KeyData`.
        diverged_at: ``[R]`` int32.
    """

    state: State
    diverged_at: np.ndarray


class MismatchError(ValueError):
    """A checkpoint that is whole, but of another algorithm's State."""


FILE = "arrays.npz"
TYPES = "types"  # the entry that says what bytes mean whose type NumPy's files have no name for


def read(directory: Path, like: PyTree) -> PyTree:
    """A checkpoint's arrays, shaped and named as in ``like``.

    Raises:
        MismatchError: they are others.
    """
    with open(str(directory / FILE), "rb") as opened, np.load(opened) as file:
        types = json.loads(str(file[TYPES])) if TYPES in file else {}
        wanted = _types(like)

        def leaf(path: Any, like: np.ndarray) -> np.ndarray:
            name = jax.tree_util.keystr(path)
            array, kind = file.get(name), types.get(name)
            if array is not None and kind == like.dtype.name:
                array = array.view(like.dtype)
            same = array is not None and (array.shape, array.dtype) == (like.shape, like.dtype)
            if array is None or not same or kind != wanted.get(name):
                damaged = file.zip.testzip()
                if damaged is not None:
                    raise zipfile.BadZipFile(f"{damaged} is not what was written")
                raise MismatchError(
                    f"{directory} holds {_told(array, kind)} as {name}, and not {_told(like, wanted.get(name))}: it was "
                    "written with other settings or by another version of purejaxrl_ext; it was left as it is"
                )
            return array

        return jax.tree_util.tree_map_with_path(leaf, like)


def entries(tree: PyTree) -> dict[str, Any]:
    """What a file holds of a tree of host arrays: each by its path, and the entry ``TYPES``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): _bits(x) for path, x in leaves} | {TYPES: np.array(json.dumps(_types(tree)))}


def _types(tree: PyTree) -> dict[str, str]:
    """What NumPy's files do not say of a tree's arrays: a key's generator, and types that JAX adds to NumPy's."""
    types = {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: isinstance(x, KeyData)):
        name = jax.tree_util.keystr(path)
        if isinstance(x, KeyData):
            types[f"{name}.data"] = str(x.impl)
        elif x.dtype.isbuiltin != 1:
            types[name] = x.dtype.name
    return types


def _bits(x: np.ndarray) -> np.ndarray:
    """The array as one that NumPy's files have a type for."""
    return x if x.dtype.isbuiltin == 1 else x.view(f"u{x.dtype.itemsize}")


def _told(array: np.ndarray | None, kind: str | None) -> str:
    if array is None:
        return "nothing"
    of = "" if kind is None or kind == array.dtype.name else f" of {kind}"
    return f"{array.dtype}{list(array.shape)}{of}"


class Checkpoints:
    """The checkpoints of one wave of one arm: written in the background, atomically; the last ``keep`` stay.

    Those of updates that ``keep_every`` divides stay too (0: none).

    Each process keeps its own waves' and waits for no other.
    """

    def __init__(self, path: Path, arm: str, wave: str, keep: int = 2, keep_every: int = 0):
        # Orbax is imported by whoever saves something.
        from purejaxrl_ext.sweeps import saving

        where = folder(path, arm, wave).absolute()
        where.mkdir(parents=True, exist_ok=True)
        self.where, self.saved = where, False
        self.arrays, self.manager = saving.Arrays, saving.manager(where, keep, keep_every)

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
        rows = jax.tree.map(lambda x: np.array(x)[:num_runs], as_data(state.replace(update=())))
        snapshot = Snapshot(rows.replace(update=np.array(state.update)), np.array(diverged_at)[:num_runs])
        self.manager.save(update, args=self.arrays(snapshot))
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
            one: shapes of one run's State, its keys as data: :func:`one_run`.
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
                found = self.manager.restore(update, args=self.arrays(target))
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
    return any(zipfile.is_zipfile(file) for file in checkpoint.rglob(FILE))


def one_run(algorithm: Algorithm) -> State:
    """Shapes of one run's State, its keys as :class:`KeyData`; nothing is computed."""
    return jax.eval_shape(lambda key: as_data(algorithm.init(key)), abstract_key())


def remake(settings: dict[str, Any]) -> Algorithm:
    """The algorithm that a run's stored settings stand for.

    Raises:
        ValueError: something in them cannot be brought back, imported or found by name here.
    """
    custom = {name: what for name, stored in settings.items() if (what := lost(stored)) is not None}
    what = "; ".join(f"{name}: {text}" for name, text in custom.items())
    check(
        not custom,
        "arms",
        None,
        f"the arms themselves (or algorithm=): the {' and '.join(custom)} of one is an object that cannot be imported again "
        f"({what}), having no name at the top of a module other than the script or notebook itself",
    )
    made = {name: _restored(name, stored) for name, stored in settings.items()}
    check(
        not isinstance(made["algorithm"], str) or made["algorithm"] in ALGORITHMS,
        "algorithm",
        made["algorithm"],
        "registered in this process too: import the module that does it, or give the arms themselves (arms=, or algorithm=)",
    )
    return make(**made)


def _restored(name: str, stored: Any) -> Any:
    try:
        return restored(stored)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def arm_algorithm(path: Path, arm: str, stored: dict[str, Any], given: Algorithm | None) -> Algorithm:
    """What an arm of a run runs: what is given, or made again from the stored settings.

    Raises:
        ValueError: what is given has not the settings that the arm was started with.
    """
    if given is None:
        return remake(stored)
    mine = {k: plain(v) for k, v in given.settings.items()}
    for key in sorted(mine.keys() | stored.keys()):
        found = difference(mine.get(key), stored.get(key))
        if found is not None:
            inner, now, before = found
            raise ValueError(
                f"arms[{arm!r}] has {key}{inner}={describe(now)}, but the run {str(path)!r} was started with "
                f"{describe(before)}; an arm with other settings needs another name"
            )
    return given
