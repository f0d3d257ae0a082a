"""Torsos: the hidden layers of vectors and images.

    plain        h_l = f(W_l h_{l−1} + b_l)
    multi_skip   h_l = f(W_l h_{l−1} + S_l h_0 + b_l), l > 1       h_0 what the dense layers are given (Castanyer et al. 2025,
                                                                 arXiv 2506.15544): it reaches every one of them
    simba        x ← W_0 h_0 + b_0;  x ← x + V_l f(W_l LN(x) + b_l) + c_l, 4 times as wide inside;  LN(x)       (Lee et al. 2024,
                                                                 arXiv 2410.09754; their inputs are normalised besides)

and two activations change the shape: ``"crelu"`` is [ReLU(x), ReLU(−x)] of half as many units, so that none can fall silent
(Shang et al. 2016; Abbas et al. 2023, arXiv 2303.07507); ``"hadamard"`` tanh(W x + b) tanh(W′ x + b′) (Kooi et al. 2024, arXiv
2406.09079).

A torso keeps the last features and each hidden layer's pre-activations: PFO's loss and the representation metrics read them,
and XLA drops them where nobody does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl_ext.errors import check, unknown_name
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
    "crelu": lambda x: jnp.concatenate([jax.nn.relu(x), jax.nn.relu(-x)], axis=-1),
    "hadamard": lambda x: jnp.prod(jnp.stack(jnp.split(jnp.tanh(x), 2, axis=-1)), axis=0),
}
BLOCKS = ("plain", "multi_skip", "simba")

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

    The last features of ``"simba"`` are normalised and come through no activation; its last pre-activations are what is normalised.

    Attributes:
        hidden_sizes: widths of the dense layers.
        conv_layers: (features, kernel size, stride) of each convolution; used for images alone.
        activation: a name in ``ACTIVATIONS``.
        initializer: ``"orthogonal"`` (√2, zero biases), ``"fan_in"`` or ``"he_normal"``.
        layer_norm: normalise before each activation; the pre-activations are then the normalised ones.
        block: what the dense layers are, one of ``BLOCKS``; see the module.
    """

    hidden_sizes: tuple[int, ...]
    conv_layers: tuple[Conv, ...] = ()
    activation: str = "tanh"
    initializer: str = "orthogonal"
    layer_norm: bool = False
    block: str = "plain"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            more = "A function gets a name by purejaxrl_ext.networks.ACTIVATIONS[name] = function."
            raise ValueError(unknown_name("activation", str(self.activation), ACTIVATIONS, more))
        self._check_block()
        super().__post_init__()

    def _check_block(self) -> None:
        widths = (*self.hidden_sizes, *(features for features, _, _ in self.conv_layers))
        shaped = self.activation in ("crelu", "hadamard")
        check(self.block in BLOCKS, "block", self.block, f"one of {', '.join(map(repr, BLOCKS))}")
        for ok, field, allowed in (
            (
                self.activation != "crelu" or not any(w % 2 for w in widths),
                "hidden_sizes",
                "even with activation='crelu'",
            ),
            (self.activation != "hadamard" or not self.layer_norm, "layer_norm", "False with activation='hadamard'"),
            (
                self.block != "multi_skip" or self.activation != "hadamard",
                "block",
                "'plain' with activation='hadamard'",
            ),
            (self.block != "multi_skip" or len(widths) > 1, "hidden_sizes", "two or more with block='multi_skip'"),
            (
                self.block != "simba" or not (shaped or self.layer_norm),
                "block",
                "'plain' with layer_norm, crelu, hadamard",
            ),
            (
                self.block != "simba" or len(set(self.hidden_sizes)) == 1,
                "hidden_sizes",
                "of one width with block='simba'",
            ),
        ):
            check(ok, field, getattr(self, field), allowed)

    @nn.compact
    def __call__(self, obs: Array) -> Representation:
        # Bool planes stay bool up to the first matrix product: an eighth of the memory to move.
        x = obs.astype(jnp.float32) / 255.0 if obs.dtype == jnp.uint8 else obs
        said: list[Array] = []
        for i, (features, size, stride) in enumerate(self.conv_layers if obs.ndim == 4 else ()):
            conv = functools.partial(
                PatchConv, self._units(features), size, stride, **self._init(size**2 * x.shape[-1])
            )
            x = self._activated([conv(name=name)(x) for name in self._names("PatchConv", i)], said)
        x = first = x.reshape(x.shape[0], -1).astype(jnp.float32)
        if self.block == "simba":
            return self._simba(x, said)
        for i, size in enumerate(self.hidden_sizes):
            dense = functools.partial(
                nn.Dense, self._units(size), dot_general=short_axis.product, **self._init(x.shape[-1])
            )
            parts = [dense(name=name)(x) for name in self._names("Dense", i)]
            if self.block == "multi_skip" and i > 0:
                kernel_init = self._init(first.shape[-1])["kernel_init"]
                skip = nn.Dense(self._units(size), use_bias=False, kernel_init=kernel_init, name=f"Skip_{i}")
                parts[0] = parts[0] + skip(first)
            x = self._activated(parts, said)
        return Representation(features=x, preactivations=tuple(said), activation=self.activation)

    def _init(self, fan_in: int, scale: float = np.sqrt(2.0)) -> dict[str, Any]:
        return initializers(self.initializer, fan_in, scale)

    def _units(self, width: int) -> int:
        """How many units a layer of so many features has."""
        return width // 2 if self.activation == "crelu" else width

    def _names(self, kind: str, i: int) -> list[str]:
        """Of the linear maps of a layer."""
        return [f"{kind}_{i}"] + [f"Gate{kind}_{i}"] * (self.activation == "hadamard")

    def _activated(self, parts: list[Array], said: list[Array]) -> Array:
        """A layer's features of its linear maps, whose outputs are added to what was ``said``."""
        if self.layer_norm:
            parts = [nn.LayerNorm()(parts[0])]
        flat = [y.reshape(y.shape[0], -1) for y in parts]
        x, pre = (y[0] if len(y) == 1 else jnp.concatenate(y, axis=-1) for y in (parts, flat))
        said.append(pre)
        return ACTIVATIONS[self.activation](x)

    def _simba(self, x: Array, said: list[Array]) -> Representation:
        x = nn.Dense(self.hidden_sizes[0], **self._init(x.shape[-1], 1.0), name="Dense_0")(x)
        for i, width in enumerate(self.hidden_sizes):
            more, inner = SimbaBlock(width, self.activation, self.initializer, name=f"SimbaBlock_{i}")(x)
            x = x + more
            said.append(inner)
        features = nn.LayerNorm(name="LayerNorm_0")(x)
        return Representation(features=features, preactivations=(*said, x), activation="")


class SimbaBlock(nn.Module):
    """V f(W LN(x) + b) + c of ``[B, width]``, 4 times as wide inside; and the pre-activations W LN(x) + b."""

    width: int
    activation: str
    initializer: str

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        wide = initializers(self.initializer, self.width, np.sqrt(2.0))
        inner = nn.Dense(4 * self.width, **wide, name="Dense_0")(nn.LayerNorm(name="LayerNorm_0")(x))
        back = initializers(self.initializer, 4 * self.width, 1.0)
        return nn.Dense(self.width, **back, name="Dense_1")(ACTIVATIONS[self.activation](inner)), inner
