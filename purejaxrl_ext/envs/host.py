"""Environments on the host, in Python or C++, inside the compiled loops: one callback a step for all environments of all seeds.

What is pure here is the handle. An environment's state says where it is (:class:`~purejaxrl_ext.envs.pools.Place`), and the next
step needs the state that the last one gave, so order follows from the data, in whatever order callbacks of different
environments come, and with several devices.

- The innermost vmap is a pool: N environments of one run, those of S runs in S pools that step side by side.
- An environment's seed comes from the key and is that of all its episodes: runs repeat exactly, whatever runs beside them.
- Libraries that reset at the next step, whose action they ignore, are made to reset at once. So the next episode's first
  observation is here already, and the loops ask for it by ``renew`` instead of drawing fresh states.
- Pools are not saved. Where a state's pool is not there (a run resumed in another process, or a state that was stepped twice),
  its episodes are cut: no reward, truncated at the observation last seen. A warning says so once.
- ``evaluate`` vmapped over states is refused by JAX, whose batched while loops take no callbacks; one state at a time works.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.envs.base import EnvStep
from purejaxrl_ext.envs.folding import on_host
from purejaxrl_ext.envs.pools import FRESH, Place, Pools, Told
from purejaxrl_ext.errors import check
from purejaxrl_ext.types import Array, PyTree


class HostEnv:
    """An environment on the host, one of a pool; what a suite adds is ``name``, ``action_space``, ``time_limit`` and ``pools``."""

    @property
    def name(self) -> str:
        """Suite and name."""
        raise NotImplementedError

    @property
    def pools(self) -> Pools:
        """Those of this environment in this process."""
        raise NotImplementedError

    def see(self, obs: PyTree) -> PyTree:
        """What the agent sees of a library's observation."""
        return obs

    @functools.cached_property
    def _kinds(self) -> PyTree:
        """Shapes of the library's observation."""
        first = self.pools.reset(np.zeros(1, np.int32))
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), first)

    @functools.cached_property
    def observation_shape(self) -> Any:
        return getattr(jax.eval_shape(self.see, self._kinds), "shape", None)

    def reset(self, key: Array) -> tuple[PyTree, Array]:
        seed = (jax.random.bits(key) >> 1).astype(jnp.int32)
        obs, zero = self._first(seed), jnp.int32(0)
        return (Place(seed, jnp.int32(FRESH), zero, zero), obs), self.see(obs)

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        place, before = env_state
        place, told = self._next(place, action)
        # Only what is small goes to the host.
        final = jax.tree.map(lambda old, new: jnp.where(told.lost, old, new), before, told.final)
        return EnvStep((place, told.obs), self.see(final), told.reward, told.terminated, told.truncated)

    def renew(self, env_state: PyTree) -> tuple[PyTree, Array]:
        """The next episode, which has begun where ``step`` ended one."""
        return env_state, self.see(env_state[1])

    @functools.cached_property
    def _first(self) -> Any:
        return on_host(lambda seed: self.pools.reset(np.asarray(seed)), self._kinds, self._check)

    @functools.cached_property
    def _next(self) -> Any:
        def step(place: Place, action: Any) -> tuple[Place, Told]:
            return self.pools.step(jax.tree.map(np.asarray, place), np.asarray(action))

        number, flag = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), bool)
        told = Told(self._kinds, self._kinds, jax.ShapeDtypeStruct((), jnp.float32), flag, flag, flag)
        return on_host(step, (Place(number, number, number, number), told), self._check)

    def _check(self, lead: tuple[int, ...]) -> None:
        """Raise where so many are more than this process keeps."""
        count, most = int(np.prod(lead)), self.pools.most
        where = f"environments of {self.name} side by side (num_envs times runs: grid cells and seeds)"
        check(count <= most, where, count, f"at most {most} in one program: a smaller num_envs, wave_size= or grid")
