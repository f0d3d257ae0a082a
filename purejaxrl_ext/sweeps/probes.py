"""Probes: functions of a run's State between chunks of updates, whose results are metrics. Evaluation is one."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_ext.errors import check
from purejaxrl_ext.loops.evaluate import evaluate
from purejaxrl_ext.sweeps.program import SideBySide
from purejaxrl_ext.types import Algorithm, Array, PyTree, State, abstract_key

# A key that no seed's own stream can meet: those start from key(s), s ≥ 0, and split it.
APART = 2**32 - 1


class Probe(NamedTuple):
    """A probe and when it runs.

    Attributes:
        name: of the probe; its metrics have names of their own.
        function: ``(algorithm, state, key, hparams) -> {name: scalar}`` of one run, which is vmapped over all.
        every: so many updates, and at the end; 0: at the end alone.
    """

    name: str
    function: Callable[..., dict[str, Array]]
    every: int

    def is_due(self, done: int, last: int) -> bool:
        """Whether it runs after ``done`` updates of ``last``."""
        return done == last or (self.every > 0 and done % self.every == 0)


@dataclass(frozen=True)
class GreedyReturn:
    """The probe behind ``eval_every``: the mean greedy return of some episodes.

    Attributes:
        num_episodes: how many.
        common_starts: the same initial states for all runs and updates; else each run's are its own, each time.
    """

    num_episodes: int
    common_starts: bool = False

    def __call__(self, algorithm: Algorithm, state: State, key: Array, hparams: PyTree) -> dict[str, Array]:
        key = jax.random.fold_in(jax.random.key(0), APART) if self.common_starts else key
        return {"eval_return": evaluate(algorithm, state, key, self.num_episodes, hparams=hparams).mean()}


def named(probes: Mapping[str, Callable] | Sequence[Callable] | Callable | None) -> dict[str, Callable]:
    """Probes by name: those of a sequence have their functions' own.

    Raises:
        ValueError: what is no function, a function without a name, or two of one name.
    """
    if probes is None:
        return {}
    if isinstance(probes, Mapping):
        pairs = [(str(name), function) for name, function in probes.items()]
    else:
        listed = [probes] if callable(probes) else list(probes)
        pairs = [(getattr(f, "__name__", type(f).__name__), f) for f in listed]
    for name, function in pairs:
        check(callable(function), f"probes[{name!r}]", function, "a function (algorithm, state, key, hparams) -> dict")
    names = [name for name, _ in pairs]
    check(len(set(names)) == len(names), "probes", names, "of different names; give them as a dict")
    return dict(pairs)


@functools.lru_cache(maxsize=1024)
def metric_names(probe: Probe, algorithm: Algorithm) -> tuple[str, ...]:
    """What a probe measures of an arm; nothing is computed.

    Raises:
        ValueError: its result is no dict of scalars.
    """
    state = jax.eval_shape(algorithm.init, abstract_key())
    result = jax.eval_shape(lambda s, k: probe.function(algorithm, s, k, algorithm.hparams), state, abstract_key())
    where = f"probes[{probe.name!r}]"
    check(isinstance(result, dict), where, type(result).__name__, "a function that returns a dict of scalars by name")
    for name, x in result.items():
        shape = getattr(x, "shape", None)
        check(shape == (), f"{where}: the shape of {name!r}", shape, "(): a metric is one number per run")
    return tuple(result)


@dataclass(frozen=True)
class _Measured:
    """What a compiled probe depends on: algorithms of equal settings share it."""

    probe: Probe
    runs: SideBySide
    hparams: Any
    algorithm: Algorithm = field(compare=False, repr=False)


def compiled(probe: Probe, algorithm: Algorithm, runs: SideBySide) -> Callable[..., dict[str, Array]]:
    """``(state [R], keys [R], hparams) -> {name: [R]}``, all runs side by side on their devices; ``keys`` are the seeds'."""
    return _compiled(_Measured(probe, runs, algorithm.hparams, algorithm))


@functools.lru_cache(maxsize=256)
def _compiled(of: _Measured) -> Callable[..., dict[str, Array]]:
    runs, probe = of.runs, of.probe
    number = zlib.crc32(probe.name.encode())

    def one(state: State, key: Array, hparams: PyTree) -> dict[str, Array]:
        for data in (APART, number, state.update):
            key = jax.random.fold_in(key, data)
        result = probe.function(of.algorithm, state, key, hparams)
        return {name: jnp.asarray(x, jnp.float32) for name, x in result.items()}

    vmapped = jax.vmap(one, in_axes=(State.axes(), 0, runs.axes))
    return runs.jit(vmapped, (runs.state_specs, runs.runs_spec, runs.hparam_specs), runs.runs_spec)
