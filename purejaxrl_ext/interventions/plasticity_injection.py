"""Plasticity injection (Nikishin et al. 2023, arXiv 2305.15555): what has been learned is frozen, and fresh weights go on from it.

    out = f_θ                                       before
    out = f_θ (frozen) + g_φ − g_φ₀ (frozen)        from the injection on; φ starts at φ₀, so that nothing that is said changes then

after update ``plasticity_injection_at`` (infinite: never) φ₀ is drawn, and the optimiser forgets. f and g are the dense layers and
heads; convolutions are the encoder that all three share, and go on learning. Logits, means, log scales, values and action values
are added up so; the features of the Output are f's before and g's after. Throughout, all three are computed; before the injection
what is learned is what is learned without it to the last bits, since XLA fuses the sums another way.

Of networks of one's own, memories and distributions of returns it does not know how to add up what they say.

Raises:
    ValueError: another network than the default feed-forward ones; an intervention that asks for the network's layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_ext.errors import check
from purejaxrl_ext.interventions.base import Context, Intervention, when
from purejaxrl_ext.networks import ActorCritic, Gaussian, QNetwork, TanhGaussian
from purejaxrl_ext.types import Array, Learner, Metrics, Net, Output, PyTree, hparam

SUMS = ("new", "copy")
GATE = "injected"


@dataclass(frozen=True)
class Injected:
    """A network, the fresh copy of it that learns after the injection, and what that one said at first.

    Attributes:
        network: f. Its collections keep their names, so that each still belongs to the actor or the critic; g's have ``_new`` and
            ``_copy`` behind them, and ``injected`` is 1 after the injection.
    """

    network: Any

    def init(self, key: Array, obs: Array) -> PyTree:
        """f's parameters, and those of g, which are nothing's until the injection."""
        params = self.network.init(key, obs)
        return with_copies(params, params, jnp.zeros(()))

    def apply(self, params: PyTree, obs: Array) -> Output:
        """The sum."""
        gate = jax.lax.stop_gradient(params["params"][GATE])
        old = frozen(part(params, ""), gate > 0)
        copy = frozen(with_encoder(part(params, "_copy"), part(params, "")), gate >= 0)
        new = with_encoder(part(params, "_new"), part(params, ""))
        said = [self.network.apply(p, obs) for p in (old, new, copy)]
        return added(said[0], said[1], said[2], gate)

    def layers(self, params: PyTree) -> Any:
        """There are two networks' layers: which of them is meant, nothing says."""
        raise ValueError("plasticity_injection cannot be used with interventions or metrics that look at single layers")


def part(params: PyTree, suffix: str) -> PyTree:
    """f's parameters, or those behind which ``suffix`` stands, under the network's own names."""
    inside = params["params"]
    others = tuple(f"_{name}" for name in SUMS)
    if suffix:
        return {"params": {k.removesuffix(suffix): v for k, v in inside.items() if k.endswith(suffix)}}
    return {"params": {k: v for k, v in inside.items() if k != GATE and not k.endswith(others)}}


def with_copies(params: PyTree, fresh: PyTree, gate: Array) -> PyTree:
    """All parameters: f's, and those of g, without its convolutions, twice."""
    dense = {
        f"{name}_{end}": {k: v for k, v in tree.items() if not _is_conv(k)} if isinstance(tree, dict) else tree
        for name, tree in fresh["params"].items()
        for end in SUMS
    }
    return {"params": {**params["params"], **dense, GATE: gate}}


def with_encoder(params: PyTree, of: PyTree) -> PyTree:
    """g's parameters with f's convolutions."""

    def both(tree: Any, other: Any) -> Any:
        return {**tree, **{k: v for k, v in other.items() if _is_conv(k)}} if isinstance(tree, dict) else tree

    return {"params": {name: both(tree, of["params"][name]) for name, tree in params["params"].items()}}


def frozen(params: PyTree, is_frozen: Array) -> PyTree:
    """Parameters that are given no gradient where ``is_frozen``, but for convolutions."""

    def stop(path: Any, x: Array) -> Array:
        learns = any(_is_conv(getattr(k, "key", "")) for k in path)
        return x if learns else jnp.where(is_frozen, jax.lax.stop_gradient(x), x)

    return jax.tree_util.tree_map_with_path(stop, params)


def added(old: Output, new: Output, copy: Output, gate: Array) -> Output:
    """f + gate (g_φ − g_φ₀): f where gate is 0."""

    def add(f: Array, g: Array, g0: Array) -> Array:
        return f + gate * (g - g0)

    policy = old.policy
    if isinstance(policy, Gaussian | TanhGaussian):
        scale = policy.scale * jnp.exp(gate * (jnp.log(new.policy.scale) - jnp.log(copy.policy.scale)))
        policy = policy.replace(loc=add(policy.loc, new.policy.loc, copy.policy.loc), scale=scale)
    else:
        policy = jax.tree.map(add, policy, new.policy, copy.policy)
    value, q_values = jax.tree.map(
        add, (old.value, old.q_values), (new.value, new.q_values), (copy.value, copy.q_values)
    )
    shown = jax.tree.map(lambda f, g: jnp.where(gate > 0, g, f), (old.actor, old.critic), (new.actor, new.critic))
    return Output(policy=policy, value=value, q_values=q_values, actor=shown[0], critic=shown[1])


def wrap(network: Any) -> Injected:
    """The network with room for what is injected."""
    check(type(network) in (ActorCritic, QNetwork), "interventions", "plasticity_injection", "used with a default "
          f"network without memory or distributions, not {type(network).__name__}")  # fmt: skip
    return Injected(network)


def inject(net: Net, learner: Learner, samples: PyTree, context: Context) -> tuple[Learner, Metrics]:
    """Fresh g and g₀, after the one update when it is due."""
    due = context.update + 1 == context.hparams.plasticity_injection_at

    def change(learner: Learner) -> Learner:
        fresh = part(net.init(context.key), "")
        params = with_copies(part(learner.params, ""), fresh, jnp.ones(()))
        return learner.replace(params=params, memory=params, opt_state=net.first_moments(params, context.hparams))

    return when(due, change, learner), {}


def hold(net: Net, learner: Learner, context: Context) -> Learner:
    """What is frozen stays as it was, also where decay or an optimiser's momentum would move it."""
    inside, kept = learner.params["params"], learner.memory["params"]
    injected = kept[GATE] > 0
    learning = tuple(f"_{name}" for name in SUMS[:1])

    def held(name: str, tree: Any) -> Any:
        if name == GATE:
            return kept[GATE]
        if name.endswith(learning):
            # Before the injection nobody learns them.
            return jax.tree.map(lambda x, old: jnp.where(injected, x, old), tree, kept[name])
        fixed = injected | name.endswith("_copy")

        def one(path: Any, x: Array, old: Array) -> Array:
            learns = any(_is_conv(getattr(k, "key", "")) for k in path)
            return x if learns else jnp.where(fixed, old, x)

        return jax.tree_util.tree_map_with_path(one, tree, kept[name])

    return learner.replace(params={"params": {name: held(name, tree) for name, tree in inside.items()}})


def _is_conv(name: str) -> bool:
    return name.startswith("PatchConv")


PLASTICITY_INJECTION = Intervention(
    "plasticity_injection",
    {"plasticity_injection_at": hparam(100.0, 1.0, whole=True)},
    init=lambda key, params: params,
    after=inject,
    each=hold,
    network=wrap,
)
