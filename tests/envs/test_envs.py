"""Environments: adapters, wrappers, and vectorised stepping with its resets, truncations and episode sums."""

import warnings
from dataclasses import dataclass

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Clock

import purejaxrl_ext as prx
from purejaxrl_ext import envs

KEY = jax.random.key(0)


def run(env, num_envs, num_steps, pool_size, key=KEY, action=None):
    """Step N copies for T steps with a fixed action; the states before each step, and the transitions, ``[T, N]``."""
    reset_key, pool_key, step_key = jax.random.split(key, 3)
    space = env.action_space
    if action is None:
        action = jnp.zeros((num_envs, *space.shape), jnp.int32 if isinstance(space, prx.Discrete) else jnp.float32)

    @jax.jit
    def go():
        pool = envs.reset_pool(env, pool_key, pool_size)

        def step(carry, keys):
            state, resets = carry
            after, transition, resets = envs.vec_step(env, keys, state, action, pool, resets)
            return (after, resets), (state, transition)

        start = (envs.vec_reset(env, reset_key, num_envs), jnp.zeros((), jnp.int32))
        end, rows = jax.lax.scan(step, start, jax.random.split(step_key, (num_steps, num_envs)))
        return pool, *rows, end

    return go()


# --- vectorised stepping ---------------------------------------------------------------------------------------------


def test_simultaneous_resets_take_distinct_entries_of_the_pool_and_wrap():
    """Three environments with one time limit reset together; a pool of five is exhausted at the second time."""
    pool, states, transition, (_, resets) = run(Clock(time_limit=3), 3, 8, 5)
    assert np.asarray(transition.truncated).nonzero()[0].tolist() == [2] * 3 + [5] * 3
    assert resets == 6
    fresh = np.asarray(pool.obs)
    assert len(np.unique(fresh[:, 0])) == 5
    np.testing.assert_array_equal(states.obs[3], fresh[[0, 1, 2]])
    np.testing.assert_array_equal(states.obs[6], fresh[[3, 4, 0]])
    np.testing.assert_array_equal(states.env_state[6], fresh[[3, 4, 0]])


def test_the_final_observation_is_that_of_the_episode_that_ended():
    _, states, transition, _ = run(Clock(time_limit=3), 2, 7, 4)
    expected = np.asarray(states.obs) + np.array([0.0, 1.0])
    np.testing.assert_allclose(transition.final_obs, expected)
    assert not np.allclose(states.obs[3], transition.final_obs[2])


def test_episode_sums_are_of_whole_episodes():
    """Rewards are 1, 2, 3: return 6 and length 3 where an episode ends, 0 elsewhere, and the sums start again."""
    _, states, transition, (end, _) = run(Clock(time_limit=3), 2, 8, 4)
    done = np.arange(8) % 3 == 2
    np.testing.assert_allclose(transition.finished_return[:, 0], np.where(done, 6.0, 0.0))
    np.testing.assert_array_equal(transition.finished_length[:, 0], np.where(done, 3, 0))
    np.testing.assert_allclose(states.episode_return[:, 0], [0, 1, 3, 0, 1, 3, 0, 1])
    np.testing.assert_array_equal(end.episode_length, [2, 2])


def test_termination_at_the_time_limit_is_termination():
    """Both flags at one step: it terminated, and an episode is counted once."""
    _, states, transition, _ = run(Clock(time_limit=4, terminate_at=4), 8, 9, 8)
    origin, at_limit = np.asarray(states.obs[..., 0]), np.asarray(states.episode_length) == 3
    assert (at_limit & (origin > 0.5)).any()
    assert (at_limit & (origin <= 0.5)).any()
    np.testing.assert_array_equal(transition.terminated, at_limit & (origin > 0.5))
    np.testing.assert_array_equal(transition.truncated, at_limit & (origin <= 0.5))


def test_truncation_by_the_environment_itself():
    _, states, transition, _ = run(Clock(truncate_every=2), 8, 9, 16)
    length, origin = np.asarray(states.episode_length) + 1, np.asarray(states.obs[..., 0])
    np.testing.assert_array_equal(transition.truncated, length >= 2 + np.floor(3 * origin))
    assert transition.truncated.any()


@pytest.mark.parametrize(
    ("env", "num_steps", "expected"),
    [
        (Clock(time_limit=3), 8, 3),
        (Clock(time_limit=4), 8, 2),
        (Clock(time_limit=100), 8, 1),
        (Clock(), 8, 0),
        (Clock(truncate_every=2), 8, 8),
    ],
)
def test_at_most_so_many_truncations(env, num_steps, expected):
    assert envs.max_truncations(env, num_steps) == expected


# --- gymnax ----------------------------------------------------------------------------------------------------------

OFFLINE = [name for name in gymnax.registered_envs if not name.startswith("MNISTBandit")]
SHAPES = {
    "CartPole-v1": (4,),
    "FrozenLake-misc": (16,),
    "Catch-bsuite": (10, 5),
    "DeepSea-bsuite": (8, 8),
    "Breakout-MinAtar": (10, 10, 4),
}


@pytest.mark.parametrize("name", OFFLINE)
def test_every_gymnax_environment_by_name(name):
    """The kinds that the loops rely on; nothing is compiled."""
    env = prx.make_env(name)
    state, obs = jax.eval_shape(env.reset, KEY)
    space = env.action_space
    action = jax.ShapeDtypeStruct(space.shape, jnp.int32 if isinstance(space, prx.Discrete) else jnp.float32)
    step = jax.eval_shape(env.step, KEY, state, action)
    assert obs.shape == env.observation_shape == step.obs.shape
    assert obs.dtype == step.obs.dtype == (jnp.bool_ if name.endswith("MinAtar") else jnp.float32)
    assert (step.reward.shape, step.reward.dtype) == ((), jnp.float32)
    assert (step.terminated.shape, step.terminated.dtype) == ((), jnp.bool_)
    assert env.time_limit > 0
    assert space.n > 0
    if name in SHAPES:
        assert env.observation_shape == SHAPES[name]
    hash(env)


@pytest.mark.parametrize(
    "name", ["FrozenLake-misc", "UmbrellaChain-bsuite", "Catch-bsuite", "Swimmer-misc", "BernoulliBandit-misc"]
)
def test_odd_environments_step(name):
    env = prx.make_env(name)
    _, states, transition, _ = run(env, 2, 3, 2)
    assert np.isfinite(np.asarray(states.obs, np.float32)).all()
    assert transition.reward.dtype == jnp.float32
    assert np.isfinite(transition.reward).all()
    if name == "FrozenLake-misc":
        np.testing.assert_array_equal(states.obs.sum(-1), np.ones((3, 2)))


def test_minatar_planes_are_bool_and_gymnaxs():
    env = prx.make_env("Breakout-MinAtar")
    _, obs = jax.jit(env.reset)(KEY)
    theirs, params = gymnax.make("Breakout-MinAtar")
    expected, _ = theirs.reset_env(KEY, params)
    np.testing.assert_array_equal(obs, np.asarray(expected) > 0)
    assert obs.any()


def test_a_time_limit_truncates_and_does_not_terminate():
    """gymnax's own ``done`` mixes the two; MinAtar's and CartPole's limits must not read as ends."""
    env = prx.make_env("Pendulum-v1", {"max_steps_in_episode": 5})
    assert env.time_limit == 5
    _, _, transition, _ = run(env, 2, 11, 4)
    assert not transition.terminated.any()
    np.testing.assert_array_equal(transition.truncated[:, 0], np.arange(11) % 5 == 4)


def test_cartpole_falls_and_never_gets_past_its_limit():
    """Pushing one way only ends in a fall after eight to eleven steps, unless the limit comes first."""
    env = prx.make_env("CartPole-v1", {"max_steps_in_episode": 9})
    _, _, transition, _ = run(env, 16, 20, 32)
    lengths = np.asarray(transition.finished_length)
    assert transition.terminated.any()
    assert transition.truncated.any()
    assert (lengths[np.asarray(transition.truncated)] == 9).all()
    fell = np.abs(np.asarray(transition.final_obs)[..., 2]) > 12 * 2 * np.pi / 360
    np.testing.assert_array_equal(fell, transition.terminated)
    np.testing.assert_array_equal(transition.finished_return, lengths)


def test_action_sets_of_minatar():
    assert prx.make_env("Breakout-MinAtar").action_space.n == 3
    assert prx.make_env("Breakout-MinAtar", full_action_set=True).action_space.n == 6


def test_box_actions_have_their_bounds():
    assert prx.make_env("Pendulum-v1").action_space == prx.Box((-2.0,), (2.0,))


# --- Brax ------------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_brax_truncates_terminates_and_resets_truly():
    """The raw environment: its limit truncates, a fall terminates, and each reset is a fresh state."""
    pytest.importorskip("brax")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        env = prx.make_env("brax:inverted_pendulum", {"episode_length": 25, "backend": "generalized"})
    # Brax is in maintenance and names what goes on: its users hear that (pitfalls 27).
    assert any("mujoco_playground" in str(warning.message) for warning in told)
    assert (env.name, env.time_limit, env.observation_shape) == ("brax:inverted_pendulum", 25, (4,))
    assert env.action_space == prx.Box((-1.0,), (1.0,))
    # The first environment is pushed until it falls; the others are left alone, and stand or fall by themselves.
    action = jnp.zeros((3, 1)).at[0].set(1.0)
    pool, states, transition, _ = run(env, 3, 60, 64, action=action)
    final = np.asarray(transition.final_obs)
    terminated, truncated = np.asarray(transition.terminated), np.asarray(transition.truncated)
    assert terminated[:, 0].any()
    assert not (terminated & truncated).any()
    np.testing.assert_array_equal(terminated, np.abs(final[..., 1]) > 0.2)
    assert truncated.any()
    assert (np.asarray(transition.finished_length)[truncated] == 25).all()
    after = np.asarray(states.obs)[1:][(terminated | truncated)[:-1]]
    assert len(after) > 2
    assert len(np.unique(after[:, 0])) == len(after), "resets that are all the same state"
    fresh = np.asarray(pool.obs)
    assert all(np.isclose(fresh, row).all(-1).any() for row in after)
    ended = (terminated | truncated)[:-1]
    assert not np.isclose(final[:-1][ended], after).all(-1).any(), "the final observation is hidden by the reset one"


# --- wrappers --------------------------------------------------------------------------------------------------------


FIVE = prx.Discrete(5)


@dataclass(frozen=True)
class Show:
    """Observation and reward show the last action."""

    name: str = "show"
    observation_shape: tuple[int, ...] = (1,)
    action_space: prx.Discrete = FIVE
    time_limit: int | None = 4

    def reset(self, key):
        return jnp.zeros(()), jnp.zeros(1)

    def step(self, key, env_state, action):
        shown = action.astype(jnp.float32)
        return prx.EnvStep(env_state, shown[None], shown - 2.0, jnp.zeros((), bool))


def one_episode(env, actions, key):
    """Observations and steps of N environments over the same actions ``[T]``."""

    @jax.jit
    def go(key):
        state, first = env.reset(key)

        def step(state, now):
            action, step_key = now
            after = env.step(step_key, state, action)
            return after.state, after

        return first, jax.lax.scan(step, state, (actions, jax.random.split(key, len(actions))))[1]

    return jax.vmap(go)(jax.random.split(key, 2000))


def test_sticky_actions():
    """What was done is the action given, or what was done before it (at the start 0), each at its rate."""
    actions = jnp.array([1, 2, 3, 4])
    _, steps = one_episode(prx.make_env(Show(), sticky_actions=0.25), actions, KEY)
    done = np.concatenate([np.zeros((2000, 1)), np.asarray(steps.obs)[..., 0]], axis=1)
    given = np.asarray(actions)[None]
    stuck = done[:, 1:] != given
    np.testing.assert_array_equal(done[:, 1:], np.where(stuck, done[:, :-1], given))
    np.testing.assert_allclose(stuck.mean(0), 0.25, atol=0.04)
    _, never = one_episode(prx.make_env(Show(), sticky_actions=0.0), actions, KEY)
    assert (np.asarray(never.obs)[..., 0] == given).all()


def test_masked_rewards_keep_the_true_score():
    _, steps = one_episode(prx.make_env(Show(), mask_rewards=0.7), jnp.array([4, 4, 3, 0]), KEY)
    true = np.broadcast_to([2.0, 2.0, 1.0, -2.0], (2000, 4))
    np.testing.assert_array_equal(steps.score, true)
    masked = np.asarray(steps.reward) == 0
    np.testing.assert_array_equal(np.asarray(steps.reward), np.where(masked, 0.0, true))
    np.testing.assert_allclose(masked.mean(0), 0.7, atol=0.04)


def test_signed_rewards_keep_the_true_score():
    env = prx.make_env(Show(), sign_rewards=True, mask_rewards=0.5)
    _, steps = one_episode(env, jnp.array([4, 2, 1, 0]), KEY)
    assert set(np.unique(steps.reward)) == {-1.0, 0.0, 1.0}
    np.testing.assert_array_equal(steps.score, np.broadcast_to([2.0, 0.0, -1.0, -2.0], (2000, 4)))


def test_the_episode_return_is_the_true_score():
    _, _, transition, _ = run(prx.make_env(Show(), mask_rewards=1.0), 2, 4, 2, action=jnp.array([4, 0]))
    assert (transition.reward == 0).all()
    np.testing.assert_allclose(transition.finished_return[-1], [8.0, -8.0])


def test_time_is_appended_scaled_to_minus_one_to_one():
    env = prx.make_env(Show(), append_time=True)
    assert env.observation_shape == (2,)
    first, steps = one_episode(env, jnp.array([4, 2, 1, 3]), KEY)
    np.testing.assert_allclose(first[0], [0.0, -1.0])
    np.testing.assert_allclose(steps.obs[0], [[4, -0.5], [2, 0.0], [1, 0.5], [3, 1.0]])


def test_some_entries_are_observed():
    """In the order asked for; velocity-masked CartPole's are position and angle."""
    env = prx.make_env("CartPole-v1", observe=[2, 0])
    assert env.observation_shape == (2,)
    _, states, transition, _ = run(env, 2, 12, 4)
    inner = states.env_state
    np.testing.assert_array_equal(states.obs, jnp.stack([inner.theta, inner.x], axis=-1))
    assert transition.terminated.any()


def test_frames_are_stacked_oldest_first_from_copies_of_the_first():
    """And start again with the episode: (origin, t) of three steps, cut at four."""
    env = prx.make_env(Clock(time_limit=4), frame_stack=3)
    assert env.observation_shape == (6,)
    _, states, transition, _ = run(env, 2, 9, 8)
    obs = np.asarray(states.obs)
    np.testing.assert_array_equal(obs[:5, 0, 1::2], [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [0, 0, 0]])
    np.testing.assert_array_equal(transition.final_obs[3, :, 1::2], [[2, 3, 4]] * 2)
    origin = obs[..., ::2]
    assert (origin == origin[..., :1]).all(), "an episode sees frames of the one before"
    assert (origin[4] != origin[3]).all()


def test_images_are_stacked_on_their_channels():
    env = prx.make_env("Breakout-MinAtar", frame_stack=2)
    assert env.observation_shape == (10, 10, 8)
    _, states, _, _ = run(env, 2, 3, 2)
    assert states.obs.dtype == jnp.bool_
    np.testing.assert_array_equal(states.obs[1][..., :4], states.obs[0][..., 4:])
    assert (states.obs[1][..., 4:] != states.obs[0][..., 4:]).any()


def test_wrappers_are_hashable_and_equal_by_settings():
    """Equal settings share one compiled program, which needs equal environments."""
    a, b = (prx.make_env("CartPole-v1", {"length": 0.7}, sticky_actions=0.1) for _ in range(2))
    assert a == b
    assert hash(a) == hash(b)
    assert a != prx.make_env("CartPole-v1", {"length": 0.7}, sticky_actions=0.2)
