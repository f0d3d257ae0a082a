"""What is looked at before a sweep: where it writes, how JAX is set, and what its surroundings must not change."""

import json
import multiprocessing
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np
import pytest
from toys import equal_trees, tiny

import purejaxrl_ext as prx
from purejaxrl_ext import devices
from purejaxrl_ext.sweeps import guards, results

SETTINGS = {"total_steps": 16, "progress": False}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A finished run: (directory, dataset)."""
    path = tmp_path_factory.mktemp("runs") / "x"
    return path, prx.sweep(tiny("ppo"), out=path, **SETTINGS)


# --- paths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["gs://bucket/run", "s3://x", Path("gs://bucket/run"), "file:///x", "HTTPS://x/y"])
def test_a_url_is_refused_and_no_directory_made_of_it(out, tmp_path, monkeypatch, stored):
    monkeypatch.chdir(tmp_path)
    calls = [
        lambda: prx.sweep(tiny("ppo"), out=out, **SETTINGS),
        lambda: prx.resume(out),
        lambda: prx.load(out),
        lambda: prx.load_state(out),
        lambda: prx.policy(out),
        lambda: prx.best(out),
        lambda: prx.launch(tiny("ppo"), out=out, executor=None),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="not a URL"):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("out", "error", "words"),
    [("", ValueError, "name of a directory"), (3, TypeError, "out=3"), (b"x", TypeError, "out=b'x'")],
)
def test_what_is_no_path(out, error, words):
    with pytest.raises(error, match=words):
        prx.sweep(tiny("ppo"), out=out, **SETTINGS)


def test_a_path_is_made_absolute_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert guards.run_path("~/runs/x") == tmp_path / "home/runs/x"
    monkeypatch.chdir(tmp_path)
    assert guards.run_path("x") == tmp_path / "x"
    assert guards.run_path(tmp_path / "C:" / "x") == tmp_path / "C:" / "x"
    with pytest.raises(ValueError, match="out='~nobody-is-called-so/x'"):
        guards.run_path("~nobody-is-called-so/x")


def test_a_change_of_directory_loses_nothing(tmp_path, monkeypatch, stored):
    """Neither while it trains nor afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()

    class Leaves:
        def open(self, *args):
            os.chdir(tmp_path / "other")

        def log(self, *args):
            pass

        def close(self):
            pass

    ds = prx.sweep(tiny("ppo"), out="run", log=[Leaves()], **SETTINGS)
    assert Path.cwd() == tmp_path / "other"
    assert ds.attrs["path"] == str(tmp_path / "run")
    equal_trees(prx.load_state(ds), prx.load_state(stored[0]))
    assert not list((tmp_path / "other").iterdir())
    monkeypatch.chdir(tmp_path)
    by_name = prx.load("run")
    os.chdir(tmp_path / "other")
    equal_trees(prx.policy(by_name).state, prx.load_state(ds))


@pytest.mark.parametrize(
    ("make", "words"),
    [(lambda p: p.mkdir(), "no config.json in it"), (lambda p: p.write_text(""), "a file"), (lambda p: 0, "not there")],
)
def test_what_holds_no_run_is_named_in_full(tmp_path, monkeypatch, make, words):
    monkeypatch.chdir(tmp_path)
    make(Path("x"))
    for call in (prx.load, prx.resume, prx.load_state, prx.best):
        with pytest.raises(FileNotFoundError, match=rf"path='{tmp_path}/x' holds no run: .*{words}"):
            call("x")


def test_another_format_says_what_can_read_it(tmp_path):
    before = {"format": 2, "versions": {"purejaxrl_ext": "0.9"}, "commit": "abc"}
    (tmp_path / "config.json").write_text(json.dumps(before))
    with pytest.raises(ValueError, match=f"format=2.*reads format {results.FORMAT}.*0.9.*abc"):
        prx.load(tmp_path)


# --- how JAX is set -----------------------------------------------------------------------------------------------------


@pytest.fixture
def flag():
    """Sets one of JAX's for the test."""
    before = {}

    def change(name, value):
        before.setdefault(name, getattr(jax.config, name))
        jax.config.update(name, value)

    yield change
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize("name", ["jax_debug_nans", "jax_disable_jit"])
def test_debugging_flags_are_named_at_once(flag, name, tmp_path, stored):
    algorithm = tiny("ppo")
    flag(name, True)
    for call in (
        lambda: prx.sweep(algorithm, out=tmp_path / "y", **SETTINGS),
        lambda: prx.resume(stored[0]),
    ):
        with pytest.raises(ValueError, match=f"{name}=True.*{name.upper()}=1.*jax.config.update"):
            call()
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize(("name", "value"), [("enable_x64", True), ("default_prng_impl", "rbg")])
def test_other_conditions_are_named_before_the_run_grows(flag, name, value, stored):
    algorithm = tiny("ppo")
    config = (stored[0] / "config.json").read_text()
    before = json.loads(config)["conditions"][name]
    flag(f"jax_{name}", value)
    for call in (
        lambda: prx.resume(stored[0], total_steps=64, num_seeds=3),
        lambda: prx.launch(algorithm, out=stored[0], executor=None, total_steps=64),
        lambda: prx.load_state(stored[0]),
        lambda: prx.policy(stored[0]),
    ):
        with pytest.raises(ValueError, match=f"made with jax_{name}={before!r}, and here it is {value!r}"):
            call()
    assert (stored[0] / "config.json").read_text() == config
    assert dict(prx.load(stored[0]).sizes) == dict(stored[1].sizes)


def test_conditions_that_change_only_numbers_are_told(flag, stored, tmp_path):
    config = json.loads((stored[0] / "config.json").read_text())
    assert config["conditions"] == guards.conditions()
    flag("jax_default_matmul_precision", "highest")
    with pytest.warns(RuntimeWarning, match="default_matmul_precision None → highest"):
        prx.resume(stored[0], progress=False)


def test_surroundings_do_not_reach_inside(tmp_path):
    """A mesh, strict promotion, and guards of transfers and keys, around programs that no other test has traced."""
    with ExitStack() as stack:
        stack.enter_context(jax.set_mesh(jax.make_mesh((1,), ("x",))))
        stack.enter_context(jax.numpy_dtype_promotion("strict"))
        stack.enter_context(jax.transfer_guard("disallow"))
        stack.enter_context(jax.debug_key_reuse(True))
        outside = (jax.sharding.get_abstract_mesh(), jax.config.jax_numpy_dtype_promotion)
        with devices.isolated():
            algorithm = tiny("ppo", num_epochs=1, num_minibatches=1)
        got = prx.sweep(algorithm, out=tmp_path / "x", seeds=[5, 6], **SETTINGS)
        policy = prx.policy(got, seed=5)
        action = policy(np.zeros(4, np.float32))
        assert (jax.sharding.get_abstract_mesh(), jax.config.jax_numpy_dtype_promotion) == outside
    assert np.isfinite(got["loss"]).all()
    assert policy.state.update == 1 and action in (0, 1)


def test_isolation_traces_nothing_anew():
    traced = []
    function = jax.jit(lambda x: (traced.append(x), x + 1)[1])
    function(1.0)
    with devices.isolated():
        function(1.0)
    assert len(traced) == 1


def test_a_mesh_of_the_caller_stays_while_it_is_traced():
    """Nobody else may change it then."""

    @jax.jit
    def traced(x):
        with devices.isolated():
            return x + 1

    with jax.set_mesh(jax.make_mesh((1,), ("x",))):
        assert traced(1) == 2


# --- forks --------------------------------------------------------------------------------------------------------------

FORK = """
import os, sys
import purejaxrl_ext as prx
from purejaxrl_ext import devices
import jax
if sys.argv[1] == "started":
    jax.devices()
sys.stdout.flush()
pid = os.fork()
if pid == 0:
    try:
        for call in (lambda: prx.sweep({}, total_steps=1), lambda: prx.load_state("x"), devices.check_process):
            try:
                call()
            except Exception as error:
                print(type(error).__name__, str(error)[:400], flush=True)
    finally:
        os._exit(0)
os.waitpid(pid, 0)
"""


def forked(how):
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, how], capture_output=True, text=True, timeout=120, check=True
    )
    return run.stdout.splitlines()


def test_a_process_forked_after_jax_started_is_told_to_spawn():
    """It hung, and ignored SIGTERM."""
    lines = forked("started")
    assert len(lines) == 3, lines
    assert all("RuntimeError" in line and 'get_context("spawn")' in line for line in lines)


def test_a_process_forked_before_jax_started_is_free():
    assert [line.split()[0] for line in forked("not")] == ["ValueError", "FileNotFoundError"]


def test_the_flag_is_of_the_child_alone():
    assert multiprocessing.current_process().name == "MainProcess"
    devices.check_process()
