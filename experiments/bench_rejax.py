"""The same job as bench_ours.py, done by rejax; run by a Python that has it, so it imports nothing of this project.

rejax's evaluation is taken out: its training alone is timed, as compiled ahead.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from bench_serve import serve

SAME = ("num_envs", "num_steps", "num_epochs", "num_minibatches", "batch_size")
SAME += ("learning_rate", "max_grad_norm", "gamma", "gae_lambda", "clip_eps")
OTHER_NAME = {
    "entropy_coef": "ent_coef",
    "value_coef": "vf_coef",
    "replay_capacity": "buffer_size",
    "prefill_steps": "fill_buffer",
    "epsilon_start": "eps_start",
    "epsilon_end": "eps_end",
}


def translate(algorithm: str, settings: dict[str, Any], total_steps: int) -> dict[str, Any]:
    """This project's settings as rejax's."""
    settings = dict(settings)
    settings.pop("metrics_every", None)
    agent = {}
    hidden_sizes = tuple(settings.pop("hidden_sizes", (64, 64)))
    if algorithm != "dqn":
        agent["hidden_layer_sizes"] = hidden_sizes
    elif hidden_sizes != (64, 64):
        raise ValueError(f"hidden_sizes={hidden_sizes} is not allowed: rejax 0.1.3 fixes those of DQN to (64, 64)")
    if "activation" in settings:
        agent["activation"] = settings.pop("activation")
    new: dict[str, Any] = {"agent_kwargs": agent, "total_timesteps": total_steps, "eval_freq": total_steps}
    if algorithm == "dqn":
        # One iteration of rejax is one step of every environment, then num_epochs gradient updates.
        per_update = settings.pop("env_steps_per_update", settings["num_envs"])
        if per_update != settings["num_envs"]:
            raise ValueError("rejax learns after each step of all environments: env_steps_per_update must be num_envs")
        settings.pop("updates_per_step", None)
        new |= {"ddqn": settings.pop("double", False), "num_epochs": 1}
        new["polyak"] = 1.0 - settings.pop("tau", 1.0)
        new["target_update_freq"] = settings.pop("target_period", 50) * per_update
        if "epsilon_decay_steps" in settings:
            new["exploration_fraction"] = settings.pop("epsilon_decay_steps") / total_steps
    for name, value in settings.items():
        if name not in SAME and name not in OTHER_NAME:
            raise ValueError(f"rejax has no setting like {name!r}")
        new[OTHER_NAME.get(name, name)] = value
    return new


def main() -> None:
    """Compile once, then run once per line of standard input."""
    from rejax import get_algo

    job = json.loads(sys.stdin.readline())
    settings = translate(job["algorithm"], job["settings"], job["total_steps"])
    algo = get_algo(job["algorithm"]).create(env=job["env"], **settings)
    algo = algo.replace(eval_callback=lambda algo, train_state, key: ())
    size = settings["num_envs"] * settings.get("num_steps", 1)
    serve(lambda key: algo.train(key), job["num_seeds"], -(-job["total_steps"] // size) * size)


if __name__ == "__main__":
    main()
