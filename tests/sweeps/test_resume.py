"""Runs that are stopped in every way go on, and end bit for bit as one that was never stopped."""

import errno
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import kill
import numpy as np
import pytest
from toys import Clock, ClockNetwork, Poison, equal_trees, tiny

import purejaxrl_ext as prx
from purejaxrl_ext.sweeps import checkpoints, locks, memory, program, results, saving, stop

wave_module = importlib.import_module("purejaxrl_ext.sweeps.wave")
plan_module = importlib.import_module("purejaxrl_ext.sweeps.plan")
run_module = importlib.import_module("purejaxrl_ext.sweeps.run")
sweep_module = importlib.import_module("purejaxrl_ext.sweeps.sweep")
UPDATES, PER_UPDATE = 14, 16
SEEDS = [7, 3, 5]
SETTINGS = {"seeds": SEEDS, "total_steps": UPDATES * PER_UPDATE, "progress": False, "wave_size": 2}
EVERY_UPDATE = {"checkpoint_seconds": 1e-9, "progress": False}


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def arms():
    return {"ppo": tiny("ppo"), "dqn": tiny("dqn", updates_per_step=8)}


@pytest.fixture(scope="module")
def whole(arms, tmp_path_factory):
    """A run that nothing stopped."""
    path = tmp_path_factory.mktemp("whole") / "x"
    return path, prx.sweep(arms, out=path, **SETTINGS)


@pytest.fixture
def stop_after(monkeypatch):
    """``stop_after(n)``: an exception after so many chunks, of one update each."""

    monkeypatch.setattr(wave_module, "CHUNK_SECONDS", 0.0)
    return lambda chunks: stop_at(monkeypatch, chunks)


def stop_at(patch, chunks):
    """Raise after so many chunks; what it returns takes that back."""
    took = []
    take = wave_module.WaveRun._take

    def stop(self, *args):
        if len(took) == chunks:
            raise StoppedError
        took.append(take(self, *args))
        return took[-1]

    patch.setattr(wave_module.WaveRun, "_take", stop)
    return lambda: patch.setattr(wave_module.WaveRun, "_take", take)


@pytest.fixture(scope="module")
def stopped_once(arms, tmp_path_factory):
    path = tmp_path_factory.mktemp("stopped") / "x"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wave_module, "CHUNK_SECONDS", 0.0)
        stop_at(patch, 3 * UPDATES + 9)
        with pytest.raises(StoppedError):
            prx.sweep(arms, out=path, **SETTINGS | EVERY_UPDATE)
    return path


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A run that was stopped in the second arm's second wave."""
    return shutil.copytree(stopped_once, tmp_path / "x")


def same(a, b, updates=None):
    assert set(a.data_vars) == set(b.data_vars)
    for name in a.data_vars:
        x, y = a[name], b[name]
        if updates is not None and "update" in x.dims:
            x, y = x[..., :updates], y[..., :updates]
        np.testing.assert_array_equal(x, y, err_msg=name)


def same_states(a, b, dataset):
    for arm in dataset["arm"].values:
        for seed in dataset["seed"].values:
            equal_trees(*(prx.load_state(path, arm=arm, seed=int(seed)) for path in (a, b)))


def newest(path):
    """The newest checkpoint's directory."""
    found = [p for p in path.glob("checkpoints/*/*/*") if p.name.isdigit()]
    return max(found, key=lambda p: (p.parent.parent.name == "dqn", p.parent.name, int(p.name)))


# --- killed, stopped, damaged ------------------------------------------------------------------------------------------


def lives(path, arms, rng, timeout=300.0):
    """Start the run again and again, killing it a moment after it has saved a few more updates, or, every second time, at
    any moment, as it may be while it starts, makes its directory, compiles or reads. Returns how often."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(Path(kill.__file__)), str(path), *arms]
    began = time.monotonic()
    for life in range(100):
        log = path.with_suffix(f".{life}")
        with log.open("w") as stderr:
            process = subprocess.Popen(command, stderr=stderr, env=environment)
            more, before = rng.randint(8, 40), len(list(path.glob("checkpoints/*/*/*")))
            moment, lifetime = rng.uniform(0.0, 0.4), rng.uniform(0.5, 12.0) if life % 2 == 0 else timeout
            born = time.monotonic()
            seen: set = set(path.glob("checkpoints/*/*/*"))
            while process.poll() is None and time.monotonic() < began + timeout:
                seen |= set(path.glob("checkpoints/*/*/*"))
                if len(seen) > before + more or time.monotonic() > born + lifetime:
                    time.sleep(moment)
                    process.kill()
                    break
                time.sleep(0.002)
            process.wait(10)
        if process.returncode == 0:
            return life
        assert process.returncode == -signal.SIGKILL, log.read_text()
    raise AssertionError("it never ended")


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory):
    """What ``kill.py`` makes of all its arms when nobody kills it."""
    path = tmp_path_factory.mktemp("unkilled") / "x"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wave_module, "CHUNK_SECONDS", 0.0)  # it sets it for good
        kill.main(path)
    return path


def same_arms(path, whole):
    """The same as of the arms of ``whole`` that ``path`` has."""
    found = prx.load(path)
    same(found, prx.load(whole).sel(arm=found["arm"].values)[list(found.data_vars)])


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [0])
def test_killed_at_random_moments_many_times(unkilled, tmp_path, seed):
    """SIGKILL while PPO, PFO and DQN train, save and write; each time it goes on."""
    killed = lives(tmp_path / "x", [], random.Random(seed))
    assert killed >= 3
    a = prx.load(tmp_path / "x")
    same(a, prx.load(unkilled))
    same_states(unkilled, tmp_path / "x", a)
    for arm in a["arm"].values:
        assert prx.saved_updates(tmp_path / "x", arm) == [0, 5, 10, kill.UPDATES]
        for update in (0, 5, 10):
            equal_trees(*(prx.load_states(path, arm, update).state for path in (unkilled, tmp_path / "x")))


@pytest.mark.optimized
def test_stopped_by_an_error(whole, stopped):
    same(prx.resume(stopped, progress=False), whole[1])
    same_states(stopped, whole[0], whole[1])


def test_what_is_done_is_not_done_again(whole, stopped, monkeypatch):
    took = []
    take = wave_module.WaveRun._take
    monkeypatch.setattr(
        wave_module.WaveRun, "_take", lambda self, rows, *a: (took.append(rows), take(self, rows, *a))[1]
    )
    prx.resume(stopped, progress=False)
    assert sum(rows["loss"].shape[-1] for rows in took) == UPDATES - 9


def test_a_finished_run_is_only_read(whole, monkeypatch, compilations):
    path, dataset = whole
    monkeypatch.setattr(wave_module, "compiled", None)
    same(prx.resume(path), dataset)
    assert not compilations


@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped", "missing", "another's"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(whole, stopped, monkeypatch, damage):
    last = newest(stopped)
    if damage == "truncated":
        files = sorted((p for p in last.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        files[-1].write_bytes(files[-1].read_bytes()[: files[-1].stat().st_size // 2])
    elif damage == "emptied":
        for file in last.rglob("*"):
            if file.is_file():
                file.write_bytes(b"")
    elif damage == "flipped":
        (file,) = last.rglob("arrays.npz")
        content = bytearray(file.read_bytes())
        content[len(content) // 3] ^= 1
        file.write_bytes(content)
    elif damage == "missing":
        (file,) = last.rglob("arrays.npz")
        file.unlink()
    else:
        one_before = last.with_name(str(int(last.name) - 1))
        shutil.rmtree(last)
        shutil.copytree(one_before, last)

    def stop(self, *args):
        raise StoppedError

    # It is made again,
    monkeypatch.setattr(wave_module, "CHUNK_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(wave_module.WaveRun, "_tell", stop)
        with pytest.warns(RuntimeWarning, match="damaged.*the one before"), pytest.raises(StoppedError):
            prx.resume(stopped, progress=False)
    assert prx.load_state(stopped, arm="dqn", seed=5).update == int(last.name)
    assert not list(stopped.rglob("*.damaged"))
    # and gone on with.
    same(prx.resume(stopped, progress=False), whole[1])
    same_states(stopped, whole[0], whole[1])


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_last_checkpoint_is_made_again(whole, tmp_path, keep):
    path = shutil.copytree(whole[0], tmp_path / "x")
    last = path / "checkpoints" / "ppo" / "0-2" / str(UPDATES)
    (file,) = last.rglob("arrays.npz")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.warns(RuntimeWarning, match="damaged"):
        same(prx.resume(path, progress=False, keep_checkpoints=keep), whole[1])
    same_states(path, whole[0], whole[1])


def checkpoints_of(path):
    return sorted(p.relative_to(path) for p in path.glob("checkpoints/*/*/*"))


def test_who_reads_leaves_the_checkpoints_alone(stopped):
    """A damaged one too: whoever works on the run may be at it."""
    last, held = newest(stopped), checkpoints_of(stopped)
    (file,) = last.rglob("arrays.npz")
    file.write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="damaged.*the one before"):
        assert prx.load_state(stopped, arm="dqn", seed=5).update == int(last.name) - 1
    assert checkpoints_of(stopped) == held
    with pytest.raises(ValueError, match=r"arms\['dqn'\] has hidden_sizes"):
        prx.load_state(stopped, arm="dqn", seed=5, algorithm=tiny("dqn", hidden_sizes=(3,)))


def test_a_state_of_another_version_is_an_error_and_stays(stopped, monkeypatch):
    """A State with another slot: not damage, and nothing is removed for it."""
    held, one_run = checkpoints_of(stopped), wave_module.one_run

    def other(algorithm):
        state = one_run(algorithm)
        return state.replace(carry={"more": jax.ShapeDtypeStruct((3,), np.float32)})

    monkeypatch.setattr(wave_module, "one_run", other)
    with pytest.raises(ValueError, match=r"holds nothing as .*more.*another version"):
        prx.resume(stopped, progress=False)
    assert checkpoints_of(stopped) == held


def test_a_disk_that_cannot_be_read_is_no_damage(stopped, monkeypatch):
    held = checkpoints_of(stopped)

    def fail(*args, **kwargs):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(saving.ArraysHandler, "restore", fail)
    with pytest.raises(OSError, match="Input/output error"):
        prx.resume(stopped, progress=False)
    assert checkpoints_of(stopped) == held


def test_a_logger_that_fails_costs_nothing(whole, arms, stop_after, tmp_path):
    """What had been computed when it failed is kept, and its checkpoint."""

    class Failing:
        def open(self, *args): ...

        def log(self, arm, env_steps, metrics):
            if env_steps[-1] == 5 * PER_UPDATE:
                raise RuntimeError("the network is down")

        def close(self): ...

    with pytest.raises(RuntimeError, match="network"):
        prx.sweep(arms, out=tmp_path / "x", log=[Failing()], **SETTINGS)
    assert int(newest(tmp_path / "x").name) == 5
    same(prx.resume(tmp_path / "x", progress=False), whole[1])


def test_a_checkpoint_that_was_never_finished_is_no_checkpoint(whole, stopped):
    last = newest(stopped)
    last.rename(last.with_name(f"{last.name}.orbax-checkpoint-tmp"))
    same(prx.resume(stopped, progress=False), whole[1])


def test_before_the_first_checkpoint_it_starts_again(whole, stopped):
    shutil.rmtree(stopped / "checkpoints")
    same(prx.resume(stopped, progress=False), whole[1])


@pytest.mark.parametrize("left", ["nothing", "part of the store", "no store"])
def test_stopped_while_it_was_being_made(arms, whole, stop_after, tmp_path, left):
    path = tmp_path / "x"
    if left == "nothing":
        path.mkdir()
        (path / "config.json.0123.partial").write_text("{")
        same(prx.sweep(arms, out=path, **SETTINGS), whole[1])
        return
    go_on = stop_after(0)
    with pytest.raises(StoppedError):
        prx.sweep(arms, out=path, **SETTINGS)
    go_on()
    for name in ("loss", "update", "seed") if left == "part of the store" else ("",):
        shutil.rmtree(path / "results.zarr" / name)
    with pytest.raises(FileNotFoundError, match="no results yet"):
        prx.load(path)
    same(prx.resume(path, progress=False), whole[1])


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_says_how_to_go_on_and_goes_on(unkilled, tmp_path, sent):
    """Between the arms' updates; a second is not needed. SIGTERM is what a machine that shuts down sends."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(Path(kill.__file__)), str(tmp_path / "x"), "ppo"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    while not list((tmp_path / "x").glob("checkpoints/*/*/[0-9]*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode in ((1, -signal.SIGINT, 130) if sent == signal.SIGINT else (128 + signal.SIGTERM,))
    assert f"go on with prx.resume({str(tmp_path / 'x')!r})" in said
    prx.resume(tmp_path / "x", arms=kill.arms("ppo"), progress=False)
    same_arms(tmp_path / "x", unkilled)


def test_a_sigterm_that_somebody_handles_is_left_to_them():
    """Submitit's jobs ignore it, and wait for the signal that sends them again."""
    before = signal.signal(signal.SIGTERM, handler := lambda *_: None)
    try:
        with stop.Stop():
            assert signal.getsignal(signal.SIGTERM) is handler
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("fails", [["write_blocks"], ["savez"], ["write_json", "savez"]])
def test_a_full_disk_loses_nothing(arms, whole, tmp_path, monkeypatch, fails):
    """While the results are written, while a checkpoint is, in the background, and in both, as it is with a real one."""
    calls = []

    def full(write):
        def call(*args, **kwargs):
            calls.append(args)
            if len(calls) > 30:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(*args, **kwargs)

        return call

    monkeypatch.setattr(wave_module, "CHUNK_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        for name in fails:
            owner = np if name == "savez" else results
            patch.setattr(owner, name, full(getattr(owner, name)))
        with pytest.raises(OSError, match=r"No space left.*(saving update|waiting for) .*prx\.resume"):
            prx.sweep(arms, out=tmp_path / "x", **SETTINGS | EVERY_UPDATE)
    same(prx.resume(tmp_path / "x", progress=False), whole[1])


def test_what_went_wrong_first_is_told(tmp_path, monkeypatch):
    """Closing raises once more what a save in the background did, which does not say how to go on."""
    saved = checkpoints.Checkpoints(tmp_path, "ppo", "0-1")

    def fail():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(saved.manager, "close", fail)
    with pytest.raises(StoppedError), saved:
        raise StoppedError
    with pytest.raises(OSError, match="No space left"), saved:
        pass


def test_a_directory_that_cannot_be_written(arms, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        prx.sweep(arms, out=tmp_path / "file" / "x", **SETTINGS)
    with pytest.raises(OSError, match="/proc/x"):
        prx.sweep(arms, out="/proc/x", **SETTINGS)


# --- who may ---------------------------------------------------------------------------------------------------------


def test_a_second_process_is_kept_out(stopped):
    hold = (
        "import sys, pathlib; from purejaxrl_ext.sweeps.locks import hold\n"
        "with hold(pathlib.Path(sys.argv[1]), 'dqn-0', 'x'): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(stopped)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match=f"arm 'dqn'.*process {other.pid} on"):
            prx.resume(stopped, progress=False)
        other.kill()
    prx.resume(stopped, progress=False)


@pytest.mark.thorough
def test_two_that_resume_the_same_run(unkilled, tmp_path):
    """One works, the other is told so, and the results are those of one alone."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(Path(kill.__file__)), str(tmp_path / "x"), "ppo", "pfo"]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    while not list((tmp_path / "x").glob("checkpoints/*/*/[0-9]*")):
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    try:
        second = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment, timeout=120)
    finally:
        first.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert f"is being worked on by another process (process {first.pid} on" in second.stderr
    first.communicate(timeout=120)
    assert first.returncode == 0
    same_arms(tmp_path / "x", unkilled)


def test_what_another_process_has_just_changed_is_not_written_over(stopped, monkeypatch):
    """It was read before the lock was there."""
    read, config = results.read_config, results.read_config(stopped)
    reads = iter([config])
    monkeypatch.setattr(results, "read_config", lambda path: next(reads, config | {"waves": {}}))
    with pytest.raises(BlockingIOError, match="another process has just worked on"):
        prx.resume(stopped, num_seeds=10)
    monkeypatch.setattr(results, "read_config", read)
    assert results.read_config(stopped) == config


def test_a_store_cannot_grow_while_others_write_to_it(whole):
    with locks.hold(whole[0], "run", "the store", shared=True), pytest.raises(BlockingIOError, match="the store"):
        prx.resume(whole[0], num_seeds=10)


def test_a_run_is_resumed_not_started_over(arms, whole):
    with pytest.raises(FileExistsError, match=r"prx\.resume"):
        prx.sweep(arms, out=whole[0], **SETTINGS)


def test_arms_with_other_settings_are_refused(arms, whole):
    with pytest.raises(ValueError, match=r"learning_rate=0\.5.*0\.001"):
        prx.resume(whole[0], arms={"ppo": tiny("ppo", learning_rate=0.5)})
    with pytest.raises(ValueError, match="algorithm='pfo'"):
        prx.resume(whole[0], arms={"ppo": tiny("pfo")})


def test_it_cannot_shrink(whole):
    with pytest.raises(ValueError, match=f"total_steps=16.*at least the run's {UPDATES * PER_UPDATE}"):
        prx.resume(whole[0], total_steps=PER_UPDATE)
    with pytest.raises(ValueError, match=r"seeds.*\[5, 7\] are missing"):
        prx.resume(whole[0], seeds=[3, 4])
    with pytest.raises(ValueError, match="only='sac'"):
        prx.resume(whole[0], only=["sac"])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        prx.resume(whole[0].parent / "nowhere")


def test_other_conditions_are_told(whole, stopped):
    """And kept, if anything was done under them."""
    file = stopped / "config.json"
    config = json.loads(file.read_text())
    assert "resumed_with" not in config
    changed = config | {"versions": config["versions"] | {"jax": "0.0.1"}}
    file.write_text(json.dumps(changed))
    for steps in (None, None, (UPDATES + 1) * PER_UPDATE):
        with pytest.warns(RuntimeWarning, match=rf"jax 0\.0\.1 → {jax.__version__}"):
            prx.resume(stopped, total_steps=steps, progress=False)
        after = json.loads(file.read_text())
        assert after["versions"]["jax"] == "0.0.1"
        assert [c["versions"]["jax"] for c in after["resumed_with"]] == [jax.__version__]
    done = whole[0] / "config.json"
    prx.resume(whole[0])
    assert "resumed_with" not in json.loads(done.read_text())


# --- extended --------------------------------------------------------------------------------------------------------


@pytest.mark.optimized
def test_more_steps_seeds_and_arms(arms, whole, tmp_path):
    """What is there is used; what is new is as if it had been there from the start, in waves of the same width."""
    shutil.copytree(whole[0], tmp_path / "x")
    longer = UPDATES + 6
    more = {**arms, "other": tiny("ppo", learning_rate=2e-3)}
    seeds = [*SEEDS, 11]
    grown = prx.resume(tmp_path / "x", arms=more, seeds=seeds, total_steps=longer * PER_UPDATE, progress=False)
    assert dict(grown.sizes) == {"arm": 3, "seed": 4, "update": longer}
    same(grown.sel(arm=["ppo", "dqn"], seed=SEEDS), whole[1], UPDATES)
    # Waves as the run has them: 7 3 | 5 | 11, all as wide as two.
    fresh = {
        tuple(wave): prx.sweep(more, **SETTINGS | {"seeds": wave, "total_steps": longer * PER_UPDATE})
        for wave in ([7, 3], [5, 5 + 100], [11, 12])
    }
    for wave, dataset in fresh.items():
        for seed in set(wave) & set(seeds):
            for name in ("loss", "value", "episode_return", "grad_norm"):
                np.testing.assert_array_equal(grown[name].sel(seed=seed), dataset[name].sel(seed=seed), err_msg=name)
    assert prx.load_state(tmp_path / "x", arm="other", seed=11).update == longer


def test_a_run_of_one_seed_that_gets_more_has_them_at_once(tmp_path, monkeypatch):
    """A wave of two of the store's blocks, as in a sweep of them alone; both are locked, and memory is looked at again."""
    algorithm, looked = tiny("ppo"), []
    settings = {"total_steps": 4 * PER_UPDATE, "progress": False}
    monkeypatch.setattr(run_module, "fitting", lambda plan, options, name, wave: looked.append(wave) or wave.width)
    monkeypatch.setattr(importlib.import_module("purejaxrl_ext.sweeps.planning"), "SEED_BLOCK", 2)
    prx.sweep(algorithm, out=tmp_path / "x", **settings)
    grown = prx.resume(tmp_path / "x", num_seeds=5, progress=False)
    assert results.read_config(tmp_path / "x")["waves"] == {"ppo": [[0, 1, 1], [2, 6, 4]]}
    assert {p.name for p in (tmp_path / "x" / "locks").glob("ppo-*")} == {f"ppo-{i}.lock" for i in range(3)}
    assert [wave.width for wave in looked] == [1, 4]
    same(grown.sel(seed=range(1, 5)), prx.sweep(algorithm, seeds=range(1, 5), **settings))
    same(prx.load(tmp_path / "x"), grown)
    assert prx.load_state(tmp_path / "x", seed=4).update == 4


def test_a_run_that_grew_without_its_store_is_mended(tmp_path):
    """``extend`` writes first what the run is; it may be cut short before the store has followed."""
    arms, path = {"ppo": tiny("ppo")}, tmp_path / "x"
    sweep_module.create(arms, out=path, total_steps=2 * PER_UPDATE)
    config = results.read_config(path)
    results.write_json(path / "config.json", config | {"total_steps": 3 * PER_UPDATE})
    sweep_module.extend(path, arms=arms, total_steps=3 * PER_UPDATE)
    got = prx.resume(path, only=["ppo"], progress=False)
    assert got.sizes["update"] == 3 and np.isfinite(got["loss"]).all()
    with pytest.raises(ValueError, match=r"only=\['ppo'\].*None where the run becomes larger"):
        prx.resume(path, only=["ppo"], total_steps=4 * PER_UPDATE)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_block_is_one_process(monkeypatch, count):
    """Also of a run of one seed that two processes gave more, some of which have been made narrower since."""
    slots = plan_module.place([0], 1, 4) + plan_module.place(list(range(1, 21)), 10, 4)
    waves = plan_module.cut(slots, 4, 1)[:1] + plan_module.cut(slots, 4, 10, 4)
    assert [tuple(w) for w in waves] == [(0, 1, 1), (4, 14, 10), (16, 26, 10)]
    plan = plan_module.Plan({"a": None}, {}, slots, 4, {"a": waves}, None, 1)
    for width in (5, 3, 1):
        run_module.narrow(plan, wave_module.Options(), "a", [w for w in plan.waves["a"] if 4 <= w.start < 14], width)
        owners: dict = {}
        monkeypatch.setattr(jax, "process_count", lambda: count)
        for index in range(count):
            monkeypatch.setattr(jax, "process_index", lambda index=index: index)
            for _, wave in run_module.my_waves(plan, None):
                for slot in range(wave.start, wave.stop):
                    owners.setdefault(slot // 4, set()).add(index)
        monkeypatch.undo()
        assert all(len(who) == 1 for who in owners.values())
        assert set().union(*owners.values()) == set(range(count))
    held = [slot for wave in plan.waves["a"] for slot in range(wave.start, wave.stop)]
    assert sorted(held) == [i for i, seed in enumerate(slots) if seed != results.PADDING]


def test_seeds_are_told_apart_exactly(tmp_path):
    seeds = [2_000_000_000, 2_000_000_001]
    prx.sweep(tiny("ppo"), seeds=seeds, total_steps=PER_UPDATE, out=tmp_path / "x", progress=False)
    assert [int(prx.load_state(tmp_path / "x", seed=s).update) for s in seeds] == [1, 1]
    with pytest.raises(ValueError, match="seed=2000000002"):
        prx.load_state(tmp_path / "x", seed=2_000_000_002)


def test_environments_and_networks_of_ones_own_come_back_by_import_path(stop_after, tmp_path):
    algorithm = tiny("ppo", Clock(time_limit=3, terminate_at=2), reset_pool_size=16)
    stored = json.loads(json.dumps(checkpoints.plain(algorithm.settings["env"])))
    assert stored["import"] == "toys:Clock"
    assert checkpoints.restored(stored) == algorithm.settings["env"]
    go_on = stop_after(2)
    with pytest.raises(StoppedError):
        prx.sweep(algorithm, out=tmp_path / "x", **SETTINGS)
    go_on()
    same(prx.resume(tmp_path / "x", progress=False), prx.sweep(algorithm, **SETTINGS))


def test_an_object_is_the_same_in_another_process():
    """Of one that cannot be imported its description is stored, without its place in memory."""
    one, other = ClockNetwork(), ClockNetwork()
    assert repr(one) != repr(other)
    assert "object" in checkpoints.plain(one)
    assert checkpoints.plain(one) == checkpoints.plain(other)


def test_what_cannot_be_imported_has_to_be_given_again(stop_after, tmp_path):
    class Local(Clock):
        pass

    algorithm = tiny("ppo", Local(time_limit=3), reset_pool_size=16)
    go_on = stop_after(2)
    with pytest.raises(StoppedError):
        prx.sweep({"mine": algorithm}, out=tmp_path / "x", **SETTINGS)
    go_on()
    with pytest.raises(ValueError, match=r"arms.*env of one"):
        prx.resume(tmp_path / "x")
    same(
        prx.resume(tmp_path / "x", arms={"mine": algorithm}, progress=False), prx.sweep({"mine": algorithm}, **SETTINGS)
    )


# --- waves and memory --------------------------------------------------------------------------------------------------


@pytest.mark.optimized
def test_waves_of_one_width_are_bit_for_bit_whatever_their_number(arms, whole):
    more = prx.sweep(arms, **SETTINGS | {"seeds": [7, 3, 5, 9, 1, 2, 8]})
    same(more.sel(seed=[7, 3]), whole[1].sel(seed=[7, 3]))


def test_seeds_that_do_not_fit_run_in_waves(arms, monkeypatch):
    algorithm = arms["ppo"]
    need = {n: program.compiled(algorithm, program.lay_out(algorithm, list(range(n)), {})).memory for n in (2, 8)}
    assert 0 < need[2] < need[8]
    monkeypatch.setattr(memory, "available_memory", lambda: need[2] / memory.MEMORY_SHARE)
    with pytest.warns(RuntimeWarning, match="8 seeds at once do not fit into memory; going on with [12]$"):
        fitted = prx.sweep(algorithm, num_seeds=8, total_steps=PER_UPDATE, progress=False)
    assert np.isfinite(fitted["loss"]).all()
    assert 1 <= memory.fitting_width("ppo", algorithm, {}, 8, copies=0) <= 2
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    with pytest.raises(MemoryError, match=r"arm 'ppo': one seed of its 1 grid cells needs .* GiB"):
        prx.sweep(arms, num_seeds=8, total_steps=PER_UPDATE)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_device_out_of_memory_halves_the_waves(arms, tmp_path, monkeypatch, on_disk):
    """Injected, at the second wave of four seeds; the first stays as it is."""
    start = wave_module.WaveRun._start
    widths = []

    def full(self, *args):
        widths.append(self.wave)
        if self.wave.width > 2 and self.wave.start > 0:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 byte")
        return start(self, *args)

    monkeypatch.setattr(wave_module.WaveRun, "_start", full)
    settings = SETTINGS | {"seeds": list(range(10)), "wave_size": 4, "out": tmp_path / "x" if on_disk else None}
    with pytest.warns(RuntimeWarning, match="going on with 2"):
        halved = prx.sweep(arms["ppo"], **settings)
    assert [(w.start, w.width) for w in widths] == [(0, 4), (4, 4), (4, 2), (6, 2), (8, 2)]
    monkeypatch.setattr(wave_module.WaveRun, "_start", start)
    by_two, by_four = (prx.sweep(arms["ppo"], **SETTINGS | {"seeds": list(range(10)), "wave_size": w}) for w in (2, 4))
    same(halved.isel(seed=slice(4, 10)), by_two.isel(seed=slice(4, 10)))
    same(halved.isel(seed=slice(0, 4)), by_four.isel(seed=slice(0, 4)))
    if on_disk:
        same(prx.resume(tmp_path / "x", progress=False), halved)


def test_waves_that_have_begun_are_not_made_narrower_for_others(arms, tmp_path, monkeypatch):
    """As when two processes have begun one each, and one of them was lost before its first checkpoint."""
    path = tmp_path / "x"
    monkeypatch.setattr(wave_module, "CHUNK_SECONDS", 0.0)
    prx.sweep(arms["ppo"], out=path, **SETTINGS | EVERY_UPDATE | {"seeds": [0, 1, 2, 3], "wave_size": 2})
    shutil.rmtree(path / "checkpoints" / "ppo" / "0-2")
    newest_of_second = newest(path)
    newest_of_second.rename(newest_of_second.with_name("lost"))
    earlier = sorted(p.name for p in newest_of_second.parent.iterdir())
    monkeypatch.setattr(run_module, "fitting", lambda *args: 1)
    monkeypatch.setattr(run_module, "WaveRun", None)
    with pytest.warns(RuntimeWarning, match="going on with 1"), pytest.raises(TypeError):
        prx.resume(path, progress=False)
    assert results.read_config(path)["waves"]["ppo"] == [[2, 4, 2], [0, 1, 1], [1, 2, 1]]
    assert sorted(p.name for p in newest_of_second.parent.iterdir()) == earlier


@pytest.mark.parametrize(
    ("slots", "block", "width", "start", "waves"),
    [
        ([0, 1, 2, 3, 4], 5, 2, 0, [(0, 2, 2), (2, 4, 2), (4, 5, 2)]),
        ([0, 1, 2, -1, 3, 4, 5, 6], 4, 8, 0, [(0, 3, 8), (4, 8, 8)]),
        ([0, 1, 2, 3, 4, 5, 6, -1], 4, 8, 0, [(0, 7, 8)]),
        ([0, 1, 2, 3, 4, 5, 6, -1], 4, 6, 0, [(0, 4, 6), (4, 7, 6)]),
        ([0, 1, 2, 3, 4, 5, 6, 7], 4, 3, 0, [(0, 3, 3), (3, 4, 3), (4, 7, 3), (7, 8, 3)]),
        ([0, 1, 2, 3, 4, 5, 6, 7], 4, 2, 4, [(4, 6, 2), (6, 8, 2)]),
        ([0, 1, 2, 3], 1, 2, 1, [(1, 3, 2), (3, 4, 2)]),
    ],
)
def test_waves_share_no_block_unless_it_is_theirs_alone(slots, block, width, start, waves):
    assert plan_module.cut(slots, block, width, start) == [plan_module.Wave(*w) for w in waves]


@pytest.mark.parametrize("version", [1, 2])
def test_the_memory_of_a_container_or_a_job_counts(tmp_path, version):
    """Not what it keeps of files, which the system gives back; the least of the groups around it."""
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    top = tmp_path / "sys/fs/cgroup" / ("memory" if version == 1 else "")
    (tmp_path / "proc/self").mkdir(parents=True)
    line = "0::/job/step" if version == 2 else "7:cpu,memory:/job/step"
    (tmp_path / "proc/self/cgroup").write_text(f"3:freezer:/\n{line}\n")
    unlimited = "max" if version == 2 else str(2**63 - 4096)
    for group, limit, used, cached in (("job", 1000, 700, 300), ("job/step", unlimited, 100, 0)):
        (top / group).mkdir(parents=True)
        for name, x in zip(names, (limit, used), strict=True):
            (top / group / name).write_text(f"{x}\n")
        (top / group / "memory.stat").write_text(f"cache 5\n{'total_' * (version == 1)}inactive_file {cached}\n")
    assert memory._cgroup_memory(tmp_path) == 600
    assert memory._cgroup_memory(tmp_path / "nowhere") == np.inf


def test_an_error_that_is_not_of_memory_is_raised(arms, monkeypatch):
    def fail(*args):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(wave_module.WaveRun, "_start", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        prx.sweep(arms["ppo"], **SETTINGS)


# --- isolation -------------------------------------------------------------------------------------------------------


@pytest.mark.optimized
def test_a_diverging_cell_touches_no_other(arms):
    grids = ({"learning_rate": [1e-3, x]} for x in (2e-3, 1e6, 1e30))
    with pytest.warns(
        RuntimeWarning, match=r"learning_rate=1e\+30, seed=\d: .*from update 0 on.*last finite values are kept"
    ):
        healthy, wild, lost = (prx.sweep(arms["ppo"], **SETTINGS | {"grid": grid}) for grid in grids)
    for other in (wild, lost):
        same(other.sel(learning_rate=1e-3), healthy.sel(learning_rate=1e-3))


def test_a_learning_rate_of_a_million_diverges_alone():
    """On CartPole it only learns nothing: a tanh network's losses stay finite. A Gaussian's log probabilities do not."""
    algorithm = tiny("ppo", "Pendulum-v1")
    with pytest.warns(RuntimeWarning, match=r"learning_rate=1e\+06, seed=\d: .*from update 0 on"):
        healthy, wild = (prx.sweep(algorithm, **SETTINGS | {"grid": {"learning_rate": [1e-3, x]}}) for x in (2e-3, 1e6))
    assert (wild["diverged_at"].sel(learning_rate=1e6) == 0).all()
    assert np.isfinite(wild["loss"].sel(learning_rate=1e-3)).all()
    same(wild.sel(learning_rate=1e-3), healthy.sel(learning_rate=1e-3))


@pytest.mark.optimized
def test_a_run_that_diverges_keeps_its_last_finite_values_also_across_a_stop(stop_after, tmp_path):
    """NaN rewards from step 50 on, which is in update 6, for the seeds that drew a bad first state."""
    algorithm = tiny("ppo", Poison(share=0.3, after=50), normalize_rewards=True)
    starts = jax.vmap(lambda s: algorithm.init(jax.random.key(s)).env.env_state)(np.arange(20))
    is_bad = (np.asarray(starts)[..., 0] < 0.3).any(1)
    bad, good = (int(np.flatnonzero(which)[0]) for which in (is_bad, ~is_bad))
    settings = SETTINGS | {"seeds": [bad, good]}
    with pytest.warns(RuntimeWarning, match=f"seed={bad}: .*from update 6 on"):
        whole = prx.sweep(algorithm, keep_states=True, **settings)
    assert whole["diverged_at"].sel(seed=bad) == 6 and np.isnan(whole["diverged_at"].sel(seed=good))
    assert (
        np.isnan(whole["entropy"].sel(seed=bad)[..., 7:]).all() and np.isfinite(whole["entropy"].sel(seed=good)).all()
    )
    before = prx.load_state(prx.sweep(algorithm, keep_states=True, **settings | {"total_steps": 6 * 16}), seed=bad)
    after = prx.load_state(whole, seed=bad)
    for slot in ("params", "opt_state", "normalizer"):
        equal_trees(getattr(after, slot), getattr(before, slot))

    go_on = stop_after(9)
    with pytest.warns(RuntimeWarning, match="not finite"), pytest.raises(StoppedError):
        prx.sweep(algorithm, out=tmp_path / "x", **settings | EVERY_UPDATE)
    go_on()
    same(prx.resume(tmp_path / "x", progress=False), whole)
