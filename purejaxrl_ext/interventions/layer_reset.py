"""Layer resets (Nikishin et al. 2022, arXiv 2205.07802): the last layers begin anew, and the rest teaches them.

    heads and the last n − 1 hidden layers of each network ← fresh ones, with moments and step counts 0

at the end of every k-th update: ``layer_reset_every`` is k (infinite: never), ``layer_reset_count`` n (infinite: all of them, a
fresh network). The paper resets the last layer of DQN-like agents, and all of small ones, every so many steps, and goes on learning
from the replay; without one, as in PPO, a reset policy collects the next data. A memory, and a target network, stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from purejaxrl_ext.interventions import moments
from purejaxrl_ext.interventions.base import Context, Intervention, is_due, when
from purejaxrl_ext.networks.structure import Layer, get, head_names, put
from purejaxrl_ext.types import Array, Learner, Metrics, Net, PyTree, hparam


def last_layers(params: PyTree, found: Sequence[Layer], count: Array | float) -> PyTree:
    """Bools like the parameters: whether they are in one of the last ``count`` layers, heads being the last."""
    heads = head_names(params)
    chosen = {
        **jax.tree.map(lambda x: jnp.zeros(x.shape, bool), params),
        "params": {
            name: jax.tree.map(lambda x, head=name in heads: jnp.full(x.shape, head & (count >= 1)), tree)
            for name, tree in params["params"].items()
        },
    }
    depth = {layer.network: layer.depth + 1 for layer in found}
    for layer in found:
        inside = depth[layer.network] - layer.depth < count
        for path in (layer.kernel, layer.bias, *layer.scales):
            if path:
                chosen = put(chosen, path, jnp.full(get(params, path).shape, inside))
    return chosen


def reset(net: Net, learner: Learner, samples: PyTree, context: Context) -> tuple[Learner, Metrics]:
    """Fresh last layers, where it is due."""

    def change(learner: Learner) -> Learner:
        params = learner.params
        chosen = last_layers(params, net.layers(params), context.hparams.layer_reset_count)
        fresh = net.init(context.key)
        return learner.replace(
            params=jax.tree.map(jnp.where, chosen, fresh, params),
            opt_state=moments.restart(learner.opt_state, params, chosen),
        )

    return when(is_due(context.update, context.hparams.layer_reset_every), change, learner), {}


LAYER_RESET = Intervention(
    "layer_reset",
    {"layer_reset_every": hparam(100.0, 1.0, whole=True), "layer_reset_count": hparam(1.0, 1.0, whole=True)},
    after=reset,
    optimizer=moments.aged,
)
