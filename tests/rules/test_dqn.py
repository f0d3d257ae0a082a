"""DQN's loop: what the replay holds, what the compiled program does with it, and what it learns."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Clock, equal_trees, tiny

import purejaxrl_ext as prx
from purejaxrl_ext.sweeps import program

VARIANTS: tuple[dict[str, Any], ...] = ({}, {"double": True, "dueling": True, "n_step": 2, "prioritized": True})


def test_replay_holds_the_true_next_observation():
    """Clock's successor adds 1 to t: at an episode's end too, where a reset observation would have t = 0."""
    algorithm = tiny("dqn", Clock(time_limit=3, terminate_at=2), replay_capacity=31, prefill_steps=10)
    state = algorithm.init(jax.random.key(0))
    for _ in range(5):
        state, _ = algorithm.step(state)
    ring = state.replay.transitions
    np.testing.assert_allclose(ring.next_obs[:, 0], ring.obs[:, 0])
    np.testing.assert_allclose(ring.next_obs[:, 1], ring.obs[:, 1] + 1)
    truncated, terminated = np.asarray(ring.truncated), np.asarray(ring.terminated)
    assert truncated.any() and terminated.any() and not (truncated & terminated).any()
    assert set(np.asarray(ring.next_obs[:, 1])[truncated]) == {3.0}


def test_replay_keeps_minatar_as_bool():
    algorithm = tiny("dqn", "Breakout-MinAtar")
    held = jax.eval_shape(lambda key: algorithm.init(key).replay.transitions, jax.random.key(0))
    assert held.obs.dtype == held.next_obs.dtype == jnp.bool_
    assert held.obs.shape == (50, 10, 10, 4)


@pytest.mark.optimized
@pytest.mark.parametrize("variant", VARIANTS, ids=["plain", "all"])
@pytest.mark.parametrize(("capacity", "metrics_every"), [(1112, 4), (1117, 0)], ids=["aligned", "wrapping"])
def test_compiled_loop_neither_copies_nor_selects_the_replay(variant, capacity, metrics_every):
    """An index batched by vmap, or a cond over the ring, shows as a copy, a select or a whole-ring scatter of another shape."""
    settings = {"updates_per_step": 3, "prefill_steps": 200, "batch_size": 16, "env_steps_per_update": 4}
    algorithm = tiny("dqn", replay_capacity=capacity, metrics_every=metrics_every, **settings | variant)
    runs = program.lay_out(algorithm, list(range(2 * jax.local_device_count())), {})
    names = program.side_by_side(algorithm, runs).names
    text = program.program(algorithm.loop, runs.axes, names, runs.devices, 0, len(runs.keys)).chunk.as_text()
    # Instructions whose result is as long as the ring.
    of_ring = re.findall(rf"= \w+\[(?:\d+,)*{capacity}(?:,\d+)*\]\S* ([\w-]+)\(", text)
    assert "get-tuple-element" in of_ring
    assert not {"copy", "select", "transpose", "concatenate", "broadcast"} & set(of_ring), sorted(set(of_ring))


def test_seeds_differ_in_network_exploration_and_batches():
    algorithm = tiny("dqn", epsilon_start=1.0, epsilon_end=1.0)
    states = [algorithm.init(jax.random.key(s)) for s in range(2)]
    first = [jax.tree.leaves(s.params)[1] for s in states]
    assert not np.allclose(*first)
    assert not np.array_equal(*(s.replay.transitions.action for s in states))
    # Equal data and networks, other keys: what is explored and drawn differs.
    twin = states[0].replace(key=jax.random.key(99))
    after = [algorithm.step(s)[0] for s in (states[0], twin)]
    assert not np.array_equal(*(s.replay.transitions.action for s in after))
    assert not np.allclose(*(jax.tree.leaves(s.params)[1] for s in after))


def test_one_row_is_many_updates():
    algorithm = tiny("dqn", target_period=6, updates_per_step=4)
    assert algorithm.steps_per_update == 4 * 2
    start = algorithm.init(jax.random.key(0))
    once, metrics = algorithm.step(start)
    assert int(once.update) == 1 and metrics["loss"].shape == ()
    # Updates 1 … 4 copy nothing; update 6, the second of the next row, copies the network as it is then.
    equal_trees(once.target_params, start.params)
    twice, _ = algorithm.step(once)
    assert not trees_equal(twice.target_params, start.params)
    assert not trees_equal(twice.target_params, twice.params)
    every = tiny("dqn", target_period=1)
    after, _ = every.step(every.init(jax.random.key(0)))
    equal_trees(after.target_params, after.params)


def trees_equal(a: Any, b: Any) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: bool(jnp.array_equal(x, y)), a, b))


@dataclass(frozen=True)
class Corridor:
    """States 0 … 3; action 1 goes on and pays 1 when it leaves the last, action 0 stays. Known Q*: γ^(3 − s) for going on."""

    name: str = "corridor"
    observation_shape: tuple[int, ...] = (4,)
    action_space: Any = prx.Discrete(2)
    time_limit: int | None = 20

    def _obs(self, s):
        return jax.nn.one_hot(s, 4)

    def reset(self, key):
        s = jax.random.randint(key, (), 0, 4)
        return s, self._obs(s)

    def step(self, key, s, action):
        after = s + action
        return prx.EnvStep(after, self._obs(after), (after == 4).astype(jnp.float32), after == 4)


@pytest.mark.parametrize("name", ["q_learning", "pqn", "dqn", "dqn_all"])
def test_corridor_has_its_known_values(name):
    """Bootstrapping through truncations and through n steps: a wrong mask or discount misses these values."""
    settings: dict[str, Any] = {"learning_rate": 3e-3, "gamma": 0.8, "hidden_sizes": (32,), "metrics_every": 0}
    settings |= {"epsilon_start": 1.0, "epsilon_end": 1.0}
    if name.startswith("dqn"):
        settings |= {"prefill_steps": 400, "replay_capacity": 2000, "updates_per_step": 50, "target_period": 25}
        settings |= {"batch_size": 64} | (VARIANTS[1] if name == "dqn_all" else {})
        # A prioritised draw of a random policy's data with n = 2 mixes in that policy's second action.
        settings |= {"n_step": 1}
    else:
        settings |= {"num_envs": 16} | ({"q_lambda": 0.0} if name == "pqn" else {})
    algorithm = prx.make(name.removesuffix("_all"), Corridor(), **settings)
    total = algorithm.steps_per_update * (20 if name.startswith("dqn") else 1200)
    state, _ = prx.train(algorithm, jax.random.key(0), total)
    q_values = algorithm.network.apply(state.params, jnp.eye(4)).q_values
    go = 0.8 ** (3.0 - np.arange(4))
    np.testing.assert_allclose(q_values[:, 1], go, atol=0.05)
    np.testing.assert_allclose(q_values[:, 0], 0.8 * go, atol=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 51}, r"batch_size=51 .*at most replay_capacity=50"),
        ({"prefill_steps": 52}, r"prefill_steps=52 .*at most replay_capacity=50"),
        ({"prefill_steps": 7}, r"prefill_steps=7 .*multiple of num_envs=2"),
        ({"env_steps_per_update": 3}, r"env_steps_per_update=3 .*multiple of num_envs=2"),
        ({"n_step": 5}, r"prefill_steps=8 .*at least n_step \* num_envs = 10"),
        ({"target_period": 2.5}, r"target_period=2.5 .*whole number"),
        ({"tau": 1.5}, r"tau=1.5 .*\[0, 1\]"),
        ({"priority_exponent": 0.9}, r"priority_exponent=0.9 .*prioritized is True"),
        ({"prioritised": True}, r"Did you mean 'prioritized'"),
    ],
)
def test_bad_input(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny("dqn", **settings)


@pytest.mark.parametrize("name", ["q_learning", "dqn", "pqn"])
def test_continuous_actions_are_refused(name):
    with pytest.raises(ValueError, match=r"Pendulum-v1.*discrete actions"):
        prx.make(name, "Pendulum-v1")


def test_a_network_without_q_values_is_refused():
    ppo = tiny("ppo")
    with pytest.raises(ValueError, match="q_values"):
        prx.make("dqn", "CartPole-v1", network=ppo.network)


def test_running_observation_statistics():
    """The prefill is in them before the first update, which learns from it; each update's steps come to it after that."""
    algorithm = tiny("dqn", normalize_observations="running")
    state = algorithm.init(jax.random.key(0))
    filled = np.asarray(state.replay.transitions.obs[:8])
    np.testing.assert_allclose(state.normalizer.obs.mean, filled.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.normalizer.obs.variance, filled.var(0), rtol=1e-4, atol=1e-6)
    after, _ = algorithm.step(state)
    assert float(after.normalizer.obs.count) == 8 + algorithm.steps_per_update
    assert dataclasses.asdict(algorithm.config)["normalize_observations"] == "running"


def test_prefill_is_no_part_of_the_steps():
    """Neither of the count, nor of ε's schedule: at the first update ε is where it starts, whatever the prefill."""
    for prefill in (8, 40):
        algorithm = tiny("dqn", prefill_steps=prefill, epsilon_start=0.0, epsilon_end=1.0, epsilon_decay_steps=1e9)
        state = algorithm.init(jax.random.key(0))
        assert int(state.update) == 0
        assert algorithm.num_updates(80) == 80 // algorithm.steps_per_update
        # Greedy, so what the replay gets is what the network likes best.
        params = state.params["params"]
        head = {"kernel": jnp.zeros((8, 2)), "bias": jnp.array([0.0, 1e3])}
        state = state.replace(params={"params": params | {"critic_head": head}})
        after, _ = algorithm.step(state, dataclasses.replace(algorithm.hparams, learning_rate=0.0))
        np.testing.assert_array_equal(after.replay.transitions.action[prefill : prefill + 8], 1)
        assert len(np.unique(after.replay.transitions.action[:prefill])) == 2
