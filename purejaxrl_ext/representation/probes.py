"""Probes of plasticity and curvature: what a run could still learn, and how steep its loss is. For ``probes=`` of a sweep.

    prx.sweep(ppo, ..., probes={"capacity": probes.CapacityLoss(4000, 64, 4), "targets": probes.TargetFit()}, probe_every=...)

Each is of one run, and vmapped over all; none changes it. Those that fit begin each time with the run's weights and a fresh Adam at
the run's learning rate and betas, constant, clipped at 0.5.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from purejaxrl_ext.errors import check
from purejaxrl_ext.networks import policies
from purejaxrl_ext.representation.metrics import pca_rank, singular_values
from purejaxrl_ext.types import Algorithm, Array, Metrics, Output, PyTree, State

MAX_GRAD_NORM = 0.5


@dataclass(frozen=True)
class CapacityLoss:
    """Capacity loss (Moalla et al. 2024, appendix; after Lyle et al. 2022): how well an agent's weights can still be taught.

    The states are those of an initial policy, the targets what another initial network says of them, both the same for all runs and
    updates; of actor and critic each, on their own copy of the weights (which unshares a trunk),

        ``actor_capacity_loss``   KL(target ‖ π_θ)         ``critic_capacity_loss``   (V_θ − target)², action values of all actions

    of the last minibatch before its own step. The paper has 41 points, one per 2.5% of training, on 36,000 states in minibatches of
    256 once (Atari), or 4,000 in those of 64 four times (MuJoCo).

    Attributes:
        num_samples: states.
        batch_size, num_epochs: of the fit.
    """

    num_samples: int = 4000
    batch_size: int = 64
    num_epochs: int = 4

    def __call__(self, algorithm: Algorithm, state: State, key: Array, hparams: PyTree) -> Metrics:
        fixed = jax.random.split(jax.random.key(0), 3)
        obs = initial_states(algorithm, state, fixed[0], hparams, self.num_samples)
        target = network_of(algorithm).apply(algorithm.loop.net.init(fixed[1]), obs)
        orders = jax.vmap(lambda k: jax.random.permutation(k, len(obs)))(jax.random.split(fixed[2], self.num_epochs))
        fitted = functools.partial(fit, algorithm, state.params, hparams, obs, target, batches(orders, self.batch_size))
        logged = {"critic_capacity_loss": fitted(value_error)}
        return logged | ({"actor_capacity_loss": fitted(policy_error)} if target.policy != () else {})


@dataclass(frozen=True)
class TargetFit:
    """Plasticity as Lyle et al. 2023 (arXiv 2303.01486) probe it: the error left after fitting targets that nothing in the weights
    foretells, sin(10⁵ f(s)) for a fresh network f, around f's mean.

    ``target_error`` of values (action values), on states as of :class:`CapacityLoss`.

    Attributes:
        num_samples, batch_size, num_epochs: as there.
    """

    num_samples: int = 1024
    batch_size: int = 64
    num_epochs: int = 4

    def __call__(self, algorithm: Algorithm, state: State, key: Array, hparams: PyTree) -> Metrics:
        fixed = jax.random.split(jax.random.key(1), 3)
        obs = initial_states(algorithm, state, fixed[0], hparams, self.num_samples)
        fresh = network_of(algorithm).apply(algorithm.loop.net.init(fixed[1]), obs)
        name = value_name(fresh)
        values = getattr(fresh, name)
        target = fresh.replace(**{name: values.mean() + jnp.sin(1e5 * values)})
        orders = jax.vmap(lambda k: jax.random.permutation(k, len(obs)))(jax.random.split(fixed[2], self.num_epochs))
        steps = batches(orders, self.batch_size)
        return {"target_error": fit(algorithm, state.params, hparams, obs, target, steps, value_error)}


@dataclass(frozen=True)
class Curvature:
    """``hessian_norm``: the eigenvalue of largest size of the Hessian of the rule's loss, on data that the run collects now.

    By power iteration on products with vectors (Pearlmutter 1994); of the on-policy loop.

    Attributes:
        num_iterations: of it.
    """

    num_iterations: int = 20

    def __call__(self, algorithm: Algorithm, state: State, key: Array, hparams: PyTree) -> Metrics:
        samples = on_policy_samples(algorithm, state, key, hparams)

        def slope(params: PyTree) -> PyTree:
            return jax.grad(lambda p: algorithm.loop.net.loss(p, samples, _f32(hparams))[0])(params)

        return {"hessian_norm": largest_eigenvalue(slope, state.params, key, self.num_iterations)}


@dataclass(frozen=True)
class TangentKernel:
    """``critic_ntk_rank``, and ``actor_ntk_rank`` where there is a policy: of the empirical neural tangent kernel

        K_ij = Σ_a ⟨∂f_a(s_i)/∂θ, ∂f_a(s_j)/∂θ⟩        f the value, the action values, or the policy's parameters

    the smallest k whose eigenvalues hold 99% of its trace (Lyle et al. 2024, arXiv 2402.18762, look at its condition likewise).

    Attributes:
        num_samples: states, as of :class:`CapacityLoss`; at most 128 or so, as a gradient is held of each.
    """

    num_samples: int = 64

    def __call__(self, algorithm: Algorithm, state: State, key: Array, hparams: PyTree) -> Metrics:
        obs = initial_states(algorithm, state, jax.random.key(2), hparams, self.num_samples)
        network = network_of(algorithm)

        def said(which: str, params: PyTree, one: Array) -> Array:
            output = network.apply(params, one[None])
            part = output.policy if which == "actor" else getattr(output, value_name(output))
            return jnp.concatenate([x.ravel() for x in jax.tree.leaves(part)])

        names = ["critic"] + ["actor"] * (jax.eval_shape(network.apply, state.params, obs).policy != ())
        return {f"{n}_ntk_rank": ntk_rank(functools.partial(said, n), state.params, obs) for n in names}


def initial_states(algorithm: Algorithm, state: State, key: Array, hparams: PyTree, count: int) -> Array:
    """``[count, ...]`` observations, as the network is given them, of an initial policy (of a replay: of random actions);
    normalised by the run's statistics."""
    loop, init_key = algorithm.loop, jax.random.fold_in(key, 0)
    fresh = loop.init(init_key, hparams).replace(normalizer=state.normalizer)
    if not hasattr(loop, "look_back"):
        obs = loop.sample(fresh, key).batch.obs
        return obs[jnp.arange(count) % len(obs)]

    def more(at: State, k: Array) -> tuple[State, Array]:
        after, rollout, _ = loop.collect(at, _f32(hparams), tuple(jax.random.split(k, 3)), jnp.zeros(()))
        return after.replace(normalizer=state.normalizer), rollout.obs.reshape(-1, *rollout.obs.shape[2:])

    rounds = -(-count // loop.steps_per_update)
    _, obs = jax.lax.scan(more, fresh, jax.random.split(key, rounds))
    return obs.reshape(-1, *obs.shape[2:])[:count]


def on_policy_samples(algorithm: Algorithm, state: State, key: Array, hparams: PyTree) -> PyTree:
    """One rollout of the run as it is, with its targets, as ``net.loss`` takes it."""
    loop, hparams = algorithm.loop, _f32(hparams)
    check(hasattr(loop, "look_back"), "probes", "Curvature", "used with an on-policy algorithm")
    env_steps = state.update.astype(jnp.float32) * loop.steps_per_update
    first = state.carry
    _, rollout, seen = loop.collect(state, hparams, tuple(jax.random.split(key, 3)), env_steps)
    return loop.agent.samples(loop.rule.targets(rollout, hparams), seen.start, first)


def network_of(algorithm: Algorithm) -> Any:
    """The network, which must have no memory: a state alone says nothing to one that has."""
    network = algorithm.network
    has_memory = hasattr(network, "initial_carry")
    check(not has_memory, "probes", type(network).__name__, "used with a network without a memory")
    return network


def batches(orders: Array, size: int) -> Array:
    """``[steps, size]`` indices of whole minibatches, of orders ``[epochs, samples]``."""
    whole = orders.shape[1] // size
    check(whole > 0, "batch_size", size, f"at most the number of samples, {orders.shape[1]}")
    return orders[:, : whole * size].reshape(-1, size)


def fit(
    algorithm: Algorithm,
    params: PyTree,
    hparams: PyTree,
    obs: Array,
    target: Output,
    indices: Array,
    error: Callable[[Output, Output], Array],
) -> Array:
    """The error of the last minibatch before its own step, of weights that are fitted to ``target`` from ``params`` on."""
    transform = optax.chain(
        optax.clip_by_global_norm(MAX_GRAD_NORM),
        optax.adam(hparams.learning_rate, hparams.adam_b1, hparams.adam_b2, hparams.adam_eps),
    )
    network = network_of(algorithm)

    def step(carry: tuple, index: Array) -> tuple[tuple, Array]:
        params, opt_state = carry
        part, aim = jax.tree.map(lambda x: x[index], (obs, target))
        value, grads = jax.value_and_grad(lambda p: error(network.apply(p, part), aim))(params)
        updates, opt_state = transform.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    return jax.lax.scan(step, (params, transform.init(params)), indices)[1][-1]


def value_name(output: Output) -> str:
    """What of an Output says what states are worth."""
    return "q_values" if isinstance(output.q_values, jax.Array | jax.ShapeDtypeStruct) else "value"


def value_error(now: Output, target: Output) -> Array:
    """Mean squared error of values, or of action values."""
    name = value_name(now)
    return jnp.square(getattr(now, name) - getattr(target, name)).mean()


def policy_error(now: Output, target: Output) -> Array:
    """Mean KL(target ‖ π)."""
    return policies.kl_divergence(target.policy, now.policy).mean()


def largest_eigenvalue(slope: Callable[[PyTree], PyTree], params: PyTree, key: Array, num_iterations: int) -> Array:
    """The eigenvalue of largest size, with its sign, of the derivative of ``slope`` at ``params``, if that is symmetric."""

    def unit(v: PyTree) -> PyTree:
        length = optax.tree.norm(v) + 1e-30
        return jax.tree.map(lambda x: x / length, v)

    def product(v: PyTree) -> PyTree:
        return jax.jvp(slope, (params,), (v,))[1]

    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    first = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    v = jax.lax.fori_loop(0, num_iterations, lambda _, v: unit(product(v)), unit(jax.tree.unflatten(structure, first)))
    return optax.tree.vdot(v, product(v))


def ntk_rank(said: Callable[[PyTree, Array], Array], params: PyTree, obs: Array) -> Array:
    """The rank of K ``[N, N]`` of the outputs ``said(params, one)`` ``[A]`` of ``obs [N, ...]``."""
    jacobian = jax.vmap(jax.jacrev(said), in_axes=(None, 0))(params, obs)
    flat = [x.reshape(*x.shape[:2], -1) for x in jax.tree.leaves(jacobian)]
    kernel = functools.reduce(jnp.add, [jnp.einsum("iap,jap->ij", x, x) for x in flat])
    # Eigenvalues of K are squares of singular values of the gradients: of K's own, their roots' rule.
    return pca_rank(jnp.sqrt(singular_values(kernel)))


def _f32(hparams: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hparams)
