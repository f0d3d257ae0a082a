"""What figures share: colours, names for people, what is said of seeds and environments, and the frame around it."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from purejaxrl_ext.analysis import stats
from purejaxrl_ext.analysis.centers import FEW
from purejaxrl_ext.analysis.names import described

# Okabe & Ito (2008): told apart with every common colour vision, and in grey.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")
MARKERS = "os^Dv"
FILE_DPI = 120  # of what is saved; what is shown follows matplotlib's "figure.dpi"


def label(metric: str, dataset: xr.Dataset | None = None) -> str:
    """A metric's or dimension's name for people, with its unit: as the dataset has them, or else :func:`~.names.described`."""
    attrs = dataset[metric].attrs if dataset is not None and metric in dataset else {}
    told = attrs if "long_name" in attrs else described(metric)
    unit = told.get("units", "")
    return f"{told['long_name']} ({unit})" if unit not in ("", "1") else str(told["long_name"])


def axis_label(metric: str, dataset: xr.Dataset) -> str:
    """:func:`label` in lines that a panel is high enough for."""
    return textwrap.fill(label(metric, dataset), 38)


def heading(dataset: xr.Dataset, text: str) -> str:
    """``text`` after the names of the environments, where the dataset says them (``attrs["env"]``)."""
    env = dataset.attrs.get("env")
    return f"{env}: {text}" if env else text


def over_seeds(num_seeds: int, center: str, interval: str = "bootstrap") -> str:
    """What a line and its band are; an interval over so few seeds that it is only their range says so."""
    if num_seeds == 1:
        return "one seed"
    middle = {"mean": "mean", "iqm": "interquartile mean"}[center]
    if interval == "minmax":
        return f"{middle} over {num_seeds} seeds, minimum to maximum"
    if num_seeds <= FEW:
        return f"{middle} over {num_seeds} seeds and their range (too few for an interval)"
    return f"{middle} over {num_seeds} seeds, 95% bootstrap interval"


class Line(NamedTuple):
    """One line of a figure.

    Attributes:
        cell: the index along each dimension that tells lines apart.
        color, linestyle, marker, label: how it looks, and its name.
    """

    cell: dict[str, int]
    color: Any
    linestyle: str
    marker: str
    label: str

    @property
    def style(self) -> dict[str, Any]:
        """As matplotlib takes it; not the marker, which is for points."""
        return {"color": self.color, "linestyle": self.linestyle, "label": self.label}


def lines(dataset: xr.Dataset, dims: Sequence[str], by: str | None) -> list[Line]:
    """A line for every cell of ``dims`` that has an arm; colours tell ``by`` apart, line styles the others."""
    others = [d for d in dims if d != by]
    numbers = range(dataset.sizes[by] if by else 1)
    combinations = list(itertools.product(*(range(dataset.sizes[d]) for d in others)))
    there = stats.exists(dataset).broadcast_like(stats.diverged(dataset))
    lost = stats.diverged(dataset) & there
    found, color = [], colors(len(numbers))
    for i, (j, rest) in itertools.product(numbers, enumerate(combinations)):
        at = dict(zip(others, rest, strict=True)) | ({by: i} if by else {})
        cell = {d: at[d] for d in dims}
        runs, gone = int(there.isel(cell).sum()), int(lost.isel(cell).sum())
        if runs == 0:
            continue
        # What all lines share needs no mention.
        shown = [value_text(dataset, d, k) for d, k in cell.items() if dataset.sizes[d] > 1 or d == by]
        note = f" ({gone} of {runs} diverged)" if gone else ""
        looks = color[i], LINES[j % len(LINES)], MARKERS[j % len(MARKERS)]
        found.append(Line(cell, *looks, ", ".join(shown) + note))
    return found


def colors(count: int) -> list[Any]:
    """So many colours that can be told apart."""
    if count <= len(COLORS):
        return list(COLORS)
    return [colormaps["viridis"](x) for x in np.linspace(0.0, 0.95, count)]


def value_text(dataset: xr.Dataset, dim: str, index: int) -> str:
    """A place on a dimension for a legend: a name alone, a number after the dimension's name."""
    value = dataset[dim].values[index]
    return f"{dim}={value:g}" if dataset[dim].dtype.kind in "iuf" else str(value)


def dress(panel: Axes) -> None:
    """A light grid, no box."""
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)


def finish(figure: Figure, panel: Axes, path: str | Path | None = None, title: str = "") -> Figure:
    """Legend below, title above, and the file if one is asked for."""
    handles, labels = panel.get_legend_handles_labels()
    if handles:
        # Points of width: a letter of this size has about five, a line's sample and its gaps fifty.
        fitting = int(72 * figure.get_figwidth() / (5 * max(map(len, labels)) + 50))
        columns = max(1, min(len(labels), 4, fitting))
        figure.set_figheight(figure.get_figheight() + 0.19 * (-(-len(labels) // columns) - 1))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
    if title:
        figure.suptitle(title, fontsize="medium", wrap=True)
    if path is not None:
        figure.savefig(path, dpi=FILE_DPI)
    return figure
