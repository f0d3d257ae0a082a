"""Tabular MDPs: what is checked when one is made, what the shipped ones are, and that the loops run in them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import tiny

import purejaxrl_ext as prx
from purejaxrl_ext.analysis import render
from purejaxrl_ext.envs import drawing, mdps, tabular
from purejaxrl_ext.envs.base import check_env
from purejaxrl_ext.tabular import exact

NAMES = [f"mdp:{name}" for name in tabular.SHIPPED]


def two_states(**changes):
    """State 0: action 0 stays, action 1 ends (state 1)."""
    arrays = {
        "transition": np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]),
        "reward": np.array([[[0.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]),
        "initial": np.array([1.0, 0.0]),
        "terminal": np.array([False, True]),
    }
    for name, (index, value) in changes.items():
        arrays[name] = arrays[name].copy()
        arrays[name][index] = value
    return arrays


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"transition": ((0, 1), [0.0, 0.9])}, ["sum of transition[0, 1]=0.9 ", "must be 1"]),
        ({"transition": ((0, 0), [1.5, -0.5])}, ["transition[0, 0, 1]", "-0.5", "0 or greater"]),
        ({"transition": ((0, 0), [np.nan, 1.0])}, ["transition[0, 0, 0]", "nan"]),
        ({"transition": ((1, 0), [1.0, 0.0])}, ["transition[1, :, 1]", "terminal"]),
        ({"reward": ((0, 1, 1), np.inf)}, ["reward[0, 1, 1]", "inf", "finite"]),
        ({"reward": ((1, 0, 1), 2.0)}, ["reward[1]", "2.0", "terminal"]),
        ({"initial": (0, 0.5)}, ["sum of initial=0.5 ", "must be 1"]),
        ({"initial": (slice(None), 0.5)}, ["initial[1]", "0.5", "terminal"]),
    ],
)
def test_values_that_make_no_mdp(changes, words):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        mdps.make_mdp(**two_states(**changes))
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("transition", np.ones((2, 2))),
        ("transition", np.ones((2, 2, 3))),
        ("reward", np.ones((2, 1, 2))),
        ("initial", np.ones(3) / 3),
        ("terminal", np.ones(1, bool)),
    ],
)
def test_shapes_are_checked_even_while_traced(name, array):
    arrays = two_states() | {name: array}
    with pytest.raises(ValueError, match=name):
        jax.jit(mdps.make_mdp)(**arrays)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: prx.make_env("mdp:recycling_robott"), ["'recycling_robot'"]),
        (lambda: prx.make_env("mdp:maze", {"slop": 0.1}), ["slop", "'slip'", "mdp:maze"]),
        (lambda: prx.make_env("mdp:recycling_robot", {"alpha": 1.2}), ["alpha=1.2", "[0, 1]"]),
        (lambda: prx.make_env("mdp:maze", full_action_set=True), ["full_action_set"]),
        (lambda: prx.make_env("mdp:gridworld", {"time_limit": 0}), ["time_limit=0", "positive"]),
        (lambda: mdps.gridworld("S.G", slip=-0.1), ["slip=-0.1"]),
        (lambda: mdps.gridworld("S.?"), ["map='?'"]),
        (lambda: mdps.gridworld("S.\nG"), ["one length"]),
        (lambda: mdps.gridworld("S.."), ["at least one G"]),
        (lambda: mdps.gridworld("SG.\n##."), ["row 0, column 2"]),
        (lambda: mdps.random_walk(0), ["num_states=0"]),
        (lambda: prx.TabularEnv(mdps.random_walk(5), np.ones((3, 2))), ["observations", "[7, ...]"]),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        call()
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_ones_follow_the_protocol_and_are_equal_by_value(name):
    env = prx.make_env(name)
    check_env(env)
    assert env.name == name
    assert env == prx.make_env(name) and hash(env) == hash(prx.make_env(name))
    assert env != prx.make_env(name, {"time_limit": 7})
    gamma = 0.9
    mdp = jax.tree.map(jnp.asarray, env.mdp)
    mdps.make_mdp(mdp.transition, mdp.reward, mdp.initial, mdp.terminal)
    assert np.isfinite(exact.value_iteration(mdp, gamma)).all(), "every state is reachable"


def test_recycling_robot_is_the_books_table():
    """Sutton & Barto 2018, the table of example 3.3."""
    high, low, search, wait, recharge = mdps.HIGH, mdps.LOW, mdps.SEARCH, mdps.WAIT, mdps.RECHARGE
    alpha, beta, r_search, r_wait = 0.7, 0.4, 5.0, 1.5
    mdp = mdps.recycling_robot(alpha, beta, r_search, r_wait)
    table = {
        (high, search, high): (alpha, r_search),
        (high, search, low): (1 - alpha, r_search),
        (low, search, high): (1 - beta, -3.0),
        (low, search, low): (beta, r_search),
        (high, wait, high): (1.0, r_wait),
        (high, wait, low): (0.0, None),
        (low, wait, high): (0.0, None),
        (low, wait, low): (1.0, r_wait),
        (low, recharge, high): (1.0, 0.0),
        (low, recharge, low): (0.0, None),
    }
    for index, (probability, reward) in table.items():
        np.testing.assert_allclose(mdp.transition[index], probability, atol=1e-7)
        assert reward is None or mdp.reward[index] == reward


def test_recycling_robot_can_be_vmapped_over_its_parameters():
    alpha = jnp.array([0.1, 0.9])
    batch = jax.vmap(mdps.recycling_robot)(alpha)
    one = mdps.recycling_robot(0.9)
    np.testing.assert_allclose(batch.transition[1], one.transition)


def test_grid_moves_slips_and_falls():
    """S at (1, 0), a cliff to its east, the goal beyond."""
    mdp = mdps.gridworld(["...", "SXG"], slip=0.2, goal_reward=7.0)
    start, goal = 3, 4
    assert mdp.num_states == 5 and bool(mdp.terminal[goal]) and mdp.initial[start] == 1.0
    # East from the start: over the cliff and back with 0.8, into the southern edge with 0.1, north with 0.1.
    np.testing.assert_allclose(mdp.transition[start, mdps.EAST], [0.1, 0, 0, 0.9, 0], atol=1e-6)
    np.testing.assert_allclose(mdp.reward[start, mdps.EAST, start], (0.8 * -100 + 0.1 * -1) / 0.9, rtol=1e-5)
    np.testing.assert_allclose(mdp.transition[2, mdps.SOUTH], [0, 0.1, 0.1, 0, 0.8], atol=1e-6)
    assert mdp.reward[2, mdps.SOUTH, goal] == 6.0
    np.testing.assert_allclose(mdp.transition[0, mdps.NORTH], [0.9, 0.1, 0, 0, 0], atol=1e-6)


def test_cliff_walking_is_the_books():
    mdp = mdps.cliff_walking()
    start, goal = 36, 37
    assert mdp.num_states == 38 and mdp.initial[start] == 1.0 and bool(mdp.terminal[goal])
    assert mdp.transition[start, mdps.EAST, start] == 1.0 and mdp.reward[start, mdps.EAST, start] == -100.0
    assert mdp.transition[25, mdps.SOUTH, start] == 1.0 and mdp.reward[25, mdps.SOUTH, start] == -100.0
    assert mdp.transition[35, mdps.SOUTH, goal] == 1.0 and mdp.reward[35, mdps.SOUTH, goal] == -1.0
    assert exact.objective(mdp, exact.optimal(mdp, 1.0).policy, 1.0) == -13.0


def test_maze_needs_memory():
    """The best of all 4⁶ deterministic policies of the four walls, against the optimal one of the cell."""
    mdp, gamma = mdps.maze(), 0.95
    walls = mdps.wall_observations()
    going = np.flatnonzero(~np.asarray(mdp.terminal))
    seen, which = np.unique(walls[going], axis=0, return_inverse=True)
    assert len(seen) == 6
    actions = np.zeros((4**6, mdp.num_states), int)
    actions[:, going] = np.array(list(itertools.product(range(4), repeat=6)))[:, which]
    values = jax.jit(jax.vmap(lambda a: exact.objective(mdp, jax.nn.one_hot(a, 4), gamma)))(jnp.asarray(actions))
    np.testing.assert_allclose(values.max(), 0.371, atol=1e-3)
    np.testing.assert_allclose(mdp.initial @ exact.value_iteration(mdp, gamma), 0.865, atol=1e-3)


@pytest.mark.parametrize("name", ["mdp:recycling_robot", "mdp:gridworld"])
def test_simulation_follows_p_and_r(name):
    """Frequencies of 20,000 steps from each state and action against P, within five standard errors; R exactly."""
    env, draws = prx.make_env(name, {} if "robot" in name else {"slip": 0.3}), 20_000
    mdp = env.mdp
    state, action = (x.ravel() for x in np.indices((mdp.num_states, mdp.num_actions)))
    keys = jax.random.split(jax.random.key(0), draws)
    many = jax.jit(jax.vmap(jax.vmap(env.step, (None, 0, 0)), (0, None, None)))
    step = many(keys, jnp.asarray(state, jnp.int32), jnp.asarray(action))
    counts = np.stack([np.bincount(column, minlength=mdp.num_states) for column in np.asarray(step.state).T])
    p = mdp.transition[state, action]
    assert (np.abs(counts / draws - p) <= 5.0 * np.sqrt(p * (1 - p) / draws)).all()
    np.testing.assert_array_equal(step.reward, mdp.reward[state[None], action[None], step.state])
    np.testing.assert_array_equal(step.terminated, mdp.terminal[step.state])


def test_draw_never_gives_what_has_probability_zero():
    for probabilities in ([0.0, 0.5, 0.5, 0.0], [0.1] * 3 + [0.0] + [0.1] * 7 + [0.0]):
        p = jnp.array(probabilities, jnp.float32)
        for uniform in (0.0, 1.0 - 2.0**-23):
            assert p[mdps.draw(p, jnp.float32(uniform))] > 0.0


def test_observations_of_the_maze_and_its_twin():
    walls, cells = prx.make_env("mdp:maze"), prx.make_env("mdp:maze_observed")
    assert (walls.observation_shape, cells.observation_shape) == ((4,), (11,))
    (state, obs), (same, cell) = walls.reset(jax.random.key(3)), cells.reset(jax.random.key(3))
    assert state == same
    np.testing.assert_array_equal(obs, mdps.wall_observations()[state])
    np.testing.assert_array_equal(cell, jax.nn.one_hot(state, 11))


def test_continuing_mdps_are_truncated_not_terminated():
    algorithm = tiny("q_learning", "mdp:recycling_robot", env_params={"time_limit": 4}, metrics_every=0)
    _, logged = prx.train(algorithm, jax.random.key(0), 64)
    np.testing.assert_array_equal(np.asarray(logged["episode_length"])[np.asarray(logged["num_episodes"]) > 0], 4.0)


@pytest.mark.parametrize("algorithm", ["ppo", "pfo", "pqn", "dqn"])
def test_every_loop_runs_in_one_under_vmap(algorithm):
    made = tiny(algorithm, "mdp:maze", env_params={"slip": 0.1}, metrics_every=0)
    keys = jax.random.split(jax.random.key(0), 2)
    state, logged = jax.vmap(
        lambda key: prx.train(made, key, 2 * made.steps_per_update), out_axes=(prx.State.axes(), 0)
    )(keys)
    assert logged["loss"].shape == (2, 2) and np.isfinite(logged["loss"]).all()
    assert state.update == 2
    assert prx.make(algorithm, **{k: v for k, v in made.settings.items() if k != "algorithm"}).loop is made.loop


def test_ppo_comes_near_the_exact_optimum():
    """The learned policy, put into the exact evaluation: uniform has J = −20.1 and the optimum is −4.8 (γ = 0.99)."""
    env, gamma = prx.make_env("mdp:gridworld", {"cliff_reward": -10.0}), 0.99
    settings = {"num_envs": 16, "num_steps": 32, "hidden_sizes": (32,), "learning_rate": 1e-2, "metrics_every": 0}
    algorithm = prx.make("ppo", env, gamma=gamma, entropy_coef=0.0, **settings)
    state, _ = prx.train(algorithm, jax.random.key(0), 30_000)
    logits = algorithm.network.apply(state.params, jnp.asarray(env.observations)).policy.logits
    mdp = jax.tree.map(jnp.asarray, env.mdp)
    best = mdp.initial @ exact.value_iteration(mdp, gamma)
    assert exact.objective(mdp, exact.uniform(mdp), gamma) < 3 * best
    assert exact.objective(mdp, jax.nn.softmax(logits), gamma) > best - 0.5


def disc(picture):
    """Centre (row, column) of the agent's disc, as a share of the picture."""
    rows, columns = np.nonzero((picture == drawing.BLUE).all(-1))
    return rows.mean() / picture.shape[0], columns.mean() / picture.shape[1]


def test_a_grid_is_drawn_with_the_agent_in_its_cell():
    env = prx.make_env("mdp:cliff_walking")
    for state, (row, column) in enumerate(mdps.read_map(mdps.CLIFF).cells):
        picture = env.render(state)
        assert picture.dtype == np.uint8 and picture.shape == (80, 240, 3)
        np.testing.assert_allclose(disc(picture), ((row + 0.5) / 4, (column + 0.5) / 12), atol=0.01)
    picture = env.render(0)
    for place, color in (((70, 30), render.ORANGE), ((70, 235), drawing.GREEN), ((10, 110), (255, 255, 255))):
        assert tuple(picture[place]) == color


def test_states_of_no_grid_are_drawn_in_a_row():
    env = prx.TabularEnv(mdps.random_walk(3))
    pictures = render.frames(env, jnp.arange(5), jnp.eye(5))
    for state, picture in enumerate(pictures):
        np.testing.assert_allclose(disc(picture), (0.5, (state + 0.5) / 5), atol=0.02)
    assert tuple(pictures[2][5, 5]) == tuple(pictures[2][5, 235]) == drawing.GREEN
    with pytest.raises(ValueError, match="cell"):
        prx.TabularEnv(mdps.random_walk(3), map=mdps.SMALL)
