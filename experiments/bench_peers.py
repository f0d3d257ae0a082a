"""The same job as bench_ours.py, done by purejaxrl or purejaxql from a checkout that the user names: none of their code is here.

Their training alone is timed, as they vmap it over seeds, compiled ahead.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from typing import Any

import gpu_peers
from bench_serve import serve

# What purejaxrl's networks are fixed to.
FIXED: dict[tuple[str, str], dict[str, Any]] = {
    ("purejaxrl", "ppo"): {"hidden_sizes": (64, 64)},
    ("purejaxrl", "dqn"): {"hidden_sizes": (120, 84), "activation": "relu"},
    ("purejaxql", "pqn"): {"activation": "relu", "layer_norm": True},
}
# Arithmetic that costs the same at any value.
NO_COST = ("max_grad_norm", "gamma", "gae_lambda", "clip_eps", "entropy_coef", "value_coef", "metrics_every")


def translate(peer: str, algorithm: str, settings: dict[str, Any]) -> dict[str, Any]:
    """This project's settings without those that the peer has anyway or that cost nothing.

    Raises:
        ValueError: the peer's is fixed to another.
    """
    left = {name: value for name, value in settings.items() if name not in NO_COST}
    for name, fixed in FIXED.get((peer, algorithm), {}).items():
        given = left.pop(name, fixed)
        given = tuple(given) if isinstance(given, list) else given
        if given != fixed:
            raise ValueError(f"{name}={given} is not allowed: {peer} has {name}={fixed} alone for {algorithm}")
    if algorithm == "dqn" and left.pop("env_steps_per_update", left["num_envs"]) != left["num_envs"]:
        raise ValueError(f"{peer} learns after each step of all environments: env_steps_per_update must be num_envs")
    return left


def main() -> None:
    """Compile once, then run once per line of standard input."""
    job = json.loads(sys.stdin.readline())
    name, algorithm = job["peer"].partition("=")[0], job["algorithm"]
    settings = translate(name, algorithm, job["settings"])
    version = importlib.metadata.version("gymnax")
    if not version.startswith("0.0."):
        raise ValueError(f"peers_python has gymnax {version}; {name} was written for 0.0.9")
    train, size = gpu_peers.program(job["peer"], algorithm, job["env"], settings, job["total_steps"])
    serve(train, job["num_seeds"], job["total_steps"] // size * size)


if __name__ == "__main__":
    main()
