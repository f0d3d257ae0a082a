"""The suite of tabular MDPs as environments for every loop: ``"mdp:maze"``, and one of your own, ``TabularEnv(make_mdp(...))``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.envs.base import EnvStep
from purejaxrl_ext.envs.drawing import draw_cells
from purejaxrl_ext.envs.mdps import (
    CHEESE,
    CLIFF,
    MDP,
    SMALL,
    cliff_walking,
    draw,
    gridworld,
    map_array,
    maze,
    random_walk,
    read_map,
    recycling_robot,
    wall_observations,
)
from purejaxrl_ext.errors import check, unknown_name
from purejaxrl_ext.types import Array, Discrete


@dataclass(frozen=True, eq=False)
class TabularEnv:
    """An MDP as an environment for every loop. Two of equal arrays are equal, and share compiled programs.

    Attributes:
        mdp: what happens.
        observations: ``[S, ...]`` what the agent sees in each state; None: the state, one-hot.
        time_limit: steps after which the loop truncates an episode; None: never.
        name: for results and messages.
        map: the grid that the states are cells of (:func:`read_map`), for its picture; None: they are drawn in a row.
    """

    mdp: MDP = field(repr=False)
    observations: Any = field(default=None, repr=False)
    time_limit: int | None = None
    name: str = "mdp"
    map: str | Sequence[str] | None = field(default=None, repr=False)

    fps = 4.0  # slow enough to follow each step

    def __post_init__(self) -> None:
        # On the host: its bytes say which environment it is, and a trace takes it as a constant.
        object.__setattr__(self, "mdp", jax.tree.map(np.asarray, self.mdp))
        size = self.mdp.num_states
        table = np.eye(size, dtype=np.float32) if self.observations is None else np.asarray(self.observations)
        object.__setattr__(self, "observations", table)
        check(table.ndim >= 1 and len(table) == size, "observations", table.shape, f"of shape [{size}, ...]")
        cells = size if self.map is None else len(read_map(self.map).cells)
        check(cells == size, "map", self.map, f"of {size} cells, one for each state")

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self.observations.shape[1:]

    @property
    def action_space(self) -> Discrete:
        return Discrete(self.mdp.num_actions)

    @functools.cached_property
    def _identity(self) -> tuple:
        arrays = [*jax.tree.leaves(self.mdp), self.observations]
        return self.name, self.time_limit, str(self.map), *((x.shape, x.dtype.str, x.tobytes()) for x in arrays)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TabularEnv) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def reset(self, key: Array) -> tuple[Array, Array]:
        state = draw(jnp.asarray(self.mdp.initial), jax.random.uniform(key))
        return state, jnp.asarray(self.observations)[state]

    def step(self, key: Array, env_state: Array, action: Array) -> EnvStep:
        mdp = jax.tree.map(jnp.asarray, self.mdp)
        state = draw(mdp.transition[env_state, action], jax.random.uniform(key))
        observation = jnp.asarray(self.observations)[state]
        return EnvStep(state, observation, mdp.reward[env_state, action, state], mdp.terminal[state])

    def render(self, env_state: Any) -> np.ndarray:
        """``[H, W, 3]`` uint8: the agent a blue disc; terminal states green, walls grey, cliffs orange, floor white."""
        if self.map is None:
            chars = np.where(self.mdp.terminal, "G", ".")[None]
            cells = np.argwhere(chars != "#")
        else:
            chars, cells = map_array(self.map), read_map(self.map).cells
        return draw_cells(chars, cells[int(env_state)])


class Shipped(NamedTuple):
    """An environment by name: what makes its MDP, the default time limit and map, and what makes its observations."""

    mdp: Callable[..., MDP]
    time_limit: int
    map: str | None = None
    observations: Callable[..., Any] = lambda **_: None


SHIPPED: dict[str, Shipped] = {
    "recycling_robot": Shipped(recycling_robot, 100),
    "random_walk": Shipped(random_walk, 1000),
    "gridworld": Shipped(gridworld, 100, SMALL),
    "cliff_walking": Shipped(cliff_walking, 500, CLIFF),
    "maze": Shipped(maze, 100, CHEESE, wall_observations),
    "maze_observed": Shipped(maze, 100, CHEESE),
}


def names() -> tuple[str, ...]:
    """Those of the shipped MDPs, without the prefix."""
    return tuple(SHIPPED)


def make(name: str, env_params: dict[str, Any] | None = None) -> TabularEnv:
    """A shipped MDP as an environment.

    Args:
        name: a key of ``SHIPPED``.
        env_params: arguments of the function that makes the MDP, and ``time_limit`` (None: none).

    Raises:
        ValueError: an unknown name or argument.
    """
    if name not in SHIPPED:
        raise ValueError(unknown_name("tabular MDP", name, SHIPPED))
    shipped, params = SHIPPED[name], dict(env_params or {})
    known = [*inspect.signature(shipped.mdp).parameters, "time_limit"]
    for key in params:
        if key not in known:
            raise ValueError(unknown_name(f"env_params of mdp:{name}", key, known))
    time_limit = params.pop("time_limit", shipped.time_limit)
    drawn = params.get("map", shipped.map)
    return TabularEnv(shipped.mdp(**params), shipped.observations(**params), time_limit, f"mdp:{name}", drawn)
