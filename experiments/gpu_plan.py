"""What a training program costs a GPU, before one is rented: XLA compiles it for an H100 on this machine, which needs no card.

Shown are the tree of loops with kernels and bytes written, memory by seeds, and a lower bound of the seconds that training takes.
Small networks and environments are bound by launches: an update's kernels run one after another, a few microseconds each.
Without an algorithm, a standard list of programs makes a table.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cli

if TYPE_CHECKING:
    from gpu_compile import Compiled
    from gpu_hlo import Loop

LAUNCH_SECONDS = 2e-6  # of a kernel, at least
BANDWIDTH = 3.35e12  # bytes/s of an H100's memory
PEAK = 495e12  # flops/s of its matrix units, float32 rounded to TF32, which XLA uses for float32 by default
MIB, GIB = 2**20, 2**30
CARDS = (40, 80, 141)  # GiB of an A100, an H100 and an H200
RESULTS = Path(__file__).parent / "results" / "gpu_plan.md"

CARTPOLE = ["num_envs=4", "num_steps=128", "num_epochs=4", "num_minibatches=4"]
MINATAR = ["num_envs=64", "num_steps=128", "num_epochs=4", "num_minibatches=8"]
DQN = ["num_envs=10", "batch_size=128", "replay_capacity=10000"]
PQN = ["num_envs=32", "num_steps=64", "num_epochs=4", "num_minibatches=16", "hidden_sizes=(128,128)"]
# Algorithm, environment, seeds, settings, XLA's settings.
STANDARD: tuple[tuple[str, str, tuple[int, ...], list[str], tuple[str, ...]], ...] = (
    ("ppo", "CartPole-v1", (64, 2048), CARTPOLE, ("default", "throughput", "deterministic")),
    ("pfo", "CartPole-v1", (64, 2048), CARTPOLE, ("default",)),
    ("dqn", "CartPole-v1", (64, 1024), DQN, ("default", "throughput")),
    ("pqn", "CartPole-v1", (64, 512), PQN, ("default",)),
    ("ppo", "Breakout-MinAtar", (4, 16), MINATAR, ("default",)),
    ("pfo", "Breakout-MinAtar", (4, 16), MINATAR, ("default",)),
    (
        "ppo",
        "CartPole-v1",
        (64, 512),
        ["num_envs=4", "num_steps=128", "num_minibatches=4", "memory='gru'"],
        ("default",),
    ),
)
# rejax asks for more.
REJAX = {"dqn": ["prefill_steps=1000"]}
# What of it a peer has, too.
PEERS = {"purejaxrl": ("ppo", "dqn"), "rejax": ("ppo", "dqn"), "purejaxql": ("pqn",)}


@dataclass(frozen=True)
class Plan:
    """Settings of the plan."""

    algorithm: str | None = None
    """as of prx.make; None: the standard list"""
    env: str = "CartPole-v1"
    """as of prx.make"""
    seeds: tuple[int, ...] = (64, 2048)
    """runs side by side, a program for each"""
    set: tuple[str, ...] = ()
    """settings of the algorithm, NAME=VALUE"""
    env_steps: int = 500_000
    """environment steps of each run, of which the seconds are"""
    xla_gpu: Literal["default", "throughput", "deterministic"] = "default"
    """XLA's settings, as of purejaxrl_ext.devices.gpu_settings"""
    peer: tuple[str, ...] = ()
    """another project's program: purejaxrl=PATH, purejaxql=PATH (checkouts), rejax (installed) or rejax=PATH"""
    peer_packages: Path | None = None
    """a folder of packages that peers need in other versions: pip install --no-deps --target FOLDER gymnax==0.0.9 flashbax rejax"""
    card: float | None = None
    """GiB of a card: how many seeds a sweep would run side by side there, checked to fit"""
    kernels: bool = False
    """list every kernel of the first program's loops too"""
    hlo: Path | None = None
    """a file for the first program's text"""
    json: bool = False
    """say it as one line of JSON"""
    out: Path = RESULTS
    """the standard list's table"""


@dataclass
class Row:
    """A program in the table.

    Attributes:
        name, xla, seeds: which.
        steps: environment steps of an update, of each seed.
        kernels, launches: of an update; what the host launches of it (None: not known).
        parts: kernels of a trip of each loop, by its trips and what it does.
        written: bytes of an update; of a minibatch in ``minibatch``.
        memory: bytes; fits: seeds into each card.
        seconds, binds: at least, for the plan's steps of each seed; what binds.
        tree: the loops, in lines.
    """

    name: str
    xla: str
    seeds: int
    steps: int
    kernels: int
    launches: int | None
    parts: dict[str, int]
    written: float
    minibatch: float | None
    memory: int
    seconds: float
    binds: str
    tree: list[str]
    fits: list[int] = field(default_factory=list)


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
        times = f"{loop.times or '?':,} × " if loop.is_while else ""
        inner = f" ({loop.total():,.0f} with inner loops)" if loop.inner else ""
        never = "" if loop.taken else "; not always taken: counted nowhere"
        written = loop.total("written") / MIB
        lines.append(
            f"{'  ' * depth}{times}{loop.label}: {len(loop.kernels)} kernels{inner}, {written:,.2f} MiB written{never}"
        )
        for k in loop.kernels if kernels else ():
            where = " ‹ ".join(f"{f.split('.')[-1]} {file}:{n}" for f, file, n in k.stack[:3])
            lines.append(f"{'  ' * depth}    {k.written / MIB:9.4f} MiB  {k.kind:8} {k.name}: {k.op}  {where}")
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

    sizes = list(memory.values())
    slope, offset = np.polyfit(list(memory), sizes, 1) if len(memory) > 1 else (sizes[0] / next(iter(memory)), 0.0)
    return max(int((limit - offset) / slope), 0)


def row(plan: Plan, seeds: int, first: bool) -> Row:
    """Compile one program and count."""
    import gpu_compile

    settings = settings_of(plan.set)
    if plan.peer:
        import gpu_peers

        (peer,) = plan.peer
        train, steps = gpu_peers.program(peer, str(plan.algorithm), plan.env, settings, plan.env_steps)
        compiled: Compiled = gpu_compile.training_of(train, seeds)
        loops = compiled.loops.repeated(plan.env_steps / steps)
        name = f"{peer.split('=')[0]}: {plan.algorithm}, {plan.env}"
    else:
        import purejaxrl_ext as prx

        algorithm = prx.make(str(plan.algorithm), plan.env, **settings)
        steps, compiled = algorithm.steps_per_update, gpu_compile.update_of(algorithm, seeds)
        loops, name = compiled.loops, f"{plan.algorithm}, {plan.env}" + (", GRU" if "memory" in settings else "")
    if plan.hlo and first:
        plan.hlo.write_text(compiled.hlo)
    seconds, binds = bound(loops, plan.env_steps / steps)
    inner = [loop for loop in loops.counted() if loop.is_while and loop is not loops]
    minibatch = next((loop for loop in inner if loop.label.startswith("minibatch")), None)
    return Row(
        name=name,
        xla=plan.xla_gpu,
        seeds=seeds,
        steps=steps,
        kernels=int(loops.total()),
        launches=loops.launches,
        parts={f"{loop.times or '?'} × {loop.label.split(' (')[0]}": int(loop.total()) for loop in inner},
        written=loops.total("written"),
        minibatch=minibatch and minibatch.total("written"),
        memory=compiled.memory,
        seconds=seconds,
        binds=binds,
        tree=tree(loops, plan.kernels and first),
    )


def rows(plan: Plan) -> list[Row]:
    """A program for each number of seeds."""
    if len(plan.peer) > 1:
        raise ValueError(f"peer={plan.peer} is not allowed with an algorithm: one")
    made = [row(plan, seeds, seeds == plan.seeds[0]) for seeds in plan.seeds]
    memory = {r.seeds: r.memory for r in made}
    for r in made:
        r.fits = [most_seeds(memory, card * GIB) for card in CARDS]
    return made


def say(plan: Plan, made: list[Row]) -> None:
    """What was counted, to be read."""
    for r in made:
        print(f"{r.name}, {r.seeds:,} seeds: an update, of {r.steps:,} steps of each")
        print("\n".join(r.tree))
        launches = "" if r.launches is None else f", {r.launches:,} launches by the host"
        print(
            f"{r.kernels:,} kernels per update{launches}; memory {r.memory / MIB:,.1f} MiB; "
            f"{plan.env_steps:,} steps of each take at least {r.seconds:.2f} s ({r.binds})\n"
        )
    print("seeds that fit: " + ", ".join(f"{n:,} into {card} GiB" for n, card in zip(made[0].fits, CARDS, strict=True)))


def table(made: list[Row], env_steps: int) -> str:
    """All programs, a row each."""
    cards = " / ".join(map(str, CARDS))
    lines = [
        "| program | XLA | seeds | steps per update | kernels per update | by loop | per 1,000 steps | host launches | "
        "MiB written per update | of them a minibatch's trip | memory, MiB | "
        f"seeds into {cards} GiB | least seconds of {env_steps:,} steps |",
        "|:--|:--|" + "--:|" * 3 + ":--|" + "--:|" * 7,
    ]
    for r in made:
        parts = ", ".join(f"{label} {kernels:,}" for label, kernels in r.parts.items())
        launches = "?" if r.launches is None else f"{r.launches:,}"
        minibatch = "" if r.minibatch is None else f"{r.minibatch / MIB:,.1f}"
        fits = " / ".join(f"{n:,}" for n in r.fits)
        lines.append(
            f"| {r.name} | {r.xla} | {r.seeds:,} | {r.steps:,} | {r.kernels:,} | {parts} | {1000 * r.kernels / r.steps:,.0f} | "
            f"{launches} | {r.written / MIB:,.0f} | {minibatch} | {r.memory / MIB:,.0f} | {fits} | {r.seconds:.2f} ({r.binds}) |"
        )
    return "\n".join(lines)


def standard(plan: Plan) -> list[Row]:
    """The standard list, each algorithm and setting a process of its own: XLA reads its flags once, and peers change the path."""
    made = []
    for algorithm, env, seeds, settings, xla in STANDARD:
        peers = [p for p in plan.peer if algorithm in PEERS.get(p.split("=")[0], ())]
        shared = "memory='gru'" not in settings and env == "CartPole-v1"
        for name, peer in [(x, None) for x in xla] + [("default", p) for p in peers if shared]:
            told = settings if peer is None or not peer.startswith("rejax") else [*settings, *REJAX.get(algorithm, [])]
            command = ["--algorithm", algorithm, "--env", env, "--xla-gpu", name, "--json"]
            command += ["--env-steps", str(plan.env_steps), "--seeds", *map(str, seeds), "--set", *told]
            command += ["--peer", peer] if peer else []
            command += ["--peer-packages", str(plan.peer_packages)] if peer and plan.peer_packages else []
            print(" ".join(command), file=sys.stderr)
            done = subprocess.run([sys.executable, __file__, *command], capture_output=True, text=True, check=False)
            if done.returncode:
                # The rest is worth having without it.
                print(f"error: left out, as it failed:\n{done.stderr.strip()[-2000:]}", file=sys.stderr)
                continue
            made += [Row(**r) for r in json.loads(done.stdout.splitlines()[-1])]
    return made


def write(plan: Plan, made: list[Row]) -> None:
    """The standard list's table, with the command that made it and versions."""
    from importlib.metadata import version

    named = " ".join(p.split("=")[0] + ("=PATH" if "=" in p else "") for p in plan.peer)
    named += " --peer-packages FOLDER" if plan.peer_packages else ""
    command = f'make gpu-plan ARGS="--peer {named}"' if named else "make gpu-plan"
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", "jaxlib", "jax-cuda12-pjrt", "flax", "gymnax"))
    trees = "\n\n".join(f"{r.name}, {r.seeds:,} seeds, XLA {r.xla}\n" + "\n".join(r.tree) for r in made)
    plan.out.write_text(
        f"{HEAD.format(command=command, versions=versions)}\n{table(made, plan.env_steps)}\n\n```\n{trees}\n```\n"
    )
    print(f"written: {plan.out}")


HEAD = """# What training programs cost a GPU

`{command}` ({versions}): compiled for an H100 on a machine that has none; nothing was run.

- Kernels and bytes are those of the optimised program. A slice written in place counts alone; a branch that is not always taken
  (measuring the representation) counts nowhere. By loop: trips in an update, and kernels of a trip.
- Host launches: what the host starts one by one; a CUDA graph (XLA's command buffer) counts once.
- Least seconds: the largest of 2 µs for each kernel, bytes written at 3.35 TB/s, and matrix products at 495 TFLOP/s (TF32).
- Seeds that fit: a straight line through the memory of the widths compiled.
- XLA: the settings of `purejaxrl_ext.devices.gpu_settings`. Nothing is timed without a card, so that autotuning shows nothing here.
  With "throughput" a trip is two steps, or two minibatches, compiled as one.
- A peer's update is a trip of its outermost loop, its memory that of its whole program; of its branches the dearest counts, as it
  learns in one once its replay has filled.
"""


def main(plan: Plan) -> None:
    """Compile and say."""
    if plan.algorithm is None:
        write(plan, standard(plan))
        return
    import gpu_compile

    if plan.peer_packages:
        sys.path.insert(0, str(plan.peer_packages))
    gpu_compile.start(plan.xla_gpu)
    made = rows(plan)
    if plan.json:
        print(json.dumps([asdict(r) for r in made]))
        return
    say(plan, made)
    if plan.card:
        import purejaxrl_ext as prx

        algorithm = prx.make(plan.algorithm, plan.env, **settings_of(plan.set))
        asked = 4 * most_seeds({r.seeds: r.memory for r in made}, plan.card * GIB)
        print(gpu_compile.check_sweep(algorithm, asked, plan.card * GIB))


if __name__ == "__main__":
    cli.run(main, __doc__, Plan)
