"""Wrong answers to notebook 07's exercises."""

import jax.numpy as jnp


def _rank_of(features, power):
    mass = jnp.linalg.svd(features, compute_uv=False) ** power
    return 1 + jnp.sum(jnp.cumsum(mass) / mass.sum() < 0.99)


def _of_plain_singular_values(features):
    return _rank_of(features, 1)


def _centred(features):
    return _rank_of(features - features.mean(0)[None], 2)


def _one_too_few(features):
    return _rank_of(features, 2) - 1


def _not_always_alive(features):
    return jnp.sum(jnp.any(features == 0.0, axis=0))


def _constant(features):
    return jnp.sum(features.std(0) < 1e-3)


def _silent_samples(features):
    return jnp.sum(jnp.all(features == 0.0, axis=1))


def _summed(ppo_loss, preactivation, old_preactivation, feature_coef):
    return ppo_loss + feature_coef * jnp.sum((preactivation - old_preactivation) ** 2)


def _summed_over_dimensions(ppo_loss, preactivation, old_preactivation, feature_coef):
    return ppo_loss + feature_coef * jnp.sum((preactivation - old_preactivation) ** 2, axis=-1).mean()


def _rewarded(ppo_loss, preactivation, old_preactivation, feature_coef):
    return ppo_loss - feature_coef * jnp.mean((preactivation - old_preactivation) ** 2)


MISTAKES = {
    "pca_rank": [_of_plain_singular_values, _centred, _one_too_few],
    "dead_units": [_not_always_alive, _constant, _silent_samples],
    "feature_penalty": [_summed, _summed_over_dimensions, _rewarded],
}
