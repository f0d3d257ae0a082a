"""Saved states: one orbax checkpoint of all of an arm's runs, and how to get one run's state out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import xarray as xr

from purejaxrl_ext import results
from purejaxrl_ext.errors import check
from purejaxrl_ext.make import make
from purejaxrl_ext.types import Algorithm, State, abstract_key

KEEP = 2  # checkpoints of an arm


class States(NamedTuple):
    """Trained states in memory: by arm, ``[R, ...]``."""

    states: dict[str, State]
    arms: dict[str, Algorithm]

    def __repr__(self) -> str:
        return f"<trained states of {', '.join(self.states)}>"


def _manager(path: Path, arm: str) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=KEEP, create=True, enable_async_checkpointing=False)
    where = (path / "checkpoints" / arm).absolute()
    return ocp.CheckpointManager(where, item_handlers=ocp.StandardCheckpointHandler(), options=options)


def save(path: Path, arm: str, update: int, state: State, num_runs: int) -> None:
    """Save the states of an arm's runs after ``update`` updates, atomically; the last few are kept.

    What was padded to whole devices is left out, so that the checkpoint fits any number of them.
    """
    host = jax.device_get(_key_data(state))
    rows = jax.tree.map(lambda x: x[:num_runs], host.replace(update=())).replace(update=host.update)
    with _manager(path, arm) as manager:
        manager.save(update, args=ocp.args.StandardSave(rows))


def load_state(
    source: str | Path | xr.Dataset, arm: str | None, seed: int, algorithm: Algorithm | None, cell: dict[str, float]
) -> State:
    """See :func:`purejaxrl_ext.sweep.load_state`."""
    if isinstance(source, xr.Dataset) and "states" in source.attrs:
        kept: States = source.attrs["states"]
        arm = _pick_arm(list(kept.states), arm)
        run = _run_index(source, seed, cell)
        return _take(kept.states[arm], run)
    path = Path(source.attrs.get("path", "") if isinstance(source, xr.Dataset) else source)
    check(path != Path(), "source", "dataset", "one of a sweep with out=... or keep_states=True")
    config = results.read_config(path)
    dataset = results.load(path)
    arm = _pick_arm(list(config["arms"]), arm)
    run = _run_index(dataset, seed, cell)
    algorithm = algorithm or remake(config["arms"][arm]["settings"])
    with _manager(path, arm) as manager:
        step = manager.latest_step()
        check(step is not None, "source", str(path), f"a run that has saved a state of arm {arm!r}; it has not yet")
        num_runs = int(np.prod([dataset.sizes[d] for d in (*config["grid"], "seed")]))
        one = jax.eval_shape(lambda key: _key_data(algorithm.init(key)), abstract_key())
        shapes = jax.tree.map(lambda x: np.empty((num_runs, *x.shape), x.dtype), one).replace(
            update=np.zeros((), np.int32)
        )
        state = manager.restore(step, args=ocp.args.StandardRestore(shapes))
    state = state.replace(key=jax.random.wrap_key_data(jnp.asarray(state.key)))
    return _take(state, run)


def _key_data(state: State) -> State:
    return state.replace(key=jax.random.key_data(state.key))


def _take(state: State, run: int) -> State:
    update = state.update
    picked = jax.tree.map(lambda x: jnp.asarray(x[run]), state.replace(update=()))
    return picked.replace(update=jnp.asarray(update))


def _pick_arm(arms: list[str], arm: str | None) -> str:
    if arm is None and len(arms) == 1:
        return arms[0]
    check(arm in arms, "arm", arm, f"one of {', '.join(map(repr, arms))}")
    return str(arm)


def _run_index(dataset: xr.Dataset, seed: int, cell: dict[str, float]) -> int:
    names = [d for d in dataset["diverged_at"].dims if d != "arm"]
    wanted = {"seed": seed} | cell
    check(set(wanted) == set(names), "cell", sorted(cell), f"a value for each of {[n for n in names if n != 'seed']}")
    index = []
    for name in names:
        values = dataset[name].values
        close = np.flatnonzero(np.isclose(values, wanted[str(name)], rtol=1e-6, atol=0.0))
        check(len(close) == 1, str(name), wanted[str(name)], f"one of {values.tolist()}")
        index.append(int(close[0]))
    return int(np.ravel_multi_index(index, [dataset.sizes[n] for n in names]))


def plain(value: Any) -> Any:
    """A setting as JSON; an object (a custom environment or network) as its description."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if hasattr(value, "item"):
        return value.item()
    return {"object": repr(value)}


def remake(settings: dict[str, Any]) -> Algorithm:
    """The algorithm that a run's stored settings stand for."""
    custom = [k for k, v in settings.items() if isinstance(v, dict) and "object" in v]
    check(not custom, "algorithm", None, f"given for an arm whose {' and '.join(custom)} is an object of your own")
    return make(**settings)
