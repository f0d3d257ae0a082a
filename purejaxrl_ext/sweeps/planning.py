"""How a plan is made of a sweep's arguments, kept in ``config.json``, read again and grown."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from purejaxrl_ext.errors import check
from purejaxrl_ext.sweeps import arguments, checkpoints, guards, results
from purejaxrl_ext.sweeps import probes as probing
from purejaxrl_ext.sweeps.arguments import Arms
from purejaxrl_ext.sweeps.locks import hold
from purejaxrl_ext.sweeps.plan import Plan, Wave, cut, place
from purejaxrl_ext.types import Algorithm

# Seeds of a block of the store, at least: a run that gets more seeds shall not have a file and a lock for each.
SEED_BLOCK = 32
# Arguments of a sweep that are fields of a Plan as they are, with defaults there.
OPTIONS = ("eval_every", "eval_episodes", "eval_common_starts", "probe_every", "save_every")
# Fields of a Plan that config.json holds under their names.
AS_THEY_ARE = ("grid", "slots", "seed_block", "wave_size", "total_steps", *OPTIONS)


def make(
    arms: Arms,
    *,
    on_disk: bool,
    total_steps: int,
    num_seeds: int | None = None,
    seeds: Sequence[int] | None = None,
    grid: Mapping[str, Sequence[float]] | None = None,
    wave_size: int | None = None,
    probes: Any = None,
    dims: Sequence[str] | None = None,
    **others: Any,
) -> Plan:
    """A plan of :func:`~purejaxrl_ext.sweeps.sweep.sweep`'s arguments, of which ``others`` are ``OPTIONS``."""
    for name in others:
        check(name in OPTIONS, "settings", name, "an argument of sweep")
    along = arguments.checked_dims(dims, grid or {})
    named, labels = arguments.named(arms, along)
    listed = arguments.listed_seeds(num_seeds, seeds)
    values = arguments.checked_grid(named, grid or {})
    arguments.check_counts(**{name: others.get(name, 0) for name in ("eval_every", "probe_every", "save_every")})
    episodes = others.get("eval_episodes", Plan.eval_episodes)
    check(episodes > 0, "eval_episodes", episodes, "greater than 0")
    check(total_steps > 0, "total_steps", total_steps, "greater than 0")
    whole = wave_size is None or (isinstance(wave_size, int) and wave_size > 0)
    check(whole, "wave_size", wave_size, "None or an int of at least 1")
    share = -(-len(listed) // jax.process_count())
    block = max(share, SEED_BLOCK) if on_disk else share
    slots = place(listed, share, block)
    waves = {name: cut(slots, block, min(wave_size or share, share)) for name in named}
    more = others | {"probes": probing.named(probes), "dims": along, "labels": labels}
    plan = Plan(named, values, slots, block, waves, wave_size, int(total_steps), **more)
    plan.metrics()  # An arm that cannot train fails here, before anything is written.
    if on_disk:
        check_remakes(named)
    warn_of_schedules(plan)
    return plan


def stored(path: Path, config: dict[str, Any], given: dict[str, Algorithm], probes: Any = None) -> Plan:
    """The plan that a run's ``config.json`` holds, its arms and probes made again or as given."""
    guards.check_conditions(path, config)
    return Plan(
        arms={
            name: checkpoints.arm_algorithm(path, name, arm["settings"], given.get(name))
            for name, arm in config["arms"].items()
        },
        waves={name: [Wave(*wave) for wave in waves] for name, waves in config["waves"].items()},
        probes=_stored_probes(path, config["probes"], probing.named(probes)),
        dims=tuple(config["dims"]),
        labels={name: tuple(arm["labels"]) for name, arm in config["arms"].items()},
        **{name: config[name] for name in AS_THEY_ARE},
    )


def _stored_probes(path: Path, held: dict[str, Any], given: dict[str, Callable]) -> dict[str, Callable]:
    """A run's probes: as given again, or imported."""
    unknown = sorted(set(given) - set(held))
    check(not unknown, "probes", unknown, f"those of the run {str(path)!r}, {sorted(held)}: prx.replay takes others")
    for name, function in given.items():
        now = checkpoints.plain(function)
        same = checkpoints.difference(now, held[name]) is None
        check(same, f"probes[{name!r}]", now, f"{held[name]!r}, with which the run was made")
    lost = [name for name, what in held.items() if name not in given and checkpoints.lost(what)]
    check(
        not lost,
        "probes",
        None,
        f"given again: {' and '.join(map(repr, lost))} of the run {str(path)!r} cannot be imported (a function at the top of "
        "a module can)",
    )
    return {name: given[name] if name in given else checkpoints.restored(what) for name, what in held.items()}


def grown(
    path: Path,
    config: dict[str, Any],
    arms: Arms | None,
    total_steps: int | None,
    num_seeds: int | None,
    seeds: Sequence[int] | None,
    probes: Any = None,
) -> Plan:
    """A run's plan with more steps, arms and seeds."""
    given, labels = ({}, {}) if arms is None else arguments.named(arms, tuple(config["dims"]))
    plan = stored(path, config, given, probes)
    if total_steps is not None:
        check(total_steps >= plan.total_steps, "total_steps", total_steps, f"at least the run's {plan.total_steps}")
        plan.total_steps = int(total_steps)
    _add_arms(plan, given, labels)
    if num_seeds is not None or seeds is not None:
        _add_seeds(plan, arguments.listed_seeds(num_seeds, seeds))
    warn_of_schedules(plan)
    return plan


def has_grown(plan: Plan, config: dict[str, Any]) -> bool:
    """Whether a plan is larger than the one that ``config.json`` holds."""
    now = json.loads(json.dumps(plan.config()))
    return checkpoints.difference(now, {key: config.get(key) for key in now}) is not None


def _add_arms(plan: Plan, given: dict[str, Algorithm], labels: dict[str, tuple]) -> None:
    new = {name: algorithm for name, algorithm in given.items() if name not in plan.arms}
    arguments.checked_grid(new, plan.grid)
    check_remakes(new)
    widest = max(wave.width for waves in plan.waves.values() for wave in waves)
    plan.arms, plan.labels = plan.arms | new, labels | plan.labels
    for name in new:
        plan.waves[name] = cut(plan.slots, plan.seed_block, widest)


def _add_seeds(plan: Plan, seeds: list[int]) -> None:
    missing = sorted(set(plan.seeds) - set(seeds))
    check(not missing, "seeds", seeds, f"all that the run has and more; {missing[:10]} are missing")
    new, held = [s for s in seeds if s not in plan.seeds], len(plan.slots)
    if not new:
        return
    share = -(-len(new) // jax.process_count())
    plan.slots = plan.slots + place(new, share, plan.seed_block)
    for waves in plan.waves.values():
        width = max(waves[-1].width, min(share, plan.wave_size or share))
        waves += cut(plan.slots, plan.seed_block, width, held)


def check_remakes(arms: dict[str, Algorithm]) -> None:
    """Raise ``ValueError`` where an arm's settings would bring back another algorithm than it is.

    As of one whose parts were replaced after it was made: a resumed run would go on with the original. What cannot be
    imported again is left alone, since it must be given to :func:`~purejaxrl_ext.sweeps.sweep.resume` anyway.
    """
    for name, algorithm in arms.items():
        settings = {k: checkpoints.plain(v) for k, v in algorithm.settings.items()}
        if any(map(checkpoints.lost, settings.values())):
            continue
        again = checkpoints.remake(settings)
        same = again.loop is algorithm.loop or again.loop == algorithm.loop
        check(
            same,
            f"arms[{name!r}]",
            algorithm.name,
            "one that its settings bring back, to be kept in a directory: parts of this one were replaced after prx.make, "
            "and a resumed run would fall back to the original. Make it of a Recipe of your own with those parts, "
            "prx.make(recipe, env, ...), or sweep it without out=",
        )


def warn_of_schedules(plan: Plan) -> None:
    """Warn of arms whose learning rate reaches 0 before their training ends."""
    for name, algorithm in plan.arms.items():
        default = float(getattr(algorithm.hparams, "anneal_steps", 0.0))
        short = [x for x in plan.grid.get("anneal_steps", [default]) if 0 < x < plan.total_steps]
        if short:
            warnings.warn(
                f"arm {name!r}: anneal_steps={' and '.join(f'{x:,.0f}' for x in short)} is shorter than "
                f"total_steps={plan.total_steps:,}: its learning rate is 0 from there on. Give anneal_steps of at least "
                "total_steps, or 0 for a constant one",
                RuntimeWarning,
                stacklevel=4,
            )


def store_config(path: Path, plan: Plan) -> None:
    """Write what a run is; what else its ``config.json`` holds stays."""
    file = path / "config.json"
    before = results.read_config(path) if file.exists() else results.provenance()
    results.write_json(file, before | plan.config())


def note_conditions(path: Path) -> None:
    """Add to ``config.json`` with what versions, device and commit a run goes on, if with others than so far."""
    with hold(path, "config", "config.json", wait=True):
        config, now = results.read_config(path), results.provenance()
        known = [{key: config[key] for key in now}, *config.get("resumed_with", [])]
        if now not in known:
            results.write_json(path / "config.json", config | {"resumed_with": [*known[1:], now]})


def as_stored(name: str, value: Any) -> Any:
    """An argument of a sweep as ``config.json`` holds it."""
    if name == "grid":
        return arguments.checked_grid({}, value or {})
    if name == "probes":
        return {n: checkpoints.plain(function) for n, function in probing.named(value).items()}
    if name == "dims":
        return list(arguments.checked_dims(value, {}))
    return value
