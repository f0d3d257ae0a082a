"""Opponents in pgx's games: fixed policies of the position alone, ``(key, state) -> move`` of pgx's state before it.

    uniform    each legal move is as likely as the others
    greedy     chess: takes the most valuable piece that it can (queen 9, rook 5, bishop and knight 3, pawn 1; en passant
               does not count); else, and among equals, as uniform
               other games of up to 100 moves: a move that wins at once where there is one; else as uniform
    function   (key, state) -> move, of pgx's state before it; ``PgxEnv("chess", opponent=function)``

A trained policy plays as a function of what an agent in its place would see::

    champion = prx.policy("runs/x", ppo)
    env = PgxEnv("chess", opponent=lambda key, state: champion(append_mask(state.observation, state.legal_action_mask)))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_ext.spaces import uniform_legal
from purejaxrl_ext.types import Array

# What a captured piece is worth: none, pawn, knight, bishop, rook, queen, king.
PIECES = (0.0, 1.0, 3.0, 3.0, 5.0, 9.0, 0.0)


def uniform(key: Array, state: Any) -> Array:
    """Each legal move as likely as the others."""
    return uniform_legal(jax.random.uniform(key), state.legal_action_mask)


def greedy_chess(key: Array, state: Any) -> Array:
    """A capture of the most valuable piece, where there is one."""
    from pgx._src.games.chess import FROM_PLANE

    taken = jnp.maximum(-state._x.board[FROM_PLANE.reshape(-1)], 0)
    worth = jnp.where(state.legal_action_mask, jnp.array(PIECES)[taken], -1.0)
    return uniform_legal(jax.random.uniform(key), worth == worth.max())


def greedy(game: Any, key: Array, state: Any) -> Array:
    """A move that wins at once, where there is one."""
    legal = state.legal_action_mask
    after = jax.vmap(lambda action: game.step(state, action))(jnp.arange(legal.shape[0]))
    wins = legal & (jnp.take(after.rewards, state.current_player, axis=1) > 0)
    return uniform_legal(jax.random.uniform(key), jnp.where(wins.any(), wins, legal))


def choose(opponent: str | Callable[..., Array], game: Any, key: Array, state: Any) -> Array:
    """The move of an opponent, by name or a function."""
    if callable(opponent):
        return opponent(key, state)
    if opponent == "uniform":
        return uniform(key, state)
    return greedy_chess(key, state) if game.id == "chess" else greedy(game, key, state)
