"""What the variables of a sweep's dataset are, in words and units, for figures' axes and whoever is given the file."""

from __future__ import annotations

# Of an update unless said otherwise. Units: "1" is a pure number.
VARIABLES = {
    "arm": ("arm", ""),
    "seed": ("seed", ""),
    "update": ("update", "updates"),
    "env_step": ("environment steps so far", "steps"),
    "diverged_at": ("first update whose loss or parameters were not finite", "updates"),
    "episode_return": ("mean return of the episodes that ended", "reward"),
    "episode_length": ("mean length of the episodes that ended", "steps"),
    "num_episodes": ("episodes that ended", "episodes"),
    "eval_return": ("mean return of greedy episodes", "reward"),
    "value": ("mean estimated value", "reward"),
    "value_std": ("standard deviation of estimated values", "reward"),
    "td_error": ("mean absolute TD error", "reward"),
    "loss": ("loss", "1"),
    "policy_loss": ("policy loss", "1"),
    "value_loss": ("value loss", "1"),
    "feature_loss": ("drift of the features from those before the update", "1"),
    "entropy": ("policy entropy", "nats"),
    "approx_kl": ("estimated KL divergence of the policy from the one before the update", "nats"),
    "kl": ("KL divergence of the policy from the one before the update", "nats"),
    "minibatches_skipped": ("minibatches skipped after the KL stop", "minibatches"),
    "clip_fraction": ("fraction of samples whose ratio is clipped", "1"),
    "ratio_above": ("mean probability ratio of samples above the clip range", "1"),
    "ratio_below": ("mean probability ratio of samples below the clip range", "1"),
    "grad_norm": ("gradient norm before clipping", "1"),
    "actor_grad_norm": ("actor's gradient norm before clipping", "1"),
    "critic_grad_norm": ("critic's gradient norm before clipping", "1"),
    "policy_variance": ("variance of the policy", "1"),
}
# Of one network's last hidden layer.
FEATURES = {
    "rank": ("PCA rank", "dimensions"),
    "effective_rank": ("effective rank", "dimensions"),
    "srank": ("srank", "dimensions"),
    "feature_rank": ("feature rank", "dimensions"),
    "numerical_rank": ("numerical rank", "dimensions"),
    "dead_units": ("dead units", "units"),
    "preactivation_norm": ("norm of the pre-activations", "1"),
}


def described(name: str) -> dict[str, str]:
    """``long_name``, and ``units`` where they are known, of a metric or coordinate; of an unknown one its name in words."""
    start = name.removesuffix("_end")
    network, _, feature = start.partition("_")
    if start in VARIABLES:
        words, units = VARIABLES[start]
    elif network in ("actor", "critic") and feature in FEATURES:
        words, units = FEATURES[feature]
        words = f"{words} of the {network}'s features"
    else:
        return {"long_name": name.replace("_", " ")}
    words += "" if start == name else ", after the update's epochs"
    return {"long_name": words} | ({"units": units} if units else {})
