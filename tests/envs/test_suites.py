"""Suites: registered by prefix, their parameters, and how fast their worlds are shown."""

import gymnax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Clock

import purejaxrl_ext as prx
from purejaxrl_ext.analysis import render
from purejaxrl_ext.envs import make as making


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    monkeypatch.setattr(making, "SUITES", dict(making.SUITES))


def test_a_suite_of_ones_own():
    making.register_suite("toys", lambda name, env_params: Clock(**env_params), names=["clock"])
    algorithm = prx.make("ppo", "toys:clock", env_params={"time_limit": 9})
    assert algorithm.env == Clock(time_limit=9)
    with pytest.raises(ValueError, match="suite"):
        prx.make("ppo", "toy:clock")
    with pytest.raises(ValueError, match="toys:clock"):
        prx.make("ppo", "clock")
    with pytest.raises(ValueError, match="brax:hopper"):
        prx.make("ppo", "hopper")


def test_registered_again_the_later_one_counts():
    making.register_suite("toys", lambda name, env_params: Clock())
    making.register_suite("toys", lambda name, env_params: Clock(truncate_every=int(name)))
    assert prx.make_env("toys:4") == Clock(truncate_every=4)


@pytest.mark.parametrize(
    ("prefix", "make", "words"),
    [
        ("gymnax", lambda name, env_params: Clock(), "prefix='gymnax'.*shipped"),
        ("my toys", lambda name, env_params: Clock(), "prefix='my toys'"),
        ("", lambda name, env_params: Clock(), "prefix=''"),
        ("toys", lambda name: Clock(), "env_params"),
        ("toys", 3, "env_params"),
    ],
)
def test_what_makes_no_suite(prefix, make, words):
    with pytest.raises(ValueError, match=words):
        making.register_suite(prefix, make)


def test_parameters_as_gymnax_has_them():
    """Its ``EnvParams``, of which those that differ from the default are kept, as plain numbers."""
    default = gymnax.make("CartPole-v1")[1]
    env = prx.make_env("CartPole-v1", default.replace(length=jnp.float32(0.75), max_steps_in_episode=np.int64(20)))
    assert env == prx.make_env("CartPole-v1", {"length": 0.75, "max_steps_in_episode": 20})
    assert prx.make_env("CartPole-v1", default) == prx.make_env("CartPole-v1")
    assert env.time_limit == 20
    for wrong, words in (
        (gymnax.make("Acrobot-v1")[1], "unknown env_params of CartPole-v1"),
        (type(default), "a dict of parameters by name, or a gymnax EnvParams"),
        ([("length", 1.0)], "a dict of parameters by name"),
        ({"length": "long"}, "a number"),
    ):
        with pytest.raises(ValueError, match=words):
            prx.make_env("CartPole-v1", wrong)


def test_settings_may_be_numbers_and_arrays_of_numpy_and_jax():
    sizes = {"num_envs": np.int64(2), "num_steps": jnp.int32(8), "hidden_sizes": np.array([8, 4])}
    wrappers = {"observe": np.array([0, 2]), "frame_stack": jnp.int32(2), "sticky_actions": np.float32(0.5)}
    plain = {"num_envs": 2, "num_steps": 8, "hidden_sizes": (8, 4)}
    plain |= {"observe": (0, 2), "frame_stack": 2, "sticky_actions": 0.5}
    algorithm = prx.make("ppo", "CartPole-v1", **sizes, **wrappers)
    assert algorithm.loop is prx.make("ppo", "CartPole-v1", **plain).loop
    assert type(algorithm.config.num_steps) is int


@pytest.mark.parametrize(
    ("name", "settings", "fps"),
    [
        ("mdp:maze", {}, 4.0),
        ("mdp:maze", {"frame_stack": 2}, 4.0),
        ("CartPole-v1", {}, 50.0),
        ("Pendulum-v1", {}, 20.0),
        ("Breakout-MinAtar", {"sign_rewards": True}, 15.0),
        ("FourRooms-misc", {}, 4.0),
    ],
)
def test_pictures_a_second_are_the_worlds_own(name, settings, fps):
    """Steps of a maze cannot be followed at 30 ms each."""
    assert render.frame_rate(prx.make_env(name, **settings)) == fps
