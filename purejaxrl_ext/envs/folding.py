"""Calls that leave the compiled program once for a whole batch, however many vmaps are around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import io_callback

from purejaxrl_ext.types import Array, PyTree


def folding(call: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """A function of arrays with any leading axes, which vmap hands its whole batch instead of calling it row by row.

    Arguments that a vmap does not batch are repeated along its axis, so that all of a call have the same leading axes.
    """
    folded = jax.custom_batching.custom_vmap(call)

    @folded.def_vmap
    def rule(axis_size: int, in_batched: list, *arguments: Any) -> tuple[Any, Any]:
        def spread(x: Array, batched: bool) -> Array:
            return x if batched else jnp.broadcast_to(x[None], (axis_size, *x.shape))

        out = folded(*jax.tree.map(spread, arguments, tuple(in_batched)))
        return out, jax.tree.map(lambda _: True, out)

    return folded


def on_host(
    function: Callable[..., PyTree], kinds: PyTree, check: Callable[[tuple[int, ...]], None]
) -> Callable[..., PyTree]:
    """A function of scalars, computed on the host for the whole batch by one callback.

    It is not an ordered callback, which would admit one device alone, and no vmap: order must follow from the data. And not a
    pure one, which XLA may call twice or drop.

    Args:
        function: takes numpy arrays ``[...]``, gives arrays ``[..., *shape]``.
        kinds: shapes and dtypes of what it gives for one row.
        check: is told the leading axes ``[...]`` when the call is traced; raises where they do not fit.
    """

    def call(*arguments: PyTree) -> PyTree:
        lead = jax.tree.leaves(arguments)[0].shape
        check(lead)
        out = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype), kinds)
        return io_callback(function, out, *arguments)

    return folding(call)
