"""Estimated values against exact ones: Sutton & Barto's figures 7.2, 12.3 and 12.6, and the bias and variance behind them."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cli
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from purejaxrl_ext.envs import mdps
from purejaxrl_ext.rules import returns
from purejaxrl_ext.tabular import exact, prediction
from purejaxrl_ext.types import Array

NS = tuple(2**i for i in range(10))
LAMBDAS = (0.0, 0.4, 0.8, 0.9, 0.95, 0.975, 0.99, 1.0)
FINE_LAMBDAS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 1.0)
# Finer where long returns have their best.
ALPHAS = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
GAMMA = 1.0
WIDEST = 1000  # steps; of an episode of the walk one in 10⁵ is longer


@dataclass(frozen=True)
class Study:
    """Settings of the study."""

    num_seeds: int = 1000
    """runs, all in one vmap"""
    num_episodes: int = 10
    """episodes of a run, over which the error is averaged"""
    num_states: int = 19
    """of the random walk"""
    alpha: float = 0.2
    """step size of the panel about learned values"""
    figure: Path = Path("runs/estimation_study.png")
    """where the figure goes"""


def main(study: Study) -> None:
    """Measure all estimators; lines of numbers and the figure."""
    if min(study.num_seeds, study.num_episodes, study.num_states) < 1:
        raise ValueError(f"{study} is not allowed: num_seeds, num_episodes and num_states must be at least 1")
    began = time.perf_counter()
    walk = mdps.random_walk(study.num_states)
    policy = exact.uniform(walk)
    truth = exact.policy_evaluation(walk, policy, GAMMA)
    keys = jax.random.split(jax.random.key(0), study.num_seeds)
    sample = partial(
        prediction.sample_episodes, mdp=walk, policy=policy, num_episodes=study.num_episodes, max_steps=WIDEST
    )
    episodes = jax.jit(jax.vmap(sample))(keys)
    whole = float((episodes.terminated.any(-1)).mean())
    steps = joined(episodes)

    figure = Figure(figsize=(13.5, 7.6), dpi=75, layout="constrained")
    panels = figure.subplots(2, 3)
    for panel, (title, estimator) in zip(panels[0], estimators().items(), strict=True):
        panel_of_errors(panel, title, *estimator, episodes, steps, truth)
    for panel, target in zip(panels[1], targets_of(walk, policy, truth), strict=False):
        panel_of_targets(panel, *target, steps, truth)
    bias, variance = learned(NS, study.alpha, steps, truth)
    draw_parts(panels[1, 2], "n", NS, bias, variance)
    panels[1, 2].legend(frameon=False)
    panels[1, 2].set_title(
        f"values learned by n-step TD, α = {study.alpha}, {study.num_episodes} episodes", fontsize="medium"
    )
    figure.suptitle(
        f"{study.num_states}-state random walk, {study.num_seeds} seeds; RMS error over the first "
        f"{study.num_episodes} episodes"
    )
    study.figure.parent.mkdir(parents=True, exist_ok=True)
    save(figure, study.figure)
    print(f"{study.figure}; {whole:.2%} of the episodes ended by themselves; {time.perf_counter() - began:.0f} s")


def estimators() -> dict[str, tuple[Callable, str, tuple]]:
    """(estimator, name of its number, the numbers) by the title of its panel."""
    return {
        "n-step TD (figure 7.2)": (prediction.n_step_td, "n", NS),
        "off-line λ-return (figure 12.3)": (prediction.offline_lambda_return, "λ", LAMBDAS),
        "TD(λ), accumulating traces (figure 12.6)": (prediction.td_lambda, "λ", LAMBDAS),
    }


def panel_of_errors(
    panel: Axes,
    title: str,
    estimator: Callable,
    name: str,
    values: tuple,
    episodes: prediction.Trajectory,
    steps: prediction.Trajectory,
    truth: Array,
) -> None:
    """One estimator's errors, drawn, and the least of them in a line."""
    start = time.perf_counter()
    data = episodes if estimator is prediction.offline_lambda_return else steps
    errors = sweep_errors(estimator, values, data, truth)
    draw_errors(panel, title, name, values, errors)
    best = np.unravel_index(np.argmin(errors), errors.shape)
    print(
        f"{title}: least RMS error {errors[best]:.4f} at {name} = {values[best[0]]}, α = {ALPHAS[best[1]]}; "
        f"{time.perf_counter() - start:.0f} s"
    )


def panel_of_targets(
    panel: Axes,
    name: str,
    values: tuple,
    target: Callable,
    exact_bias: Callable,
    steps: prediction.Trajectory,
    truth: Array,
) -> None:
    """Bias and variance of one kind of target, measured and in closed form."""
    bias, variance = bias_variance(target, values, steps, truth)
    draw_parts(panel, name, values, bias, variance)
    known = jnp.square(jax.vmap(exact_bias)(jnp.asarray(values)))[:, 1:-1].mean(-1)
    panel.plot(np.arange(len(values)), known, "k.", label="bias² in closed form")
    panel.legend(frameon=False)
    panel.set_title(f"targets over {name}, V = 0", fontsize="medium")
    print(f"targets over {name}: estimated bias² is within {np.abs(bias - known).max():.4f} of the closed form")


def joined(episodes: prediction.Trajectory) -> prediction.Trajectory:
    """Each seed's episodes ``[seeds, E, T]`` end to end, ``[seeds, steps]``, the padding after the last: a quarter of the work."""
    flat = jax.tree.map(lambda x: np.asarray(x).reshape(len(x), -1), episodes)
    longest = flat.mask.sum(-1).max()
    order = np.argsort(~flat.mask, axis=-1, kind="stable")[:, :longest]
    return jax.tree.map(lambda x: jnp.asarray(np.take_along_axis(x, order, axis=-1)), flat)


def rms(values: Array, truth: Array) -> Array:
    """Root mean squared error over the states that are not terminal."""
    return jnp.sqrt(jnp.mean(jnp.square(values - truth)[1:-1]))


def sweep_errors(estimator: Callable, values: tuple, data: prediction.Trajectory, truth: Array) -> np.ndarray:
    """``[values, alphas]``: RMS error after each episode, averaged over ``data``'s episodes and seeds."""

    @jax.jit
    def errors(data: prediction.Trajectory, value: Array) -> Array:
        # On-line, the error is measured after every step, and those at which an episode ends count.
        weight = data.terminated if data.terminated.ndim == 2 else jnp.ones(data.terminated.shape[:2])

        def run(seed: prediction.Trajectory, alpha: Array) -> Array:
            return estimator(seed, jnp.zeros_like(truth), alpha, GAMMA, value, partial(rms, truth=truth))[1]

        measured = jax.vmap(lambda seed: jax.vmap(partial(run, seed))(jnp.asarray(ALPHAS)))(data)
        errors = jnp.where(weight[:, None] > 0, measured, 0.0).sum((0, 2)) / weight.sum()
        return jnp.where(jnp.isfinite(errors), errors, jnp.inf)  # a large step size may diverge

    return np.stack([errors(data, jnp.asarray(value)) for value in values])


def targets_of(walk: mdps.MDP, policy: Array, truth: Array) -> list[tuple]:
    """(name, values, target, bias in closed form ``[S]``) of n-step and λ-returns from V = 0, whose error is −v.

    A step of the chain carries the error on: the n-step return's bias is P^n (V − v), the λ-return's the average of these.
    """
    size, error = walk.num_states, -truth
    going = (~walk.terminal).astype(jnp.float32)
    chain = jnp.einsum("sa,sat->st", policy, walk.transition) * going[:, None] * going[None]

    def n_step_bias(n: Array) -> Array:
        return jax.lax.fori_loop(0, n, lambda _, e: GAMMA * chain @ e, error)

    def lambda_bias(lambda_: Array) -> Array:
        return (1.0 - lambda_) * jnp.linalg.solve(jnp.eye(size) - GAMMA * lambda_ * chain, GAMMA * chain @ error)

    return [
        ("n", NS, lambda n: partial(returns.n_step_return, gamma=GAMMA, n=n), n_step_bias),
        ("λ", FINE_LAMBDAS, lambda x: partial(returns.lambda_return, gamma=GAMMA, lambda_=x), lambda_bias),
    ]


def bias_variance(
    target: Callable, values: tuple, data: prediction.Trajectory, truth: Array
) -> tuple[np.ndarray, np.ndarray]:
    """Squared bias and variance ``[values]`` of targets after a visit, over all seeds' visits, averaged over the states."""

    @jax.jit
    def parts(data: prediction.Trajectory, value: Array) -> tuple[Array, Array]:
        def per_state(x: Array) -> Array:
            x = jnp.where(data.mask, x, 0.0)
            return jax.ops.segment_sum(x.ravel(), data.state.ravel(), truth.shape[0])

        def goal(steps: prediction.Trajectory) -> Array:
            return target(value)(steps.reward, jnp.zeros_like(steps.reward), steps.terminated, steps.truncated)

        error = jax.vmap(goal)(data) - truth[data.state]
        count = per_state(jnp.ones_like(error))
        bias = per_state(error) / count
        return jnp.square(bias)[1:-1].mean(), (per_state(jnp.square(error)) / count - jnp.square(bias))[1:-1].mean()

    bias, variance = zip(*(parts(data, jnp.asarray(value)) for value in values), strict=True)
    return np.array(bias), np.array(variance)


def learned(
    ns: tuple[int, ...], alpha: float, data: prediction.Trajectory, truth: Array
) -> tuple[np.ndarray, np.ndarray]:
    """Squared bias and variance over seeds of the values that n-step TD has after all episodes, averaged over the states."""

    @jax.jit
    def parts(data: prediction.Trajectory, n: Array) -> tuple[Array, Array]:
        def run(seed: prediction.Trajectory) -> Array:
            return prediction.n_step_td(seed, jnp.zeros_like(truth), alpha, GAMMA, n)[0]

        values = jax.vmap(run)(data)
        return jnp.square(values.mean(0) - truth)[1:-1].mean(), values.var(0)[1:-1].mean()

    bias, variance = zip(*(parts(data, jnp.asarray(n)) for n in ns), strict=True)
    return np.array(bias), np.array(variance)


def draw_errors(panel: Axes, title: str, name: str, values: tuple, errors: np.ndarray) -> None:
    """One line per n or λ over the step size, on the book's axes."""
    colors = colormaps["viridis"](np.linspace(0.0, 0.92, len(values)))
    for value, row, color in zip(values, errors, colors, strict=True):
        panel.plot(ALPHAS, row, color=color, label=f"{name} = {value}")
    panel.set(xlim=(0.0, 1.0), ylim=(0.2, 0.56), xlabel="step size α", ylabel="RMS error")
    panel.set_title(title, fontsize="medium")
    panel.legend(frameon=False, fontsize="x-small", ncols=4, loc="lower right")


def draw_parts(panel: Axes, name: str, values: tuple, bias: np.ndarray, variance: np.ndarray) -> None:
    """Bias², variance and their sum over n or λ."""
    x = np.arange(len(values))
    for y, label, color in ((bias, "bias²", "#0072B2"), (variance, "variance", "#D55E00")):
        panel.plot(x, y, color=color, label=label)
    panel.plot(x, bias + variance, color="#009E73", linestyle="--", label="sum: mean squared error")
    panel.set_xticks(x, [f"{value:g}" for value in values], fontsize="x-small")
    panel.set(xlabel=name, ylabel="mean over states", ylim=(0.0, None))


def save(figure: Figure, path: Path) -> None:
    """As savefig; a PNG with a palette of 64 colours, which lines are none the worse for, takes a third of the space."""
    if path.suffix != ".png":
        figure.savefig(path)
        return
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    cli.run(main, __doc__, Study)
