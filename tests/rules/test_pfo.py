"""PFO's drift and loss on literal arrays, and that it is PPO with one function replaced."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Echo, equal_trees, tiny

import purejaxrl_ext as prx
from purejaxrl_ext.networks import policies
from purejaxrl_ext.rules import pfo, ppo

HPARAMS = pfo.PFOHparams()


def representation(*layers):
    return prx.Representation(features=jnp.tanh(layers[-1]), preactivations=layers)


@pytest.fixture
def pair():
    """(old, new) outputs of five samples, two hidden layers, actor and critic apart."""
    rng = np.random.default_rng(0)

    def output():
        def layers():
            return [jnp.asarray(rng.normal(size=(5, width)), jnp.float32) for width in (4, 3)]

        logits = jnp.asarray(rng.normal(size=(5, 2)), jnp.float32)
        value = jnp.asarray(rng.normal(size=5), jnp.float32)
        actor, critic = representation(*layers()), representation(*layers())
        return prx.Output(policy=prx.Categorical(logits), value=value, actor=actor, critic=critic)

    return output(), output()


@pytest.fixture
def batch(pair):
    old = pair[0]
    action = jnp.array([0, 1, 0, 1, 1])
    advantage = jnp.array([1.0, -2.0, 0.5, 1.5, -0.3])
    return ppo.PPOBatch(jnp.zeros((5, 1)), action, advantage, jnp.ones(5), policies.log_prob(old.policy, action), old)


@pytest.mark.parametrize("layers", ["last", "all"])
@pytest.mark.parametrize("distance", ["squared", "cosine"])
def test_drift_against_numpy(pair, layers, distance):
    new, old = (
        np.concatenate(output.actor.preactivations[-1 if layers == "last" else 0 :], axis=-1)
        for output in reversed(pair)
    )
    expected = ((new - old) ** 2).mean(-1)
    if distance == "cosine":
        expected = 1 - (new * old).sum(-1) / np.linalg.norm(new, axis=-1) / np.linalg.norm(old, axis=-1)
    got = pfo.drift(pair[1].actor, pair[0].actor, layers=layers, distance=distance)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("distance", ["squared", "cosine"])
def test_drift_and_its_gradient_are_zero_at_the_old_parameters(pair, distance):
    old = pair[0].actor
    value, grad = jax.value_and_grad(lambda r: pfo.drift(r, old, layers="all", distance=distance).sum())(old)
    np.testing.assert_allclose(value, 0.0, atol=1e-5)
    for leaf in jax.tree.leaves(grad):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-6)


def test_cosine_gradient_is_finite_at_a_zero_vector():
    zero = representation(jnp.zeros((1, 3)))
    grad = jax.grad(lambda r: pfo.drift(r, zero, distance="cosine").sum())(zero)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grad))


def test_penalty_is_the_coefficient_times_the_mean_drift(pair, batch):
    base, ppo_metrics = ppo.loss(pair[1], batch, HPARAMS)
    actor, critic = (
        float(pfo.drift(getattr(pair[1], part), getattr(pair[0], part)).mean()) for part in ("actor", "critic")
    )
    hparams = dataclasses.replace(HPARAMS, feature_coef=3.0)
    total, metrics = pfo.loss(pair[1], batch, hparams)
    np.testing.assert_allclose(total, base + 3.0 * actor, rtol=1e-5)
    np.testing.assert_allclose(metrics["feature_loss"], actor, rtol=1e-5)
    assert {k: v for k, v in metrics.items() if k != "feature_loss"} == ppo_metrics
    total, _ = pfo.loss(pair[1], batch, hparams, networks="both")
    np.testing.assert_allclose(total, base + 3.0 * (actor + critic), rtol=1e-5)


def test_clip_mode_blocks_the_policy_gradient_of_samples_that_drifted(pair, batch):
    """c = 1 takes away their policy gradient and nothing else; the drift itself is not penalised."""
    moved = np.asarray(pfo.drift(pair[1].actor, pair[0].actor))
    limit = float(np.median(moved))
    drifted = moved > limit
    assert drifted.any()
    assert not drifted.all()

    def grads(coefficient):
        hparams = dataclasses.replace(
            HPARAMS, feature_coef=coefficient, feature_clip=limit, entropy_coef=0.0, clip_eps=100.0
        )
        loss = lambda output: pfo.loss(output, batch, hparams, mode="clip", normalize_advantage=False)[0]  # noqa: E731
        return jax.grad(loss, allow_int=True)(pair[1])

    off, on = grads(0.0), grads(1.0)
    assert (np.abs(off.policy.logits).max(-1) > 1e-4).all()
    np.testing.assert_array_equal(on.policy.logits[drifted], 0.0)
    np.testing.assert_array_equal(on.policy.logits[~drifted], off.policy.logits[~drifted])
    np.testing.assert_array_equal(on.value, off.value)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(on.actor))


def clip_grads(pair, batch, networks="actor", **hparams):
    """Gradients with respect to the Output, of losses whose other parts are as PPO's."""
    hparams = dataclasses.replace(HPARAMS, feature_clip=0.0, entropy_coef=0.0, clip_eps=100.0, **hparams)

    def loss(output):
        options = {"mode": "clip", "networks": networks, "normalize_advantage": False}
        return pfo.loss(output, batch, hparams, **options)[0]

    return jax.grad(loss, allow_int=True)(pair[1])


@pytest.mark.parametrize("coefficient", [0.3, 1.0, 5.0])
def test_a_blocked_sample_has_no_gradient_whatever_the_coefficient(pair, batch, coefficient):
    """Not a part of it below 1, and not one that goes the other way above."""
    off, on = (clip_grads(pair, batch, feature_coef=c) for c in (0.0, coefficient))
    assert (np.abs(off.policy.logits).max(-1) > 1e-4).all()
    np.testing.assert_array_equal(on.policy.logits, 0.0)


def test_each_networks_drift_gates_its_own_loss(pair, batch):
    """With "both" the critic's drift gates the value's loss, and the actor's the policy's; with "actor" the value learns on."""
    old, new = pair
    for still, moved in (("actor", "critic"), ("critic", "actor")):
        mixed = (old, new.replace(**{still: getattr(old, still)}))
        on = clip_grads(mixed, batch, networks="both", feature_coef=2.0)
        blocked = {"actor": on.policy.logits, "critic": on.value}
        assert (blocked[moved] == 0).all(), moved
        assert np.abs(blocked[still]).max() > 1e-4, still
    on = clip_grads(pair, batch, networks="actor", feature_coef=2.0)
    assert np.abs(on.value).max() > 1e-4


def test_a_shared_torsos_drift_counts_once(pair, batch):
    """As a penalty; and it gates both losses."""
    old, new = (output.replace(critic=output.actor) for output in pair)
    batch = batch.replace(old=old)
    config = prx.ALGORITHMS["pfo"].config(shared_torso=True, feature_networks="both", normalize_advantage=False)
    rule = pfo.rule(config, prx.Discrete(2))
    total, metrics = rule.loss(new, batch, HPARAMS)
    drift = pfo.drift(new.actor, old.actor).mean()
    np.testing.assert_allclose(metrics["feature_loss"], drift, rtol=1e-6)
    base, _ = ppo.loss(new, batch, HPARAMS, normalize_advantage=False)
    np.testing.assert_allclose(total, base + drift, rtol=1e-5)
    on = clip_grads((old, new), batch, networks="shared", feature_coef=2.0)
    assert (on.policy.logits == 0).all()
    assert (on.value == 0).all()


def test_the_drift_of_features_after_the_activation(pair):
    new, old = (np.asarray(output.actor.features) for output in reversed(pair))
    got = pfo.drift(pair[1].actor, pair[0].actor, part="feature")
    np.testing.assert_allclose(got, ((new - old) ** 2).mean(-1), rtol=1e-5)
    rule = pfo.rule(prx.ALGORITHMS["pfo"].config(feature_part="feature"), prx.Discrete(2))
    assert rule.loss.keywords["part"] == "feature"


def test_defaults_are_those_of_ppo():
    """Differences of results must come from the one function that differs."""
    ppo_defaults, pfo_defaults = (
        {f.name: f.default for kind in (r.config, r.hparams) for f in dataclasses.fields(kind)}
        for r in (prx.ALGORITHMS["ppo"], prx.ALGORITHMS["pfo"])
    )
    assert {k: pfo_defaults[k] for k in ppo_defaults} == ppo_defaults


def test_rule_replaces_the_loss_alone():
    algorithm = tiny("pfo")
    ours, theirs = (prx.ALGORITHMS[n].rule(algorithm.config, algorithm.env.action_space) for n in ("pfo", "ppo"))
    assert ours.targets is theirs.targets
    assert ours.act is theirs.act
    assert ours.diagnose is theirs.diagnose
    assert ours.loss is not theirs.loss


UNMEASURED = {"metrics_every": 0}  # what is measured follows from the state, which is compared
SHORT = {"num_envs": 2, "num_steps": 4, **UNMEASURED}
IMAGE = {**SHORT, "conv_layers": [(2, 3, 2)]}


@pytest.mark.optimized
@pytest.mark.parametrize(
    ("env", "settings", "variant"),
    [
        ("CartPole-v1", {}, {}),
        ("CartPole-v1", UNMEASURED, {"feature_mode": "clip", "feature_clip": 0.0}),
        ("CartPole-v1", UNMEASURED, {"feature_layers": "all"}),
        ("CartPole-v1", UNMEASURED, {"feature_distance": "cosine"}),
        ("CartPole-v1", UNMEASURED, {"feature_networks": "both"}),
        ("Breakout-MinAtar", IMAGE, {}),
        (Echo(), SHORT, {}),
        ("CartPole-v1", UNMEASURED | {"memory": "gru", "memory_size": 4}, {"feature_layers": "all"}),
    ],
    ids=["mlp", "clip", "all", "cosine", "both", "cnn", "gaussian", "gru"],
)
def test_coefficient_zero_is_ppo_bit_for_bit(env, settings, variant):
    """All that PPO logs, and the trained state, of two seeds."""
    arms = {"ppo": tiny("ppo", env, **settings), "pfo": tiny("pfo", env, **settings, **variant, feature_coef=0.0)}
    total = 5 * arms["ppo"].steps_per_update
    ds = prx.sweep(arms, num_seeds=2, total_steps=total, progress=False, keep_states=True)
    assert "feature_loss" in ds
    assert np.isnan(ds["feature_loss"].sel(arm="ppo")).all()
    assert (ds["feature_loss"].sel(arm="pfo") > 0).any(), "nothing has moved, so nothing is shown"
    for name in set(ds.data_vars) - {"feature_loss"}:
        np.testing.assert_array_equal(ds[name].sel(arm="ppo"), ds[name].sel(arm="pfo"), err_msg=name)
    for seed in (0, 1):
        a, b = (prx.load_state(ds, arm=arm, seed=seed) for arm in ("ppo", "pfo"))
        equal_trees(a, b)
