"""Recipes as values, and that nothing of one's own silently falls back to the original."""

import dataclasses
import pickle

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Clock, equal_trees, tiny

import purejaxrl_ext as prx
from purejaxrl_ext.rules import ppo

KEY = jax.random.key(0)


class Plain(nn.Module):
    """A network whose layers have names of its own."""

    @nn.compact
    def __call__(self, obs):
        hidden = nn.tanh(nn.Dense(4)(obs))
        return prx.Output(policy=prx.Categorical(nn.Dense(2)(hidden)), value=nn.Dense(1)(hidden)[..., 0])


def doubled(config, action_space):
    """PPO with twice its loss."""
    rule = ppo.rule(config, action_space)

    def loss(output, batch, hparams):
        value, logged = rule.loss(output, batch, hparams)
        return 2.0 * value, logged

    return rule._replace(loss=loss)


def test_a_recipe_with_another_rule():
    mine = prx.ALGORITHMS["ppo"].but(name="doubled", rule=doubled)
    settings = {"num_envs": 2, "num_steps": 8, "hidden_sizes": (8,), "metrics_every": 0}
    ours, theirs = prx.make(mine, "CartPole-v1", **settings), prx.make("ppo", "CartPole-v1", **settings)
    assert ours.name == "doubled"
    losses = [float(a.step(a.init(KEY))[1]["grad_norm"]) for a in (ours, theirs)]
    assert losses[0] == pytest.approx(2 * losses[1], rel=0.2)
    assert prx.make(mine, "CartPole-v1", **settings).loop is ours.loop
    with pytest.raises(ValueError, match=r"part of a recipe 'rules'.*'rule'"):
        mine.but(rules=doubled)


def test_what_is_registered_now_is_what_is_made(monkeypatch):
    """A notebook's cell that is run again, with another rule under the same name."""
    before = tiny("ppo", metrics_every=0)
    monkeypatch.setitem(prx.ALGORITHMS, "ppo", prx.ALGORITHMS["ppo"].but(rule=doubled))
    after = tiny("ppo", metrics_every=0)
    assert after.loop is not before.loop
    # Its settings name the recipe itself: the name alone would bring back the package's own.
    assert after.settings["algorithm"] == prx.ALGORITHMS["ppo"]
    assert before.settings["algorithm"] == "ppo"
    monkeypatch.undo()
    assert prx.make(**after.settings).loop is after.loop


def test_parts_of_an_algorithm_that_would_be_ignored():
    """``train`` and ``sweep`` read the loop: a step put beside it would not be called."""
    with pytest.raises(TypeError, match="step"):
        dataclasses.replace(tiny(), step=lambda state: state)


def test_measure_is_an_argument_of_step():
    algorithm = tiny("ppo")
    state, logged = algorithm.step(algorithm.init(KEY), measure=jnp.asarray(False))
    assert np.isnan(logged["actor_rank"])
    _, logged = algorithm.step(state, measure=jnp.asarray(True))
    assert logged["actor_rank"] >= 1


def test_pickled_algorithms_are_rebuilt():
    algorithm = tiny("pfo", feature_coef=3.0)
    again = pickle.loads(pickle.dumps(algorithm))
    assert again.loop is algorithm.loop
    assert again.hparams == algorithm.hparams


def test_reprs_are_short():
    assert len(repr(tiny())) < 100
    assert "<table>" in tiny()._repr_html_()


def test_a_state_is_a_tree_to_unfold_in_a_notebook():
    state = prx.State({"kernel": jnp.arange(12.0).reshape(3, 4)}, (), (), KEY, jnp.int32(7))
    with jax.transfer_guard("disallow"):
        shown = state._repr_html_()
    assert "treescope" in shown and len(shown) < 50_000


@pytest.mark.parametrize("name", ["hidden_sizes", "layer_norm", "activation", "memory", "shared_torso", "policy"])
def test_settings_of_the_default_network_beside_ones_own(name):
    value = prx.ALGORITHMS["ppo"].config().__getattribute__(name)
    with pytest.raises(ValueError, match=f"{name}=.*network="):
        prx.make("ppo", "CartPole-v1", network=Plain(), **{name: value})
    algorithm = prx.make("ppo", "CartPole-v1", network=Plain())
    assert name not in algorithm.settings
    assert prx.make(**algorithm.settings).loop is algorithm.loop


def test_separate_optimisers_need_names_to_separate_by():
    algorithm = prx.make("ppo", "CartPole-v1", network=Plain(), separate_optimizers=True)
    with pytest.raises(ValueError, match=r"separate_optimizers=True.*actor_.*Dense_0"):
        algorithm.init(KEY)


def test_a_setting_of_another_algorithm():
    with pytest.raises(ValueError, match=r"replay_capacity.*setting of dqn"):
        prx.make("ppo", "CartPole-v1", replay_capacity=100)
    with pytest.raises(ValueError, match="'lr' is called 'learning_rate'"):
        prx.make("ppo", "CartPole-v1", lr=1e-3)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("learning_rate", "1e-3", "learning_rate='1e-3'.*a number"),
        ("learning_rate", True, "a number"),
        ("gamma", 1.5, r"in \[0, 1\]"),
        ("adam_b1", 1.0, r"in \[0, 1\)"),
        ("clip_eps", 0.0, "greater than 0"),
        ("entropy_coef", -1.0, "0 or greater"),
        ("learning_rate", float("nan"), "a number"),
    ],
)
def test_ranges_of_traced_settings(name, value, words):
    with pytest.raises(ValueError, match=words):
        prx.make("ppo", "CartPole-v1", **{name: value})


def test_ranges_of_ones_own_settings_are_ones_own():
    class Mine(ppo.PPOHparams):
        shift: float = 0.0
        temperature: float = prx.hparam(1.0, 0.5, 2.0)

    mine = prx.ALGORITHMS["ppo"].but(hparams=Mine)
    assert prx.make(mine, "CartPole-v1", shift=-3.0).hparams.shift == -3.0
    with pytest.raises(ValueError, match=r"temperature=3.0.*in \[0.5, 2\]"):
        prx.make(mine, "CartPole-v1", temperature=3.0)


def test_numbers_of_numpy_are_numbers():
    algorithm = prx.make("ppo", "CartPole-v1", num_envs=np.int64(8), learning_rate=np.float32(1e-3))
    assert type(algorithm.config.num_envs) is int


def test_evaluation_ends_at_the_time_limit():
    """Also where more steps are asked for: 5 of reward 1 … 5 each."""
    algorithm = tiny("ppo", Clock(time_limit=5))
    state = algorithm.init(KEY)
    for max_steps, steps in ((None, 5), (50, 5), (3, 3)):
        got = prx.evaluate(algorithm, state, KEY, 2, max_steps=max_steps)
        np.testing.assert_allclose(got, sum(range(1, steps + 1)))


def test_metrics_of_ones_own():
    def distance(net, before, after, samples, hparams):
        del net, samples, hparams
        moved = jax.tree.map(lambda a, b: jnp.square(a - b).sum(), before, after)
        return {"moved": jnp.sqrt(sum(jax.tree.leaves(moved)))}

    algorithm = tiny("dqn", metrics=(distance,), metrics_every=2)
    state = algorithm.init(KEY)
    moved = []
    for _ in range(2):
        state, logged = algorithm.step(state)
        moved.append(float(logged["moved"]))
    assert moved[0] > 0
    assert np.isnan(moved[1])
    equal_trees(prx.make(**algorithm.settings).init(KEY).params, algorithm.init(KEY).params)
