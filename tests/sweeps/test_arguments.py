"""Arguments of sweeps: what is wrong is named, before anything is computed; and what is warned of."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from toys import Clock, tiny

import purejaxrl_ext as prx
from purejaxrl_ext.sweeps import arguments, logs, plan, planning
from purejaxrl_ext.sweeps.progress import Progress, Recent

PER_UPDATE = 16


@pytest.fixture(scope="module")
def algorithm():
    return tiny("ppo")


class Mine:
    def open(self, *args): ...

    def log(self, *args): ...

    def close(self): ...


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ("ppo", r"arms='ppo' is not allowed.*prx\.make\(\"ppo\", env\)"),
        (["a", "b"], r"arms=.*several by name"),
        (prx.Algorithm, "arms=<class.*an algorithm"),
        ({}, "at least one"),
        ({"a": prx.Algorithm}, r"arms\['a'\]=<class.*from prx\.make"),
        ({3: None}, "arms=3.*named by texts"),
        ({"a/b": None}, r"arms\['a/b'\]"),
    ],
)
def test_arms_that_are_none(arms, words):
    with pytest.raises(ValueError, match=words):
        prx.sweep(arms, total_steps=16)


@pytest.mark.parametrize(
    ("keys", "dims", "words"),
    [
        ([("a", 1), ("b",)], ("x", "y"), r"arms=\('b',\).*a label for each of"),
        ([("a", 1), ("b", "2")], ("x", "y"), "labels of 'y'.*all texts or all numbers"),
        ([("a", "1-2"), ("a-1", "2")], ("x", "y"), "told apart"),
        ([("a", None)], ("x", "y"), "str, int or float"),
        ([("a", 1)], ("x", "x"), "dims=.*different names"),
        ([("a", 1)], ("x", "seed"), r"dims=.*other names than \['seed'\]"),
        ([("a", 1)], None, "named by texts.*dims="),
    ],
)
def test_labels_that_are_none(algorithm, keys, dims, words):
    with pytest.raises(ValueError, match=words):
        prx.sweep(dict.fromkeys(keys, algorithm), dims=dims, total_steps=16)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seeds": 3}, "seeds=3 is not allowed.*num_seeds=3"),
        ({"seeds": "012"}, "seeds='012'"),
        ({"seeds": ["0"]}, "whole numbers"),
        ({"log": "tensorbord"}, "unknown logger 'tensorbord'. Did you mean 'tensorboard'"),
        ({"log": logs.TensorBoard}, r"log=<class.*such as logs\.TensorBoard\(\)"),
        ({"log": [3]}, "log=3"),
        ({"save_every": -1}, "save_every=-1"),
        ({"probe_every": 2.0}, "probe_every=2.0"),
        ({"probes": [3]}, r"probes\['int'\]=3"),
        ({"probes": [max, max]}, "different names"),
        ({"grid": {"clip_eps": [0.1, np.float32(0.1)]}}, "different numbers"),
    ],
)
def test_settings_that_are_not_allowed(algorithm, settings, words):
    with pytest.raises(ValueError, match=words):
        prx.sweep(algorithm, total_steps=16, **{"save_every": 0} | settings, keep_states=True)


def test_loggers_by_name_alone_and_in_lists():
    mine = Mine()
    assert logs.loggers(mine) == (mine,)
    assert logs.loggers(()) == logs.loggers(None) == ()
    assert [type(x) for x in logs.loggers(["tensorboard", mine])] == [logs.TensorBoard, Mine]
    assert isinstance(logs.loggers("tensorboard")[0], logs.TensorBoard)


@pytest.mark.parametrize("values", [np.array([0.1, 0.2], np.float32), jnp.array([0.1, 0.2]), [0.1, np.float64(0.2)]])
def test_swept_values_are_what_was_meant(algorithm, values):
    assert arguments.checked_grid({"ppo": algorithm}, {"clip_eps": values}) == {"clip_eps": [0.1, 0.2]}


# --- algorithms ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class WithStep:
    """A loop with another step."""

    inner: Any
    step: Any

    def __getattr__(self, name):
        return getattr(self.inner, name)


def with_step(algorithm, step):
    return dataclasses.replace(algorithm, loop=WithStep(algorithm.loop, step))


def test_a_metric_that_is_no_scalar_is_named(algorithm):
    def step(state, *args):
        state, metrics = algorithm.step(state, *args)
        return state, metrics | {"per_env": jnp.ones(2)}

    with pytest.raises(ValueError, match=r"arm 'mine': the shape of metric 'per_env'=\(2,\)"):
        prx.sweep({"mine": with_step(algorithm, step)}, total_steps=16)


def test_a_step_that_changes_the_state_is_named(algorithm):
    def step(state, *args):
        state, metrics = algorithm.step(state, *args)
        return state.replace(carry={"ages": jnp.ones(3)}), metrics

    with pytest.raises(ValueError, match=r"arm 'mine': a step must give.*\['ages'\]: nothing became float32\[3\]"):
        prx.sweep({"mine": with_step(algorithm, step)}, total_steps=16)


def test_an_algorithm_that_its_settings_do_not_bring_back_is_refused_on_disk(algorithm, tmp_path):
    other = tiny("ppo", num_epochs=1)
    mixed = dataclasses.replace(algorithm, loop=other.loop)
    with pytest.raises(ValueError, match=r"arms\['mine'\]='ppo'.*parts of this one were replaced.*Recipe"):
        prx.sweep({"mine": mixed}, total_steps=16, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()
    planning.check_remakes({"ppo": algorithm, "clock": tiny("ppo", Clock(time_limit=3))})


# --- warnings --------------------------------------------------------------------------------------------------------


def test_a_schedule_that_ends_before_training_is_told(algorithm):
    def plan_of(grid, total_steps=100, **hparams):
        arms = {"a": dataclasses.replace(algorithm, hparams=algorithm.hparams.replace(**hparams))}
        return plan.Plan(arms, grid, [0], 1, {}, None, total_steps)

    with pytest.warns(RuntimeWarning, match=r"arm 'a': anneal_steps=50 is shorter than total_steps=100: its learning"):
        planning.warn_of_schedules(plan_of({}, anneal_steps=50.0))
    with pytest.warns(RuntimeWarning, match="anneal_steps=10 and 99 is"):
        planning.warn_of_schedules(plan_of({"anneal_steps": [0.0, 10.0, 99.0, 100.0]}))
    planning.warn_of_schedules(plan_of({}, anneal_steps=100.0))
    planning.warn_of_schedules(plan_of({}, anneal_steps=0.0))


def test_initial_states_that_repeat_are_told_once():
    """One-step episodes: 16 of them in an update, and two initial states."""
    short = tiny("ppo", Clock(time_limit=1), reset_pool_size=2)
    with pytest.warns(RuntimeWarning, match="16 episodes began.* only 2 initial states.*reset_pool_size=16") as caught:
        prx.sweep(short, total_steps=3 * PER_UPDATE, progress=False)
    assert len([w for w in caught if "initial states" in str(w.message)]) == 1


# --- progress --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [[40], [1] * 40, [7, 20, 13]])
def test_the_return_that_is_shown_does_not_depend_on_chunks(lengths):
    returns = np.random.default_rng(0).normal(size=(3, 40))
    returns[:, ::3] = np.nan
    recent = Recent(steps=10, span=100)
    for end, length in zip(np.cumsum(lengths), lengths, strict=True):
        recent.add(returns[:, end - length : end])
    assert str(recent) == f"return {np.nanmean(returns[:, -10:]):.4g} (last 100 steps)"


def test_progress_says_that_it_compiles(capsys):
    bar = Progress(True, {"ppo": 100}, {"ppo": 1})
    bar.compiling("ppo")
    bar.advance("ppo", 100, 800, np.full((2, 10), 3.0))
    bar.compiling("ppo")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "ppo: compiling" and len(lines) == 2
    assert lines[1].endswith("return 3 (last 10 steps)")
