"""Memory: when the hidden state is reset, what it is where a rollout begins and ends, and that learning says what acting said."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from test_loops import BOOTSTRAPS, Collected
from toys import Clock, tiny

import purejaxrl_ext as prx
from purejaxrl_ext import loops, networks
from purejaxrl_ext.loops import memory

KEY = jax.random.key(0)
GRU: dict[str, Any] = {"memory": "gru", "memory_size": 5}
KINDS = pytest.mark.parametrize("kind", ["gru", "lstm"])


# --- the network -----------------------------------------------------------------------------------------------------


def random_sequence(steps=7, num_envs=3, size=4):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(steps, num_envs, size)), jnp.float32)
    start = jnp.asarray(rng.random((steps, num_envs)) < 0.3)
    assert start[1:].any()
    assert not start.all()
    return x, start


def test_gru_is_flaxs():
    """Its parameters in flax's cell, step by step, without resets."""
    x, _ = random_sequence()
    carry = jax.random.normal(KEY, (3, 5))
    gru = networks.GRU(5, "fan_in")
    params = gru.init(KEY, x, carry, jnp.zeros(x.shape[:2], bool))["params"]
    last, hidden, preactivations = gru.apply({"params": params}, x, carry, jnp.zeros(x.shape[:2], bool))
    split = {name: jnp.split(params[name], 3, axis=-1) for name in ("input_kernel", "hidden_kernel", "bias")}
    theirs: dict[str, Any] = {}
    for i, gate in enumerate("rzn"):
        theirs[f"i{gate}"] = {"kernel": split["input_kernel"][i], "bias": split["bias"][i]}
        theirs[f"h{gate}"] = {"kernel": split["hidden_kernel"][i]}
    theirs["hn"]["bias"] = params["candidate_bias"]
    expected = carry
    for t in range(len(x)):
        expected, _ = nn.GRUCell(5).apply({"params": theirs}, expected, x[t])
        np.testing.assert_allclose(hidden[t], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(last, hidden[-1])
    assert preactivations.shape == (7, 3, 15)
    assert all((np.asarray(b) != 0).all() for b in (params["bias"], params["candidate_bias"]))


def test_pre_activations_determine_the_hidden_state():
    x, start = random_sequence()
    gru = networks.GRU(5)
    carry = jax.random.normal(KEY, (3, 5))
    params = gru.init(KEY, x, carry, start)
    _, hidden, preactivations = gru.apply(params, x, carry, start)
    before = jnp.where(start[..., None], 0.0, jnp.concatenate([carry[None], hidden[:-1]]))
    _, z, n = jnp.split(preactivations, 3, axis=-1)
    z = jax.nn.sigmoid(z)
    np.testing.assert_allclose(hidden, (1 - z) * jnp.tanh(n) + z * before, rtol=1e-5, atol=1e-6)


def test_lstm_is_flaxs():
    """Its parameters in flax's cell, step by step, without resets; and h is what its pre-activations and c make."""
    x, _ = random_sequence()
    carry = tuple(jax.random.normal(key, (3, 5)) for key in jax.random.split(KEY))
    lstm = networks.LSTM(5, "fan_in")
    params = lstm.init(KEY, x, carry, jnp.zeros(x.shape[:2], bool))["params"]
    (cell, last), hidden, preactivations = lstm.apply({"params": params}, x, carry, jnp.zeros(x.shape[:2], bool))
    split = {name: jnp.split(params[name], 4, axis=-1) for name in ("input_kernel", "hidden_kernel", "bias")}
    theirs: dict[str, Any] = {}
    for i, gate in enumerate("ifgo"):
        theirs[f"i{gate}"] = {"kernel": split["input_kernel"][i]}
        theirs[f"h{gate}"] = {"kernel": split["hidden_kernel"][i], "bias": split["bias"][i]}
    expected = carry
    for t in range(len(x)):
        expected, _ = nn.LSTMCell(5).apply({"params": theirs}, expected, x[t])
        np.testing.assert_allclose(hidden[t], expected[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(cell, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(last, hidden[-1])
    assert preactivations.shape == (7, 3, 20)
    out = jax.nn.sigmoid(preactivations[-1, :, 15:])
    np.testing.assert_allclose(last, out * jnp.tanh(cell), rtol=1e-5, atol=1e-6)


@KINDS
def test_gates_start_orthogonal(kind):
    """Each on its own, the recurrent ones too."""
    x, start = random_sequence(size=5)
    module = networks.MEMORIES[kind](5)
    params = module.init(KEY, x, module.initial_carry(3), start)["params"]
    for name in ("input_kernel", "hidden_kernel"):
        gates = jnp.split(params[name], {"gru": 3, "lstm": 4}[kind], axis=-1)
        for gate in gates:
            np.testing.assert_allclose(gate @ gate.T, np.eye(5), atol=1e-5)
        assert not np.allclose(gates[0], gates[1])


@KINDS
@pytest.mark.parametrize("network", ["separate", "shared", "q"])
def test_a_sequence_is_its_steps(network, kind):
    """With resets; and what comes before a start has no part in what comes after."""
    torso, sizes = networks.Torso((6,)), {"memory": kind, "memory_size": 5}
    if network == "q":
        module: Any = networks.RecurrentQNetwork(2, torso, **sizes)
    else:
        module = networks.RecurrentActorCritic(2, "categorical", torso, shared_torso=network == "shared", **sizes)
    agent = memory.adapt(module)
    assert isinstance(agent, memory.Recurrent)
    obs, start = random_sequence()
    params = agent.init(KEY, obs[0])
    carry = first = jax.tree.map(lambda x: x + 0.5, agent.initial_carry(3))
    whole = agent.sequence(params, first, obs, start)
    for t in range(len(obs)):
        carry, output = agent.step(params, carry, obs[t], start[t])
        expected = jax.tree.map(lambda x: x[t], whole)  # noqa: B023
        for x, y in zip(jax.tree.leaves(output), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    moved = agent.sequence(params, jax.tree.map(lambda x: x + 1.0, first), obs, start)
    a, b = (loops.greedy_value(output) for output in (moved, whole))
    np.testing.assert_array_equal(np.isclose(a, b, rtol=0, atol=1e-7), np.cumsum(start, axis=0) > 0)
    assert whole.critic.features.shape == (7, 3, 5)
    assert [x.shape[-1] for x in whole.critic.preactivations] == [6, {"gru": 15, "lstm": 20}[kind]]
    outgoing = {layer.outgoing for layer in module.layers(params)}
    assert all(path[-1] == "input_kernel" for paths in outgoing for path in paths)


# --- the loop --------------------------------------------------------------------------------------------------------


class Counter:
    """Remembers how many observations of its episode it has seen; V is that number, and action 1 is for odd ones."""

    def initial_carry(self, num_envs):
        return jnp.zeros(num_envs)

    def init(self, key, obs, carry, start):
        return {"params": {"w": jnp.zeros(())}}

    def apply(self, params, obs, carry, start):
        def step(count, start):
            count = jnp.where(start, 0.0, count) + 1.0
            return count, count

        carry, count = jax.lax.scan(step, carry, start)
        odd = count % 2
        logits = 20.0 * jnp.stack([1.0 - odd, odd], axis=-1)
        return carry, prx.Output(policy=prx.Categorical(logits), value=count + 0.0 * params["params"]["w"])


@pytest.mark.parametrize(("env", "settings"), BOOTSTRAPS.values(), ids=BOOTSTRAPS)
def test_what_is_remembered_is_the_episode_so_far(env, settings):
    """At step t it has seen t + 1 observations, across updates too; at the true successor, be it a final one, one more."""
    loop = Collected(env, network=Counter(), **settings)
    loop.update(2)
    for before, rollout in zip(loop.states, loop.rollouts, strict=False):
        time = np.asarray(rollout.obs[..., 1])
        np.testing.assert_array_equal(rollout.output.value, time + 1)
        inside = ~np.asarray(rollout.terminated)
        np.testing.assert_array_equal(np.asarray(rollout.next_output.value)[inside], time[inside] + 2)
        # Acting had the same memory: its policy is that of an odd or an even count.
        np.testing.assert_array_equal(rollout.action, (time + 1) % 2)
        going = np.asarray(before.env.episode_length) > 0
        np.testing.assert_array_equal(np.asarray(before.carry)[going], np.asarray(before.env.episode_length)[going])


def test_minibatches_are_of_whole_sequences_with_their_first_hidden_state():
    """What learning recomputes is right at every step of every minibatch, shuffled, in the midst of episodes of all ages."""

    def loss(output, batch, hparams):
        wrong = jnp.abs(jax.lax.stop_gradient(output.value) - batch.obs[..., 1] - 1.0).max()
        return 0.0 * output.value.mean(), {"wrong": wrong, "size": jnp.float32(len(batch.action))}

    settings = {"num_envs": 6, "num_steps": 5, "num_epochs": 2, "num_minibatches": 3}
    env = Clock(time_limit=9, terminate_at=4)
    loop = Collected(env, network=Counter(), targets=lambda rollout, hparams: rollout, loss=loss, **settings)
    for logged in loop.update(4):
        assert logged["wrong"] == 0.0
        assert logged["size"] == 10.0
    assert len(np.unique(loop.states[3].carry)) > 1


def third_update(algorithm):
    """Metrics of the third update, with a policy that says something: its own first weights are small."""
    state = algorithm.init(KEY)
    head = state.params["params"]["actor_head"]
    params = {"params": state.params["params"] | {"actor_head": jax.tree.map(lambda x: 2000.0 * x, head)}}
    step = jax.jit(algorithm.step)
    state = state.replace(params=params)
    for _ in range(3):
        state, logged = step(state)
    return logged


ONCE = {"num_epochs": 1, "num_minibatches": 1, "metrics_every": 0, "learning_rate": 1e-6}
ENDING = Clock(time_limit=3, terminate_at=2)


@pytest.mark.parametrize(("name", "kind"), [("ppo", "gru"), ("pfo", "gru"), ("pfo", "lstm")])
def test_before_learning_nothing_has_moved(name, kind):
    """Ratio 1 and no drift, with ends of episodes inside the rollouts and rollouts that begin inside episodes."""
    logged = third_update(tiny(name, ENDING, **GRU | {"memory": kind}, **ONCE))
    np.testing.assert_allclose(logged["approx_kl"], 0.0, atol=1e-6)
    assert logged["clip_fraction"] == 0.0
    assert logged["entropy"] < 0.65
    if name == "pfo":
        np.testing.assert_allclose(logged["feature_loss"], 0.0, atol=1e-10)


@KINDS
@pytest.mark.parametrize("name", ["pqn", "q_learning"])
def test_q_learning_remembers(name, kind):
    """What learning computes of its sequences is what the rollout's pass computed: the first minibatch's error is that of the
    targets to the values that acted, with ends of episodes inside the rollouts."""

    def loss(output, batch, hparams):
        wrong = jnp.abs(output.q_values - batch.obs).max()
        return 0.0 * output.q_values.mean(), {"wrong": jax.lax.stop_gradient(wrong)}

    def targets(rollout, hparams):
        # Each sample's Q-values in the place of its observation would feed the network: they ride along instead.
        return Told(rollout.obs, rollout.output.q_values)

    def told_loss(output, batch, hparams):
        return loss(output, batch.replace(obs=batch.q_values), hparams)

    algorithm = tiny(name, ENDING, **GRU | {"memory": kind}, num_envs=4, num_epochs=1, metrics_every=0)
    rule = algorithm.loop.rule._replace(targets=targets, loss=told_loss)
    loop = dataclasses.replace(algorithm.loop, rule=rule)
    state, step = loop.init(KEY, algorithm.hparams), jax.jit(loop.step)
    for _ in range(3):
        state, logged = step(state, algorithm.hparams)
        assert logged["wrong"] < 1e-6
    _, logged = jax.jit(algorithm.step)(algorithm.init(KEY))
    assert logged["grad_norm"] > 0


class Told(struct.PyTreeNode):
    """Observations, and the Q-values that the rollout's pass gave there."""

    obs: Any
    q_values: Any


def on_this_steps_end(batch, start, carry):
    return batch, jnp.concatenate([start[1:], jnp.zeros_like(start[:1])]), carry


def from_zero(batch, start, carry):
    return batch, start, jax.tree.map(jnp.zeros_like, carry)


@pytest.mark.parametrize(("defect", "env"), [(on_this_steps_end, ENDING), (from_zero, Clock(time_limit=11))])
def test_a_wrong_reset_or_first_state_would_show(monkeypatch, defect, env):
    """The defects that the test above is about, put in where learning gets its sequences from."""
    good = third_update(tiny("ppo", env, **GRU, **ONCE))
    right = memory.Recurrent.samples
    monkeypatch.setattr(memory.Recurrent, "samples", lambda self, *args: right(self, *defect(*args)))
    bad = third_update(tiny("ppo", env, **GRU, **ONCE))
    assert good["approx_kl"] < 1e-6
    assert bad["approx_kl"] > 1e-4


@dataclass(frozen=True)
class Alternate(Clock):
    """Rewards 1 for actions 1, 0, 1, … and shows nothing of the time."""

    def step(self, key, env_state, action):
        step = super().step(key, env_state, action)
        return step._replace(reward=(action == 1 - env_state[1] % 2).astype(jnp.float32), obs=0.0 * step.obs)


def test_evaluation_remembers():
    env = Alternate(time_limit=7)
    algorithm = prx.make("ppo", env, network=Counter(), num_envs=2, num_steps=4, num_minibatches=1, metrics_every=0)
    state = algorithm.init(KEY)
    np.testing.assert_array_equal(prx.evaluate(algorithm, state, KEY, num_episodes=3), 7.0)


def test_act_has_a_memory_of_its_callers():
    """Without a carry it is an episode's first observation; a start forgets."""
    algorithm = prx.make("ppo", Clock(), network=Counter(), num_envs=2, num_steps=4, num_minibatches=1)
    state = algorithm.init(KEY)
    ask = partial(algorithm.act, state.params, (), jnp.zeros((2, 2)), None, algorithm.hparams, jnp.zeros(()))
    first = ask()
    np.testing.assert_array_equal(first.carry, [1, 1])
    np.testing.assert_array_equal(first.env_action, [1, 1])
    second = ask(first.carry, jnp.array([False, True]))
    np.testing.assert_array_equal(second.carry, [2, 1])
    np.testing.assert_array_equal(second.env_action, [0, 1])


def test_measuring_takes_whole_sequences():
    """At most so many samples, but a sequence at least; and dead units are those of tanh, whatever the layers below."""
    algorithm = tiny(
        "ppo", num_envs=4, num_minibatches=2, metrics_samples=16, activation="relu", metrics_every=1, **GRU
    )
    _, logged = jax.jit(algorithm.step)(algorithm.init(KEY))
    assert 1 <= logged["actor_rank"] <= 5
    assert 1 <= logged["critic_rank_end"] <= 5


def test_what_cannot_be_is_refused():
    for name, settings, words in (
        ("ppo", {"memory": "elman"}, "memory='elman'.*'gru', 'lstm'"),
        ("pqn", {"memory": "gru", "num_envs": 4, "num_minibatches": 8}, "num_minibatches=8.*num_envs=4.*sequences"),
        ("ppo", {"memory_size": 8}, "memory_size=8.*memory is 'gru'"),
        ("ppo", {"memory": "gru", "memory_size": 0}, "memory_size=0"),
        ("ppo", {"memory": "gru", "num_envs": 4, "num_minibatches": 8}, "num_minibatches=8.*num_envs=4.*sequences"),
        ("dqn", {"memory": "gru"}, "unknown setting 'memory'"),
        ("dqn", {"network": Counter()}, "network='Counter'.*without a memory"),
    ):
        with pytest.raises(ValueError, match=words):
            prx.make(name, "CartPole-v1", **settings)
