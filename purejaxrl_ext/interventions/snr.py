"""Self-normalised resets (Farias & Jozefiak 2024, arXiv 2410.20098): a unit begins anew when its silence is unlikely by its past.

    (1 − p_i)^a_i ≤ η      a_i samples since unit i last spoke (h_i > 0, anywhere in an image), p_i the share in which it has spoken
    incoming weights, bias, scale ← fresh ones;  outgoing weights ← 0;  moments, step counts and p_i, a_i ← 0

at the end of each update, on a sample of its data, in order. The paper compares a_i with the 1 − η quantile of the times between a
unit's words; here their distribution is taken as geometric. One that never spoke is judged by its layer's mean share. ``snr_eta``
is η; 0: never. For activations with a silent side, such as ReLU.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from purejaxrl_ext.interventions import moments
from purejaxrl_ext.interventions.base import Context, Intervention
from purejaxrl_ext.networks.structure import get, put, unit_outputs
from purejaxrl_ext.types import Array, Learner, Metrics, Net, PyTree, hparam


class Speech(NamedTuple):
    """What is kept of the units of a kernel, ``[F]`` each: samples in which they spoke, samples seen, and samples since a word."""

    spoken: Array
    seen: Array
    silent: Array


def begin(key: Array, params: PyTree) -> PyTree:
    """:class:`Speech` of every weight of two axes or more."""

    def first(w: Array) -> Speech:
        return Speech(*(jnp.zeros(w.shape[-1]) for _ in range(3))) if w.ndim >= 2 else ()  # type: ignore[return-value]

    return jax.tree.map(first, params)


def heard(speech: Speech, said: Array) -> Speech:
    """After more samples ``[B, P, F]``."""
    speaks = (said > 0).any(1)
    count = len(speaks)
    since = jnp.argmax(speaks[::-1], axis=0).astype(jnp.float32)
    silent = jnp.where(speaks.any(0), since, speech.silent + count)
    return Speech(speech.spoken + speaks.sum(0), speech.seen + count, silent)


def fallen_silent(speech: Speech, eta: Array) -> Array:
    """``[F]``: whether (1 − p)^a ≤ η."""
    share = speech.spoken / speech.seen
    share = jnp.where(speech.spoken > 0, share, share.mean())
    return (speech.silent > 0) & (speech.silent * jnp.log1p(-share) <= jnp.log(eta))


def reset(net: Net, learner: Learner, samples: PyTree, context: Context) -> tuple[Learner, Metrics]:
    """Begin units anew that have fallen silent; ``snr_units``: how many."""
    params, found, memory, chosen = learner.params, net.layers(learner.params), learner.memory, []
    said = unit_outputs(net.evaluate(params, samples)[0], found, params)
    for layer, spoken in zip(found, said, strict=True):
        speech = heard(get(memory, layer.kernel), spoken)
        which = fallen_silent(speech, context.hparams.snr_eta)
        memory = put(memory, layer.kernel, Speech(*(jnp.where(which, 0.0, x) for x in speech)))
        chosen.append(which)
    learner = moments.renew_units(net, learner.replace(memory=memory), context.key, found, chosen)
    return learner, {"snr_units": moments.count(chosen).astype(jnp.float32)}


SNR = Intervention("snr", {"snr_eta": hparam(0.01, 0.0, 1.0)}, init=begin, after=reset, optimizer=moments.aged)
