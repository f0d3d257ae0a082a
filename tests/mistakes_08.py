"""Wrong answers to notebook 08's exercises."""

import jax.numpy as jnp


def _without_two(params, average, coef):
    return coef * (params - average)


def _away(params, average, coef):
    return 2.0 * coef * (average - params)


def _to_zero(params, average, coef):
    return 2.0 * coef * params


def _chosen_on_all(scores):
    chosen = scores.mean(axis=1).argmax()
    return jnp.stack([chosen, scores[chosen, 1::2].mean()])


def _reported_where_chosen(scores):
    chosen = scores[:, ::2].mean(axis=1).argmax()
    return jnp.stack([chosen, scores[chosen, ::2].mean()])


def _reported_on_all(scores):
    chosen = scores[:, ::2].mean(axis=1).argmax()
    return jnp.stack([chosen, scores[chosen].mean()])


def _best_of_the_others(scores):
    return jnp.stack([scores[:, ::2].mean(axis=1).argmax(), scores[:, 1::2].mean(axis=1).max()])


def _ties_count_nothing(x, y):
    return (x[:, None] > y[None]).mean()


def _ties_are_won(x, y):
    return (x[:, None] >= y[None]).mean()


def _of_means(x, y):
    return 1.0 * (x.mean() > y.mean())


MISTAKES = {
    "pull_gradient": [_without_two, _away, _to_zero],
    "choose_and_report": [_chosen_on_all, _reported_where_chosen, _reported_on_all, _best_of_the_others],
    "probability_better": [_ties_count_nothing, _ties_are_won, _of_means],
}
