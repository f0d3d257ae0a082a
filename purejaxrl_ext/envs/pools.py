"""Pools: environments of other libraries, which live on the host, many at a time behind one call.

A pool steps all its environments together and keeps them in objects of its own, which no vmap sees and no checkpoint holds. Here
are the pools of one environment in this process, by number; :mod:`~purejaxrl_ext.envs.host` says what of them is in a State.
"""

from __future__ import annotations

import collections
import itertools
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from purejaxrl_ext.types import PyTree

FRESH = -1  # the number of a pool that is not taken up yet


class HostPool(Protocol):
    """N environments of a library. Observations are trees of numpy arrays ``[N, ...]``.

    A library that begins an environment's next episode at the step after its last, whose action it ignores, is asked to begin it
    at once, by ``again``: each step that the loops see is a transition.
    """

    def first(self) -> PyTree:
        """Begin all episodes: the observations."""
        ...

    def send(self, action: np.ndarray) -> None:
        """Begin a step with actions ``[N, ...]``."""
        ...

    def receive(self) -> tuple[PyTree, np.ndarray, np.ndarray, np.ndarray]:
        """End the step: observations (the final ones where episodes ended), rewards, terminated, truncated."""
        ...

    def again(self, over: np.ndarray) -> PyTree:
        """Begin the next episode where ``over`` ``[N]``: observations, of the others anything."""
        ...


class Place(NamedTuple):
    """Where environments are, ``[...]`` each.

    Attributes:
        seed: of the environment, for all its episodes.
        pool: the pool's number.
        row: which of the pool.
        steps: done in all episodes: the pool is stepped exactly once from each state.
    """

    seed: Any
    pool: Any
    row: Any
    steps: Any


class Told(NamedTuple):
    """What a step of N environments gave.

    Attributes:
        obs: where the next step begins: the first of an episode where the last one ended.
        final: where this step led.
        reward, terminated, truncated: of it.
        lost: the pool was not there: the episode is cut, and ``final`` means nothing.
    """

    obs: Any
    final: Any
    reward: Any
    terminated: Any
    truncated: Any
    lost: Any


@dataclass
class Going:
    """A pool under way.

    Attributes:
        pool: the environments.
        first: what they showed first.
        time: ``[N]`` steps of their episodes.
        steps: of all episodes.
    """

    pool: HostPool
    first: PyTree
    time: np.ndarray
    steps: int = 0


@dataclass
class Pools:
    """The pools of one environment.

    Attributes:
        make: a pool of as many environments as there are ``seeds`` ``[N]``.
        time_limit: episodes are truncated at so many steps.
        most: environments that one program may have. Twice as many are kept for each device; the pools that were not stepped
            for longest, as those of evaluations, go first.
    """

    make: Callable[[np.ndarray], HostPool]
    time_limit: int | None
    most: int
    going: collections.OrderedDict[int, Going] = field(default_factory=collections.OrderedDict)
    # Pools whose first observations were asked for, and that nobody has stepped yet.
    begun: collections.OrderedDict[bytes, Going] = field(default_factory=collections.OrderedDict)
    warned: bool = False

    def __post_init__(self) -> None:
        self._numbers, self._lock = itertools.count(), threading.Lock()

    def reset(self, seeds: np.ndarray) -> PyTree:
        """The first observations of environments of ``seeds`` ``[..., N]``: N of them are a pool."""
        rows = [self._begin(row).first for row in seeds.reshape(-1, seeds.shape[-1] if seeds.ndim else 1)]
        return _joined(rows, seeds.shape)

    def _begin(self, seeds: np.ndarray) -> Going:
        pool = self.make(seeds)
        going = Going(pool, pool.first(), np.zeros(len(seeds), np.int64))
        with self._lock:
            self.begun[seeds.tobytes()] = going
            while len(self.begun) > 8:
                self.begun.popitem(last=False)
        return going

    def step(self, place: Place, action: np.ndarray) -> tuple[Place, Told]:
        """Step environments ``[..., N]``, those of different pools side by side."""
        lead = place.seed.shape
        width = lead[-1] if lead else 1
        places = [Place(*(x.reshape(-1, width)[i] for x in place)) for i in range(place.seed.size // width)]
        actions = action.reshape(len(places), width, *action.shape[len(lead) :])
        found = [self._find(p) for p in places]
        for (_, going), row in zip(found, actions, strict=True):
            if going is not None:
                going.pool.send(row)
        out = [self._after(*pair, p) for pair, p in zip(found, places, strict=True)]
        return _joined(out, lead)

    def _find(self, place: Place) -> tuple[int, Going | None]:
        """The pool of N environments, which begins where they are fresh; None where it is not there, or has gone on."""
        number, steps = int(place.pool[0]), int(place.steps[0])
        ours = (place.pool == number).all() and (place.steps == steps).all()
        with self._lock:
            if number == FRESH and ours:
                number = next(self._numbers) % 2**30
                going = self.begun.pop(place.seed.tobytes(), None)
                begins = True
            else:
                going, begins = self.going.get(number), False
        if begins:
            going = going or self._begin(place.seed)
            self._keep(number, going, place.seed)
            return number, going
        in_order = going is not None and np.array_equal(place.row, np.arange(len(going.time)))
        if not (ours and in_order and going is not None and going.steps == steps):
            return number, None
        with self._lock:
            self.going.move_to_end(number)
        return number, going

    def _keep(self, number: int, going: Going, seeds: np.ndarray) -> None:
        with self._lock:
            self.begun.pop(seeds.tobytes(), None)
            self.going[number] = going
            while sum(len(g.time) for g in self.going.values()) > 2 * self.most * jax.local_device_count():
                self.going.popitem(last=False)

    def _after(self, number: int, going: Going | None, place: Place) -> tuple[Place, Told]:
        if going is None:
            return self._cut(place)
        final, reward, terminated, truncated = going.pool.receive()
        going.steps, going.time = going.steps + 1, going.time + 1
        if self.time_limit is not None:
            truncated = truncated | (going.time >= self.time_limit)
        over, obs = terminated | truncated, final
        if over.any():
            fresh = going.pool.again(over)
            obs = jax.tree.map(lambda new, old: np.where(_like(over, old), new, old), fresh, final)
            going.time = np.where(over, 0, going.time)
        steps = np.full(len(over), going.steps, np.int32)
        now = Place(place.seed, np.full(len(over), number, np.int32), np.arange(len(over), dtype=np.int32), steps)
        return now, Told(obs, final, reward.astype(np.float32), terminated, truncated, np.zeros(len(over), bool))

    def _cut(self, place: Place) -> tuple[Place, Told]:
        """The episodes are over at the observations last seen; others begin, of other seeds."""
        if not self.warned:
            self.warned = True
            warnings.warn(
                "open episodes of environments on the host are cut, and others begun: their pool is not in this process, "
                "which resumed a run, or it has been stepped from this state before",
                stacklevel=2,
            )
        both = np.stack([place.seed, place.steps]).astype(np.uint32)
        seeds = np.array([np.random.SeedSequence(x.tolist()).generate_state(1)[0] >> 1 for x in both.T], np.int32)
        going, count = self._begin(seeds), len(seeds)
        zero = np.zeros(count, np.int32)
        off, on = zero.astype(bool), np.ones(count, bool)
        told = Told(going.first, going.first, zero.astype(np.float32), off, on, on)
        return Place(seeds, zero + FRESH, zero, zero), told


def _like(over: np.ndarray, x: np.ndarray) -> np.ndarray:
    return over.reshape(over.shape + (1,) * (x.ndim - 1))


def _joined(rows: list[PyTree], lead: tuple[int, ...]) -> PyTree:
    """Trees of arrays ``[N, ...]`` as one of ``[*lead, ...]``."""
    return jax.tree.map(
        lambda *x: (x[0] if len(x) == 1 else np.concatenate(x)).reshape((*lead, *x[0].shape[1:])), *rows
    )
