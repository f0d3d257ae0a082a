"""Reductions over a last axis of a few entries, such as actions: entry by entry.

XLA takes elementwise functions for one kernel with all that is around them; a reduction over a short axis is a kernel of its own on
an accelerator, and a gather's gradient a scatter. A longer axis is reduced as usual. Values are the same, ties included.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_ext.devices import launches_cost
from purejaxrl_ext.types import Array

FEW = 8  # entries, up to which an axis is short


def is_short(x: Array) -> bool:
    """Whether the last axis is."""
    return x.shape[-1] <= FEW


def entries(x: Array) -> list[Array]:
    """``[..., A]`` as A arrays ``[...]``."""
    return [x[..., a] for a in range(x.shape[-1])]


def largest(x: Array) -> Array:
    """max_a x_a ``[...]``."""
    return functools.reduce(jnp.maximum, entries(x)) if is_short(x) else x.max(axis=-1)


def argmax(x: Array) -> Array:
    """argmax_a x_a ``[...]`` int32: the first of equal ones."""
    if not is_short(x):
        return jnp.argmax(x, axis=-1).astype(jnp.int32)
    best, index = x[..., 0], jnp.zeros(x.shape[:-1], jnp.int32)
    for a, entry in enumerate(entries(x)[1:], start=1):
        # As jnp.argmax: NaN is larger than any number.
        better = (entry > best) | (jnp.isnan(entry) & ~jnp.isnan(best))
        best, index = jnp.where(better, entry, best), jnp.where(better, a, index)
    return index


def pick(x: Array, index: Array) -> Array:
    """x_index ``[...]``, where ``index`` is ``[...]``."""
    return pick_entry(entries(x), index) if is_short(x) else jnp.take_along_axis(x, index[..., None], axis=-1)[..., 0]


def pick_entry(of: Sequence[Array], index: Array) -> Array:
    """The same of entries ``[...]``."""
    chosen = of[0]
    for a, entry in enumerate(of[1:], start=1):
        chosen = jnp.where(index == a, entry, chosen)
    return chosen


def log_softmax_entries(x: Array) -> list[Array]:
    """x_a − log Σ_b exp x_b of each entry, ``[...]``."""
    shift = jax.lax.stop_gradient(largest(x))
    shifted = [entry - shift for entry in entries(x)]
    log_total = jnp.log(functools.reduce(jnp.add, [jnp.exp(entry) for entry in shifted]))
    return [entry - log_total for entry in shifted]


def product(x: Array, kernel: Array, dimension_numbers: Any, **options: Any) -> Array:
    """``x [..., B, I] @ kernel [..., I, F]``, as flax's ``dot_general``; of a few inputs or outputs as sums of products, which XLA
    takes together with what is before and behind them, where a matrix product is a kernel of its own. Not on a CPU."""
    if launches_cost() and kernel.shape[-2] <= FEW:
        rows = [kernel[..., i, :] for i in range(kernel.shape[-2])]
        terms = [x[..., i, None] * _before_last(row, x.ndim) for i, row in enumerate(rows)]
        return functools.reduce(jnp.add, terms)
    if launches_cost() and kernel.shape[-1] <= FEW:
        return jnp.stack(output_entries(x, kernel), axis=-1)
    return jax.lax.dot_general(x, kernel, dimension_numbers, **options)


def output_entries(x: Array, kernel: Array) -> list[Array]:
    """The entries ``[..., B]`` of ``x [..., B, I] @ kernel [..., I, F]``."""
    if not is_short(kernel):
        return entries(x @ kernel)
    return [(x * _before_last(kernel[..., w], x.ndim)).sum(-1) for w in range(kernel.shape[-1])]


def _before_last(x: Array, ndim: int) -> Array:
    """``[..., F]`` with axes of 1 before the last, so that it has ``ndim``."""
    return x.reshape(*x.shape[:-1], *(1,) * (ndim - x.ndim), x.shape[-1])
