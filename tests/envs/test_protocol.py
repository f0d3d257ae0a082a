"""The protocol of environments: what follows it is one, and what does not is told so."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest
from toys import Clock

import purejaxrl_ext as prx
from purejaxrl_ext import envs


def test_an_object_that_follows_the_protocol_is_an_environment():
    assert isinstance(Clock(), envs.Environment)
    assert prx.make_env(Clock()) == Clock()


OBSERVATIONS = {
    "int": lambda obs: obs.astype(jnp.int32),
    "dict": lambda obs: {"origin": obs[0], "time": obs[1]},
    "tuple": lambda obs: (obs, obs),
    "list": lambda obs: [0.0, 1.0],
    "text": lambda obs: "origin",
    "complex": lambda obs: obs + 1j,
}


@dataclass(frozen=True)
class Wrong(Clock):
    """A Clock with one thing wrong."""

    what: str = ""

    def reset(self, key):
        state, obs = super().reset(key)
        if self.what in OBSERVATIONS:
            return state, OBSERVATIONS[self.what](obs)
        return {"obs alone": obs, "three": (state, obs, {})}.get(self.what, (state, obs))

    def step(self, key, env_state, action):
        step = super().step(key, env_state, action)
        if self.what == "no EnvStep":
            return tuple(step)
        if self.what == "terminated":
            return step._replace(terminated=step.terminated.astype(jnp.float32))
        if self.what == "reward":
            return step._replace(reward=step.reward[None])
        if self.what == "state":
            return step._replace(state=(step.state,))
        return step


@pytest.mark.parametrize(
    ("env", "error", "words"),
    [
        (Wrong(what="int"), TypeError, ["clock", "observation", "int32", "float32"]),
        (Wrong(what="dict"), TypeError, ["clock", "structure", "origin", "time"]),
        (Wrong(what="tuple"), TypeError, ["clock", "structure"]),
        (Wrong(what="list"), TypeError, ["clock", "one array", "a list"]),
        (Wrong(what="text"), TypeError, ["clock", "one array", "a str"]),
        (Wrong(what="complex"), TypeError, ["clock", "numbers", "complex64"]),
        (Wrong(what="obs alone"), TypeError, ["clock", "(env_state, obs)", "one value"]),
        (Wrong(what="three"), TypeError, ["clock", "(env_state, obs)", "3 values"]),
        (Wrong(what="no EnvStep"), TypeError, ["clock", "EnvStep", "tuple"]),
        (Wrong(what="terminated"), TypeError, ["clock", "terminated", "bool"]),
        (Wrong(what="reward"), TypeError, ["clock", "reward", "scalar"]),
        (Wrong(what="state"), TypeError, ["clock", "state", "structure"]),
        (Clock(observation_shape=(3,)), ValueError, ["clock", "(3,)", "(2,)"]),
        (Clock(observation_shape=[2]), ValueError, ["observation_shape=[2]", "tuple of ints"]),
        (Clock(observation_shape={"origin": (), "time": ()}), ValueError, ["observation_shape", "one array"]),
        (Clock(name=None), ValueError, ["name=None", "string"]),
        (Clock(time_limit=0), ValueError, ["time_limit", "0", "positive"]),
        (Clock(action_space=3), ValueError, ["action_space", "3", "prx.Discrete"]),
        (Clock(action_space=prx.Box(("low",), ("high",))), ValueError, ["action_space", "number"]),
        (object(), TypeError, ["no 'name'"]),
        (Clock, TypeError, ["Clock is a class", "Clock(...)"]),
    ],
)
def test_what_does_not_follow_the_protocol_is_refused(env, error, words):
    with pytest.raises(error) as raised:
        prx.make_env(env)
    for word in words:
        assert word in str(raised.value)


class Unhashable(Clock):
    __hash__ = None


def test_an_unhashable_environment_is_refused():
    with pytest.raises(TypeError, match="hashable"):
        prx.make_env(Unhashable())


def test_numbers_of_numpy_are_as_good_as_pythons():
    space = prx.Box((np.float32(0.0),), (np.float64(1.0),))
    env = Clock(time_limit=np.int64(5), observation_shape=(np.int64(2),), action_space=space)
    assert prx.make_env(env) == Clock(time_limit=5, action_space=prx.Box((0.0,), (1.0,)))
