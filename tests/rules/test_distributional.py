"""C51 and QR-DQN: the projection and the quantile loss against loops, targets on literals, and known values of a corridor."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_dqn import Corridor
from toys import tiny

import purejaxrl_ext as prx
from purejaxrl_ext import networks
from purejaxrl_ext.loops import f32
from purejaxrl_ext.rules import distributional

ALL = {"double": True, "dueling": True, "n_step": 2, "prioritized": True}


def test_projection_against_a_loop():
    """Algorithm 1 of the paper, atom by atom: mass goes to the neighbours below and above, and none is lost."""
    rng = np.random.default_rng(0)
    support = np.linspace(-2.0, 3.0, 6)
    values = rng.uniform(-4.0, 5.0, size=(5, 6))
    values[0] = support  # exactly on the atoms
    probabilities = rng.dirichlet(np.ones(6), size=5)
    expected = np.zeros((5, 6))
    for n in range(5):
        for j in range(6):
            b = (np.clip(values[n, j], -2.0, 3.0) + 2.0) / 1.0
            low, high = int(np.floor(b)), int(np.ceil(b))
            if low == high:
                expected[n, low] += probabilities[n, j]
            else:
                expected[n, low] += probabilities[n, j] * (high - b)
                expected[n, high] += probabilities[n, j] * (b - low)
    got = distributional.project(*(jnp.asarray(x, jnp.float32) for x in (values, probabilities, support)))
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_allclose(got.sum(-1), 1.0, rtol=1e-5)


def test_quantile_loss_on_literals():
    """τ = ¼, ¾; an error below κ = 1 is squared, one beyond linear, and its side weighs by τ or 1 − τ."""
    got = distributional.quantile_huber(jnp.array([[0.0, 2.0]]), jnp.array([[0.5, 3.0]]), 1.0)
    first = 0.25 * (0.5 * 0.25) + 0.25 * (3.0 - 0.5)  # u = 0.5, 3
    second = 0.25 * (1.5 - 0.5) + 0.75 * 0.5  # u = −1.5, 1
    np.testing.assert_allclose(got, [(first + second) / 2], rtol=1e-6)


def test_quantile_loss_finds_the_quantiles():
    """With κ small it is least at the quantiles of the target's samples, here of 0 … 99."""
    target = jnp.arange(100.0)[None]

    def down(quantiles, _):
        grad = jax.grad(lambda q: distributional.quantile_huber(q, target, 0.01)[0])(quantiles)
        return quantiles - 2000.0 * grad, None

    found, _ = jax.lax.scan(down, jnp.full((1, 4), 50.0), None, length=400)
    np.testing.assert_allclose(found[0], [12.5, 37.5, 62.5, 87.5], atol=6.0)


def rollout(returns, online):
    """Three samples, the second of which terminated; two actions, of which the target's means prefer 1, 0, 1."""
    q_values = jnp.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    return prx.Rollout(
        obs=jnp.zeros((3, 1)),
        action=jnp.zeros(3, jnp.int32),
        reward=jnp.array([1.0, 2.0, 0.0]),
        terminated=jnp.array([False, True, False]),
        truncated=jnp.array([False, False, True]),
        output=prx.Output(),
        next_output=prx.Output(q_values=q_values, returns=returns),
        next_online=prx.Output(q_values=online),
        discount=jnp.array([0.5, 0.5, 1.0]),
    )


@pytest.mark.parametrize("double", [False, True])
def test_targets_on_literals(double):
    """Bootstrapped at a truncation and not at a termination; ``double`` lets the online network choose."""
    quantiles = jnp.broadcast_to(jnp.array([[0.0, 4.0], [2.0, 6.0]]), (3, 2, 2))
    data = rollout(quantiles, jnp.array([[9.0, 0.0]] * 3))
    got = distributional.qr_targets(data, distributional.QRDQNHparams(), double=double).target
    chosen = np.array([[0.0, 4.0]] * 3) if double else np.array([[2.0, 6.0], [0.0, 4.0], [2.0, 6.0]])
    np.testing.assert_allclose(got, [1 + 0.5 * chosen[0], [2.0, 2.0], chosen[2]])
    # C51: all the mass on one atom of 0 … 4, the third for action 0 and the last for action 1.
    logits = jnp.full((3, 2, 5), -50.0).at[:, 0, 2].set(50.0).at[:, 1, 4].set(50.0)
    hparams = f32(distributional.C51Hparams(v_min=0.0, v_max=4.0))
    got = distributional.c51_targets(rollout(logits, data.next_online.q_values), hparams, double=double).target
    means = got @ np.arange(5.0)
    value = [2.0, 2.0, 2.0] if double else [4.0, 2.0, 4.0]
    np.testing.assert_allclose(means, [1 + 0.5 * value[0], 2.0, value[2]], rtol=1e-5)


def test_c51_loss_is_the_cross_entropy_and_logs_in_the_returns_units():
    logits = jnp.array([[[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]]])
    network = prx.Output(returns=logits, q_values=jax.nn.softmax(logits) @ jnp.linspace(0.0, 1.0, 3))
    target = jnp.array([[0.2, 0.3, 0.5]])
    batch = distributional.DistributionBatch(jnp.zeros((1, 1)), jnp.zeros(1, jnp.int32), target, jnp.array([0.5]))
    hparams = f32(distributional.C51Hparams(v_min=-1.0, v_max=3.0))
    loss, logged = distributional.c51_loss(network, batch, hparams)
    p = np.exp([0.0, 1.0, 2.0]) / np.exp([0.0, 1.0, 2.0]).sum()
    m = np.array([0.2, 0.3, 0.5])
    np.testing.assert_allclose(loss, -0.5 * (m * np.log(p)).sum(), rtol=1e-5)
    np.testing.assert_allclose(logged["td_error"], [(m * np.log(m / p)).sum()], rtol=1e-4)
    np.testing.assert_allclose(logged["value"], p @ [-1.0, 1.0, 3.0], rtol=1e-5)


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("atoms", [False, True])
def test_q_values_are_the_means(atoms, dueling):
    torso = networks.Torso((6,))
    network = networks.DistributionalQNetwork(3, torso, dueling, size=5, atoms=atoms)
    obs = jax.random.normal(jax.random.key(0), (4, 2))
    params = network.init(jax.random.key(1), obs)
    output = network.apply(params, obs)
    assert output.returns.shape == (4, 3, 5)
    returns = np.asarray(output.returns)
    p = np.exp(returns) / np.exp(returns).sum(-1, keepdims=True)
    expected = p @ np.linspace(0, 1, 5) if atoms else returns.mean(-1)
    np.testing.assert_allclose(output.q_values, expected, rtol=1e-5, atol=1e-6)
    if dueling:
        # The value's stream says what the actions' streams have on average.
        head = params["params"]["critic_value_head"]
        np.testing.assert_allclose(
            returns.mean(1), output.critic.features @ head["kernel"] + head["bias"][None], atol=1e-5
        )


@pytest.mark.parametrize("variant", [{}, ALL], ids=["plain", "all"])
@pytest.mark.parametrize("name", ["c51", "qr_dqn"])
def test_an_update_learns_and_logs_what_dqn_does(name, variant):
    algorithm = tiny(name, **variant)
    state, logged = jax.jit(algorithm.step)(algorithm.init(jax.random.key(0)))
    _, theirs = jax.eval_shape(tiny("dqn").step, jax.eval_shape(tiny("dqn").init, jax.random.key(0)))
    assert logged.keys() == theirs.keys()
    assert all(np.isfinite(logged[k]) for k in ("loss", "td_error", "value", "value_std", "grad_norm"))
    assert int(state.update) == 1


@pytest.mark.parametrize("name", ["c51", "qr_dqn"])
def test_corridor_has_its_known_values(name):
    """Q* of a corridor: γ^(3 − s) for going on; distributions of deterministic returns have these means."""
    settings = {"learning_rate": 3e-3, "gamma": 0.8, "hidden_sizes": (32,), "metrics_every": 0, "epsilon_end": 1.0}
    settings |= {"prefill_steps": 400, "replay_capacity": 2000, "updates_per_step": 50, "target_period": 25}
    settings |= {"v_min": -0.5, "v_max": 1.5, "num_atoms": 41} if name == "c51" else {"num_quantiles": 8}
    algorithm = prx.make(name, Corridor(), epsilon_start=1.0, batch_size=64, **settings)
    state, _ = prx.train(algorithm, jax.random.key(0), algorithm.steps_per_update * 24)
    q_values = algorithm.network.apply(state.params, jnp.eye(4)).q_values
    q_values = 2.0 * q_values - 0.5 if name == "c51" else q_values
    go = 0.8 ** (3.0 - np.arange(4))
    np.testing.assert_allclose(q_values[:, 1], go, atol=0.08)
    np.testing.assert_allclose(q_values[:, 0], 0.8 * go, atol=0.08)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("c51", {"num_atoms": 1}, "num_atoms=1 .*at least 2"),
        ("c51", {"v_min": 5.0, "v_max": 5.0}, "v_min=5.0 .*less than v_max=5.0"),
        ("c51", {"huber_delta": 1.0}, "huber_delta=1.0 .*does not read it"),
        ("qr_dqn", {"num_quantiles": 0}, "num_quantiles=0 .*at least 1"),
        ("qr_dqn", {"huber_delta": 0.0}, "huber_delta=0.0 .*greater than 0"),
        ("qr_dqn", {"num_atoms": 3}, "unknown setting 'num_atoms'.*setting of c51"),
    ],
)
def test_bad_input(name, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(name, **settings)
