"""What JAX is told before it starts: the cores of a CPU as host devices, and a compilation cache on disk."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import jax


def _config(name: str) -> Any:
    return getattr(jax.config, name)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cores() -> None:
    """Make each CPU core a JAX device, over which seeds are sharded; unless the user has chosen a number.

    The flags work until JAX's first computation. After that this warns, and what there is is used.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    chosen = "xla_force_host_platform_device_count" in flags or "JAX_NUM_CPU_DEVICES" in os.environ
    if cores() == 1 or chosen or _config("jax_num_cpu_devices") > 0:
        return
    try:
        jax.config.update("jax_num_cpu_devices", cores())
    except RuntimeError:
        if jax.default_backend() == "cpu" and jax.local_device_count() < cores():
            warnings.warn(
                "purejaxrl_ext was imported after JAX had started: it uses "
                f"{jax.local_device_count()} of {cores()} cores for a sweep's seeds. Import it before the first computation.",
                stacklevel=3,
            )
        return
    if "xla_cpu_multi_thread_eigen" not in flags:
        # One thread per device: the seeds already keep the cores busy.
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()


def use_compilation_cache() -> None:
    """Keep compiled programs on disk between processes, unless the user has chosen a place (or "" for none)."""
    if _config("jax_compilation_cache_dir") is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(base / "purejaxrl_ext" / "xla"))
