"""What the caller has set around our calls stays outside: a mesh, strict promotion, guards of transfers and of keys."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Clock

import purejaxrl_ext as prx
from purejaxrl_ext.types import Acted

SURROUNDINGS = {
    "mesh": lambda: jax.set_mesh(jax.make_mesh((1,), ("x",))),
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "keys": lambda: jax.debug_key_reuse(True),
    "transfers": lambda: jax.transfer_guard("disallow"),
}


def careless(key):
    """Fails in each of the surroundings."""
    assert jax.sharding.get_abstract_mesh().empty
    once, again = (jax.random.bits(key) for _ in range(2))
    return jnp.int32(1) * jnp.float32(2) + np.ones((), np.float32) + (once == again)


@dataclass(frozen=True)
class World(Clock):
    def reset(self, key):
        careless(key)
        return super().reset(key)


@dataclass(frozen=True)
class Loop:
    """As much of one as ``train`` and ``evaluate`` ask for."""

    steps_per_update: int = 1
    metrics_every: int = 0
    env: World = World()

    def init(self, key, hparams):
        return prx.State((), (), (), key, jnp.zeros((), jnp.int32), memory=careless(key))

    def step(self, state, hparams, measure):
        return state.replace(memory=state.memory + careless(state.key)), {"loss": careless(state.key)}

    def act(self, params, normalizer, obs, noise, hparams, env_steps, memory):
        action = jnp.zeros(len(obs), jnp.int32) + jnp.int32(careless(jax.random.key(0)) < 0)
        return Acted(action, action, (), memory)

    def initial_carry(self, num_envs):
        return ()


ALGORITHM = prx.Algorithm("careless", "clock", Loop(), np.float32(1.0), {}, None)


@pytest.mark.parametrize("around", SURROUNDINGS)
def test_they_do_not_reach_inside(around):
    """Nor are they changed after it. ``jit`` keeps one program for all of them."""
    keys = [jax.random.key(i) for i in range(4)]
    with SURROUNDINGS[around]():
        before = jax.sharding.get_abstract_mesh(), jax.config.jax_numpy_dtype_promotion
        prx.make("sarsa", World())
        state = ALGORITHM.init(keys[0])
        state, _ = ALGORITHM.step(state)
        trained, logged = prx.train(ALGORITHM, keys[1], 3)
        returns = prx.evaluate(ALGORITHM, state, keys[2], num_episodes=1, max_steps=2)
        assert (jax.sharding.get_abstract_mesh(), jax.config.jax_numpy_dtype_promotion) == before
    assert state.memory == 8 and logged["loss"].tolist() == [4.0] * 3 and trained.memory == 16 and returns == 3


def test_training_is_still_a_pure_function():
    """Inside the caller's own ``jit`` and ``vmap``."""
    many = jax.jit(jax.vmap(lambda key: prx.train(ALGORITHM, key, 3)[1]["loss"]))(
        jax.random.split(jax.random.key(0), 2)
    )
    assert many.tolist() == [[4.0] * 3] * 2
