"""Legal actions alone, from the environment's mask to policies, exploration and every maximum over Q."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Gate, tiny

import purejaxrl_ext as prx
from purejaxrl_ext import envs
from purejaxrl_ext.networks import Masked, policies
from purejaxrl_ext.rules import q_learning
from purejaxrl_ext.spaces import append_mask, split_mask, uniform_legal

KEY = jax.random.key(0)
LEGAL = jnp.array([[True, False, True, True], [False, True, False, False]])


# --- the mask's way ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 2, 3)])
@pytest.mark.parametrize("dtype", [bool, jnp.uint8, jnp.float32])
def test_a_mask_is_found_where_it_was_put(shape, dtype):
    legal = jnp.array([True, False, False, True, True])
    obs = jnp.ones(shape, dtype)
    both = append_mask(obs, legal)
    assert both.dtype == dtype
    seen, found = split_mask(both[None], 5)
    np.testing.assert_array_equal(found[0], legal)
    np.testing.assert_array_equal(seen[0], obs if shape else obs[None])


def test_wrappers_hand_the_mask_on_and_the_newest_one_counts():
    env = envs.make_env(Gate(), frame_stack=2, append_time=True)
    assert env.observation_shape == (2 * 4 + 1 + 4,)
    state, obs = env.reset(KEY)
    for action in (0, 1):
        np.testing.assert_array_equal(obs[-4:], Gate().legal_actions(state[0][0]))
        step = env.step(KEY, state, jnp.int32(action))
        state, obs = step.state, step.obs
    np.testing.assert_array_equal(split_mask(obs[None], 4)[1][0], Gate().legal_actions(state[0][0]))


def test_a_mask_is_not_normalised():
    state = tiny("ppo", Gate(), normalize_observations="running").init(KEY)
    assert state.normalizer.obs.mean.shape == (4,)


# --- policies and Q-values --------------------------------------------------------------------------------------------


def test_an_illegal_action_has_probability_0_and_slopes_are_finite():
    def parts(logits):
        policy = prx.Categorical(policies.legal_only(logits, LEGAL))
        other = prx.Categorical(policies.legal_only(2.0 * logits, LEGAL))
        return (
            policies.entropy(policy),
            policies.kl_divergence(policy, other),
            policies.log_prob(policy, jnp.array([0, 1])),
        )

    logits = jnp.array([[1.0, 80.0, -2.0, 0.5], [9.0, 0.0, 3e3, -3e3]])
    probability = jax.nn.softmax(policies.legal_only(logits, LEGAL))
    assert (probability[~LEGAL] == 0).all()
    legal = np.asarray(jax.nn.softmax(logits[0, jnp.array([0, 2, 3])]))
    entropy, divergence, _ = parts(logits)
    np.testing.assert_allclose(entropy, [-(legal * np.log(legal)).sum(), 0.0], atol=1e-6)
    assert jnp.isfinite(divergence).all() and divergence[1] == 0
    for i in range(3):
        slope = jax.grad(lambda x, i=i: parts(x)[i].sum())(logits)
        assert jnp.isfinite(slope).all() and (slope[~LEGAL] == 0).all()


def test_samples_and_random_choices_are_legal_and_as_likely():
    noise = policies.noise(KEY, (2000,), prx.Discrete(4))
    policy = prx.Categorical(policies.legal_only(jnp.zeros((2000, 4)), LEGAL[:1].repeat(2000, 0)))
    output = prx.Output(q_values=policy.logits, legal=LEGAL[:1].repeat(2000, 0))
    hparams = q_learning.QHparams(epsilon_end=1.0, epsilon_decay_steps=0.0)
    explored = q_learning.act(output, q_learning.noise(KEY, (2000,)), hparams, jnp.zeros(()))
    for action in (policies.sample(policy, noise), explored):
        shares = np.bincount(action, minlength=4) / 2000
        assert shares[1] == 0
        np.testing.assert_allclose(shares[[0, 2, 3]], 1 / 3, atol=0.04)
    assert uniform_legal(jnp.array([0.0, 1.0]), LEGAL).tolist() == [0, 1]


def test_every_maximum_is_over_legal_actions():
    """Targets of Q-learning, double and expected SARSA, with an illegal action that would be best by far."""
    q_values = policies.legal_only(jnp.array([[1.0, 50.0, 2.0, 3.0]]), LEGAL[:1])
    said = prx.Output(q_values=q_values, legal=LEGAL[:1])
    assert q_learning.greedy_bootstrap(said, said) == 3.0
    assert q_learning.double_bootstrap(said, said) == 3.0
    rollout = prx.Rollout(
        *(jnp.zeros((1, 1)),) * 3, jnp.zeros((1, 1), bool), jnp.zeros((1, 1), bool), said,
        jax.tree.map(lambda x: x[None], said), said, jnp.ones((1, 1)), jnp.zeros((1, 1)),
    )  # fmt: skip
    hparams = q_learning.QHparams(epsilon_end=1.0, epsilon_decay_steps=0.0)
    assert q_learning.expected_sarsa_targets(rollout, hparams).target == 2.0


def test_an_illegal_action_teaches_nothing():
    said = prx.Output(q_values=policies.legal_only(jnp.ones((2, 4)), LEGAL), legal=LEGAL)
    batch = q_learning.QBatch((), jnp.array([1, 1]), jnp.array([5.0, 1.5]), jnp.ones(2))
    value, metrics = q_learning.loss(said, batch, q_learning.QHparams())
    assert metrics["td_error"].tolist() == [0.0, 0.5] and value == 0.5 * 0.25 / 2


def test_no_legal_action_is_an_error_or_nan():
    none = jnp.zeros((1, 4), bool)
    with pytest.raises(ValueError, match="at least one action"):
        policies.legal_only(jnp.zeros((1, 4)), none)
    assert jnp.isnan(jax.jit(policies.legal_only)(jnp.zeros((1, 4)), none)).all()


# --- the whole stack --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ppo", "pqn"])
def test_a_masked_world_is_played_legally(algorithm):
    """The illegal costs 100: no return is below 0."""
    made = tiny(algorithm, Gate(), **({"memory": "gru"} if algorithm == "pqn" else {}))
    assert isinstance(made.network, Masked)
    _, metrics = prx.train(made, KEY, 8 * made.steps_per_update)
    assert jnp.isfinite(metrics["loss"]).all()
    assert jnp.nanmin(metrics["episode_return"]) >= 0.0


def test_masked_dqn_learns():
    """Of two legal actions the second is worth 1: 8 in an episode, where random legal play has 4."""
    settings = {"learning_rate": 3e-3, "epsilon_decay_steps": 400.0, "prioritized": True, "hidden_sizes": (32,)}
    made = tiny("dqn", Gate(), gamma=0.5, replay_capacity=500, batch_size=32, target_period=20.0, **settings)
    state, metrics = prx.train(made, KEY, 150 * made.steps_per_update)
    assert jnp.abs(metrics["value"]).max() < 10
    assert jnp.nanmin(metrics["episode_return"][2:]) >= 0.0
    assert prx.evaluate(made, state, KEY, 8).min() == 8.0


# --- what does not fit ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Short(Gate):
    def legal_actions(self, env_state):
        return jnp.ones(3, bool)


def test_masks_that_do_not_fit():
    with pytest.raises(TypeError, match=r"legal_actions must give bool \[4\]"):
        envs.make_env(Short())
    with pytest.raises(ValueError, match="legal_actions"):
        envs.make_env(Gate(action_space=prx.MultiDiscrete((2, 2))))
    with pytest.raises(ValueError, match="sticky_actions"):
        envs.make_env(Gate(), sticky_actions=0.25)


def test_random_steps_are_legal():
    """Those that fill the replay before training."""
    ring = tiny("dqn", Gate(), prefill_steps=40).init(KEY).replay.transitions
    n = ring.obs[:40, :4].argmax(-1)
    assert (((ring.action[:40] - n) % 4) < 2).all()
