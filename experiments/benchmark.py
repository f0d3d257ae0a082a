"""Compile time, run time, steps/s and peak memory of an algorithm, by number of seeds; against rejax, purejaxrl and purejaxql where
asked for.

Every contestant is a process of its own, without a compilation cache; their repeats take turns, so that what else the
machine does falls on all alike; ratios are medians of each turn's. Compiling is timed apart: how much longer a first, one-update
sweep takes. CPU seconds are of all of a process's threads; where other work takes the cores too they say more than the clock.
"""

from __future__ import annotations

import ast
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cli
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
OURS = "purejaxrl_ext"
PLAIN = "purejaxrl_ext, metrics_every=0"
REJAX = "rejax"

# What both projects know, at the sizes usual for CartPole.
SETTINGS: dict[str, dict[str, Any]] = {
    "ppo": {
        "num_envs": 4,
        "num_steps": 128,
        "num_epochs": 4,
        "num_minibatches": 4,
        "hidden_sizes": (64, 64),
        "activation": "tanh",
        "learning_rate": 2.5e-4,
        "max_grad_norm": 0.5,
    },
    "dqn": {
        "num_envs": 10,
        "env_steps_per_update": 10,
        "batch_size": 128,
        "replay_capacity": 10_000,
        "prefill_steps": 1_000,
        "hidden_sizes": (64, 64),
        "activation": "relu",
        "learning_rate": 2.5e-4,
    },
}
SETTINGS["pfo"] = SETTINGS["ppo"]
SETTINGS["pqn"] = {
    "num_envs": 32,
    "num_steps": 64,
    "num_epochs": 4,
    "num_minibatches": 16,
    "hidden_sizes": (128, 128),
    "activation": "relu",
    "layer_norm": True,
    "learning_rate": 1e-4,
}


@dataclass(frozen=True)
class Benchmark:
    """What is timed."""

    algorithm: str = "ppo"
    env: str = "CartPole-v1"
    num_seeds: tuple[int, ...] = (1, 8)
    """numbers of seeds, each timed apart"""
    total_steps: int = 500_000
    """environment steps of each seed"""
    repeats: int = 3
    """runs of each contestant; the table shows medians"""
    set: tuple[str, ...] = ()
    """settings that differ from the default ones: --set num_envs=64 "hidden_sizes=(128,)\""""
    metrics_cost: bool = False
    """also without the representation metrics"""
    rejax_python: Path | None = None
    """a Python that has rejax (0.1.3 needs gymnax 0.0.9, so an environment of its own)"""
    purejaxrl: Path | None = None
    """a checkout of github.com/luchris429/purejaxrl"""
    purejaxql: Path | None = None
    """a checkout of github.com/mttga/purejaxql"""
    peers_python: Path = Path(sys.executable)
    """a Python that has what those two need: gymnax 0.0.9, distrax, brax, and flashbax for DQN"""
    markdown: Path | None = None
    """write the table there as well"""


class Contestant(NamedTuple):
    """Who is timed: a name, the Python and the script that run it, its settings and, of a peer, its checkout."""

    name: str
    python: str
    script: str
    settings: dict[str, Any]
    checkout: str = ""


class Worker:
    """A process that compiles once and runs when told to."""

    def __init__(self, python: str, script: str, job: dict[str, Any]):
        # Unfiltered, so that a traceback's last line is the error.
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": "", "JAX_TRACEBACK_FILTERING": "off"}
        # A file, not a pipe: a pipe that nobody reads would fill up and stop the process.
        self.errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115  (closed by close)
        self.process = subprocess.Popen(
            [python, str(HERE / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
        )
        self.tell(json.dumps(job))
        self.compiled = self.answer()

    def tell(self, line: str) -> None:
        """Write a line to the process."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # answer() says why

    def answer(self) -> dict[str, Any]:
        """Its next answer; ``ValueError`` with its last words if it has ended."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        self.process.wait()
        self.errors.seek(0)
        last = (self.errors.read().strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"{shlex.join(map(str, self.process.args))}: {last}")  # type: ignore[arg-type]

    def once(self) -> dict[str, Any]:
        """One timed run."""
        self.tell("run")
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.errors.close()


def main(benchmark: Benchmark) -> None:
    """Time every contestant at every number of seeds; table."""
    settings = SETTINGS.get(benchmark.algorithm, {}) | parse_settings(benchmark.set)
    for name, value in (("repeats", benchmark.repeats), ("total_steps", benchmark.total_steps)):
        if value < 1:
            raise ValueError(f"{name}={value} is not allowed: it must be at least 1")
    if not benchmark.num_seeds or min(benchmark.num_seeds) < 1:
        raise ValueError(f"num_seeds={benchmark.num_seeds} is not allowed: it must be numbers of at least 1")
    contestants = entrants(benchmark, settings)
    rows = []
    console = Console(stderr=True)
    for num_seeds in benchmark.num_seeds:
        rows += compete(benchmark, contestants, num_seeds, console)
    title = f"{benchmark.algorithm} on {benchmark.env}, {benchmark.total_steps:,} environment steps per seed"
    note = (
        f"Medians of {benchmark.repeats} runs taking turns; {rows[0]['device']}, {cores()} cores, "
        f"{', '.join(f'{name}: jax {version}' for name, version in versions(rows).items())}. "
        f"Settings: {', '.join(f'{k}={v}' for k, v in settings.items())}."
    )
    show(rows, title, note)
    if benchmark.markdown is not None:
        benchmark.markdown.parent.mkdir(parents=True, exist_ok=True)
        benchmark.markdown.write_text(as_markdown(rows, title, note))
        print(f"written to {benchmark.markdown}")


def entrants(benchmark: Benchmark, settings: dict[str, Any]) -> list[Contestant]:
    """Who takes part: this project first."""
    contestants = [Contestant(OURS, sys.executable, "bench_ours.py", settings)]
    if benchmark.metrics_cost:
        contestants.append(Contestant(PLAIN, sys.executable, "bench_ours.py", settings | {"metrics_every": 0}))
    if benchmark.rejax_python is not None:
        python = found("rejax_python", benchmark.rejax_python)
        contestants.append(Contestant(REJAX, python, "bench_rejax.py", settings))
    for name, checkout in (("purejaxrl", benchmark.purejaxrl), ("purejaxql", benchmark.purejaxql)):
        if checkout is None:
            continue
        if not (checkout.expanduser() / name).is_dir():
            raise ValueError(f"{name}={str(checkout)!r} is not allowed: it must be a checkout, with a folder {name}")
        python = found("peers_python", benchmark.peers_python)
        contestants.append(Contestant(name, python, "bench_peers.py", settings, str(checkout.expanduser().resolve())))
    return contestants


def found(field: str, python: Path) -> str:
    """The path of a program."""
    path = shutil.which(python.expanduser())
    if path is None:
        raise ValueError(f"{field}={str(python)!r} is not allowed: there is no such program")
    return path


def compete(benchmark: Benchmark, contestants: list, num_seeds: int, console: Console) -> list[dict[str, Any]]:
    """All contestants at one number of seeds, their repeats interleaved."""
    workers: dict[str, Worker] = {}
    results: dict[str, list[dict[str, Any]]] = {c.name: [] for c in contestants}
    try:
        for name, python, script, settings, checkout in contestants:
            console.print(f"{num_seeds} seeds, {name}: compiling")
            job = {
                "algorithm": benchmark.algorithm,
                "env": benchmark.env,
                "num_seeds": num_seeds,
                "total_steps": benchmark.total_steps,
                "settings": settings,
                "peer": f"{name}={checkout}",
            }
            workers[name] = Worker(python, script, job)
        for repeat in range(benchmark.repeats):
            for name, worker in workers.items():
                results[name].append(worker.once())
                console.print(f"{num_seeds} seeds, {name}, run {repeat + 1}: {results[name][-1]['seconds']:.2f} s")
        return [
            row(name, num_seeds, workers[name].compiled, results[name], results[OURS], workers[OURS].compiled["steps"])
            for name in workers
        ]
    finally:
        for worker in workers.values():
            worker.close()


def row(
    name: str,
    num_seeds: int,
    compiled: dict[str, Any],
    results: list[dict[str, Any]],
    ours: list[dict[str, Any]],
    steps: int,
) -> dict[str, Any]:
    """A contestant's line of the table: medians, most memory, and its seconds over ours of each turn, per step."""
    per_step = compiled["steps"] / steps
    seconds = statistics.median(r["seconds"] for r in results)
    return {
        "name": name,
        "num_seeds": num_seeds,
        "compile": compiled["compile"],
        "seconds": seconds,
        "cpu": statistics.median(r["cpu"] for r in results),
        "slower": statistics.median(r["seconds"] / o["seconds"] for r, o in zip(results, ours, strict=True)) / per_step,
        "slower_cpu": statistics.median(r["cpu"] / o["cpu"] for r, o in zip(results, ours, strict=True)) / per_step,
        "rate": num_seeds * compiled["steps"] / seconds,
        "memory": max(r["memory"] for r in results),
        "compiled_again": sum(r["compiled"] for r in results),
        "device": compiled["device"],
        "version": compiled["version"],
    }


COLUMNS = (
    "seeds",
    "",
    "compile (s)",
    "run (s)",
    "CPU s",
    "env steps/s",
    "peak memory (MiB)",
    "ours is faster by",
    "in CPU s by",
)


def cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The table as text, by line and column."""
    return [
        [
            str(r["num_seeds"]),
            r["name"],
            f"{r['compile']:.1f}",
            f"{r['seconds']:.2f}",
            f"{r['cpu']:.2f}",
            f"{r['rate']:,.0f}",
            f"{r['memory'] / 2**20:,.0f}",
            *(("", "") if r["name"] == OURS else (f"{r['slower']:.2f}", f"{r['slower_cpu']:.2f}")),
        ]
        for r in rows
    ]


def show(rows: list[dict[str, Any]], title: str, note: str) -> None:
    """Print the table, and what metrics cost and compiled again."""
    table = Table(title=title, caption=note)
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if i == 1 else "right")
    for line in cells(rows):
        table.add_row(*line)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for r in rows:
        if r["name"] == PLAIN:
            ours = next(o for o in rows if o["num_seeds"] == r["num_seeds"] and o["name"] == OURS)
            print(f"{r['num_seeds']} seeds: the representation metrics cost {ours['seconds'] / r['seconds'] - 1:.1%}")
        if r["compiled_again"]:
            print(f"{r['num_seeds']} seeds, {r['name']}: {r['compiled_again']} programs were compiled in timed runs")


def as_markdown(rows: list[dict[str, Any]], title: str, note: str) -> str:
    """The table as Markdown."""
    lines = [f"# {title}", "", "| " + " | ".join(COLUMNS) + " |", "|--:|:--|" + "--:|" * (len(COLUMNS) - 2)]
    lines += ["| " + " | ".join(line) + " |" for line in cells(rows)]
    return "\n".join([*lines, "", note, ""])


def versions(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The JAX that each contestant ran with."""
    return {r["name"]: r["version"] for r in rows if r["name"] != PLAIN}


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse_settings(words: tuple[str, ...]) -> dict[str, Any]:
    """``name=value`` each, the value as Python writes it or a word."""
    settings = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise ValueError(f"set={word!r} is not allowed: it must be name=value")
        try:
            settings[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            settings[name] = text
    return settings


if __name__ == "__main__":
    cli.run(main, __doc__, Benchmark)
