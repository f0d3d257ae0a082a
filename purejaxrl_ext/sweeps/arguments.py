"""Arguments of a sweep, checked: each error names the argument, its value and what is allowed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from purejaxrl_ext.algorithms.settings import check_hparam
from purejaxrl_ext.errors import check, unknown_name
from purejaxrl_ext.types import Algorithm

Arms = Algorithm | Mapping[str, Algorithm]


def named(arms: Arms) -> dict[str, Algorithm]:
    named = {arms.name: arms} if isinstance(arms, Algorithm) else dict(arms)
    check(len(named) > 0, "arms", arms, "at least one algorithm")
    for name, algorithm in named.items():
        check(isinstance(algorithm, Algorithm), f"arms[{name!r}]", algorithm, "an algorithm from prx.make")
        check("/" not in name and name not in ("", ".", ".."), "arms", name, "names that can be a directory's")
    return named


def listed_seeds(num_seeds: int | None, seeds: Sequence[int] | None) -> list[int]:
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


def checked_grid(arms: dict[str, Algorithm], grid: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
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
        for algorithm in arms.values():
            for value in values:
                check_hparam(name, value, type(algorithm.hparams))
    return {name: [float(v) for v in values] for name, values in grid.items()}
