"""The seam: how interventions compose, when they are due, what they may not do, and how they are asked for."""

import pickle
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import tiny

import purejaxrl_ext as prx
from purejaxrl_ext.interventions import base
from purejaxrl_ext.sweeps import checkpoints

INF = float("inf")
KEY = jax.random.key(0)


def double(net, learner, context):
    return learner.replace(params=jax.tree.map(lambda x: 2.0 * x, learner.params))


def increment(net, learner, context):
    return learner.replace(params=jax.tree.map(lambda x: x + 1.0, learner.params))


def count(net, learner, context):
    return learner.replace(memory=learner.memory + 1)


def start(key, params):
    return jnp.zeros((), jnp.int32)


DOUBLE = prx.Intervention("double", each=double)
INCREMENT = prx.Intervention("increment", each=increment)
COUNT = prx.Intervention("count", {"count_coef": prx.hparam(2.0, 0.0)}, init=start, each=count, before=count)


def learner(memory: Any = ()):
    return prx.Learner({"w": jnp.array([1.0, 2.0])}, (), memory)


def context(update=0, **hparams):
    return base.Context(SimpleNamespace(**hparams), jnp.int32(update), KEY, jnp.float32(0.1))


@pytest.mark.parametrize(
    ("every", "due"), [(1.0, [0, 1, 2, 3, 4, 5]), (2.0, [1, 3, 5]), (4.0, [3]), (INF, []), (0.0, [0, 1, 2, 3, 4, 5])]
)
def test_when_something_is_due(every, due):
    assert [i for i in range(6) if base.is_due(jnp.int32(i), jnp.float32(every))] == due


def test_several_act_in_the_order_given():
    for order, expected in (((DOUBLE, INCREMENT), [3.0, 5.0]), ((INCREMENT, DOUBLE), [4.0, 6.0])):
        after = base.act_on(order, "each", None, learner(), context())
        np.testing.assert_array_equal(after.params["w"], expected)


def test_each_is_shown_its_own_memory_and_key():
    keys = []

    def look(net, seen, told):
        assert seen.memory == 7
        keys.append(told.key)
        return seen

    looking = [prx.Intervention(name, init=lambda key, params: jnp.int32(7), each=look) for name in ("one", "two")]
    memory = base.first_memory((COUNT, *looking), KEY, {})
    assert set(memory) == {"count", "one", "two"}
    after = base.act_on((COUNT, *looking), "each", None, learner(memory), context())
    assert after.memory == {"count": 1, "one": 7, "two": 7}
    assert len({tuple(jax.random.key_data(k).tolist()) for k in (*keys, KEY)}) == 3


def test_penalties_add_up_and_are_logged_by_name():
    def penalty(net, params, memory, part, other, hparams):
        return params["w"].sum() * part + other, {"seen": part}

    several = [prx.Intervention(name, penalty=penalty) for name in ("one", "two")]
    gradient, logged = base.penalty_gradient(several, None, learner(), jnp.float32(3.0), jnp.float32(5.0), None)
    np.testing.assert_array_equal(gradient["w"], [6.0, 6.0])
    assert logged == {"one_penalty": 14.0, "two_penalty": 14.0, "seen": 3.0}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda x: None, "mine.each must return a Learner, got NoneType"),
        (lambda x: x.replace(params={}), "mine.each must keep the structure, shapes and dtypes of params"),
        (lambda x: x.replace(params={"w": jnp.zeros(3)}), "of params"),
        (lambda x: x.replace(params={"w": jnp.zeros(2, jnp.int32)}), "of params"),
        (lambda x: x.replace(opt_state=(1,)), "of opt_state"),
        (lambda x: x.replace(memory=jnp.ones(2)), "of memory"),
    ],
)
def test_a_hook_may_not_change_what_a_learner_is_made_of(changed, message):
    mine = prx.Intervention("mine", each=lambda net, learner, context: changed(learner))
    with pytest.raises(TypeError, match=message):
        base.act_on((mine,), "each", None, learner(), context())


@pytest.mark.parametrize("returned", [jnp.zeros(()), (jnp.zeros(2), {}), (jnp.zeros(()), None)])
def test_a_penalty_is_a_scalar_and_metrics(returned):
    mine = prx.Intervention("mine", penalty=lambda *_: returned)
    with pytest.raises(TypeError, match=r"mine.penalty must return \(scalar, metrics by name\)"):
        base.penalty_gradient((mine,), None, learner(), None, None, None)


@pytest.mark.parametrize(
    ("interventions", "error", "message"),
    [
        (("l2", "l2"), ValueError, r"interventions=\['l2', 'l2'\].*different names"),
        ((DOUBLE, prx.Intervention("double")), ValueError, "different names"),
        (("l2_innit",), ValueError, "unknown intervention 'l2_innit'. Did you mean 'l2_init'"),
        ("redo", ValueError, "interventions='redo'.*a sequence"),
        (DOUBLE, ValueError, "a sequence"),
        ((prx.Intervention,), TypeError, "names or prx.Intervention objects, got the class Intervention"),
        ((double,), TypeError, "got function"),
        ((prx.Intervention("gamma", {"gamma_": prx.hparam(1.0)}), "l2"), None, None),
        ((prx.Intervention("gae", {"gae_lambda": prx.hparam(1.0)}),), ValueError, "gae_lambda.*called otherwise"),
    ],
)
def test_what_is_asked_for_is_looked_at(interventions, error, message):
    if error is None:
        tiny("ppo", interventions=interventions)
        return
    with pytest.raises(error, match=message):
        tiny("ppo", interventions=interventions)


def test_names_of_settings_begin_with_the_interventions():
    with pytest.raises(ValueError, match=r"hparams='coef' .*begins with mine_"):
        prx.Intervention("mine", {"coef": prx.hparam(1.0)})
    with pytest.raises(ValueError, match="name='not mine'"):
        prx.Intervention("not mine")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"redo_tau": 0.1}, r"It is a setting of the intervention 'redo': interventions=\('redo',\)"),
        ({"interventions": ("l2",), "l2_coeff": 0.1}, "Did you mean 'l2_coef'"),
        ({"interventions": ("l2",), "l2_coef": -0.1}, "l2_coef=-0.1 .*0 or greater"),
        ({"interventions": ("redo",), "redo_every": 1.5}, "redo_every=1.5 .*a whole number of at least 1"),
        ({"interventions": ("weight_clipping",), "weight_clipping_kappa": 0.0}, "greater than 0"),
        ({"interventions": (COUNT,), "count_coef": "2"}, "count_coef='2'.*a number"),
    ],
)
def test_their_settings_are_checked_like_all_others(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny("ppo", **settings)


def test_their_defaults_can_be_seen():
    assert tiny("dqn", interventions=("redo", COUNT), redo_tau=0.1).hparams.redo_tau == 0.1
    assert tiny("dqn", interventions=("redo", COUNT)).hparams.count_coef == 2.0


def test_one_of_ones_own_comes_back_by_import_path():
    """In another process, where it stands at the top of a module; what ships, by its name."""
    algorithm = tiny("ppo", interventions=("l2", COUNT))
    stored = checkpoints.plain(algorithm.settings["interventions"])
    assert (stored[0], stored[1]["import"]) == ("l2", "test_base:COUNT")
    assert checkpoints.restored(stored) == ("l2", COUNT)
    assert pickle.loads(pickle.dumps(COUNT)) is COUNT
    assert type(pickle.loads(pickle.dumps(algorithm.hparams))) is type(algorithm.hparams)


def test_one_that_stands_nowhere_cannot():
    hidden = prx.Intervention("hidden", each=double)
    assert checkpoints.plain(hidden)["fields"]["name"] == "hidden"
    with pytest.raises(ValueError, match=r"intervention='hidden'.*at the top of a module"):
        pickle.dumps(hidden)


def test_a_name_registered_elsewhere_is_stored_as_what_it_stands_for(monkeypatch):
    """A name alone would not be known where its module has not been imported."""
    monkeypatch.setitem(prx.INTERVENTIONS, "count", COUNT)
    assert tiny("ppo", interventions=("count",)).settings["interventions"] == (COUNT,)


@pytest.mark.parametrize("kind", ["ppo", "dqn"])
def test_how_often_hooks_are_called(kind):
    """``each`` after every gradient step, ``before`` once per update; the loops' own counts."""
    algorithm = tiny(kind, interventions=(COUNT,), metrics_every=0)
    state, _ = prx.train(algorithm, KEY, 3 * algorithm.steps_per_update)
    assert state.memory["count"] == 3 * (4 + 1)
