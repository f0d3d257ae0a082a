"""Board games as one player's decision process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import tiny

import purejaxrl_ext as prx
from purejaxrl_ext import envs, render
from purejaxrl_ext.spaces import append_mask, split_mask

pytest.importorskip("pgx", reason="pgx is an extra: pip install -e '.[pgx]'")

from purejaxrl_ext.envs.pgx import PgxEnv
from purejaxrl_ext.envs.pgx_opponents import greedy_chess

KEY = jax.random.key(0)


def random_games(env, num_games, num_steps):
    """Games of random legal moves, each going on from a fresh one: the steps ``[T, N]``."""

    def step(states, keys):
        legal = jax.vmap(env.legal_actions)(states)
        action = jax.vmap(lambda k, m: envs.uniform_legal(jax.random.uniform(k), m))(keys, legal)
        after = jax.vmap(env.step)(keys, states, action)
        fresh = jax.vmap(env.reset)(keys)[0]
        done = after.terminated
        going = jax.tree.map(lambda f, g: jnp.where(done.reshape(-1, *(1,) * (g.ndim - 1)), f, g), fresh, after.state)
        turn = jax.vmap(lambda s: s[0].current_player == s[1])(after.state)
        return going, (after.reward, done, turn | done, jax.vmap(env.legal_actions)(after.state))

    states = jax.vmap(env.reset)(jax.random.split(KEY, num_games))[0]
    return jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(KEY, (num_steps, num_games))))(states)[1]


def board(state):
    return np.asarray(state._x.board)


@pytest.mark.parametrize("name", ["tic_tac_toe", "connect_four"])
def test_a_step_is_a_move_and_its_answer(name):
    """It is the agent's turn again unless the game is over; rewards come at ends alone, and of both kinds."""
    reward, done, turn, legal = random_games(prx.make_env(f"pgx:{name}"), 64, 30)
    assert turn.all() and legal.any(-1).all()
    assert set(np.unique(reward)) <= {-1.0, 0.0, 1.0} and (reward[~done] == 0).all()
    assert (reward[done] == 1).any() and (reward[done] == -1).any()


def test_who_begins():
    for seat, stones in (("first", 0), ("second", 1)):
        state, _ = jax.jit(prx.make_env("pgx:tic_tac_toe", {"seat": seat}).reset)(KEY)
        assert (board(state[0]) >= 0).sum() == stones
    reset = jax.jit(jax.vmap(prx.make_env("pgx:tic_tac_toe").reset))
    states, _ = reset(jax.random.split(KEY, 64))
    assert 10 < int((states[0]._x.board >= 0).any(-1).sum()) < 54


def test_the_observation_carries_the_mask():
    env = prx.make_env("pgx:connect_four")
    assert env.observation_shape == (6, 7, 3) and env.action_space == prx.Discrete(7)
    state, obs = env.reset(KEY)
    seen, legal = split_mask(obs[None], 7)
    assert obs.dtype == bool and seen.shape == (1, 6, 7, 2)
    np.testing.assert_array_equal(legal[0], state[0].legal_action_mask)


def test_an_illegal_move_loses():
    env = prx.make_env("pgx:tic_tac_toe", {"seat": "second"})
    state, _ = env.reset(KEY)
    step = env.step(KEY, state, jnp.argmax(state[0]._x.board >= 0))
    assert step.reward == -1.0 and step.terminated


def test_the_greedy_opponent_wins_where_it_can():
    """X leaves two in a row to it: after the agent's harmless move the game is lost."""
    env = PgxEnv("tic_tac_toe", "greedy", "first")
    (state, player), _ = env.reset(KEY)
    threat = state._x._replace(board=jnp.array([1, 1, -1, 0, -1, -1, 0, -1, -1]))
    state = state.replace(_x=threat, legal_action_mask=threat.board < 0)
    step = jax.jit(env.step)(KEY, (state, player), jnp.int32(5))
    assert step.terminated and step.reward == -1.0 and board(step.state[0])[2] == 1


def test_the_greedy_opponent_of_chess_takes_the_queen():
    """After 1. e4 d5 2. Qg4 both a pawn and the queen can be taken: the bishop takes her."""
    from pgx.experimental.chess import from_fen

    game = PgxEnv("chess")._game
    with jax.numpy_rank_promotion("allow"):
        position = from_fen("rnbqkbnr/ppp1pppp/8/3p4/4P1Q1/8/PPPP1PPP/RNB1KBNR b KQkq - 1 2")
        move = jax.jit(greedy_chess)(KEY, position)
        after = jax.jit(game.step)(position, move)
    assert position.legal_action_mask[move]
    assert not (board(after) == 5).any()  # the queen of who is to move now is gone


def test_a_function_is_an_opponent_too():
    """It sees what an agent in its place would see."""

    def first_free(key, state):
        assert append_mask(state.observation, state.legal_action_mask).shape == (3, 3, 3)
        return jnp.argmax(state.legal_action_mask)

    env = PgxEnv("tic_tac_toe", first_free, "second")
    (state, _), _ = env.reset(KEY)
    assert board(state).tolist() == [0] + 8 * [-1]


def test_chess_is_played_legally():
    """Two moves each: the rest of its rules are pgx's to test."""
    env = prx.make_env("pgx:chess", {"opponent": "greedy", "seat": "second"})
    assert env.observation_shape == (8, 8, 119 + 73)
    state, obs = jax.jit(env.reset)(KEY)
    legal = split_mask(obs[None], 4672)[1][0]
    assert legal.sum() == 20
    step = jax.jit(env.step)(KEY, state, jnp.argmax(legal))
    assert not step.terminated and step.obs.shape == obs.shape
    assert render.frames(env, jax.tree.map(lambda x: x[None], step.state), step.obs[None]).shape == (1, 240, 240, 3)


@pytest.mark.parametrize("name", ["connect_four", "tic_tac_toe"])
def test_boards_are_drawn(name):
    env = prx.make_env(f"pgx:{name}", {"seat": "second"})
    state, obs = env.reset(KEY)
    (picture,) = render.frames(env, jax.tree.map(lambda x: x[None], state), obs[None])
    assert (picture == render.ORANGE).all(-1).any() and not (picture == render.BLUE).all(-1).any()


def test_what_is_not_there():
    with pytest.raises(ValueError, match="Did you mean 'connect_four'"):
        prx.make_env("pgx:conect_four")
    with pytest.raises(ValueError, match="opponent"):
        prx.make_env("pgx:chess", {"opponent": "strong"})
    with pytest.raises(ValueError, match="seat"):
        prx.make_env("pgx:chess", {"seat": "white"})
    with pytest.raises(ValueError, match="Did you mean 'opponent'"):
        prx.make_env("pgx:chess", {"oponent": "uniform"})
    with pytest.raises(ValueError, match="more than 100 moves"):
        prx.make_env("pgx:shogi", {"opponent": "greedy"})


def test_ppo_trains_in_a_game():
    made = tiny("ppo", "pgx:tic_tac_toe")
    _, metrics = prx.train(made, KEY, 4 * made.steps_per_update)
    assert jnp.isfinite(metrics["loss"]).all()


@pytest.mark.learning
def test_ppo_wins_at_connect_four():
    """Four seeds of 200,000 steps win 97 to 98% of 512 games against uniformly random play, which itself wins half."""
    made = prx.make("ppo", "pgx:connect_four", num_envs=64, num_steps=32, learning_rate=1e-3, metrics_every=0)
    train = jax.jit(jax.vmap(lambda key: prx.train(made, key, 200_000)[0], out_axes=prx.State.axes()))
    states = train(jax.vmap(jax.random.key)(jnp.arange(4)))
    play = jax.vmap(lambda state: prx.evaluate(made, state, KEY, 512, max_steps=64), in_axes=(prx.State.axes(),))
    assert ((jax.jit(play)(states) > 0).mean(-1) >= 0.95).all()
