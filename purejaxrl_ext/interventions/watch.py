"""Watch: changes nothing, and logs of each update what only hooks see: how large weights, gradients and steps are.

    weight_norm         ‖θ‖                                          at the end of the update
    init_distance       ‖θ − θ₀‖
    update_norm         ‖θ − θ before the update‖
    step_norm           mean ‖step of the optimiser‖                 over the update's gradient steps
    clipped_grad_norm   mean ‖gradient as the optimiser is given it‖, after clipping (``grad_norm`` is before)
    gradient_dormant    share of hidden units i whose s_i = E|∂L/∂W_i| / mean_j E|∂L/∂W_j| ≤ 0.025     (Liu et al. 2025, 2505.24061)

of all parameters, and with ``actor_`` or ``critic_`` in front of each network's. Where each has an optimiser of its own, steps and
clipped gradients are of those alone. ``gradient_dormant`` is of networks that say where their layers are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from purejaxrl_ext.interventions import moments, regrama
from purejaxrl_ext.interventions.base import Context, Intervention
from purejaxrl_ext.networks.structure import get, networks, pick
from purejaxrl_ext.types import Array, Learner, Metrics, Net, PyTree

DORMANT = 0.025


class Steps(NamedTuple):
    """What has gone through the optimiser since the last look: steps, Σ‖g‖ and Σ‖step‖ by network, and Σ|g| like the parameters."""

    number: Array
    grads: dict[str, Array]
    steps: dict[str, Array]
    sizes: PyTree


class Kept(NamedTuple):
    """Parameters at the start of training, and at the start of the update."""

    first: PyTree
    before: PyTree


def norms(tree: PyTree) -> dict[str, Array]:
    """‖·‖ of all (``""``) and of each network, ``"actor_"`` and ``"critic_"``."""
    return {"": optax.tree.norm(tree)} | {
        f"{name}_": optax.tree.norm(pick(tree, names)) for name, names in networks(tree).items()
    }


def watched(inner: optax.GradientTransformation, hparams: Any = None) -> optax.GradientTransformation:
    """An optimiser whose gradients and steps are noted."""

    def init(params: PyTree) -> tuple[Steps, PyTree]:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return Steps(jnp.zeros(()), norms(zeros), norms(zeros), zeros), inner.init(params)

    def update(grads: PyTree, state: tuple[Steps, PyTree], params: PyTree = None) -> tuple[PyTree, tuple]:
        seen, inside = state
        steps, inside = inner.update(grads, inside, params)
        sizes = jax.tree.map(lambda total, g: total + jnp.abs(g), seen.sizes, grads)
        totals = [jax.tree.map(jnp.add, old, norms(x)) for old, x in ((seen.grads, grads), (seen.steps, steps))]
        return steps, (Steps(seen.number + 1.0, totals[0], totals[1], sizes), inside)

    return optax.GradientTransformation(init, update)


def note(net: Net, learner: Learner, context: Context) -> Learner:
    """The parameters as they are before the update."""
    return learner.replace(memory=learner.memory._replace(before=learner.params))


def log(net: Net, learner: Learner, samples: PyTree, context: Context) -> tuple[Learner, Metrics]:
    """All of the above; what was noted begins anew."""
    params, kept = learner.params, learner.memory
    logged = {f"{name}weight_norm": x for name, x in norms(params).items()}
    for what, since in (("init_distance", kept.first), ("update_norm", kept.before)):
        logged |= {f"{n}{what}": x for n, x in norms(jax.tree.map(jnp.subtract, params, since)).items()}
    seen = moments.states(learner.opt_state, Steps)
    for network, steps in seen.items():
        for what, totals in (("clipped_grad_norm", steps.grads), ("step_norm", steps.steps)):
            own = f"{network}_" if network else ""
            logged |= {f"{own}{name}{what}": total / steps.number for name, total in totals.items()}
    logged |= gradient_dormant(net, moments.whole({n: x.sizes for n, x in seen.items()}, params), params)
    opt_state = moments.map_states(lambda x: jax.tree.map(jnp.zeros_like, x), learner.opt_state, Steps)
    return learner.replace(opt_state=opt_state), logged


def gradient_dormant(net: Net, sizes: PyTree, params: PyTree) -> Metrics:
    """Shares of units that hardly learn, by network; a shared torso's are ``"shared_"``."""
    try:
        found = net.layers(params)
    except ValueError:
        return {}
    still: dict[str, list[Array]] = {}
    for layer in found:
        still.setdefault(layer.network, []).append(regrama.scores(get(sizes, layer.kernel)) <= DORMANT)
    return {f"{name}_gradient_dormant": jnp.concatenate(units).mean() for name, units in still.items()}


WATCH = Intervention(
    "watch",
    init=lambda key, params: Kept(params, params),
    before=note,
    after=log,
    optimizer=lambda optimizer: moments.around(optimizer, watched),
)
