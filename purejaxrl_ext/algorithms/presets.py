"""Named settings: the project's tuned ones per environment, and those of papers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container
from typing import Any

from purejaxrl_ext.errors import unknown_name

ON_POLICY = ("ppo", "pfo")

# Tuned for PPO: mean greedy return over 5 seeds in README.md. Budgets are those of the annealing.
_PPO: dict[str, dict[str, Any]] = {
    "CartPole-v1": {"num_envs": 8, "num_steps": 64, "learning_rate": 2e-3, "anneal_steps": 500_000},
    "Acrobot-v1": {"num_envs": 16, "num_steps": 128, "learning_rate": 1e-3, "anneal_steps": 500_000},
    "Pendulum-v1": {
        "num_envs": 16,
        "num_steps": 128,
        "num_epochs": 8,
        "num_minibatches": 8,
        "learning_rate": 1e-3,
        "anneal_steps": 1_000_000,
        "gamma": 0.95,
        "entropy_coef": 0.0,
    },
    "MountainCarContinuous-v0": {
        "num_envs": 64,
        "num_steps": 64,
        "num_minibatches": 8,
        "learning_rate": 1e-3,
        "anneal_steps": 1_000_000,
        "entropy_coef": 0.0,
        "normalize_observations": "running",
        "normalize_rewards": True,
    },
    "MemoryChain-bsuite": {
        "memory": "gru",
        "memory_size": 32,
        "hidden_sizes": (32,),
        "num_envs": 16,
        "num_steps": 32,
        "learning_rate": 3e-3,
        "anneal_steps": 200_000,
    },
    # A dense network on the flattened planes learns as well as the CNN here, at an eighth of its cost on a CPU.
    "Breakout-MinAtar": {
        "num_envs": 64,
        "num_steps": 128,
        "num_minibatches": 8,
        "conv_layers": (),
        "hidden_sizes": (64, 64),
        "activation": "relu",
        "learning_rate": 5e-3,
        "anneal_steps": 10_000_000,
    },
}

# Whichever library has it: EnvPool's is ten times as fast.
_LUNAR_LANDER: dict[str, Any] = {
    "num_envs": 16,
    "num_steps": 512,
    "num_minibatches": 32,
    "learning_rate": 1e-3,
    "anneal_steps": 1_500_000,
    "gamma": 0.995,
    "gae_lambda": 0.98,
}
_PPO |= {f"{suite}:LunarLander-v3": _LUNAR_LANDER for suite in ("envpool", "gymnasium")}

_DQN: dict[str, dict[str, Any]] = {
    "CartPole-v1": {"learning_rate": 1e-3, "target_period": 50, "epsilon_decay_steps": 250_000},
    "Acrobot-v1": {"learning_rate": 1e-3, "target_period": 200, "huber_delta": 1.0},
    "Breakout-MinAtar": {
        "conv_layers": (),
        "hidden_sizes": (64, 64),
        "num_envs": 16,
        "env_steps_per_update": 16,
        "replay_capacity": 100_000,
        "prefill_steps": 5_008,
        "batch_size": 64,
        "learning_rate": 5e-4,
        "target_period": 500,
        "huber_delta": 1.0,
        "epsilon_decay_steps": 250_000,
    },
}

_PQN: dict[str, dict[str, Any]] = {
    "Breakout-MinAtar": {
        "conv_layers": (),
        "hidden_sizes": (64, 64),
        "num_envs": 128,
        "num_steps": 32,
        "num_minibatches": 16,
        "learning_rate": 1e-3,
        "anneal_steps": 10_000_000,
        "epsilon_end": 0.02,
        "epsilon_decay_steps": 1_000_000,
    },
}

_REINFORCE: dict[str, dict[str, Any]] = {
    "CartPole-v1": {"num_envs": 4, "learning_rate": 5e-3, "anneal_steps": 500_000},
}

# By algorithm, then environment.
TUNED: dict[str, dict[str, dict[str, Any]]] = {
    "reinforce": _REINFORCE,
    "ppo": _PPO,
    "pfo": _PPO,
    "dqn": _DQN,
    "pqn": _PQN,
}

# The paper's own loop: separate networks and optimisers with Adam's eps 1e-8, PyTorch's initialisation, no value clipping,
# constant learning rate, and a time limit taken for the end of the episode, as its code has it. With ``shared_torso`` the trunk
# is in both optimisers, as there.
_PFO_PAPER: dict[str, Any] = {
    "initializer": "fan_in",
    "separate_optimizers": True,
    "time_limit_terminates": True,
    "adam_eps": 1e-8,
    "value_coef": 1.0,  # 0.5 of a mean square without our ½
    "max_grad_norm": 0.5,
    "anneal_steps": 0,
    "feature_coef": 1.0,
    "feature_layers": "last",
}

# For vectors: statistics of random steps, frozen; normalised observations are not clipped, and the time comes after them.
_PFO_PAPER_VECTORS: dict[str, Any] = _PFO_PAPER | {
    "activation": "tanh",  # with "relu" the paper's feature_coef for MuJoCo is 10
    "normalize_observations": "frozen",
    "observation_clip": math.inf,
    "append_time": True,
}

# Moalla et al. 2024, appendix; where paper and code disagree, these are the code's (it takes the drift's mean over
# dimensions where the paper's equation sums, which is how ``feature_coef`` is meant here).
PAPERS: dict[str, dict[str, Any]] = {
    "pfo-paper-atari": _PFO_PAPER
    | {
        "num_envs": 8,
        "num_steps": 128,
        "num_minibatches": 4,  # of 256
        "num_epochs": 4,  # 6 and 8 for stronger non-stationarity
        "learning_rate": 2.5e-4,
        "clip_eps": 0.1,
        "entropy_coef": 0.01,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "hidden_sizes": (512,),
        "activation": "relu",
        "sticky_actions": 0.25,
        "sign_rewards": True,
    },
    "pfo-paper-mujoco": _PFO_PAPER_VECTORS
    | {
        "num_envs": 2,
        "num_steps": 1024,
        "num_minibatches": 32,  # of 64
        "num_epochs": 10,  # 15 and 20 for stronger non-stationarity
        "learning_rate": 3e-4,
        "clip_eps": 0.2,
        "entropy_coef": 0.0,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "hidden_sizes": (64, 64),
        "policy": "tanh_gaussian",
        "normalizer_steps": 4_000,
    },
    # In the code only, which also leaves out the steps of a rollout's last episode where that is cut; these are kept here.
    "pfo-paper-cartpole": _PFO_PAPER_VECTORS
    | {
        "num_envs": 4,
        "num_steps": 256,
        "num_minibatches": 8,  # of 128
        "num_epochs": 4,
        "learning_rate": 2.5e-4,
        "clip_eps": 0.2,
        "entropy_coef": 0.01,
        "gamma": 1.0,
        "gae_lambda": 1.0,
        "hidden_sizes": (64,),
        "normalizer_steps": 3_200,
        "env_params": {"max_steps_in_episode": 200},
    },
    # Mnih et al. 2015, its table of hyperparameters, on "ale:" games, but that a lost life ends no episode and RMSProp is not
    # centred. Frames of successive observations are not shared: 1,000,000 transitions need 56 GB; replay_capacity= less.
    "mnih-2015": {
        "num_envs": 4,
        "env_steps_per_update": 4,
        "updates_per_step": 250,
        "replay_capacity": 1_000_000,
        "batch_size": 32,
        "prefill_steps": 50_000,
        "conv_layers": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),
        "hidden_sizes": (512,),
        "activation": "relu",
        "initializer": "fan_in",
        "optimizer": "rmsprop",
        "learning_rate": 2.5e-4,
        "anneal_steps": 0,
        "adam_b2": 0.95,
        "adam_eps": 0.01,  # its least squared gradient
        "max_grad_norm": math.inf,
        "gamma": 0.99,
        "huber_delta": 1.0,
        "target_period": 10_000,
        "tau": 1.0,
        "epsilon_start": 1.0,
        "epsilon_end": 0.1,
        "epsilon_decay_steps": 1_000_000,
        "sign_rewards": True,
        "env_params": {"repeat_action_probability": 0.0, "frameskip": 4, "noop_max": 30, "max_num_frames": 18_000},
    },
}
# The paper's Atari on the emulator: "ale:Phoenix". Its actions are sticky in the emulator, frame by frame.
PAPERS["pfo-paper-ale"] = {k: v for k, v in PAPERS["pfo-paper-atari"].items() if k != "sticky_actions"} | {
    "conv_layers": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),
    "env_params": {"repeat_action_probability": 0.25, "frameskip": 3, "max_num_frames": 108_000},
}
# Those of other algorithms than PPO and PFO.
_PAPERS_FOR: dict[str, tuple[str, ...]] = {"mnih-2015": ("dqn",)}


def presets() -> list[str]:
    """The names that ``make(preset=...)`` takes."""
    return ["tuned", *PAPERS]


def preset_settings(preset: str, recipe: Any, env_name: str, env_settings: Container[str]) -> dict[str, Any]:
    """The settings that a preset stands for; PFO's own are left out for PPO.

    Raises:
        ValueError: an unknown preset, an environment without a tuned one, or an algorithm for which none was made.
    """
    algorithm = recipe.name
    if preset not in presets():
        raise ValueError(unknown_name("preset", preset, presets()))
    if preset == "tuned":
        if algorithm not in TUNED:
            raise ValueError(f"preset='tuned' is not allowed for algorithm {algorithm!r}: it is for {', '.join(TUNED)}")
        tuned = TUNED[algorithm]
        if env_name not in tuned:
            raise ValueError(unknown_name(f"environment for {algorithm}'s preset 'tuned'", env_name, tuned))
        settings = tuned[env_name]
    else:
        allowed = _PAPERS_FOR.get(preset, ON_POLICY)
        if algorithm not in allowed:
            what = f"preset={preset!r} is not allowed for algorithm {algorithm!r}"
            raise ValueError(f"{what}: it is for {' and '.join(allowed)}")
        settings = PAPERS[preset]
    own = {f.name for kind in (recipe.config, recipe.hparams) for f in dataclasses.fields(kind)}
    return {k: v for k, v in settings.items() if k in own or k in env_settings}
