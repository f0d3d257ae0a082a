"""The plasticity suite: each intervention against its formula on literal arrays, and one property that is lost without it."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from toys import equal_trees, tiny

import purejaxrl_ext as prx
from purejaxrl_ext.interventions import (
    base,
    continual_backprop,
    l2_init,
    layer_reset,
    moments,
    normalize_project,
    parseval,
    plasticity_injection,
    regrama,
    shrink_perturb,
    snr,
    spectral,
    spo,
    trac,
    wasserstein_init,
    watch,
)
from purejaxrl_ext.networks.structure import Layer
from purejaxrl_ext.rules import ppo

INF = float("inf")
KEY = jax.random.key(0)
# h = relu(x W + b), out = h V + c: three units.
PARAMS = {
    "params": {
        "torso": {"kernel": jnp.array([[3.0, 0.0, 1.0], [0.0, 1.0, 2.0]]), "bias": jnp.array([0.0, 1.0, -9.0])},
        "head": {"kernel": jnp.array([[1.0], [-2.0], [4.0]]), "bias": jnp.array([0.5])},
    }
}
FRESH = jax.tree.map(lambda x: jnp.full(x.shape, 0.25), PARAMS)
LAYER = Layer(
    "critic", 0, ("params", "torso", "kernel"), ("params", "torso", "bias"), (("params", "head", "kernel"),), "relu"
)
OBS = jnp.array([[1.0, 2.0], [1.0, 0.0]])


def apply(params, obs=OBS):
    p = params["params"]
    pre = obs @ p["torso"]["kernel"] + p["torso"]["bias"][None]
    value = jax.nn.relu(pre) @ p["head"]["kernel"] + p["head"]["bias"][None]
    return prx.Output(value=value[:, 0], critic=prx.Representation(jax.nn.relu(pre), (pre,), "relu"))


NET = prx.Net(
    init=lambda key: FRESH,
    evaluate=lambda params, samples: (apply(params), None),
    loss=lambda params, samples, hparams: (apply(params).value.mean(), {}),
    layers=lambda params: (LAYER,),
    first_moments=lambda params, hparams: {"m": jax.tree.map(jnp.zeros_like, params)},
)


def context(update=0, **hparams):
    hparams = SimpleNamespace(**{name: jnp.float32(value) for name, value in hparams.items()})
    return base.Context(hparams, jnp.int32(update), KEY, jnp.float32(0.1))


def given(**hparams):
    return SimpleNamespace(**hparams)


def learner(memory=(), params=PARAMS):
    return prx.Learner(params, {"m": jax.tree.map(jnp.ones_like, params)}, memory)


def test_three_losses_are_called_l2_init():
    now = jax.tree.map(lambda x: x + 2.0, PARAMS)
    sizes = {"kernel": 6, "bias": 3, "head": 3, "c": 1}
    total = 4.0 * sum(sizes.values())
    hparams = given(l2_init_coef=0.5, l2_init_mean_coef=0.5, l2_init_norm_coef=0.5)
    for function, expected in (
        (l2_init.penalty, total),
        (l2_init.mean_penalty, 4.0 * len(sizes)),
        (l2_init.norm_penalty, np.sqrt(total)),
    ):
        np.testing.assert_allclose(function(NET, now, PARAMS, None, None, hparams)[0], 0.5 * expected, rtol=1e-6)


def test_the_root_pulls_equally_from_everywhere_and_not_at_the_start():
    slope = jax.grad(lambda p: l2_init.norm_penalty(NET, p, PARAMS, None, None, given(l2_init_norm_coef=0.5))[0])
    assert optax.tree.norm(slope(PARAMS)) == 0
    for far in (0.1, 10.0):
        np.testing.assert_allclose(optax.tree.norm(slope(jax.tree.map(lambda x, f=far: x + f, PARAMS))), 0.5, rtol=1e-5)


def test_wasserstein_minds_the_distribution_and_not_the_places():
    first = {"w": jnp.array([[1.0, 5.0], [2.0, 0.0]])}
    memory = wasserstein_init.remember(KEY, first)

    def value(w):
        return wasserstein_init.penalty(NET, {"w": w}, memory, None, None, given(wasserstein_init_coef=0.5))[0]

    assert value(jnp.array([[5.0, 0.0], [1.0, 2.0]])) == 0
    np.testing.assert_allclose(value(jnp.array([[6.0, 0.0], [1.0, 4.0]])), 0.5 * (1 + 4))


def test_soft_shrink_and_perturb_keeps_the_sum_of_shares():
    after = shrink_perturb.mix_softly(NET, learner(), context(soft_shrink_perturb_noise=0.25)).params
    np.testing.assert_allclose(after["params"]["head"]["kernel"], 0.75 * np.array([[1.0], [-2.0], [4.0]]) + 0.0625)


@pytest.mark.parametrize("shape", [(2, 4), (4, 2), (3, 3)])
def test_parseval_is_zero_for_orthogonal_weights_of_its_scale(shape):
    w = jax.nn.initializers.orthogonal(np.sqrt(2.0))(KEY, shape)
    assert parseval.distance(w, 2.0) < 1e-9
    np.testing.assert_allclose(parseval.distance(w, 1.0), min(shape), rtol=1e-4)


def test_parseval_is_of_hidden_layers_alone():
    value, _ = parseval.penalty(NET, PARAMS, (), None, None, given(parseval_coef=0.5, parseval_scale=2.0))
    gram = np.array([[9.0 + 1.0, 2.0], [2.0, 1.0 + 4.0]])
    np.testing.assert_allclose(value, 0.5 * np.square(gram - 2.0 * np.eye(2)).sum(), rtol=1e-6)


def test_spectral_draws_the_largest_singular_value_to_one():
    follower = learner(spectral.begin(KEY, PARAMS))
    for _ in range(30):
        follower = spectral.follow(NET, follower, context())

    def value(params):
        return spectral.penalty(NET, params, follower.memory, None, None, given(spectral_coef=0.5))[0]

    u, sigma, v = np.linalg.svd(PARAMS["params"]["torso"]["kernel"])
    np.testing.assert_allclose(value(PARAMS), 0.5 * (sigma[0] ** 2 - 1) ** 2, rtol=1e-5)
    slope = 0.5 * 2 * (sigma[0] ** 2 - 1) * 2 * sigma[0] * np.outer(u[:, 0], v[0])
    np.testing.assert_allclose(jax.grad(value)(PARAMS)["params"]["torso"]["kernel"], slope, rtol=1e-3, atol=1e-3)


def test_normalize_project_keeps_the_size_of_hidden_weights():
    normed = LAYER._replace(scales=(("params", "torso", "LayerNorm_0", "scale"),))
    made = NET._replace(layers=lambda params: (normed,))
    memory = normalize_project.remember(KEY, PARAMS)
    grown = learner(memory, jax.tree.map(lambda x: 3.0 * x, PARAMS))
    for share, factor in ((1.0, 1.0), (0.0, 3.0), (0.5, 2.0)):
        after = normalize_project.project(made, grown, context(normalize_project_share=share)).params["params"]
        np.testing.assert_allclose(after["torso"]["kernel"], factor * PARAMS["params"]["torso"]["kernel"], rtol=1e-6)
        equal_trees(after["head"], grown.params["params"]["head"])
    with pytest.raises(ValueError, match=r"normalize_project.*layer_norm=True"):
        normalize_project.project(NET, grown, context(normalize_project_share=1.0))


@pytest.mark.parametrize(("count", "begun"), [(1, {"head"}), (2, {"head", "torso"}), (INF, {"head", "torso"})])
def test_the_last_layers_begin_anew(count, begun):
    def reset(update):
        told = context(update, layer_reset_every=3, layer_reset_count=count)
        return layer_reset.reset(NET, learner(), None, told)[0]

    equal_trees(reset(1).params, PARAMS)
    after = reset(2)
    for name in ("head", "torso"):
        equal_trees(after.params["params"][name], (FRESH if name in begun else PARAMS)["params"][name])
        assert all((m == float(name not in begun)).all() for m in jax.tree.leaves(after.opt_state["m"]["params"][name]))


# --- units -------------------------------------------------------------------------------------------------------------


def test_a_unit_that_learns_little_begins_anew():
    np.testing.assert_allclose(
        regrama.scores(jnp.array([[2.0, 0.0, 1.0], [4.0, 0.0, 2.0]])), [2.0, 0.0, 1.0], rtol=1e-6
    )
    transform = regrama.record(optax.sgd(0.1))
    opt_state = transform.init(PARAMS)
    for _ in range(2):
        grads = jax.grad(lambda p: NET.loss(p, None, None)[0])(PARAMS)
        _, opt_state = transform.update(grads, opt_state, PARAMS)
    total = regrama.recorded(opt_state, PARAMS)["params"]["torso"]["kernel"]
    # The third unit is silent: nothing reaches its weights.
    np.testing.assert_allclose(total, 2.0 * np.array([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0]]))
    for update, count in ((0, 0), (1, 1)):
        told = context(update, regrama_every=2, regrama_tau=0.1)
        after, logged = regrama.recycle(NET, prx.Learner(PARAMS, opt_state), None, told)
        assert logged["regrama_units"] == count
    np.testing.assert_array_equal(after.params["params"]["torso"]["kernel"], [[3.0, 0.0, 0.25], [0.0, 1.0, 0.25]])
    np.testing.assert_array_equal(after.params["params"]["head"]["kernel"], [[1.0], [-2.0], [0.0]])
    assert optax.tree.norm(regrama.recorded(after.opt_state, PARAMS)) == 0


def test_usefulness_is_what_is_said_and_how_much_of_it_is_heard():
    said = jnp.array([[[1.0, -2.0]], [[3.0, -2.0]]])
    kernel, rows = jnp.array([[1.0, -4.0], [1.0, 0.0]]), jnp.array([[[1.0, -2.0], [0.5, 0.5]]])
    np.testing.assert_allclose(continual_backprop.usefulness(said, kernel, [rows]), [2.0 * 3.0 / 2.0, 2.0 * 1.0 / 4.0])


def test_the_least_useful_mature_units_are_replaced_a_few_at_a_time():
    told = context(continual_backprop_rate=0.25, continual_backprop_decay=0.5, continual_backprop_maturity=2.0)
    units = continual_backprop.Units(jnp.zeros(4), jnp.array([0.0, 9.0, 9.0, 9.0]), jnp.float32(0.5))
    units, chosen = continual_backprop.followed(units, jnp.array([0.0, 3.0, 1.0, 2.0]), told)
    # 0.5 + 0.25 · 3 mature ones: one is due, and a quarter is left.
    np.testing.assert_array_equal(chosen, [False, False, True, False])
    np.testing.assert_allclose(units.due, 0.25)
    np.testing.assert_allclose(units.useful, [0.0, 1.5, 0.0, 1.0])
    np.testing.assert_allclose(units.age, [1.0, 10.0, 0.0, 10.0])


def test_what_a_replaced_unit_said_on_average_stays_in_the_biases_behind_it():
    """So that a unit that always says the same goes unnoticed: the second one, on these observations."""
    obs = jnp.array([[1.0, 2.0], [5.0, 2.0]])
    said = [apply(PARAMS, obs).critic.features[:, None]]
    chosen = [jnp.array([False, True, False])]
    params = continual_backprop.correct_biases(PARAMS, (LAYER,), chosen, said)
    assert params["params"]["head"]["bias"][0] == 0.5 - 2.0 * 3.0
    made = NET._replace(evaluate=lambda params, samples: (apply(params, obs), None))
    told = context(continual_backprop_rate=1.0, continual_backprop_decay=0.0, continual_backprop_maturity=0.0)
    silent = {
        **PARAMS,
        "params": PARAMS["params"] | {"torso": {**PARAMS["params"]["torso"], "bias": jnp.full(3, -9.0)}},
    }
    memory = continual_backprop.begin(KEY, silent)
    after, logged = continual_backprop.replace(made, learner(memory, silent), None, told)
    assert logged["continual_backprop_units"] == 3
    assert (after.params["params"]["head"]["kernel"] == 0).all()
    np.testing.assert_allclose(apply(after.params, obs).value.mean(), apply(silent, obs).value.mean(), rtol=1e-6)


def test_a_unit_falls_silent_by_its_own_past():
    first = snr.Speech(*(jnp.zeros(3) for _ in range(3)))
    said = jnp.array([[1.0, 0.0, 0.0], [1.0, 2.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])[:, None]
    speech = snr.heard(first, said)
    np.testing.assert_array_equal(speech.spoken, [4, 1, 0])
    np.testing.assert_array_equal(speech.silent, [0, 2, 4])
    later = snr.heard(speech, jnp.zeros((4, 1, 3)))
    np.testing.assert_array_equal(later.silent, [4, 6, 8])
    # Shares 1/2, 1/8 and the layer's mean 5/24: (1 − p)^a is 0.0625, 0.449, 0.154.
    for eta, expected in ((0.0, [0, 0, 0]), (0.1, [1, 0, 0]), (0.2, [1, 0, 1]), (0.5, [1, 1, 1])):
        np.testing.assert_array_equal(snr.fallen_silent(later, jnp.float32(eta)), np.array(expected, bool))


def test_silent_units_begin_anew():
    after, logged = snr.reset(NET, learner(snr.begin(KEY, PARAMS)), None, context(snr_eta=0.5))
    assert logged["snr_units"] == 1
    np.testing.assert_array_equal(after.params["params"]["head"]["kernel"], [[1.0], [-2.0], [0.0]])
    assert after.memory["params"]["torso"]["kernel"].seen.tolist() == [2.0, 2.0, 0.0]


# --- optimisers and losses ---------------------------------------------------------------------------------------------


def test_erfi_is_scipys():
    x = np.linspace(-8.0, 8.0, 41)
    np.testing.assert_allclose(trac.erfi(jnp.asarray(x, jnp.float32)), scipy.special.erfi(x), rtol=2e-5, atol=1e-7)


def test_trac_is_its_equations():
    """Against NumPy in float64; a large first scale, so that steps can be seen."""
    transform, scale = trac.tuned(optax.sgd(0.1), jnp.float32(0.5)), 0.5
    params = first = {"w": jnp.array([1.0, -2.0])}
    state, walk = transform.init(params), np.zeros(2)
    variance, sigma, decays = np.zeros(6), np.zeros(6), np.asarray(trac.DECAYS)
    for t in range(4):
        g = np.array([1.0, 0.5]) * (t + 1)
        updates, state = transform.update({"w": jnp.asarray(g, jnp.float32)}, state, params)
        params = optax.apply_updates(params, updates)
        h = -(g @ walk)
        variance, sigma = decays**2 * variance + h**2, decays * sigma + h
        s = scipy.special.erfi(sigma / (np.sqrt(2 * variance) + 1e-8)) / scipy.special.erfi(np.sqrt(0.5))
        walk = walk - 0.1 * g
        np.testing.assert_allclose(params["w"], np.asarray(first["w"]) + scale * s.sum() * walk, rtol=1e-4)
    assert not np.allclose(params["w"], first["w"])


def test_spo_is_best_at_the_edge_of_its_trust_region():
    ratio = jnp.linspace(0.5, 1.5, 101)
    for advantage, best in ((2.0, 1.2), (-2.0, 0.8)):
        values = spo.surrogate(ratio, jnp.full(101, advantage), 0.2)
        np.testing.assert_allclose(ratio[jnp.argmax(values)], best, atol=1e-3)
    np.testing.assert_allclose(spo.surrogate(jnp.float32(1.5), jnp.float32(-2.0), 0.2), -3.0 - 2.0 * 0.25 / 0.4)


def test_spo_takes_the_place_of_the_clipped_surrogate():
    loss = functools.partial(ppo.loss, normalize_advantage=False)
    logits = jnp.log(jnp.array([[0.7, 0.3], [0.2, 0.8]]))
    output = prx.Output(policy=prx.Categorical(logits), value=jnp.zeros(2))
    advantage, action = jnp.array([2.0, -1.0]), jnp.array([0, 1])
    batch = ppo.PPOBatch((), action, advantage, jnp.ones(2), jnp.log(jnp.array([0.5, 0.5])), output)
    ratio = jnp.array([1.4, 1.6])
    for share in (0.0, 1.0, 0.5):
        hparams = given(clip_eps=0.2, value_clip_eps=INF, value_coef=0.5, entropy_coef=0.0, spo_share=share)
        total, logged = spo.mixed(loss)(output, batch, hparams)
        expected = -(1 - share) * ppo.surrogate(ratio, advantage, 0.2) - share * spo.surrogate(ratio, advantage, 0.2)
        np.testing.assert_allclose(logged["policy_loss"], expected.mean(), rtol=1e-5)
        np.testing.assert_allclose(total, expected.mean() + 0.25, rtol=1e-5)


@pytest.mark.parametrize("kind", ["dqn", "pqn", "reinforce"])
def test_spo_needs_a_surrogate(kind):
    with pytest.raises(ValueError, match=r"interventions='spo'.*PPO or PFO"):
        tiny(kind, interventions=("spo",))


# --- plasticity injection ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("ppo", {"env": "Pendulum-v1", "separate_optimizers": True}), ("dqn", {"env": "Breakout-MinAtar"})],
)
def test_an_injection_changes_nothing_that_is_said_and_lets_new_weights_learn(kind, settings):
    algorithm = tiny(
        kind, interventions=("plasticity_injection",), metrics_every=0, plasticity_injection_at=1.0, **settings
    )
    network = algorithm.network
    first = algorithm.init(KEY)
    loop = algorithm.loop
    obs = jnp.stack([algorithm.env.reset(KEY)[1], algorithm.env.reset(jax.random.key(1))[1]])
    hparams = jax.tree.map(jnp.float32, algorithm.hparams)
    told = base.Context(hparams, jnp.int32(0), KEY, jnp.float32(0.1))
    injected, _ = plasticity_injection.inject(loop.net, first.learner.replace(memory=first.params), None, told)
    said = [network.apply(params, obs) for params in (first.params, injected.params)]
    equal_trees(*((x.policy, x.value, x.q_values) for x in said))

    def total(params):
        return sum(
            jnp.square(x).sum() for x in jax.tree.leaves(network.apply(params, obs).replace(actor=(), critic=()))
        )

    grads = jax.tree_util.tree_leaves_with_path(jax.grad(total)(injected.params))
    for path, g in grads:
        names = [k.key for k in path[1:]]
        learns = names[0].endswith("_new") or any(n.startswith("PatchConv") for n in names)
        assert learns or (g == 0).all(), names
    assert any((g != 0).any() for _, g in grads)
    moved = injected.replace(params=jax.tree.map(lambda x: x + 1.0, injected.params))
    held = plasticity_injection.hold(loop.net, moved, told)
    for path, x in jax.tree_util.tree_leaves_with_path(held.params):
        names = [k.key for k in path[1:]]
        learns = names[0].endswith("_new") or any(n.startswith("PatchConv") for n in names)
        before = functools.reduce(lambda tree, k: tree[k.key], path, injected.params)
        np.testing.assert_array_equal(x, before + 1.0 if learns else before)


def test_an_injection_knows_what_it_can_add_up():
    with pytest.raises(ValueError, match=r"plasticity_injection.*RecurrentActorCritic"):
        tiny("ppo", interventions=("plasticity_injection",), memory="gru", memory_size=4)
    algorithm = tiny("ppo", interventions=("plasticity_injection", "redo"))
    with pytest.raises(ValueError, match="plasticity_injection cannot be used with"):
        jax.eval_shape(lambda key: algorithm.step(algorithm.init(key)), KEY)


# --- watch -------------------------------------------------------------------------------------------------------------


def test_watch_says_how_large_weights_and_steps_are():
    transform = watch.watched(optax.sgd(0.1))
    params = {"params": {"actor_head": jnp.array([3.0]), "critic_head": jnp.array([4.0])}}
    state = transform.init(params)
    for _ in range(2):
        _, state = transform.update(params, state, params)
    made = NET._replace(layers=lambda params: ())
    memory = watch.Kept(jax.tree.map(jnp.zeros_like, params), jax.tree.map(lambda x: x - 1.0, params))
    after, logged = watch.log(made, prx.Learner(params, state, memory), None, context())
    expected = {
        "weight_norm": 5.0,
        "actor_init_distance": 3.0,
        "critic_update_norm": 1.0,
        "step_norm": 0.5,
        "critic_step_norm": 0.4,
        "actor_clipped_grad_norm": 3.0,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(logged[name], value, rtol=1e-6, err_msg=name)
    assert optax.tree.norm(moments.states(after.opt_state, watch.Steps)[""].sizes) == 0


def test_gradient_dormant_units_are_those_whose_weights_hardly_move():
    sizes = jax.tree.map(jnp.abs, jax.grad(lambda p: NET.loss(p, None, None)[0])(PARAMS))
    np.testing.assert_allclose(watch.gradient_dormant(NET, sizes, PARAMS)["critic_gradient_dormant"], 1 / 3, rtol=1e-6)


def test_watch_agrees_with_the_loop():
    """After clipping no gradient is longer than allowed; one update from the start is as far as its norm says."""
    algorithm = tiny("ppo", interventions=("watch",), metrics_every=0, separate_optimizers=True, max_grad_norm=0.1)
    state, logged = jax.jit(algorithm.step)(algorithm.init(KEY))
    for name in ("", "actor_", "critic_"):
        assert logged[f"{name}init_distance"] == logged[f"{name}update_norm"] > 0
    for name in ("actor", "critic"):
        np.testing.assert_allclose(logged[f"{name}_clipped_grad_norm"], 0.1, rtol=0.3)
        assert logged[f"{name}_clipped_grad_norm"] < 0.1001
        assert 0 < logged[f"{name}_update_norm"] < 4.01 * logged[f"{name}_step_norm"]
        assert f"{name}_gradient_dormant" in logged
    np.testing.assert_allclose(logged["weight_norm"], optax.tree.norm(state.params), rtol=1e-5)
