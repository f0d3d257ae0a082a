"""Exact solutions against closed forms, and what has none."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl_ext.envs import mdps
from purejaxrl_ext.tabular import exact


def robot_closed_form(alpha, beta, gamma, search, wait, depleted=-3.0):
    """v_*(high), v_*(low): the best, in both states, of the deterministic policies, each two equations solved by Cramer's rule.

    In float64; an action gives the probability of high, and the expected reward (Sutton & Barto 2018, example 3.9).
    """
    high = {"search": (alpha, search), "wait": (1.0, wait)}
    low = {
        "search": (1.0 - beta, beta * search + (1.0 - beta) * depleted),
        "wait": (0.0, wait),
        "recharge": (1.0, 0.0),
    }
    values = []
    for (p, r), (q, u) in itertools.product(high.values(), low.values()):
        # v_h = r + γ (p v_h + (1 − p) v_l),  v_l = u + γ (q v_h + (1 − q) v_l)
        a, b, c, d = 1 - gamma * p, -gamma * (1 - p), -gamma * q, 1 - gamma * (1 - q)
        determinant = a * d - b * c
        values.append(((r * d - b * u) / determinant, (a * u - c * r) / determinant))
    return np.array(values).max(axis=0)


ROBOTS = [
    (0.8, 0.6, 0.9, 2.0, 1.0),  # recharges at low
    (0.1, 0.2, 0.9, 2.0, 1.9),  # waits at low
    (0.9, 0.95, 0.5, 2.0, 0.5),  # searches at low too
    (0.5, 0.5, 0.99, 3.0, 1.0),
    (0.3, 0.0, 0.0, 2.0, 1.0),
    (1.0, 1.0, 0.95, 2.0, 1.0),  # the battery never falls
]


def test_robot_against_the_closed_form_of_its_optimality_equations():
    expected = np.array([robot_closed_form(*robot) for robot in ROBOTS])
    alpha, beta, gamma, search, wait = map(jnp.array, zip(*ROBOTS, strict=True))
    robots = jax.vmap(mdps.recycling_robot)(alpha, beta, search, wait)
    for solve in (exact.value_iteration, exact.policy_iteration):
        np.testing.assert_allclose(jax.jit(jax.vmap(solve))(robots, gamma), expected, rtol=2e-4)
    best = jax.vmap(exact.optimal)(robots, gamma)
    at_low = np.argmax(best.policy[:, mdps.LOW], axis=-1)
    assert list(at_low[:3]) == [mdps.RECHARGE, mdps.WAIT, mdps.SEARCH]


def test_random_walks_have_their_known_values():
    walk = mdps.random_walk()
    v = exact.policy_evaluation(walk, exact.uniform(walk), 1.0)
    np.testing.assert_allclose(v, [0.0, *np.arange(-9, 10) / 10, 0.0], atol=1e-5)
    short = mdps.random_walk(5, left_reward=0.0)
    np.testing.assert_allclose(
        exact.policy_evaluation(short, exact.uniform(short), 1.0)[1:-1], np.arange(1, 6) / 6, atol=1e-6
    )


@pytest.fixture(scope="module")
def case():
    """A random MDP with two terminal states, and a random policy."""
    rng = np.random.default_rng(0)
    states, actions = 7, 3
    transition = rng.dirichlet(np.ones(states), (states, actions))
    reward = rng.normal(size=(states, actions, states))
    transition[5:] = np.eye(states)[5:, None]
    reward[5:] = 0.0
    initial = np.append(rng.dirichlet(np.ones(5)), [0.0, 0.0])
    policy = rng.dirichlet(np.ones(actions), states)
    mdp = mdps.make_mdp(transition, reward, initial, np.arange(states) >= 5)
    return mdp, jnp.asarray(policy, jnp.float32)


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_evaluation_solves_the_bellman_equation(case, gamma):
    mdp, policy = case
    v = exact.policy_evaluation(mdp, policy, gamma)
    q = exact.action_values(mdp, v, gamma)
    np.testing.assert_allclose((policy * q).sum(-1), v, atol=1e-5)
    np.testing.assert_array_equal(v[5:], 0.0)
    np.testing.assert_array_equal(q[5:], 0.0)
    np.testing.assert_array_equal(exact.action_values(mdp, v.at[5:].set(9.0), gamma), q, "no value beyond the end")
    expected = np.zeros(7)
    for _ in range(300):  # in float64, term by term
        backed_up = np.einsum("sat,sat->sa", mdp.transition, mdp.reward + gamma * expected[None, None])
        expected = np.where(mdp.terminal, 0.0, (policy * backed_up).sum(-1))
    np.testing.assert_allclose(v, expected, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_optimum_is_what_no_policy_beats_and_its_own_policy_reaches(case, gamma):
    mdp, _ = case
    best = exact.optimal(mdp, gamma)
    np.testing.assert_allclose(best.q.max(-1), best.v, atol=1e-5)
    np.testing.assert_allclose(exact.policy_evaluation(mdp, best.policy, gamma), best.v, atol=1e-4)
    np.testing.assert_allclose(exact.policy_iteration(mdp, gamma), best.v, atol=1e-4)
    every = jnp.asarray(list(itertools.product(range(3), repeat=5)))
    every = jax.nn.one_hot(jnp.pad(every, ((0, 0), (0, 2))), 3)
    values = jax.vmap(exact.policy_evaluation, (None, 0, None))(mdp, every, gamma)
    np.testing.assert_allclose(values.max(0), best.v, atol=1e-4)


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_visitation_counts_discounted_visits(case, gamma):
    mdp, policy = case
    chain = np.einsum("sa,sat->st", policy, mdp.transition)
    distribution, expected = np.asarray(mdp.initial, np.float64), np.zeros(7)
    for t in range(300):
        expected += gamma**t * np.where(mdp.terminal, 0.0, distribution)
        distribution = distribution @ chain
    eta = exact.visitation(mdp, policy, gamma)
    np.testing.assert_allclose(eta, expected, atol=1e-4)
    reward = np.einsum("sa,sat,sat->s", policy, mdp.transition, mdp.reward)
    np.testing.assert_allclose(eta @ reward, exact.objective(mdp, policy, gamma), atol=1e-4)
    robot = mdps.recycling_robot()
    np.testing.assert_allclose(exact.visitation(robot, exact.uniform(robot), 0.9).sum(), 10.0, rtol=1e-4)


def test_gradient_of_the_objective_is_the_policy_gradient_theorem(case):
    """∇J = Σ_s η(s) Σ_a q_π(s, a) ∇π(a|s) (Sutton & Barto 2018, eq. 13.5)."""
    mdp, policy = case
    gamma, logits = 0.9, jnp.log(policy)
    got = jax.grad(lambda x: exact.objective(mdp, jax.nn.softmax(x), gamma))(logits)
    q = exact.action_values(mdp, exact.policy_evaluation(mdp, policy, gamma), gamma)
    eta = exact.visitation(mdp, policy, gamma)
    expected = jax.grad(lambda x: jnp.sum(eta[:, None] * q * jax.nn.softmax(x)))(logits)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_thousand_at_once_under_jit(case):
    """Batched LU in one program, over policies and γ."""
    mdp, _ = case
    policies = jax.random.dirichlet(jax.random.key(0), jnp.ones(3), (1000, 7))
    gammas = jnp.linspace(0.0, 1.0, 1000)
    values = jax.jit(jax.vmap(exact.policy_evaluation, (None, 0, 0)))(mdp, policies, gammas)
    for i in (0, 500, 999):
        np.testing.assert_allclose(values[i], exact.policy_evaluation(mdp, policies[i], gammas[i]), atol=1e-5)


def test_policies_on_literals():
    q = jnp.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.99999]])
    np.testing.assert_allclose(exact.greedy(q), [[0.5, 0.5, 0], [0, 1, 0]])
    np.testing.assert_allclose(exact.greedy(q, 1e-4), [[0.5, 0.5, 0], [0, 0.5, 0.5]])
    np.testing.assert_allclose(exact.epsilon_greedy(q, 0.3), [[0.45, 0.45, 0.1], [0.1, 0.8, 0.1]], rtol=1e-6)


def unreachable():
    """State 1 can be left but not entered."""
    transition = np.zeros((3, 1, 3))
    transition[:, 0, 2] = 1.0
    return mdps.make_mdp(transition, np.zeros((3, 1, 3)), [1.0, 0.0, 0.0], [False, False, True])


def never_ends():
    """State 0 goes to 1 by action 0, which stays for ever, and ends by action 1 (state 2)."""
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 1] = transition[0, 1, 2] = 1.0
    transition[1, :, 1] = transition[2, :, 2] = 1.0
    return mdps.make_mdp(transition, np.zeros((3, 2, 3)), [1.0, 0.0, 0.0], [False, False, True])


WALK, ROBOT = mdps.random_walk(5), mdps.recycling_robot()
LEFT = jnp.array([[1.0, 0.0]] * 7).at[3].set(jnp.array([0.5, 0.5]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: exact.value_iteration(ROBOT, 1.0), ["gamma=1.0", "without terminal states"]),
        (lambda: exact.policy_evaluation(ROBOT, exact.uniform(ROBOT), 1.0), ["gamma=1.0", "without terminal"]),
        (lambda: exact.value_iteration(never_ends(), 1.0), ["gamma=1.0", "whatever the actions", "states [1]"]),
        (
            lambda: exact.policy_evaluation(WALK, LEFT.at[2].set(jnp.array([0.0, 1.0])).at[3].set(LEFT[0]), 1.0),
            ["gamma=1.0", "under the policy", "[2, 3, 4, 5]"],
        ),
        (lambda: exact.value_iteration(unreachable(), 0.9), ["transition", "unlike [1]", "check_reachable"]),
        (lambda: exact.visitation(unreachable(), jnp.ones((3, 1)), 1.0), ["transition", "unlike [1]"]),
        (lambda: exact.policy_evaluation(WALK, LEFT[:3], 0.9), ["policy=(3, 2)", "(7, 2)"]),
        (lambda: exact.policy_evaluation(WALK, 0.9 * LEFT, 0.9), ["sum of policy[0]=0.9 "]),
        (lambda: exact.optimal(WALK, 1.1), ["gamma=1.1", "[0, 1]"]),
    ],
)
def test_what_has_no_solution(call, words):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        call()
    for word in words:
        assert word in str(raised.value)


def test_unreachable_states_can_be_allowed():
    np.testing.assert_array_equal(exact.value_iteration(unreachable(), 1.0, check_reachable=False), 0.0)
    assert exact.policy_evaluation(WALK, LEFT, 1.0).shape == (7,)
