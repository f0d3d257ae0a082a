"""One run on several devices (data parallel): its environments are divided among them, its gradients averaged.

    device d    collects with its N / D environments;  g_d = ∇L on its part of a minibatch
    all         θ ← optimiser(θ, 1/D Σ_d g_d): the same gradient everywhere, so the same θ everywhere, bit for bit

A device draws its minibatches from its own data, so a minibatch of the run is D parts of equal size, and the mean of their
gradients is that of the whole. Only what a loss computes of a minibatch that is no mean over its samples is computed of a
part: PPO's normalised advantage, and metrics that are ratios.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from purejaxrl_ext.errors import check
from purejaxrl_ext.loops.normalize import Normalizer
from purejaxrl_ext.types import Array, Metrics, PyTree, State

AXIS = "env"


class Shards(NamedTuple):
    """What a step on one of D devices asks of the others; alone (D = 1) it gets back what it gave.

    Attributes:
        num_devices: D.
    """

    num_devices: int = 1

    def mean(self, x: PyTree) -> PyTree:
        """1/D Σ_d x_d, on every device."""
        return jax.lax.pmean(x, AXIS) if self.num_devices > 1 else x

    def gather(self, x: PyTree, axis: int) -> PyTree:
        """All devices' leaves, concatenated along ``axis``, on every device."""
        return jax.lax.all_gather(x, AXIS, axis=axis, tiled=True) if self.num_devices > 1 else x

    def fold(self, key: Array) -> Array:
        """A key of this device's own, of one that all have."""
        return jax.random.fold_in(key, jax.lax.axis_index(AXIS)) if self.num_devices > 1 else key

    def part(self, config: Any) -> Any:
        """The config of one device's share of the environments."""
        if self.num_devices == 1:
            return config
        return dataclasses.replace(
            config,
            num_envs=config.num_envs // self.num_devices,
            metrics_samples=-(-config.metrics_samples // self.num_devices),
            reset_pool_size=-(-config.reset_pool_size // self.num_devices),
            data_parallel=1,
        )

    def spread(self, step: Callable[..., tuple[State, Metrics]]) -> Callable[..., tuple[State, Metrics]]:
        """A ``step`` of one device's share as a step of the whole run, whose State looks as on one device.

        It raises a ``ValueError`` where this process has fewer devices than D, when it is traced: what was trained on more can
        be looked at on fewer.
        """
        if self.num_devices == 1:
            return step

        def whole(state: State, hparams: Any, measure: Array | None = None) -> tuple[State, Metrics]:
            held = jax.local_device_count()
            check(
                self.num_devices <= held,
                "data_parallel",
                self.num_devices,
                f"at most {held}, the number of this process's devices",
            )
            mesh = Mesh(np.array(jax.local_devices()[: self.num_devices]), (AXIS,))
            common, own = P(), P(AXIS)
            has_normalizer = isinstance(state.normalizer, Normalizer)
            statistics = {"obs": common, "reward": common, "discounted_return": own}
            normalizer = state.normalizer.replace(**statistics) if has_normalizer else common
            specs = State.axes(common, common).replace(env=own, carry=own, normalizer=normalizer)
            everywhere = jax.shard_map(
                step, mesh=mesh, in_specs=(specs, common, common), out_specs=(specs, common), check_vma=False
            )
            return everywhere(state, hparams, measure)

        return whole
