"""Q-learning's functions on literal arrays: behaviour, targets and loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_ext as prx
from purejaxrl_ext.loops import f32
from purejaxrl_ext.rules import dqn, q_learning

Q_NEXT = jnp.array([[1.0, 4.0], [3.0, 2.0], [5.0, 6.0]])
ONLINE = jnp.array([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])


def rollout(terminated=(False, True, False), truncated=(False, False, True)):
    zeros = jnp.zeros(3)
    return prx.Rollout(
        obs=jnp.zeros((3, 1)),
        action=jnp.zeros(3, jnp.int32),
        reward=jnp.array([1.0, 2.0, 3.0]),
        terminated=jnp.array(terminated),
        truncated=jnp.array(truncated),
        output=prx.Output(),
        next_output=prx.Output(q_values=Q_NEXT),
        next_online=prx.Output(q_values=ONLINE),
        discount=zeros + 0.5,
    )


def test_targets_bootstrap_at_truncation_and_not_at_termination():
    batch = q_learning.targets(rollout(), q_learning.QHparams())
    np.testing.assert_allclose(batch.target, [1 + 0.5 * 4, 2.0, 3 + 0.5 * 6])


def test_double_values_the_online_networks_choice():
    batch = q_learning.targets(rollout(), q_learning.QHparams(), bootstrap=q_learning.double_bootstrap)
    np.testing.assert_allclose(batch.target, [1 + 0.5 * 1, 2.0, 3 + 0.5 * 5])


def stacked(**changes):
    """Three steps of two environments."""
    q_next = jnp.stack([Q_NEXT, Q_NEXT + 10.0], axis=1)
    flags = {"terminated": jnp.zeros((3, 2), bool), "truncated": jnp.zeros((3, 2), bool)} | changes
    return dataclasses.replace(
        rollout(),
        action=jnp.array([[0, 1], [1, 0], [0, 1]]),
        reward=jnp.ones((3, 2)),
        next_output=prx.Output(q_values=q_next),
        discount=jnp.full((3, 2), 0.5),
        env_steps=jnp.float32(50.0),
        **flags,
    )


def test_sarsa_aims_at_the_next_action_of_the_data():
    """Its value, where there is one: not at the end of the data, nor at a truncation; a termination needs none."""
    batch = q_learning.sarsa_targets(stacked(), q_learning.QHparams())
    np.testing.assert_allclose(batch.target[:2], [[1 + 0.5 * 4, 1 + 0.5 * 11], [1 + 0.5 * 3, 1 + 0.5 * 12]])
    np.testing.assert_array_equal(batch.weight, [[1, 1], [1, 1], [0, 0]])
    ended = stacked(
        terminated=jnp.array([[True, False], [False, False], [False, True]]),
        truncated=jnp.array([[False, True], [False, False], [True, False]]),
    )
    batch = q_learning.sarsa_targets(ended, q_learning.QHparams())
    np.testing.assert_array_equal(batch.weight, [[1, 0], [1, 1], [0, 1]])
    np.testing.assert_allclose([batch.target[0, 0], batch.target[2, 1]], 1.0)


def test_expected_sarsa_weighs_by_the_epsilon_of_the_data():
    hparams = f32(q_learning.QHparams(epsilon_start=0.8, epsilon_end=0.2, epsilon_decay_steps=100))
    batch = q_learning.expected_sarsa_targets(stacked(truncated=jnp.ones((3, 2), bool)), hparams)
    expected = [1 + 0.5 * (0.5 * best + 0.5 * mean) for best, mean in ((4, 2.5), (3, 2.5), (6, 5.5))]
    np.testing.assert_allclose(batch.target[:, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(batch.weight, 1.0)


def test_epsilon_at_the_ends_of_its_schedule():
    hparams = f32(q_learning.QHparams(epsilon_start=0.8, epsilon_end=0.2, epsilon_decay_steps=100))
    steps = jnp.array([0.0, 50.0, 100.0, 1e9])
    np.testing.assert_allclose(
        jax.vmap(lambda s: q_learning.epsilon(hparams, s))(steps), [0.8, 0.5, 0.2, 0.2], rtol=1e-6
    )
    constant = f32(q_learning.QHparams(epsilon_end=0.3, epsilon_decay_steps=0))
    np.testing.assert_allclose(q_learning.epsilon(constant, jnp.float32(0)), 0.3, rtol=1e-6)


def test_epsilon_greedy_frequencies():
    hparams = f32(q_learning.QHparams(epsilon_start=0.4, epsilon_end=0.4))
    output = prx.Output(q_values=jnp.broadcast_to(jnp.array([0.0, 3.0, 1.0, 2.0]), (40_000, 4)))
    noise = q_learning.noise(jax.random.key(0), (40_000,))
    actions = np.asarray(q_learning.act(output, noise, hparams, jnp.float32(0)))
    np.testing.assert_allclose(np.bincount(actions) / 40_000, [0.1, 0.7, 0.1, 0.1], atol=0.01)
    assert np.all(np.asarray(q_learning.act(output, None, hparams, jnp.float32(0))) == 1)


@pytest.mark.parametrize("delta", [1.0, float("inf")])
def test_huber_and_its_gradient(delta):
    error = jnp.array([-3.0, -0.5, 0.0, 0.5, 3.0])
    small = np.abs(error) <= delta
    expected = np.where(small, 0.5 * np.square(error), min(delta, 1e9) * (np.abs(error) - 0.5 * min(delta, 1e9)))
    np.testing.assert_allclose(q_learning.huber(error, delta), expected, rtol=1e-6)
    slope = jax.vmap(jax.grad(lambda e: q_learning.huber(e, delta)))(error)
    np.testing.assert_allclose(slope, np.clip(error, -delta, delta), rtol=1e-6)


def test_loss_moves_only_the_chosen_action():
    batch = q_learning.QBatch(jnp.zeros((2, 1)), jnp.array([1, 0]), jnp.array([2.0, -1.0]), jnp.array([1.0, 0.5]))
    hparams = f32(q_learning.QHparams())

    def loss(q_values):
        return q_learning.loss(prx.Output(q_values=q_values), batch, hparams)

    q_values = jnp.array([[0.0, 1.0], [1.0, 5.0]])
    (value, logged), grad = jax.value_and_grad(loss, has_aux=True)(q_values)
    np.testing.assert_allclose(value, (0.5 * 1.0 + 0.5 * 0.5 * 4.0) / 2)
    np.testing.assert_allclose(logged["td_error"], [1.0, 2.0])
    np.testing.assert_allclose(grad, [[0.0, -0.5], [0.5, 0.0]])


def test_lambda_targets_against_a_loop():
    rng = np.random.default_rng(0)
    steps, envs, gamma, lambda_ = 7, 3, 0.9, 0.6
    reward, q_next = rng.normal(size=(steps, envs)), rng.normal(size=(steps, envs, 2))
    terminated, truncated = rng.random((2, steps, envs)) < 0.2
    truncated &= ~terminated
    data = dataclasses.replace(
        rollout(),
        reward=jnp.asarray(reward, jnp.float32),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(truncated),
        next_output=prx.Output(q_values=jnp.asarray(q_next, jnp.float32)),
    )
    got = q_learning.lambda_targets(data, f32(q_learning.PQNHparams(gamma=gamma, q_lambda=lambda_))).target
    value = q_next.max(-1)
    for n in range(envs):
        later = None
        for t in reversed(range(steps)):
            if terminated[t, n]:
                later = reward[t, n]
            elif truncated[t, n] or later is None:
                later = reward[t, n] + gamma * value[t, n]
            else:
                later = reward[t, n] + gamma * ((1 - lambda_) * value[t, n] + lambda_ * later)
            np.testing.assert_allclose(got[t, n], later, rtol=1e-5)


def test_target_network_is_copied_at_the_right_updates():
    hparams = f32(dqn.DQNHparams(target_period=3, tau=1.0))
    target, online = {"w": jnp.array(0.0)}, {"w": jnp.array(7.0)}
    copied = [float(dqn.update_target(target, online, jnp.int32(i), hparams)["w"]) for i in range(1, 8)]
    assert copied == [0, 0, 7, 0, 0, 7, 0]
    polyak = f32(dqn.DQNHparams(target_period=1, tau=0.25))
    np.testing.assert_allclose(dqn.update_target(target, online, jnp.int32(1), polyak)["w"], 1.75)


def test_importance_exponent_grows_to_one():
    hparams = f32(dqn.DQNHparams(importance_exponent=0.4, importance_anneal_steps=100))
    values = [float(dqn.importance_exponent(hparams, jnp.float32(s))) for s in (0, 50, 100, 1000)]
    np.testing.assert_allclose(values, [0.4, 0.7, 1.0, 1.0], rtol=1e-6)


def test_dueling_advantages_have_mean_zero():
    """Adding a constant to all advantages changes no Q value; V alone shifts them all."""
    algorithm = prx.make("dqn", "CartPole-v1", dueling=True, hidden_sizes=(8,))
    obs = jax.random.normal(jax.random.key(1), (5, 4))
    params = algorithm.network.init(jax.random.key(0), obs)
    before = algorithm.network.apply(params, obs).q_values
    shifted = jax.tree.map(lambda x: x, params)
    shifted["params"]["critic_head"]["bias"] = params["params"]["critic_head"]["bias"] + 3.0
    np.testing.assert_allclose(algorithm.network.apply(shifted, obs).q_values, before, atol=1e-5)
    shifted["params"]["critic_value_head"]["bias"] = params["params"]["critic_value_head"]["bias"] + 2.0
    np.testing.assert_allclose(algorithm.network.apply(shifted, obs).q_values, before + 2.0, atol=1e-5)
