"""Tabular Markov decision processes: arrays that can be solved exactly, vmapped, and acted in like any environment.

    P[s, a, s']   probability of the successor s' after action a in state s       (Sutton & Barto 2018, section 3.1)
    R[s, a, s']   expected reward of that transition                              (eq. 3.6)

An :class:`MDP` is a pytree: vmap it over its parameters. :class:`TabularEnv` makes one an environment for the loops. By name,
through :func:`~purejaxrl_ext.envs.make.make_env`: ``"mdp:recycling_robot"``, ``"mdp:random_walk"``, ``"mdp:gridworld"``,
``"mdp:cliff_walking"``, ``"mdp:maze"`` and ``"mdp:maze_observed"``, with ``env_params`` for the arguments of the function here.
Axis letter: S states (elsewhere seeds).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from purejaxrl_ext.errors import check
from purejaxrl_ext.types import Array, PyTree


class MDP(struct.PyTreeNode):
    """A finite MDP; :func:`make_mdp` makes one and checks it.

    Attributes:
        transition: ``[S, A, S]`` P; a terminal state's rows lead to itself.
        reward: ``[S, A, S]`` R; 0 in a terminal state.
        initial: ``[S]`` distribution of an episode's first state; 0 at terminal states.
        terminal: ``[S]`` bool, where an episode ends.
    """

    transition: Array
    reward: Array
    initial: Array
    terminal: Array

    @property
    def num_states(self) -> int:
        """S."""
        return self.transition.shape[-1]

    @property
    def num_actions(self) -> int:
        """A."""
        return self.transition.shape[-2]


def make_mdp(transition: Any, reward: Any, initial: Any, terminal: Any) -> MDP:
    """An MDP of arrays shaped as in :class:`MDP`. While they are traced only their shapes are checked.

    Raises:
        ValueError: a shape that does not fit; a row of P or ``initial`` that is no distribution; an entry of R that is not
            finite; a terminal state that is left, rewards or is begun in. State, action and value are named.
    """
    transition, reward, initial = (jnp.asarray(x, jnp.float32) for x in (transition, reward, initial))
    mdp = MDP(transition, reward, initial, jnp.asarray(terminal, jnp.bool_))
    shape = mdp.transition.shape
    ok = len(shape) == 3 and shape[0] == shape[2] and min(shape) > 0
    check(ok, "transition", shape, "of shape [S, A, S]")
    check(mdp.reward.shape == shape, "reward", mdp.reward.shape, f"of the transition's shape {shape}")
    for name in ("initial", "terminal"):
        check(getattr(mdp, name).shape == shape[:1], name, getattr(mdp, name).shape, f"of shape ({shape[0]},)")
    if is_concrete(mdp):
        _check_values(mdp)
    return mdp


def is_concrete(*trees: PyTree) -> bool:
    """Whether all values are known, that is, none is traced."""
    return not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(trees))


def check_distributions(name: str, rows: Any) -> None:
    """Raise ``ValueError``, naming the row, unless each row of ``[..., K]`` is non-negative and sums to 1 (within 1e-4)."""
    rows = np.asarray(rows, np.float64)
    for index in np.argwhere(~(rows >= 0.0)):
        check(False, f"{name}{index.tolist()}", float(rows[tuple(index)]), "0 or greater")
    sums = rows.sum(-1)
    for index in np.argwhere(~(np.abs(sums - 1.0) < 1e-4)):
        where = index.tolist() if len(index) else ""
        check(False, f"sum of {name}{where}", float(f"{sums[tuple(index)]:.6g}"), "1: each row is a distribution")


def _check_values(mdp: MDP) -> None:
    check_distributions("transition", mdp.transition)
    check_distributions("initial", mdp.initial)
    reward = np.asarray(mdp.reward)
    for index in np.argwhere(~np.isfinite(reward)):
        check(False, f"reward{index.tolist()}", float(reward[tuple(index)]), "finite")
    for s in np.flatnonzero(mdp.terminal):
        stays = np.asarray(mdp.transition)[s, :, s]
        check(bool((stays > 1.0 - 1e-4).all()), f"transition[{s}, :, {s}]", stays.tolist(), "1 in a terminal state")
        check(not reward[s].any(), f"reward[{s}]", reward[s].tolist(), "0 in a terminal state")
        check(float(mdp.initial[s]) == 0.0, f"initial[{s}]", float(mdp.initial[s]), "0 in a terminal state")


def draw(probabilities: Array, uniform: Array) -> Array:
    """An index, int32 scalar, from ``[K]`` probabilities and a uniform number in [0, 1): the inverse distribution function.

    What has probability 0 is never drawn, even where the rounded sum is not quite 1.
    """
    cumulative = jnp.cumsum(probabilities)
    return jnp.sum(uniform * cumulative[-1] >= cumulative, dtype=jnp.int32)


# ---------------------------------------------------------------------------------------------------------------------
# The recycling robot and random walks
# ---------------------------------------------------------------------------------------------------------------------

HIGH, LOW = 0, 1
SEARCH, WAIT, RECHARGE = 0, 1, 2


def recycling_robot(
    alpha: Any = 0.8, beta: Any = 0.6, search_reward: Any = 2.0, wait_reward: Any = 1.0, depleted_reward: Any = -3.0
) -> MDP:
    """The recycling robot (Sutton & Barto 2018, example 3.3): states high, low; actions search, wait, recharge. Never ends.

    Search keeps the battery high with probability α, and low with β; else it falls to low, or runs flat: the robot is rescued,
    ``depleted_reward``, and high again. The book has no recharge at high, where it would be foolish; here it does nothing, for 0.
    All arguments may be traced, and so vmapped.

    Raises:
        ValueError: α or β outside [0, 1].
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        check(not is_concrete(value) or 0.0 <= value <= 1.0, name, value, "a probability in [0, 1]")
    stay = jnp.eye(2)
    search = jnp.stack([jnp.stack([alpha, 1.0 - jnp.asarray(alpha)]), jnp.stack([1.0 - jnp.asarray(beta), beta])])
    recharge = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    search_rewards = jnp.stack([jnp.stack([search_reward, search_reward]), jnp.stack([depleted_reward, search_reward])])
    wait_rewards = jnp.broadcast_to(jnp.asarray(wait_reward, jnp.float32), (2, 2))
    return make_mdp(
        jnp.stack([search, stay, recharge], axis=1),
        jnp.stack([search_rewards, wait_rewards, jnp.zeros((2, 2))], axis=1),
        initial=[1.0, 0.0],
        terminal=[False, False],
    )


def random_walk(num_states: int = 19, left_reward: Any = -1.0, right_reward: Any = 1.0) -> MDP:
    """The random walk (Sutton & Barto 2018, example 7.1) for the policy that takes both actions, left and right, alike.

    States 1 … ``num_states`` in a row, a terminal state at either end (0 and ``num_states`` + 1), begun in the middle. Example
    6.2 is ``random_walk(5, left_reward=0.0)``.
    """
    check(num_states >= 1, "num_states", num_states, "at least 1")
    size = num_states + 2
    states = np.arange(size)
    terminal = (states == 0) | (states == size - 1)
    successor = np.where(terminal[:, None], states[:, None], states[:, None] + np.array([[-1, 1]]))
    reward = jnp.zeros((size, 2, size)).at[1, 0, 0].set(left_reward).at[size - 2, 1, size - 1].set(right_reward)
    return make_mdp(np.eye(size)[successor], reward, np.eye(size)[size // 2], terminal)


# ---------------------------------------------------------------------------------------------------------------------
# Grids
# ---------------------------------------------------------------------------------------------------------------------

NORTH, EAST, SOUTH, WEST = 0, 1, 2, 3
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # rows grow southwards

SMALL = "S...\n.#.X\n...G"
CLIFF = "............\n............\n............\nSXXXXXXXXXXG"
CHEESE = "SSSSS\nS#S#S\nS#G#S"


class Grid(NamedTuple):
    """A map read into cells.

    Attributes:
        cells: ``[S, 2]`` row and column of each state, in reading order.
        kind: ``[S]`` the map's characters there.
        target: ``[S, 4]`` the state that each move leads to, or −1 for a cliff.
        walls: ``[S, 4]`` bool, whether a wall or the edge is to the north, east, south and west.
    """

    cells: np.ndarray
    kind: np.ndarray
    target: np.ndarray
    walls: np.ndarray


def map_array(text: str | Sequence[str]) -> np.ndarray:
    """A map as an array ``[H, W]`` of characters; rows must be of one length."""
    rows = text.split("\n") if isinstance(text, str) else list(text)
    check(len({len(row) for row in rows}) == 1, "map", text, "of rows of one length")
    return np.array([list(row) for row in rows])


def read_map(text: str | Sequence[str]) -> Grid:
    """Read a map: ``S`` start, ``G`` goal, ``.`` floor, ``#`` wall, ``X`` cliff; a string or a sequence of rows.

    Raises:
        ValueError: another character, rows of unequal length, no start or no goal, or a cell that no start leads to.
    """
    inside = map_array(text)
    for char in inside.ravel():
        check(char in "SG.#X", "map", str(char), "made of S (start), G (goal), . (floor), # (wall) and X (cliff)")
    chars = np.pad(inside, 1, constant_values="#")
    cells = np.argwhere(np.isin(chars, list("SG.")))
    number = np.full(chars.shape, -1)
    number[tuple(cells.T)] = np.arange(len(cells))
    kind = chars[tuple(cells.T)]
    for char in "SG":
        check(char in kind, "map", text, f"with at least one {char}")
    beside = tuple(np.moveaxis(cells[:, None] + np.array(MOVES)[None], -1, 0))
    walls = chars[beside] == "#"
    target = np.where(walls, np.arange(len(cells))[:, None], number[beside])
    seen = kind == "S"
    for _ in cells:
        ahead = target[seen & (kind != "G")]
        seen[ahead[ahead >= 0]] = True
    for row, column in cells[~seen] - 1:
        check(False, "map", text, f"a map whose every cell a start leads to, unlike row {row}, column {column}")
    return Grid(cells - 1, kind, target, walls)


def gridworld(
    map: str | Sequence[str] = SMALL,
    slip: Any = 0.0,
    step_reward: Any = -1.0,
    goal_reward: Any = 0.0,
    cliff_reward: Any = -100.0,
) -> MDP:
    """A grid to be crossed by moves north, east, south and west; a move into a wall or the edge goes nowhere.

    Every move brings ``step_reward``, one into a goal ``goal_reward`` besides, and the episode ends there. One over a cliff
    brings ``cliff_reward`` alone, and the agent is put back to a start. A start is drawn uniformly.

    Args:
        map: see :func:`read_map`.
        slip: probability of moving at a right angle instead, either way alike. R is then an expectation: of the step's and the
            cliff's reward where both lead to the start.
        step_reward, goal_reward, cliff_reward: may be traced, and so may ``slip``.
    """
    check(not is_concrete(slip) or 0.0 <= slip <= 1.0, "slip", slip, "a probability in [0, 1]")
    grid = read_map(map)
    initial = (grid.kind == "S") / np.sum(grid.kind == "S")
    terminal = grid.kind == "G"
    over = ((grid.target < 0) & ~terminal[:, None])[..., None]
    walked = np.where(terminal[:, None, None], 0.0, np.eye(len(terminal))[grid.target] * ~over)
    fallen = over * initial[None, None]

    def slipped(moved: np.ndarray) -> Array:
        aside = np.roll(moved, 1, axis=1) + np.roll(moved, -1, axis=1)
        return (1.0 - slip) * jnp.asarray(moved, jnp.float32) + 0.5 * slip * jnp.asarray(aside, jnp.float32)

    walk_reward = step_reward + goal_reward * jnp.asarray(terminal, jnp.float32)[None, None]
    going = slipped(walked + fallen)
    reward = (slipped(walked) * walk_reward + slipped(fallen) * cliff_reward) / jnp.where(going > 0.0, going, 1.0)
    absorbing = np.eye(len(terminal))[:, None] * terminal[:, None, None]
    return make_mdp(going + jnp.asarray(absorbing, jnp.float32), reward, initial, terminal)


def cliff_walking() -> MDP:
    """Cliff walking (Sutton & Barto 2018, example 6.6): −1 per step, −100 and back to the start for the cliff.

    4 × 12 cells without the cliff's: states in reading order, 36 the start and 37 the goal.
    """
    return gridworld(CLIFF)


def maze(map: str | Sequence[str] = CHEESE, slip: Any = 0.0, step_reward: Any = 0.0, goal_reward: Any = 1.0) -> MDP:
    """A robot in a maze, 1 for reaching the goal; by default the cheese maze (McCallum 1995, section 3.1)::

        SSSSS       begun anywhere but in the goal, uniformly
        S#S#S
        S#G#S

    ``"mdp:maze"`` shows only the four walls around the robot (:func:`wall_observations`), ``"mdp:maze_observed"`` the cell. In the
    three cells with a wall to the east and one to the west, the middle one wants south and the others north; in the two
    cells with a wall to the north and one to the south, the left one wants east and the other west. They look alike, so what
    to do depends on where the robot has come from: a policy without memory that goes one way at sight of them walks to and
    fro for ever from about half of the starts. With γ = 0.95 the best such policy has J = 0.371, the optimal one 0.865.
    """
    return gridworld(map, slip, step_reward, goal_reward)


def wall_observations(map: str | Sequence[str] = CHEESE, **_: Any) -> np.ndarray:
    """``[S, 4]`` float32: 1 for a wall to the north, east, south, west."""
    return read_map(map).walls.astype(np.float32)
