"""Tasks one after another: what each changes, when the next begins, and that the first is the environment as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Clock

from purejaxrl_ext import envs
from purejaxrl_ext.envs import check_env, make_env, tasks

KEY = jax.random.key(0)
CLOCK = Clock(time_limit=3)


def lived(env, num_episodes, length=3, action=0):
    """First observations and tasks of episodes of one environment, as auto-reset makes them."""
    state, obs = env.reset(KEY)
    told = []
    for i in range(num_episodes):
        told.append((int(state.task), np.asarray(obs)))
        for _ in range(length):
            step = env.step(KEY, state, jnp.int32(action))
            state = step.state
        state, obs = env.resume(state, env.reset(jax.random.key(i))[0])
    return told


def test_a_task_lasts_so_many_steps_and_an_episode_ends_in_its_own():
    """4 steps are a task and 3 an episode: the episodes begin after 0, 3, 6, 9, 12, 15, 18 steps."""
    env = tasks.Tasks(CLOCK, task_steps=4, num_tasks=3)
    assert [task for task, _ in lived(env, 7)] == [0, 0, 1, 2, 0, 0, 1]


@pytest.mark.parametrize(
    "kind", [tasks.ObservationOffsets, tasks.ObservationPermutations, tasks.ActionPermutations, tasks.RewardScales]
)
def test_the_first_task_is_the_environment_as_it_is(kind):
    env = kind(CLOCK, task_steps=3, num_tasks=2)
    check_env(env)
    state, obs = env.reset(KEY)
    inner, expected = CLOCK.reset(KEY)
    np.testing.assert_array_equal(obs, expected)
    step, plain = env.step(KEY, state, jnp.int32(1)), CLOCK.step(KEY, inner, jnp.int32(1))
    np.testing.assert_array_equal(step.obs, plain.obs)
    assert step.reward == plain.reward


def test_offsets_and_permutations_are_a_tasks_own_and_the_same_for_all():
    env = tasks.ObservationOffsets(CLOCK, task_steps=3, num_tasks=3, scale=2.0)
    told = lived(env, 6)
    plain = [np.asarray(CLOCK.reset(KEY)[1]), *(np.asarray(CLOCK.reset(jax.random.key(i))[1]) for i in range(5))]
    offsets = [obs - expected for (_, obs), expected in zip(told, plain, strict=True)]
    np.testing.assert_array_equal(offsets[0], 0.0)
    assert not np.allclose(offsets[1], offsets[2])
    for i in range(3):
        np.testing.assert_allclose(offsets[i], offsets[i + 3], atol=1e-6)
    many = tasks.ObservationOffsets(CLOCK, num_tasks=2000)
    drawn = np.stack([many.see(jnp.zeros(2), jnp.int32(i)) for i in (1, 2, 3)])
    assert np.abs(drawn).max() < 10
    orders = tasks.ObservationPermutations(CLOCK, num_tasks=8, seed=1)
    seen = [tuple(orders.see(jnp.array([1.0, 2.0]), jnp.int32(i)).tolist()) for i in range(8)]
    assert set(seen) == {(1.0, 2.0), (2.0, 1.0)} and seen[0] == (1.0, 2.0)


def test_actions_and_rewards_are_remapped():
    actions = tasks.ActionPermutations(CLOCK, num_tasks=6)
    for task in range(6):
        assert sorted(int(actions.act(jnp.int32(a), jnp.int32(task))) for a in range(2)) == [0, 1]
    assert any(actions.act(jnp.int32(0), jnp.int32(task)) == 1 for task in range(6))
    rewards = tasks.RewardScales(CLOCK, factors=(1.0, -2.0))
    assert [float(rewards.pay(jnp.float32(3.0), jnp.int32(task))) for task in range(3)] == [3.0, -6.0, 3.0]


def test_games_follow_each_other_on_padded_planes():
    games = [make_env(f"{name}-MinAtar") for name in ("Breakout", "SpaceInvaders")]
    env = tasks.OneAfterAnother(games[0], task_steps=2, num_tasks=3, others=tuple(games[1:]))
    check_env(env)
    assert env.observation_shape == (10, 10, max(g.observation_shape[-1] for g in games))
    assert env.action_space.n == max(g.action_space.n for g in games)
    step = jax.jit(env.step)
    state, obs = env.reset(KEY)
    for task in (0, 1, 2):
        assert state.task == task
        game = games[task % 2]
        planes = game.observation_shape[-1]
        begun, expected = game.reset(KEY)
        np.testing.assert_array_equal(obs[..., :planes], expected)
        assert not np.asarray(obs[..., planes:]).any()
        told = step(KEY, state, jnp.int32(1))
        np.testing.assert_array_equal(told.obs[..., :planes], game.step(KEY, begun, jnp.int32(1)).obs)
        state = step(KEY, told.state, jnp.int32(1)).state
        state, obs = env.resume(state, env.reset(KEY)[0])


def test_what_cannot_follow_is_said():
    breakout = make_env("Breakout-MinAtar")
    with pytest.raises(ValueError, match=r"others='CartPole-v1'.*observations like \(10, 10, 4\)"):
        tasks.OneAfterAnother(breakout, others=(make_env("CartPole-v1"),))
    with pytest.raises(ValueError, match=r"env='Pendulum-v1'.*discrete actions"):
        tasks.ActionPermutations(make_env("Pendulum-v1"))
    with pytest.raises(ValueError, match=r"task_steps=0.*at least 1"):
        tasks.Tasks(CLOCK, task_steps=0)


def test_tasks_go_on_through_resets_of_a_loop():
    """Two environments of 3-step episodes, 4 steps a task: in a loop tasks follow one another as :func:`lived` has them."""
    env = make_env(tasks.Tasks(CLOCK, task_steps=4, num_tasks=3))
    state, pool = envs.vec_reset(env, KEY, 2), envs.reset_pool(env, KEY, 6)
    told, resets = [], jnp.zeros((), jnp.int32)
    for _ in range(21):
        told.append(np.asarray(state.env_state.task))
        keys = jax.random.split(KEY, 2)
        state, _, resets = envs.vec_step(env, keys, state, jnp.zeros(2, jnp.int32), pool, resets)
    np.testing.assert_array_equal(np.asarray(told)[::3], [[task] * 2 for task in (0, 0, 1, 2, 0, 0, 1)])


def test_tasks_are_the_outermost_wrapper():
    with pytest.raises(ValueError, match="the outermost wrapper"):
        make_env(tasks.Tasks(CLOCK, task_steps=4, num_tasks=3), append_time=True)
