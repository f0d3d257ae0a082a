"""Pictures of board games: the agent's pieces blue, the opponent's orange."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from purejaxrl_ext.envs.drawing import BACKGROUND, BLUE, GREY, ORANGE, Canvas

LETTERS = "?PNBRQK"


def draw_discs(shape: tuple[int, int], state: Any, player: Any) -> np.ndarray:
    """A board of ``shape`` whose cells hold −1 or the colour of who took them; to move is ``state._x.color``."""
    to_move, mine = int(state._x.color), int(state.current_player) == int(player)
    own = to_move if mine else 1 - to_move
    canvas = _board(shape)
    for (row, column), color in np.ndenumerate(np.asarray(state._x.board).reshape(shape)):
        if color >= 0:
            canvas.circle((column + 0.5, shape[0] - row - 0.5), 0.4, BLUE if color == own else ORANGE)
    return np.asarray(canvas.image)


def draw_chess(state: Any, player: Any) -> np.ndarray:
    """The board with the agent below. pgx keeps it as who is to move sees it: columns of squares from his side, his positive."""
    board = np.asarray(state._x.board).reshape(8, 8)
    if int(state.current_player) != int(player):
        board = -board[:, ::-1]
    canvas = _board((8, 8))
    for (column, row), piece in np.ndenumerate(board):
        if piece:
            canvas.circle((column + 0.5, row + 0.5), 0.4, BLUE if piece > 0 else ORANGE)
            canvas.draw.text(canvas.at((column + 0.5, row + 0.5)), LETTERS[abs(piece)], fill=BACKGROUND, anchor="mm")
    return np.asarray(canvas.image)


def _board(shape: tuple[int, int]) -> Canvas:
    height, width = shape
    canvas = Canvas((0.0, 0.0), (float(width), float(height)))
    for row in range(height):
        for column in range(width):
            if (row + column) % 2:
                canvas.box((column, row), (column + 1, row + 1), GREY)
    return canvas


# By pgx's name: ``(state, player) -> [H, W, 3]`` uint8.
DRAWINGS: dict[str, Callable[[Any, Any], np.ndarray]] = {
    "connect_four": lambda state, player: draw_discs((6, 7), state, player),
    "tic_tac_toe": lambda state, player: draw_discs((3, 3), state, player),
    "chess": draw_chess,
}
