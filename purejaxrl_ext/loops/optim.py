"""The optimiser: global-norm clipping, then Adam or another, rebuilt from traced settings inside every step; only its state
is kept. What takes that apart is :mod:`purejaxrl_ext.interventions.moments`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from purejaxrl_ext.errors import check
from purejaxrl_ext.loops.layouts import AS_THEY_ARE, Trees
from purejaxrl_ext.networks.structure import networks, pick
from purejaxrl_ext.types import Array, Metrics, PyTree

Optimizer = Callable[[Any, Array], optax.GradientTransformation]


def adam(
    hparams: Any, learning_rate: Array, scale_by_adam: Callable[..., Any] = optax.scale_by_adam
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015, algorithm 1); by another ``scale_by_adam`` where an intervention gives one."""
    return optax.chain(
        scale_by_adam(hparams.adam_b1, hparams.adam_b2, hparams.adam_eps),
        optax.scale_by_learning_rate(learning_rate),
    )


def adamw(
    hparams: Any, learning_rate: Array, scale_by_adam: Callable[..., Any] = optax.scale_by_adam
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2)."""
    return optax.chain(
        scale_by_adam(hparams.adam_b1, hparams.adam_b2, hparams.adam_eps),
        optax.add_decayed_weights(hparams.weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def radam(hparams: Any, learning_rate: Array) -> optax.GradientTransformation:
    """Rectified Adam (Liu et al. 2020, algorithm 2)."""
    return optax.chain(
        optax.scale_by_radam(hparams.adam_b1, hparams.adam_b2, hparams.adam_eps),
        optax.scale_by_learning_rate(learning_rate),
    )


def rmsprop(hparams: Any, learning_rate: Array) -> optax.GradientTransformation:
    """RMSProp (Tieleman & Hinton 2012, lecture 6e); its decay is ``adam_b2``, its ε inside the root ``adam_eps``."""
    return optax.chain(
        optax.scale_by_rms(decay=hparams.adam_b2, eps=hparams.adam_eps), optax.scale_by_learning_rate(learning_rate)
    )


def sgd(hparams: Any, learning_rate: Array) -> optax.GradientTransformation:
    """θ ← θ − α g."""
    return optax.scale_by_learning_rate(learning_rate)


OPTIMIZERS: dict[str, Optimizer] = {
    "adam": adam,
    "adamw": adamw,
    "radam": radam,
    "rmsprop": rmsprop,
    "sgd": sgd,
}

# Those that step a number of the parameters without regard to what array it is in: they step vectors as they do trees.
ELEMENTWISE = tuple(OPTIMIZERS.values())


def clip(grads: PyTree, max_grad_norm: Array, norm: Array | None = None) -> PyTree:
    """Scale gradients down to a global norm (not element by element), if theirs, ``norm``, is larger."""
    norm = optax.tree.norm(grads) if norm is None else norm
    return jax.tree.map(lambda x: jnp.where(norm < max_grad_norm, x, x / norm * max_grad_norm), grads)


def init(optimizer: Optimizer, hparams: Any, params: PyTree, separate: bool) -> PyTree:
    """The optimiser's state: one for all parameters, or one per network.

    Raises:
        ValueError: ``separate`` for a network whose top-level collections are not called ``actor_...`` and ``critic_...``.
    """
    transform = optimizer(hparams, jnp.zeros(()))
    if not separate:
        return transform.init(params)
    groups = networks(params)
    known = sorted(params["params"])
    allowed = f"False for a network without actor_... and critic_... among its parameters {known}"
    check(bool(groups), "separate_optimizers", True, allowed)
    return {name: transform.init(pick(params, names)) for name, names in groups.items()}


class Step(NamedTuple):
    """What one step of the optimiser made.

    Attributes:
        params, opt_state: afterwards.
        norms: ``grad_norm`` of all gradients before clipping, and ``actor_grad_norm`` and ``critic_grad_norm`` of each network.
    """

    params: PyTree
    opt_state: PyTree
    norms: Metrics


def apply(
    optimizer: Optimizer,
    grads: PyTree,
    opt_state: PyTree,
    params: PyTree,
    hparams: Any,
    learning_rate: Array,
    separate: bool,
    lying: Trees = AS_THEY_ARE,
) -> Step:
    """One step of the optimiser, of parameters that lie in some layout.

    With ``separate`` each network has its own clipping and moments. A shared torso is in both, as in Moalla et al.'s code:
    clipped with the one and then with the other, and stepped twice.
    """
    update = optimizer(hparams, learning_rate).update
    norms = lying.norms(grads)
    # The learning rate of the critic, if it has one of its own.
    ratio = jnp.where(hparams.critic_learning_rate > 0, hparams.critic_learning_rate / hparams.learning_rate, 1.0)
    if not separate:
        updates, opt_state = update(clip(grads, hparams.max_grad_norm, norms["grad_norm"]), opt_state, params)
        return Step(optax.apply_updates(params, lying.scaled_critic(updates, ratio)), opt_state, norms)
    groups = networks(params)
    left, after, states = dict(grads["params"]), dict(params["params"]), {}
    for names in groups.values():
        # In place, as PyTorch has it: the second clipping sees what the first one left of a shared gradient.
        left |= clip({k: left[k] for k in names}, hparams.max_grad_norm)
    for name, names in groups.items():
        updates, states[name] = update({k: left[k] for k in names}, opt_state[name], pick(params, names))
        updates = jax.tree.map(lambda x: x * ratio, updates) if name == "critic" else updates
        after |= optax.apply_updates({k: after[k] for k in names}, updates)
    return Step({**params, "params": after}, states, norms)
