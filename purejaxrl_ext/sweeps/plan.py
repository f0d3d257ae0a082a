"""What a sweep is: arms, grid, seeds, and the waves that its seeds run in; how it is made, stored and grown.

An arm's seeds run in **waves**, one after another, each all grid cells of some seeds. They are of one width (spare places
repeat a seed), and so one program with one result, however many there are; unless they do not fit into memory any more, or
more seeds are added later than the waves before are wide. A wave is what is
checkpointed and resumed; a block of seeds is what a process has to itself.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from purejaxrl_ext.errors import check
from purejaxrl_ext.sweeps import arguments, checkpoints, guards, results
from purejaxrl_ext.sweeps.arguments import Arms
from purejaxrl_ext.sweeps.locks import hold
from purejaxrl_ext.types import Algorithm, abstract_key

# Seeds of a block of the store, at least: a run that gets more seeds shall not have a file and a lock for each.
SEED_BLOCK = 32


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
        eval_every, eval_episodes: see :func:`~purejaxrl_ext.sweeps.sweep.sweep`.
    """

    arms: dict[str, Algorithm]
    grid: dict[str, list[float]]
    slots: list[int]
    seed_block: int
    waves: dict[str, list[Wave]]
    wave_size: int | None
    total_steps: int
    eval_every: int
    eval_episodes: int

    @property
    def seeds(self) -> list[int]:
        return [s for s in self.slots if s != results.PADDING]

    def num_updates(self, arm: str) -> int:
        return self.arms[arm].num_updates(self.total_steps)

    def wave_seeds(self, wave: Wave) -> list[int]:
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

    def metrics(self) -> list[str]:
        """Names of all arms' metrics."""
        names = dict.fromkeys(name for algorithm in self.arms.values() for name in metric_names(algorithm))
        return [*names, *(["eval_return"] if self.eval_every else [])]

    def config(self) -> dict[str, Any]:
        return {
            "total_steps": self.total_steps,
            "seeds": self.seeds,
            "grid": self.grid,
            "eval_every": self.eval_every,
            "eval_episodes": self.eval_episodes,
            "arms": {
                name: {
                    "env": a.env_name,
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


@functools.lru_cache(maxsize=1024)
def metric_names(algorithm: Algorithm) -> tuple[str, ...]:
    """What a step logs. Kept, since it takes tracing a step, and every wave asks."""
    state = jax.eval_shape(algorithm.init, abstract_key())
    return tuple(jax.eval_shape(algorithm.step, state)[1])


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


def make(
    arms: Arms,
    total_steps: int,
    num_seeds: int | None,
    seeds: Sequence[int] | None,
    grid: Mapping[str, Sequence[float]] | None,
    eval_every: int,
    eval_episodes: int,
    wave_size: int | None,
    on_disk: bool,
) -> Plan:
    named = arguments.named(arms)
    listed = arguments.listed_seeds(num_seeds, seeds)
    values = arguments.checked_grid(named, grid or {})
    check(eval_every >= 0, "eval_every", eval_every, "0 or greater")
    check(eval_episodes > 0, "eval_episodes", eval_episodes, "greater than 0")
    check(total_steps > 0, "total_steps", total_steps, "greater than 0")
    whole = wave_size is None or (isinstance(wave_size, int) and wave_size > 0)
    check(whole, "wave_size", wave_size, "None or an int of at least 1")
    share = -(-len(listed) // jax.process_count())
    block = max(share, SEED_BLOCK) if on_disk else share
    slots = place(listed, share, block)
    waves = {name: cut(slots, block, min(wave_size or share, share)) for name in named}
    plan = Plan(named, values, slots, block, waves, wave_size, int(total_steps), eval_every, eval_episodes)
    plan.metrics()  # An arm that cannot train fails here, before anything is written.
    return plan


def stored(path: Path, config: dict[str, Any], given: dict[str, Algorithm]) -> Plan:
    """The plan that a run's ``config.json`` holds, its arms made again or as given."""
    guards.check_conditions(path, config)
    return Plan(
        arms={
            name: checkpoints.arm_algorithm(path, name, arm["settings"], given.get(name))
            for name, arm in config["arms"].items()
        },
        grid=config["grid"],
        slots=config["slots"],
        seed_block=config["seed_block"],
        waves={name: [Wave(*wave) for wave in waves] for name, waves in config["waves"].items()},
        wave_size=config.get("wave_size"),
        total_steps=config["total_steps"],
        eval_every=config["eval_every"],
        eval_episodes=config["eval_episodes"],
    )


def grown(
    path: Path,
    config: dict[str, Any],
    arms: Arms | None,
    total_steps: int | None,
    num_seeds: int | None,
    seeds: Sequence[int] | None,
) -> Plan:
    """A run's plan with more steps, arms and seeds."""
    given = {} if arms is None else arguments.named(arms)
    plan = stored(path, config, given)
    if total_steps is not None:
        check(total_steps >= plan.total_steps, "total_steps", total_steps, f"at least the run's {plan.total_steps}")
        plan.total_steps = int(total_steps)
    _add_arms(plan, given)
    if num_seeds is not None or seeds is not None:
        _add_seeds(plan, arguments.listed_seeds(num_seeds, seeds))
    return plan


def has_grown(plan: Plan, config: dict[str, Any]) -> bool:
    now = json.loads(json.dumps(plan.config()))
    return now != {key: config.get(key) for key in now}


def _add_arms(plan: Plan, given: dict[str, Algorithm]) -> None:
    new = {name: algorithm for name, algorithm in given.items() if name not in plan.arms}
    arguments.checked_grid(new, plan.grid)
    widest = max(wave.width for waves in plan.waves.values() for wave in waves)
    plan.arms = plan.arms | new
    for name in new:
        plan.waves[name] = cut(plan.slots, plan.seed_block, widest)


def _add_seeds(plan: Plan, seeds: list[int]) -> None:
    missing = sorted(set(plan.seeds) - set(seeds))
    check(not missing, "seeds", seeds, f"all that the run has and more; {missing[:10]} are missing")
    new, held = [s for s in seeds if s not in plan.seeds], len(plan.slots)
    if not new:
        return
    share = -(-len(new) // jax.process_count())
    plan.slots = plan.slots + place(new, share, plan.seed_block)
    for waves in plan.waves.values():
        width = max(waves[-1].width, min(share, plan.wave_size or share))
        waves += cut(plan.slots, plan.seed_block, width, held)


def store_config(path: Path, plan: Plan) -> None:
    """Write what a run is; what else its ``config.json`` holds stays."""
    file = path / "config.json"
    before = results.read_config(path) if file.exists() else results.provenance()
    results.write_json(file, before | plan.config())


def note_conditions(path: Path) -> None:
    """Add to ``config.json`` with what versions, device and commit a run goes on, if with others than so far."""
    with hold(path, "config", "config.json", wait=True):
        config, now = results.read_config(path), results.provenance()
        known = [{key: config[key] for key in now}, *config.get("resumed_with", [])]
        if now not in known:
            results.write_json(path / "config.json", config | {"resumed_with": [*known[1:], now]})
