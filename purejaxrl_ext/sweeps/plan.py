"""What a sweep is: arms, grid, seeds, and the waves that its seeds run in.

An arm's seeds run in **waves**, one after another, each all grid cells of some seeds. They are of one width (spare places
repeat a seed), and so one program with one result, however many there are; unless they do not fit into memory any more, or
more seeds are added later than the waves before are wide. A wave is what is
checkpointed and resumed; a block of seeds is what a process has to itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from purejaxrl_ext.errors import check
from purejaxrl_ext.sweeps import checkpoints, results
from purejaxrl_ext.sweeps import probes as probing
from purejaxrl_ext.sweeps.arguments import TAKEN
from purejaxrl_ext.sweeps.probes import GreedyReturn, Probe
from purejaxrl_ext.sweeps.program import outline
from purejaxrl_ext.types import Algorithm, PyTree


class Wave(NamedTuple):
    """Places ``start`` to ``stop`` on the seed axis, run as ``width`` seeds: beyond them the last is repeated."""

    start: int
    stop: int
    width: int

    @property
    def name(self) -> str:
        return f"{self.start}-{self.stop}"


@dataclass
class Plan:
    """What a sweep is; ``config.json`` holds it.

    Attributes:
        arms: by name.
        grid: values of each swept setting.
        slots: the store's seed axis: seeds, and PADDING where a block is not full.
        seed_block: seeds per block; one process writes a block.
        waves: of each arm.
        wave_size: the most seeds of a wave that were asked for; None: as many as fit.
        total_steps: environment steps of each run.
        eval_every, eval_episodes, eval_common_starts, probe_every, save_every: see
            :func:`~purejaxrl_ext.sweeps.sweep.sweep`.
        probes: functions by name.
        dims: dimensions of the arms.
        labels: each arm's, along ``dims``.
    """

    arms: dict[str, Algorithm]
    grid: dict[str, list[float]]
    slots: list[int]
    seed_block: int
    waves: dict[str, list[Wave]]
    wave_size: int | None
    total_steps: int
    eval_every: int = 0
    eval_episodes: int = 32
    eval_common_starts: bool = False
    probes: dict[str, Callable] = field(default_factory=dict)
    probe_every: int = 0
    save_every: int = 0
    dims: tuple[str, ...] = ("arm",)
    labels: dict[str, tuple] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        return [s for s in self.slots if s != results.PADDING]

    def num_updates(self, arm: str) -> int:
        """Updates of an arm's runs."""
        return self.arms[arm].num_updates(self.total_steps)

    def wave_seeds(self, wave: Wave) -> list[int]:
        """A wave's seeds, the last one repeated up to its width."""
        seeds = self.slots[wave.start : wave.stop]
        return seeds + seeds[-1:] * (wave.width - len(seeds))

    def blank(self) -> xr.Dataset:
        """The dataset without its variables, with all slots."""
        longest = max(self.num_updates(name) for name in self.arms)
        env_steps = np.full((len(self.arms), longest), np.nan)
        for i, (name, algorithm) in enumerate(self.arms.items()):
            count = self.num_updates(name)
            env_steps[i, :count] = (np.arange(count) + 1.0) * algorithm.steps_per_update
        return results.blank(list(self.arms), self.grid, self.slots, env_steps)

    def all_probes(self) -> list[Probe]:
        """Evaluation, if it is asked for, and the probes."""
        evaluation = GreedyReturn(self.eval_episodes, self.eval_common_starts)
        first = [Probe("evaluation", evaluation, self.eval_every)] if self.eval_every else []
        return first + [Probe(name, function, self.probe_every) for name, function in self.probes.items()]

    def stops(self) -> list[int]:
        """Every so many updates something happens between chunks."""
        return [every for every in (self.save_every, *(p.every for p in self.all_probes())) if every]

    def is_chosen(self, arm: str, update: int) -> bool:
        """Whether the State after ``update`` updates is kept for good."""
        return update == self.num_updates(arm) or (self.save_every > 0 and update % self.save_every == 0)

    def metrics(self) -> list[str]:
        """Names of all arms' metrics.

        Raises:
            ValueError: an arm's metric is no scalar or its step changes the State's structure; a probe's metric is none, or has
                a name that is taken.
        """
        names: dict[str, None] = {}
        for arm, algorithm in self.arms.items():
            taken = dict.fromkeys([*metric_names(algorithm, arm), *TAKEN, *self.grid, *self.dims], "the sweep's own")
            names |= dict.fromkeys(metric_names(algorithm, arm))
            for probe in self.all_probes():
                for name in probing.metric_names(probe, algorithm):
                    where = f"the metrics of probes[{probe.name!r}]"
                    check(name not in taken, where, name, f"of another name: it is {taken.get(name)}")
                    taken[name] = f"that of probes[{probe.name!r}]"
                    names[name] = None
        return list(names)

    def config(self) -> dict[str, Any]:
        return {
            "total_steps": self.total_steps,
            "seeds": self.seeds,
            "grid": self.grid,
            "eval_every": self.eval_every,
            "eval_episodes": self.eval_episodes,
            "eval_common_starts": self.eval_common_starts,
            "probes": {name: checkpoints.plain(function) for name, function in self.probes.items()},
            "probe_every": self.probe_every,
            "save_every": self.save_every,
            "dims": list(self.dims),
            "arms": {
                name: {
                    "env": a.env_name,
                    "labels": list(self.labels.get(name, (name,))),
                    "settings": {k: checkpoints.plain(v) for k, v in a.settings.items()},
                    "steps_per_update": a.steps_per_update,
                    "num_updates": self.num_updates(name),
                }
                for name, a in self.arms.items()
            },
            "slots": self.slots,
            "seed_block": self.seed_block,
            "waves": {name: [list(w) for w in waves] for name, waves in self.waves.items()},
            "wave_size": self.wave_size,
        }


def metric_names(algorithm: Algorithm, arm: str) -> tuple[str, ...]:
    """What a step of an arm logs.

    Raises:
        ValueError: a metric is no scalar, or the State after a step is of another structure.
    """
    before, after, logged = outline(algorithm)
    for name, x in logged.items():
        check(
            x.shape == (),
            f"arm {arm!r}: the shape of metric {name!r}",
            x.shape,
            "(): a metric of a sweep is one number per update; train takes others",
        )
    old, new = (_shapes(state) for state in (before, after))
    changed = [
        f"{path}: {old.get(path, 'nothing')} became {new.get(path, 'nothing')}"
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]
    if changed:
        raise ValueError(
            f"arm {arm!r}: a step must give a State of the structure, shapes and types that it was given, and this one "
            f"changes it: {'; '.join(changed[:5])}"
        )
    return tuple(logged)


def _shapes(tree: PyTree) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in leaves}


def place(seeds: list[int], share: int, seed_block: int) -> list[int]:
    """Slots for seeds: each process's ``share`` in blocks of their own, filled up with PADDING."""
    slots: list[int] = []
    for i in range(0, len(seeds), share):
        mine = seeds[i : i + share]
        slots += mine + [results.PADDING] * (-len(mine) % seed_block)
    return slots


def cut(slots: list[int], seed_block: int, width: int, start: int = 0) -> list[Wave]:
    """Waves of at most ``width`` seeds over the slots from ``start`` on, each in one block, or all seeds of several blocks.

    So no block is written by two waves that could be two processes'.
    """
    waves, begin = [], start
    while begin < len(slots):
        end = begin - begin % seed_block + seed_block
        while (
            end < len(slots) and slots[end - 1] != results.PADDING and _held(slots[begin : end + seed_block]) <= width
        ):
            end += seed_block
        stop = begin + _held(slots[begin:end])
        waves += [Wave(i, min(i + width, stop), width) for i in range(begin, stop, width)]
        begin = end
    return waves


def _held(slots: list[int]) -> int:
    return sum(seed != results.PADDING for seed in slots)
