"""The Q-network: action values, from observations ``[B, ...]`` to an Output."""

from __future__ import annotations

import flax.linen as nn

from purejaxrl_ext.networks.init import initializers
from purejaxrl_ext.networks.structure import Layer, torso_layers
from purejaxrl_ext.networks.torsos import Torso
from purejaxrl_ext.types import Array, Output, PyTree


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
        critic = self.torso.clone(parent=self, name="critic_torso")(obs)
        init = initializers(self.initializer, critic.features.shape[-1], 1.0)
        q_values = nn.Dense(self.num_actions, **init, name="critic_head")(critic.features)
        if self.dueling:
            value = nn.Dense(1, **init, name="critic_value_head")(critic.features)
            q_values = value + q_values - q_values.mean(axis=-1, keepdims=True)
        return Output(q_values=q_values, critic=critic)
