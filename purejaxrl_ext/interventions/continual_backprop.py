"""Continual backpropagation (Dohare et al. 2024, arXiv 2306.13812): the least useful units are replaced, a few at a time.

    u_i ← η u_i + (1 − η) E|h_i| Σ|w_out,i| / Σ|w_in,i|      usefulness, once per update over a sample of its data
    the n mature units of smallest u in each hidden layer, n adding up to ρ of the mature ones per update:
        biases behind it += w_out,i E h_i                     what it said on average is not lost
        incoming weights, bias, scale ← fresh;  outgoing weights ← 0;  moments, step counts, age and u ← 0

A unit is mature m updates after it was made. ``continual_backprop_rate`` is ρ (0: never), ``continual_backprop_decay`` η,
``continual_backprop_maturity`` m. The paper acts at each gradient step, with ρ of 1e-4 or so; an update has many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_ext.interventions import moments
from purejaxrl_ext.interventions.base import Context, Intervention
from purejaxrl_ext.networks.structure import Layer, get, outgoing_rows, put, unit_outputs
from purejaxrl_ext.types import Array, Learner, Metrics, Net, PyTree, hparam


class Units(NamedTuple):
    """What is kept of the units of one kernel ``[..., F]``: usefulness ``[F]``, updates since they were made ``[F]``, and the
    share of a unit that is still to be replaced."""

    useful: Array
    age: Array
    due: Array


def begin(key: Array, params: PyTree) -> PyTree:
    """:class:`Units` of every weight of two axes or more."""

    def first(w: Array) -> Units:
        return Units(jnp.zeros(w.shape[-1]), jnp.zeros(w.shape[-1]), jnp.zeros(())) if w.ndim >= 2 else ()  # type: ignore[return-value]

    return jax.tree.map(first, params)


def usefulness(said: Array, kernel: Array, outgoing: Sequence[Array]) -> Array:
    """E|h_i| Σ|w_out,i| / Σ|w_in,i| ``[F]`` of what units said ``[B, P, F]``, their incoming weights ``[..., F]`` and outgoing rows
    ``[P, F, G]``."""
    incoming = jnp.abs(kernel).reshape(-1, kernel.shape[-1]).sum(0)
    spoken_of = sum((jnp.abs(rows).sum((0, 2)) for rows in outgoing), jnp.zeros(kernel.shape[-1]))
    return jnp.abs(said).mean((0, 1)) * spoken_of / (incoming + 1e-8)


def followed(units: Units, now: Array, context: Context) -> tuple[Units, Array]:
    """The units an update later, and which ``[F]`` of them are replaced."""
    hparams = context.hparams
    decay, age = hparams.continual_backprop_decay, units.age + 1.0
    useful = decay * units.useful + (1.0 - decay) * now
    mature = age > hparams.continual_backprop_maturity
    due = units.due + hparams.continual_backprop_rate * mature.sum()
    # Of the corrected average, or young units would seem useless.
    corrected = useful / (1.0 - decay**age)
    order = jnp.argsort(jnp.argsort(jnp.where(mature, corrected, jnp.inf)))
    chosen = mature & (order < jnp.floor(due))
    left = jnp.where(chosen, 0.0, useful), jnp.where(chosen, 0.0, age), due - jnp.floor(due)
    return Units(*left), chosen


def correct_biases(params: PyTree, found: Sequence[Layer], chosen: Sequence[Array], said: Sequence[Array]) -> PyTree:
    """Biases behind the ``chosen`` units with what those said on average, over the batch ``[B, P, F]``, in them."""
    for layer, which, spoken in zip(found, chosen, said, strict=True):
        mean = jnp.where(which[None], spoken.mean(0), 0.0)
        for path in layer.outgoing:
            rows, bias = outgoing_rows(get(params, path), len(which)), (*path[:-1], "bias")
            if "bias" in get(params, path[:-1]):
                # A convolution's window sees units at places that change: of each, the mean over places.
                at = mean if len(rows) == len(mean) else jnp.broadcast_to(mean.mean(0)[None], rows.shape[:2])
                params = put(params, bias, get(params, bias) + jnp.einsum("pf,pfg->g", at, rows))
    return params


def replace(net: Net, learner: Learner, samples: PyTree, context: Context) -> tuple[Learner, Metrics]:
    """Replace the least useful units; ``continual_backprop_units``: how many."""
    params, found, memory = learner.params, net.layers(learner.params), learner.memory
    said = unit_outputs(net.evaluate(params, samples)[0], found, params)
    chosen: list[Array] = []
    for layer, spoken in zip(found, said, strict=True):
        kernel = get(params, layer.kernel)
        rows = [outgoing_rows(get(params, path), kernel.shape[-1]) for path in layer.outgoing]
        units, which = followed(get(memory, layer.kernel), usefulness(spoken, kernel, rows), context)
        memory = put(memory, layer.kernel, units)
        chosen.append(which)
    corrected = learner.replace(params=correct_biases(params, found, chosen, said), memory=memory)
    learner = moments.renew_units(net, corrected, context.key, found, chosen)
    return learner, {"continual_backprop_units": moments.count(chosen).astype(jnp.float32)}


CONTINUAL_BACKPROP = Intervention(
    "continual_backprop",
    {
        "continual_backprop_rate": hparam(0.01, 0.0, 1.0),
        "continual_backprop_decay": hparam(0.9, 0.0, 1.0, open_high=True),
        "continual_backprop_maturity": hparam(10.0, 0.0),
    },
    init=begin,
    after=replace,
    optimizer=moments.aged,
)
