"""What a tree of parameters is made of: which network and which layer each belongs to. Nobody else takes one apart.

    h_l = activation(W_l h_{l−1} + b_l),   l = 1 … L,   then the heads

A :class:`Layer` says of each hidden layer where W_l and b_l are (incoming), and where its units' outgoing weights are: the rows of
W_{l+1}, or of the heads; behind a convolution the rows of each position of the flattened image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_ext.errors import check
from purejaxrl_ext.networks.torsos import ACTIVATIONS
from purejaxrl_ext.types import Array, Output, PyTree

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
        scales: where else a unit has parameters ``[..., F]``: LayerNorm's, a second factor's, those of a skip's.
    """

    network: str
    depth: int
    kernel: Path
    bias: Path
    outgoing: tuple[Path, ...]
    activation: str
    scales: tuple[Path, ...] = ()


def networks(params: PyTree) -> dict[str, tuple[str, ...]]:
    """The top-level collections of each network, by :func:`parameter_group`.

    What is in neither, as a shared torso, belongs to both actor and critic.

    Returns:
        names by "actor" and "critic"; {} of a network whose collections are called otherwise.
    """
    if not (isinstance(params, Mapping) and "params" in params):
        return {}
    groups: dict[str, list[str]] = {}
    for name in params["params"]:
        groups.setdefault(parameter_group(name), []).append(name)
    if not {"actor", "critic"} <= set(groups):
        return {}
    common = [name for group, names in groups.items() if group not in ("actor", "critic") for name in names]
    return {group: (*common, *groups[group]) for group in ("actor", "critic")}


def pick(tree: PyTree, names: Sequence[str]) -> PyTree:
    """Some top-level collections of parameters, or of a tree like them."""
    return {name: tree["params"][name] for name in names}


def parameter_group(name: str) -> str:
    """Which network a top-level parameter collection of an actor-critic belongs to: ``actor``, ``critic`` or itself."""
    return name.split("_")[0] if name.startswith(("actor_", "critic_")) else name


def head_names(params: PyTree) -> tuple[str, ...]:
    """The top-level collections behind the features: heads, and scales that depend on no state.

    Raises:
        ValueError: none is called so.
    """
    names = tuple(name for name in params["params"] if "head" in name or "scale" in name)
    check(
        bool(names),
        "network",
        sorted(params["params"]),
        "one whose heads are called ..._head, to tell them from features",
    )
    return names


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
    blocks = sorted((k for k in inside if k.startswith("SimbaBlock")), key=_number)
    found = []
    # Of residual blocks the last dense layer makes the stream that they add to, and has no units.
    for i, kind in enumerate(kinds[:-1] if blocks else kinds):
        at = ("params", name, kind)
        out = [("params", name, kinds[i + 1], "kernel")] if i + 1 < len(kinds) else list(outgoing)
        norm, gate, skip = f"LayerNorm_{i}", f"Gate{kind}", f"Skip_{_number(kind)}"
        scales: list[Path] = []
        if norm in inside and not blocks:
            scales += [("params", name, norm, part) for part in ("scale", "bias")]
        scales += [("params", name, gate, part) for part in ("kernel", "bias")] if gate in inside else []
        scales += [("params", name, skip, "kernel")] if kind.startswith("Dense") and skip in inside else []
        found.append(Layer(network, i, (*at, "kernel"), (*at, "bias"), tuple(out), activation, tuple(scales)))
    for block in blocks:
        inner, back = ("params", name, block, "Dense_0"), ("params", name, block, "Dense_1", "kernel")
        found.append(Layer(network, len(found), (*inner, "kernel"), (*inner, "bias"), (back,), activation))
    return found


def get(params: PyTree, path: Path) -> Any:
    """The parameter at a path."""
    for name in path:
        params = params[name]
    return params


def put(params: PyTree, path: Path, value: Any) -> PyTree:
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


def unit_outputs(output: Output, found: Sequence[Layer], params: PyTree) -> list[Array]:
    """What the units of each layer say of a batch: ``[B, P, F]``, after the activation, for P positions of an image (and both signs
    of a ``"crelu"``)."""
    said = []
    for layer in found:
        representation = output.critic if layer.network == "critic" else output.actor
        width = get(params, layer.kernel).shape[-1]
        x = representation.preactivations[layer.depth]
        # Two factors lie side by side for all places; two signs, one behind the other at each place.
        x = x if layer.activation == "hadamard" else x.reshape(x.shape[0], -1, width)
        said.append(ACTIVATIONS[layer.activation](x).reshape(x.shape[0], -1, width))
    return said


def replace_units(
    params: PyTree, fresh: PyTree, found: Sequence[Layer], chosen: Sequence[Array], outgoing: float = 0.0
) -> PyTree:
    """Parameters in which some units are others: incoming weights, biases and scales of ``fresh``, outgoing weights a number.

    A weight between two of them is an outgoing one.

    Args:
        params, fresh: trees of one structure.
        found: layers.
        chosen: ``[F]`` bool of each layer.
        outgoing: the number.
    """
    for layer, which in zip(found, chosen, strict=True):
        for path in (layer.kernel, layer.bias, *layer.scales):
            if path:
                old = get(params, path)
                params = put(params, path, jnp.where(_last(which, old), get(fresh, path), old))
    for layer, which in zip(found, chosen, strict=True):
        for path in layer.outgoing:
            kernel = get(params, path)
            rows = outgoing_rows(kernel, which.shape[0])
            changed = jnp.where(which[None, :, None], jnp.asarray(outgoing, kernel.dtype), rows)
            params = put(params, path, changed.reshape(kernel.shape))
    return params


def weights_of_units(params: PyTree, found: Sequence[Layer], chosen: Sequence[Array]) -> PyTree:
    """Bools like the parameters: which of them lead to or from the ``chosen`` units; see :func:`replace_units`."""
    none = jax.tree.map(lambda x: jnp.zeros(x.shape, bool), params)
    return replace_units(none, jax.tree.map(jnp.logical_not, none), found, chosen, outgoing=True)


def _last(x: Array, like: Array) -> Array:
    return jnp.broadcast_to(x.reshape((1,) * (like.ndim - 1) + x.shape), like.shape)


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])


def map_kernels(function: Callable[..., Array], params: PyTree, *others: PyTree) -> PyTree:
    """Parameters with ``function(kernel, *others)`` in place of every weight of two axes or more: what is decayed, clipped or
    projected. Biases and scales stay."""
    return jax.tree.map(lambda x, *more: function(x, *more) if x.ndim >= 2 else x, params, *others)


def hidden_kernels(found: Sequence[Layer], params: PyTree) -> list[Array]:
    """The weights of hidden layers as matrices ``[inputs, units]``."""
    kernels = [get(params, layer.kernel) for layer in found]
    return [w.reshape(-1, w.shape[-1]) for w in kernels]


def fan_in(kernel: Array) -> int:
    """How many inputs a unit of ``[..., F]`` has."""
    return int(kernel.size // kernel.shape[-1])
