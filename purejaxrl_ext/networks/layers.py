"""What a tree of parameters is made of: which network and which layer each belongs to."""

from __future__ import annotations


def parameter_group(name: str) -> str:
    """Which network a top-level parameter collection of :class:`ActorCritic` belongs to: ``actor``, ``critic`` or itself."""
    return name.split("_")[0] if name.startswith(("actor_", "critic_")) else name
