"""Datasets as sweeps make them, with numbers worked out by hand: nothing is trained."""

import numpy as np
import xarray as xr


def sweep_like(values, arms, grid=(), dims=()):
    """A dataset whose every update of a run has that run's score ``[arm, *grid, seed]``.

    ``dims``: the arms' own dimensions and labels in place of ``arm``; a cell of NaNs alone has no arm.
    """
    arm_dims = dict(dims) or {"arm": arms}
    names = (*arm_dims, *(name for name, _ in grid), "seed")
    values = np.asarray(values, np.float32)
    coords = {**arm_dims, **dict(grid), "seed": np.arange(values.shape[-1]), "update": np.arange(20)}
    data = {
        "episode_return": ((*names, "update"), np.repeat(values[..., None], 20, axis=-1)),
        "diverged_at": (names, np.full(values.shape, np.nan, np.float32)),
    }
    env_step = np.broadcast_to(np.arange(1.0, 21.0), (*map(len, arm_dims.values()), 20)).copy()
    if dims:
        env_step[np.isnan(values).all(tuple(range(len(arm_dims), values.ndim)))] = np.nan
    return xr.Dataset(data, coords | {"env_step": ((*arm_dims, "update"), env_step)})


def with_dims(**grid):
    """PPO at 1, 4 and 8 epochs and PFO at 1 and 4; the score is 10 × algorithm + epochs + seed / 10."""
    epochs = np.array([1.0, 4.0, 8.0])
    values = np.add.outer(np.add.outer([0.0, 10.0], epochs), np.arange(5) / 10)
    values[1, 2] = np.nan
    for one in grid.values():
        values = np.stack([values + 100.0 * i for i in range(len(one))], axis=-2)
    dims = [("algorithm", ["ppo", "pfo"]), ("num_epochs", [1, 4, 8])]
    return sweep_like(values, [], list(grid.items()), dims)
