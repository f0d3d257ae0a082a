"""States along a run: of all cells and seeds of an arm at once, after each update that was chosen by ``save_every``."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from purejaxrl_ext.devices import isolated
from purejaxrl_ext.errors import check
from purejaxrl_ext.sweeps import checkpoints, guards, states
from purejaxrl_ext.sweeps.checkpoints import FILE, folder, read
from purejaxrl_ext.sweeps.plan import Plan, Wave
from purejaxrl_ext.types import Algorithm, Array, State


class Saved(NamedTuple):
    """An arm's runs after an update.

    Attributes:
        state: ``[R, ...]``, R = grid cells × seeds, seeds fastest; vmap it with ``in_axes=prx.State.axes()``.
        labels: ``[R]`` each: the value of each swept setting, and ``seed``.
        update: updates done; 0: as initialised.
        algorithm: what trained them.
    """

    state: State
    labels: dict[str, np.ndarray]
    update: int
    algorithm: Algorithm

    @property
    def hparams(self) -> Any:
        """The runs' traced settings: ``[R]`` where swept, else a number."""
        swept = {name: jnp.asarray(x, jnp.float32) for name, x in self.labels.items() if name != "seed"}
        return self.algorithm.hparams.replace(**swept)


@isolated()
def load_states(
    source: str | Path | xr.Dataset,
    arm: Any = None,
    update: int | None = None,
    algorithm: Algorithm | None = None,
) -> Saved:
    """The states of all of an arm's runs after an update.

    Args:
        source: a run's directory, or the dataset of a sweep with ``keep_states=True`` or ``out=...``.
        arm: its name, or its labels; may be left out where there is one.
        update: one of :func:`saved_updates`; None: the last.
        algorithm: what the arm ran, where its environment or network cannot be imported again.

    Raises:
        ValueError: an arm that is not there, or an update whose states were not kept, with those that were.
    """
    kept = states.record(source)
    if kept is not None:
        name = states.pick_arm({name: states.parts(name) for name in kept.states}, arm)
        held = {**kept.along.get(name, {}), int(kept.states[name].update): kept.states[name]}
        at = _pick_update(list(held), update)
        return Saved(checkpoints.with_keys(held[at]), _labels(kept.coords), at, kept.arms[name])
    path, config = states.run_of(source)
    guards.check_conditions(path, config)
    name = states.pick_arm({n: tuple(a["labels"]) for n, a in config["arms"].items()}, arm)
    algorithm = checkpoints.arm_algorithm(path, name, config["arms"][name]["settings"], algorithm)
    at = _pick_update(_on_disk(path, config, name), update)
    waves = [Wave(*wave) for wave in config["waves"][name]]
    cells = int(np.prod([len(values) for values in config["grid"].values()]))
    parts = [valid(cells, wave, _restored(path, name, wave, at, algorithm, cells)) for wave in sorted(waves)]
    coords = {**config["grid"], "seed": config["seeds"]}
    return Saved(checkpoints.with_keys(join(parts)), _labels(coords), at, algorithm)


def saved_updates(source: str | Path | xr.Dataset, arm: Any = None) -> list[int]:
    """Updates of an arm for which :func:`load_states` has the states of all its runs, increasing."""
    kept = states.record(source)
    if kept is not None:
        name = states.pick_arm({name: states.parts(name) for name in kept.states}, arm)
        return sorted({*kept.along.get(name, {}), int(kept.states[name].update)})
    path, config = states.run_of(source)
    return _on_disk(path, config, states.pick_arm({n: tuple(a["labels"]) for n, a in config["arms"].items()}, arm))


def valid(cells: int, wave: Wave, state: State) -> State:
    """``[R, ...]`` to ``[cells, seeds, ...]`` without what pads a wave."""

    def rows(x: Array) -> Array:
        shaped = x[: cells * wave.width].reshape(cells, wave.width, *x.shape[1:])
        return shaped[:, : wave.stop - wave.start]

    return jax.tree.map(rows, state.replace(update=())).replace(update=state.update)


def join(parts: list[State]) -> State:
    """The waves' ``[cells, seeds, ...]`` as ``[R, ...]``."""

    def rows(*xs: Array) -> Array:
        whole = (np if isinstance(xs[0], np.ndarray) else jnp).concatenate(xs, axis=1)
        return whole.reshape(-1, *whole.shape[2:])

    return jax.tree.map(rows, *(p.replace(update=()) for p in parts)).replace(update=parts[0].update)


def on_host(plan: Plan, wave: Wave, state: State) -> State:
    """``[R, ...]`` of a wave as host arrays ``[cells, seeds, ...]``, its keys as data."""
    cells = int(np.prod([len(values) for values in plan.grid.values()]))
    return valid(cells, wave, jax.tree.map(np.array, checkpoints.as_data(state)))


def _labels(coords: dict[str, list]) -> dict[str, np.ndarray]:
    runs = list(itertools.product(*coords.values()))
    return {name: np.array([run[i] for run in runs]) for i, name in enumerate(coords)}


def _on_disk(path: Path, config: dict[str, Any], name: str) -> list[int]:
    last, every = config["arms"][name]["num_updates"], config["save_every"]
    chosen = {*(range(0, last, every) if every else ()), last}
    waves = [folder(path, name, Wave(*wave).name) for wave in config["waves"][name]]
    return sorted(u for u in chosen if all(checkpoints.is_whole(wave / str(u)) for wave in waves))


def _pick_update(held: list[int], update: int | None) -> int:
    check(len(held) > 0, "source", "run", "one that has saved the states of all the arm's runs; it has not yet")
    if update is None:
        return max(held)
    check(update in held, "update", update, f"one whose states were kept: {sorted(held)}")
    return int(update)


def _restored(path: Path, name: str, wave: Wave, update: int, algorithm: Algorithm, cells: int) -> State:
    (file,) = (folder(path, name, wave.name) / str(update)).rglob(FILE)
    target = checkpoints.like(checkpoints.one_run(algorithm), cells * wave.width)
    return read(file.parent, target).state
