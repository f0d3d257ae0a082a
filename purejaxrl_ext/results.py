"""Results of a sweep: an ``xarray.Dataset`` in memory, and the same on disk as Zarr.

A run's directory holds ``config.json`` (all it takes to run it again), ``results.zarr``, ``timing.json`` and ``checkpoints/``.
The store is allocated once, full of NaN, and written block by block of updates: every write is of whole Zarr chunks, so
writing a block again after a crash writes the same thing, and writers of different blocks cannot lose each other's cells.
"""

from __future__ import annotations

import json
import platform
import subprocess
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
import zarr

BLOCK = 64  # updates per Zarr chunk
FORMAT = 1
PACKAGES = ("purejaxrl_ext", "jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "brax", "numpy", "xarray", "zarr")


def blank(arms: list[str], grid: dict[str, list], seeds: list[int], env_steps: np.ndarray) -> xr.Dataset:
    """A dataset with coordinates and no variables. ``env_steps`` ``[arm, update]``, NaN beyond an arm's end."""
    coords: dict[str, Any] = {"arm": arms, **grid, "seed": seeds, "update": np.arange(env_steps.shape[1])}
    return xr.Dataset(coords=coords | {"env_step": (("arm", "update"), env_steps)})


def dims(grid: dict[str, list]) -> tuple[str, ...]:
    """Dimensions of a metric."""
    return ("arm", *grid, "seed", "update")


def allocate(path: Path, dataset: xr.Dataset, metrics: list[str], grid: dict[str, list]) -> None:
    """Write the store's coordinates and declare its variables, all NaN and so far without a chunk on disk."""
    with warnings.catch_warnings():
        # Zarr has no settled type for strings yet; the arms' names are also in config.json.
        warnings.simplefilter("ignore", zarr.errors.UnstableSpecificationWarning)
        dataset.to_zarr(path / "results.zarr", mode="w-", consolidated=False)
    group = _open(path)
    names = dims(grid)
    shape = tuple(dataset.sizes[name] for name in names)
    chunks = (1, *shape[1:-1], BLOCK)
    for metric in metrics:
        group.create_array(
            metric, shape=shape, chunks=chunks, dtype="float32", fill_value=np.nan, dimension_names=names
        )
    group.create_array(
        "diverged_at",
        shape=shape[:-1],
        chunks=(1, *shape[1:-1]),
        dtype="float32",
        fill_value=np.nan,
        dimension_names=names[:-1],
    )


def _open(path: Path) -> Any:
    return zarr.open_group(str(path / "results.zarr"), mode="r+")


def write_blocks(path: Path, arm: int, metrics: dict[str, np.ndarray], start: int, stop: int) -> None:
    """Write the whole blocks that hold updates ``start`` to ``stop`` of one arm; arrays ``[*grid, seed, update]``."""
    group = _open(path)
    first = start // BLOCK * BLOCK
    for name, values in metrics.items():
        last = min(-(-stop // BLOCK) * BLOCK, group[name].shape[-1])
        block = np.full((*values.shape[:-1], last - first), np.nan, np.float32)
        known = values[..., first : min(last, stop)]
        block[..., : known.shape[-1]] = known
        group[name][arm, ..., first:last] = block


def write_diverged(path: Path, arm: int, diverged_at: np.ndarray) -> None:
    """Write when each run of an arm became non-finite, ``[*grid, seed]``, NaN if it did not."""
    _open(path)["diverged_at"][arm] = diverged_at


def load(path: str | Path) -> xr.Dataset:
    """The results of a run so far, also while it runs (what has not been computed is NaN).

    Raises:
        FileNotFoundError: no run is there.
        ValueError: the store is of another format version.
    """
    config = read_config(path)
    dataset = xr.open_zarr(Path(path) / "results.zarr", consolidated=False, chunks=None).load()
    return dataset.assign_attrs(path=str(path), total_steps=config["total_steps"])


def read_config(path: str | Path) -> dict[str, Any]:
    """The run's ``config.json``."""
    file = Path(path) / "config.json"
    if not file.exists():
        raise FileNotFoundError(f"path={str(path)!r} holds no run: there is no {file.name} in it")
    config = json.loads(file.read_text())
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{file} has format={config.get('format')!r}; this version of purejaxrl_ext reads format {FORMAT}"
        )
    return config


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
