"""What the benchmark's processes share: answers to who started them, and timed runs of a program.

It imports nothing of this project, since some of them are run by a Python that has another's.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


def say(**answer: Any) -> None:
    """One answer to who started this process."""
    print("@" + json.dumps(answer), flush=True)


def peak_memory() -> int:
    """Bytes: of the device where it says so, else of this process."""
    import jax  # not above: whoever has a mistake to tell tells it before

    stats = jax.local_devices()[0].memory_stats() or {}
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return stats.get("peak_bytes_in_use", host)


def serve(train: Callable[[Any], Any], num_seeds: int, steps: int) -> None:
    """Compile ``train``, a function of a key, for so many seeds side by side; then run it once per line of standard input.

    Args:
        train: the whole training of one seed.
        num_seeds: seeds.
        steps: environment steps of each, which are told.
    """
    import jax

    keys = jax.vmap(jax.random.PRNGKey)(jax.numpy.arange(num_seeds))
    start = time.perf_counter()
    run = jax.jit(jax.vmap(train)).lower(keys).compile()
    seconds = time.perf_counter() - start
    say(compile=seconds, steps=steps, device=jax.devices()[0].device_kind, version=jax.__version__)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(run(keys))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        say(seconds=seconds, cpu=cpu, memory=peak_memory(), compiled=0)
