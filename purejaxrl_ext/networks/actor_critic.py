"""The actor-critic: a policy and a state value, from observations ``[B, ...]`` to an Output."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.networks import policies
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
    action_sizes: tuple[int, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what has hidden layers of its own: the policy's first, the value's last."""
        return ("shared",) if self.shared_torso else ("actor", "critic")

    @nn.compact
    def __call__(self, obs: Array) -> Output:
        seen = [self.torso_of(part).clone(parent=self, name=f"{part}_torso")(obs) for part in self.parts]
        return self._heads(seen[0], seen[-1])

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

    def _heads(self, actor: Representation, critic: Representation) -> Output:
        return Output(
            policy=self._policy(actor.features),
            value=self._linear(1, 1.0, "critic_head", critic.features)[..., 0],
            actor=actor,
            critic=critic,
        )

    def _linear(self, size: int, scale: float, name: str, x: Array) -> Array:
        return nn.Dense(size, **initializers(self.initializer, x.shape[-1], scale), name=name)(x)

    def _policy(self, features: Array) -> Any:
        if self.policy == "tanh_gaussian":
            both = self._linear(2 * self.num_actions, 0.01, "actor_head", features)
            loc, raw = jnp.split(both, 2, axis=-1)
            # Softplus shifted to be the first scale at 0; bounded below so that a density cannot become a spike.
            shift = np.log(np.expm1(np.exp(self.initial_log_std)))
            return policies.TanhGaussian(loc, jnp.maximum(jax.nn.softplus(raw + shift), 1e-4))
        out = self._linear(self.num_actions, 0.01, "actor_head", features)
        if self.policy == "categorical":
            sizes = self.action_sizes
            return policies.MultiCategorical(out, sizes) if sizes else policies.Categorical(out)
        if self.state_dependent_std:
            raw = self._linear(self.num_actions, 0.01, "actor_log_scale_head", features)
            return policies.Gaussian(out, jnp.exp(jnp.clip(raw + self.initial_log_std, *LOG_STD_BOUNDS)))
        first = nn.initializers.constant(self.initial_log_std)
        log_scale = self.param("actor_log_scale", first, (self.num_actions,))
        return policies.Gaussian(out, jnp.exp(jnp.broadcast_to(log_scale[None], out.shape)))
