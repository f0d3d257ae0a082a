"""``replay``: one run of a sweep again, bit for bit, to look at it more closely."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from purejaxrl_ext.devices import isolated
from purejaxrl_ext.sweeps import dims as dimensions
from purejaxrl_ext.sweeps import guards, planning, results, states
from purejaxrl_ext.sweeps import probes as probing
from purejaxrl_ext.sweeps.directory import warn_of_changes
from purejaxrl_ext.sweeps.plan import Plan, Wave
from purejaxrl_ext.sweeps.run import in_memory
from purejaxrl_ext.sweeps.wave import Options
from purejaxrl_ext.types import Algorithm


@isolated()
def replay(
    out: str | Path,
    arm: Any = None,
    seed: int = 0,
    *,
    probes: Any = None,
    probe_every: int | None = None,
    save_every: int = 0,
    eval_every: int | None = None,
    eval_episodes: int | None = None,
    progress: bool = True,
    algorithm: Algorithm | str | None = None,
    **cell: Any,
) -> xr.Dataset:
    """Run one run of a sweep again, with whatever else is to be measured of it.

    It is computed as it was: beside its companions, in the width of its wave, since a program of another width rounds otherwise.
    So it takes as long as the wave did. On the same machine, versions and number of devices its metrics are those stored, bit
    for bit; else this warns.

    Args:
        out: the run's directory, of which nothing is changed.
        arm, seed, algorithm, cell: which run, as of :func:`~purejaxrl_ext.sweeps.sweep.load_state`.
        probes: further ones than the sweep had; see :func:`~purejaxrl_ext.sweeps.sweep.sweep`.
        probe_every: updates between the runs of all probes; None: as the sweep had it.
        save_every: keep its states after every so many updates, for ``prx.load_states(replayed)``.
        eval_every, eval_episodes: evaluate more often, or on more episodes; None: as the sweep did.
        progress: a bar.

    Returns:
        the dataset of this one run, all dimensions of size 1 but ``update``; its states are kept. A run that was extended had an
        update measured where it once ended; here it is not.

    Raises:
        ValueError: a run that the sweep does not have, or a probe of a name that it has already.

    Example::

        ds = prx.replay("runs/x", arm="ppo", seed=3, probes=[my_probe], probe_every=10, save_every=100)
    """
    path = guards.run_path(out)
    config = results.read_config(path)
    arm, made, cell = dimensions.resolve(results.arm_dims(path), arm, algorithm, cell)
    name = states.pick_arm({n: tuple(a["labels"]) for n, a in config["arms"].items()}, arm)
    index, _ = states.run_index({**config["grid"], "seed": config["seeds"]}, seed, cell)
    given = {} if made is None else {name: made}
    only = config | {key: {name: config[key][name]} for key in ("arms", "waves")}
    plan = alone(planning.stored(path, only, given, probes=_own(config, probes)), name, seed)
    plan.probes = plan.probes | probing.named(probes)
    more: dict[str, Any] = {
        "probe_every": probe_every,
        "save_every": save_every,
        "eval_every": eval_every,
        "eval_episodes": eval_episodes,
    }
    plan = dataclasses.replace(plan, **{key: value for key, value in more.items() if value is not None})
    plan.metrics()
    warn_of_changes(
        path, config, "is replayed under other conditions than it was run under, so that the numbers will differ"
    )
    dataset = in_memory(plan, Options(progress=progress, keep_states=True))
    return _one(dataset, plan, name, [*index[:-1], plan.seeds.index(seed)])


def alone(plan: Plan, arm: str, seed: int) -> Plan:
    """The plan of the one wave of an arm that has a seed, in its width."""
    place = plan.slots.index(seed)
    wave = next(w for w in plan.waves[arm] if w.start <= place < w.stop)
    slots = plan.slots[wave.start : wave.stop]
    waves = {arm: [Wave(0, len(slots), wave.width)]}
    return dataclasses.replace(plan, slots=slots, seed_block=len(slots), waves=waves, wave_size=wave.width)


def _own(config: dict[str, Any], probes: Any) -> dict[str, Any]:
    """Those of ``probes`` that are the sweep's own, given again."""
    return {name: function for name, function in probing.named(probes).items() if name in config["probes"]}


def _one(dataset: xr.Dataset, plan: Plan, name: str, index: list[int]) -> xr.Dataset:
    """One run of a dataset, with its states."""
    where = dict(zip((*plan.grid, "seed"), index, strict=True))
    kept = states.record(dataset)
    assert kept is not None
    number = int(np.ravel_multi_index(index, [len(values) for values in kept.coords.values()]))

    def one(state: Any) -> Any:
        picked = jax.tree.map(lambda x: x[number : number + 1], state.replace(update=()))
        return picked.replace(update=state.update)

    coords = {dim: [kept.coords[dim][i]] for dim, i in where.items()}
    trained = {key: one(state) for key, state in kept.states.items()}
    along = {key: {update: one(state) for update, state in held.items()} for key, held in kept.along.items()}
    picked = dataset.isel({dim: [i] for dim, i in where.items()})
    return picked.assign_attrs(states=states.States(trained, kept.arms, coords, kept.dims, along).kept())
