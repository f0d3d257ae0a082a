"""What is in the programs that XLA is given, read before it compiles them: a sweep's chunk of updates, two seeds of each arm."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from toys import TWO, Clock, equations, tiny

from purejaxrl_ext.sweeps.program import lay_out, side_by_side


def primitives(algorithm):
    """The names of a chunk's operations."""
    runs = lay_out(algorithm, [0, 1], {"learning_rate": [1e-3, 1e-2]})
    chunk, count = side_by_side(algorithm, runs), len(runs.keys)
    state = jax.eval_shape(chunk.init, runs.keys, runs.hparams)
    never, scalar = jax.ShapeDtypeStruct((count,), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32)
    program = jax.make_jaxpr(chunk.chunk)(state, never, runs.hparams, scalar, scalar)
    return {equation.primitive.name for equation in equations(program.jaxpr)}


def callbacks(names):
    return {name for name in names if "callback" in name or "debug" in name or "feed" in name}


@pytest.mark.parametrize(
    ("name", "settings"), [("ppo", {}), ("reinforce", {}), ("pqn", {"memory": "gru"}), ("dqn", {})]
)
def test_nothing_calls_back_from_inside_a_loop(name, settings):
    """Callbacks inside a vmapped loop are unordered and slow; progress and logs are between chunks (pitfalls 16)."""
    assert not callbacks(primitives(tiny(name, **settings)))


@dataclass(frozen=True)
class Talkative(Clock):
    def step(self, key, env_state, action):
        jax.debug.callback(lambda time: None, env_state[1])
        return super().step(key, env_state, action)


def test_callbacks_of_the_environment_are_found_by_that():
    assert callbacks(primitives(tiny("sarsa", Talkative())))


@dataclass(frozen=True)
class Image(Clock):
    """A Clock that shows its time in a corner of a black image."""

    observation_shape: tuple[int, ...] = (4, 4, 2)
    action_space: Any = TWO

    def reset(self, key):
        state, _ = super().reset(key)
        return state, jnp.zeros(self.observation_shape)

    def step(self, key, env_state, action):
        step = super().step(key, env_state, action)
        return step._replace(obs=jnp.zeros(self.observation_shape).at[0, 0, 0].set(step.state[1]))


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_an_image_networks_update_holds_no_convolution(name):
    """XLA on CPUs runs them 10 to 16 times slower than patches times a matrix, vmapped or in a scan (pitfalls 29)."""
    algorithm = tiny(name, Image(), conv_layers=((3, 2, 1), (3, 2, 1)))
    kernels = [x.shape for x in jax.tree.leaves(jax.eval_shape(algorithm.init, jax.random.key(0)).params)]
    assert (2, 2, 2, 3) in kernels and (2, 2, 3, 3) in kernels
    assert CONVOLUTION not in primitives(algorithm)


CONVOLUTION = "conv_general_dilated"


def test_a_convolution_is_found_by_that():
    module, obs = nn.Conv(3, (2, 2)), jnp.zeros((1, 4, 4, 2))
    program = jax.make_jaxpr(lambda key: module.init_with_output(key, obs)[0])(jax.random.key(0))
    assert CONVOLUTION in {equation.primitive.name for equation in equations(program.jaxpr)}
