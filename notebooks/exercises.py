"""The exercises' examiner: ``check(name, function)`` prints whether a function does what is asked, and never raises.

``exercises_NN.py`` beside this file has notebook NN's testers by name, ``TESTS: dict[str, Callable[[function], None]]``: a tester
calls the function that it is given and raises ``AssertionError`` with what differs. ``solutions_NN.py`` has functions of the same
names that pass.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Tester = Callable[[Callable], None]


class NotFilledInError(Exception):
    """The function gave nothing back."""


def tests() -> dict[str, Tester]:
    """The testers of all notebooks, by the exercise's name."""
    found: dict[str, Tester] = {}
    for path in sorted(Path(__file__).parent.glob("exercises_*.py")):
        found |= importlib.import_module(path.stem).TESTS
    return found


def check(name: str, function: Callable) -> bool:
    """Print "right", "not filled in yet", or what differs; return whether it is right."""
    verdict = judge(name, function)
    print(f"{name}: {verdict}")
    return verdict == "right"


def judge(name: str, function: Callable) -> str:
    """The verdict that :func:`check` prints."""

    def watched(*args: Any, **kwargs: Any) -> Any:
        answer = function(*args, **kwargs)
        if answer is None or answer is ...:
            raise NotFilledInError
        return answer

    known = tests()
    if name not in known:
        return f"no such exercise; there are {', '.join(sorted(known))}"
    try:
        known[name](watched)
    except NotFilledInError:
        return "not filled in yet"
    except AssertionError as difference:
        return f"not yet\n{difference}"
    except Exception as error:  # whatever a learner's function may raise
        return f"not yet\n  raises {type(error).__name__}: {error}"
    return "right"


def compare(function: Callable, expected: Any, tolerance: float = 1e-4, **given: Any) -> None:
    """Raise ``AssertionError`` unless ``function(**given)`` is ``expected`` (an array or number), within ``tolerance``."""
    got, expected = np.asarray(function(**given)), np.asarray(expected)
    same = got.shape == expected.shape and np.allclose(got, expected, tolerance, tolerance, equal_nan=True)
    lines = [f"  given     {name} = {text(value)}" for name, value in given.items()]
    lines += [f"  expected  {text(expected)}", f"  got       {text(got)}"]
    assert same, "\n".join(lines)


def text(value: Any) -> str:
    """A value on few lines: arrays with their shape where that is not plain."""
    array = np.asarray(value)
    if array.dtype == object:
        return str(value)
    if array.ndim == 0:
        return f"{array[()]:.5g}" if np.issubdtype(array.dtype, np.floating) else str(array[()])
    shown = np.array2string(array, precision=4, suppress_small=True, threshold=40, prefix=" " * 12)
    return f"{shown}, shape {array.shape}" if array.ndim > 1 else shown
