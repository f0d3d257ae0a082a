"""Loggers: which numbers are written at which step, what a resumed run writes again, and what that costs."""

import importlib.util
import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from purejaxrl_ext.sweeps import logs

NAN = float("nan")
CONFIG = {"seeds": [0, 5, 3, 9], "grid": {}, "arms": {"ppo": {"settings": {"gamma": 0.9}}, "pfo": {"settings": {}}}}
GRID = CONFIG | {"seeds": [0, 5], "grid": {"gamma": [0.9, 0.99], "clip_eps": [0.1]}}
STEPS = np.array([16, 32, 48])
RUNS = np.array([[1.0, NAN, 3.0], [2.0, NAN, 4.0], [3.0, NAN, NAN], [10.0, NAN, np.inf]])  # [seed, U]

needs_tensorboard = pytest.mark.skipif(not importlib.util.find_spec("tensorboardX"), reason="needs tensorboardX")
needs_wandb = pytest.mark.skipif(not importlib.util.find_spec("wandb"), reason="needs wandb")


# --- rows ------------------------------------------------------------------------------------------------------------


def test_rows_hold_mean_and_iqm_of_finite_numbers_only():
    got = dict(logs.rows(STEPS, {"loss": RUNS}, CONFIG, per_seed=False))
    assert got == {
        16: {"loss/mean": 4.0, "loss/iqm": 2.5},
        32: {},
        48: {"loss/mean": 3.5, "loss/iqm": 3.5},
    }


def test_rows_of_every_seed():
    got = dict(logs.rows(STEPS, {"loss": RUNS, "value": -RUNS}, CONFIG, per_seed=True))
    assert got[16] == {
        "loss/mean": 4.0,
        "loss/iqm": 2.5,
        **{f"loss/seed={s}": x for s, x in zip([0, 5, 3, 9], [1.0, 2.0, 3.0, 10.0], strict=True)},
        "value/mean": -4.0,
        "value/iqm": -2.5,
        **{f"value/seed={s}": -x for s, x in zip([0, 5, 3, 9], [1.0, 2.0, 3.0, 10.0], strict=True)},
    }
    assert got[48] == {
        "loss/mean": 3.5, "loss/iqm": 3.5, "loss/seed=0": 3.0, "loss/seed=5": 4.0,
        "value/mean": -3.5, "value/iqm": -3.5, "value/seed=0": -3.0, "value/seed=5": -4.0,
    }  # fmt: skip


def test_rows_name_their_cell():
    x = np.arange(8.0).reshape(2, 1, 2, 2)  # [gamma, clip_eps, seed, U]
    got = dict(logs.rows(STEPS[:2], {"loss": x}, GRID, per_seed=False))
    first, second = "gamma=0.9/clip_eps=0.1", "gamma=0.99/clip_eps=0.1"
    assert got[16] == {f"loss/{k}/{c}": v for k in ("mean", "iqm") for c, v in ((first, 1.0), (second, 5.0))}
    assert got[32][f"loss/mean/{second}"] == 6.0
    per_seed = dict(logs.rows(STEPS[:2], {"loss": x}, GRID, per_seed=True))[32]
    assert per_seed[f"loss/seed=5/{first}"] == 3.0 and per_seed[f"loss/seed=0/{second}"] == 5.0


def test_one_seed_has_a_mean_only():
    got = dict(logs.rows(STEPS, {"loss": RUNS[:1]}, CONFIG | {"seeds": [4]}, per_seed=False))
    assert got == {16: {"loss/mean": 1.0}, 32: {}, 48: {"loss/mean": 3.0}}


def test_metrics_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"metrics\['loss'\].shape=\(3, 3\).*\(4, 3\)"):
        list(logs.rows(STEPS, {"loss": RUNS[:3]}, CONFIG, per_seed=False))


class Recorder:
    def __init__(self):
        self.calls = []

    def open(self, path, config, start):
        self.calls.append(("open", path, config, start))

    def log(self, arm, env_steps, metrics):
        self.calls.append(("log", arm))

    def close(self):
        self.calls.append(("close",))


def test_opened_loggers_are_closed_whatever_happens():
    both = [Recorder(), Recorder()]

    def stopped():
        with logs.opened(both, None, CONFIG, {"ppo": 3}) as log:
            log("ppo", STEPS, {"loss": RUNS})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    for recorder in both:
        assert recorder.calls == [("open", None, CONFIG, {"ppo": 3}), ("log", "ppo"), ("close",)]


# --- TensorBoard -----------------------------------------------------------------------------------------------------


def events(folder):
    """All events of a directory, as TensorBoard reads it: file by file, checksums checked."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    out = []
    for file in sorted(folder.glob("*tfevents*")):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            body, data = data[: 16 + length], data[16 + length :]
            record = body[12 : 12 + length]
            assert struct.unpack("<I", body[8:12])[0] == masked_crc32c(body[:8])
            assert struct.unpack("<I", body[12 + length :])[0] == masked_crc32c(record)
            out.append(Event.FromString(record))
    return out


def shown(folder):
    """tag -> [(step, value)] after TensorBoard's purge: a START drops what was read so far from its step on."""
    points = {}
    for event in events(folder):
        if event.session_log.status == event.session_log.START:
            points = {tag: [p for p in line if p[0] < event.step] for tag, line in points.items()}
        for value in event.summary.value:
            points.setdefault(value.tag, []).append((event.step, value.simple_value))
    return points


@needs_tensorboard
def test_tensorboard_holds_each_arm_and_no_number_that_is_none(tmp_path):
    with logs.opened([logs.TensorBoard()], tmp_path, CONFIG, {"ppo": 0, "pfo": 0}) as log:
        log("ppo", STEPS[:2], {"loss": RUNS[:, :2]})
        log("ppo", STEPS[2:], {"loss": RUNS[:, 2:]})
        log("pfo", STEPS, {"loss": 2 * RUNS})
        # Readable while it runs.
        assert shown(tmp_path / "tensorboard" / "ppo")["loss/mean"] == [(16, 4.0), (48, 3.5)]
    assert shown(tmp_path / "tensorboard" / "ppo") == {
        "loss/mean": [(16, 4.0), (48, 3.5)],
        "loss/iqm": [(16, 2.5), (48, 3.5)],
    }
    assert shown(tmp_path / "tensorboard" / "pfo")["loss/mean"] == [(16, 8.0), (48, 7.0)]
    first = events(tmp_path / "tensorboard" / "ppo")[0]
    assert first.file_version == "brain.Event:2"


@needs_tensorboard
def test_tensorboard_of_every_seed_where_one_says(tmp_path):
    with logs.opened([logs.TensorBoard(tmp_path / "tb", per_seed=True)], None, CONFIG, {}) as log:
        log("ppo", STEPS, {"loss": RUNS})
    assert shown(tmp_path / "tb" / "ppo")["loss/seed=5"] == [(16, 2.0), (48, 4.0)]


@needs_tensorboard
def test_tensorboard_after_a_stop_shows_no_step_twice(tmp_path):
    """Stopped after step 48 with a checkpoint at 16: 32 and 48 are logged again."""
    logger = logs.TensorBoard()
    rising = np.arange(12.0).reshape(4, 3)
    for start in (0, 16):
        with logs.opened([logger], tmp_path, CONFIG, {"ppo": start, "pfo": 0}) as log:
            left = slice(start // 16, None)
            log("ppo", STEPS[left], {"loss": rising[:, left]})
    assert len(list((tmp_path / "tensorboard" / "ppo").iterdir())) == 2
    assert shown(tmp_path / "tensorboard" / "ppo")["loss/mean"] == [(16, 4.5), (32, 5.5), (48, 6.5)]


@needs_tensorboard
def test_tensorboard_shows_no_step_twice_if_there_was_no_checkpoint_either(tmp_path):
    for _ in range(2):
        with logs.opened([logs.TensorBoard()], tmp_path, CONFIG, {}) as log:
            log("ppo", STEPS, {"loss": RUNS})
    assert shown(tmp_path / "tensorboard" / "ppo")["loss/mean"] == [(16, 4.0), (48, 3.5)]


@needs_tensorboard
def test_tensorboard_needs_somewhere_to_write():
    with pytest.raises(ValueError, match="path=None"):
        logs.TensorBoard().open(None, CONFIG, {})


@needs_tensorboard
def test_a_row_costs_less_than_a_millisecond(tmp_path):
    """30 metrics of 8 seeds; measured: 0.1 ms. A row is an update of hundreds of steps, 10 ms or so."""
    config = CONFIG | {"seeds": list(range(8))}
    metrics = {f"metric_{i}": np.random.default_rng(i).normal(size=(8, 128)) for i in range(30)}
    with logs.opened([logs.TensorBoard()], tmp_path, config, {}) as log:
        began = time.process_time()
        log("ppo", np.arange(128), metrics)
        assert (time.process_time() - began) / 128 < 1e-3


@pytest.mark.parametrize(("module", "make"), [("tensorboardX", logs.TensorBoard), ("wandb", lambda: logs.WandB("p"))])
def test_what_is_not_installed_says_how_to_get_it(monkeypatch, module, make):
    for name in [m for m in sys.modules if m.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    extra = {"tensorboardX": "tensorboard"}.get(module, module)
    with pytest.raises(ImportError, match=rf"pip install 'purejaxrl_ext\[{extra}\]'"):
        make()


# --- Weights & Biases ------------------------------------------------------------------------------------------------

# In a process of its own: wandb starts a service, and must be stoppable where it waits for a network.
WANDB_SCRIPT = """
import sys, json, pathlib
import numpy as np
from purejaxrl_ext.sweeps import logs
path = pathlib.Path(sys.argv[1])
config = json.loads(sys.argv[2])
for start in (0, 16):
    with logs.opened([logs.WandB("project", per_seed=True)], path, config, {"ppo": start, "pfo": 0}) as log:
        steps = np.array([16, 32, 48])
        runs = np.array([[1.0, np.nan, 3.0], [2.0, np.nan, 4.0]])
        log("ppo", steps[steps > start], {"loss": runs[:, steps > start]})
        if start == 0:
            log("pfo", steps, {"loss": 2 * runs})
"""


def wandb_records(data):
    """Records of an offline run's file: LevelDB's log format, blocks of 32 KiB, behind a header of 7 bytes."""
    at, record = 7, b""
    while at < len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def wandb_history(file):
    """step -> numbers of an offline run's file."""
    from wandb.proto import wandb_internal_pb2

    out = {}
    for data in wandb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item}
            step = items.get("_step", record.history.step.num)
            out[step] = {k: v for k, v in items.items() if not k.startswith("_")}
    return out


@pytest.mark.thorough
@needs_wandb
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb_offline_needs_no_network_and_holds_each_arm(tmp_path):
    config = CONFIG | {"seeds": [0, 5]}
    # No proxy leads anywhere: what waited for a network would run into the timeout or fail.
    dead = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    env = os.environ | dead | {"WANDB_ERROR_REPORTING": "false", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", WANDB_SCRIPT, str(tmp_path / "run"), json.dumps(config)]
    (tmp_path / "run").mkdir()
    done = subprocess.run(command, env=env, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ids = json.loads((tmp_path / "run" / "wandb.json").read_text())
    files = {arm: sorted(Path(tmp_path).rglob(f"run-{ids[arm]}.wandb")) for arm in ("ppo", "pfo")}
    assert [len(f) for f in files.values()] == [2, 1]
    first, second = (wandb_history(f) for f in files["ppo"])
    assert first == {
        16: {"loss/mean": 1.5, "loss/iqm": 1.5, "loss/seed=0": 1.0, "loss/seed=5": 2.0},
        48: {"loss/mean": 3.5, "loss/iqm": 3.5, "loss/seed=0": 3.0, "loss/seed=5": 4.0},
    }
    assert second == {48: first[48]}
    assert wandb_history(files["pfo"][0])[16]["loss/mean"] == 3.0


@needs_wandb
def test_wandb_modes_are_named():
    with pytest.raises(ValueError, match=r"mode='off'.*'offline'"):
        logs.WandB("project", mode="off")
