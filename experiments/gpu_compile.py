"""Compile a program for an NVIDIA H100 on a machine that has none: XLA's ahead-of-time compilation for a described GPU.

Needs jax's CUDA wheels beside jax (see the Makefile's ``gpu-plan``), no driver and no card.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

# Before jax is imported: no card is looked for, and what runs here (little) runs on the CPU. What jax would keep on disk of
# programs for a card cannot be read back without one.
os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

import gpu_hlo
import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

# The card, as XLA describes it.
H100 = """
gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000
  l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84978434048 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
  driver_version: "12.9.0" runtime_version: "12.9.0" compile_time_toolkit_version: "12.9.0" }
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclass
class Compiled:
    """A program for the card.

    Attributes:
        loops: its tree of loops.
        arguments, temporaries, results, donated: bytes.
        hlo: the optimised text.
    """

    loops: gpu_hlo.Loop
    arguments: int
    temporaries: int
    results: int
    donated: int
    hlo: str

    @property
    def memory(self) -> int:
        """Bytes that it needs: arguments, results and temporaries, what is donated counted once."""
        return self.arguments + self.results + self.temporaries - self.donated


def start(xla_gpu: str) -> None:
    """Choose XLA's settings; before anything is compiled."""
    # A peer may need other versions of packages than this project, which is then not imported.
    if xla_gpu != "default":
        from purejaxrl_ext.devices import gpu_settings

        gpu_settings(xla_gpu)


def devices() -> Any:
    """One H100.

    Raises:
        ImportError: jax's CUDA wheels are not installed.
    """
    try:
        return topologies.get_topology_desc("", "cuda", target_config=H100, topology="1x1x1").devices
    except Exception as error:
        raise ImportError(
            f"XLA cannot compile for a GPU here ({error}); `make gpu-plan` makes an environment that can"
        ) from error


def compile_for(function: Callable, *arguments: Any, donate: tuple[int, ...] = (), branch: Callable = min) -> Compiled:
    """Compile ``function`` for one H100; ``arguments`` are trees of shapes."""
    sharding = jax.sharding.NamedSharding(Mesh(np.array(devices()), ("x",)), jax.sharding.PartitionSpec())
    return finish(
        jax.jit(function, in_shardings=sharding, out_shardings=sharding, donate_argnums=donate),
        *arguments,
        branch=branch,
    )


def finish(jitted: Any, *arguments: Any, branch: Callable = min) -> Compiled:
    """Lower and compile a jitted function whose shardings name the card."""
    with mock.patch("jax.default_backend", return_value="gpu"), tempfile.TemporaryDirectory() as dump:
        compiled = jitted.lower(*arguments).compile(compiler_options={"xla_dump_to": dump})
        thunks = sorted(Path(dump).glob("*.thunk_sequence_after_thunk_passes.txt"))
        thunks = thunks[-1].read_text() if thunks else ""
    sizes, text = compiled.memory_analysis(), compiled.as_text()
    loops = gpu_hlo.read(text, branch)
    gpu_hlo.count_launches(thunks, loops, branch)
    return Compiled(
        loops=loops,
        arguments=sizes.argument_size_in_bytes,
        temporaries=sizes.temp_size_in_bytes,
        results=sizes.output_size_in_bytes,
        donated=sizes.alias_size_in_bytes,
        hlo=text,
    )


def update_of(algorithm: Any, runs: int) -> Compiled:
    """One update of ``runs`` runs side by side."""
    axes = type(jax.eval_shape(algorithm.init, jax.eval_shape(lambda: jax.random.key(0)))).axes()
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), runs))
    state = jax.eval_shape(jax.vmap(algorithm.init, out_axes=axes), keys)
    step = jax.vmap(algorithm.step, in_axes=(axes,), out_axes=(axes, 0))
    return compile_for(step, state, donate=(0,))


def training_of(train: Callable, runs: int) -> Compiled:
    """``train(key)`` of ``runs`` seeds side by side; branches count as taken, as learning is."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.PRNGKey(0), runs))
    return compile_for(jax.vmap(train), keys, branch=max)


def check_sweep(algorithm: Any, seeds: int, card: float) -> str:
    """How many of ``seeds`` seeds a sweep runs side by side on a card of ``card`` bytes, as its planner chooses, in words.

    Raises:
        ValueError: what it chose does not fit.
    """
    from purejaxrl_ext.sweeps import memory, program

    # Of a card's memory JAX takes three quarters.
    free = 0.75 * card
    with (
        mock.patch("jax.local_devices", return_value=list(devices())),
        mock.patch("jax.default_backend", return_value="gpu"),
        mock.patch.object(memory, "available_memory", return_value=free),
    ):
        width = memory.fitting_width(algorithm.name, algorithm, {}, seeds, 0)
        need = program.compiled(algorithm, program.lay_out(algorithm, list(range(width)), {})).memory
    told = (
        f"a sweep of {seeds:,} seeds on a card of {card / 2**30:g} GiB runs {width:,} side by side: they need "
        f"{need / 2**30:.2f} GiB of the {free / 2**30:.2f} that JAX takes"
    )
    if need > free:
        raise ValueError(told)
    return told
