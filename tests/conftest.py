"""Settings of every test: no silent broadcasting, warnings are errors, and how processes share the machine."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[1]
DEVICES = 2  # of each process, however many cores there are: what is sharded has two parts to divide among

# Read when JAX and the linear algebra libraries are imported, here and in processes that tests start.
for variable, value in {
    "JAX_NUM_CPU_DEVICES": str(DEVICES),
    # One cache for the whole run: a program is compiled by the first process that needs it. Most are small.
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "xla"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    # One thread each: the workers keep the cores busy.
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}.items():
    os.environ.setdefault(variable, value)

import jax
import jax.monitoring
import jaxlib

from purejaxrl_ext import devices
from purejaxrl_ext.sweeps import program

jax.config.update("jax_numpy_rank_promotion", "raise")

# No optimisation of machine code, and the older, faster emitters as long as there are any: a fifth of the time.
QUICK = "--xla_backend_optimization_level=0"
if jaxlib.version.__version_info__ < (0, 11):
    QUICK += " --xla_cpu_use_fusion_emitters=false"

LONGEST = (
    "test_resume",
    "test_notebooks",
    "test_cluster",
    "test_contract",
    "test_sweep",
    "test_everywhere",
    "test_trained",
    "test_pfo",
)

# Warnings of other packages, each by name: what is not here fails a test.
THIRD_PARTY = (
    "ignore::DeprecationWarning:brax.*",
    "ignore::DeprecationWarning:distrax.*",
    "ignore::DeprecationWarning:flax.*",
    "ignore::DeprecationWarning:gymnax.*",
    "ignore::DeprecationWarning:gymnasium.*",
    "ignore::DeprecationWarning:gym.*",
    "ignore::DeprecationWarning:jaxopt.*",
    "ignore::DeprecationWarning:mujoco.*",
    "ignore::DeprecationWarning:orbax.*",
    "ignore::DeprecationWarning:tensorflow_probability.*",
    "ignore::DeprecationWarning:tensorstore.*",
    "ignore::DeprecationWarning:treescope.*",
    "ignore::UserWarning:orbax.*",
    # Its module is not told where pytest.warns passes it on.
    "ignore:jax.core.pytype_aval_mappings is deprecated:DeprecationWarning",
    "ignore:Brax System, piplines and environments are not actively being maintained:UserWarning",
    "ignore:Brax:DeprecationWarning",
    # Another process is writing that program at this moment: this one compiles it too.
    "ignore:Error reading persistent compilation cache entry:UserWarning",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="let XLA compile quickly and not well, which most of the time goes into; leaves out tests marked optimized",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.quick:
        os.environ["XLA_FLAGS"] += f" {QUICK}"  # before the first computation
        config.option.markexpr = f"({config.option.markexpr or 'not optimized'}) and not optimized"
    config.addinivalue_line("filterwarnings", "error")
    for line in THIRD_PARTY:
        config.addinivalue_line("filterwarnings", line)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first, so that no worker is left with it at the end."""
    rank = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """``-n auto``: a process per core; none beside this one where few tests are asked for, since each takes seconds to start."""
    few = config.option.keyword or any(".py" in argument for argument in config.args)
    return 0 if few else devices.cores()


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """The whole suite's programs would take many gigabytes, and more memory maps than the 65,530 that a process may have."""
    yield
    if psutil.Process().memory_info().rss > 2e9 or _memory_maps() > 20_000:
        program.program.cache_clear()
        jax.clear_caches()
        gc.collect()
        # The C library keeps what was freed, unless it is told to give it back.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)


def _memory_maps() -> int:
    maps = Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0


_COMPILED: list[str] = []


def _listen(event: str, _seconds: float, **_: object) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _COMPILED.append(event)


jax.monitoring.register_event_duration_secs_listener(_listen)


@pytest.fixture
def compilations() -> list[str]:
    """One entry per program that XLA compiles (or fetches from the disk cache) during the test."""
    jax.random.key(0)  # itself a small program
    _COMPILED.clear()
    return _COMPILED
