"""Bad input: a clear error that names the field, its value and what is allowed, before anything compiles."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from toys import Echo, tiny

import purejaxrl_ext as prx


def made(algorithm="ppo", env="CartPole-v1", **settings):
    return lambda: prx.make(algorithm, env, **settings)


def swept(**settings):
    arms = settings.pop("arms", None)
    settings = {"total_steps": 100, "num_seeds": 1, "progress": False} | settings
    return lambda: prx.sweep(tiny() if arms is None else arms, **settings)


def trained(**settings):
    return lambda: prx.train(tiny(), jax.random.key(0), **settings)


BAD = {
    # Names, with the nearest ones.
    "algorithm": (made("pp0"), ["algorithm", "'pp0'", "'ppo'"]),
    "environment": (made(env="CartPol-v1"), ["environment", "'CartPol-v1'", "Did you mean 'CartPole-v1'"]),
    "environment, case": (made(env="breakout-minatar"), ["'Breakout-MinAtar'"]),
    "environment, part": (made(env="Breakout"), ["'Breakout-MinAtar'"]),
    "download": (made(env="MNISTBandit-bsuite"), ["MNISTBandit-bsuite", "downloads"]),
    "config": (made(num_env=3), ["setting", "'num_env'", "Did you mean 'num_envs'"]),
    "hparam": (made(learnign_rate=3), ["'learnign_rate'", "Did you mean 'learning_rate'"]),
    "another algorithm's": (made(feature_coef=1.0), ["setting", "'feature_coef'"]),
    "option of make_env": (made(sticky_action=0.1), ["'sticky_action'", "'sticky_actions'"]),
    "env_params": (made(env_params={"max_steps": 3}), ["env_params", "'max_steps'", "'max_steps_in_episode'"]),
    "preset": (made(preset="tunde"), ["preset", "'tunde'", "'tuned'"]),
    # Sizes.
    "minibatches": (made(num_envs=3, num_steps=5, num_minibatches=4), ["num_minibatches=4", "divisor", "3 * 5 = 15"]),
    "num_envs 0": (made(num_envs=0), ["num_envs=0", "at least 1"]),
    "num_envs float": (made(num_envs=2.0), ["num_envs=2.0", "int"]),
    "num_envs bool": (made(num_envs=True), ["num_envs=True", "int"]),
    "num_steps": (made(num_steps=-1), ["num_steps=-1"]),
    "num_epochs": (made(num_epochs=0), ["num_epochs=0"]),
    "metrics_every": (made(metrics_every=-1), ["metrics_every=-1", "0"]),
    "hidden_sizes": (made(hidden_sizes=(8, 0)), ["hidden_sizes=(8, 0)", "positive"]),
    "hidden_sizes, no sequence": (made(hidden_sizes=8), ["hidden_sizes=8", "sequence"]),
    "hidden_sizes, none at all": (made(hidden_sizes=()), ["hidden_sizes=()"]),
    "conv_layers": (
        made(env="Breakout-MinAtar", conv_layers=[(4, 3)]),
        ["conv_layers", "(features, kernel size, stride)"],
    ),
    "conv_layers, no sequence": (made(env="Breakout-MinAtar", conv_layers=5), ["conv_layers=5", "sequence"]),
    "conv_layers, too large": (made(env="Breakout-MinAtar", conv_layers=[(4, 11, 1)]), ["conv_layers", "(10, 10, 4)"]),
    "conv_layers, no image": (made(conv_layers=[(4, 3, 1)]), ["conv_layers", "CartPole-v1", "(4,)"]),
    # Choices.
    "activation": (made(activation="rellu"), ["activation='rellu'", "'relu'", "'tanh'"]),
    "initializer": (made(initializer="xavier"), ["initializer='xavier'", "'orthogonal'", "'fan_in'"]),
    "policy": (made(policy="gaussian"), ["policy='gaussian'", "'categorical'", "CartPole-v1"]),
    "policy, Box": (made(env="Pendulum-v1", policy="categorical"), ["policy='categorical'", "'tanh_gaussian'"]),
    "normalize": (made(normalize_observations="runing"), ["normalize_observations='runing'", "'running'", "'frozen'"]),
    "flag": (made(normalize_advantage=1), ["normalize_advantage=1", "False, 'minibatch', 'batch'"]),
    "feature_layers": (made("pfo", feature_layers="first"), ["feature_layers='first'", "'last'", "'all'"]),
    # Numbers.
    "entropy_coef": (made(entropy_coef=-0.1), ["entropy_coef=-0.1", "0 or greater"]),
    "feature_coef": (made("pfo", feature_coef=-1.0), ["feature_coef=-1.0", "0 or greater"]),
    "value_coef": (made(value_coef=-1), ["value_coef=-1", "0 or greater"]),
    "learning_rate": (made(learning_rate=0.0), ["learning_rate=0.0", "greater than 0"]),
    "learning_rate, NaN": (made(learning_rate=float("nan")), ["learning_rate=nan", "number"]),
    "learning_rate, text": (made(learning_rate="fast"), ["learning_rate='fast'", "number"]),
    "learning_rate, None": (made(learning_rate=None), ["learning_rate=None", "number"]),
    "learning_rate, many": (made(learning_rate=[1e-3, 1e-4]), ["learning_rate=[0.001, 0.0001]", "number"]),
    "gamma": (made(gamma=1.01), ["gamma=1.01", "[0, 1]"]),
    "gae_lambda": (made(gae_lambda=-0.1), ["gae_lambda=-0.1", "[0, 1]"]),
    "adam_b1": (made(adam_b1=1.0), ["adam_b1=1.0", "[0, 1)"]),
    "clip_eps": (made(clip_eps=0), ["clip_eps=0", "greater than 0"]),
    # Environments and wrappers.
    "sticky_actions": (made(sticky_actions=1.5), ["sticky_actions=1.5", "[0, 1]"]),
    "mask_rewards": (made(mask_rewards=-0.5), ["mask_rewards=-0.5", "[0, 1]"]),
    "time limit": (made(env_params={"max_steps_in_episode": 0}), ["max_steps_in_episode", "0", "positive"]),
    "full_action_set": (made(full_action_set=True), ["full_action_set", "MinAtar"]),
    "append_time": (made(env="Breakout-MinAtar", append_time=True), ["append_time", "vector"]),
    "append_time, no limit": (made(env=Echo(), append_time=True), ["append_time", "time limit"]),
    "observe, no vector": (made(env="Breakout-MinAtar", observe=(0,)), ["observe=(0,)", "vector"]),
    "observe, all": (made(observe=[0, 1, 2, 3]), ["observe=[0, 1, 2, 3]", "None"]),
    "observe, none": (made(observe=()), ["observe=()", "4"]),
    "observe, beyond": (made(observe=(0, 4)), ["observe=(0, 4)", "4"]),
    "observe, one": (made(observe=2), ["observe=2", "sequence"]),
    "observe, twice": (made(observe=(1, 1)), ["observe=(1, 1)", "different"]),
    "frame_stack": (made(frame_stack=0), ["frame_stack=0", "at least 1"]),
    "frame_stack, bool": (made(frame_stack=True), ["frame_stack=True", "int"]),
    "memory": (made(memory="rnn"), ["memory='rnn'", "'gru'", "'lstm'"]),
    "memory_size": (made(memory_size=8), ["memory_size=8", "memory is 'gru' or 'lstm'"]),
    "memory, minibatches": (
        made(memory="gru", num_envs=4, num_minibatches=8),
        ["num_minibatches=8", "num_envs=4", "sequences"],
    ),
    "memory of a replay": (made("dqn", memory="gru"), ["setting", "'memory'"]),
    "env_params of an object": (made(env=Echo(), env_params={"low": 1}), ["env_params", "object"]),
    # Runs.
    "num_seeds": (swept(num_seeds=0), ["num_seeds=0", "at least 1"]),
    "num_seeds negative": (swept(num_seeds=-2), ["num_seeds=-2"]),
    "no seeds": (swept(num_seeds=None, seeds=[]), ["seeds", "at least one"]),
    "seeds twice": (swept(num_seeds=None, seeds=[1, 1]), ["seeds=[1, 1]", "different"]),
    "both": (swept(seeds=[1]), ["seeds", "num_seeds"]),
    "negative seed": (swept(num_seeds=None, seeds=[-1]), ["seeds=[-1]", "0"]),
    "fractional seed": (swept(num_seeds=None, seeds=[1.5]), ["seeds=[1.5]"]),
    "total_steps": (swept(total_steps=0), ["total_steps=0", "greater than 0"]),
    "total_steps, train": (trained(total_steps=-5), ["total_steps=-5", "greater than 0"]),
    "grid name": (swept(grid={"clip_ep": [0.1]}), ["'clip_ep'", "'clip_eps'"]),
    "grid static": (swept(grid={"num_envs": [2, 4]}), ["num_envs", "static"]),
    "grid value": (swept(grid={"gamma": [0.9, 1.5]}), ["gamma=1.5", "[0, 1]"]),
    "grid empty": (swept(grid={"gamma": []}), ["gamma", "[]"]),
    "grid twice": (swept(grid={"gamma": [0.9, 0.9]}), ["gamma", "different"]),
    "grid scalar": (swept(grid={"gamma": 0.9}), ["gamma", "0.9", "sequence"]),
    "no arms": (swept(arms={}), ["arms", "at least one"]),
    "arm": (swept(arms={"a": "ppo"}), ["arms['a']", "prx.make"]),
    "eval_every": (swept(eval_every=-1), ["eval_every=-1"]),
    "eval_episodes": (swept(eval_every=1, eval_episodes=0), ["eval_episodes=0"]),
}


@pytest.fixture(scope="module", autouse=True)
def environments():
    """gymnax's constructors and spaces compute small arrays of their own, which are compiled; once."""
    for name in ("CartPole-v1", "Breakout-MinAtar", "Pendulum-v1"):
        prx.make("ppo", name)


@pytest.mark.parametrize(("call", "words"), BAD.values(), ids=BAD)
def test_bad_input(call, words, compilations):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        call()
    for word in words:
        assert word in str(raised.value)
    assert not compilations


def test_brax_names_and_backends():
    pytest.importorskip("brax")
    with pytest.raises(ValueError, match="'hopper'"):
        prx.make_env("brax:hoper")
    with pytest.raises(ValueError, match=r"backend.*'springs'.*generalized"):
        prx.make_env("brax:inverted_pendulum", {"backend": "springs"})
    with pytest.raises(ValueError, match=r"episode_length.*0.*positive"):
        prx.make_env("brax:inverted_pendulum", {"episode_length": 0})


class Wrong(nn.Module):
    """A network with one thing wrong."""

    what: str

    @nn.compact
    def __call__(self, obs):
        logits = nn.Dense(3 if self.what == "size" else 2)(obs)
        value = nn.Dense(1)(obs)
        if self.what == "output":
            return logits, value
        policy = prx.Gaussian(logits, jnp.ones_like(logits)) if self.what == "kind" else prx.Categorical(logits)
        return prx.Output(policy=policy, value=value if self.what == "value" else value[..., 0])


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("output", ["Wrong", "prx.Output", "tuple"]),
        ("kind", ["Wrong", "Gaussian", "CartPole-v1", "Categorical"]),
        ("size", ["Wrong", "[B, 3]", "Discrete", "[B, 2]"]),
        ("value", ["Wrong", "value", "[B]", "(2, 1)"]),
    ],
)
def test_a_network_that_does_not_fit(what, words, compilations):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        prx.make("ppo", "CartPole-v1", network=Wrong(what))
    for word in words:
        assert word in str(raised.value)
    assert not compilations


def test_what_a_config_says_is_what_was_asked_for():
    algorithm = prx.make("ppo", "CartPole-v1", num_envs=3, num_steps=5, num_minibatches=5, clip_eps=0.3)
    assert algorithm.config.steps_per_update == algorithm.steps_per_update == 15
    assert algorithm.hparams.clip_eps == 0.3
    assert algorithm.config.hidden_sizes == (64, 64)
    assert prx.make("ppo", "Breakout-MinAtar").config.conv_layers == ((16, 3, 1),)


def test_lists_are_as_good_as_tuples():
    """As JSON gives them back."""
    a, b = (prx.make("ppo", "CartPole-v1", hidden_sizes=sizes) for sizes in ([8, 8], (8, 8)))
    assert a.config == b.config
    assert a.loop is b.loop


def test_equal_settings_share_their_functions():
    assert tiny().loop is tiny(learning_rate=0.5).loop
    assert tiny().loop is not tiny(num_envs=4).loop


def test_settings_make_the_algorithm_again():
    a = prx.make(
        "pfo",
        "Breakout-MinAtar",
        num_envs=8,
        feature_coef=3.0,
        sticky_actions=0.1,
        env_params={"max_steps_in_episode": 7},
    )
    b = prx.make(**a.settings)
    assert (a.config, a.hparams, a.env) == (b.config, b.hparams, b.env)
    assert a.loop is b.loop


def test_time_limit_is_settable():
    assert prx.make("ppo", "Breakout-MinAtar", env_params={"max_steps_in_episode": 5000}).env.time_limit == 5000
