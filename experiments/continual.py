"""Ten tasks one after another, which differ in an offset of the observations: who still learns the last one?

The setting of C-CHAIN's table 1 (Tang et al. 2025, arXiv 2506.00592) as far as known: offsets ~ N(0, 2²), 160,000 steps a task,
episodes of at most 400 steps, rewards divided by 20; PPO with two networks of 3 × 256 leaky ReLUs, Adam at 1e-3, minibatches of 32,
5 epochs, clip range 0.2, entropy 0.01, gradients not clipped. Ours differ: leaky ReLU has the slope 0.01 (theirs 0.1), the rollout
(8 × 256) and λ are the library's. The oracle gets a fresh network and optimiser with
each task, to the nearest update.

The table has the mean return over all episodes of the run, and of each task.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cli
import compared
import fair
import xarray as xr

import purejaxrl_ext as prx
from purejaxrl_ext.analysis import plots
from purejaxrl_ext.envs import tasks
from purejaxrl_ext.envs.base import EnvStep
from purejaxrl_ext.envs.wrappers import Wrapper
from purejaxrl_ext.types import Array, PyTree

INF = float("inf")
NUM_ENVS, NUM_STEPS = 8, 256
SETTINGS: dict[str, Any] = {
    "num_envs": NUM_ENVS,
    "num_steps": NUM_STEPS,
    "num_epochs": 5,
    "num_minibatches": NUM_ENVS * NUM_STEPS // 32,
    "hidden_sizes": (256, 256, 256),
    "activation": "leaky_relu",
    "learning_rate": 1e-3,
    "clip_eps": 0.2,
    "entropy_coef": 0.01,
    "max_grad_norm": INF,
}
# Published, over the run: what each method of the paper has. None of PFO.
PUBLISHED = {
    "CartPole-v1": {"none": "61.8 ± 6.9", "oracle": "299.9 ± 6.0", "l2_init": "266", "trac": "217", "chain": "160"},
    "Acrobot-v1": {"none": "−372.7", "oracle": "−125.7", "l2_init": "−134", "trac": "−167", "chain": "−119"},
}


@dataclass(frozen=True)
class Continual:
    """Settings of the study."""

    env: str = "CartPole-v1"
    """the environment: of classic control"""
    arms: tuple[str, ...] = ("none", "oracle", "l2_init", "trac", "chain", "pfo")
    """plain PPO, a fresh network for each task, interventions by name, PFO"""
    task_steps: int = 160_000
    """environment steps of a task"""
    num_tasks: int = 10
    """tasks, each once"""
    offset: float = 2.0
    """standard deviation of the observations' offsets"""
    episode_steps: int = 400
    """time limit of an episode"""
    num_seeds: int = 10
    """seeds of each arm"""
    out: Path = Path("runs/continual")
    """where results go; what is there already is gone on with"""


@dataclass(frozen=True)
class Scaled(Wrapper):
    """Rewards times ``factor`` for the agent; the episode's return counts them as they are."""

    factor: float = 1.0 / 20.0

    def step(self, key: Array, env_state: PyTree, action: Array) -> EnvStep:
        """A step of the environment inside."""
        step = self.env.step(key, env_state, action)
        return step._replace(reward=step.reward * self.factor, score=step.reward if step.score is None else step.score)


def task_updates(study: Continual) -> int:
    """Updates of a task, to the nearest."""
    return max(1, round(study.task_steps / (NUM_ENVS * NUM_STEPS)))


def algorithm(arm: str, study: Continual) -> prx.Algorithm:
    """An arm by its name."""
    base = Scaled(prx.make_env(study.env, {"max_steps_in_episode": study.episode_steps}))
    env = tasks.ObservationOffsets(base, study.task_steps // NUM_ENVS, study.num_tasks, scale=study.offset)
    if arm == "pfo":
        return prx.make("pfo", env, **SETTINGS)
    if arm == "oracle":
        settings = {"layer_reset_every": float(task_updates(study)), "layer_reset_count": INF}
        return prx.make("ppo", env, interventions=("layer_reset",), **settings, **SETTINGS)
    return prx.make("ppo", env, interventions=() if arm == "none" else (arm,), **SETTINGS)


def by_task(dataset: xr.Dataset, task_steps: int, metric: str = compared.RETURN) -> xr.DataArray:
    """The mean over each task's updates ``[arm, seed, task]``."""
    task = ((dataset["env_step"] - 1) // task_steps).rename("task")
    arms = [dataset[metric].sel(arm=arm).groupby(task.sel(arm=arm).astype(int)).mean() for arm in dataset["arm"].values]
    return xr.concat(arms, "arm").assign_coords(arm=dataset["arm"])


def table(dataset: xr.Dataset, study: Continual) -> str:
    """A row per arm: the mean over all episodes, the published one, and the mean of each task."""
    each, published = by_task(dataset, study.task_steps), PUBLISHED.get(study.env, {})
    rows = []
    for arm in dataset["arm"].values.tolist():
        whole = compared.interval_text(dataset[compared.RETURN].sel(arm=arm).mean("update").values, "mean")
        of_tasks = [f"{x:.3g}" for x in each.sel(arm=arm).mean("seed").values]
        rows.append([arm, whole, published.get(arm, "–"), *of_tasks])
    header = ("arm", "return, whole run", "published", *(f"task {i + 1}" for i in range(each.sizes["task"])))
    return compared.markdown(header, rows)


def main(study: Continual) -> None:
    """Train and report."""
    for name in ("task_steps", "num_tasks", "episode_steps", "num_seeds"):
        if getattr(study, name) < 1:
            raise ValueError(f"{name}={getattr(study, name)} is not allowed: at least 1")
    arms = {arm: algorithm(arm, study) for arm in study.arms}
    dataset = fair.trained(arms, study.out, range(study.num_seeds), study.task_steps * study.num_tasks)
    text = f"{study.env}, {study.num_tasks} tasks of {study.task_steps:,} steps, {study.num_seeds} seeds\n\n"
    text += table(dataset, study)
    (study.out / "tables.md").write_text(text)
    smooth = min(1.0, 20.0 / dataset.sizes["update"])
    plots.curves(
        dataset, (compared.RETURN, "actor_rank", "actor_dead_units"), smooth=smooth, path=study.out / "curves.png"
    )
    print(text)
    print(f"table and figure in {study.out}")


if __name__ == "__main__":
    cli.run(main, __doc__, Continual)
