"""The optimiser: global-norm clipping, then Adam, rebuilt from traced settings inside every step; only its state is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from purejaxrl_ext.networks.layers import parameter_group
from purejaxrl_ext.types import Array, PyTree


def anneal(learning_rate: Array, anneal_steps: Array, env_steps: Array) -> Array:
    """α · max(0, 1 − env_steps / anneal_steps); α where ``anneal_steps`` is 0."""
    share = jnp.maximum(0.0, 1.0 - env_steps / jnp.maximum(anneal_steps, 1.0))
    return learning_rate * jnp.where(anneal_steps > 0, share, 1.0)


def adam(hparams: Any, learning_rate: Array) -> optax.GradientTransformation:
    """Clip by global norm (not by element), then Adam (Kingma & Ba 2015), then −α."""
    return optax.chain(
        optax.clip_by_global_norm(hparams.max_grad_norm),
        optax.scale_by_adam(hparams.adam_b1, hparams.adam_b2, hparams.adam_eps),
        optax.scale_by_learning_rate(learning_rate),
    )


def split_networks(params: PyTree) -> dict[str, PyTree]:
    """The parameters of each network on its own, by :func:`~purejaxrl_ext.networks.layers.parameter_group`."""
    groups: dict[str, dict[str, PyTree]] = {}
    for name, value in params["params"].items():
        groups.setdefault(parameter_group(name), {})[name] = value
    return groups


def init(hparams: Any, params: PyTree, separate: bool) -> PyTree:
    """Adam's state, one for all or one per network."""
    transform = adam(hparams, jnp.zeros(()))
    if not separate:
        return transform.init(params)
    return {name: transform.init(group) for name, group in split_networks(params).items()}


def apply(
    grads: PyTree, opt_state: PyTree, params: PyTree, hparams: Any, learning_rate: Array, separate: bool
) -> tuple[PyTree, PyTree, Array]:
    """One step of the optimiser: new parameters, new state, and the gradients' global norm before clipping."""
    update: Callable = adam(hparams, learning_rate).update
    norm = optax.tree.norm(grads)
    if not separate:
        updates, opt_state = update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, norm
    groups = split_networks(grads)
    stepped = {name: update(group, opt_state[name]) for name, group in groups.items()}
    updates = {"params": {k: v for group, _ in stepped.values() for k, v in group.items()}}
    new_params = jax.tree.map(jnp.add, params, updates)
    return new_params, {name: state for name, (_, state) in stepped.items()}, norm
