"""The peers' training programs, from a checkout or a package that the user names, with settings called as this project's.

A peer's whole training is one program; what it imports only to log or to read its command line need not be installed.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

# This project's names: theirs.
SAME = {"num_envs": "NUM_ENVS", "num_steps": "NUM_STEPS", "num_minibatches": "NUM_MINIBATCHES", "learning_rate": "LR"}
PUREJAXRL = {
    "ppo": SAME | {"num_epochs": "UPDATE_EPOCHS", "activation": "ACTIVATION"},
    "dqn": SAME
    | {"batch_size": "BUFFER_BATCH_SIZE", "replay_capacity": "BUFFER_SIZE", "prefill_steps": "LEARNING_STARTS"},
}
PUREJAXQL = SAME | {"num_epochs": "NUM_EPOCHS"}
# What does not come from this project's settings: arithmetic, which costs the same at any value, and what is off.
PPO = {"GAMMA": 0.99, "GAE_LAMBDA": 0.95, "CLIP_EPS": 0.2, "ENT_COEF": 0.01, "VF_COEF": 0.5, "MAX_GRAD_NORM": 0.5}
PPO |= {"LR": 2.5e-4, "ACTIVATION": "tanh", "ANNEAL_LR": False}
DQN = {
    "EPSILON_START": 1.0,
    "EPSILON_FINISH": 0.05,
    "EPSILON_ANNEAL_TIME": 25e4,
    "TARGET_UPDATE_INTERVAL": 500,
    "GAMMA": 0.99,
}
DQN |= {
    "LR": 2.5e-4,
    "TRAINING_INTERVAL": 10,
    "LEARNING_STARTS": 1000,
    "LR_LINEAR_DECAY": False,
    "TAU": 1.0,
    "WANDB_MODE": "disabled",
}
PQN = {
    "EPS_START": 1.0,
    "EPS_FINISH": 0.05,
    "EPS_DECAY": 0.2,
    "NORM_INPUT": False,
    "NORM_TYPE": "layer_norm",
    "LR": 1e-4,
}
PQN |= {"MAX_GRAD_NORM": 10.0, "LR_LINEAR_DECAY": False, "REW_SCALE": 1.0, "GAMMA": 0.99, "LAMBDA": 0.95}
PQN |= {"ENV_KWARGS": {}, "TEST_DURING_TRAINING": False, "WANDB_MODE": "disabled"}
# Imported to log, to read a command line, or for other environments.
NOT_NEEDED = ("hydra", "omegaconf", "wandb", "safetensors", "safetensors.flax", "navix")
NOT_NEEDED += ("brax", "brax.envs", "brax.envs.wrappers.training")
Program = tuple[Callable, int]  # key -> what training leaves; environment steps of an update


def program(peer: str, algorithm: str, env: str, settings: dict[str, Any], env_steps: int) -> Program:
    """A peer's training of one seed.

    Args:
        peer: "purejaxrl=PATH" or "purejaxql=PATH", a checkout; "rejax", or "rejax=PATH".
        algorithm, env: that both projects have, under this project's name.
        settings: in this project's names.
        env_steps: environment steps of the training.

    Raises:
        ValueError: the peer lacks it.
        ImportError: the peer, or what it needs, is not installed.
    """
    name, _, path = peer.partition("=")
    known = {"purejaxrl": _purejaxrl, "purejaxql": _purejaxql, "rejax": _rejax}
    if name not in known:
        raise ValueError(f"peer={peer!r} is not allowed: {', '.join(known)}, with =PATH for a checkout")
    if path and not Path(path).is_dir():
        raise ValueError(f"peer={peer!r} is not allowed: {path} is no directory")
    return known[name](path, algorithm, env, settings, env_steps)


def _renamed(peer: str, settings: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    lacking = sorted(set(settings) - set(names))
    if lacking:
        raise ValueError(f"{peer} has no setting like {lacking[0]!r}; it has {', '.join(sorted(names))}")
    return {names[name]: value for name, value in settings.items()}


def _purejaxrl(path: str, algorithm: str, env: str, settings: dict[str, Any], env_steps: int) -> Program:
    if algorithm not in PUREJAXRL:
        raise ValueError(f"purejaxrl has no {algorithm!r} that is compared; ppo and dqn are")
    sizes = _renamed("purejaxrl", settings, PUREJAXRL[algorithm])
    config = (PPO if algorithm == "ppo" else DQN) | {"ENV_NAME": env, "TOTAL_TIMESTEPS": env_steps} | sizes
    module = _module(str(Path(path) / "purejaxrl"), algorithm)
    # The learner learns after each step of all environments.
    return module.make_train(config), config["NUM_ENVS"] * config.get("NUM_STEPS", 1)


def _purejaxql(path: str, algorithm: str, env: str, settings: dict[str, Any], env_steps: int) -> Program:
    if algorithm != "pqn":
        raise ValueError(f"purejaxql has no {algorithm!r}; pqn is compared")
    widths = settings.pop("hidden_sizes", (128, 128))
    sizes = {"HIDDEN_SIZE": widths[0], "NUM_LAYERS": len(widths)} | _renamed("purejaxql", settings, PUREJAXQL)
    config = PQN | {"ENV_NAME": env, "TOTAL_TIMESTEPS": env_steps, "TOTAL_TIMESTEPS_DECAY": env_steps} | sizes
    module = _module(path, "purejaxql.pqn_gymnax")
    return module.make_train(config), config["NUM_ENVS"] * config["NUM_STEPS"]


def _rejax(path: str, algorithm: str, env: str, settings: dict[str, Any], env_steps: int) -> Program:
    if path:
        sys.path.insert(0, str(Path(path) / "src"))
    import bench_rejax
    from rejax import get_algo

    translated = bench_rejax.translate(algorithm, settings, env_steps)
    algo = get_algo(algorithm).create(env=env, **translated)
    algo = algo.replace(eval_callback=lambda algo, train_state, key: ())
    return algo.train, translated["num_envs"] * translated.get("num_steps", 1)


def _module(path: str, name: str) -> Any:
    import jax

    sys.path.insert(0, path)
    # Written for a jax that had it.
    if not hasattr(jax, "tree_map"):
        jax.tree_map = jax.tree.map
    absent = [package for package in NOT_NEEDED if not _is_installed(package)]
    with mock.patch.dict(sys.modules, {package: mock.MagicMock() for package in absent}):
        return importlib.import_module(name)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
