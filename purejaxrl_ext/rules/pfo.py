"""PFO: Proximal Feature Optimization (Moalla et al. 2024), PPO with its features kept near those that collected the data.

    drift     D = E[ (φ_θ(s) − φ_old(s))² ], φ the pre-activations of the actor's last hidden layer      (section 5)
    loss      L = L_PPO + c D

The paper's equation sums over φ's dimensions; its code takes the mean over dimensions and minibatch, and so does this.
With c = 0 it is PPO, bit for bit (with all three variants at once, to the last bits: XLA then fuses the loss another way).
Variants, by Config:

    feature_layers     "last", or "all": every hidden layer's pre-activations, concatenated, one mean
    feature_part       "preactivation", or "feature": φ is what the activation made of them
    feature_distance   "squared", or "cosine": 1 − cos(φ_θ(s), φ_old(s))
    feature_networks   "actor", or "both": the critic's drift is added
    feature_mode       "penalty", or "clip": no penalty; a sample whose drift exceeds ``feature_clip`` has weight 0 in the
                       policy's loss (with c = 0: none has). With "both" the critic's drift gates the value's loss likewise

A shared torso's drift is counted once, and gates both losses.
"""

from __future__ import annotations

import functools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from purejaxrl_ext.rules import ppo
from purejaxrl_ext.types import Array, Metrics, Output, Representation, Rule, hparam


class PFOHparams(ppo.PPOHparams):
    """PPO's settings and the two of PFO.

    Attributes:
        feature_coef: c. The paper: Atari 1 (last) or 10 (all), MuJoCo 1 (tanh) or 10 (ReLU).
        feature_clip: the drift of a sample beyond which ``feature_mode="clip"`` acts.
    """

    feature_coef: Any = hparam(1.0, 0.0)
    feature_clip: Any = hparam(0.1, 0.0)


def drift(
    new: Representation,
    old: Representation,
    *,
    layers: str = "last",
    distance: str = "squared",
    part: str = "preactivation",
) -> Array:
    """How far each sample's pre-activations (or last features) have moved ``[B]``; 0 at the old parameters.

    "squared" is the mean over dimensions of (φ − φ_old)²; "cosine" is 1 − φ·φ_old / (‖φ‖ ‖φ_old‖).
    """
    for representation in (new, old):
        if not isinstance(representation, Representation):
            raise ValueError(
                "PFO needs a network whose Output holds Representations: its features are what is kept near"
            )
    first = -1 if layers == "last" else 0
    moved, reference = (
        r.features if part == "feature" else jnp.concatenate(r.preactivations[first:], axis=-1) for r in (new, old)
    )
    if distance == "squared":
        return jnp.square(moved - reference).mean(axis=-1)
    # ε inside the root keeps the gradient at a zero vector finite.
    norms = jnp.sqrt(jnp.sum(jnp.square(moved), -1) * jnp.sum(jnp.square(reference), -1) + 1e-12)
    return 1.0 - jnp.sum(moved * reference, axis=-1) / norms


def loss(
    output: Output,
    batch: ppo.PPOBatch,
    hparams: PFOHparams,
    *,
    layers: str = "last",
    distance: str = "squared",
    part: str = "preactivation",
    networks: str = "actor",
    mode: str = "penalty",
    **ppo_options: Any,
) -> tuple[Array, Metrics]:
    """PPO's loss with the feature drift in it; metrics are PPO's and ``feature_loss``, the mean drift D.

    ``networks="shared"`` says that actor and critic have one representation: its drift counts once, and gates both.
    """
    measure = partial(drift, layers=layers, distance=distance, part=part)
    drifts = [measure(output.actor, batch.old.actor)]
    if networks == "both":
        drifts.append(measure(output.critic, batch.old.critic))
    penalty = functools.reduce(jnp.add, [d.mean() for d in drifts])
    if mode == "clip":
        acts = hparams.feature_coef > 0
        kept = [1.0 - jax.lax.stop_gradient((d > hparams.feature_clip) & acts).astype(jnp.float32) for d in drifts]
        gates = {"weight": kept[0]} | ({"value_weight": kept[-1]} if networks != "actor" else {})
        total, metrics = ppo.loss(output, batch, hparams, **gates, **ppo_options)
    else:
        total, metrics = ppo.loss(output, batch, hparams, **ppo_options)
        total = total + hparams.feature_coef * penalty
    return total, metrics | {"feature_loss": penalty}


def rule(config: Any, action_space: Any) -> Rule:
    """PPO's rule with its loss replaced."""
    # One representation that serves both networks.
    networks = "shared" if config.shared_torso and config.feature_networks == "both" else config.feature_networks
    return ppo.rule(config, action_space)._replace(
        loss=partial(
            loss,
            layers=config.feature_layers,
            distance=config.feature_distance,
            part=config.feature_part,
            networks=networks,
            mode=config.feature_mode,
            normalize_advantage=config.normalize_advantage == "minibatch",
        )
    )
