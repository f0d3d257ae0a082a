"""Why a poor representation breaks PPO's trust region: the toy problem of Moalla et al. 2024, section 5 and figure 5.

Two states x and y whose one frozen feature is aligned, φ(y) = α φ(x); two actions with logits θ_a φ, no bias; advantage 1 of a₁ in
both. Gradient steps on PPO's surrogate alternate between x and y. Where α ≥ 0 a step on either raises both probabilities: the
clipping of the one does not stop the other's steps from carrying it on. Where α < 0 each step undoes some of the other's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cli
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from purejaxrl_ext.analysis import panels
from purejaxrl_ext.rules import ppo


@dataclass(frozen=True)
class Toy:
    """Settings of the toy problem."""

    alphas: tuple[float, ...] = (3.0, -2.0, -1.0)
    """φ(y) / φ(x), one panel each"""
    feature: float = 0.1
    """φ(x)"""
    theta: tuple[float, float] = (0.515, -0.441)
    """θ of the policy that collected the data"""
    learning_rate: float = 1.5
    clip_eps: float = 0.1
    """clip range of the ratio"""
    num_steps: int = 20
    """gradient steps; the first is on x"""
    out: Path = Path("runs/trust_region.png")
    """the figure"""


def log_probability(theta: jax.Array, feature: jax.Array) -> jax.Array:
    """log π(a₁) of one state with logits θ φ."""
    return jax.nn.log_softmax(theta * feature)[0]


def ratios(
    alpha: float, theta: jax.Array, feature: float, learning_rate: float, clip_eps: float, num_steps: int
) -> jax.Array:
    """r(x) and r(y) of a₁ before the first and after each step ``[num_steps + 1, 2]``."""
    features = feature * jnp.array([1.0, alpha])
    old = jax.vmap(log_probability, in_axes=(None, 0))(theta, features)

    def ratio(theta: jax.Array) -> jax.Array:
        return jnp.exp(jax.vmap(log_probability, in_axes=(None, 0))(theta, features) - old)

    def step(theta: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        gradient = jax.grad(lambda t: ppo.surrogate(ratio(t)[state], jnp.ones(()), clip_eps))(theta)
        theta = theta + learning_rate * gradient
        return theta, ratio(theta)

    _, found = jax.lax.scan(step, theta, jnp.arange(num_steps) % 2)
    return jnp.concatenate([jnp.ones((1, 2)), found])


def figure_of(toy: Toy, found: dict[float, np.ndarray]) -> Figure:
    """A panel per α: both ratios against steps, and the clip range."""
    figure = Figure(figsize=(3.4 * len(found), 3.2), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(found), sharey=True)).tolist()
    for panel, (alpha, r) in zip(axes, found.items(), strict=True):
        for i, (state, color) in enumerate(zip("xy", panels.COLORS, strict=False)):
            panel.plot(r[:, i], color=color, label=f"ratio in {state}", linewidth=1.6)
        panel.axhspan(1 - toy.clip_eps, 1 + toy.clip_eps, color="0.9", zorder=0, label="clip range")
        panel.set_xlabel("gradient steps")
        panel.set_title(f"φ(y) = {alpha:g} φ(x)", fontsize="medium")
        panels.dress(panel)
    axes[0].set_ylabel("π(a₁) / π_old(a₁)")
    return panels.finish(figure, axes[0])


def main(toy: Toy) -> None:
    """Compute, print, draw."""
    if toy.num_steps < 1:
        raise ValueError(f"num_steps={toy.num_steps} is not allowed: at least 1")
    settings = (toy.feature, toy.learning_rate, toy.clip_eps, toy.num_steps)
    found = {a: np.asarray(ratios(a, jnp.array(toy.theta), *settings)) for a in toy.alphas}
    print("| α | ratio in x, smallest and largest | in y |\n|--:|:--|:--|")
    for alpha, r in found.items():
        print(f"| {alpha:g} | {r[:, 0].min():.3f}, {r[:, 0].max():.3f} | {r[:, 1].min():.3f}, {r[:, 1].max():.3f} |")
    toy.out.parent.mkdir(parents=True, exist_ok=True)
    figure_of(toy, found).savefig(toy.out, dpi=panels.FILE_DPI)
    print(f"figure: {toy.out}")


if __name__ == "__main__":
    cli.run(main, __doc__, Toy)
