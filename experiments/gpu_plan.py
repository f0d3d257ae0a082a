"""What a training program costs a GPU, before one is rented: XLA compiles it for an H100 on this machine, which needs no card.

Shown are the tree of loops with kernels and bytes written, memory by seeds, and a lower bound of the seconds that training takes.
Small networks and environments are bound by launches: an update's kernels run one after another, a few microseconds each.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli

if TYPE_CHECKING:
    from gpu_compile import Compiled
    from gpu_hlo import Loop

LAUNCH_SECONDS = 2e-6  # of a kernel, at least
BANDWIDTH = 3.35e12  # bytes/s of an H100's memory
PEAK = 495e12  # flops/s of its matrix units, float32 rounded to TF32, which XLA uses for float32 by default
MIB, GIB = 2**20, 2**30
CARDS = (40, 80, 141)  # GiB of an A100, an H100 and an H200


@dataclass(frozen=True)
class Plan:
    """Settings of the plan."""

    algorithm: str
    """as of prx.make"""
    env: str = "CartPole-v1"
    """as of prx.make"""
    seeds: tuple[int, ...] = (64, 2048)
    """runs side by side, a program for each"""
    set: tuple[str, ...] = ()
    """settings of the algorithm, NAME=VALUE"""
    env_steps: int = 500_000
    """environment steps of each run, of which the seconds are"""
    kernels: bool = False
    """list every kernel of the first program's loops too"""
    hlo: Path | None = None
    """a file for the first program's text"""


def settings_of(pairs: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE pairs as keyword arguments; a value that is no Python literal is a string."""
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise ValueError(f"set={pair!r} is not allowed: NAME=VALUE")
        try:
            settings[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[name] = value
    return settings


def tree(loops: Loop, kernels: bool = False) -> list[str]:
    """A line for each loop: trips, kernels and bytes of one of them; of the kernels too, if they are wanted."""
    lines = []
    for depth, loop in loops.walk():
        indent = "  " * depth
        times = f"{loop.times:,} × " if loop.times and depth else "? × " if depth else ""
        inner = f" ({loop.total():,.0f} with inner loops)" if loop.inner else ""
        never = "" if loop.taken else ", not always taken: counted nowhere"
        written = loop.total("written") / MIB
        lines.append(
            f"{indent}{times}{loop.label}: {len(loop.kernels)} kernels{inner}, {written:,.2f} MiB written{never}"
        )
        for k in loop.kernels if kernels else ():
            where = " ‹ ".join(f"{f.split('.')[-1]} {file}:{n}" for f, file, n in k.stack[:3])
            lines.append(f"{indent}    {k.written / MIB:9.4f} MiB  {k.kind:8} {k.name}: {k.op}  {where}")
    return lines


def bound(loops: Loop, updates: float) -> tuple[float, str]:
    """The least seconds that so many updates take, and what binds."""
    seconds = {
        "launches": loops.total() * LAUNCH_SECONDS,
        "bytes": loops.total("written") / BANDWIDTH,
        "flops": loops.total("flops") / PEAK,
    }
    binds = max(seconds, key=seconds.__getitem__)
    return updates * seconds[binds], binds


def most_seeds(memory: dict[int, int], limit: float) -> int:
    """The most seeds whose program fits into ``limit`` bytes, from a straight line through what was compiled."""
    import numpy as np

    slope, offset = np.polyfit(list(memory), list(memory.values()), 1) if len(memory) > 1 else (_only(memory), 0.0)
    return max(int((limit - offset) / slope), 0)


def _only(memory: dict[int, int]) -> float:
    ((seeds, size),) = memory.items()
    return size / seeds


def main(plan: Plan) -> None:
    """Compile and say."""
    import gpu_compile

    import purejaxrl_ext as prx

    algorithm = prx.make(plan.algorithm, plan.env, **settings_of(plan.set))
    updates = algorithm.num_updates(plan.env_steps)
    memory = {}
    for seeds in plan.seeds:
        compiled: Compiled = gpu_compile.update_of(algorithm, seeds)
        print(
            f"{plan.algorithm} on {plan.env}, {seeds:,} seeds: an update, of {algorithm.steps_per_update:,} steps of each"
        )
        print("\n".join(tree(compiled.loops, plan.kernels and not memory)))
        if plan.hlo and not memory:
            plan.hlo.write_text(compiled.hlo)
        seconds, binds = bound(compiled.loops, updates)
        memory[seeds] = compiled.memory
        print(
            f"{compiled.loops.total():,.0f} kernels per update; memory {compiled.memory / MIB:,.1f} MiB, of it temporaries "
            f"{compiled.temporaries / MIB:,.1f}; {plan.env_steps:,} steps of each take at least {seconds:.2f} s ({binds})\n"
        )
    print("seeds that fit: " + ", ".join(f"{most_seeds(memory, card * GIB):,} into {card} GiB" for card in CARDS))


if __name__ == "__main__":
    cli.run(main, __doc__, Plan)
