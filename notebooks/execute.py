"""Execute notebooks at their full settings and store them with what they show: ``execute.py [FILE ...]``, default all."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def execute(path: Path) -> None:
    """Run a notebook from its first cell; written over only if no cell fails."""
    notebook = nbformat.read(path, as_version=4)
    # Without the times of day, which would change at every run.
    client = NotebookClient(notebook, timeout=1200, record_timing=False, resources={"metadata": {"path": str(HERE)}})
    client.execute()
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for file in [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        began = time.perf_counter()
        execute(file)
        print(f"{file.name}: {time.perf_counter() - began:.0f} s, {file.stat().st_size / 1000:.0f} kB", flush=True)
