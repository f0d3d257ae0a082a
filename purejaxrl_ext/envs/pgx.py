"""The suite of pgx (Koyamada et al. 2023): a board game as one player's decision process, ``"pgx:connect_four"``.

The opponent is part of the environment: a fixed policy of the position alone, so that what the agent sees is Markov, and a step
is the agent's move and the answer to it. The reward is pgx's, 1 for a game won and −1 for one lost, 0 for a draw and before the
end; an illegal move loses. Which moves are legal, ``legal_actions`` says, and networks make no others. Opponents:
:mod:`~purejaxrl_ext.envs.pgx_opponents`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.envs.base import EnvStep
from purejaxrl_ext.envs.pgx_drawings import DRAWINGS
from purejaxrl_ext.envs.pgx_opponents import choose
from purejaxrl_ext.errors import check, unknown_name
from purejaxrl_ext.spaces import Discrete
from purejaxrl_ext.types import Array, PyTree, abstract_key

# For suggestions: importing pgx takes seconds. Those of one player have no opponent.
NAMES = (
    *("2048", "animal_shogi", "backgammon", "chess", "connect_four", "gardner_chess", "go_19x19", "go_9x9", "hex"),
    *("kuhn_poker", "leduc_holdem", "othello", "shogi", "tic_tac_toe"),
)
SEATS = ("random", "first", "second")


@functools.cache
def _pgx_make(name: str) -> Any:
    try:
        import pgx
    except ImportError as error:
        raise ImportError(
            "environments of pgx need it: pip install pgx, or in a checkout pip install -e '.[pgx]'"
        ) from error
    if name not in NAMES:
        raise ValueError(unknown_name("pgx environment", name, NAMES))
    with jax.ensure_compile_time_eval():
        return pgx.make(name)


@dataclass(frozen=True)
class PgxEnv:
    """One player's side of a game.

    Attributes:
        pgx_name: pgx's name.
        opponent: ``"uniform"``, ``"greedy"`` or a function; see :mod:`~purejaxrl_ext.envs.pgx_opponents`.
        seat: who moves first: ``"random"``, by each game's key; ``"first"``: the agent; ``"second"``: the opponent.
    """

    pgx_name: str
    opponent: str | Callable[..., Array] = "uniform"
    seat: str = "random"
    time_limit: int | None = None

    def __post_init__(self) -> None:
        check(self._game.num_players <= 2, "env", self.name, "a game of at most two players")
        known = callable(self.opponent) or self.opponent in ("uniform", "greedy")
        check(known, "env_params['opponent']", self.opponent, "'uniform', 'greedy' or a function (key, state) -> move")
        check(self.seat in SEATS, "env_params['seat']", self.seat, f"one of {', '.join(SEATS)}")
        looks_ahead = self.opponent == "greedy" and self.pgx_name != "chess"
        check(
            not looks_ahead or self.action_space.n <= 100,
            "env_params['opponent']",
            self.opponent,
            f"'uniform' or a function: {self.name} has more than 100 moves, and greedy would try them all",
        )

    @property
    def name(self) -> str:
        return f"pgx:{self.pgx_name}"

    @property
    def _game(self) -> Any:
        return _pgx_make(self.pgx_name)

    @functools.cached_property
    def _kinds(self) -> Any:
        with jax.numpy_rank_promotion("allow"):
            return jax.eval_shape(self._game.init, abstract_key())

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self._kinds.observation.shape

    @property
    def action_space(self) -> Discrete:
        return Discrete(self._kinds.legal_action_mask.shape[0])

    @property
    def fps(self) -> float:
        """Slow enough to follow each move."""
        return 2.0

    @property
    def render(self) -> Callable[[PyTree], np.ndarray] | None:
        """What draws a state as ``[H, W, 3]`` uint8; None where the observation is drawn."""
        drawing = DRAWINGS.get(self.pgx_name)
        return None if drawing is None else lambda env_state: drawing(*env_state)

    def legal_actions(self, env_state: Any) -> Array:
        """``[A]`` bool: pgx's mask."""
        return env_state[0].legal_action_mask

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        begin_key, seat_key, answer_key = jax.random.split(key, 3)
        with jax.numpy_rank_promotion("allow"):
            state = self._game.init(begin_key)
            first = state.current_player
            others: dict[str, Any] = {"random": jax.random.bernoulli(seat_key), "first": False, "second": True}
            player = jnp.where(others[self.seat], 1 - first, first) if self._game.num_players == 2 else first
            state, _ = self._answer(state, player, answer_key)
            return (state, player), self._game.observe(state)

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        move_key, answer_key = jax.random.split(key)
        state, player = env_state
        with jax.numpy_rank_promotion("allow"):
            state = self._game.step(state, action, move_key)
            reward = state.rewards[player]
            state, more = self._answer(state, player, answer_key)
            return EnvStep((state, player), self._game.observe(state), reward + more, state.terminated)

    def _answer(self, state: Any, player: Array, key: Array) -> tuple[Any, Array]:
        """The state in which it is the agent's turn, or the game is over, and what the agent got by then. The state is kept
        without its observation, which is much larger and can be made again."""

        def waits(carry: tuple) -> Array:
            state, _, _ = carry
            return (state.current_player != player) & ~state.terminated

        def move(carry: tuple) -> tuple:
            state, reward, key = carry
            key, choice_key, move_key = jax.random.split(key, 3)
            seen = state.replace(observation=self._game.observe(state))
            state = self._game.step(state, choose(self.opponent, self._game, choice_key, seen), move_key)
            return state.replace(observation=()), reward + state.rewards[player], key

        start = (state.replace(observation=()), jnp.zeros((), jnp.float32), key)
        if self._game.num_players == 1:
            return start[:2]
        return jax.lax.while_loop(waits, move, start)[:2]


def names() -> tuple[str, ...]:
    """pgx's games of one or two players, without importing it."""
    return NAMES


def make(name: str, env_params: dict[str, Any]) -> PgxEnv:
    """By pgx's name; ``env_params`` are ``opponent`` and ``seat``."""
    for key in env_params:
        if key not in ("opponent", "seat"):
            raise ValueError(unknown_name(f"env_params of pgx:{name}", key, ("opponent", "seat")))
    return PgxEnv(name, **env_params)
