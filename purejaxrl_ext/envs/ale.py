"""The suite of the Arcade Learning Environment (Bellemare et al. 2013; ale-py): Atari's games, ``"ale:Phoenix"``, on the host.

A step is ``frameskip`` frames under one action; what is seen are the last ``stack_num`` of them, 84 × 84 grey uint8, each the
maximum of two frames, ``[84, 84, stack_num]``. What is a matter of protocol is chosen here, never ale-py's default:

    repeat_action_probability   0.25   sticky actions (Machado et al. 2018)
    frameskip                   4
    noop_max                    30     up to so many frames without an action at the start
    full_action_space           False  the game's own actions
    max_num_frames              108,000, half an hour, where episodes are truncated: ``time_limit`` = max_num_frames / frameskip
    reward                      the game's score, as it is; ``sign_rewards=True`` gives the agent its sign
    lives                       no end at a loss of life, no FIRE pressed by itself

``env_params`` change them. See :mod:`~purejaxrl_ext.envs.host` for what of an emulator a State holds.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.envs.host import HostEnv
from purejaxrl_ext.envs.pools import Pools
from purejaxrl_ext.errors import check, is_int, unknown_name
from purejaxrl_ext.types import Array, Discrete, PyTree

NAMES = (
    *("Alien", "Amidar", "Assault", "Asterix", "BankHeist", "BattleZone", "Boxing", "Breakout", "ChopperCommand"),
    *("CrazyClimber", "DemonAttack", "Freeway", "Frostbite", "Gopher", "Gravitar", "Hero", "Jamesbond", "Kangaroo"),
    *("Krull", "KungFuMaster", "MontezumaRevenge", "MsPacman", "NameThisGame", "Phoenix", "Pong", "PrivateEye"),
    *("Qbert", "RoadRunner", "Seaquest", "SpaceInvaders", "UpNDown", "Venture", "VideoPinball"),
)
DEFAULTS: dict[str, Any] = {
    "repeat_action_probability": 0.25,
    "frameskip": 4,
    "noop_max": 30,
    "full_action_space": False,
    "max_num_frames": 108_000,
    "stack_num": 4,
}
# ale-py's other choices are none of a user's: a game that is asked to begin again after a lost life would begin with all lives.
FIXED: dict[str, Any] = {"reward_clipping": False, "episodic_life": False, "use_fire_reset": False}
Params = tuple[tuple[str, Any], ...]


def _ale() -> Any:
    try:
        import ale_py.roms
        import ale_py.vector_env
    except ImportError as error:
        raise ImportError(
            "environments of ale need it: pip install ale-py, or in a checkout pip install -e '.[atari]'"
        ) from error
    return ale_py


class Emulators:
    """A pool of one game, as :class:`~purejaxrl_ext.envs.pools.HostPool` has it."""

    def __init__(self, rom: str, params: Params, seeds: np.ndarray) -> None:
        options = {key: value for key, value in params if key != "max_num_frames"}
        # Not ale-py's own limit, which counts the frames before the first action: the pools have ours.
        options["max_num_frames_per_episode"] = 2**30
        self.seeds = seeds
        self.vector = _ale().vector_env.AtariVectorEnv(rom, len(seeds), **FIXED, **options)

    def first(self) -> PyTree:
        """Begin all episodes."""
        return self.vector.reset(seed=self.seeds.astype(np.int64))[0]

    def send(self, action: np.ndarray) -> None:
        """Begin a step."""
        self.vector.send(np.ascontiguousarray(action, np.int32))

    def receive(self) -> tuple[PyTree, np.ndarray, np.ndarray, np.ndarray]:
        """End it."""
        return self.vector.recv()[:4]

    def again(self, over: np.ndarray) -> PyTree:
        """Begin the next episodes where ``over``."""
        return self.vector.reset(options={"reset_mask": over})[0]


@functools.cache
def _pools(rom: str, params: Params, time_limit: int) -> Pools:
    return Pools(lambda seeds: Emulators(rom, params, seeds), time_limit, most=1024)


@dataclass(frozen=True)
class AtariEnv(HostEnv):
    """A game of Atari.

    Attributes:
        game: as in ``"MsPacman"``.
        params: sorted pairs, all of ``DEFAULTS``.
    """

    game: str
    params: Params = tuple(sorted(DEFAULTS.items()))

    @property
    def name(self) -> str:
        return f"ale:{self.game}"

    @property
    def repeats_actions(self) -> bool:
        """Whether actions are sticky already."""
        return dict(self.params)["repeat_action_probability"] > 0

    @property
    def time_limit(self) -> int:
        """In steps."""
        return dict(self.params)["max_num_frames"] // dict(self.params)["frameskip"]

    @property
    def pools(self) -> Pools:
        """Those of this environment in this process."""
        return _pools(_rom(self.game), self.params, self.time_limit)

    @functools.cached_property
    def action_space(self) -> Discrete:
        made = Emulators(_rom(self.game), self.params, np.zeros(1, np.int32))
        return Discrete(int(made.vector.single_action_space.n))

    def see(self, obs: Array) -> Array:
        """Frames last."""
        return jnp.moveaxis(obs, 0, -1)

    def render(self, env_state: PyTree) -> np.ndarray:
        """``[H, W, 3]`` uint8: the last frame as the agent sees it, twice as large."""
        return np.repeat(np.asarray(env_state[1])[-1].repeat(2, 0).repeat(2, 1)[..., None], 3, axis=-1)


def _rom(game: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in game).lstrip("_")


def names() -> tuple[str, ...]:
    """The best known games, for suggestions, without importing ale-py; :func:`make` takes all whose ROMs it brings."""
    return NAMES


def _games() -> list[str]:
    return sorted("".join(word.capitalize() for word in rom.split("_")) for rom in _ale().roms.get_all_rom_ids())


def make(name: str, env_params: dict[str, Any]) -> AtariEnv:
    """By the game's name, ``"MsPacman"``; ``env_params`` as the module's docstring has them."""
    games = _games()
    if name not in games:
        raise ValueError(unknown_name("game of ale", name, games))
    for key in env_params:
        if key not in DEFAULTS:
            raise ValueError(unknown_name(f"env_params of ale:{name}", key, DEFAULTS))
    params = DEFAULTS | env_params
    for key in ("frameskip", "stack_num", "max_num_frames"):
        check(is_int(params[key]) and params[key] > 0, f"env_params[{key!r}]", params[key], "a positive int")
    sticky = params["repeat_action_probability"]
    check(0.0 <= sticky < 1.0, "env_params['repeat_action_probability']", sticky, "a probability in [0, 1)")
    return AtariEnv(name, tuple(sorted(params.items())))
