"""Torsos: the hidden layers of vectors and images.

A torso keeps the last features and each hidden layer's pre-activations: PFO's loss and the representation metrics read them,
and XLA drops them where nobody does.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.errors import unknown_name
from purejaxrl_ext.networks import short_axis
from purejaxrl_ext.networks.init import initializers
from purejaxrl_ext.types import Array, Representation

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}

Conv = tuple[int, int, int]  # features, kernel size, stride
SMALL_IMAGE: tuple[Conv, ...] = ((16, 3, 1),)  # MinAtar (Young & Tian 2019)
LARGE_IMAGE: tuple[Conv, ...] = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # Atari (Mnih et al. 2015)


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
        kernel = self.param("kernel", self.kernel_init, (size, size, channels, self.features), jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
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
        initializer: ``"orthogonal"`` (√2, zero biases), ``"fan_in"`` or ``"he_normal"``.
        layer_norm: normalise before each activation; the pre-activations are then the normalised ones.
    """

    hidden_sizes: tuple[int, ...]
    conv_layers: tuple[Conv, ...] = ()
    activation: str = "tanh"
    initializer: str = "orthogonal"
    layer_norm: bool = False

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            more = "A function gets a name by purejaxrl_ext.networks.ACTIVATIONS[name] = function."
            raise ValueError(unknown_name("activation", str(self.activation), ACTIVATIONS, more))
        super().__post_init__()

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
            init = initializers(self.initializer, x.shape[-1], np.sqrt(2.0))
            x = activate(nn.Dense(size, dot_general=short_axis.product, **init)(x))
        return Representation(features=x, preactivations=tuple(preactivations), activation=self.activation)
