"""Tabular control and its rules in the on-policy loop, against exact values; on-policy against off-policy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_ext as prx
from purejaxrl_ext.envs import mdps
from purejaxrl_ext.tabular import control, exact

BOOTSTRAPS = {"sarsa": control.sarsa, "q_learning": control.q_learning, "expected_sarsa": control.expected_sarsa}


def test_bootstraps_on_literals():
    q, policy = jnp.array([1.0, 5.0, 3.0]), jnp.array([0.2, 0.5, 0.3])
    assert control.sarsa(q, jnp.int32(2), policy) == 3.0
    assert control.q_learning(q, jnp.int32(2), policy) == 5.0
    np.testing.assert_allclose(control.expected_sarsa(q, jnp.int32(2), policy), 3.6, rtol=1e-6)


def aims(mdp, gamma):
    """q of the uniform policy and of the optimal one."""
    uniform = exact.uniform(mdp)
    followed = exact.action_values(mdp, exact.policy_evaluation(mdp, uniform, gamma), gamma)
    return {"sarsa": followed, "expected_sarsa": followed, "q_learning": exact.optimal(mdp, gamma).q}


@pytest.mark.thorough
@pytest.mark.parametrize("name", BOOTSTRAPS)
def test_what_each_converges_to_under_random_actions(name):
    """ε = 1: on-policy methods come to q of the random policy, Q-learning to q_* all the same."""
    mdp, gamma = mdps.gridworld(["S..", ".#G"], slip=0.2), 0.8
    run = functools.partial(
        control.learn, mdp=mdp, bootstrap=BOOTSTRAPS[name], num_steps=40_000, num_episodes=1, epsilon=1.0, gamma=gamma
    )
    learned = jax.jit(jax.vmap(lambda key: run(key, alpha=0.02)))(jax.random.split(jax.random.key(0), 32))
    np.testing.assert_allclose(learned.q.mean(0), aims(mdp, gamma)[name], atol=0.15)


def test_updates_are_the_book_s_along_the_only_path():
    """One action, two steps: Q by hand after each of three episodes of −1, −1 and the end."""
    transition = np.zeros((3, 1, 3))
    transition[0, 0, 1] = transition[1, 0, 2] = transition[2, 0, 2] = 1.0
    reward = np.where(transition > 0, -1.0, 0.0)
    reward[2] = 0.0
    mdp = mdps.make_mdp(transition, reward, [1.0, 0.0, 0.0], [False, False, True])
    alpha, gamma, q = 0.5, 0.9, np.zeros(3)
    for _ in range(3):
        q[0] += alpha * (-1.0 + gamma * q[1] - q[0])
        q[1] += alpha * (-1.0 - q[1])
    q[0] += alpha * (-1.0 + gamma * q[1] - q[0])  # the seventh step begins a fourth episode
    for bootstrap in BOOTSTRAPS.values():
        learned = control.learn(jax.random.key(0), mdp, bootstrap, 7, 5, alpha, 0.1, gamma)
        np.testing.assert_allclose(learned.q[:, 0], q, rtol=1e-5)
        np.testing.assert_array_equal(learned.episode_return, [-2.0, -2.0, -2.0, np.nan, np.nan])
        np.testing.assert_array_equal(learned.episode_length, [2.0, 2.0, 2.0, np.nan, np.nan])
        few = control.learn(jax.random.key(0), mdp, bootstrap, 7, 2, alpha, 0.1, gamma)
        np.testing.assert_array_equal(few.episode_return, [-2.0, -2.0])


def test_vmaps_over_step_sizes_and_mdps():
    robots = jax.vmap(mdps.recycling_robot)(jnp.array([0.2, 0.9]))
    alphas = jnp.array([0.05, 0.1])

    def run(mdp, alpha):
        return control.learn(jax.random.key(0), mdp, control.q_learning, 20_000, 1, alpha, 0.3, 0.8)

    learned = jax.jit(jax.vmap(run))(robots, alphas)
    best = jax.vmap(exact.optimal, (0, None))(robots, 0.8)
    np.testing.assert_allclose(learned.q[:, :, :2], best.q[:, :, :2], atol=0.6)
    assert np.isnan(learned.episode_return).all(), "no episode ends"


def path_of(mdp, q):
    """Return of the greedy path from the start, and the rows of the 4 × 12 grid that it visits."""
    cells, state, total, rows = mdps.read_map(mdps.CLIFF).cells, int(jnp.argmax(mdp.initial)), 0.0, set()
    for _ in range(50):
        if mdp.terminal[state]:
            return total, rows
        action = int(q[state].argmax())
        after = int(mdp.transition[state, action].argmax())
        total, state = total + float(mdp.reward[state, action, after]), after
        rows.add(int(cells[state][0]))
    return -np.inf, rows


@pytest.mark.thorough
def test_cliff_walking_on_policy_is_safe_and_off_policy_optimal():
    """Sutton & Barto 2018, example 6.6: Q-learning's path is the shorter, SARSA's returns as lived are the better."""
    mdp = mdps.cliff_walking()
    keys = jax.random.split(jax.random.key(0), 50)
    lived, path = {}, {}
    for name in ("sarsa", "q_learning"):
        run = functools.partial(control.learn, mdp=mdp, bootstrap=BOOTSTRAPS[name], num_steps=12_000, num_episodes=300)
        learned = jax.jit(jax.vmap(functools.partial(run, alpha=0.5, epsilon=0.1, gamma=1.0)))(keys)
        assert np.isfinite(learned.episode_return).all()
        lived[name] = float(learned.episode_return[:, -100:].mean())
        path[name] = path_of(mdp, np.asarray(learned.q.mean(0)))
    assert path["q_learning"][0] == -13.0 and 0 not in path["q_learning"][1]
    assert path["sarsa"][0] == -17.0 and 0 in path["sarsa"][1]
    assert -30 < lived["sarsa"] < -20
    assert -60 < lived["q_learning"] < -40


@pytest.mark.parametrize("name", ["sarsa", "expected_sarsa", "q_learning"])
def test_rules_in_the_loop_come_to_their_values(name):
    """The same with a network: ε = 1 throughout, a walk of five states with a time limit that cuts some episodes."""
    gamma = 0.8
    settings = {"num_envs": 16, "num_steps": 8, "hidden_sizes": (32,), "learning_rate": 3e-3, "metrics_every": 0}
    settings |= {"epsilon_start": 1.0, "epsilon_end": 1.0, "gamma": gamma, "anneal_steps": 150_000}
    algorithm = prx.make(name, "mdp:random_walk", env_params={"num_states": 5, "time_limit": 12}, **settings)
    state, _ = prx.train(algorithm, jax.random.key(0), 150_000)
    q = algorithm.network.apply(state.params, jnp.asarray(algorithm.env.observations)).q_values
    mdp = jax.tree.map(jnp.asarray, algorithm.env.mdp)
    np.testing.assert_allclose(q[1:-1], aims(mdp, gamma)[name][1:-1], atol=0.1)
