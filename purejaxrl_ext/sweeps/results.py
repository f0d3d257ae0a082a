"""Results of a sweep: an ``xarray.Dataset`` in memory, and the same on disk as Zarr.

A run's directory holds ``config.json`` (all it takes to run it again), ``results.zarr`` and ``checkpoints/``.
The store is allocated once, full of NaN, and written block by block of updates, atomically, so that writing a block again
after a crash writes the same thing. A Zarr chunk is a block of updates of a block of seeds of one arm: as long as one process
alone writes a block of seeds, none loses another's cells.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from purejaxrl_ext.analysis import names
from purejaxrl_ext.errors import check
from purejaxrl_ext.sweeps import dims as dims_of_arms
from purejaxrl_ext.sweeps import guards

# A Zarr chunk is a file, which costs a millisecond to write however small it is; but each save writes the newest again.
CHUNK_UPDATES = 64  # of a chunk, at least
CHUNKS = 16  # along the updates of a run as it is made, at most, as long as
CHUNK_BYTES = 2**20  # is not exceeded
FORMAT = 3
PADDING = -1  # the seed of a place on the store's seed axis that holds none
PACKAGES = ("purejaxrl_ext", "jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "brax", "numpy", "xarray", "zarr")


def blank(arms: list[str], grid: dict[str, list], seeds: list[int], env_steps: np.ndarray) -> xr.Dataset:
    """A dataset with coordinates and no variables. ``env_steps`` ``[arm, update]``, NaN beyond an arm's end."""
    coords: dict[str, Any] = {"arm": arms, **grid, "seed": seeds, "update": np.arange(env_steps.shape[1])}
    return xr.Dataset(coords=coords | {"env_step": (("arm", "update"), env_steps)})


def dims(grid: dict[str, list]) -> tuple[str, ...]:
    """Dimensions of a metric."""
    return ("arm", *grid, "seed", "update")


def allocate(path: Path, dataset: xr.Dataset, metrics: list[str], grid: dict[str, list], seed_block: int) -> None:
    """Make the store hold the coordinates of ``dataset`` and the metrics: what is missing is made, all NaN, or grows.

    Doing it again changes nothing, so it may be cut short at any moment.

    Args:
        path: the run's directory.
        dataset: its coordinates; ``seed`` may hold PADDING.
        metrics: names.
        grid: swept settings.
        seed_block: seeds per Zarr chunk.
    """
    import zarr  # Whose import takes a while, and not all sweeps are kept.

    group: Any = zarr.open_group(str(path / "results.zarr"), mode="a")
    axes = dims(grid)
    shape = tuple(dataset.sizes[name] for name in axes)
    bytes_per_update = 4 * int(np.prod(shape[1:-2])) * seed_block
    updates = max(CHUNK_UPDATES, min(-(-shape[-1] // CHUNKS), CHUNK_BYTES // bytes_per_update))
    for metric in [*metrics, "diverged_at"]:
        number = len(axes) - (metric == "diverged_at")
        if metric not in group:
            group.create_array(
                metric,
                shape=shape[:number],
                chunks=(1, *shape[1:-2], seed_block, updates)[:number],
                dtype="float32",
                fill_value=np.nan,
                dimension_names=axes[:number],
            )
        elif group[metric].shape != shape[:number]:
            group[metric].resize(shape[:number])
    group.attrs["coordinates"] = "env_step"
    for name, variable in dataset.coords.items():
        if name in group and _same(np.asarray(group[str(name)][:]), variable.values):
            continue
        with warnings.catch_warnings():
            # Zarr has no settled type for strings yet; the arms' names are also in config.json.
            warnings.simplefilter("ignore", zarr.errors.UnstableSpecificationWarning)
            group.create_array(
                str(name), data=variable.values, dimension_names=tuple(map(str, variable.dims)), overwrite=True
            )


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _open(path: Path) -> Any:
    import zarr

    return zarr.open_group(str(path / "results.zarr"), mode="r+")


def write_blocks(
    path: Path, arm: int, slots: slice, metrics: dict[str, np.ndarray], diverged_at: np.ndarray, start: int, stop: int
) -> None:
    """Write the whole blocks that hold updates ``start`` to ``stop`` of one arm's ``slots``, and when runs diverged.

    Args:
        path: the run's directory.
        arm: its index.
        slots: which places on the seed axis.
        metrics: ``[*grid, slot, update]`` by name.
        diverged_at: ``[*grid, slot]``, NaN where a run did not.
        start, stop: updates.
    """
    group = _open(path)
    for name, values in metrics.items():
        size = group[name].chunks[-1]
        check(stop <= group[name].shape[-1], "stop", stop, f"at most the store's {group[name].shape[-1]} updates")
        first, last = start // size * size, min(-(-stop // size) * size, group[name].shape[-1])
        block = np.full((*values.shape[:-1], last - first), np.nan, np.float32)
        known = values[..., first : min(last, stop)]
        block[..., : known.shape[-1]] = known
        group[name][arm, ..., slots, first:last] = block
    group["diverged_at"][arm, ..., slots] = diverged_at


def read_rows(path: Path, arm: int, slots: slice, metrics: list[str], stop: int) -> dict[str, np.ndarray]:
    """What the store holds of one arm's ``slots`` up to update ``stop``: ``[*grid, slot, stop]`` by name."""
    group = _open(path)
    return {name: np.asarray(group[name][arm, ..., slots, :stop]) for name in metrics}


def load(path: str | Path) -> xr.Dataset:
    """The results of a run so far, also while it runs (what has not been computed is NaN).

    Raises:
        FileNotFoundError: no run is there.
        ValueError: the store is of another format version.
    """
    path = guards.run_path(path, "path")
    config = read_config(path)
    store = path / "results.zarr"
    try:
        dataset = xr.open_zarr(store, consolidated=False, chunks=None)
    except FileNotFoundError:
        dataset = xr.Dataset()
    # Its coordinates are written last, these after the others.
    if not {"seed", "update", "env_step"} <= set(dataset.coords):
        raise FileNotFoundError(f"path={str(path)!r} has no results yet: the run is being made")
    dataset = dataset.isel(seed=np.flatnonzero(dataset["seed"].values != PADDING))
    dataset = dataset[sorted(dataset.data_vars, key=str)].load()
    arms = config["arms"]
    envs = [arm["env"] for arm in arms.values()]
    dataset = described(dataset, config["total_steps"], envs).assign_attrs(path=str(path))
    # Arms that are being added are not in the store yet.
    labels = [arms[name]["labels"] for name in dataset["arm"].values.tolist()]
    return dims_of_arms.spread(dataset, config["dims"], labels)


def described(dataset: xr.Dataset, total_steps: int, envs: list[str]) -> xr.Dataset:
    """A dataset whose variables say in words what they are and in which units, and which environments it is of.

    Args:
        dataset: of a sweep.
        total_steps: of each run.
        envs: each arm's environment, by name.
    """
    for name, variable in dataset.variables.items():
        variable.attrs.update(names.described(str(name)))
    return dataset.assign_attrs(total_steps=total_steps, env=", ".join(dict.fromkeys(envs)))


def arm_dims(source: str | Path | xr.Dataset) -> tuple[str, ...]:
    """The dimensions of a sweep's arms."""
    if isinstance(source, xr.Dataset):
        return tuple(source.attrs.get("dims", "arm").split(", "))
    return tuple(read_config(source)["dims"])


def read_config(path: str | Path) -> dict[str, Any]:
    """The run's ``config.json``."""
    path = guards.run_path(path, "path")
    file = path / "config.json"
    if not file.exists():
        what = (
            f"there is no {file.name} in it"
            if path.is_dir()
            else "it is a file"
            if path.exists()
            else "it is not there"
        )
        raise FileNotFoundError(f"path={str(path)!r} holds no run: {what}")
    config = json.loads(file.read_text())
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{file} has format={config.get('format')!r}; this version of purejaxrl_ext reads format {FORMAT}. Read it with the "
            f"version that wrote it, {config.get('versions', {}).get('purejaxrl_ext', 'which it does not name')} "
            f"(commit {config.get('commit')}), or run the sweep again"
        )
    return config


def write_json(file: Path, content: Any) -> None:
    """Write a file at once: whoever reads it finds the old content or the new."""
    part = file.with_name(f"{file.name}.{uuid.uuid4().hex}.partial")
    try:
        part.write_text(json.dumps(content, indent=1))
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def clear_disk_errors(path: Path, doing: str) -> Iterator[None]:
    """An ``OSError`` (a full disk, a directory that can't be written) that says what it hit and how to go on."""
    try:
        yield
    except BlockingIOError:
        raise  # a lock says by itself who holds it
    except OSError as error:
        raise OSError(  # of the class that belongs to its number
            error.errno,
            f"{error.strerror or error} while {doing}. What was saved before is untouched; once the cause is gone, "
            f"go on with prx.resume({str(path)!r})",
        ) from error


def provenance() -> dict[str, Any]:
    """Versions, device and commit: what a number depends on besides its settings."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    device = jax.devices()[0]
    return {
        "format": FORMAT,
        "versions": {"python": platform.python_version(), **versions},
        "conditions": guards.conditions(),
        "device": {"kind": device.device_kind, "platform": device.platform, "count": jax.local_device_count()},
        "commit": _commit(),
    }


def _commit() -> str | None:
    where = Path(__file__).parent
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=where,
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip() or None
