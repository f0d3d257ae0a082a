"""Networks: torsos for vectors and images, and the actor-critic and Q-networks made of them.

Every network maps observations ``[B, ...]`` to an :class:`~purejaxrl_ext.types.Output`, in which the last features and each
hidden layer's pre-activations are kept: PFO's loss and the representation metrics read them, and XLA drops them where nobody does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext import policies
from purejaxrl_ext.types import Array, Output, Representation

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}
INITIALIZERS = ("orthogonal", "fan_in")

Conv = tuple[int, int, int]  # features, kernel size, stride
SMALL_IMAGE: tuple[Conv, ...] = ((16, 3, 1),)  # MinAtar (Young & Tian 2019)
LARGE_IMAGE: tuple[Conv, ...] = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # Atari (Mnih et al. 2015)


def orthogonal(scale: float) -> Callable[..., Array]:
    """Orthogonal initialiser (Saxe et al. 2014), one seed's QR factorisation after another under vmap.

    jaxlib 0.10.2 can hang on a machine of few cores in batched QR: each waits for its own sub-tasks on a pool of as many
    threads as cores.
    """

    def init(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        @jax.custom_batching.sequential_vmap
        def draw(data: Array) -> Array:
            return jax.nn.initializers.orthogonal(scale)(jax.random.wrap_key_data(data, impl=impl), shape, dtype)

        impl = jax.random.key_impl(key)
        return draw(jax.random.key_data(key))

    return init


def fan_in_uniform(fan_in: int) -> Callable[..., Array]:
    """U(−1/√fan_in, 1/√fan_in), for weights and biases (PyTorch's default, and so the PFO paper's)."""
    bound = 1.0 / np.sqrt(fan_in)

    def init(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def initializers(kind: str, fan_in: int, scale: float) -> dict[str, Any]:
    """Weight and bias initialisers; ``scale`` is that of the orthogonal kind, the other has none."""
    if kind == "orthogonal":
        return {"kernel_init": orthogonal(scale), "bias_init": nn.initializers.zeros_init()}
    return {"kernel_init": fan_in_uniform(fan_in), "bias_init": fan_in_uniform(fan_in)}


class PatchConv(nn.Module):
    """A convolution without padding, as concatenated patches times a matrix; parameters as those of ``nn.Conv``.

    XLA on CPUs runs convolutions inside a scan, or vmapped over kernels as here over seeds, 10 to 16 times slower than
    this; vmapped over kernels, a GPU too gets a batched matrix product instead of a grouped convolution.
    """

    features: int
    kernel_size: int
    stride: int
    kernel_init: Callable[..., Array]
    bias_init: Callable[..., Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        height, width, channels = x.shape[-3:]
        size, stride = self.kernel_size, self.stride
        rows, columns = (height - size) // stride + 1, (width - size) // stride + 1
        kernel = self.param("kernel", self.kernel_init, (size, size, channels, self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        patches = [
            x[..., i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride, :]
            for i in range(size)
            for j in range(size)
        ]
        flat = jnp.concatenate(patches, axis=-1).reshape(-1, size * size * channels).astype(jnp.float32)
        y = flat @ kernel.reshape(size * size * channels, self.features) + bias[None]
        return y.reshape(x.shape[0], rows, columns, self.features)


class Torso(nn.Module):
    """Hidden layers: convolutions for images (three axes), then dense layers; each linear, (LayerNorm,) activation.

    Attributes:
        hidden_sizes: widths of the dense layers.
        conv_layers: (features, kernel size, stride) of each convolution; used for images alone.
        activation: a name in ``ACTIVATIONS``.
        initializer: ``"orthogonal"`` (√2, zero biases) or ``"fan_in"``.
        layer_norm: normalise before each activation; the pre-activations are then the normalised ones.
    """

    hidden_sizes: tuple[int, ...]
    conv_layers: tuple[Conv, ...] = ()
    activation: str = "tanh"
    initializer: str = "orthogonal"
    layer_norm: bool = False

    @nn.compact
    def __call__(self, obs: Array) -> Representation:
        # Bool planes stay bool up to the first matrix product: an eighth of the memory to move.
        x = obs.astype(jnp.float32) / 255.0 if obs.dtype == jnp.uint8 else obs
        preactivations = []

        def activate(x: Array) -> Array:
            if self.layer_norm:
                x = nn.LayerNorm()(x)
            preactivations.append(x.reshape(x.shape[0], -1))
            return ACTIVATIONS[self.activation](x)

        for features, kernel_size, stride in self.conv_layers if obs.ndim == 4 else ():
            init = initializers(self.initializer, kernel_size**2 * x.shape[-1], np.sqrt(2.0))
            x = activate(PatchConv(features, kernel_size, stride, **init)(x))
        x = x.reshape(x.shape[0], -1).astype(jnp.float32)
        for size in self.hidden_sizes:
            x = activate(nn.Dense(size, **initializers(self.initializer, x.shape[-1], np.sqrt(2.0)))(x))
        return Representation(features=x, preactivations=tuple(preactivations))


class ActorCritic(nn.Module):
    """A policy and a state value, on torsos of their own or a shared one.

    Attributes:
        num_actions: number of discrete actions, or of an action's entries.
        policy: ``"categorical"``, ``"gaussian"`` (scale a parameter, independent of the state) or ``"tanh_gaussian"``
            (scale a softplus of the features).
        torso: makes a torso, ``(name=...) -> module``.
        shared_torso: one torso for both.
        initializer: as in :class:`Torso`; orthogonal heads have scale 0.01 (policy) and 1 (value).
    """

    num_actions: int
    policy: str
    torso: Torso
    shared_torso: bool = False
    initializer: str = "orthogonal"

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what has hidden layers of its own: the policy's first, the value's last."""
        return ("shared",) if self.shared_torso else ("actor", "critic")

    @nn.compact
    def __call__(self, obs: Array) -> Output:
        seen = [self.torso.clone(parent=self, name=f"{part}_torso")(obs) for part in self.parts]
        return self._heads(seen[0], seen[-1])

    def _heads(self, actor: Representation, critic: Representation) -> Output:
        return Output(
            policy=self._policy(actor.features),
            value=self._linear(1, 1.0, "critic_head", critic.features)[..., 0],
            actor=actor,
            critic=critic,
        )

    def _linear(self, size: int, scale: float, name: str, x: Array) -> Array:
        return nn.Dense(size, **initializers(self.initializer, x.shape[-1], scale), name=name)(x)

    def _policy(self, features: Array) -> Any:
        if self.policy == "tanh_gaussian":
            both = self._linear(2 * self.num_actions, 0.01, "actor_head", features)
            loc, raw = jnp.split(both, 2, axis=-1)
            # Softplus shifted to be 1 at 0; bounded below so that a density cannot become a spike.
            return policies.TanhGaussian(loc, jnp.maximum(jax.nn.softplus(raw + np.log(np.e - 1.0)), 1e-4))
        out = self._linear(self.num_actions, 0.01, "actor_head", features)
        if self.policy == "categorical":
            return policies.Categorical(out)
        log_scale = self.param("actor_log_scale", nn.initializers.zeros_init(), (self.num_actions,))
        return policies.Gaussian(out, jnp.exp(jnp.broadcast_to(log_scale[None], out.shape)))


class GRU(nn.Module):
    """Gated recurrent units (Cho et al. 2014), as flax and cuDNN have them: the reset gate after the recurrent product.

        r = σ(W_r x + b_r + U_r h),  z = σ(W_z x + b_z + U_z h)
        n = W_n x + b_n + r (U_n h + c)
        h ← (1 − z) tanh(n) + z h

    The W x of a whole sequence are one matrix product, so that a step costs one more, U h.
    """

    size: int
    initializer: str = "orthogonal"

    @nn.compact
    def __call__(self, x: Array, carry: Array, start: Array) -> tuple[Array, Array, Array]:
        """A sequence ``[T, N, F]`` from ``carry [N, H]``, which is set to 0 before each step where ``start [T, N]``.

        Returns:
            the hidden state after it ``[N, H]``, those after each step ``[T, N, H]``, and the pre-activations that made
            each, r's, z's and n side by side, ``[T, N, 3H]``.
        """
        size, shape = self.size, (x.shape[-1], 3 * self.size)
        inner = initializers(self.initializer, size, 1.0)
        bias = self.param("bias", inner["bias_init"], (3 * size,))
        projected = x @ self.param("input_kernel", _by_gate(inner["kernel_init"]), shape) + bias[None, None]
        kernel = self.param("hidden_kernel", _by_gate(inner["kernel_init"]), (size, 3 * size))
        candidate_bias = self.param("candidate_bias", inner["bias_init"], (size,))

        def step(hidden: Array, now: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
            x_t, start_t = now
            hidden = jnp.where(start_t[:, None], 0.0, hidden)
            recurrent = hidden @ kernel
            gates = x_t[:, : 2 * size] + recurrent[:, : 2 * size]
            r, z = jnp.split(jax.nn.sigmoid(gates), 2, axis=-1)
            n = x_t[:, 2 * size :] + r * (recurrent[:, 2 * size :] + candidate_bias[None])
            hidden = (1.0 - z) * jnp.tanh(n) + z * hidden
            return hidden, (hidden, jnp.concatenate([gates, n], axis=-1))

        last, (hidden, preactivations) = jax.lax.scan(step, carry, (projected, start))
        return last, hidden, preactivations


def _by_gate(init: Callable[..., Array]) -> Callable[..., Array]:
    """Each of three gates' matrices drawn on its own."""

    def draw(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        keys = jax.random.split(key, 3)
        return jnp.concatenate([init(k, (shape[0], shape[1] // 3), dtype) for k in keys], axis=-1)

    return draw


class RecurrentActorCritic(ActorCritic):
    """A policy and a state value that remember: hidden layers, then a :class:`GRU` each, then the heads.

    Observations are sequences ``[T, N, ...]``, as :class:`~purejaxrl_ext.memory.Recurrent` has them. The last features are
    the hidden states, and the last pre-activations all of those of gates and candidate, since they determine it: what
    drifts there, PFO's penalty sees.

    Attributes:
        memory_size: units.
    """

    memory_size: int = 64

    def initial_carry(self, num_envs: int) -> dict[str, Array]:
        return {part: jnp.zeros((num_envs, self.memory_size)) for part in self.parts}

    @nn.compact
    def __call__(self, obs: Array, carry: dict[str, Array], start: Array) -> tuple[dict[str, Array], Output]:  # type: ignore[override]
        lead = obs.shape[:2]
        after, seen = {}, []
        for part in self.parts:
            below = self.torso.clone(parent=self, name=f"{part}_torso")(obs.reshape(-1, *obs.shape[2:]))
            gru = GRU(self.memory_size, self.initializer, name=f"{part}_memory")
            features = below.features.reshape(*lead, -1)
            after[part], hidden, preactivations = gru(features, carry[part], start)
            hidden, preactivations = (x.reshape(-1, x.shape[-1]) for x in (hidden, preactivations))
            seen.append(Representation(hidden, (*below.preactivations, preactivations)))
        output = self._heads(seen[0], seen[-1])
        return after, jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), output)


class QNetwork(nn.Module):
    """Action values of every action.

    Attributes:
        num_actions: A.
        torso: hidden layers.
        dueling: Q(s, a) = V(s) + A(s, a) − mean_a A(s, a) (Wang et al. 2016, eq. 9).
        initializer: as in :class:`Torso`; orthogonal heads have scale 1.
    """

    num_actions: int
    torso: Torso
    dueling: bool = False
    initializer: str = "orthogonal"

    @nn.compact
    def __call__(self, obs: Array) -> Output:
        critic = self.torso.clone(parent=self, name="critic_torso")(obs)
        init = initializers(self.initializer, critic.features.shape[-1], 1.0)
        q_values = nn.Dense(self.num_actions, **init, name="critic_head")(critic.features)
        if self.dueling:
            value = nn.Dense(1, **init, name="critic_value_head")(critic.features)
            q_values = value + q_values - q_values.mean(axis=-1, keepdims=True)
        return Output(q_values=q_values, critic=critic)


def parameter_group(name: str) -> str:
    """Which network a top-level parameter collection of :class:`ActorCritic` belongs to: ``actor``, ``critic`` or itself."""
    return name.split("_")[0] if name.startswith(("actor_", "critic_")) else name
