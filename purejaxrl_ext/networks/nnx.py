"""Networks written in ``flax.nnx``, whose modules hold their arrays, as ones whose parameters are an argument."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax

from purejaxrl_ext.errors import check
from purejaxrl_ext.types import Array, Output, PyTree

if TYPE_CHECKING:
    # Its import takes a while, and few networks are written in it.
    from flax import nnx


@dataclass(frozen=True)
class Nnx:
    """A network from a constructor of an ``nnx.Module``, for ``make(network=...)``.

    Its parameters go by the module's attributes: ``actor_...`` and ``critic_...`` name an actor's and a critic's.

    Attributes:
        make: ``rngs -> module``; a function at the top of a module, so that equal ones compile once and a run can be resumed.
            The module takes observations ``[B, ...]`` and returns an Output; its variables are all ``nnx.Param``.

    Raises:
        ValueError: when parameters are made: the module has variables of other kinds, such as BatchNorm's or Dropout's, which
            a pure function cannot keep.

    Example::

        class Mine(nnx.Module):
            def __init__(self, rngs):
                self.critic_hidden, self.critic_head = nnx.Linear(4, 64, rngs=rngs), nnx.Linear(64, 2, rngs=rngs)

            def __call__(self, obs):
                return prx.Output(q_values=self.critic_head(nnx.relu(self.critic_hidden(obs))))

        prx.make("dqn", "CartPole-v1", network=networks.Nnx(Mine))
    """

    make: Callable[[nnx.Rngs], nnx.Module]

    def init(self, key: Array, obs: Array) -> PyTree:
        """Fresh parameters, a tree of arrays."""
        from flax import nnx

        split: Any = nnx.split(self.make(nnx.Rngs(key)), nnx.Param, ...)
        _, params, others = split
        kinds = sorted({type(leaf).__name__ for _, leaf in nnx.to_flat_state(others)})
        check(not kinds, "network", self.make, f"a module with nnx.Param alone, not with {', '.join(kinds)}")
        return {"params": nnx.to_pure_dict(params)}

    def apply(self, params: PyTree, obs: Array) -> Output:
        """What the module says with these parameters."""
        from flax import nnx

        graph, state = _skeleton(self.make)
        state = jax.tree.map(lambda x: x, state)  # A copy: it is written into.
        nnx.replace_by_pure_dict(state, params["params"])
        return nnx.merge(graph, state)(obs)


@functools.lru_cache(maxsize=256)
def _skeleton(make: Callable[[nnx.Rngs], nnx.Module]) -> tuple[Any, Any]:
    """The module without its arrays: its graph, and a state of shapes."""
    from flax import nnx

    return nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
