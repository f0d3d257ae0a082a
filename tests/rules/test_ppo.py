"""PPO's equations on literal arrays."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl_ext as prx
from purejaxrl_ext.loops import f32
from purejaxrl_ext.networks import policies
from purejaxrl_ext.rules import ppo, reinforce

HPARAMS = ppo.PPOHparams()


def batch_of(logits, action, advantage, old_value=None, target=None):
    """A batch whose old policy has ``logits``."""
    old = prx.Output(policy=prx.Categorical(logits), value=jnp.zeros(len(action)) if old_value is None else old_value)
    target = jnp.zeros(len(action)) if target is None else target
    log_prob = policies.log_prob(old.policy, action)
    return ppo.PPOBatch(jnp.zeros((len(action), 1)), action, advantage, target, log_prob, old)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return batch_of(
        jnp.asarray(rng.normal(size=(6, 3)), jnp.float32),
        jnp.array([0, 1, 2, 0, 1, 2]),
        jnp.asarray(rng.normal(size=6), jnp.float32),
        jnp.asarray(rng.normal(size=6), jnp.float32),
        jnp.asarray(rng.normal(size=6), jnp.float32),
    )


def numpy_log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_surrogate_on_literals():
    ratio = jnp.array([0.5, 0.5, 1.0, 1.5, 1.5])
    advantage = jnp.array([1.0, -1.0, 2.0, 1.0, -1.0])
    np.testing.assert_allclose(ppo.surrogate(ratio, advantage, 0.2), [0.5, -0.8, 2.0, 1.2, -1.5], rtol=1e-6)


def test_surrogate_gradient_is_blocked_only_where_it_would_go_further():
    """Beyond the clip range the gradient is 0 if the advantage pushes outwards, and A if it pulls back."""
    ratio = jnp.array([0.5, 0.5, 1.5, 1.5])
    advantage = jnp.array([1.0, -1.0, 1.0, -1.0])
    grad = jax.grad(lambda r: ppo.surrogate(r, advantage, 0.2).sum())(ratio)
    np.testing.assert_allclose(grad, [1.0, 0.0, 0.0, -1.0])


@pytest.mark.parametrize(
    ("eps", "errors"),
    [
        (float("inf"), (3.0, 1.0)),
        # Clipped, the values are 0.5 and −0.5; the larger error counts: 3 of the first and 1.5 of the second.
        (0.5, (3.0, 1.5)),
    ],
)
def test_value_loss_on_literals(eps, errors):
    got = ppo.value_loss(jnp.array([3.0, -3.0]), jnp.zeros(2), jnp.array([0.0, -2.0]), eps)
    np.testing.assert_allclose(got, 0.5 * np.mean(np.square(errors)), rtol=1e-6)


def test_value_clipping_blocks_the_gradient_beyond_its_range():
    """A value that has already moved by more than ε_V towards its target goes no further."""
    grad = jax.grad(ppo.value_loss)(jnp.array([0.7, 0.3]), jnp.zeros(2), jnp.array([2.0, 2.0]), 0.5)
    np.testing.assert_allclose(grad, [0.0, (0.3 - 2.0) / 2], rtol=1e-6)


def test_loss_against_numpy(batch):
    rng = np.random.default_rng(1)
    logits = np.asarray(batch.old.policy.logits + 0.5 * rng.normal(size=(6, 3)), np.float32)
    value = rng.normal(size=6).astype(np.float32)
    hparams = dataclasses.replace(HPARAMS, clip_eps=0.1, value_clip_eps=0.3, entropy_coef=0.05, value_coef=0.7)
    output = prx.Output(policy=prx.Categorical(jnp.asarray(logits)), value=jnp.asarray(value))
    total, metrics = ppo.loss(output, batch, hparams)

    advantage = np.asarray(batch.advantage)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    log_p = numpy_log_softmax(logits)
    log_ratio = log_p[np.arange(6), np.asarray(batch.action)] - np.asarray(batch.log_prob)
    ratio = np.exp(log_ratio)
    policy_loss = -np.minimum(ratio * advantage, np.clip(ratio, 0.9, 1.1) * advantage).mean()
    old_value, target = np.asarray(batch.old.value), np.asarray(batch.target)
    clipped = old_value + np.clip(value - old_value, -0.3, 0.3)
    value_loss = 0.5 * np.maximum((value - target) ** 2, (clipped - target) ** 2).mean()
    entropy = -(np.exp(log_p) * log_p).sum(-1).mean()
    np.testing.assert_allclose(total, policy_loss + 0.7 * value_loss - 0.05 * entropy, rtol=1e-5)
    expected = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "approx_kl": (ratio - 1 - log_ratio).mean(),
        "clip_fraction": (np.abs(ratio - 1) > 0.1).mean(),
    }
    assert metrics.keys() == expected.keys()
    for name, number in expected.items():
        np.testing.assert_allclose(metrics[name], number, rtol=1e-4, atol=1e-6, err_msg=name)


def test_gradient_at_ratio_one_is_the_policy_gradient(batch):
    hparams = dataclasses.replace(HPARAMS, entropy_coef=0.0, value_coef=0.0)

    def loss(logits):
        output = prx.Output(policy=prx.Categorical(logits), value=batch.old.value)
        return ppo.loss(output, batch, hparams, normalize_advantage=False)[0]

    def policy_gradient(logits):
        chosen = jax.nn.log_softmax(logits)[jnp.arange(6), batch.action]
        return -(chosen * batch.advantage).mean()

    logits = batch.old.policy.logits
    got, expected = jax.grad(loss)(logits), jax.grad(policy_gradient)(logits)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_at_the_old_parameters_nothing_has_moved(batch):
    _, metrics = ppo.loss(batch.old, batch, HPARAMS)
    assert metrics["approx_kl"] == 0.0
    assert metrics["clip_fraction"] == 0.0


@pytest.mark.parametrize("on", [True, False])
def test_advantage_normalisation_is_per_minibatch(batch, on):
    """With it, neither shift nor scale of the advantages changes the loss; without it, both do."""
    moved = batch.replace(advantage=3.0 * batch.advantage + 2.0)
    # Away from the old parameters: there the loss is minus the mean advantage.
    output = batch.old.replace(policy=prx.Categorical(batch.old.policy.logits * 0.5))
    a, b = (ppo.loss(output, x, HPARAMS, normalize_advantage=on)[1]["policy_loss"] for x in (batch, moved))
    assert np.isclose(a, b, rtol=1e-4, atol=1e-6) == on
    normal = np.asarray(ppo.normalize(batch.advantage))
    np.testing.assert_allclose([normal.mean(), normal.std()], [0.0, 1.0], atol=1e-5)


def test_rule_passes_the_config_on(batch):
    output = batch.old.replace(policy=prx.Categorical(batch.old.policy.logits * 0.5))
    for on in (True, False):
        rule = ppo.rule(prx.ALGORITHMS["ppo"].config(normalize_advantage=on), prx.Discrete(3))
        assert rule.loss(output, batch, HPARAMS)[0] == ppo.loss(output, batch, HPARAMS, normalize_advantage=on)[0]


def two_steps():
    """A rollout of two steps of one environment."""
    logits = jnp.array([[[1.0, 0.0]], [[0.0, 2.0]]])
    return prx.Rollout(
        obs=jnp.zeros((2, 1, 1)),
        action=jnp.array([[0], [0]]),
        reward=jnp.array([[1.0], [1.0]]),
        terminated=jnp.array([[False], [True]]),
        truncated=jnp.zeros((2, 1), bool),
        output=prx.Output(policy=prx.Categorical(logits), value=jnp.array([[2.0], [3.0]])),
        next_output=prx.Output(value=jnp.array([[3.0], [50.0]])),
        next_online=(),
        discount=jnp.full((2, 1), 0.5),
    )


def test_advantages_normalised_over_the_whole_batch(batch):
    """Once, before the epochs, and the value's target is as it was; a minibatch is then taken as it is."""
    config = prx.ALGORITHMS["ppo"].config(normalize_advantage="batch")
    rule = ppo.rule(config, prx.Discrete(3))
    plain, normal = ppo.targets(two_steps(), HPARAMS), rule.targets(two_steps(), HPARAMS)
    np.testing.assert_allclose(normal.advantage, ppo.normalize(plain.advantage), rtol=1e-6)
    np.testing.assert_allclose(np.abs(normal.advantage), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(normal.target, plain.target)
    output = batch.old.replace(policy=prx.Categorical(batch.old.policy.logits * 0.5))
    assert rule.loss(output, batch, HPARAMS)[0] == ppo.loss(output, batch, HPARAMS, normalize_advantage=False)[0]
    assert prx.ALGORITHMS["ppo"].config(normalize_advantage=True) == prx.ALGORITHMS["ppo"].config()


@pytest.mark.parametrize("steps", [0.0, 25.0, 100.0, 1e6])
def test_clip_range_and_entropy_are_annealed(steps):
    """Linear to 0, each over its own steps, and nothing else; 0 steps keep what they are, bit for bit."""
    hparams = f32(dataclasses.replace(HPARAMS, clip_anneal_steps=100.0, entropy_anneal_steps=50.0))
    got = ppo.schedule(hparams, jnp.float32(steps))
    np.testing.assert_allclose(got.clip_eps, 0.2 * max(0.0, 1 - steps / 100), rtol=1e-6)
    np.testing.assert_allclose(got.entropy_coef, 0.01 * max(0.0, 1 - steps / 50), rtol=1e-6)
    assert got.replace(clip_eps=0, entropy_coef=0) == hparams.replace(clip_eps=0, entropy_coef=0)
    assert ppo.schedule(f32(HPARAMS), jnp.float32(steps)) == f32(HPARAMS)
    reinforces = f32(reinforce.REINFORCEHparams(entropy_coef=0.1, entropy_anneal_steps=50.0))
    got = reinforce.schedule(reinforces, jnp.float32(steps))
    np.testing.assert_allclose(got.entropy_coef, 0.1 * max(0.0, 1 - steps / 50), rtol=1e-6)


def test_an_overflowing_ratio_stays_finite():
    """One sample whose probability exploded would otherwise cost the run."""
    logits = jnp.array([[-200.0, 0.0]])
    batch = batch_of(logits, jnp.array([0]), jnp.array([-1.0]))

    def loss(logits):
        output = prx.Output(policy=prx.Categorical(logits), value=jnp.zeros(1))
        return ppo.loss(output, batch, HPARAMS, normalize_advantage=False)[0]

    value, grad = jax.value_and_grad(loss)(-logits)
    assert np.isfinite(value)
    assert np.isfinite(grad).all()


def test_targets_are_gae_and_value():
    """The advantage, G = A + V, and the log-probability of what was done, on a rollout of two steps."""
    rollout = two_steps()
    hparams = dataclasses.replace(HPARAMS, gamma=0.5, gae_lambda=0.5)
    batch = ppo.targets(rollout, hparams)
    last = 1.0 - 3.0
    first = 1.0 + 0.5 * 3.0 - 2.0 + 0.25 * last
    np.testing.assert_allclose(batch.advantage[:, 0], [first, last], rtol=1e-6)
    np.testing.assert_allclose(batch.target[:, 0], [first + 2.0, last + 3.0], rtol=1e-6)
    expected = numpy_log_softmax(np.asarray(rollout.output.policy.logits)[:, 0])[:, 0]
    np.testing.assert_allclose(batch.log_prob[:, 0], expected, rtol=1e-5)


def test_diagnose_splits_the_ratios():
    """Means over those above and below the range alone, NaN where there are none, and the exact KL."""
    uniform = prx.Output(policy=prx.Categorical(jnp.zeros((4, 2))))
    shifted = jnp.log(jnp.array([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5], [0.52, 0.48]]))
    batch = batch_of(jnp.zeros((4, 2)), jnp.array([0, 1, 0, 0]), jnp.zeros(4))
    got = ppo.diagnose(uniform, prx.Output(policy=prx.Categorical(shifted)), batch, HPARAMS)
    np.testing.assert_allclose([got["ratio_above"], got["ratio_below"]], [1.8, 0.4], rtol=1e-5)
    p = np.exp(np.asarray(shifted))
    np.testing.assert_allclose(got["kl"], (0.5 * np.log(0.5 / p)).sum(-1).mean(), rtol=1e-4)
    none = ppo.diagnose(uniform, uniform, batch, HPARAMS)
    assert np.isnan(none["ratio_above"])
    assert np.isnan(none["ratio_below"])


def toy_ratios(alpha, steps=20, lr=1.5, eps=0.1):
    """Section 5 of the PFO paper: two states with features φ and αφ, SGD on one after the other; ratios of action 1."""
    theta = jnp.array([0.515, -0.441])
    features = jnp.array([0.1, 0.1 * alpha])

    def ratios(weights):
        new = jax.nn.log_softmax(features[:, None] * weights[None])[:, 0]
        old = jax.nn.log_softmax(features[:, None] * theta[None])[:, 0]
        return jnp.exp(new - old)

    def step(weights, i):
        grad = jax.grad(lambda w: ppo.surrogate(ratios(w)[i % 2], jnp.ones(()), eps))(weights)
        weights = weights + lr * grad
        return weights, ratios(weights)

    return np.asarray(jax.lax.scan(step, theta, jnp.arange(steps))[1])


def test_the_toy_trust_region_is_broken_by_collinear_features():
    """Clipping alone bounds neither ratio where the states share their features: the paper's Figure 5."""
    together = toy_ratios(3.0)
    np.testing.assert_allclose(together.max(0), [1.10, 1.258], atol=0.006)
    against = toy_ratios(-2.0)
    np.testing.assert_allclose([against[:, 0].min(), against[:, 1].max()], [0.942, 1.134], atol=0.006)
    np.testing.assert_allclose(toy_ratios(-1.0), 1.0, atol=0.0101)
