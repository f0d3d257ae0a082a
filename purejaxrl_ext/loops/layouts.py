"""How parameters and moments lie while an optimiser steps them many times over.

Adam of a tree is a kernel for each leaf or for a few, and a gradient's norm one for each leaf, whose launches take longer than
their work; of one array it is one, and one. So loops that learn on an accelerator carry arrays, and make trees of them where a
network is evaluated. Arrays lie in a tree as parameters do, ``{"params": {name: array}}``:

    Trees     as they are: on a CPU, and for an optimiser that does not go number by number
    Vectors   ``[P]`` of all parameters; with separate optimisers one of each network
    Twins     ``[2, P]``, the actor's and the critic's rows side by side, as ``ActorCritic`` (networks/actor_critic.py)
              evaluates them; where one is narrower it has zeros behind it, whose gradients are 0
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from purejaxrl_ext.interventions.moments import map_parts
from purejaxrl_ext.networks.structure import networks, parameter_group, pick
from purejaxrl_ext.types import Array, Learner, Metrics, PyTree

Shape = jax.ShapeDtypeStruct


@dataclass(frozen=True)
class Trees:
    """Parameters as they are."""

    def pack(self, learner: Learner) -> Learner:
        """A learner as the optimiser steps it."""
        return learner

    def unpack(self, learner: Learner) -> Learner:
        """The reverse."""
        return learner

    def arrays(self, tree: PyTree) -> PyTree:
        """A tree like the parameters, such as gradients, as the optimiser takes it."""
        return tree

    def tree(self, arrays: PyTree) -> PyTree:
        """The reverse."""
        return arrays

    def shown(self, arrays: PyTree) -> PyTree:
        """What the network is shown as its parameters, where all of its Output is wanted."""
        return self.tree(arrays)

    def gradient(self, shown: PyTree) -> PyTree:
        """A gradient in what the network was shown, as the optimiser takes it."""
        return self.arrays(shown)

    def norms(self, grads: PyTree) -> Metrics:
        """‖g‖ of all gradients as ``grad_norm``, and of each network's as ``actor_grad_norm`` and ``critic_grad_norm``; a shared
        torso's are in both."""
        parts = {name: pick(grads, names) for name, names in networks(grads).items()}
        return {"grad_norm": optax.tree.norm(grads)} | {f"{n}_grad_norm": optax.tree.norm(x) for n, x in parts.items()}

    def scaled_critic(self, updates: PyTree, ratio: Array) -> PyTree:
        """Updates with what is the critic's alone times a ratio."""
        groups = networks(updates)
        own = [name for name in groups.get("critic", ()) if name not in groups["actor"]]
        scaled = jax.tree.map(lambda x: x * ratio, {name: updates["params"][name] for name in own})
        return {**updates, "params": updates["params"] | scaled} if own else updates


AS_THEY_ARE = Trees()


@dataclass(frozen=True)
class Vectors(Trees):
    """One vector, or one of each network.

    Attributes:
        like: shapes of the parameters.
        separate: ``actor_vector`` and ``critic_vector``, and one for each collection that is neither's.
    """

    like: PyTree
    separate: bool = False

    def pack(self, learner: Learner) -> Learner:
        """As in :class:`Trees`, with whatever in the optimiser's state is like the parameters."""
        moved = map_parts(self.arrays, lambda rest: rest, learner.opt_state, self.like)
        return learner.replace(params=self.arrays(learner.params), opt_state=moved)

    def unpack(self, learner: Learner) -> Learner:
        """The reverse."""
        moved = map_parts(self.tree, lambda rest: rest, learner.opt_state, jax.eval_shape(self.arrays, self.like))
        return learner.replace(params=self.tree(learner.params), opt_state=moved)

    def arrays(self, tree: PyTree) -> PyTree:
        """The vectors of a tree like the parameters, or like one network's."""
        if "params" in tree:
            return {"params": self.arrays(tree["params"])}
        return {
            name: jnp.concatenate([x.reshape(-1) for x in jax.tree.leaves([tree[n] for n in names])])
            for name, names in self._names(tree).items()
        }

    def tree(self, arrays: PyTree) -> PyTree:
        """The reverse."""
        if "params" in arrays:
            return {"params": self.tree(arrays["params"])}
        like = self.like["params"]
        found: dict[str, Any] = {}
        for name, names in self._names(like).items():
            if name in arrays:
                found |= dict(zip(names, _cut(arrays[name], [like[n] for n in names]), strict=True))
        return found

    def norms(self, grads: PyTree) -> Metrics:
        """As in :class:`Trees`."""
        shares = {} if self.separate else self._shares()
        if not shares:
            return super().norms(grads)
        # Sums over the whole vector, of which parts are left out: one kernel makes all of them.
        squares, place = jnp.square(grads["params"]["vector"]), jnp.arange(_size(self.like))
        sums = {
            name: jnp.sum(jnp.where((place >= start) & (place < end), squares, 0.0))
            for name, (start, end) in shares.items()
        }
        shared = sums.get("shared", 0.0)
        return _norms(sums["actor"] + shared, sums["critic"] + shared, shared)

    def scaled_critic(self, updates: PyTree, ratio: Array) -> PyTree:
        """As in :class:`Trees`."""
        shares = {} if self.separate else self._shares()
        if not shares:
            return super().scaled_critic(updates, ratio)
        vector = updates["params"]["vector"]
        own = jnp.arange(len(vector)) >= shares["critic"][0]
        return {"params": {"vector": jnp.where(own, vector * ratio, vector)}}

    def _names(self, collections: PyTree) -> dict[str, list[str]]:
        """The names of collections by the vector that they are in: the actor's, what is shared, the critic's."""
        rank = {"actor": 0, "critic": 2}
        names = sorted(collections, key=lambda name: (rank.get(parameter_group(name), 1), name))
        if not self.separate:
            return {"vector": names}
        groups: dict[str, list[str]] = {}
        for name in names:
            group = parameter_group(name)
            groups.setdefault(f"{group}_vector" if group in rank else name, []).append(name)
        return groups

    def _shares(self) -> dict[str, tuple[int, int]]:
        """Where the actor's, the shared and the critic's numbers begin and end in the one vector; {} of other networks."""
        if not networks(self.like):
            return {}
        sizes = {"actor": 0, "shared": 0, "critic": 0}
        for name, like in self.like["params"].items():
            group = parameter_group(name)
            sizes[group if group in sizes else "shared"] += _size(like)
        ends = list(itertools.accumulate(sizes.values()))
        return {name: (end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True) if size}


@dataclass(frozen=True)
class Twins(Vectors):
    """Two networks of equal layers as the rows of one matrix."""

    def arrays(self, tree: PyTree) -> PyTree:
        """The matrix of a tree like the parameters."""

        def both(path: tuple, shape: tuple[int, ...]) -> Array:
            return jnp.stack([_widened(_get(tree["params"], name, path), shape) for name in ("actor", "critic")])

        return self._matrix([both(path, shape) for path, shape in self._leaves().items()])

    def tree(self, arrays: PyTree) -> PyTree:
        """The reverse."""
        both = self._both(arrays)

        def leaf(path: tuple, like: Shape) -> Array:
            network, *inside = _names(path)
            row = both[tuple(inside)][("actor", "critic").index(network)]
            return row[..., : like.shape[-1]]

        return jax.tree_util.tree_map_with_path(leaf, self.like)

    def shown(self, arrays: PyTree) -> PyTree:
        """Both torsos and both heads as ``[2, ...]`` in collections ``both_...``; what the actor has alone as it is."""
        found: dict[str, Any] = {}
        for path, x in self._both(arrays).items():
            name, value = ("both", x) if self._is_both(path) else ("actor", x[0])
            inside = found
            for part in (f"{name}_{path[0]}", *path[1:])[:-1]:
                inside = inside.setdefault(part, {})
            inside[path[-1] if path[1:] else f"{name}_{path[0]}"] = value
        return {"params": found}

    def gradient(self, shown: PyTree) -> PyTree:
        """The matrix of a gradient in what :meth:`shown` gave."""

        def both(path: tuple) -> Array:
            if self._is_both(path):
                return _get(shown["params"], "both", path)
            own = _get(shown["params"], "actor", path)
            return jnp.stack([own, jnp.zeros_like(own)])

        return self._matrix([both(path) for path in self._leaves()])

    def _matrix(self, both: list[Array]) -> PyTree:
        return {"params": {"twins": jnp.concatenate([x.reshape(2, -1) for x in both], axis=1)}}

    def _both(self, arrays: PyTree) -> dict[tuple, Array]:
        shapes = self._leaves()
        cut = _cut(arrays["params"]["twins"], [Shape((2, *shape), jnp.float32) for shape in shapes.values()])
        return dict(zip(shapes, cut, strict=True))

    def _is_both(self, path: tuple) -> bool:
        return _get(self.like["params"], "critic", path) is not None

    def norms(self, grads: PyTree) -> Metrics:
        """As in :class:`Trees`."""
        actor, critic = jnp.square(grads["params"]["twins"]).sum(axis=1)
        return _norms(actor, critic, 0.0)

    def scaled_critic(self, updates: PyTree, ratio: Array) -> PyTree:
        """As in :class:`Trees`."""
        twins = updates["params"]["twins"]
        return {"params": {"twins": twins * jnp.stack([jnp.ones(()), ratio])[:, None]}}

    def _leaves(self) -> dict[tuple, tuple[int, ...]]:
        """The shape of each leaf that both have, or the larger of them, by its path without the network's name."""
        shapes: dict[tuple, tuple[int, ...]] = {}
        for path, x in jax.tree_util.tree_leaves_with_path(self.like):
            _, *inside = _names(path)
            shapes[tuple(inside)] = max(shapes.get(tuple(inside), ()), x.shape)
        return shapes


def layout(params: PyTree, separate: bool, together: bool) -> Trees:
    """How parameters lie best for an optimiser that goes number by number: as arrays if they are ``{"params": {collection: ...}}``
    of float32, as twins if the network evaluates actor and critic ``together`` and they differ in the width of their heads alone.

    Those of convolutions stay trees: bytes are what they cost, and XLA takes a bias and an activation into the product behind
    them only where the bias is an array of its own (Breakout-MinAtar, 16 runs: 528 MiB a minibatch, as vectors 825)."""
    fits = isinstance(params, Mapping) and set(params) == {"params"} and isinstance(params["params"], Mapping)
    leaves = jax.tree.leaves(params)
    if not fits or any(x.dtype != jnp.float32 or x.ndim > 2 for x in leaves):
        return Trees()
    like = jax.tree.map(lambda x: Shape(x.shape, x.dtype), params)
    return Twins(like) if together and not separate and _are_twins(like) else Vectors(like, separate)


def _are_twins(like: PyTree) -> bool:
    sides: dict[str, dict[tuple, tuple[int, ...]]] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(like):
        network, *inside = _names(path)
        sides.setdefault(network, {})[tuple(inside)] = x.shape
    if set(sides) != {"actor", "critic"}:
        return False
    actor, critic = sides["actor"], sides["critic"]
    return all(path in actor and shape[:-1] == actor[path][:-1] for path, shape in critic.items())


def _names(path: tuple) -> tuple[str, ...]:
    """``("actor", "torso", "Dense_0", "kernel")`` of a path in the parameters."""
    _, collection, *inside = (entry.key for entry in path)
    return (*collection.partition("_")[::2], *inside)


def _get(collections: PyTree, network: str, path: tuple) -> Any:
    """What a network has at a path; None: nothing."""
    found = collections.get(f"{network}_{path[0]}")
    for name in path[1:]:
        found = found[name] if found is not None else None
    return found


def _widened(x: Array | None, shape: tuple[int, ...]) -> Array:
    if x is None:
        return jnp.zeros(shape, jnp.float32)
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, shape[-1] - x.shape[-1])])


def _norms(actor: Array, critic: Array, shared: Array | float) -> Metrics:
    """Of sums of squares, what is shared being in both."""
    return {
        "grad_norm": jnp.sqrt(actor + critic - shared),
        "actor_grad_norm": jnp.sqrt(actor),
        "critic_grad_norm": jnp.sqrt(critic),
    }


def _size(like: PyTree) -> int:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(like))


def _cut(array: Array, like: Any) -> list:
    """The last axis cut into a tree of the shapes of ``like``."""
    leaves, treedef = jax.tree.flatten(like)
    start, found = 0, []
    for x in leaves:
        end = start + math.prod(x.shape) // math.prod(array.shape[:-1])
        found.append(array[..., start:end].reshape(x.shape))
        start = end
    return jax.tree.unflatten(treedef, found)
