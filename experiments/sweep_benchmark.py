"""What a sweep costs around its training: saving, showing and logging; resuming; thousands of seeds in waves; devices.

Each run is a process of its own, with programs compiled before by a run that does not count.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cli
import numpy as np


@dataclass(frozen=True)
class Benchmark:
    """Settings of the benchmark."""

    of: Literal["overhead", "resume", "waves", "devices"] = "overhead"
    """overhead: wall and CPU time without anything, with store, checkpoints and progress, and with TensorBoard too, and
    how much of the last goes into each;
    resume: a run, and what is left of it after a kill at 80%; waves: many seeds, peak memory; devices: 1 against 2"""
    num_seeds: int = 8
    """seeds of each run"""
    total_steps: int = 4_000_000
    """environment steps of each seed"""
    checkpoint_seconds: float = 60.0
    """between checkpoints"""
    wave_size: int | None = None
    """seeds that run at once, at most"""
    repeats: int = 1
    """runs of each kind, taking turns; their medians are shown"""


def timed(spent: dict[str, float], kind: str, owner: Any, name: str) -> None:
    """From now on the seconds that a function takes are added to a kind's; those inside another of the kind count once."""
    inner = getattr(owner, name)

    def outer(*args: Any, **kwargs: Any) -> Any:
        began, before = time.perf_counter(), spent.get(kind, 0.0)
        try:
            return inner(*args, **kwargs)
        finally:
            spent[kind] = before + time.perf_counter() - began

    setattr(owner, name, outer)


def child(settings: dict[str, Any]) -> None:
    """One run, and what it took, as JSON on the standard output."""
    import purejaxrl_ext as prx
    from purejaxrl_ext.sweeps import logs, progress, wave

    spent: dict[str, float] = {}
    for kind, owner, name in (
        ("saving", wave.WaveRun, "_save"),
        ("saving", wave.Checkpoints, "wait"),
        ("saving in the background", np, "savez"),
        ("progress", progress.Progress, "advance"),
        ("TensorBoard", logs.TensorBoard, "log"),
    ):
        timed(spent, kind, owner, name)
    began, cpu = time.perf_counter(), time.process_time()
    if settings["resume"]:
        dataset = prx.resume(settings["out"], checkpoint_seconds=settings["checkpoint_seconds"])
    else:
        algorithm = prx.make("ppo", "CartPole-v1")
        dataset = prx.sweep(
            algorithm,
            num_seeds=settings["num_seeds"],
            total_steps=settings["total_steps"],
            wave_size=settings["wave_size"],
            out=settings["out"],
            checkpoint_seconds=settings["checkpoint_seconds"],
            progress=settings["out"] is not None,
            log=[logs.TensorBoard()] if settings["tensorboard"] else [],
        )
    took = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    took["memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    took["env_steps"] = float(dataset["env_step"].max()) * dataset.sizes["seed"]
    took |= {f"in {kind}": seconds for kind, seconds in spent.items()}
    print(json.dumps(took))


def start(benchmark: Benchmark, devices: int = 0, **settings: Any) -> subprocess.Popen[str]:
    chosen = {"num_seeds": benchmark.num_seeds, "total_steps": benchmark.total_steps, "wave_size": benchmark.wave_size}
    chosen |= {"checkpoint_seconds": benchmark.checkpoint_seconds, "out": None, "tensorboard": False, "resume": False}
    environment = os.environ | ({"JAX_NUM_CPU_DEVICES": str(devices)} if devices else {})
    command = [sys.executable, __file__, "child", json.dumps(chosen | settings)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def run(benchmark: Benchmark, **settings: Any) -> dict[str, float]:
    began = time.perf_counter()
    process = start(benchmark, **settings)
    said, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"a run ended with {process.returncode}")
    return json.loads(said.splitlines()[-1]) | {"process_seconds": time.perf_counter() - began}


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: sorted(r[key] for r in runs)[len(runs) // 2] for key in runs[0]}


def compare(benchmark: Benchmark, kinds: dict[str, dict[str, Any]], folder: Path) -> dict[str, dict[str, float]]:
    """Kinds of runs, taking turns."""
    taken: dict[str, list] = {name: [] for name in kinds}
    for i in range(benchmark.repeats):
        for name, settings in kinds.items():
            place = {"out": str(folder / f"{name}-{i}")} if settings.get("out") else {}
            taken[name].append(run(benchmark, **settings | place))
    return {name: medians(runs) for name, runs in taken.items()}


def overhead(benchmark: Benchmark, folder: Path) -> None:
    kinds = {"bare": {}, "saved": {"out": True}, "logged": {"out": True, "tensorboard": True}}
    took = compare(benchmark, kinds, folder)
    print("| | wall (s) | | CPU (s) | |\n|:--|--:|--:|--:|--:|")
    for name, t in took.items():
        wall, cpu = (t[key] / took["bare"][key] - 1.0 for key in ("seconds", "cpu_seconds"))
        print(f"| {name} | {t['seconds']:.1f} | {wall:+.1%} | {t['cpu_seconds']:.1f} | {cpu:+.1%} |")
    # A busy machine's runs differ by more than this, so it is also counted within one.
    whole = took["logged"]
    print("of the last, by the clock within it:")
    for kind in (k for k in whole if k.startswith("in ")):
        print(f"{kind} {whole[kind]:.2f} s, {whole[kind] / whole['seconds']:.2%}")


def resume(benchmark: Benchmark, folder: Path) -> None:
    whole = run(benchmark, out=str(folder / "whole"))
    last = max(int(p.name) for p in (folder / "whole").glob("checkpoints/*/*/[0-9]*") if p.name.isdigit())
    process = start(benchmark, out=str(folder / "killed"))
    done = 0
    while done < 0.8 * last:
        if process.poll() is not None:
            raise ValueError(f"checkpoint_seconds={benchmark.checkpoint_seconds} is too long for a run this short")
        time.sleep(0.05)
        saved = [int(p.name) for p in (folder / "killed").glob("checkpoints/*/*/[0-9]*") if p.name.isdigit()]
        done = max(saved, default=0)
    process.kill()
    process.wait()
    rest = run(benchmark, out=str(folder / "killed"), resume=True)
    a, b = whole["process_seconds"], rest["process_seconds"]
    print(f"whole run {a:.1f} s; killed at {done / last:.0%}, going on took {b:.1f} s: {b / a:.0%}")


def waves(benchmark: Benchmark, folder: Path) -> None:
    took = run(benchmark, out=str(folder / "x"))
    config = json.loads((folder / "x" / "config.json").read_text())
    print(
        f"{benchmark.num_seeds} seeds in {len(config['waves']['ppo'])} waves: {took['seconds']:.0f} s, "
        f"{took['env_steps'] / took['seconds']:,.0f} env steps/s, peak memory {took['memory_gib']:.2f} GiB"
    )


def devices(benchmark: Benchmark, folder: Path) -> None:
    took = compare(benchmark, {"1 device": {"devices": 1}, "2 devices": {"devices": 2}}, folder)
    one, two = (took[name]["seconds"] for name in took)
    print(f"1 device {one:.1f} s, 2 devices {two:.1f} s: {one / two:.2f} times as fast")


def main(benchmark: Benchmark) -> None:
    # Compiles, and fills the cache on disk.
    for count in (1, 2) if benchmark.of == "devices" else (0,):
        process = start(benchmark, devices=count, total_steps=1)
        if process.wait() != 0:
            raise RuntimeError("the first run failed")
    with tempfile.TemporaryDirectory() as folder:
        {"overhead": overhead, "resume": resume, "waves": waves, "devices": devices}[benchmark.of](
            benchmark, Path(folder)
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(json.loads(sys.argv[2]))
    else:
        cli.run(main, __doc__, Benchmark)
