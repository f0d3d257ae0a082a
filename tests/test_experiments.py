"""The experiment scripts about tables run, with tiny settings, and say and draw what they measured."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))


@pytest.fixture
def script(monkeypatch):
    """A script as a module; what it does to uncaught exceptions is undone."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    return importlib.import_module


def picture(path):
    """A figure's mode, and how many greys it has."""
    with Image.open(path) as image:
        return image.mode, len(np.unique(np.asarray(image.convert("L"))))


def test_cliff_walking(script, tmp_path, capsys):
    cliff_walking = script("cliff_walking")
    figure = tmp_path / "new" / "cliff.png"
    cliff_walking.main(cliff_walking.Study(num_seeds=4, num_episodes=40, num_steps=4_000, figure=figure))
    said = capsys.readouterr().out
    assert "optimal return -13" in said
    lived = {m[1]: float(m[2]) for m in re.finditer(r"(.+): return as lived, last 40 episodes (-[\d.]+)", said)}
    assert lived.keys() == cliff_walking.ARMS.keys()
    assert all(-300.0 < x < -13.0 for x in lived.values())
    assert picture(figure)[1] > 10
    with pytest.raises(ValueError, match="no run finished 40 episodes"):
        cliff_walking.main(cliff_walking.Study(num_seeds=1, num_episodes=40, num_steps=50, figure=figure))


def test_estimation_study(script, tmp_path, capsys, monkeypatch):
    study = script("estimation_study")
    for name, values in {"NS": (1, 4), "LAMBDAS": (0.0, 0.9), "FINE_LAMBDAS": (0.0, 1.0), "ALPHAS": (0.1, 0.4)}.items():
        monkeypatch.setattr(study, name, values)
    figure = tmp_path / "study.png"
    study.main(study.Study(num_seeds=40, num_episodes=5, num_states=5, figure=figure))
    said = capsys.readouterr().out
    least = [float(x) for x in re.findall(r"least RMS error ([\d.]+)", said)]
    assert len(least) == 3 and all(0.05 < x < 0.6 for x in least)
    # The bias that is measured is the one in closed form.
    off = [float(x) for x in re.findall(r"within ([\d.]+) of the closed form", said)]
    assert len(off) == 2 and max(off) < 0.1
    mode, greys = picture(figure)
    assert mode == "P" and greys > 10
    study.save(study.Figure(), tmp_path / "study.pdf")
    assert (tmp_path / "study.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match="num_seeds"):
        study.main(study.Study(num_seeds=0))
