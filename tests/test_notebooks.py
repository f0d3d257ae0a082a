"""What the documentation shows runs: the notebooks with tiny settings, none written over, and the README's code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import nbformat
import pytest
from nbclient import NotebookClient

import purejaxrl_ext as prx

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_BYTES = 500_000


@pytest.mark.thorough
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch, tmp_path):
    monkeypatch.setenv("PRX_NOTEBOOK_FAST", "1")
    monkeypatch.setenv("PRX_NOTEBOOK_DIR", str(path.parent))
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where)
    client.execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_executed_and_small(path):
    assert path.stat().st_size < MAX_BYTES
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.execution_count is not None
            assert all(output.output_type != "error" for output in cell.outputs)


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_readme_environment_learns():
    text = (ROOT / "README.md").read_text()
    code = text.split("<!-- example: corridor -->")[1].split("```python\n")[1].split("```")[0]
    assert len(code.split("ds = ")[0].strip().splitlines()) < 20
    names = {"dataclass": dataclass, "jnp": jnp, "prx": prx}
    exec(code, names)
    assert float(names["ds"]["episode_return"].isel(update=-1).min()) > -6.0


def test_readme_parts_of_ones_own_train():
    """In a module of its own: a dataclass asks where it is from."""
    text = (ROOT / "README.md").read_text()
    code = text.split("<!-- example: seams -->")[1].split("```python\n")[1].split("```")[0]
    names = {"__name__": __name__}
    exec(code.replace("total_steps=20_000", "total_steps=2_000"), names)
    assert names["ds"].sizes["pull_coef"] == 2
    assert float(names["ds"]["moved"].isel(update=0).min()) > 0
    assert float(names["ds"]["pull_penalty"].sel(pull_coef=0.0).max()) == 0.0
