"""The actor-critic: a policy and a state value, from observations ``[B, ...]`` to an Output."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.networks import policies, short_axis
from purejaxrl_ext.networks.init import initializers
from purejaxrl_ext.networks.structure import Layer, parameter_group, torso_layers
from purejaxrl_ext.networks.torsos import Torso
from purejaxrl_ext.types import Array, Output, PyTree, Representation

# Of a scale that depends on the state: none becomes a spike, or overflows (those of Haarnoja et al. 2018's code).
LOG_STD_BOUNDS = (-20.0, 2.0)


class ActorCritic(nn.Module):
    """A policy and a state value, on torsos of their own or a shared one.

    Attributes:
        num_actions: number of discrete actions, or of an action's entries.
        policy: ``"categorical"``, ``"gaussian"`` (scale a parameter, independent of the state) or ``"tanh_gaussian"``
            (scale a softplus of the features).
        value_torso: makes the value's, where it is another; None: ``torso``.
        initial_log_std: log of a Gaussian's first scale.
        state_dependent_std: the scale of ``"gaussian"`` is exp of a head on the policy's features, its log within
            ``LOG_STD_BOUNDS``.
        together: compute equal torsos as one batched product, and both heads as another: half of an accelerator's kernels
            where all of the Output is wanted. Where it is not, XLA leaves out the half that nobody reads only without it.
        action_sizes: of a ``"categorical"`` policy over several discrete actions at once, the number of each; (): one action.
        torso: makes a torso, ``(name=...) -> module``.
        shared_torso: one torso for both.
        initializer: as in :class:`Torso`; orthogonal heads have scale 0.01 (policy) and 1 (value).
    """

    num_actions: int
    policy: str
    torso: Torso
    shared_torso: bool = False
    initializer: str = "orthogonal"
    value_torso: Torso | None = None
    initial_log_std: float = 0.0
    state_dependent_std: bool = False
    together: bool = False
    action_sizes: tuple[int, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what has hidden layers of its own: the policy's first, the value's last."""
        return ("shared",) if self.shared_torso else ("actor", "critic")

    @nn.compact
    def __call__(self, obs: Array) -> Output:
        alike = not self.shared_torso and self.value_torso is None
        # Convolutions' outputs are large: to move them about costs more than a launch.
        if self.together and alike and not (obs.ndim == 4 and self.torso.conv_layers) and not self.is_initializing():
            return self._both(obs)
        seen = [self.torso_of(part).clone(parent=self, name=f"{part}_torso")(obs) for part in self.parts]
        return self._heads(seen[0], seen[-1])

    def _heads(self, actor: Representation, critic: Representation) -> Output:
        out = self._linear(self._policy_size, 0.01, "actor_head", actor.features)
        value = self._linear(1, 1.0, "critic_head", critic.features)[..., 0]
        return Output(policy=self._policy(out, actor.features), value=value, actor=actor, critic=critic)

    def _both(self, obs: Array) -> Output:
        """The same with each layer of both networks as one product, over a leading axis of their parameters."""
        torso = self.torso.clone(parent=None, name=None)
        torsos = self._stacked("torso")
        # The observations too, lest the products become one whose halves must be moved apart.
        both = jnp.stack([obs, obs])
        seen: Any = jax.vmap(lambda p, x: torso.apply({"params": p}, x))(torsos, both)
        actor, critic = (jax.tree.map(lambda x, i=i: x[i], seen) for i in range(2))
        heads = self._stacked("head")
        products = short_axis.output_entries(seen.features, heads["kernel"])
        outs = [x + heads["bias"][:, w, None] for w, x in enumerate(products)]
        logits = jnp.stack([x[0] for x in outs[: self._policy_size]], axis=-1)
        return Output(policy=self._policy(logits, actor.features), value=outs[0][1], actor=actor, critic=critic)

    def _stacked(self, kind: str) -> PyTree:
        """The parameters of both torsos or heads, ``[2, ...]``; what is narrower has zeros behind it. They may be given so."""
        if self.has_variable("params", f"both_{kind}"):
            return self.get_variable("params", f"both_{kind}")

        def stack(*pair: Array) -> Array:
            width = max(x.shape[-1] for x in pair)
            return jnp.stack([jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])]) for x in pair])

        return jax.tree.map(stack, *(self.get_variable("params", f"{part}_{kind}") for part in self.parts))

    def torso_of(self, part: str) -> Torso:
        """The torso of one of ``parts``."""
        return self.value_torso if part == "critic" and self.value_torso is not None else self.torso

    def layers(self, params: PyTree) -> tuple[Layer, ...]:
        """The hidden layers; see :mod:`~purejaxrl_ext.networks.structure`."""
        names = ("actor_head", "actor_log_scale_head", "critic_head")
        found: list[Layer] = []
        for part in self.parts:
            heads = [name for name in names if name in params["params"] and part in (parameter_group(name), "shared")]
            outgoing = [("params", head, "kernel") for head in heads]
            found += torso_layers(params, part, f"{part}_torso", outgoing, self.torso_of(part).activation)
        return tuple(found)

    def _linear(self, size: int, scale: float, name: str, x: Array) -> Array:
        init = initializers(self.initializer, x.shape[-1], scale)
        return nn.Dense(size, dot_general=short_axis.product, **init, name=name)(x)

    @property
    def _policy_size(self) -> int:
        return self.num_actions * (2 if self.policy == "tanh_gaussian" else 1)

    def _policy(self, out: Array, features: Array) -> Any:
        """The policy from its head's outputs ``[B, ...]``."""
        if self.policy == "categorical":
            sizes = self.action_sizes
            return policies.MultiCategorical(out, sizes) if sizes else policies.Categorical(out)
        if self.policy == "tanh_gaussian":
            loc, raw = jnp.split(out, 2, axis=-1)
            # Softplus shifted to be the first scale at 0; bounded below so that a density cannot become a spike.
            shift = float(np.log(np.expm1(np.exp(self.initial_log_std))))
            return policies.TanhGaussian(loc, jnp.maximum(jax.nn.softplus(raw + shift), 1e-4))
        if self.state_dependent_std:
            raw = self._linear(self.num_actions, 0.01, "actor_log_scale_head", features)
            return policies.Gaussian(out, jnp.exp(jnp.clip(raw + self.initial_log_std, *LOG_STD_BOUNDS)))
        first = nn.initializers.constant(self.initial_log_std)
        log_scale = self.param("actor_log_scale", first, (self.num_actions,), jnp.float32)
        return policies.Gaussian(out, jnp.exp(jnp.broadcast_to(log_scale[None], out.shape)))
