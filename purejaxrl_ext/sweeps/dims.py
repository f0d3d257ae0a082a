"""Arms of several dimensions: a dataset's ``arm`` taken apart into them, and an arm found by its labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from purejaxrl_ext.errors import check


def spread(dataset: xr.Dataset, dims: Sequence[str], labels: Sequence[Sequence[Any]]) -> xr.Dataset:
    """The dataset with ``dims`` in the place of ``arm``, NaN where there is no arm.

    Args:
        dataset: ``arm`` is the first dimension of each variable that has it.
        dims: names; only ``("arm",)`` leaves the dataset as it is.
        labels: of each arm, along ``dims``.
    """
    if tuple(dims) == ("arm",):
        return dataset
    coords = {name: list(dict.fromkeys(values)) for name, values in zip(dims, zip(*labels, strict=True), strict=True)}
    index = tuple(
        np.array([coords[name].index(label) for label in column])
        for name, column in zip(dims, zip(*labels, strict=True), strict=True)
    )

    def fill(variable: xr.Variable) -> xr.Variable:
        whole = np.full((*map(len, coords.values()), *variable.shape[1:]), np.nan, variable.dtype)
        whole[index] = variable.values
        return xr.Variable((*dims, *variable.dims[1:]), whole, variable.attrs)

    variables = {name: fill(x) if "arm" in x.dims else x for name, x in dataset.variables.items() if name != "arm"}
    held = {name: x for name, x in variables.items() if name in dataset.coords}
    data = {name: x for name, x in variables.items() if name in dataset.data_vars}
    attrs = {**dataset.attrs, "dims": ", ".join(dims)}  # a text, which files of any kind can hold
    return xr.Dataset(data, {**coords, **held}, attrs)


def resolve(dims: Sequence[str], arm: Any, algorithm: Any, cell: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """An arm that may have been given as one value for each dimension: the tuple of its labels, and what is left.

    Args:
        dims: the dimensions of the sweep's arms.
        arm: its name or the tuple.
        algorithm: what the arm ran; or its label, where a dimension has this name.
        cell: values by name: of the arms' dimensions, and of swept settings.
    """
    given = {name: value for name, value in cell.items() if name in dims and name != "arm"}
    if "algorithm" in dims and isinstance(algorithm, str):
        given, algorithm = given | {"algorithm": algorithm}, None
    if not given:
        return arm, algorithm, cell
    check(arm is None, "arm", arm, f"left out where {', '.join(given)} is given")
    check(set(given) == set(dims), "arm", given, f"a label for each of {', '.join(dims)}")
    left = {name: value for name, value in cell.items() if name not in given}
    return tuple(given[name] for name in dims), algorithm, left
