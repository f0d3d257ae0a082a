"""The seam for what changes how a network learns, besides its rule: an :class:`Intervention`, and how several compose.

    penalty   added to the rule's loss                     ∇L_rule + Σ_i ∇penalty_i, on every minibatch
    before    once per update, before the epochs
    each      after every step of the optimiser
    after     once per update, with a sample of its data

Hooks change a :class:`~purejaxrl_ext.types.Learner` (parameters, moments, and the intervention's own memory) and nothing else.
Their random keys come by ``fold_in`` of a number that the name gives, so that adding one changes no other stream.
"""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_ext.errors import check
from purejaxrl_ext.types import Array, Learner, Metrics, Net, PyTree


class Context(NamedTuple):
    """What a hook is told besides.

    Attributes:
        hparams: the traced settings of this update.
        update: int32 scalar, updates done before this one; the same for all seeds, so that a ``cond`` on it stays one.
        key: of this hook alone.
        learning_rate: that of this update.
    """

    hparams: Any
    update: Array
    key: Array
    learning_rate: Array


@dataclass(frozen=True, eq=False)
class Intervention:
    """What changes how a network learns; every part but the name may be left out.

    Attributes:
        name: how it is asked for. Its settings are called ``<name>_...``.
        hparams: its traced settings, by name, each an :func:`~purejaxrl_ext.types.hparam` (or a number: of any value).
        init: ``(key, params) -> memory``; what it keeps: θ₀, ages, the parameters two steps ago.
        penalty: ``(net, params, memory, part, other, hparams) -> (scalar, metrics)``; ``other`` are samples of the same update
            drawn apart from the minibatch ``part``.
        before: ``(net, learner, context) -> learner``.
        each: ``(net, learner, context) -> learner``.
        after: ``(net, learner, samples, context) -> (learner, metrics)``.
        network: ``module -> module``; the network that takes the place of the recipe's.
        optimizer: ``optimizer -> optimizer``, of functions ``(hparams, learning_rate) -> optax.GradientTransformation``.
        loss: ``loss -> loss``; of functions as a Rule has them.
    """

    name: str
    hparams: Mapping[str, Any] = field(default_factory=dict)
    init: Callable[..., PyTree] | None = None
    penalty: Callable[..., tuple[Array, Metrics]] | None = None
    before: Callable[..., Learner] | None = None
    each: Callable[..., Learner] | None = None
    after: Callable[..., tuple[Learner, Metrics]] | None = None
    network: Callable[[Any], Any] | None = None
    optimizer: Callable[[Any], Any] | None = None
    loss: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        check(self.name.isidentifier(), "name", self.name, "an identifier")
        for name in self.hparams:
            check(name.startswith(f"{self.name}_"), "hparams", name, f"a name that begins with {self.name}_")

    @property
    def import_path(self) -> str | None:
        """``"module:NAME"`` where it stands at the top of a module that one of its functions is from, so that another process
        finds it; None where it does not."""
        parts = (getattr(self, f.name) for f in fields(self))
        for module in dict.fromkeys(getattr(part, "__module__", "__main__") for part in parts if callable(part)):
            names = vars(sys.modules[module]) if module != "__main__" else {}
            for name, value in list(names.items()):
                if value is self:
                    return f"{module}:{name}"
        return None

    def __reduce__(self) -> Any:
        path = self.import_path
        allowed = "a constant at the top of a module, beside its functions, to come back in another process"
        check(path is not None, "intervention", self.name, allowed)
        return _imported, (path,)

    def own_key(self, key: Array) -> Array:
        """A key of this intervention's own."""
        return jax.random.fold_in(key, zlib.crc32(self.name.encode()))


def _imported(path: str) -> Intervention:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def first_memory(interventions: Sequence[Intervention], key: Array, params: PyTree) -> PyTree:
    """What interventions keep before the first update, by their names; () where none keeps anything."""
    return {i.name: i.init(i.own_key(key), params) for i in interventions if i.init is not None} or ()


def act_on(interventions: Sequence[Intervention], hook: str, net: Net, learner: Learner, context: Context) -> Learner:
    """Run the hooks ``before`` or ``each``, one after another."""
    for intervention in interventions:
        function = getattr(intervention, hook)
        if function is not None:
            changed = function(net, _shown(learner, intervention), _told(context, intervention))
            learner = _merged(learner, intervention, changed, hook)
    return learner


def act_after(
    interventions: Sequence[Intervention], net: Net, learner: Learner, samples: PyTree, context: Context
) -> tuple[Learner, Metrics]:
    """Run the hooks ``after``, one after another; metrics of all."""
    logged: Metrics = {}
    for intervention in interventions:
        if intervention.after is not None:
            shown, told = _shown(learner, intervention), _told(context, intervention)
            changed, more = intervention.after(net, shown, samples, told)
            learner, logged = _merged(learner, intervention, changed, "after"), logged | more
    return learner, logged


def penalty_gradient(
    interventions: Sequence[Intervention], net: Net, learner: Learner, part: PyTree, other: PyTree, hparams: Any
) -> tuple[PyTree, Metrics]:
    """∇ Σ_i penalty_i, and metrics: each penalty as ``<name>_penalty``, and their own.

    Apart from the rule's gradient, so that a penalty with coefficient 0 leaves that as it was, bit for bit.
    """

    def total(params: PyTree) -> tuple[Array, Metrics]:
        value = jnp.zeros(())
        logged: Metrics = {}
        for i in interventions:
            if i.penalty is not None:
                penalty, more = _checked(i.penalty(net, params, _memory(learner, i), part, other, hparams), i.name)
                value, logged = value + penalty, logged | more | {f"{i.name}_penalty": penalty}
        return value, logged

    (_, logged), gradient = jax.value_and_grad(total, has_aux=True)(learner.params)
    # A weight that no penalty looks at would be given a constant 0, which XLA takes out, and then fuses the optimiser's step in
    # another way, whose last bits differ. This 0 it cannot see.
    first = jax.tree.leaves(learner.params)[0]
    unseen = jnp.minimum(jnp.abs(first.ravel()[0]), 0.0)
    gradient = jax.tree.map(lambda g, x: g + unseen.astype(g.dtype) * x, gradient, learner.params)
    return gradient, logged


def is_due(update: Array, every: Array) -> Array:
    """Whether something that happens every so many updates (infinite: never) happens at the end of this one."""
    return ((update + 1) % jnp.where(jnp.isfinite(every), jnp.maximum(every, 1.0), 1.0) == 0) & jnp.isfinite(every)


def when(due: Array, change: Callable[[Learner], Learner], learner: Learner) -> Learner:
    """``change(learner)`` where it is due: a ``cond`` as long as ``due`` is the same for all seeds."""
    return jax.lax.cond(due, change, lambda learner: learner, learner)


def _checked(returned: Any, name: str) -> tuple[Array, Metrics]:
    is_pair = isinstance(returned, tuple) and len(returned) == 2 and jnp.shape(returned[0]) == ()
    if not (is_pair and isinstance(returned[1], Mapping)):
        raise TypeError(f"{name}.penalty must return (scalar, metrics by name), got {returned!r}")
    return returned


def _memory(learner: Learner, intervention: Intervention) -> PyTree:
    return learner.memory[intervention.name] if intervention.init is not None else ()


def _shown(learner: Learner, intervention: Intervention) -> Learner:
    return learner.replace(memory=_memory(learner, intervention))


def _told(context: Context, intervention: Intervention) -> Context:
    return context._replace(key=intervention.own_key(context.key))


def _merged(learner: Learner, intervention: Intervention, changed: Any, hook: str) -> Learner:
    """The learner after a hook; what it may not change is checked."""
    what = f"{intervention.name}.{hook}"
    if not isinstance(changed, Learner):
        raise TypeError(f"{what} must return a Learner, got {type(changed).__name__}")
    before = _shown(learner, intervention)
    for part in ("params", "opt_state", "memory"):
        kinds = [jax.tree.map(_kind, getattr(tree, part)) for tree in (before, changed)]
        if kinds[0] != kinds[1]:
            raise TypeError(
                f"{what} must keep the structure, shapes and dtypes of {part}: {kinds[1]} against {kinds[0]} before it"
            )
    memory = learner.memory
    if intervention.init is not None:
        memory = {**memory, intervention.name: changed.memory}
    return changed.replace(memory=memory)


def _kind(x: Any) -> Any:
    return jnp.shape(x), str(x.dtype if hasattr(x, "dtype") else jnp.result_type(x))
