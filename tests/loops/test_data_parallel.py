"""One run on two devices: the same as on one, where its data do not depend on who draws them."""

import importlib

import jax
import numpy as np
import pytest
from toys import Clock, Echo, equal_trees, equations, tiny

import purejaxrl_ext as prx

wave_module = importlib.import_module("purejaxrl_ext.sweeps.wave")
UPDATES, NUM_ENVS, NUM_STEPS = 6, 8, 3
COLLECTIVES = {"psum", "all_gather", "axis_index", "shard_map"}

pytestmark = pytest.mark.skipif(jax.local_device_count() < 2, reason="one device")


def greedy(data_parallel, **settings):
    """Without exploration, and without resets where the environment never ends, all data follow from the first states.
    With Adam's ε this large its step is nearly linear in the gradient, so that rounding stays rounding."""
    fixed = {"num_envs": NUM_ENVS, "num_steps": NUM_STEPS, "epsilon_start": 0.0, "epsilon_end": 0.0, "adam_eps": 1.0}
    fixed |= {"num_epochs": 2, "num_minibatches": 1, "learning_rate": 0.1, "metrics_every": 2, "max_grad_norm": 1e9}
    return tiny("q_learning", **{"env": Clock()} | fixed | settings, data_parallel=data_parallel)


def normalized(data_parallel):
    return greedy(data_parallel, normalize_observations=True, normalize_rewards=True)


@pytest.fixture(scope="module")
def trained():
    return {n: prx.train(normalized(n), jax.random.key(0), UPDATES * NUM_ENVS * NUM_STEPS) for n in (1, 2)}


def on_each_device(tree):
    """The leaves as each device holds them."""
    shards = [leaf.addressable_shards for leaf in jax.tree.leaves(tree)]
    return [[np.asarray(shard[i].data) for shard in shards] for i in range(2)]


def test_two_devices_learn_what_one_does(trained):
    """Gradients, statistics of observations and rewards, metrics and ranks are those of all the data."""
    (one, logged_one), (two, logged_two) = trained[1], trained[2]
    assert logged_one.keys() == logged_two.keys()
    for name, x in logged_one.items():
        np.testing.assert_allclose(logged_two[name], x, rtol=1e-5, atol=1e-6, err_msg=name)
    assert np.isfinite(logged_one["critic_rank"][0])
    moved = prx.train(normalized(1), jax.random.key(0), NUM_ENVS * NUM_STEPS)[0].params
    largest = 0.0
    for now, x, y in zip(*map(jax.tree.leaves, (moved, one.params, two.params)), strict=True):
        largest = max(largest, float(np.abs(now - x).max()))
        np.testing.assert_allclose(y, x, rtol=1e-6, atol=1e-6)
    assert largest > 1e-2
    for x, y in zip(jax.tree.leaves(one.normalizer), jax.tree.leaves(two.normalizer), strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-6)
    equal_trees(one.env, two.env)


def test_episodes_of_all_devices_count_once():
    """Origins above ½ end after 3 steps with return 6, others after 6 with 21; unevenly spread over the devices."""
    algorithm = greedy(2, env=Clock(time_limit=6, terminate_at=3), metrics_every=0)
    step = jax.jit(algorithm.step)
    state, logged = step(algorithm.init(jax.random.key(3)))
    np.testing.assert_allclose(logged["episode_return"], 6.0)
    origin, time = np.asarray(state.env.env_state).T
    short, long = (time == 0) & (origin > 0.5), time == 3
    per_device = [(short[i : i + 4].sum(), long[i : i + 4].sum()) for i in (0, 4)]
    assert per_device[0] != per_device[1]
    assert (time == 0)[:4].any()
    assert (time == 0)[4:].any()
    assert len(set(origin.tolist())) == NUM_ENVS, "devices drew the same resets"
    _, logged = step(state)
    count = short.sum() + long.sum()
    np.testing.assert_allclose(logged["num_episodes"], count)
    np.testing.assert_allclose(logged["episode_return"], (6 * short.sum() + 21 * long.sum()) / count, rtol=1e-6)
    np.testing.assert_allclose(logged["episode_length"], (3 * short.sum() + 6 * long.sum()) / count, rtol=1e-6)


@pytest.mark.optimized
def test_devices_act_differently_and_learn_the_same():
    """Minibatches, epochs and two optimisers: the same weights, bit for bit; each environment with noise of its own."""
    algorithm = tiny("ppo", Echo(), num_envs=4, data_parallel=2, separate_optimizers=True, metrics_every=0)
    step = jax.jit(algorithm.step)
    first = algorithm.init(jax.random.key(0))
    state = first
    for _ in range(3):
        state, _ = step(state)
    for held in ((state.params, state.opt_state), state.update):
        equal_trees(*on_each_device(held))
    assert not np.array_equal(*(jax.tree.leaves(s.params)[-1] for s in (first, state)))
    assert len(set(np.asarray(state.env.obs).ravel().tolist())) == 4
    assert jax.tree.map(np.shape, state) == jax.tree.map(np.shape, first)


@pytest.mark.optimized
def test_a_sweep_that_was_stopped_goes_on_bit_for_bit(trained, tmp_path, monkeypatch):
    """Also in chunks of another length. Its seeds, which the devices do not divide, are those of ``train``."""
    settings = {"num_seeds": 3, "total_steps": UPDATES * NUM_ENVS * NUM_STEPS, "progress": False}
    whole = prx.sweep(normalized(2), keep_states=True, eval_every=UPDATES, eval_episodes=2, **settings)
    for name, x in trained[2][1].items():
        np.testing.assert_allclose(whole[name][0, 0], x, rtol=1e-5, atol=1e-5, err_msg=name)

    took = []
    take = wave_module.WaveRun._take

    def stop(self, *args):
        if len(took) == 3:
            raise InterruptedError
        took.append(take(self, *args))
        return took[-1]

    monkeypatch.setattr(wave_module, "CHUNK_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(wave_module.WaveRun, "_take", stop)
        with pytest.raises(InterruptedError):
            prx.sweep(
                normalized(2),
                out=tmp_path / "x",
                eval_every=UPDATES,
                eval_episodes=2,
                checkpoint_seconds=1e-9,
                **settings,
            )
    resumed = prx.resume(tmp_path / "x", arms=normalized(2), progress=False)
    assert len(took) == 3
    for name in whole.data_vars:
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)
    for seed in range(3):
        equal_trees(prx.load_state(tmp_path / "x", seed=seed), prx.load_state(whole, seed=seed))


@pytest.mark.learning
def test_two_devices_learn_cartpole():
    """As one does in ``test_learning``: 100,000 steps, four seeds, mean greedy return; untrained it is 9."""
    settings = {"num_envs": 8, "num_steps": 32, "hidden_sizes": (32,), "learning_rate": 2.5e-3, "anneal_steps": 100_000}
    algorithm = prx.make("ppo", "CartPole-v1", **settings, metrics_every=0, data_parallel=2)
    ds = prx.sweep(algorithm, num_seeds=4, total_steps=100_000, progress=False, keep_states=True)
    states = [prx.load_state(ds, seed=seed) for seed in range(4)]
    returns = np.array([prx.evaluate(algorithm, s, jax.random.key(1_000), 16).mean() for s in states])
    assert returns.mean() >= 400, returns


@pytest.mark.parametrize("data_parallel", [1, 2])
def test_one_device_asks_no_other(data_parallel):
    algorithm = greedy(data_parallel)
    state = jax.eval_shape(algorithm.init, jax.eval_shape(jax.random.key, 0))
    used = {equation.primitive.name for equation in equations(jax.make_jaxpr(algorithm.step)(state).jaxpr)}
    assert used & COLLECTIVES == (COLLECTIVES if data_parallel == 2 else set())


@pytest.mark.parametrize(
    ("algorithm", "settings", "said"),
    [
        ("ppo", {"data_parallel": 0}, ["data_parallel=0", "at least 1"]),
        ("ppo", {"data_parallel": 2, "num_envs": 3}, ["data_parallel=2", "divisor of num_envs=3"]),
        ("reinforce", {"data_parallel": 2, "num_envs": 3}, ["data_parallel=2", "divisor of num_envs=3"]),
        (
            "ppo",
            {"data_parallel": 2, "num_envs": 2, "num_steps": 3, "num_minibatches": 2},
            ["num_minibatches=2", "num_envs * num_steps / data_parallel = 3"],
        ),
        (
            "ppo",
            {"data_parallel": 2, "num_envs": 4, "num_minibatches": 4, "memory": "gru"},
            ["num_minibatches=4", "num_envs / data_parallel = 2"],
        ),
        ("dqn", {"data_parallel": 2}, ["unknown setting 'data_parallel'"]),
    ],
)
def test_bad_input(algorithm, settings, said):
    with pytest.raises(ValueError, match="data_parallel") as error:
        prx.make(algorithm, "CartPole-v1", **settings)
    assert all(part in str(error.value) for part in said), error.value


def test_more_devices_than_there_are(tmp_path):
    """Training is refused, before anything is written; what was trained elsewhere can be looked at here."""
    algorithm = tiny("ppo", num_envs=64, data_parallel=64)
    with pytest.raises(ValueError, match=r"data_parallel=64.*number of this process's devices"):
        prx.sweep(algorithm, total_steps=64, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()
    state = algorithm.init(jax.random.key(0))
    assert np.isfinite(prx.evaluate(algorithm, state, jax.random.key(1), num_episodes=2)).all()
