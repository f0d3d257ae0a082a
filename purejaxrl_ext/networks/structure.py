"""What a tree of parameters is made of: which network and which layer each belongs to. Nobody else takes one apart.

    h_l = activation(W_l h_{l−1} + b_l),   l = 1 … L,   then the heads

A :class:`Layer` says of each hidden layer where W_l and b_l are (incoming), and where its units' outgoing weights are: the rows of
W_{l+1}, or of the heads; behind a convolution the rows of each position of the flattened image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_ext.types import Array, PyTree

Path = tuple[str, ...]


class Layer(NamedTuple):
    """One hidden layer of a network's.

    Attributes:
        network: the part of the Output whose representation it is in: ``"actor"``, ``"critic"``; a shared torso's are
            ``"shared"``, and in both.
        depth: which of that representation's ``preactivations``; with a memory those of all its gates are the last.
        kernel, bias: where W ``[..., F]`` and b ``[F]`` are in the parameters; bias () where there is none.
        outgoing: where the units' outgoing weights are, each ``[..., P · F, G]`` for P positions.
        activation: by name.
        scales: where else a unit has parameters ``[F]``, such as LayerNorm's.
    """

    network: str
    depth: int
    kernel: Path
    bias: Path
    outgoing: tuple[Path, ...]
    activation: str
    scales: tuple[Path, ...] = ()


def parameter_group(name: str) -> str:
    """Which network a top-level parameter collection of an actor-critic belongs to: ``actor``, ``critic`` or itself."""
    return name.split("_")[0] if name.startswith(("actor_", "critic_")) else name


def layers(network: Any, params: PyTree) -> tuple[Layer, ...]:
    """The hidden layers of a network, in order, the policy's before the value's.

    A network of one's own has a method ``layers(params)`` that gives them.

    Raises:
        ValueError: it has none.
    """
    if not hasattr(network, "layers"):
        raise ValueError(
            f"network {type(network).__name__} has no method layers(params), which says where its units' weights are (see "
            "purejaxrl_ext.networks.structure)"
        )
    return network.layers(params)


def torso_layers(params: PyTree, network: str, name: str, outgoing: Sequence[Path], activation: str) -> list[Layer]:
    """The layers of a :class:`~purejaxrl_ext.networks.torsos.Torso` in the collection ``name``.

    Args:
        params: the whole tree.
        network: see :class:`Layer`.
        name: the collection.
        outgoing: where the last layer's outgoing weights are.
        activation: of all its layers.
    """
    inside = params["params"][name]
    kinds = [k for kind in ("PatchConv", "Dense") for k in sorted(inside, key=_number) if k.startswith(kind)]
    found = []
    for i, kind in enumerate(kinds):
        at = ("params", name, kind)
        out = [("params", name, kinds[i + 1], "kernel")] if i + 1 < len(kinds) else list(outgoing)
        norm = f"LayerNorm_{i}"
        scales = tuple(("params", name, norm, part) for part in ("scale", "bias")) if norm in inside else ()
        found.append(Layer(network, i, (*at, "kernel"), (*at, "bias"), tuple(out), activation, scales))
    return found


def get(params: PyTree, path: Path) -> Array:
    """The parameter at a path."""
    for name in path:
        params = params[name]
    return params


def put(params: PyTree, path: Path, value: Array) -> PyTree:
    """The tree with another parameter at a path."""
    if not path:
        return value
    return {**params, path[0]: put(params[path[0]], path[1:], value)}


def outgoing_rows(kernel: Array, num_units: int) -> Array:
    """Outgoing weights as ``[P, F, G]``: positions (and a convolution's window), units, and what they lead to.

    Args:
        kernel: ``[..., P · F, G]``; after a flattened image the units are the fastest of its rows.
        num_units: F.
    """
    return kernel.reshape(-1, num_units, kernel.shape[-1])


def select_units(params: PyTree, fresh: PyTree, layer: Layer, chosen: Array, *, outgoing: float | None = 0.0) -> PyTree:
    """Parameters in which the ``chosen [F]`` units have incoming weights (and scales) of ``fresh``, and outgoing ones set to a
    number (None: left alone)."""
    for path in (layer.kernel, layer.bias, *layer.scales):
        if path:
            params = put(params, path, jnp.where(_last(chosen, get(params, path)), get(fresh, path), get(params, path)))
    for path in layer.outgoing if outgoing is not None else ():
        kernel = get(params, path)
        rows = outgoing_rows(kernel, chosen.shape[0])
        changed = jnp.where(chosen[None, :, None], jnp.asarray(outgoing, kernel.dtype), rows)
        params = put(params, path, changed.reshape(kernel.shape))
    return params


def _last(x: Array, like: Array) -> Array:
    return jnp.broadcast_to(x.reshape((1,) * (like.ndim - 1) + x.shape), like.shape)


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])


def kernels(params: PyTree) -> dict[Path, Array]:
    """All weights of two axes or more, by their paths: what is decayed, clipped or projected; biases and scales are not."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {tuple(k.key for k in path): leaf for path, leaf in leaves if leaf.ndim >= 2}


def fan_in(kernel: Array) -> int:
    """How many inputs a unit of ``[..., F]`` has."""
    return int(kernel.size // kernel.shape[-1])
