"""An optimiser's state taken apart: the moments that belong to parameters, and the steps that they have seen.

Adam's moments start at 0, and are divided by 1 − βᵗ for the t steps since then. optax has one t for all parameters: of those whose
moments are put to 0 later, the first step would be (1 − β₁) / √(1 − β₂) times too long, 3.2 times at (.9, .999). So an intervention
that does this asks for an Adam in which every parameter counts its own steps (:func:`aged`):

    m̂ = m / (1 − β₁ᵏ),  v̂ = v / (1 − β₂ᵏ),   k the steps since the parameter's moments were 0
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from purejaxrl_ext.interventions.base import Context, is_due
from purejaxrl_ext.networks.structure import Layer, networks, pick, replace_units, weights_of_units
from purejaxrl_ext.types import Array, Learner, Metrics, Net, PyTree


class Ages(NamedTuple):
    """Steps ``[...]`` int32 that the moments of each parameter have seen; a tree like the parameters."""

    steps: PyTree


class AgedAdamState(NamedTuple):
    """Adam's own state, and ages."""

    adam: optax.ScaleByAdamState
    ages: Ages


def scale_by_aged_adam(b1: Any, b2: Any, eps: Any) -> optax.GradientTransformation:
    """``optax.scale_by_adam`` in which every parameter counts its own steps; as long as none began anew, bit for bit that."""
    plain = optax.scale_by_adam(b1, b2, eps)

    def init(params: PyTree) -> AgedAdamState:
        return AgedAdamState(plain.init(params), Ages(jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.int32), params)))

    def update(grads: PyTree, state: AgedAdamState, params: PyTree = None) -> tuple[PyTree, AgedAdamState]:
        common, adam = plain.update(grads, state.adam, params)
        ages = jax.tree.map(lambda age: age + 1, state.ages.steps)

        def direction(common: Array, m: Array, v: Array, age: Array) -> Array:
            own = (m / _correction(b1, age)) / (jnp.sqrt(v / _correction(b2, age)) + eps)
            return jnp.where(age == adam.count, common, own)

        return jax.tree.map(direction, common, adam.mu, adam.nu, ages), AgedAdamState(adam, Ages(ages))

    return optax.GradientTransformation(init, update)


def _correction(decay: Array, age: Array) -> Array:
    """1 − βᵏ."""
    return -jnp.expm1(age * jnp.log(decay))


def aged(optimizer: Callable[..., Any]) -> Callable[..., Any]:
    """An optimiser in which every parameter counts its own steps, if it is one that takes a ``scale_by_adam``; else itself."""
    takes = "scale_by_adam" in inspect.signature(optimizer).parameters
    return functools.partial(optimizer, scale_by_adam=scale_by_aged_adam) if takes else optimizer


def around(optimizer: Callable[..., Any], wrap: Callable[..., optax.GradientTransformation]) -> Callable[..., Any]:
    """An optimiser with ``wrap(transformation, hparams)`` around it, which takes a ``scale_by_adam`` if it did."""
    if "scale_by_adam" not in inspect.signature(optimizer).parameters:
        return lambda hparams, learning_rate: wrap(optimizer(hparams, learning_rate), hparams)

    def made(hparams: Any, learning_rate: Array, scale_by_adam: Callable[..., Any] | None = None) -> Any:
        options = {} if scale_by_adam is None else {"scale_by_adam": scale_by_adam}
        return wrap(optimizer(hparams, learning_rate, **options), hparams)

    return made


def states(opt_state: PyTree, kind: type) -> dict[str, Any]:
    """The parts of a ``kind`` in an optimiser's state: ``""`` of the one for all parameters, or by network."""
    found = jax.tree_util.tree_leaves_with_path(opt_state, is_leaf=lambda x: isinstance(x, kind))
    return {str(getattr(path[0], "key", "")): x for path, x in found if isinstance(x, kind)}


def map_states(function: Callable[[Any], Any], opt_state: PyTree, kind: type) -> PyTree:
    """The optimiser's state with ``function`` of the parts of a ``kind`` in their places."""

    def change(x: Any) -> Any:
        return function(x) if isinstance(x, kind) else x

    return jax.tree.map(change, opt_state, is_leaf=lambda x: isinstance(x, kind))


def whole(parts: Mapping[str, PyTree], params: PyTree) -> PyTree:
    """A tree like all parameters of what :func:`states` found, each of the structure of its network's parameters."""
    if "" in parts:
        return parts[""]
    return {**params, "params": {name: tree for part in parts.values() for name, tree in part.items()}}


def map_moments(function: Callable[..., Array], opt_state: PyTree, params: PyTree, *others: PyTree) -> PyTree:
    """The optimiser's state with ``function(moment, *others)`` in place of every moment of every parameter.

    A moment is a leaf of a part of the state that has the parameters' structure (Adam's m and v, a momentum, ...); the rest,
    such as a count of steps, stays. With separate optimisers those parts have the structure of one network's parameters.

    Args:
        function: from a moment, and what the trees ``others`` have in its parameter's place.
        opt_state: the state.
        params: the parameters; ``others`` are trees of their structure.
    """
    return map_parts(
        lambda part, *like: jax.tree.map(function, part, *like), lambda part: part, opt_state, params, *others
    )


def moments(opt_state: PyTree, params: PyTree) -> list[PyTree]:
    """The moments, each a tree with the structure of the parameters (of one network's, where optimisers are separate)."""
    found: list[PyTree] = []

    def note(part: PyTree) -> PyTree:
        found.append(part)
        return part

    map_parts(note, lambda part: part, opt_state, params)
    return found


def restart(opt_state: PyTree, params: PyTree, where: PyTree) -> PyTree:
    """The optimiser's state with moments, and ages if it has them, at 0 for the parameters ``where`` a tree of bools says so."""

    def zero(part: PyTree, chosen: PyTree) -> PyTree:
        return jax.tree.map(lambda x, c: jnp.where(c, jnp.zeros((), x.dtype), x), part, chosen)

    def of_ages(part: PyTree) -> PyTree:
        return Ages(map_parts(zero, lambda rest: rest, part.steps, params, where)) if isinstance(part, Ages) else part

    return map_parts(zero, of_ages, opt_state, params, where)


def restart_counts(opt_state: PyTree, params: PyTree) -> PyTree:
    """The optimiser's state with all counts of steps at 0 and its moments as they are."""

    def zero(part: PyTree) -> PyTree:
        whole = all(jnp.issubdtype(x.dtype, jnp.integer) for x in jax.tree.leaves(part))
        return jax.tree.map(jnp.zeros_like, part) if whole else part

    return map_parts(lambda part: part, zero, opt_state, params)


def renew_units(net: Net, learner: Learner, key: Array, found: Sequence[Layer], chosen: Sequence[Array]) -> Learner:
    """The learner with the ``chosen [F]`` units of each layer begun anew: incoming weights fresh, outgoing ones 0, and the moments
    and ages of all these 0."""
    where = weights_of_units(learner.params, found, chosen)
    return learner.replace(
        params=replace_units(learner.params, net.init(key), found, chosen),
        opt_state=restart(learner.opt_state, learner.params, where),
    )


def renew_where_due(
    name: str,
    net: Net,
    learner: Learner,
    context: Context,
    every: Array,
    choose: Callable[[Sequence[Layer]], Sequence[Array]],
    then: Callable[[Learner], Learner] = lambda learner: learner,
) -> tuple[Learner, Metrics]:
    """:func:`renew_units` of what ``choose(layers)`` says, and ``then`` more, at the end of every so many updates; the metric
    ``name`` is how many."""
    found = net.layers(learner.params)

    def change() -> tuple[Learner, Array]:
        chosen = choose(found)
        return then(renew_units(net, learner, context.key, found, chosen)), count(chosen)

    learner, number = jax.lax.cond(is_due(context.update, every), change, lambda: (learner, jnp.zeros((), jnp.int32)))
    return learner, {name: number.astype(jnp.float32)}


def count(chosen: Sequence[Array]) -> Array:
    """How many units, int32."""
    return sum((x.sum() for x in chosen), jnp.zeros((), jnp.int32))


def map_parts(
    change: Callable[..., PyTree],
    change_rest: Callable[[PyTree], PyTree],
    opt_state: PyTree,
    params: PyTree,
    *others: PyTree,
) -> PyTree:
    """``change(part, *others)`` of the parts of a state that have the structure of all parameters, or of one network's, and
    ``change_rest`` of the leaves, and ages, between them."""
    likes = {jax.tree.structure(params): others}
    for names in networks(params).values():
        likes[jax.tree.structure(pick(params, names))] = tuple(pick(tree, names) for tree in others)

    def is_whole(part: PyTree) -> bool:
        return isinstance(part, Ages) or jax.tree.structure(part) in likes

    def each(part: PyTree) -> PyTree:
        if isinstance(part, Ages) or not is_whole(part):
            return change_rest(part)
        return change(part, *likes[jax.tree.structure(part)])

    return jax.tree.map(each, opt_state, is_leaf=is_whole)
