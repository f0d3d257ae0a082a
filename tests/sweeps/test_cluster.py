"""One sweep on other numbers of devices, of processes, and as a cluster's jobs."""

import itertools
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import saver
import submitit
import worker
from toys import Clock, tiny

import purejaxrl_ext as prx
from purejaxrl_ext.sweeps import cluster, results, wave


def start(path, *arguments, devices=1, slow=False, script=worker):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_NUM_CPU_DEVICES": str(devices)}
    environment["WORKER_SLOW"] = str(int(slow))
    command = [sys.executable, str(Path(script.__file__)), str(path), *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def finish(*processes):
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [p.returncode for p in processes] == [0] * len(processes), "\n\n".join(said)


def processes(path, count, **options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(path, f"127.0.0.1:{port}", count, index, **options) for index in range(count)]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One process with one device."""
    path = tmp_path_factory.mktemp("one") / "x"
    finish(start(path))
    return prx.load(path)


def close(a, b):
    """Every cell of every seed, over the first 10 updates: other widths change the last bits alone."""
    assert set(a.data_vars) == set(b.data_vars)
    assert a["seed"].values.tolist() == b["seed"].values.tolist() == worker.SEEDS
    assert np.isfinite(b["loss"]).all()
    for name in a.data_vars:
        np.testing.assert_allclose(a[name], b[name], atol=1e-4, rtol=1e-4, err_msg=name)


@pytest.mark.thorough
@pytest.mark.parametrize("devices", [2, 4])
def test_more_devices(one, tmp_path, devices):
    finish(start(tmp_path / "x", devices=devices))
    assert json.loads((tmp_path / "x" / "config.json").read_text())["device"]["count"] == devices
    close(one, prx.load(tmp_path / "x"))


@pytest.mark.thorough
@pytest.mark.parametrize("count", [2, 4])
def test_more_processes(one, tmp_path, count):
    """Seven seeds, four or two to a process, each in a block; every process returns when all are done."""
    path = tmp_path / "x"
    finish(*processes(path, count))
    close(one, prx.load(path))
    config = results.read_config(path)
    assert len(config["slots"]) == count * config["seed_block"]
    seconds = [json.loads(p.read_text())["seconds"] for p in path.glob("checkpoints/*/*/timing.json")]
    assert len(seconds) == count and min(seconds) > 0
    for seed in worker.SEEDS:
        assert prx.load_state(path, seed=seed, gamma=0.9).update == worker.UPDATES


@pytest.mark.thorough
def test_processes_that_were_killed_go_on_as_another_number(one, tmp_path, monkeypatch):
    path, took = tmp_path / "x", []
    two = processes(path, 2, slow=True)
    while not any(p.name.isdigit() for p in path.glob("checkpoints/*/*/*")):
        assert all(p.poll() is None for p in two)
    for process in two:
        process.kill()
    for process in two:
        process.communicate(timeout=10)
    take = wave.WaveRun._take
    monkeypatch.setattr(
        wave.WaveRun, "_take", lambda self, rows, *a: (took.append(rows["loss"]), take(self, rows, *a))[1]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this process may have more devices
        worker.main(path)
    close(one, prx.load(path))
    # A wave of each process; what had been saved was not computed again.
    assert sum(x.shape[-1] for x in took) < 2 * worker.UPDATES


@pytest.mark.thorough
def test_processes_that_save_at_the_same_time_wait_for_no_other(tmp_path):
    finish(*processes(tmp_path, 4, script=saver))
    for index in range(4):
        kept = {p.name for p in tmp_path.glob(f"checkpoints/ppo/{index}/*")}
        assert kept == {str(saver.SAVES - 2), str(saver.SAVES - 1)}


def write_often(path, slots, repeats):
    for i in range(repeats):
        x = np.full((2, len(range(*slots.indices(6))), 100), i + slots.start, np.float32)
        for stop in (40, 64, 100):
            results.write_blocks(path, 0, slots, {"loss": x}, x[..., 0], max(0, stop - 40), stop)


@pytest.mark.thorough
def test_two_processes_writing_one_store_lose_no_cell(tmp_path):
    grid = {"gamma": [0.9, 0.99]}
    results.allocate(tmp_path, results.blank(["a"], grid, list(range(6)), np.ones((1, 100))), ["loss"], grid, 3)
    context, repeats = multiprocessing.get_context("spawn"), 60
    writers = [context.Process(target=write_often, args=(tmp_path, slice(i, i + 3), repeats)) for i in (0, 3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    got = results.read_rows(tmp_path, 0, slice(0, 6), ["loss"], 100)["loss"]
    np.testing.assert_array_equal(got[:, :3], repeats - 1)
    np.testing.assert_array_equal(got[:, 3:], repeats - 1 + 3)


def test_importing_computes_nothing():
    """Else ``initialize`` would come too late."""
    code = "import purejaxrl_ext, jax._src.xla_bridge as x; raise SystemExit(x.backends_are_initialized())"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_bad_addresses():
    with pytest.raises(ValueError, match=r"coordinator=None.*num_processes and process_id"):
        prx.initialize(num_processes=2)
    with pytest.raises(ValueError, match=r"process_id=2.*from 0 to 1"):
        prx.initialize("127.0.0.1:1", 2, 2)


# --- jobs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def executor(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    made = submitit.LocalExecutor(folder=tmp_path / "logs")
    made.update_parameters(timeout_min=5)
    return made


def wait(jobs):
    for job in jobs:
        job.result()
        job._process.wait(10)


@pytest.mark.thorough
def test_a_job_per_arm(executor, tmp_path):
    """What two jobs wrote is what one sweep writes; a job that is lost is sent again, and no other."""
    arms = {"ppo": tiny("ppo"), "pfo": tiny("pfo", Clock(time_limit=3), reset_pool_size=16)}
    settings = {"num_seeds": 2, "total_steps": 6 * 16}
    jobs = prx.launch(arms, out=tmp_path / "x", executor=executor, progress=False, **settings)
    assert len(jobs) == 2
    wait(jobs)
    got, direct = prx.load(tmp_path / "x"), prx.sweep(arms, progress=False, **settings)
    for name in direct.data_vars:
        np.testing.assert_array_equal(got[name], direct[name], err_msg=name)
    assert prx.launch(arms, out=tmp_path / "x", executor=executor, **settings) == []
    for file in itertools.chain(*((tmp_path / "x").glob(f"checkpoints/pfo/*/{n}") for n in range(7))):
        file.rename(tmp_path / f"lost{file.name}")
    again = prx.launch(arms, out=tmp_path / "x", executor=executor, progress=False, **settings)
    assert len(again) == 1
    wait(again)
    assert prx.load_state(tmp_path / "x", arm="pfo", seed=1).update == 6


@pytest.mark.thorough
def test_jobs_for_a_run_that_has_grown(executor, tmp_path):
    """More steps and seeds are new work; what cannot change is refused by name."""
    arms = {"ppo": tiny("ppo")}
    settings = {"num_seeds": 1, "total_steps": 2 * 16, "grid": {"gamma": [0.9]}}
    prx.sweep(arms, out=tmp_path / "x", progress=False, **settings)
    launch = partial(prx.launch, out=tmp_path / "x", executor=executor, progress=False)
    assert launch(arms, **settings) == []
    for bad in ({"grid": {"gamma": [0.9, 0.99]}}, {"eval_every": 3}, {"total_steps": 16}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            launch(arms, **settings | bad)
    jobs = launch(arms | {"pfo": tiny("pfo")}, **settings | {"num_seeds": 2, "total_steps": 3 * 16})
    assert len(jobs) == 2
    wait(jobs)
    got = prx.load(tmp_path / "x")
    assert dict(got["loss"].sizes) == {"arm": 2, "gamma": 1, "seed": 2, "update": 3}
    assert np.isfinite(got["loss"]).all()


def test_a_job_that_is_taken_away_is_sent_again_as_it_was():
    """Submitit asks the callable; the arguments, and so the run, stay."""
    work = cluster._Work()
    again = work.checkpoint("runs/x", "ppo", {"progress": False})
    assert again.function is work
    assert again.args == ("runs/x", "ppo", {"progress": False})


def test_what_a_job_could_not_make_again_is_refused_before_any_is_sent(tmp_path):
    class Local(Clock):
        pass

    with pytest.raises(ValueError, match=r"arms\['mine'\].*cannot be imported again"):
        prx.launch({"mine": tiny("ppo", Local())}, out=tmp_path / "x", executor=None, num_seeds=1, total_steps=16)
    assert jax.process_count() == 1


@pytest.mark.parametrize("wrong", [{"num_seed": 3}, {"keep_states": True}])
def test_a_setting_that_no_run_has_is_named(tmp_path, wrong):
    """Before a directory is made."""
    settings = {"out": tmp_path / "x", "total_steps": 16, "executor": None}
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.*an argument of sweep"):
        cluster.launch({"ppo": tiny("ppo")}, **settings, **wrong)
    assert not (tmp_path / "x").exists()
