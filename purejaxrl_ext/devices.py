"""What JAX is told: before it starts, the cores of a CPU as host devices, a compilation cache on disk and, if asked for, how to
compile for a GPU; around each of our calls, to leave aside what its surroundings have set."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
from jax._src import xla_bridge

from purejaxrl_ext.errors import unknown_name

# What XLA is told by :func:`gpu_settings`.
GPU_SETTINGS: dict[str, tuple[str, ...]] = {
    "default": (),
    "throughput": (
        # Two trips of a loop are compiled as one, so that carried values need no copies.
        "--xla_gpu_enable_while_loop_double_buffering=true",
        # All kernels of a trip, and short loops whole, are one CUDA graph, launched at once.
        "--xla_gpu_enable_command_buffer=+WHILE",
        "--xla_gpu_graph_min_graph_size=1",
    ),
    "deterministic": (
        # No atomic additions, in whatever order they come.
        "--xla_gpu_deterministic_ops=true",
        # No library kernel is chosen by timing it.
        "--xla_gpu_autotune_level=0",
    ),
}


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


def use_one_blas_thread() -> None:
    """Let LAPACK, which factorises matrices on a CPU, work in the thread that calls it; unless the user has chosen a number.

    OpenBLAS else shares out each QR to threads of its own, which wait for each other by spinning. Where other work holds the cores
    (other runs' devices, say) one of 512 × 64 was seen to take 660 ms of the clock instead of 0.7. It works until SciPy's
    linear algebra is imported, which reads this once.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


_TARGET: str | None = None


def launches_cost() -> bool:
    """Whether programs are made for an accelerator, on which the launch of a kernel costs more than the work of a small one: then
    loops keep many small arrays in a few. On a CPU that costs a little."""
    return (_TARGET or jax.default_backend()) != "cpu"


@contextmanager
def compiled_for(target: str) -> Iterator[None]:
    """Inside, what is traced is meant for ``"gpu"``, ``"tpu"`` or ``"cpu"``, whatever JAX's default is: for a program that is
    compiled here and run elsewhere, or to see here what is done there."""
    global _TARGET
    before, _TARGET = _TARGET, target
    try:
        yield
    finally:
        _TARGET = before


def gpu_settings(name: str) -> None:
    """Choose how XLA compiles for a GPU, by its flags; call it before JAX's first computation.

    "throughput" is for loops of many small kernels: loops are double-buffered and launched as CUDA graphs. "deterministic" makes
    repeats of a program on one kind of card equal bit for bit. "default" is XLA's own. Flags that ``XLA_FLAGS`` sets
    already stay as they are. On a CPU nothing changes.

    Args:
        name: "default", "throughput" or "deterministic".

    Raises:
        ValueError: another name.
        RuntimeError: JAX has started: it reads its flags no more.
    """
    if name not in GPU_SETTINGS:
        raise ValueError(unknown_name("GPU setting", name, GPU_SETTINGS))
    if xla_bridge.backends_are_initialized():
        raise RuntimeError(
            f"gpu_settings({name!r}) came after JAX had started, which reads XLA's flags once: "
            "call it right after the import, before the first computation"
        )
    ours = {flag for flags in GPU_SETTINGS.values() for flag in flags}
    kept = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if flag not in ours]
    chosen = {flag.split("=")[0] for flag in kept}
    new = [flag for flag in GPU_SETTINGS[name] if flag.split("=")[0] not in chosen]
    os.environ["XLA_FLAGS"] = " ".join([*kept, *new])


_FORKED = False  # whether this process was forked from one in which JAX had started


def _note_fork() -> None:
    global _FORKED
    # A child that was forked before has none of its threads either.
    _FORKED = _FORKED or xla_bridge.backends_are_initialized()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def check_process() -> None:
    """Raise ``RuntimeError`` in a process forked after JAX had started: it would wait for ever for threads left behind."""
    if _FORKED:
        raise RuntimeError(
            "this process was forked from one in which JAX had already started, whose threads it does not have: it would hang. "
            'Start it with multiprocessing.get_context("spawn"), or fork before the first call of purejaxrl_ext or JAX'
        )


@contextmanager
def isolated() -> Iterator[None]:
    """Around a call of ours (also as a decorator): meshes, guards and promotion rules set around it are not meant for us.

    Environments and networks are traced inside, so this holds for them too. While something of the caller's is traced, as in
    ``jax.jit(lambda key: prx.train(algorithm, key, 1000))``, the mesh is the caller's.

    Raises:
        RuntimeError: see :func:`check_process`.
    """
    check_process()
    with ExitStack() as stack:
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        stack.enter_context(jax.transfer_guard("allow"))
        stack.enter_context(jax.debug_key_reuse(False))
        # Only then, as the context is part of what jit has traced; and not while something is traced, which raises.
        if not jax.sharding.get_abstract_mesh().empty:
            with suppress(ValueError):
                stack.enter_context(jax.set_mesh(None))
        yield
