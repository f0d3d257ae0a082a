"""What benchmark.py times: one process per settings, which compiles once and then runs whenever it is told to.

Reads a JSON job from the first line of standard input, then runs once per further line. Answers are lines of JSON.
"""

from __future__ import annotations

import json
import sys
import time

import jax
from bench_serve import peak_memory, say

import purejaxrl_ext as prx


def main() -> None:
    """Compile once, then run once per line of standard input."""
    job = json.loads(sys.stdin.readline())
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **_: compiled.append(event))
    algorithm = prx.make(job["algorithm"], job["env"], **job["settings"])

    def sweep(total_steps: int) -> tuple[float, float]:
        start, cpu = time.perf_counter(), time.process_time()
        prx.sweep(algorithm, num_seeds=job["num_seeds"], total_steps=total_steps, progress=False)
        return time.perf_counter() - start, time.process_time() - cpu

    (first, _), (again, _) = sweep(1), sweep(1)
    steps = algorithm.num_updates(job["total_steps"]) * algorithm.steps_per_update
    say(compile=first - again, steps=steps, device=jax.devices()[0].device_kind, version=jax.__version__)
    for _ in sys.stdin:
        compiled.clear()
        seconds, cpu = sweep(job["total_steps"])
        recompiled = sum("backend_compile" in event for event in compiled)
        say(seconds=seconds, cpu=cpu, memory=peak_memory(), compiled=recompiled)


if __name__ == "__main__":
    main()
