"""What each intervention that ships takes: its code, bits that it changes when off, whether a stopped run goes on exactly, and the
time of an update of PPO on CartPole, 8 seeds side by side, over the time of one without it. And what measuring costs.

Every arm is compiled once, as a sweep compiles it. Plain, off and on take turns; the medians of their ratios within a turn are
shown. Time is the process's CPU time, which other work on the machine disturbs less than the clock.
"""

from __future__ import annotations

import ast
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cli

INF = float("inf")
TAKERS = ("ppo", "pfo", "pqn", "dqn")
LAYER_NORM = {"layer_norm": True}


@dataclass(frozen=True)
class Entry:
    """What is measured of one intervention.

    Attributes:
        on: settings with which it is measured.
        off: those with which it does nothing; None: it is off only by not being named.
        needs: settings without which it is refused; what it is compared with has them too.
        named: whether it is an intervention; else it is settings alone.
    """

    on: dict[str, Any] = field(default_factory=dict)
    off: dict[str, Any] | None = None
    needs: dict[str, Any] = field(default_factory=dict)
    named: bool = True


def switch(setting: str, off: float, on: float, **needs: Any) -> Entry:
    """An intervention with one setting that turns it off."""
    return Entry({setting: on}, {setting: off}, needs)


# What happens every so many updates is measured with every update.
ENTRIES = {
    "l2": switch("l2_coef", 0.0, 1e-4),
    "weight_decay": switch("weight_decay_coef", 0.0, 0.01),
    "l2_init": switch("l2_init_coef", 0.0, 1e-3),
    "l2_init_mean": switch("l2_init_mean_coef", 0.0, 1.0),
    "l2_init_norm": switch("l2_init_norm_coef", 0.0, 1e-2),
    "wasserstein_init": switch("wasserstein_init_coef", 0.0, 1e-3),
    "parseval": switch("parseval_coef", 0.0, 1e-3),
    "spectral": switch("spectral_coef", 0.0, 1e-3),
    "shrink_perturb": switch("shrink_perturb_every", INF, 1.0),
    "soft_shrink_perturb": switch("soft_shrink_perturb_noise", 0.0, 1e-5),
    "layer_reset": switch("layer_reset_every", INF, 1.0),
    "continual_backprop": switch("continual_backprop_rate", 0.0, 0.01),
    "snr": switch("snr_eta", 0.0, 0.01),
    "regrama": switch("regrama_every", INF, 1.0),
    "redo": switch("redo_every", INF, 1.0),
    "adam_reset": switch("adam_reset_every", INF, 1.0),
    "adam_rel": switch("adam_rel_every", INF, 1.0),
    "weight_clipping": switch("weight_clipping_kappa", INF, 2.0),
    "normalize_project": switch("normalize_project_share", 0.0, 1.0, **LAYER_NORM),
    "chain": switch("chain_coef", 0.0, 1.0),
    "plasticity_injection": switch("plasticity_injection_at", INF, 2.0),
    "trac": Entry(),
    "spo": switch("spo_share", 0.0, 1.0),
    "watch": Entry(off={}),
    "adam_b1=adam_b2=0.9": Entry({"adam_b1": 0.9, "adam_b2": 0.9}, {}, named=False),
    'optimizer="adamw"': Entry({"weight_decay": 0.01}, {"weight_decay": 0.0}, {"optimizer": "adamw"}, named=False),
    "layer_norm=True": Entry(LAYER_NORM, named=False),
    'activation="crelu"': Entry({"activation": "crelu"}, named=False),
    'activation="hadamard"': Entry({"activation": "hadamard"}, named=False),
    'block="multi_skip"': Entry({"block": "multi_skip"}, named=False),
    'block="simba"': Entry({"block": "simba"}, named=False),
}


@dataclass(frozen=True)
class Table:
    """Settings of the table."""

    num_seeds: int = 8
    """seeds side by side"""
    num_updates: int = 10
    """updates of each turn; a multiple of the 10 after which measures are due"""
    turns: int = 5
    """turns that all arms take"""
    only: tuple[str, ...] = ()
    """interventions to measure; default: all"""
    measures: bool = True
    """whether measures are measured too"""
    out: Path | None = None
    """a file for the table; else it is printed"""


# --- code ----------------------------------------------------------------------------------------------------------------


def lines_of_code(path: Path) -> int:
    """Lines that hold code: no docstring, comment or blank line."""
    source = path.read_text()
    tree = ast.parse(source)
    held = {n for node in ast.walk(tree) if isinstance(node, ast.stmt) for n in range(node.lineno, node.end_lineno + 1)}  # type: ignore[operator]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            first = node.body[0]
            held -= set(range(first.lineno, first.end_lineno + 1))  # type: ignore[operator]
    lines = source.splitlines()
    return sum(bool(lines[n - 1].strip()) and not lines[n - 1].strip().startswith("#") for n in held)


def words(path: Path) -> Iterator[str]:
    """Names and strings in a file's code."""
    for node in ast.walk(ast.parse(path.read_text())):
        for name in ("id", "attr", "arg", "name", "value"):
            word = getattr(node, name, None)
            if isinstance(word, str):
                yield word


def files_that_name(intervention: Any) -> int:
    """Files of the package whose code names an intervention's constant or one of its settings."""
    import purejaxrl_ext as prx

    constant = intervention.import_path.partition(":")[2]
    wanted = {constant, *intervention.hparams}
    return sum(not wanted.isdisjoint(words(path)) for path in Path(prx.__file__).parent.rglob("*.py"))


# --- arms ----------------------------------------------------------------------------------------------------------------


class Arm:
    """An algorithm compiled for several seeds and any number of updates, as a sweep does it."""

    def __init__(self, algorithm: Any, num_seeds: int):
        from purejaxrl_ext.sweeps import program

        self.algorithm = algorithm
        self.runs = program.lay_out(algorithm, list(range(num_seeds)), {})
        self.program = program.compiled(algorithm, self.runs)
        self.state, self.seconds = None, list[float]()

    def begin(self) -> None:
        """First states."""
        import jax

        where, hparams = self.program.init.input_shardings[0]
        self.hparams = jax.device_put(self.runs.hparams, hparams)
        self.state = self.program.init(jax.device_put(self.runs.keys, where), self.hparams)

    def go_on(self, num_updates: int) -> Any:
        """The states after some updates more, whose CPU seconds are noted."""
        import jax
        import numpy as np

        diverged_at = jax.device_put(
            np.full(len(self.runs.keys), -1, np.int32), self.program.chunk.input_shardings[0][1]
        )
        began = time.process_time()
        self.state, *rest = self.program.chunk(
            self.state, diverged_at, self.hparams, np.int32(num_updates), np.int32(-1)
        )
        jax.block_until_ready((self.state, rest))
        self.seconds.append(time.process_time() - began)
        return self.state


class Row(NamedTuple):
    """What an entry is compared with, and itself off (None where it has no off) and on."""

    plain: Arm
    off: Arm | None
    on: Arm


def make(name: str, entry: Entry, settings: dict[str, Any], algorithm: str = "ppo") -> Any:
    """An algorithm with an entry's intervention."""
    import purejaxrl_ext as prx

    interventions = (name,) if entry.named else ()
    return prx.make(algorithm, "CartPole-v1", metrics_every=0, interventions=interventions, **entry.needs | settings)


@functools.cache
def plain_arm(layer_norm: bool, num_seeds: int) -> Arm:
    """PPO without any intervention."""
    return Arm(make("", Entry(named=False), LAYER_NORM if layer_norm else {}), num_seeds)


def row(name: str, entry: Entry, num_seeds: int) -> Row:
    """An entry's arms, compiled."""
    off = None if entry.off is None else Arm(make(name, entry, entry.off), num_seeds)
    return Row(plain_arm("layer_norm" in entry.needs, num_seeds), off, Arm(make(name, entry, entry.on), num_seeds))


def measured_arms(num_seeds: int) -> dict[str, Arm]:
    """PPO that measures what its representation is every 10 updates, and more."""
    import purejaxrl_ext as prx
    from purejaxrl_ext.representation import churn, measures

    more = {
        "measures.units": measures.units,
        "measures.weights": measures.weights,
        "churn.update_churn": churn.update_churn,
    }
    made = partial(prx.make, "ppo", "CartPole-v1", metrics_every=10)
    kinds = {"built in": made()} | {f"built in, `{name}`": made(metrics=(f,)) for name, f in more.items()}
    kinds["all of these and `watch`"] = made(metrics=tuple(more.values()), interventions=("watch",))
    return {name: Arm(algorithm, num_seeds) for name, algorithm in kinds.items()}


def take_turns(arms: list[Arm], settings: Table) -> list[Any]:
    """Run some arms in turn; the parameters of each after the first turn, which is not counted."""
    import jax
    import numpy as np

    after = []
    for arm in arms:
        arm.begin()
        after.append(jax.tree.map(np.asarray, arm.go_on(settings.num_updates).params))
        arm.seconds.clear()
    for _ in range(settings.turns):
        for arm in arms:
            arm.go_on(settings.num_updates)
    return after


# --- what is found out ---------------------------------------------------------------------------------------------------


def ratio(arm: Arm, plain: Arm) -> str:
    """The median over turns of an arm's time by the plain arm's."""
    return f"{statistics.median(x / y for x, y in zip(arm.seconds, plain.seconds, strict=True)):.2f}"


def bits_changed(a: Any, b: Any) -> int:
    """Bits in which two trees of float32 differ, in the places that ``a`` has."""
    import jax
    import numpy as np

    count = 0
    for path, x in jax.tree_util.tree_leaves_with_path(a):
        y = b
        for part in path:
            y = y[part.key]
        differ = x.view(np.uint32) ^ y.view(np.uint32)
        count += int(np.unpackbits(differ.view(np.uint8)).sum())
    return count


def goes_on(row: Row) -> bool:
    """Whether a sweep of off and on that was stopped and resumed has, bit for bit, the states of one that was not."""
    import purejaxrl_ext as prx

    arms = {"on": row.on.algorithm} | ({"off": row.off.algorithm} if row.off else {})
    steps, seeds = row.on.algorithm.steps_per_update, len(row.on.runs.keys)
    sweep = partial(prx.sweep, arms, num_seeds=seeds, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        sweep(out=f"{folder}/x", total_steps=3 * steps)
        prx.resume(f"{folder}/x", total_steps=6 * steps, progress=False)
        sweep(out=f"{folder}/y", total_steps=6 * steps)
        return all(
            same(
                *(prx.load_state(f"{folder}/{run}", seed=1, **({"arm": arm} if len(arms) > 1 else {})) for run in "xy")
            )
            for arm in arms
        )


def same(a: Any, b: Any) -> bool:
    """Whether two States are, bit for bit."""
    import jax
    import numpy as np

    pairs = zip(*(jax.tree.leaves((s.params, s.opt_state, s.memory)) for s in (a, b)), strict=True)
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)


def taken_by(name: str, entry: Entry) -> tuple[str, list[str]]:
    """Which algorithms take it, and what the others say, by making and tracing each."""
    import jax

    takers, refusals = [], []
    for algorithm in TAKERS:
        try:
            made = make(name, entry, entry.on, algorithm)
            jax.eval_shape(made.step, jax.eval_shape(made.init, jax.random.key(0)))
            takers.append(algorithm)
        except (ValueError, TypeError) as error:
            refusals.append(f"- `{name}` with {algorithm}: {str(error).splitlines()[0]}")
    return "all" if len(takers) == len(TAKERS) else ", ".join(takers), refusals


def line(name: str, entry: Entry, settings: Table) -> tuple[str, list[str]]:
    """A row of the table, and refusals."""
    import purejaxrl_ext as prx
    from purejaxrl_ext.sweeps import program

    lines, files, bits, cost_off = ["–"] * 4
    if entry.named:
        intervention = prx.INTERVENTIONS[name]
        module = str(intervention.import_path).partition(":")[0]
        lines = str(lines_of_code(Path(sys.modules[module].__file__ or "")))
        files = str(files_that_name(intervention))
    arms = row(name, entry, settings.num_seeds)
    after = take_turns([arm for arm in arms if arm is not None], settings)
    cost_on = ratio(arms.on, arms.plain)
    if arms.off is not None:
        bits, cost_off = str(bits_changed(after[0], after[1])), ratio(arms.off, arms.plain)
    programs = len({id(arm.program) for arm in (arms.off or arms.plain, arms.on)})
    compiled = program.program.cache_info().misses
    exact = "yes" if goes_on(arms) else "no"
    # The sweeps above ran what was compiled before.
    programs += program.program.cache_info().misses - compiled
    takers, refusals = taken_by(name, entry)
    cells = [f"`{name}`", lines, files, bits, exact, str(programs), cost_off, cost_on, takers]
    return "| " + " | ".join(cells) + " |", refusals


def measuring(settings: Table) -> list[str]:
    """The table of what measuring costs."""
    plain, kinds = plain_arm(False, settings.num_seeds), measured_arms(settings.num_seeds)
    take_turns([plain, *kinds.values()], settings)
    rows = ["", "| measured every 10 updates | time over that of PPO that measures nothing |", "|:--|--:|"]
    return rows + [f"| {name} | {ratio(arm, plain)} |" for name, arm in kinds.items()]


def main(settings: Table) -> None:
    """Row by row, each said as soon as it is known."""
    began = time.perf_counter()
    unknown = [name for name in settings.only if name not in ENTRIES]
    if unknown:
        raise ValueError(f"only={unknown} is not allowed: it must be some of {', '.join(ENTRIES)}")
    entries = {name: entry for name, entry in ENTRIES.items() if not settings.only or name in settings.only}
    lines = [
        "| intervention | lines | files | bits changed when off | resumed exactly | programs of a sweep | off | on | taken by |",
        "|:--|--:|--:|--:|:--|--:|--:|--:|:--|",
    ]
    refusals: list[str] = []
    for name, entry in entries.items():
        text, refused = line(name, entry, settings)
        lines, refusals = [*lines, text], refusals + refused
        print("\n".join([text, *refused]), file=sys.stderr, flush=True)
    if settings.measures:
        lines += measuring(settings)
    each = 1e3 * statistics.median(plain_arm(False, settings.num_seeds).seconds) / settings.num_updates
    lines += ["", *(["Refusals:", "", *refusals, ""] if refusals else [])]
    lines += [
        f"{settings.turns} turns of {settings.num_updates} updates. Plain PPO: {each:.1f} ms of CPU time per update of "
        f"{settings.num_seeds} seeds. All took {time.perf_counter() - began:.0f} s."
    ]
    text = "\n".join(lines) + "\n"
    if settings.out is None:
        print(text)
    else:
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        settings.out.write_text(text)


if __name__ == "__main__":
    cli.run(main, __doc__, Table)
