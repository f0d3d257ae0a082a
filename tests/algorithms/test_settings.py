"""Settings that are off by default: what each does when it is on, and that it is an error where nothing would read it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Echo, equal_trees, tiny

import purejaxrl_ext as prx
from purejaxrl_ext import networks
from purejaxrl_ext.networks import structure

KEY = jax.random.key(0)
BIG = {"learning_rate": 0.05, "metrics_every": 0, "num_epochs": 3}


def update(algorithm, **hparams):
    """One update, with other traced settings: they share a compiled program."""
    state = algorithm.init(KEY)
    return state, *jax.jit(algorithm.loop.step)(state, algorithm.hparams.replace(**hparams))


# --- the stop at a KL ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopping():
    return tiny(stop_at_kl=True, **BIG)


@pytest.mark.optimized
def test_a_stop_that_is_never_reached_changes_nothing(stopping):
    """Bit for bit what it is without."""
    _, off, plain = update(tiny(**BIG))
    _, on, logged = update(stopping, target_kl=jnp.inf)
    equal_trees(on.params, off.params)
    equal_trees(on.opt_state, off.opt_state)
    assert logged["minibatches_skipped"] == 0
    assert "minibatches_skipped" not in plain


def test_what_comes_after_the_stop_changes_nothing(stopping):
    """The first minibatch has KL 0 and is learned from; at the second the KL is over any small limit, and that one and all
    after it are skipped: the parameters are those of an update of one minibatch."""
    _, after, logged = update(stopping, target_kl=1e-9)
    assert logged["minibatches_skipped"] == 3 * 2 - 1
    count = jax.tree.leaves(after.opt_state)[0]
    assert count == 1, "Adam's steps"
    # With the learning rate 0 nothing moves, no KL rises, and nothing is skipped.
    _, _, logged = update(stopping, target_kl=1e-9, learning_rate=0.0)
    assert logged["minibatches_skipped"] == 0


def test_a_stop_counts_what_it_skips(stopping):
    """Between the limits some are skipped; more with a smaller limit."""
    skipped = [float(update(stopping, target_kl=kl)[2]["minibatches_skipped"]) for kl in (1e-9, 0.05, 10.0)]
    assert skipped == sorted(skipped, reverse=True)
    assert all(n == int(n) for n in skipped)


# --- the critic's own ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separate", [False, True])
def test_the_critics_learning_rate_is_the_critics_alone(separate):
    """On the first gradient step each of Adam's steps is the learning rate: the actor's is as it was, the critic's ten times."""
    once = {"num_epochs": 1, "num_minibatches": 1, "metrics_every": 0, "separate_optimizers": separate}
    algorithm = tiny(max_grad_norm=jnp.inf, **once)
    start, common, _ = update(algorithm)
    _, own, _ = update(algorithm, critic_learning_rate=1e-2)
    for name in start.params["params"]:
        old, a, b = (
            np.concatenate([x.ravel() for x in jax.tree.leaves(s.params["params"][name])]) for s in (start, common, own)
        )
        factor = 10.0 if name.startswith("critic") else 1.0
        np.testing.assert_allclose(b - old, factor * (a - old), rtol=2e-3, atol=2e-6, err_msg=name)
    # The same rate given as its own is no change at all.
    _, same, _ = update(algorithm, critic_learning_rate=algorithm.hparams.learning_rate)
    equal_trees(same.params, common.params)


def test_a_shared_torso_keeps_the_actors_rate():
    algorithm = tiny(shared_torso=True, num_epochs=1, num_minibatches=1, metrics_every=0)
    _, common, _ = update(algorithm)
    _, own, _ = update(algorithm, critic_learning_rate=1e-2)
    equal_trees(own.params["params"]["shared_torso"], common.params["params"]["shared_torso"])
    assert not np.allclose(
        own.params["params"]["critic_head"]["kernel"], common.params["params"]["critic_head"]["kernel"]
    )


def test_the_critics_own_sizes():
    algorithm = tiny(critic_hidden_sizes=[5, 3], memory="gru", memory_size=2)
    for made in (algorithm, tiny(critic_hidden_sizes=[5, 3])):
        params = jax.eval_shape(made.init, KEY).params
        paths = [layer.kernel for layer in made.network.layers(params)]
        shapes = {path[1:]: structure.get(params, path).shape for path in paths}
        assert shapes == {
            ("actor_torso", "Dense_0", "kernel"): (4, 8),
            ("critic_torso", "Dense_0", "kernel"): (4, 5),
            ("critic_torso", "Dense_1", "kernel"): (5, 3),
        }
    assert prx.make(**algorithm.settings).loop is algorithm.loop


# --- standard deviations ---------------------------------------------------------------------------------------------


def scale(obs=None, env=None, **settings):
    algorithm = tiny("ppo", env or Echo(), **settings)
    obs = jnp.linspace(-1.0, 1.0, 5)[:, None] if obs is None else obs
    return algorithm, algorithm.network.apply(algorithm.init(KEY).params, obs).policy.scale


@pytest.mark.parametrize("policy", ["gaussian", "tanh_gaussian"])
def test_the_first_standard_deviation(policy):
    for log_std in (0.0, -1.5):
        _, sigma = scale(policy=policy, initial_log_std=log_std)
        np.testing.assert_allclose(sigma, np.exp(log_std), rtol=0.02)
    _, sigma = scale(policy="gaussian", initial_log_std=-1.5, state_dependent_std=True)
    np.testing.assert_allclose(sigma, np.exp(-1.5), rtol=0.02)


def test_a_standard_deviation_of_the_state():
    algorithm, sigma = scale(state_dependent_std=True)
    assert np.ptp(sigma) > 0
    _, constant = scale()
    assert np.ptp(constant) == 0
    after, logged = jax.jit(algorithm.step)(algorithm.init(KEY))
    assert np.isfinite(logged["loss"])
    assert "actor_log_scale" not in after.params["params"]
    # Its units' outgoing weights are those of both heads.
    outgoing = [layer.outgoing for layer in algorithm.network.layers(after.params) if layer.network == "actor"]
    assert [path[1] for path in outgoing[-1]] == ["actor_head", "actor_log_scale_head"]


# --- the other settings ----------------------------------------------------------------------------------------------


def test_schedules_reach_the_update():
    """At 16 steps of 32 the coefficient is halved; at 32 the entropy has none, and every ratio but 1 is clipped."""
    algorithm = tiny(metrics_every=0, entropy_coef=0.5, value_coef=0.0, entropy_anneal_steps=32, clip_anneal_steps=32)
    state, step = algorithm.init(KEY), jax.jit(algorithm.loop.step)
    for update, share in ((0, 1.0), (1, 0.5), (2, 0.0), (9, 0.0)):
        _, logged = step(state.replace(update=jnp.int32(update)), algorithm.hparams)
        total = logged["policy_loss"] - share * 0.5 * logged["entropy"]
        np.testing.assert_allclose(logged["loss"], total, rtol=1e-5, atol=1e-6)
        if share == 0.0:
            assert logged["clip_fraction"] > 0.3
        else:
            assert logged["clip_fraction"] < 0.1


def test_norms_of_each_network():
    """Both parts make the whole, where nothing is shared; value and its deviation are those of the data."""
    algorithm = tiny(num_epochs=1, num_minibatches=1, metrics_every=0)
    state, _, logged = update(algorithm)
    parts = np.hypot(logged["actor_grad_norm"], logged["critic_grad_norm"])
    np.testing.assert_allclose(logged["grad_norm"], parts, rtol=1e-5)
    assert logged["actor_grad_norm"] > 0
    hparams = jax.tree.map(jnp.float32, algorithm.hparams)
    _, rollout, seen = algorithm.loop.collect(state, hparams, tuple(jax.random.split(KEY, 3)), jnp.zeros(()))
    told = algorithm.loop.told(rollout, seen.transition)
    np.testing.assert_allclose(told["value"], rollout.output.value.mean(), rtol=1e-5)
    np.testing.assert_allclose(told["value_std"], np.std(rollout.output.value), rtol=1e-4)
    assert {"value", "value_std"} <= logged.keys()
    assert "actor_grad_norm" not in jax.eval_shape(tiny("dqn").step, jax.eval_shape(tiny("dqn").init, KEY))[1]


def test_he_normal():
    """Hidden layers of variance 2 / fan_in, heads of 1 / fan_in, no biases; convolutions count their window."""
    torso = networks.Torso((200, 300), conv_layers=((50, 3, 1),), initializer="he_normal")
    network = networks.QNetwork(400, torso, initializer="he_normal")
    params = network.init(KEY, jnp.ones((1, 5, 5, 8)))["params"]
    kernels = {**params["critic_torso"], "head": params["critic_head"]}
    for name, fan_in, gain in (("PatchConv_0", 72, 2), ("Dense_0", 450, 2), ("Dense_1", 200, 2), ("head", 300, 1)):
        kernel = np.asarray(kernels[name]["kernel"])
        np.testing.assert_allclose(kernel.std(), np.sqrt(gain / fan_in), rtol=0.03, err_msg=name)
        assert np.abs(kernel).max() < 2.3 * np.sqrt(gain / fan_in)
        assert (np.asarray(kernels[name]["bias"]) == 0).all()


@pytest.mark.parametrize(
    ("num_envs", "steps", "prefill"), [(4, 12, 1000), (3, 12, 1002), (64, 64, 1024), (2000, 2000, 2000)]
)
def test_replay_sizes_follow_the_environments(num_envs, steps, prefill):
    config = prx.ALGORITHMS["dqn"].config(num_envs=num_envs)
    assert (config.env_steps_per_update, config.prefill_steps) == (steps, prefill)


def test_prefill_fits_the_replay():
    config = prx.ALGORITHMS["dqn"].config(num_envs=3, replay_capacity=500, batch_size=4)
    assert config.prefill_steps == 498
    assert prx.ALGORITHMS["dqn"].config(num_envs=100, n_step=20).prefill_steps == 2000
    with pytest.raises(ValueError, match="replay_capacity=64"):
        prx.ALGORITHMS["dqn"].config(num_envs=64, replay_capacity=64, batch_size=4, n_step=2)


NO_EFFECT = {
    "target_kl": ("ppo", {"target_kl": 0.1}, "stop_at_kl is True"),
    "critic_learning_rate, no actor": ("dqn", {"critic_learning_rate": 0.1}, "critic_learning_rate=0.1 .*Q-networks"),
    "critic_learning_rate, no critic": (
        "reinforce",
        {"critic_learning_rate": 0.1, "baseline": False},
        "baseline is True",
    ),
    "critic_hidden_sizes, shared": (
        "ppo",
        {"critic_hidden_sizes": (4,), "shared_torso": True},
        "None with shared_torso",
    ),
    "critic_hidden_sizes, no critic": (
        "reinforce",
        {"critic_hidden_sizes": (4,), "baseline": False},
        "baseline is True",
    ),
    "critic_hidden_sizes": ("ppo", {"critic_hidden_sizes": (0,)}, r"critic_hidden_sizes=\(0,\) .*positive ints"),
    "initial_log_std": ("ppo", {"initial_log_std": -1.0}, "policy is 'gaussian' or 'tanh_gaussian'"),
    "initial_log_std, wide": ("ppo", {"initial_log_std": 3.0}, r"in \[-20, 2\]"),
    "state_dependent_std": ("ppo", {"state_dependent_std": True}, "policy is 'gaussian'"),
    "reward_clip": ("ppo", {"reward_clip": 5.0}, "normalize_rewards is True"),
    "reward_clip 0": ("ppo", {"reward_clip": 0, "normalize_rewards": True}, "reward_clip=0 .*greater than 0"),
    "normalize_advantage": ("ppo", {"normalize_advantage": "rollout"}, "False, 'minibatch', 'batch'"),
    "clip_anneal_steps": ("ppo", {"clip_anneal_steps": -1}, "clip_anneal_steps=-1"),
    "feature_part": (
        "pfo",
        {"feature_part": "feature", "feature_layers": "all"},
        "'last' where feature_part='feature'",
    ),
    "memory_size": ("pqn", {"memory_size": 5}, "memory is 'gru' or 'lstm'"),
    "sarsa of one step": ("sarsa", {"num_steps": 1, "num_minibatches": 1}, "num_steps=1 .*at least 2"),
    "minibatches of one": ("ppo", {"num_minibatches": 16}, "num_minibatches=16 .*more than one sample"),
    "a batch of one": (
        "ppo",
        {"num_envs": 1, "num_steps": 1, "num_minibatches": 1, "normalize_advantage": "batch"},
        "num_steps=1 .*more than one sample",
    ),
}


@pytest.mark.parametrize(("name", "settings", "message"), NO_EFFECT.values(), ids=NO_EFFECT)
def test_what_would_have_no_effect_is_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(name, **settings)


def test_what_is_just_enough_is_not():
    """Two steps for SARSA; a minibatch of one where advantages are as they are, or normalised over the batch."""
    tiny("sarsa", num_steps=2)
    for normalized in (False, "batch"):
        tiny("ppo", num_minibatches=16, normalize_advantage=normalized)
