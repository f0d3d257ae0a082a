"""The Q-network: action values, or distributions of returns, from observations ``[B, ...]`` to an Output."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from purejaxrl_ext.networks import short_axis
from purejaxrl_ext.networks.init import initializers
from purejaxrl_ext.networks.structure import Layer, torso_layers
from purejaxrl_ext.networks.torsos import Torso
from purejaxrl_ext.types import Array, Output, PyTree, Representation


class QNetwork(nn.Module):
    """Action values of every action.

    Attributes:
        num_actions: A.
        torso: hidden layers.
        dueling: Q(s, a) = V(s) + A(s, a) − mean_a A(s, a) (Wang et al. 2016, eq. 9).
        initializer: as in :class:`Torso`; orthogonal heads have scale 1.
    """

    num_actions: int
    torso: Torso
    dueling: bool = False
    initializer: str = "orthogonal"

    def layers(self, params: PyTree) -> tuple[Layer, ...]:
        """The hidden layers; see :mod:`~purejaxrl_ext.networks.structure`."""
        heads = [
            ("params", name, "kernel") for name in ("critic_head", "critic_value_head") if name in params["params"]
        ]
        return tuple(torso_layers(params, "critic", "critic_torso", heads, self.torso.activation))

    @nn.compact
    def __call__(self, obs: Array) -> Output:
        return self._heads(self.torso.clone(parent=self, name="critic_torso")(obs))

    def _heads(self, critic: Representation) -> Output:
        init = initializers(self.initializer, critic.features.shape[-1], 1.0)
        q_values = nn.Dense(self.num_actions, dot_general=short_axis.product, **init, name="critic_head")(
            critic.features
        )
        if self.dueling:
            value = nn.Dense(1, dot_general=short_axis.product, **init, name="critic_value_head")(critic.features)
            q_values = value + q_values - q_values.mean(axis=-1, keepdims=True)
        return Output(q_values=q_values, critic=critic)


class DistributionalQNetwork(QNetwork):
    """What each action's return may be: ``returns [B, A, K]``, and their means as ``q_values``.

    Dueling adds the streams before the softmax, or as quantiles: V_k + A_k(a) − mean_a A_k(a) (Hessel et al. 2018, section 3).

    Attributes:
        size: K, the number of atoms or quantiles.
        atoms: ``returns`` are logits of K atoms evenly over [0, 1], and ``q_values`` the means there: where the support is
            [v_min, v_max], which is the rule's to say, v_min + (v_max − v_min) times that. Else they are quantiles.
    """

    size: int = 51
    atoms: bool = True

    def _heads(self, critic: Representation) -> Output:
        init = initializers(self.initializer, critic.features.shape[-1], 1.0)
        flat = nn.Dense(self.num_actions * self.size, **init, name="critic_head")(critic.features)
        returns = flat.reshape(-1, self.num_actions, self.size)
        if self.dueling:
            value = nn.Dense(self.size, **init, name="critic_value_head")(critic.features)
            returns = value[:, None] + returns - returns.mean(axis=1, keepdims=True)
        q_values = returns.mean(axis=-1)
        if self.atoms:
            support = jnp.linspace(0.0, 1.0, self.size, dtype=jnp.float32)
            q_values = jax.nn.softmax(returns) @ support
        return Output(q_values=q_values, returns=returns, critic=critic)
