"""Arguments of a sweep, checked: each error names the argument, its value and what is allowed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from purejaxrl_ext.algorithms.settings import check_hparam
from purejaxrl_ext.errors import check, is_int, unknown_name
from purejaxrl_ext.types import Algorithm

Label = str | int | float
Arms = Algorithm | Mapping[Any, Algorithm]

TAKEN = ("seed", "update", "env_step", "diverged_at")  # names that a sweep's dataset has anyway


def named(arms: Arms, dims: tuple[str, ...] = ("arm",)) -> tuple[dict[str, Algorithm], dict[str, tuple[Label, ...]]]:
    """Arms by name, and each one's labels along ``dims``. A name is the labels, joined by "-"."""
    several = isinstance(arms, Mapping)
    check(
        isinstance(arms, Algorithm) or several,
        "arms",
        arms,
        'an algorithm, prx.make("ppo", env), or several by name, {"ppo": prx.make(...), "pfo": prx.make(...)}',
    )
    items = arms if isinstance(arms, Mapping) else {arms.name: arms}
    check(len(items) > 0, "arms", arms, "at least one algorithm")
    found: dict[str, Algorithm] = {}
    labels: dict[str, tuple[Label, ...]] = {}
    for key, algorithm in items.items():
        parts = _labels(key, dims)
        name = "-".join(map(str, parts))
        check(isinstance(algorithm, Algorithm), f"arms[{key!r}]", algorithm, "an algorithm from prx.make")
        check("/" not in name and name not in ("", ".", ".."), "arms", name, "names that can be a directory's")
        check(name not in found, "arms", key, f"told apart from {labels.get(name)!r}: a directory is named {name!r}")
        found[name], labels[name] = algorithm, parts
    for dim, values in zip(dims, zip(*labels.values(), strict=True), strict=True):
        kinds = {isinstance(value, str) for value in values}
        check(len(kinds) == 1, f"arms: labels of {dim!r}", list(values), "all texts or all numbers")
    return found, labels


def _labels(key: Any, dims: tuple[str, ...]) -> tuple[Label, ...]:
    if dims == ("arm",):
        check(isinstance(key, str), "arms", key, "named by texts; labels of several dimensions take dims=(...)")
        return (key,)
    parts = key if isinstance(key, tuple) else (key,)
    check(len(parts) == len(dims), "arms", key, f"named by a label for each of dims={dims}")
    plain = tuple(part.item() if isinstance(part, np.generic) else part for part in parts)
    fits = all(isinstance(part, str | int | float) and not isinstance(part, bool) for part in plain)
    check(fits, "arms", key, "named by labels that are str, int or float")
    return plain


def checked_dims(dims: Sequence[str] | None, grid: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the arms' dimensions."""
    if dims is None:
        return ("arm",)
    listed = (dims,) if isinstance(dims, str) else tuple(dims)
    check(len(listed) > 0 and all(isinstance(d, str) and d for d in listed), "dims", dims, "names of dimensions")
    check(len(set(listed)) == len(listed), "dims", dims, "different names")
    clash = sorted(set(listed) & {*TAKEN, *grid})
    check(not clash, "dims", dims, f"other names than {clash}, which the dataset has for something else")
    return listed


def listed_seeds(num_seeds: int | None, seeds: Sequence[int] | None) -> list[int]:
    """``num_seeds`` seeds from 0 on, or ``seeds``; neither: seed 0."""
    check(num_seeds is None or seeds is None, "seeds", seeds, "None where num_seeds is given")
    if seeds is None:
        count = 1 if num_seeds is None else num_seeds
        whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
        check(whole and count > 0, "num_seeds", count, "an int of at least 1")
        return list(range(int(count)))
    several = np.ndim(seeds) == 1 and not isinstance(seeds, str)
    check(several, "seeds", seeds, f"a list of seeds; num_seeds={seeds!r} gives so many")
    check(all(np.issubdtype(type(s), np.number) and int(s) == s for s in seeds), "seeds", seeds, "whole numbers")
    listed = [int(s) for s in seeds]
    check(len(listed) > 0, "seeds", seeds, "at least one seed")
    check(len(set(listed)) == len(listed), "seeds", seeds, "different seeds")
    check(all(0 <= s < 2**31 for s in listed), "seeds", seeds, "between 0 and 2**31 - 1")
    return listed


def checked_grid(arms: dict[str, Algorithm], grid: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Swept values as Python's floats; a float32 of 0.1 is 0.1."""
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
        sequence = isinstance(values, Sequence | np.ndarray | jax.Array) and not isinstance(values, str)
        check(sequence and len(values) > 0, f"grid[{name!r}]", values, "a sequence of numbers")
        for algorithm in arms.values():
            for value in values:
                check_hparam(name, value, type(algorithm.hparams))
    meant = {name: [_meant(v) for v in values] for name, values in grid.items()}
    for name, numbers in meant.items():
        check(len(set(numbers)) == len(numbers), f"grid[{name!r}]", grid[name], "different numbers")
    return meant


def _meant(value: Any) -> float:
    """The number as its own type writes it: float32's 0.1 is 0.1 and not 0.10000000149."""
    held = np.asarray(value)[()]
    return float(str(held)) if isinstance(held, np.floating) else float(value)


def check_counts(**counts: int) -> None:
    """Raise ``ValueError`` where one is no int of at least 0."""
    for name, value in counts.items():
        whole = is_int(value.item() if isinstance(value, np.integer) else value)
        check(whole and value >= 0, name, value, "an int, 0 or greater")
