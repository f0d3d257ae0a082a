"""What JAX is told before it starts."""

import os
import subprocess
import sys

import jax
import pytest

from purejaxrl_ext import devices

EVERY = [flag for flags in devices.GPU_SETTINGS.values() for flag in flags]


@pytest.fixture
def before_jax_starts(monkeypatch):
    """JAX as if it had not started, and no flags."""
    monkeypatch.setattr(devices.xla_bridge, "backends_are_initialized", lambda: False)
    monkeypatch.setenv("XLA_FLAGS", "")
    return monkeypatch


def test_a_gpu_setting_replaces_the_one_before(before_jax_starts):
    before_jax_starts.setenv("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    devices.gpu_settings("throughput")
    devices.gpu_settings("deterministic")
    flags = os.environ["XLA_FLAGS"].split()
    assert flags == ["--xla_cpu_multi_thread_eigen=false", *devices.GPU_SETTINGS["deterministic"]]
    devices.gpu_settings("default")
    assert os.environ["XLA_FLAGS"] == "--xla_cpu_multi_thread_eigen=false"


def test_a_users_own_flag_stays(before_jax_starts):
    before_jax_starts.setenv("XLA_FLAGS", "--xla_gpu_graph_min_graph_size=3")
    devices.gpu_settings("throughput")
    flags = os.environ["XLA_FLAGS"].split()
    assert [f for f in flags if "graph_min" in f] == ["--xla_gpu_graph_min_graph_size=3"]
    assert "--xla_gpu_enable_while_loop_double_buffering=true" in flags


def test_gpu_settings_after_jax_has_started(before_jax_starts):
    with pytest.raises(ValueError, match=r"unknown GPU setting 'thruput'.*Did you mean 'throughput'"):
        devices.gpu_settings("thruput")
    before_jax_starts.undo()
    jax.devices()
    with pytest.raises(RuntimeError, match=r"gpu_settings\('throughput'\) came after JAX had started"):
        devices.gpu_settings("throughput")


def test_this_jaxlib_knows_the_flags():
    # It ends the process at one that it does not know.
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = os.environ | {"XLA_FLAGS": " ".join(EVERY), "JAX_PLATFORMS": "cpu"}
    assert subprocess.run(command, env=environment, timeout=60, check=False).returncode == 0


THREADS = """
import ctypes, glob, os, sys
import purejaxrl_ext, scipy, scipy.linalg
found = glob.glob(os.path.join(os.path.dirname(scipy.__file__), "..", "scipy.libs", "*openblas*"))
print(ctypes.CDLL(found[0]).scipy_openblas_get_num_threads() if found else -1)
"""


@pytest.mark.parametrize(
    ("chosen", "threads"), [({}, 1), ({"OPENBLAS_NUM_THREADS": "2"}, 2), ({"OMP_NUM_THREADS": "2"}, 2)]
)
def test_factorisations_have_one_thread_unless_the_user_says_so(chosen, threads):
    """With more, each waits by spinning for threads whose cores are busy: much longer than the update that is measured."""
    if devices.cores() < 2:
        pytest.skip("one core")
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "GOTO_NUM_THREADS")
    environment = {k: v for k, v in os.environ.items() if k not in names} | chosen
    said = subprocess.run(
        [sys.executable, "-c", THREADS], env=environment, capture_output=True, timeout=120, check=True
    )
    if int(said.stdout) == -1:
        pytest.skip("this SciPy brings no OpenBLAS")
    assert int(said.stdout) == threads
