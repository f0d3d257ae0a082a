"""Many small arrays side by side in a few: what a loop carries, what it leaves behind, and the samples of its minibatches.

On an accelerator each array that a loop's body writes is a kernel of its own, whose launch takes longer than writing a few
numbers; a step of CartPole would write twenty. Packed, it writes one or two. Numbers are moved, never converted: a packed
loop gives the same bits.

    words   leaves of 4 bytes a number, and a few of 1 byte, as columns of one int32 array; a scalar as a column of equal numbers
    bytes   leaves of 1 byte a number, as columns of one uint8 array
    alone   leaves that are wide, which pay for a kernel of their own and would cost a copy to take out again; and others
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_ext.devices import launches_cost
from purejaxrl_ext.types import Array, Metrics, PyTree

WIDE = 64  # columns from which on a leaf is alone
NARROW = 16  # columns below which a sample's leaf is laid out for all minibatches
FEW = 16  # columns of bytes that go with the words


class Column(NamedTuple):
    """Where leaf number ``leaf`` is, ``[L, ...]``: its columns, the shape behind L (None: a scalar), its type."""

    leaf: int
    start: int
    end: int
    shape: tuple[int, ...] | None
    dtype: Any


class Packing(NamedTuple):
    """How leaves that share their first axis lie side by side.

    Attributes:
        treedef: of the tree.
        length: L.
        groups: of each group its name and the places of its leaves.
        alone: the numbers of the other leaves.
    """

    treedef: Any
    length: int
    groups: tuple[tuple[str, tuple[Column, ...]], ...]
    alone: tuple[int, ...]

    def pack(self, tree: PyTree) -> tuple[dict[str, Array], list[Array]]:
        """One array ``[L, C]`` of each group, and the leaves that are alone."""
        leaves = self.treedef.flatten_up_to(tree)
        packed = {
            group: jnp.concatenate([_raw(leaves[c.leaf], self.length, _CARRIERS[group]) for c in columns], axis=1)
            for group, columns in self.groups
        }
        return packed, [leaves[i] for i in self.alone]

    def unpack(self, packed: tuple[dict[str, Array], list[Array]]) -> PyTree:
        """The tree; leading axes before L are kept."""
        arrays, alone = packed
        leaves = dict(zip(self.alone, alone, strict=True))
        for group, columns in self.groups:
            leaves |= {c.leaf: _cooked(arrays[group][..., c.start : c.end], c) for c in columns}
        return self.treedef.unflatten([leaves[i] for i in range(len(leaves))])


# Signed words: XLA 0.10 for GPUs cannot compile some fusions that reinterpret unsigned ones (PPO on images, 4 runs).
_CARRIERS = {"words": jnp.int32, "bytes": jnp.uint8}


def packing(tree: PyTree, length: int, wide: int = WIDE) -> Packing:
    """How to pack a tree, whose leaves ``[length, ...]`` go together; others, and those of ``wide`` columns, are alone."""
    leaves, treedef = jax.tree.flatten(tree)
    kinds = [_kind(x, length, wide) for x in leaves]
    if sum(_width(x) for x, kind in zip(leaves, kinds, strict=True) if kind == "bytes") <= FEW:
        kinds = ["words" if kind == "bytes" else kind for kind in kinds]
    groups = []
    for group in _CARRIERS:
        chosen, start = [i for i, kind in enumerate(kinds) if kind == group], 0
        columns = []
        for i in chosen:
            x, end = leaves[i], start + _width(leaves[i])
            columns.append(Column(i, start, end, x.shape[1:] if x.ndim else None, jnp.dtype(x.dtype)))
            start = end
        # One leaf by itself is as good as packed.
        if len(chosen) > 1:
            groups.append((group, tuple(columns)))
    packed = {c.leaf for _, columns in groups for c in columns}
    return Packing(treedef, length, tuple(groups), tuple(i for i in range(len(leaves)) if i not in packed))


def _width(x: Array) -> int:
    return math.prod(x.shape[1:])


def _kind(x: Array, length: int, wide: int) -> str:
    if wide == 0 or (x.ndim and (x.shape[0] != length or not 0 < _width(x) < wide)):
        return "alone"
    if x.dtype in (jnp.float32, jnp.int32, jnp.uint32):
        return "words"
    return "bytes" if x.dtype in (jnp.bool_, jnp.uint8) else "alone"


def _raw(x: Array, length: int, carrier: Any) -> Array:
    """A leaf as columns ``[L, C]`` of the carrier."""
    flat = x.reshape(length, -1) if x.ndim else jnp.broadcast_to(x, (length, 1))
    return flat.astype(carrier) if x.dtype.itemsize == 1 else jax.lax.bitcast_convert_type(flat, carrier)


def _cooked(columns: Array, column: Column) -> Array:
    """The reverse."""
    few_bits = column.dtype.itemsize == 1
    flat = columns.astype(column.dtype) if few_bits else jax.lax.bitcast_convert_type(columns, column.dtype)
    return flat[..., 0, 0] if column.shape is None else flat.reshape(*columns.shape[:-1], *column.shape)


def scan(
    body: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]], carry: PyTree, xs: PyTree, length: int
) -> tuple[PyTree, PyTree]:
    """``jax.lax.scan`` over something that comes ``length`` times side by side, such as environments: what it carries, and what
    it leaves of each step, with leaves ``[length, ...]``, is packed meanwhile; not on a CPU."""
    if not launches_cost():
        return jax.lax.scan(body, carry, xs)
    if jax.tree.leaves(xs)[0].shape[0] == 1:
        # What is around it may carry the same packed.
        after, y = body(carry, jax.tree.map(lambda x: x[0], xs))
        return after, jax.tree.map(lambda x: x[None], y)
    carried, left = packing(carry, length), list[Packing]()

    def packed_body(packed: Any, x: PyTree) -> tuple[Any, Any]:
        after, y = body(carried.unpack(packed), x)
        left[:] = [packing(y, length)]
        return carried.pack(after), left[0].pack(y)

    packed, ys = jax.lax.scan(packed_body, carried.pack(carry), xs)
    return carried.unpack(packed), left[0].unpack(ys)


def metrics_scan(
    body: Callable[[PyTree, PyTree], tuple[PyTree, tuple[Metrics, PyTree]]], carry: PyTree, xs: PyTree, length: int = 0
) -> tuple[PyTree, tuple[Metrics, PyTree]]:
    """``jax.lax.scan`` whose body gives metrics and something else; the mean of each metric, whatever its shape, is written with
    the others at once. What is carried is packed as by :func:`scan` where ``length`` is given."""
    names: list[str] = []
    carried = packing(carry, length, wide=WIDE if launches_cost() and length else 0)

    def packed_body(carry: PyTree, x: PyTree) -> tuple[PyTree, tuple[Array, PyTree]]:
        after, (logged, more) = body(carried.unpack(carry), x)
        names[:] = logged
        return carried.pack(after), (jnp.stack([x.mean(dtype=jnp.float32) for x in logged.values()]), more)

    after, (logged, more) = jax.lax.scan(packed_body, carried.pack(carry), xs)
    return carried.unpack(after), ({name: logged[..., i] for i, name in enumerate(names)}, more)


class Deck:
    """Samples from which minibatches are dealt: what is narrow is laid out in the order of all of them beforehand, so that a
    minibatch begins with no kernel that gathers; what is wide is gathered when it is due."""

    def __init__(self, samples: PyTree, count: int) -> None:
        self.packing = packing(samples, count, wide=NARROW if launches_cost() else 0)
        self.packed = self.packing.pack(samples)

    def deal(self, indices: Array) -> dict[str, Array]:
        """The narrow columns of minibatches ``[M, B]`` of indices: ``[M, B, C]`` by group."""
        return {group: columns[indices] for group, columns in self.packed[0].items()}

    def part(self, index: Array, dealt: dict[str, Array]) -> PyTree:
        """The minibatch ``[B]``."""
        return self.packing.unpack((dealt, [x[index] for x in self.packed[1]]))
