"""The notebooks' exercises: solutions are right, stubs are not filled in yet, mistakes are refused, and each is asked for."""

import importlib
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))
exercises = importlib.import_module("exercises")

# Each notebook's wrong answers are in mistakes_NN.py, by exercise.
MISTAKES = {}
for path in sorted(Path(__file__).parent.glob("mistakes_*.py")):
    MISTAKES |= importlib.import_module(path.stem).MISTAKES
NUMBER = {
    name: path.stem.removeprefix("exercises_")
    for path in sorted(NOTEBOOKS.glob("exercises_*.py"))
    for name in importlib.import_module(path.stem).TESTS
}


@pytest.mark.parametrize("name", NUMBER)
def test_solution_is_right(name):
    solution = getattr(importlib.import_module(f"solutions_{NUMBER[name]}"), name)
    assert exercises.judge(name, solution) == "right"


@pytest.mark.parametrize("name", NUMBER)
def test_mistakes_are_refused(name):
    assert MISTAKES[name]
    for mistake in MISTAKES[name]:
        verdict = exercises.judge(name, mistake)
        assert verdict.startswith("not yet\n") and "raises" not in verdict, verdict


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_asks_for_its_exercises_and_gives_no_solution(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    for name in [name for name, number in NUMBER.items() if number == path.stem[:2]]:
        asking = [cell for cell in cells if f'check("{name}", {name})' in cell.source]
        assert len(asking) == 1
        assert any(f"{name}: not filled in yet" in output.get("text", "") for output in asking[0].outputs)


def test_every_exercise_has_a_notebook_and_its_own_name():
    assert set(NUMBER.values()) <= {path.stem[:2] for path in NOTEBOOKS.glob("*.ipynb")}
    modules = [importlib.import_module(path.stem) for path in NOTEBOOKS.glob("exercises_*.py")]
    assert sum(len(module.TESTS) for module in modules) == len(exercises.tests())


def test_check_says_what_differs_and_never_raises(capsys):
    def shifted(reward, gamma):
        return gamma * reward[0] + gamma**2 * reward[1] + gamma**3 * reward[2]

    assert not exercises.check("discounted_return", shifted)
    said = capsys.readouterr().out
    for part in ("reward = [1. 2. 4.]", "gamma = 0.5", "expected  3\n", "got       1.5"):
        assert part in said

    def broken(reward, gamma):
        raise KeyError("nothing")

    assert not exercises.check("discounted_return", broken)
    assert "raises KeyError" in capsys.readouterr().out
    assert not exercises.check("discounted_returns", broken)
    assert "no such exercise" in capsys.readouterr().out
    assert not exercises.check("discounted_return", lambda reward, gamma: np.zeros(3))
    assert not exercises.check("discounted_return", lambda reward: 0.0)


@pytest.mark.parametrize("stub", [lambda **given: None, lambda **given: ...])
def test_stub_is_not_filled_in_yet(stub):
    for name in NUMBER:
        assert exercises.judge(name, stub) == "not filled in yet"
