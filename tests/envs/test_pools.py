"""Environments on the host: folding, order, resets that are no transitions, what a resumed run loses, errors."""

import functools
import sys
import warnings
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import tiny

import purejaxrl_ext as prx
from purejaxrl_ext.envs import ObservationOffsets, vec_reset
from purejaxrl_ext.envs.host import HostEnv
from purejaxrl_ext.envs.pools import FRESH, Pools
from purejaxrl_ext.loops.base import random_steps

KEY = jax.random.key(0)


class Lazy:
    """Shows (seed mod 100, episode, time). As EnvPool and ale-py do, it resets at the step after an episode's end and ignores that
    step's action, unless it is asked to begin again before."""

    log: ClassVar[list] = []

    def __init__(self, seeds, length):
        self.seeds, self.length = seeds % 100, length
        self.episode, self.time, self.ended = (np.zeros(len(seeds), int) for _ in range(3))

    def _obs(self):
        return np.stack([self.seeds, self.episode, self.time], axis=-1).astype(np.float32)

    def first(self):
        return self._obs()

    def send(self, action):
        Lazy.log.append(len(action))
        self.reward = np.where(self.ended, -1000.0, action)
        self.time = np.where(self.ended, 0, self.time + 1)
        self.episode = self.episode + self.ended
        self.ended = self.time >= self.length

    def receive(self):
        return self._obs(), self.reward, self.ended.astype(bool), np.zeros(len(self.seeds), bool)

    def again(self, over):
        self.episode, self.time = self.episode + over, np.where(over, 0, self.time)
        self.ended = np.where(over, False, self.ended)
        return self._obs()


@functools.cache
def pools(length, limit, most):
    return Pools(lambda seeds: Lazy(seeds, length), limit, most)


@dataclass(frozen=True)
class Counting(HostEnv):
    length: int = 3
    time_limit: int | None = None
    most: int = 64
    name = "counting"
    action_space = prx.Discrete(3)

    @property
    def pools(self):
        return pools(self.length, self.time_limit, self.most)


def run(env, state, num_steps):
    """Action 1 in N environments, T times, going on as the loops do: the final state and the steps ``[T, N]``."""

    def step(state, _):
        count = len(state[0].seed)
        after = jax.vmap(env.step)(jax.random.split(KEY, count), state, jnp.ones(count, jnp.int32))
        return after.state, after

    return jax.jit(lambda s: jax.lax.scan(step, s, None, num_steps))(state)


def test_a_reset_is_no_transition():
    """Of 7 steps with episodes of 3 each gives its action as reward; none is the ignored one's −1000. The final observation is the
    episode's own, the next step begins from the first of the next."""
    env = Counting()
    state, obs = jax.vmap(env.reset)(jax.random.split(KEY, 4))
    assert obs.shape == (4, 3) and len(np.unique(obs[:, 0])) == 4
    state, steps = run(env, state, 7)
    np.testing.assert_array_equal(steps.reward, 1)
    np.testing.assert_array_equal(steps.obs[:, 0, 2], [1, 2, 3, 1, 2, 3, 1])
    np.testing.assert_array_equal(steps.obs[:, 0, 1], [0, 0, 0, 1, 1, 1, 2])
    np.testing.assert_array_equal(steps.state[1][:, 0, 2], [1, 2, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(steps.terminated[:, 1], [False, False, True] * 2 + [False])


def test_statistics_of_the_loop():
    """Every episode of the loop has its 3 steps and 3 actions; each observation follows from the one before."""
    env = Counting()
    after, obs, action, transition = random_steps(env, vec_reset(env, KEY, 4), KEY, 12, 1)
    ended = transition.terminated
    assert ended.sum() == 16 and (transition.finished_length[ended] == 3).all()
    np.testing.assert_array_equal(transition.reward, action)
    np.testing.assert_array_equal(transition.final_obs[..., 2], obs[..., 2] + 1)
    np.testing.assert_array_equal(obs[1:, :, 2], np.where(ended[:-1], 0, transition.final_obs[:-1, :, 2]))
    assert after.episode_length.tolist() == [0] * 4


def test_the_time_limit_truncates():
    """The loop and the pool agree: the pool goes on to the next episode where the loop truncates."""
    env = prx.make_env(Counting(length=5, time_limit=2))
    made = tiny("ppo", env)
    _, metrics = prx.train(made, KEY, 2 * made.steps_per_update)
    assert metrics["num_episodes"].tolist() == [8, 8] and metrics["episode_length"].tolist() == [2, 2]


def test_seeds_are_folded_into_one_call():
    """vmap over runs over vmap over environments is one callback, a pool for each run: as each is alone."""
    env = Counting()
    keys = jax.random.split(KEY, (2, 3))
    states, obs = jax.vmap(jax.vmap(env.reset))(keys)
    Lazy.log.clear()
    step = jax.jit(jax.vmap(jax.vmap(env.step)))(keys, states, jnp.arange(6).reshape(2, 3) % 3)
    np.testing.assert_array_equal(step.reward, [[0, 1, 2], [0, 1, 2]])
    np.testing.assert_array_equal(step.obs[..., 0], obs[..., 0])
    assert Lazy.log == [3, 3]
    program = jax.make_jaxpr(jax.vmap(jax.vmap(env.step)))(keys, states, jnp.zeros((2, 3), jnp.int32))
    assert str(program).count("io_callback[") == 1


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_a_sweep_over_seeds_and_a_grid(algorithm):
    """Each run is what it is alone, on as many devices as there are; no episode is cut."""
    made = tiny(algorithm, Counting(), metrics_every=0)
    total = 3 * made.steps_per_update
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = prx.sweep(made, num_seeds=2, grid={"gamma": [0.5, 0.9]}, total_steps=total, progress=False)
    hparams = made.hparams.replace(gamma=0.9)
    _, alone = prx.train(made, jax.random.key(1), total, hparams)
    np.testing.assert_allclose(ds["loss"].sel(seed=1, gamma=0.9).squeeze(), alone["loss"], rtol=1e-4)


def test_runs_repeat():
    made = tiny("ppo", Counting())
    first, _ = prx.train(made, KEY, 2 * made.steps_per_update)
    again, _ = prx.train(made, KEY, 2 * made.steps_per_update)
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    np.testing.assert_array_equal(first.env.obs, again.env.obs)


def test_a_state_whose_pool_is_gone_is_cut():
    """Stepped twice from one state, or in a process that has not the pool: no reward, truncated at what was seen; then on."""
    env = Counting(most=65)
    state, _ = jax.vmap(env.reset)(jax.random.split(KEY, 2))
    assert (state[0].pool == FRESH).all()
    state, _ = run(env, state, 1)
    run(env, state, 1)
    with pytest.warns(UserWarning, match="are cut"):
        state, steps = jax.block_until_ready(run(env, state, 3))
    np.testing.assert_array_equal(steps.truncated[:, 0], [True, False, False])
    np.testing.assert_array_equal(steps.reward[:, 0], [0, 1, 1])
    np.testing.assert_array_equal(steps.obs[:, 0, 2], [1, 1, 2])
    assert steps.obs[0, 0, 0] != steps.obs[1, 0, 0]  # of another seed


def test_a_resumed_run_says_so_and_goes_on(tmp_path):
    """As on another machine: the pools of this process are forgotten."""
    made = tiny("ppo", "gymnasium:CartPole-v1")
    prx.sweep(made, num_seeds=1, total_steps=4 * made.steps_per_update, out=tmp_path / "x", progress=False)
    made.env.pools.going.clear()
    made.env.pools.warned = False
    with pytest.warns(UserWarning, match="are cut"):
        ds = prx.resume(tmp_path / "x", total_steps=6 * made.steps_per_update, progress=False)
    assert np.isfinite(ds["loss"]).all() and ds.sizes["update"] == 6


def test_data_parallel():
    """Each device has a pool of its share."""
    if jax.local_device_count() < 2:
        pytest.skip("one device")
    made = tiny("ppo", Counting(), data_parallel=2, num_envs=4)
    _, metrics = prx.train(made, KEY, 3 * made.steps_per_update)
    assert metrics["num_episodes"].sum() == 4 * 3 * made.config.num_steps // 3
    assert {len(g.time) for g in list(made.env.pools.going.values())[-2:]} == {2}


def test_an_evaluation():
    made = tiny("ppo", Counting())
    state = made.init(KEY)
    returns = prx.evaluate(made, state, KEY, 5)
    assert returns.shape == (5,) and (returns <= 6).all()


def test_wrappers_begin_with_the_next_episode():
    """Their own state, too: frames of the last episode are not seen in the next, and the last action is not repeated in it."""
    env = prx.make_env(Counting(), frame_stack=2, sticky_actions=1.0)
    _, obs, _, transition = random_steps(env, vec_reset(env, KEY, 2), KEY, 6, 1)
    begins = np.asarray(transition.terminated)[2, 0] and np.asarray(obs)[3, 0]
    np.testing.assert_array_equal(begins[[1, 2, 4, 5]], [1, 0, 1, 0])
    # Sticky with certainty: the previous action of an episode's start is 0, and so all.
    np.testing.assert_array_equal(transition.reward, 0)


def test_what_does_not_fit():
    too_many = tiny("ppo", Counting(), num_envs=16)
    with pytest.raises(ValueError, match=r"=(80|160) is not allowed.*at most 64.*wave_size"):
        prx.sweep(too_many, num_seeds=2, grid={"gamma": [0.1, 0.2, 0.3, 0.4, 0.5]}, total_steps=256, wave_size=10)
    with pytest.raises(ValueError, match="take no tasks"):
        prx.make("ppo", ObservationOffsets(prx.make_env(Counting()), 10, 2))


@pytest.mark.parametrize(("suite", "package"), [("ale", "ale_py"), ("envpool", "envpool")])
def test_a_missing_extra(suite, package, monkeypatch):
    """As on a machine without it, where a run is resumed: the line that installs it."""
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.roms", None)
    with pytest.raises(ImportError, match=rf"environments of {suite} need it: pip install"):
        prx.make("ppo", f"{suite}:Pong")
