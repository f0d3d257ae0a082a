"""The on-policy loop, seen through a rule made by hand: what it collects, bootstraps from, counts and shuffles."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Clock, ClockNetwork, Echo, equations, tiny

import purejaxrl_ext as prx
from purejaxrl_ext import loops
from purejaxrl_ext.envs.vector import Transition
from purejaxrl_ext.networks import policies
from purejaxrl_ext.rules import ppo

KEY = jax.random.key(0)


class Collected:
    """A rule that keeps every rollout, in a loop whose step is not jitted, so that the arrays are concrete."""

    def __init__(self, env, network=None, targets=None, loss=None, **settings):
        settings = {"num_envs": 3, "num_steps": 8, "num_epochs": 1, "num_minibatches": 1, "metrics_every": 0} | settings
        self.config = prx.ALGORITHMS["ppo"].config(**settings)
        self.rollouts = []
        rule = prx.Rule(
            noise=partial(policies.noise, space=env.action_space),
            act=ppo.act,
            targets=targets or self.keep,
            loss=loss or (lambda output, batch, hparams: (jnp.mean(output.value), {})),
        )
        self.loop = loops.OnPolicy(rule, env, network or ClockNetwork(), self.config)
        self.state = self.loop.init(KEY, ppo.PPOHparams())
        self.states = [self.state]

    def keep(self, rollout, hparams):
        self.rollouts.append(rollout)
        return rollout

    def update(self, times=1, **hparams):
        logged = []
        for _ in range(times):
            self.state, metrics = self.loop.step(self.state, ppo.PPOHparams(**hparams))
            self.states.append(self.state)
            logged.append(metrics)
        return logged


BOOTSTRAPS = {
    "limit, several per rollout": (Clock(time_limit=3), {}),
    "limit, at the rollout's last step": (Clock(time_limit=4), {}),
    "limit beyond the rollout": (Clock(time_limit=11), {}),
    "limit of one": (Clock(time_limit=1), {}),
    "limit and termination": (Clock(time_limit=4, terminate_at=3), {}),
    "limit and termination at once": (Clock(time_limit=3, terminate_at=3), {}),
    "by the environment": (Clock(truncate_every=2), {}),
    "by the environment, limit and termination": (Clock(time_limit=4, truncate_every=3, terminate_at=3), {}),
    "none": (Clock(), {}),
    "resets wrap": (Clock(time_limit=2), {"reset_pool_size": 1}),
}


@pytest.mark.parametrize(("env", "settings"), BOOTSTRAPS.values(), ids=BOOTSTRAPS)
def test_next_output_is_the_value_of_the_true_successor(env, settings):
    """V(origin, t) = 100 origin + t, so that of the successor is V + 1; a reset has another origin and t = 0."""
    loop = Collected(env, **settings)
    loop.update(2)
    for before, rollout in zip(loop.states, loop.rollouts, strict=False):
        terminated, truncated = np.asarray(rollout.terminated), np.asarray(rollout.truncated)
        value, following = np.asarray(rollout.output.value), np.asarray(rollout.next_output.value)
        np.testing.assert_allclose(following[~terminated], value[~terminated] + 1.0, rtol=1e-6)
        assert not (terminated & truncated).any()
        # The same flags from the definition, by the time that each step's observation shows.
        time, origin = np.asarray(rollout.obs[..., 1]) + 1, np.asarray(rollout.obs[..., 0])
        ends = (env.terminate_at > 0) & (origin > 0.5) & (time >= env.terminate_at)
        cut = np.zeros_like(ends)
        if env.time_limit:
            cut |= time >= env.time_limit
        if env.truncate_every:
            cut |= time >= env.truncate_every + np.floor(3 * origin)
        np.testing.assert_array_equal(terminated, ends)
        np.testing.assert_array_equal(truncated, cut & ~ends)
        np.testing.assert_array_equal(rollout.obs[0], before.env.obs)
    if env.time_limit in (1, 2, 3):
        assert np.asarray(loop.rollouts[0].truncated).sum(0).max() >= 2


def test_gae_of_the_loop_is_that_of_the_episodes():
    """Through PPO's own targets: no advantage leaks across a truncation, and the truncated step keeps its bootstrap."""
    loop = Collected(Clock(time_limit=3, terminate_at=2))
    loop.update()
    rollout = loop.rollouts[0]
    gamma, lambda_ = 0.9, 0.8
    got = np.asarray(ppo.targets(rollout, ppo.PPOHparams(gamma=gamma, gae_lambda=lambda_)).advantage)
    obs, terminated, truncated = (np.asarray(x) for x in (rollout.obs, rollout.terminated, rollout.truncated))
    assert terminated.any()
    assert truncated.any()
    for n in range(obs.shape[1]):
        later = 0.0
        for t in reversed(range(obs.shape[0])):
            value = 100 * obs[t, n, 0] + obs[t, n, 1]
            reward = obs[t, n, 1] + 1
            delta = reward + gamma * (0.0 if terminated[t, n] else value + 1) - value
            later = delta + gamma * lambda_ * (0.0 if terminated[t, n] or truncated[t, n] else later)
            np.testing.assert_allclose(got[t, n], later, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("env", [Clock(time_limit=3), Clock(truncate_every=2)], ids=["limit", "environment"])
def test_time_limit_terminates(env):
    """As papers have it that treat time limits as ends: flagged as terminations, with no value beyond."""
    on, off = Collected(env, time_limit_terminates=True), Collected(env)
    on.update()
    off.update()
    assert not on.rollouts[0].truncated.any()
    np.testing.assert_array_equal(on.rollouts[0].terminated, off.rollouts[0].truncated)
    inside = ~np.asarray(on.rollouts[0].terminated)
    expected = np.asarray(on.rollouts[0].output.value) + 1
    np.testing.assert_allclose(np.asarray(on.rollouts[0].next_output.value)[inside], expected[inside], rtol=1e-6)


def test_final_observations_are_not_stored_at_every_step():
    """With a time limit alone, ceil(T / L) of them per environment: no further stack [T, N, *obs] leaves the scan."""

    def stacks(env):
        settings = {"num_envs": 3, "num_steps": 8, "num_epochs": 1, "num_minibatches": 1, "metrics_every": 0}
        rule = ppo.rule(prx.ALGORITHMS["ppo"].config(**settings), env.action_space)
        config = prx.ALGORITHMS["ppo"].config(**settings)
        loop = loops.OnPolicy(rule, env, ClockNetwork(), config)
        state = jax.eval_shape(loop.init, KEY, ppo.PPOHparams())
        jaxpr = jax.make_jaxpr(loop.step)(state, ppo.PPOHparams()).jaxpr
        scans = [e for e in equations(jaxpr) if e.primitive.name == "scan" and e.params["length"] == 8]
        return max(sum(v.aval.shape == (8, 3, 2) for v in e.outvars) for e in scans)

    assert stacks(Clock(time_limit=3)) == stacks(Clock())
    assert stacks(Clock(truncate_every=3)) == stacks(Clock()) + 1


def test_a_step_logs_scalars_only():
    """Sums and counts inside the loop: a trajectory in the output would be stacked for the whole of training."""
    algorithm = tiny("pfo")
    state = jax.eval_shape(algorithm.init, KEY)
    logged = jax.eval_shape(algorithm.step, state)[1]
    assert {name: x.shape for name, x in logged.items() if x.shape != ()} == {}


def transition(terminated, truncated, finished_return, finished_length):
    zeros = jnp.zeros((2, 2))
    return Transition(
        zeros, *map(jnp.asarray, (terminated, truncated)), (), *map(jnp.asarray, (finished_return, finished_length))
    )


def test_episode_metrics_are_means_over_the_episodes_that_ended():
    no = [[False, False], [False, False]]
    rows = transition(
        [[True, False], [False, False]], [[False, False], [True, True]], [[6.0, 0], [3, 0]], [[4, 0], [1, 7]]
    )
    got = loops.episode_metrics(rows)
    assert got == {"episode_return": 3.0, "episode_length": 4.0, "num_episodes": 3.0}
    none = loops.episode_metrics(transition(no, no, [[0.0, 0], [0, 0]], [[0, 0], [0, 0]]))
    assert none["num_episodes"] == 0
    assert np.isnan(none["episode_return"])
    assert np.isnan(none["episode_length"])


def test_episodes_are_counted_across_updates():
    """With limit 5 and 8 steps: one episode per environment in the first update, two in the second, of 1 + … + 5."""
    first, second = Collected(Clock(time_limit=5)).update(2)
    assert [first["num_episodes"], second["num_episodes"]] == [3, 6]
    for logged in (first, second):
        assert logged["episode_return"] == 15.0
        assert logged["episode_length"] == 5.0


class Numbered(NamedTuple):
    """A batch whose samples can be told apart."""

    obs: jax.Array
    id: jax.Array
    features: jax.Array


def test_every_sample_enters_every_epoch_once_and_shuffled():
    """The means over minibatches of sums over samples are those of all data, thrice; neighbours are torn apart."""
    features = jnp.asarray(np.random.default_rng(0).normal(size=(24, 5)), jnp.float32)

    def targets(rollout, hparams):
        return Numbered(rollout.obs, jnp.arange(24).reshape(8, 3), features.reshape(8, 3, 5))

    def loss(output, batch, hparams):
        logged = {f"sum{i}": batch.features[:, i].sum() for i in range(5)}
        spread = batch.id.max() - batch.id.min()
        return output.value.mean(), logged | {"spread": spread * 1.0, "size": jnp.float32(batch.id.size)}

    loop = Collected(Clock(), targets=targets, loss=loss, num_epochs=3, num_minibatches=4)
    (logged,) = loop.update()
    for i in range(5):
        np.testing.assert_allclose(logged[f"sum{i}"], features[:, i].sum() / 4, rtol=1e-4)
    assert logged["size"] == 6
    assert logged["spread"] > 10
    assert loop.state.opt_state[0].count == 3 * 4


def steps_of_the_parameters(loop, times, **hparams):
    """How far each update moves a parameter whose gradient is constant: by Adam, the learning rate."""
    loop.update(times, adam_eps=1e-12, **hparams)
    w = np.array([state.params["params"]["w"][0] for state in loop.states])
    return np.abs(np.diff(w))


def logits_loss(output, batch, hparams):
    return output.policy.logits.mean(), {}


def test_annealing_is_in_environment_steps_and_ends_at_zero():
    """Over 96 steps at 24 per update: 1, 3/4, 1/2, 1/4, 0 of it, constant within an update."""
    moved = steps_of_the_parameters(
        Collected(Clock(), loss=logits_loss, num_epochs=2, num_minibatches=2), 6, learning_rate=0.4, anneal_steps=96.0
    )
    np.testing.assert_allclose(moved, 4 * np.array([0.4, 0.3, 0.2, 0.1, 0.0, 0.0]), rtol=1e-4, atol=1e-7)


def test_step_counts_beyond_int32():
    """2**28 updates of 24 steps are more than an int32 holds; half of the schedule is over, not none or all of it."""
    loop = Collected(Clock(), loss=logits_loss)
    loop.state = loop.state.replace(update=jnp.int32(2**28))
    moved = steps_of_the_parameters(loop, 1, learning_rate=1.0, anneal_steps=2.0 * 24 * 2**28)
    np.testing.assert_allclose(moved, [0.5], rtol=1e-4)


class EchoNetwork:
    """Gaussian of mean 0 and scale 2, whatever the parameters."""

    def init(self, key, obs):
        return {"params": {"w": jnp.zeros(())}}

    def apply(self, params, obs):
        loc = jnp.zeros((*obs.shape[:-1], 1)) + params["params"]["w"]
        return prx.Output(policy=prx.Gaussian(loc, jnp.full_like(loc, 2.0)), value=obs[..., 0] + params["params"]["w"])


def test_continuous_actions_are_stored_as_drawn_and_done_within_bounds():
    """The log-probability belongs to the action that was drawn; the environment gets the clipped one, in its units."""
    loop = Collected(Echo(low=-2.0, high=4.0), network=EchoNetwork())
    loop.update()
    rollout = loop.rollouts[0]
    drawn, shown = np.asarray(rollout.action)[:-1], np.asarray(rollout.obs)[1:]
    assert (np.abs(drawn) > 1).any()
    np.testing.assert_allclose(shown, 1.0 + 3.0 * np.clip(drawn, -1, 1), rtol=1e-5, atol=1e-6)


def test_running_observation_statistics():
    """A rollout is shown by the statistics before it, which then take in its raw observations."""
    env = Clock(time_limit=3)
    loop = Collected(env, normalize_observations=True)
    seen = np.zeros((0, 2))
    loop.update(3)
    for before, after, rollout in zip(loop.states, loop.states[1:], loop.rollouts, strict=False):
        stats = before.normalizer.obs
        spread = np.sqrt(np.asarray(stats.variance) + 1e-8)
        raw = np.asarray(rollout.obs) * spread + np.asarray(stats.mean)
        np.testing.assert_allclose(raw[0], before.env.obs, rtol=1e-4, atol=1e-4)
        seen = np.concatenate([seen, raw.reshape(-1, 2)])
        np.testing.assert_allclose(after.normalizer.obs.mean, seen.mean(0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(after.normalizer.obs.variance, seen.var(0), rtol=1e-3, atol=1e-4)
        assert after.normalizer.obs.count == len(seen)
        # The successor's value is of its normalised observation too: t moves by 1 / spread.
        inside = ~np.asarray(rollout.terminated)
        moved = np.asarray(rollout.next_output.value - rollout.output.value)[inside]
        np.testing.assert_allclose(moved, 1.0 / spread[1], rtol=1e-2)


def test_frozen_observation_statistics():
    """Those of random steps before training, never touched again."""
    loop = Collected(Clock(time_limit=3), normalize_observations="frozen", normalizer_steps=300)
    stats = loop.state.normalizer.obs
    assert stats.count >= 300
    # Each t of an episode as often as the others, whichever three of 0 … 3 are counted.
    np.testing.assert_allclose(stats.mean[0], 0.5, atol=0.15)
    np.testing.assert_allclose(stats.mean[1], 1.5, atol=0.6)
    np.testing.assert_allclose(stats.variance, [1 / 12, 2 / 3], rtol=0.3)
    loop.update(2)
    for x, y in zip(jax.tree.leaves(stats), jax.tree.leaves(loop.state.normalizer.obs), strict=True):
        np.testing.assert_array_equal(x, y)


def test_scaled_rewards_leave_the_logged_return_alone():
    loop = Collected(Clock(time_limit=5), normalize_rewards=True)
    logged = loop.update(2)
    assert all(x["episode_return"] == 15.0 for x in logged)
    assert loop.rollouts[0].reward.max() < 2.0
    assert loop.state.normalizer.reward.count == 48


def test_the_representation_is_measured_by_a_real_cond_under_vmap():
    """A predicate that vmap has batched becomes a select of both branches: every update would pay for the SVDs."""
    algorithm = tiny("ppo")
    states = jax.eval_shape(jax.vmap(algorithm.init, out_axes=prx.State.axes()), jax.ShapeDtypeStruct((3,), KEY.dtype))
    step = jax.vmap(algorithm.step, in_axes=(prx.State.axes(),), out_axes=(prx.State.axes(), 0))
    conds = [e for e in equations(jax.make_jaxpr(step)(states).jaxpr) if e.primitive.name == "cond"]
    assert any(
        {"geqrf", "qr", "svd"} & {e.primitive.name for b in cond.params["branches"] for e in equations(b.jaxpr)}
        for cond in conds
    )


def test_the_first_minibatch_is_at_the_old_parameters():
    """One epoch of one minibatch: the ratio is 1 up to rounding, for clipped Gaussian actions too."""
    for env in ("CartPole-v1", Echo()):
        algorithm = tiny("ppo", env, num_epochs=1, num_minibatches=1, metrics_every=0)
        _, logged = jax.jit(algorithm.step)(algorithm.init(KEY))
        np.testing.assert_allclose(logged["approx_kl"], 0.0, atol=1e-6)
        assert logged["clip_fraction"] == 0.0
        assert logged["grad_norm"] > 0


@pytest.mark.parametrize("size", [6, 2**14 + 3])
def test_shuffles_are_orders_and_every_place_is_as_likely(size):
    orders = np.asarray(loops.shuffles(jax.random.key(0), 3, size))
    np.testing.assert_array_equal(np.sort(orders), np.broadcast_to(np.arange(size), orders.shape))
    if size == 6:
        many = np.asarray(loops.shuffles(jax.random.key(1), 6_000, size))
        counts = np.stack([np.bincount(many[:, place], minlength=size) for place in range(size)])
        np.testing.assert_allclose(counts, 1_000, atol=150)
