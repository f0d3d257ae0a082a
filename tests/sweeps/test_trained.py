"""A trained run as a policy: its actions, rollouts and scores, and which run is the best."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from datasets import sweep_like, with_dims
from PIL import Image
from toys import Clock, equal_trees, tiny

import purejaxrl_ext as prx
from purejaxrl_ext.sweeps import trained
from purejaxrl_ext.sweeps.trained import Policy

KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two arms on disk and in memory: (directory, dataset)."""
    path = tmp_path_factory.mktemp("runs") / "x"
    arms = {"ppo": tiny("ppo", normalize_observations="running"), "pqn": tiny("pqn", epsilon_decay_steps=0)}
    settings = {"seeds": [7, 3], "total_steps": 64, "progress": False}
    prx.sweep(arms, out=path, **settings)
    return path, prx.sweep(arms, keep_states=True, **settings)


def fresh(env, greedy=True, **settings):
    algorithm = tiny("ppo", env, **settings)
    return Policy(algorithm, algorithm.init(jax.random.key(0)), greedy, algorithm.hparams)


# --- acting ----------------------------------------------------------------------------------------------------------


def test_the_action_is_the_mode_of_the_network_on_normalised_observations(swept):
    policy = prx.policy(swept[0], arm="ppo", seed=3)
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    seen = policy.state.normalizer.obs
    scaled = np.clip((obs - np.asarray(seen.mean)) / np.sqrt(np.asarray(seen.variance) + 1e-8), -10.0, 10.0)
    logits = policy.algorithm.network.apply(policy.state.params, jnp.asarray(scaled)).policy.logits
    np.testing.assert_array_equal(policy(obs), logits.argmax(-1))
    assert 0 < np.mean(policy(obs)) < 1  # both actions occur
    assert policy(obs[3]).shape == () and policy(obs[3]) == policy(obs)[3]


def test_in_memory_and_on_disk_are_the_same_policy(swept):
    path, dataset = swept
    for arm in ("ppo", "pqn"):
        for source in (path, dataset, prx.load(path)):
            got = prx.policy(source, arm=arm, seed=3)
            equal_trees(got.state, prx.load_state(dataset, arm=arm, seed=3))
            assert got.algorithm.name == arm and got.greedy
            assert got.algorithm.config == dataset.attrs["states"].record.arms[arm].config


def test_samples_follow_the_policy(swept):
    policy = prx.policy(swept[0], arm="ppo", seed=3, greedy=False)
    obs = jnp.zeros((4000, 4))
    seen = policy.state.normalizer.obs
    scaled = jnp.clip(-seen.mean / jnp.sqrt(seen.variance + 1e-8), -10.0, 10.0)
    logits = policy.algorithm.network.apply(policy.state.params, scaled[None]).policy.logits[0]
    np.testing.assert_allclose(np.mean(policy(obs, KEY)), jax.nn.softmax(logits)[1], atol=0.04)


def test_a_cell_acts_with_its_own_settings():
    """ε = 0 and ε = 1, both at the end of their schedules."""
    algorithm = tiny("pqn", epsilon_decay_steps=0)
    grid = {"epsilon_end": [0.0, 1.0]}
    ds = prx.sweep(algorithm, grid=grid, total_steps=16, keep_states=True, progress=False)
    obs = jnp.zeros((1000, 4))
    share = [float(np.mean(prx.policy(ds, greedy=False, epsilon_end=e)(obs, KEY))) for e in (0.0, 1.0)]
    assert share[0] in (0.0, 1.0)
    assert share[1] == pytest.approx(0.5, abs=0.06)


def test_continuous_actions_are_within_bounds():
    policy = fresh("Pendulum-v1", greedy=False)
    actions = policy(jnp.ones((500, 3)), KEY)
    assert actions.shape == (500, 1)
    assert 1.0 < np.abs(actions).max() <= 2.0


@dataclasses.dataclass(frozen=True)
class Pixels(Clock):
    """A Clock whose observation is of any dtype."""

    dtype: str = "uint8"

    def reset(self, key):
        state, obs = super().reset(key)
        return state, obs.astype(self.dtype)

    def step(self, key, env_state, action):
        after = super().step(key, env_state, action)
        return after._replace(obs=after.obs.astype(self.dtype))


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        ("uint8", [[0, 255], [7, 3]]),
        ("uint8", np.array([[0.0, 255.0], [7.0, 3.0]])),
        ("bool", np.array([[0, 1], [1, 1]], np.uint8)),
        ("bool", [[0.0, 1.0], [1.0, 1.0]]),
        ("float32", [[0, 255], [7, 3]]),
        ("float32", np.array([[0, 255], [7, 3]], np.uint8)),
    ],
)
def test_observations_are_cast_to_the_dtype_that_the_policy_was_trained_on(dtype, given):
    """The network divides uint8 by 255 and nothing else: 1 as uint8 where it saw bools would be 1/255."""
    got = trained._cast(given, trained._obs_dtype(Pixels(dtype=dtype)))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, np.asarray(given).astype(dtype))


@pytest.mark.parametrize(
    ("dtype", "given", "match"),
    [
        ("uint8", [0.5, 1.0], r"obs=\[0.5\].*uint8"),
        ("uint8", [-1, 1], r"obs=\[-1\]"),
        ("uint8", [256, 1], r"obs=\[256\]"),
        ("uint8", [np.nan, 1.0], r"obs=\[nan\]"),
        ("bool", [255, 0], r"obs=\[255\].*bool"),
    ],
)
def test_numbers_that_the_dtype_cannot_hold_are_an_error(dtype, given, match):
    with pytest.raises(ValueError, match=match):
        trained._cast(np.array(given), trained._obs_dtype(Pixels(dtype=dtype)))


def test_inside_jit_only_what_always_fits_is_cast():
    bools, bytes_ = np.dtype("bool"), np.dtype("uint8")
    assert jax.jit(lambda x: trained._cast(x, bytes_))(jnp.ones(2, bool)).dtype == "uint8"
    with pytest.raises(ValueError, match=r"obs.dtype='uint8'.*bool"):
        jax.jit(lambda x: trained._cast(x, bools))(jnp.ones(2, jnp.uint8))


def test_a_policy_is_one_line_and_a_table_in_a_notebook():
    policy = fresh("CartPole-v1")
    assert repr(policy) == "<policy of ppo on CartPole-v1, greedy, 0 updates of 16 environment steps>"
    policy = dataclasses.replace(policy, hparams=policy.hparams.replace(clip_eps=0.375))
    html = policy._repr_html_()
    assert html.startswith("<details><summary>&lt;policy of ppo on CartPole-v1")
    assert "<td>clip_eps</td><td>0.375</td>" in html and "<td>num_steps</td><td>8</td>" in html
    assert "<td>parameters</td>" in html and len(html) < 6000


# Algorithms pickle by the settings that make them.
def test_a_policy_comes_back_from_a_pickle():
    policy = fresh("CartPole-v1", greedy=False)
    back = pickle.loads(pickle.dumps(policy))
    equal_trees(back.state, policy.state)
    assert (back.greedy, back.hparams, back.algorithm.loop) == (False, policy.hparams, policy.algorithm.loop)
    obs = jnp.zeros((20, 4))
    np.testing.assert_array_equal(back(obs, KEY), policy(obs, KEY))


# --- rollouts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("greedy", [True, False])
def test_an_episode_is_the_one_that_evaluate_scores(swept, greedy):
    policy = prx.policy(swept[1], arm="pqn", seed=7, greedy=greedy)
    seen = policy.rollout(KEY)
    length = len(seen.reward)
    assert seen.score.sum() == policy.evaluate(KEY, 1)[0] == length
    np.testing.assert_array_equal(seen.terminated, np.arange(length) == length - 1)
    if greedy:
        np.testing.assert_array_equal(seen.action, policy(seen.obs))
    # The last state is beyond the bounds, those acted in are not.
    assert (np.abs(seen.env_state.theta) < 0.2095).all()
    assert abs(seen.final_env_state.theta) > 0.2094
    np.testing.assert_array_equal(seen.final_obs[2], seen.final_env_state.theta)


def test_the_same_key_gives_every_policy_the_same_start(swept):
    starts = [prx.policy(swept[1], arm=arm, seed=3).rollout(KEY).obs[0] for arm in ("ppo", "pqn")]
    np.testing.assert_array_equal(*starts)
    other = prx.policy(swept[1], arm="ppo", seed=3).rollout(jax.random.key(6)).obs[0]
    assert (other != starts[0]).any()


def test_steps_go_on_over_episodes():
    seen = fresh(Clock(time_limit=3)).rollout(KEY, num_steps=8)
    origin, time = seen.obs.T
    np.testing.assert_array_equal(time, [0, 1, 2, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(seen.truncated, [0, 0, 1, 0, 0, 1, 0, 0])
    assert not seen.terminated.any()
    assert len(set(origin.tolist())) == 3 and origin[0] == origin[2]
    np.testing.assert_array_equal(seen.final_obs, [origin[-1], 2.0])
    np.testing.assert_array_equal(seen.env_state, seen.obs)


def test_an_episode_ends_at_its_time_limit_or_where_it_is_cut():
    policy = fresh(Clock(time_limit=5))
    np.testing.assert_array_equal(policy.rollout(KEY).truncated, [0, 0, 0, 0, 1])
    cut = policy.rollout(KEY, max_steps=2)
    assert cut.reward.shape == (2,) and cut.final_obs[1] == 2.0
    assert policy.rollout(KEY, max_steps=9).reward.shape == (5,)


def test_true_rewards_count_in_the_score():
    policy = fresh("CartPole-v1", mask_rewards=0.9)
    seen = policy.rollout(KEY)
    assert (seen.score == 1.0).all() and seen.reward.sum() < seen.score.sum()
    assert seen.score.sum() == policy.evaluate(KEY, 1)[0]


def test_no_more_steps_are_taken_than_the_time_limit_has(monkeypatch):
    taken = []
    monkeypatch.setattr(trained, "_rollout", lambda *args: taken.append(args[3]) or 1 / 0)
    for env, max_steps in ((Clock(time_limit=5), 500), (Clock(time_limit=5), 2), (Clock(), None), (Clock(), 7)):
        with pytest.raises(ZeroDivisionError):
            fresh(env).rollout(KEY, max_steps=max_steps)
    assert taken == [5, 2, 10_000, 7]


def test_a_file_of_another_kind_is_an_error_before_the_episode(tmp_path, monkeypatch):
    monkeypatch.setattr(Policy, "rollout", lambda *args, **kwargs: pytest.fail("acted"))
    for name in ("x.mp4", "x", "x.png"):
        with pytest.raises(ValueError, match=r"path=.*'\.gif'"):
            fresh(Clock(time_limit=3)).render(tmp_path / name, KEY)


def test_an_episode_is_as_fast_as_its_environment_says(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Policy, "frames", lambda *args: np.zeros((1, 4, 4, 3), np.uint8))
    monkeypatch.setattr(trained.render, "gif", lambda frames, path, fps: seen.append(fps))
    for env, fps in ((Clock(time_limit=3), None), (Slow(time_limit=3), None), (Slow(time_limit=3), 12.0)):
        fresh(env).render(tmp_path / "x.gif", KEY, fps=fps)
    assert seen == [30.0, 4.0, 12.0]


@dataclasses.dataclass(frozen=True)
class Slow(Clock):
    fps: float = 4.0


def test_a_rendered_episode(tmp_path):
    policy = fresh("CartPole-v1")
    frames = policy.frames(KEY, max_steps=8)
    assert frames.shape == (9, 92, 240, 3)
    path = policy.render(tmp_path / "x.gif", KEY, max_steps=8)
    with Image.open(path) as image:
        assert image.n_frames == len({f.tobytes() for f in frames}) > 3


# --- best ------------------------------------------------------------------------------------------------------------


def test_best_is_the_highest_end_that_did_not_diverge():
    values = np.array([[[1.0, 9.0, 3.0], [2.0, 2.0, 2.0]], [[0.0, 99.0, 4.0], [np.nan, 8.0, 7.0]]])
    ds = sweep_like(values, ["ppo", "pfo"], [("gamma", [0.9, 0.99])])
    ds["diverged_at"][1, 0, 1] = 3.0
    got = prx.best(ds)
    assert got == ("ppo", 1, {"gamma": 0.9}, 9.0)
    assert got.where == {"arm": "ppo", "seed": 1, "gamma": 0.9}
    assert prx.best(ds.sel(arm="pfo"))[:2] == ("pfo", 1)
    # High on the way, but not at the end.
    ds["episode_return"][0, 1, 0, :18] = 1000.0
    assert prx.best(ds) == got
    assert prx.best(ds, last=1.0).where == {"arm": "ppo", "seed": 0, "gamma": 0.99}


def test_best_of_arms_with_dimensions_has_their_labels():
    ds = with_dims(learning_rate=[1e-3, 1e-2]).assign_attrs(dims="algorithm, num_epochs")
    assert prx.best(ds).where == {"arm": ("pfo", 4), "seed": 4, "learning_rate": 1e-2}
    # In their order, whatever was selected before.
    part = ds.sel(num_epochs=1, learning_rate=1e-3, seed=[0, 2])
    assert prx.best(part).where == {"arm": ("pfo", 1), "seed": 2, "learning_rate": 1e-3}
    assert prx.best(with_dims()).where == {"arm": ("pfo", 4), "seed": 4}


def test_best_names_a_run_that_policy_takes(swept):
    for source in swept:
        where = prx.best(source, last=1.0).where
        policy = prx.policy(source, **where)
        equal_trees(policy.state, prx.load_state(source, **where))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda s: prx.policy(s, arm="ppu"), "arm='ppu'.*'ppo', 'pqn'"),
        (lambda s: prx.policy(s, arm="ppo", seed=4), r"seed=4.*\[7, 3\]"),
        (lambda s: prx.policy(s, arm="ppo", algorithm="ppo"), "algorithm='ppo'.*prx.make"),
        (lambda s: prx.policy(s, arm="ppo", algorithm=prx.Algorithm), "algorithm=<class.*prx.make"),
        (lambda s: prx.policy(s, arm="ppo", seed=3)(jnp.zeros(5)), r"obs.shape=\(5,\).*\(4,\)"),
        (lambda s: prx.policy(s, arm="ppo", seed=3)(jnp.zeros((1, 1, 4))), r"obs.shape"),
        (lambda s: prx.policy(s, arm="ppo", seed=3, greedy=False)(jnp.zeros(4)), "key=None.*greedy=False"),
        (lambda s: prx.policy(s, arm="ppo", seed=3).rollout(KEY, num_steps=0), "num_steps=0"),
        (lambda s: prx.policy(s, arm="ppo", seed=3).rollout(KEY, 3, 4), "max_steps=4"),
        (lambda s: prx.best(sweep_like([[np.nan, np.nan]], ["a"])), "has a return"),
    ],
)
def test_bad_input_names_what_is_allowed(swept, call, match):
    with pytest.raises(ValueError, match=match):
        call(swept[0])
