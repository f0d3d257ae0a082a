"""What ships: each against its formula on literal arrays, and by what it does to training."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import equal_trees, tiny

import purejaxrl_ext as prx
from purejaxrl_ext.interventions import (
    adam_reset,
    base,
    chain,
    l2,
    l2_init,
    moments,
    redo,
    shrink_perturb,
    weight_clipping,
    weight_decay,
)
from purejaxrl_ext.networks import structure
from purejaxrl_ext.networks.structure import Layer

INF = float("inf")
KEY = jax.random.key(0)
UPDATES = 3
OFF = {
    "l2": {"l2_coef": 0.0},
    "weight_decay": {"weight_decay_coef": 0.0},
    "l2_init": {"l2_init_coef": 0.0},
    "shrink_perturb": {"shrink_perturb_every": INF},
    "redo": {"redo_every": INF},
    "adam_reset": {"adam_reset_every": INF},
    "adam_rel": {"adam_rel_every": INF},
    "weight_clipping": {"weight_clipping_kappa": INF},
    "chain": {"chain_coef": 0.0, "chain_value_coef": 0.0, "chain_ratio": 0.0},
    "l2_init_mean": {"l2_init_mean_coef": 0.0},
    "l2_init_norm": {"l2_init_norm_coef": 0.0},
    "wasserstein_init": {"wasserstein_init_coef": 0.0},
    "parseval": {"parseval_coef": 0.0},
    "spectral": {"spectral_coef": 0.0},
    "soft_shrink_perturb": {"soft_shrink_perturb_noise": 0.0},
    "layer_reset": {"layer_reset_every": INF},
    "continual_backprop": {"continual_backprop_rate": 0.0},
    "snr": {"snr_eta": 0.0},
    "regrama": {"regrama_every": INF},
    "normalize_project": {"normalize_project_share": 0.0},
    "plasticity_injection": {"plasticity_injection_at": INF},
    "spo": {"spo_share": 0.0},
    "watch": {},
}
# Not off but by not being named.
ALWAYS = {"trac"}
# An injected network has no layers to look at, and its sums are fused in another way.
INJECTION = "plasticity_injection"


@functools.cache
def trained(kind, names, **hparams):
    """The State after a few updates, and the metrics; equal names share a program, whatever the settings."""
    algorithm = tiny(kind, interventions=names, metrics_every=0, learning_rate=3e-3, **hparams)
    return prx.train(algorithm, KEY, UPDATES * algorithm.steps_per_update)


def test_all_that_ship_are_here():
    assert set(OFF) | ALWAYS == set(prx.INTERVENTIONS)


@pytest.mark.optimized
@pytest.mark.parametrize("kind", ["ppo", "dqn"])
def test_what_is_off_changes_no_bit(kind):
    """All at once: a program each would take minutes to compile."""
    names = tuple(n for n in OFF if n != INJECTION and (n != "spo" or kind == "ppo"))
    plain, logged = trained(kind, (), layer_norm=True)
    off, logged_off = trained(kind, names, layer_norm=True, **{k: v for name in names for k, v in OFF[name].items()})
    for part in ("params", "target_params", "env", "key", "replay"):
        equal_trees(getattr(off, part), getattr(plain, part))
    equal_trees({name: logged_off[name] for name in logged}, logged)


@pytest.mark.optimized
@pytest.mark.parametrize("kind", ["ppo", "dqn"])
def test_what_is_not_yet_injected_changes_the_last_bits_at_most(kind):
    plain, _ = trained(kind, ())
    off, _ = trained(kind, (INJECTION,), **OFF[INJECTION])
    for path, x in jax.tree_util.tree_leaves_with_path(plain.params):
        np.testing.assert_allclose(functools.reduce(lambda tree, k: tree[k.key], path, off.params), x, atol=1e-6)


# --- formulas ----------------------------------------------------------------------------------------------------------

PARAMS = {"params": {"layer": {"kernel": jnp.array([[1.0, -2.0], [3.0, 0.5]]), "bias": jnp.array([-1.0, 4.0])}}}
FRESH = jax.tree.map(lambda x: 10.0 * jnp.ones_like(x), PARAMS)


def context(update=0, **hparams):
    hparams = SimpleNamespace(**{name: jnp.float32(value) for name, value in hparams.items()})
    return base.Context(hparams, jnp.int32(update), KEY, jnp.float32(0.1))


def net(**parts):
    whole = dict.fromkeys(prx.Net._fields) | {"init": lambda key: FRESH} | parts
    return prx.Net(**whole)


def weights(learner):
    return learner.params["params"]["layer"]


def test_l2_is_the_sum_of_squares():
    value, _ = l2.penalty(net(), PARAMS, (), None, None, SimpleNamespace(l2_coef=0.5))
    np.testing.assert_allclose(value, 0.5 * (1 + 4 + 9 + 0.25 + 1 + 16))


def test_l2_init_is_the_sum_of_squares_from_the_start():
    memory = l2_init.remember(KEY, FRESH)
    value, _ = l2_init.penalty(net(), PARAMS, memory, None, None, SimpleNamespace(l2_init_coef=0.5))
    np.testing.assert_allclose(value, 0.5 * (81 + 144 + 49 + 9.5**2 + 121 + 36))


def test_weight_decay_shrinks_kernels_by_the_learning_rate():
    after = weights(weight_decay.decay(net(), prx.Learner(PARAMS, ()), context(weight_decay_coef=0.5)))
    np.testing.assert_allclose(after["kernel"], 0.95 * weights(prx.Learner(PARAMS, ()))["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(after["bias"], [-1.0, 4.0])


def test_shrink_and_perturb_mixes_in_fresh_parameters_when_due():
    given = {"shrink_perturb_shrink": 0.5, "shrink_perturb_noise": 0.25, "shrink_perturb_every": 2}
    learner = prx.Learner(PARAMS, ())
    for update, expected in ((0, [[1.0, -2.0], [3.0, 0.5]]), (1, [[3.0, 1.5], [4.0, 2.75]])):
        after, _ = shrink_perturb.mix(net(), learner, None, context(update, **given))
        np.testing.assert_allclose(weights(after)["kernel"], expected)
    np.testing.assert_allclose(weights(after)["bias"], [2.0, 4.5])


@pytest.mark.parametrize("kappa", [1.0, 3.0, INF])
def test_weight_clipping_is_by_the_number_of_inputs(kappa):
    learner = prx.Learner({"k": jnp.linspace(-3.0, 3.0, 12).reshape(4, 3), "b": jnp.array([9.0])}, ())
    after = weight_clipping.clip(net(), learner, context(weight_clipping_kappa=kappa)).params
    np.testing.assert_allclose(after["k"], np.clip(learner.params["k"], -kappa / 2, kappa / 2))
    assert after["b"] == 9.0


def test_adam_reset_and_adam_rel_are_before_every_kth_update_after_the_first():
    learner = prx.Learner(PARAMS, {"count": jnp.int32(5), "m": PARAMS})
    fresh = {"count": jnp.int32(0), "m": jax.tree.map(jnp.zeros_like, PARAMS)}
    made = net(first_moments=lambda params, hparams: fresh)
    for update, is_reset in ((1, False), (2, True), (3, False), (4, True)):
        for hook, name in ((adam_reset.reset, "adam_reset_every"), (adam_reset.reset_time, "adam_rel_every")):
            after = hook(made, learner, context(update, **{name: 2})).opt_state
            assert after["count"] == (0 if is_reset else 5)
            keeps = hook is adam_reset.reset_time or not is_reset
            equal_trees(after["m"], PARAMS if keeps else fresh["m"])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([[1.0, -3.0], [-1.0, 3.0]], [0.5, 1.5]),
        ([[0.0, 2.0], [0.0, 0.0]], [0.0, 2.0]),
        ([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0]),
    ],
)
def test_a_units_score_is_its_mean_size_over_its_layers(said, expected):
    """As samples, and as places of an image."""
    said = jnp.array(said)
    np.testing.assert_allclose(redo.scores(said[:, None]), expected, rtol=1e-6)
    np.testing.assert_allclose(redo.scores(said[None]), expected, rtol=1e-6)


def redone(tau, every=1.0, update=0):
    """ReDo on two units, the first of which is silent: h = relu(x W + b), out = h V."""
    relu = {
        "torso": {"kernel": jnp.array([[-1.0, 1.0]]), "bias": jnp.array([-1.0, 1.0])},
        "head": {"kernel": jnp.array([[5.0], [6.0]]), "bias": jnp.array([7.0])},
    }
    params = {"params": relu}
    layer = Layer(
        "critic", 0, ("params", "torso", "kernel"), ("params", "torso", "bias"), (("params", "head", "kernel"),), "relu"
    )
    x = jnp.array([[1.0], [2.0]])

    def evaluate(params, samples):
        pre = x @ params["params"]["torso"]["kernel"] + params["params"]["torso"]["bias"][None]
        return prx.Output(critic=prx.Representation(jax.nn.relu(pre), (pre,), "relu")), None

    fresh = jax.tree.map(lambda x: jnp.full(x.shape, 0.25), params)
    made = net(init=lambda key: fresh, evaluate=evaluate, layers=lambda params: (layer,))
    learner = prx.Learner(params, {"count": jnp.int32(9), "m": jax.tree.map(jnp.ones_like, params)})
    after, logged = redo.recycle(made, learner, None, context(update, redo_tau=tau, redo_every=every))
    return after.params["params"], after.opt_state["m"]["params"], logged["redo_units"]


def test_redo_begins_a_dormant_unit_anew():
    params, m, units = redone(tau=0.1)
    np.testing.assert_array_equal(params["torso"]["kernel"], [[0.25, 1.0]])
    np.testing.assert_array_equal(params["torso"]["bias"], [0.25, 1.0])
    np.testing.assert_array_equal(params["head"]["kernel"], [[0.0], [6.0]])
    np.testing.assert_array_equal(params["head"]["bias"], [7.0])
    np.testing.assert_array_equal(m["torso"]["kernel"], [[0.0, 1.0]])
    np.testing.assert_array_equal(m["torso"]["bias"], [0.0, 1.0])
    np.testing.assert_array_equal(m["head"]["kernel"], [[0.0], [1.0]])
    assert units == 1


@pytest.mark.parametrize(
    ("tau", "every", "update", "units"), [(2.0, 1, 0, 2), (0.0, 1, 0, 1), (0.1, 3, 1, 0), (0.1, INF, 5, 0)]
)
def test_redo_is_due_and_its_threshold_counts(tau, every, update, units):
    """τ = 0 takes the silent unit too, as in the authors' code: s ≤ τ."""
    assert redone(tau, every, update)[2] == units


def test_churn_is_the_kl_of_the_policies_and_the_square_of_the_values():
    old = prx.Output(policy=prx.Categorical(jnp.log(jnp.array([[0.5, 0.5]]))), value=jnp.array([1.0]))
    new = prx.Output(policy=prx.Categorical(jnp.log(jnp.array([[0.25, 0.75]]))), value=jnp.array([3.0]))
    logged = chain.churn(new, old)
    np.testing.assert_allclose(logged["policy_churn"], 0.5 * np.log(2.0) + 0.5 * np.log(0.5 / 0.75), rtol=1e-5)
    np.testing.assert_allclose(logged["value_churn"], 4.0)
    q = chain.churn(prx.Output(q_values=jnp.array([[1.0, 2.0]])), prx.Output(q_values=jnp.array([[0.0, 5.0]])))
    assert set(q) == {"value_churn"}
    np.testing.assert_allclose(q["value_churn"], 5.0)


def test_chain_compares_with_the_parameters_before_the_last_step_on_the_other_samples():
    def evaluate(params, samples):
        return prx.Output(q_values=params * samples), None

    memory, learner = chain.begin(KEY, jnp.float32(1.0)), None
    for theta in (2.0, 4.0, 7.0):
        learner = chain.remember(None, prx.Learner(jnp.float32(theta), (), memory), None)
        memory = learner.memory
    assert memory == (7.0, 4.0)
    made = net(evaluate=evaluate, loss=lambda params, part, hparams: (-6.0 * params, {}))
    for ratio, expected, slope in ((0.0, 0.5 * 9.0, 3.0), (0.1, 4.2, 4.2 / 4.5 * 3.0)):
        hparams = SimpleNamespace(chain_coef=0.5, chain_value_coef=100.0, chain_ratio=ratio)

        def value(theta, hparams=hparams):
            return chain.penalty(made, theta, memory, None, jnp.ones((1, 2)), hparams)[0]

        # By ratio, λ is held constant: the slope is the churn's.
        np.testing.assert_allclose(value(jnp.float32(7.0)), expected, rtol=1e-6)
        np.testing.assert_allclose(jax.grad(value)(jnp.float32(7.0)), slope, rtol=1e-6)


# --- training ----------------------------------------------------------------------------------------------------------


def norm(tree):
    return float(sum(jnp.square(x).sum() for x in jax.tree.leaves(tree)))


def drift(state, first):
    return norm(jax.tree.map(jnp.subtract, state.params, first))


@pytest.mark.parametrize("kind", ["ppo", "dqn"])
@pytest.mark.parametrize(("name", "coef"), [("l2", 1.0), ("l2_init", 1.0), ("weight_decay", 10.0)])
def test_weights_stay_nearer_to_where_they_are_drawn(name, coef, kind):
    off, _ = trained(kind, (name,), **OFF[name])
    on, logged = trained(kind, (name,), **{f"{name}_coef": coef})
    if name == "l2_init":
        first = tiny(kind).init(KEY).params
        equal_trees(on.memory["l2_init"], jax.jit(tiny(kind).init)(KEY).params)
        assert drift(on, first) < 0.8 * drift(off, first)
    else:
        assert norm(on.params) < 0.98 * norm(off.params)
    if name != "weight_decay":
        assert (logged[f"{name}_penalty"][1:] > 0).all()


@pytest.mark.parametrize("kind", ["ppo", "dqn"])
def test_weights_are_within_their_bounds(kind):
    on, _ = trained(kind, ("weight_clipping",), weight_clipping_kappa=0.7)
    off, _ = trained(kind, ("weight_clipping",), **OFF["weight_clipping"])

    def excess(state):
        over = structure.map_kernels(lambda w: jnp.abs(w) * np.sqrt(structure.fan_in(w)), state.params)
        return max(float(x.max()) for x in jax.tree.leaves(over) if x.ndim >= 2)

    assert excess(on) <= 0.7 * (1 + 1e-6)
    assert excess(off) > 1.0


@pytest.mark.parametrize("kind", ["ppo", "dqn"])
def test_perturbed_weights_are_fresh_ones(kind):
    """With a = 0 and b = 1 the weights after an update are initial ones, others than the first: their norms say so."""
    given = {"shrink_perturb_shrink": 0.0, "shrink_perturb_noise": 1.0, "shrink_perturb_every": 1.0}
    on, _ = trained(kind, ("shrink_perturb",), **given)
    first = jax.jit(tiny(kind).init)(KEY).params
    for path, w in jax.tree_util.tree_leaves_with_path(on.params):
        like = functools.reduce(lambda tree, k: tree[k.key], path, first)
        np.testing.assert_allclose(norm(w), norm(like), rtol=1e-4)
        assert w.ndim == 1 or not np.allclose(w, like)


@pytest.mark.parametrize("kind", ["ppo", "dqn"])
def test_units_begin_anew_in_training(kind):
    """τ = 1: every unit that says less than the mean. Outgoing weights, moments and ages are 0 after the last update."""
    on, logged = trained(kind, ("redo",), redo_tau=1.0, redo_every=1.0)
    off, none = trained(kind, ("redo",), **OFF["redo"])
    assert (logged["redo_units"] > 0).all()
    assert (none["redo_units"] == 0).all()
    found, total = structure.layers(tiny(kind).network, on.params), 0
    ages = on.opt_state[0].ages.steps
    for layer in found:
        (out,) = layer.outgoing
        silent = (structure.get(on.params, out) == 0).all(-1)
        assert 0 < silent.sum() < len(silent)
        total += int(silent.sum())
        for tree in (*moments.moments(on.opt_state, on.params), ages):
            for x in (structure.get(tree, layer.kernel)[:, silent], structure.get(tree, out)[silent]):
                assert (x == 0).all()
            assert (structure.get(tree, out)[~silent] != 0).all()
    assert total == logged["redo_units"][-1]
    assert all((x == UPDATES * 4).all() for x in jax.tree.leaves(off.opt_state[0].ages.steps))


@pytest.mark.parametrize("kind", ["ppo", "dqn"])
def test_the_optimiser_forgets(kind):
    counts = {}
    for name in ("adam_reset", "adam_rel"):
        on, _ = trained(kind, (name,), **{f"{name}_every": 1.0})
        off, _ = trained(kind, (name,), **OFF[name])
        counts[name] = int(on.opt_state[0].count), int(off.opt_state[0].count)
        assert drift(on, off.params) > 0
    assert counts == dict.fromkeys(counts, (4, UPDATES * 4))


@pytest.mark.parametrize(("kind", "churned"), [("ppo", "policy_churn"), ("dqn", "value_churn")])
def test_there_is_less_churn(kind, churned):
    logged_off = trained(kind, ("chain",), **OFF["chain"])[1]
    on, logged = trained(kind, ("chain",), chain_coef=100.0, chain_value_coef=0.0)
    assert logged[churned][-1] < 0.8 * logged_off[churned][-1]
    equal_trees(on.memory["chain"].one, on.params)
    assert drift(on, on.memory["chain"].two) > 0
