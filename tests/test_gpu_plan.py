"""The plan for a GPU reads XLA's texts: a stored program of a loop of 10 trips (a product, a sum written in place) and a branch."""

import importlib
import re
import sys
from pathlib import Path

import gpu_hlo
import pytest

HERE = Path(__file__).parent

HLO, THUNKS = (HERE / "hlo" / f"{name}.txt" for name in ("program", "thunks"))


@pytest.fixture
def loops():
    return gpu_hlo.read(HLO.read_text())


@pytest.fixture
def plan(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    return importlib.import_module("gpu_plan")


def test_kernels_and_bytes_of_a_loop(loops):
    loop = loops.repeated(10)
    assert loop.label == "rollout step (train, fixture.py:13)"
    assert [k.kind for k in loop.kernels] == ["fusion", "fusion", "fusion", "copy", "fusion"]
    product, _, write, copy, _ = loop.kernels
    assert product.flops == 2 * 64 * 32 * 32 and product.written == copy.written == 64 * 32 * 4
    # [10, 32] is updated in place: one row is written.
    assert write.name.startswith("loop_dynamic_update_slice") and write.written == 32 * 4
    assert product.stack[0] == ("train.<locals>.env_step", "fixture.py", 11)
    with pytest.raises(ValueError, match=r"no loop of 976.0 updates; it has 10 × rollout step"):
        loops.repeated(976)


def test_one_branch_counts(loops):
    dear, cheap = (loop for _, loop in loops.walk() if loop.label.startswith("a branch"))
    assert (cheap.taken, dear.taken, len(cheap.kernels), len(dear.kernels)) == (True, False, 1, 2)
    assert loops.total() == 4 + 10 * 5 + 1
    assert gpu_hlo.read(HLO.read_text(), max).total() == 4 + 10 * 5 + 2


def test_launches_by_the_host(loops):
    gpu_hlo.count_launches(THUNKS.read_text(), loops)
    # A trip is one command buffer; the cheaper branch is one copy.
    assert loops.repeated(10).launches == 1
    assert loops.launches == 3 + 10 + 1 + 1
    # A loop that lies in a command buffer costs nothing more.
    inside = re.sub("(?m)^(?=0|  |c)", "    ", THUNKS.read_text()).replace("    condition:", "condition:")
    gpu_hlo.count_launches("000: kCommandBuffer\n" + inside, loops)
    assert (loops.launches, loops.repeated(10).launches) == (1, 0)
    # A text of another program says nothing.
    loops.launches = None
    gpu_hlo.count_launches("000: kCopy", loops)
    assert loops.launches is None


@pytest.mark.parametrize(
    ("kind", "size"),
    [("f32[2,3]{1,0}", 24), ("(s32[], bf16[4]{0}, /*index=2*/pred[8]{0})", 20), ("f8e4m3fn[5]", 5), ("token[]", 0)],
)
def test_bytes_of_a_type(kind, size):
    assert gpu_hlo.num_bytes(kind) == size


def test_tree_bound_and_seeds(loops, plan):
    lines = plan.tree(loops)
    assert lines[0].startswith("outside the loops: 4 kernels (55 with inner loops)")
    assert lines[1].startswith("  10 × rollout step (train, fixture.py:13): 5 kernels, 0.02 MiB written")
    assert plan.bound(loops, 1000) == (pytest.approx(0.11), "launches")
    assert plan.most_seeds({10: 150, 20: 250}, 1050) == 100
    assert plan.most_seeds({10: 200}, 1000) == 50
    assert plan.settings_of(("num_envs=4", "activation=tanh")) == {"num_envs": 4, "activation": "tanh"}
    with pytest.raises(ValueError, match="NAME=VALUE"):
        plan.settings_of(("num_envs",))


def test_table(plan):
    row = plan.Row(
        "ppo, x", "default", 64, 512, 1024, 77, {"minibatch": 63}, 2**30, 2**25, 2**28, 8.567, "launches", [], [1, 2, 3]
    )
    last = plan.table([row], 500_000).splitlines()[-1]
    assert last == (
        "| ppo, x | default | 64 | 512 | 1,024 | minibatch 63 | 2,000 | 77 | 1,024 | 32.0 | 256 | 1 / 2 / 3 | 8.57 (launches) |"
    )
