"""Legal actions alone: any network, its observations' mask taken off before it and applied to what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from purejaxrl_ext.networks.policies import legal_only
from purejaxrl_ext.spaces import split_mask
from purejaxrl_ext.types import Array, Output, PyTree


@dataclass(frozen=True)
class Masked:
    """A network, with a memory or without, in a world where some actions are illegal; ``make`` puts it around each network.

    Logits and action values of illegal actions are a large negative number: their probability is exactly 0, they have no part
    in entropies and divergences, and every maximum passes them by (Huang & Ontañón 2022).

    Attributes:
        network: sees observations without the mask.
        num_actions: A.
    """

    network: Any
    num_actions: int

    def __getattr__(self, name: str) -> Any:
        # Whether there is a memory, and which layers: the network's own to say.
        if name.startswith("__") or name == "network":
            raise AttributeError(name)
        return getattr(self.network, name)

    def clone(self, **changes: Any) -> Masked:
        """The same around the network with some fields changed."""
        return Masked(self.network.clone(**changes), self.num_actions)

    def init(self, key: Array, obs: Array, *memory: Any) -> PyTree:
        """Fresh parameters of the network."""
        return self.network.init(key, split_mask(obs, self.num_actions, 1 + bool(memory))[0], *memory)

    def apply(self, params: PyTree, obs: Array, *memory: Any) -> Any:
        """What the network says, of legal actions alone."""
        obs, legal = split_mask(obs, self.num_actions, 1 + bool(memory))
        said = self.network.apply(params, obs, *memory)
        return (said[0], _masked(said[1], legal)) if memory else _masked(said, legal)


def _masked(output: Output, legal: Array) -> Output:
    policy, q_values = output.policy, output.q_values
    if hasattr(policy, "logits"):
        policy = policy.replace(logits=legal_only(policy.logits, legal))
    if not isinstance(q_values, tuple):
        q_values = legal_only(q_values, legal)
    return output.replace(policy=policy, q_values=q_values, legal=legal)
