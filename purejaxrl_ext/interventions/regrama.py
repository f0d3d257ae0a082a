"""ReGraMa (Liu et al. 2025, arXiv 2505.24061): units that hardly learn begin anew, whatever they say.

    s_i = E|∂L/∂W_i| / mean_j E|∂L/∂W_j|  ≤ τ      W_i the incoming weights of unit i; over the gradient steps since the last look
    incoming weights, bias, scale ← fresh ones;  outgoing weights ← 0;  moments and step counts of all these ← 0

at the end of every k-th update: ``regrama_every`` is k (infinite: never), ``regrama_tau`` τ. The gradients are those that the
optimiser was given, penalties and clipping included, so nothing is computed twice; they are kept beside its moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from purejaxrl_ext.interventions import moments
from purejaxrl_ext.interventions.base import Context, Intervention
from purejaxrl_ext.networks.structure import Layer, get
from purejaxrl_ext.types import Array, Learner, Metrics, Net, PyTree, hparam


class Gradients(NamedTuple):
    """Σ|g| since the last look; a tree like the parameters."""

    total: PyTree


def record(inner: optax.GradientTransformation, hparams: Any = None) -> optax.GradientTransformation:
    """An optimiser that keeps the sizes of the gradients that it is given."""

    def update(grads: PyTree, state: Gradients, params: PyTree = None) -> tuple[PyTree, Gradients]:
        return grads, Gradients(jax.tree.map(lambda total, g: total + jnp.abs(g), state.total, grads))

    first = optax.GradientTransformation(lambda params: Gradients(jax.tree.map(jnp.zeros_like, params)), update)
    return optax.chain(first, inner)


def recorded(opt_state: PyTree, params: PyTree) -> PyTree:
    """Σ|g| as a tree like the parameters, also where each network has an optimiser of its own."""
    kept = moments.states(opt_state, Gradients)
    return moments.whole({name: x.total for name, x in kept.items()}, params)


def forgotten(opt_state: PyTree) -> PyTree:
    """The optimiser's state with no gradients kept."""
    return moments.map_states(lambda x: jax.tree.map(jnp.zeros_like, x), opt_state, Gradients)


def scores(total: Array) -> Array:
    """s ``[F]`` of the incoming weights' gradients ``[..., F]``; 0 of all where none is given any."""
    size = total.reshape(-1, total.shape[-1]).mean(0)
    return size / (size.mean() + 1e-30)


def recycle(net: Net, learner: Learner, samples: PyTree, context: Context) -> tuple[Learner, Metrics]:
    """Begin units anew where it is due; ``regrama_units``: how many."""

    def still(found: Sequence[Layer]) -> list[Array]:
        grads = recorded(learner.opt_state, learner.params)
        return [scores(get(grads, layer.kernel)) <= context.hparams.regrama_tau for layer in found]

    def forget(renewed: Learner) -> Learner:
        return renewed.replace(opt_state=forgotten(renewed.opt_state))

    every = context.hparams.regrama_every
    return moments.renew_where_due("regrama_units", net, learner, context, every, still, forget)


REGRAMA = Intervention(
    "regrama",
    {"regrama_every": hparam(10.0, 1.0, whole=True), "regrama_tau": hparam(0.025, 0.0)},
    after=recycle,
    optimizer=lambda optimizer: moments.around(moments.aged(optimizer), record),
)
