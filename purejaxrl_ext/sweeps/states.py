"""Trained states by their labels: arm, value of each swept setting and seed, whatever has been selected from the dataset."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from purejaxrl_ext.errors import check, unknown_name
from purejaxrl_ext.sweeps import checkpoints, guards, results
from purejaxrl_ext.types import Algorithm, State


@dataclass(frozen=True, repr=False)
class States:
    """Trained states in memory, with labels of their own: a dataset's coordinates may be selected, these stay.

    Attributes:
        states: by arm, ``[R, ...]``: R = grid cells × seeds, seeds fastest.
        arms: what each ran.
        coords: values of each swept setting, then the seeds.
        dims: what an arm's label names: one dimension, or as many as the labels, which are tuples, have parts.
        along: those kept on the way, by arm and update, on the host; see :mod:`~purejaxrl_ext.sweeps.along`.
    """

    states: dict[Any, State]
    arms: dict[Any, Algorithm]
    coords: dict[str, list]
    dims: tuple[str, ...] = ("arm",)
    along: dict[Any, dict[int, State]] = field(default_factory=dict)

    def kept(self) -> Kept:
        """For a dataset's attributes."""
        kept = Kept(
            f"trained states of {', '.join(map(str, self.states))}, in the memory of the process that trained them"
        )
        kept.record = self
        return kept


class Kept(str):
    """What stands in ``ds.attrs["states"]``: a text, so that the dataset can be written anywhere; in memory the states too.

    They live as long as a dataset that came from the sweep. A file, a pickle and another process have the text alone.
    """

    record: States

    def __reduce__(self) -> tuple:
        return str, (str(self),)

    def __copy__(self) -> Kept:
        return self

    def __deepcopy__(self, memo: Any) -> Kept:
        return self


class Labels(NamedTuple):
    """One run's labels: all that it takes to find it again.

    Attributes:
        arm: its name, or its tuple where arms have several dimensions.
        seed: the seed.
        cell: the value of each swept setting.
    """

    arm: Any
    seed: int
    cell: dict[str, float]


def load_state(
    source: str | Path | xr.Dataset, arm: Any, seed: int, algorithm: Algorithm | None, cell: dict[str, float]
) -> State:
    """See :func:`purejaxrl_ext.sweeps.sweep.load_state`."""
    arm, seed, cell = find(source, arm, seed, cell)
    kept = record(source)
    if kept is not None:
        index, shape = run_index(kept.coords, seed, cell)
        return take(kept.states[arm], int(np.ravel_multi_index(index, shape)))
    path, config = run_of(source)
    guards.check_conditions(path, config)
    index, shape = run_index({**config["grid"], "seed": config["seeds"]}, seed, cell)
    algorithm = checkpoints.arm_algorithm(path, arm, config["arms"][arm]["settings"], algorithm)
    place = config["slots"].index(seed)
    start, stop, width = next(w for w in config["waves"][arm] if w[0] <= place < w[1])
    # The seed is the last dimension; here its index is that in the wave.
    index, shape = (*index[:-1], place - start), (*shape[:-1], width)
    with checkpoints.Checkpoints(path, arm, f"{start}-{stop}") as saved:
        found = saved.restore(checkpoints.one_run(algorithm), int(np.prod(shape)))
    check(found is not None, "source", str(path), f"a run that has saved a state of arm {arm!r}; it has not yet")
    assert found is not None
    return take(checkpoints.with_keys(found[1].state), int(np.ravel_multi_index(index, shape)))


def find(source: str | Path | xr.Dataset, arm: Any, seed: int, cell: dict[str, float]) -> Labels:
    """A run's labels in full: what is left out is what the dataset, as far as it was selected, or the sweep has one of.

    Raises:
        ValueError: a label that the sweep does not have, or the dataset not any more, or one that is missing.
    """
    kept = record(source)
    if kept is not None:
        arms, coords, dims = {name: parts(name) for name in kept.arms}, kept.coords, kept.dims
    else:
        config = run_of(source)[1]
        arms = {name: tuple(stored["labels"]) for name, stored in config["arms"].items()}
        coords, dims = {**config["grid"], "seed": config["seeds"]}, tuple(config["dims"])
    if isinstance(source, xr.Dataset):
        more = set(source["diverged_at"].dims if "diverged_at" in source else ()) - {*dims, *coords}
        check(
            not more, "source", source, f"of one sweep; its dimension {', '.join(map(str, more))} says nothing of a run"
        )
        left = {name: _left(source, name) for name in (*dims, *coords)}
        arms = {name: labels for name, labels in arms.items() if _fits(labels, [left[dim] for dim in dims])}
        coords = {name: left[name] or values for name, values in coords.items()}
    unknown = sorted(set(cell) - set(coords))
    if unknown:
        raise ValueError(unknown_name("swept setting", unknown[0], [name for name in coords if name != "seed"]))
    arm, wanted = pick_arm(arms, arm), {"seed": seed} | cell
    found = {name: _pick(name, list(values), wanted.get(name)) for name, values in coords.items()}
    return Labels(arm, int(found.pop("seed")), found)


def algorithm_of(source: str | Path | xr.Dataset, arm: Any) -> Algorithm:
    """What an arm ran, as it is in memory or made again from the run's settings."""
    kept = record(source)
    if kept is not None:
        return kept.arms[arm]
    return checkpoints.remake(run_of(source)[1]["arms"][arm]["settings"])


def take(state: State, run: int) -> State:
    """One run of ``[R, ...]``."""
    update = state.update
    picked = jax.tree.map(lambda x: jnp.asarray(x[run]), state.replace(update=()))
    return picked.replace(update=jnp.asarray(update))


def record(source: Any) -> States | None:
    """The states that a dataset has in memory; None: it has none, and may have a directory.

    Raises:
        ValueError: it had some, and was since in a file or another process.
    """
    kept = source.attrs.get("states") if isinstance(source, xr.Dataset) else None
    if kept is not None and not isinstance(kept, Kept) and "path" not in source.attrs:
        raise ValueError(
            f"source has no states any more: it held the {kept}, and was since in a file or another process; a sweep with "
            "out=... keeps them on disk"
        )
    return kept.record if isinstance(kept, Kept) else None


def run_of(source: str | Path | xr.Dataset) -> tuple[Path, dict[str, Any]]:
    """A run's directory and its ``config.json``."""
    path = source.attrs.get("path") if isinstance(source, xr.Dataset) else source
    check(path is not None, "source", "dataset", "one of a sweep with out=... or keep_states=True")
    assert path is not None
    return guards.run_path(path, "source"), results.read_config(path)


def parts(arm: Any) -> tuple:
    """An arm's labels, one for each dimension."""
    return arm if isinstance(arm, tuple) else (arm,)


def _left(source: xr.Dataset, name: str) -> list | None:
    """A dataset's labels along a dimension, or the one that was selected; None: it has none any more."""
    return np.atleast_1d(source[name].values).tolist() if name in source.coords else None


def _fits(parts: tuple, left: list[list | None]) -> bool:
    return all(labels is None or part in labels for part, labels in zip(parts, left, strict=True))


def pick_arm(arms: dict[Any, tuple], arm: Any) -> Any:
    """The arm that is asked for by its name or by the tuple of its labels; None: the only one.

    Args:
        arms: the labels of each.
        arm: which.
    """
    if arm is None and len(arms) == 1:
        return next(iter(arms))
    wanted = None if arm is None else parts(arm)
    found = [name for name, labels in arms.items() if labels == wanted or name == arm]
    shown: list[Hashable] = [labels[0] if len(labels) == 1 else labels for labels in arms.values()]
    check(len(found) == 1, "arm", arm, f"one of {', '.join(map(repr, shown))}")
    return found[0]


def _close(name: str, values: Any, wanted: Any) -> np.ndarray:
    """Where the values are the wanted one; traced settings went through float32."""
    if name == "seed":
        return np.flatnonzero(np.equal(values, wanted))
    return np.flatnonzero(np.isclose(values, wanted, rtol=1e-6, atol=0.0))


def _pick(name: str, values: list, wanted: Any) -> Any:
    if wanted is None and len(values) == 1:
        return values[0]
    found = np.empty(0, int) if wanted is None else _close(name, values, wanted)
    check(len(found) == 1, name, wanted, f"one of {values}")
    return values[int(found[0])]


def run_index(coords: dict[str, list], seed: int, cell: dict[str, float]) -> tuple[tuple, tuple]:
    """A run's index along each of ``coords``, and their sizes."""
    wanted, index = {"seed": seed} | cell, []
    for name, values in coords.items():
        found = _close(name, values, wanted[name])
        check(len(found) == 1, name, wanted[name], f"one of {list(values)}")
        index.append(int(found[0]))
    return tuple(index), tuple(map(len, coords.values()))
