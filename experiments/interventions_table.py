"""What each intervention that ships takes: lines, bits that it changes when off, whether a stopped run goes on exactly and its
setting is swept in one program, and seconds per update of PPO on CartPole, 8 seeds side by side, over plain PPO's.

Plain, off and on take turns; the medians of their ratios within a turn are shown.
"""

from __future__ import annotations

import ast
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cli

INF = float("inf")
# The setting that is swept: off, and as it is measured.
SWITCH = {
    "l2": ("l2_coef", 0.0, 1e-4),
    "weight_decay": ("weight_decay_coef", 0.0, 0.01),
    "l2_init": ("l2_init_coef", 0.0, 1e-3),
    "shrink_perturb": ("shrink_perturb_every", INF, 1.0),
    "redo": ("redo_every", INF, 1.0),
    "adam_reset": ("adam_reset_every", INF, 1.0),
    "adam_rel": ("adam_rel_every", INF, 1.0),
    "weight_clipping": ("weight_clipping_kappa", INF, 2.0),
    "chain": ("chain_coef", 0.0, 1.0),
}


@dataclass(frozen=True)
class Table:
    """Settings of the table."""

    num_seeds: int = 8
    """seeds side by side"""
    num_updates: int = 40
    """updates of each turn"""
    turns: int = 7
    """turns that plain, off and on take"""
    out: Path | None = None
    """a file for the table; else it is printed"""


def lines_of_code(path: str) -> int:
    """Lines that hold code: no docstring, comment or blank line."""
    source = Path(path).read_text()
    tree = ast.parse(source)
    held = {n for node in ast.walk(tree) if isinstance(node, ast.stmt) for n in range(node.lineno, node.end_lineno + 1)}  # type: ignore[operator]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            first = node.body[0]
            held -= set(range(first.lineno, first.end_lineno + 1))  # type: ignore[operator]
    lines = source.splitlines()
    return sum(bool(lines[n - 1].strip()) and not lines[n - 1].strip().startswith("#") for n in held)


def file_of(intervention: Any) -> str:
    """Where it is written."""
    import inspect

    hook = intervention.penalty or intervention.before or intervention.each or intervention.after
    return inspect.getsourcefile(hook) or ""


class Timed:
    """An algorithm compiled for several seeds and any number of updates."""

    def __init__(self, algorithm: Any, num_seeds: int):
        import jax

        from purejaxrl_ext.types import State

        axes = State.axes()

        def run(state: State, hparams: Any, num_updates: Any) -> State:
            def one(state: State) -> State:
                return jax.lax.fori_loop(0, num_updates, lambda _, s: algorithm.loop.step(s, hparams)[0], state)

            return jax.vmap(one, in_axes=(axes,), out_axes=axes)(state)

        keys = jax.vmap(jax.random.key)(jax.numpy.arange(num_seeds))
        self.start = jax.jit(jax.vmap(algorithm.init, out_axes=axes))(keys)
        self.hparams = jax.tree.map(jax.numpy.float32, algorithm.hparams)
        self.run = jax.jit(run)

    def __call__(self, num_updates: int, **settings: float) -> tuple[Any, float]:
        """The states after some updates, and the seconds that they took."""
        import jax

        hparams = self.hparams.replace(**{k: jax.numpy.float32(v) for k, v in settings.items()})
        began = time.perf_counter()
        state = jax.block_until_ready(self.run(self.start, hparams, jax.numpy.int32(num_updates)))
        return state, time.perf_counter() - began


def same(a: Any, b: Any) -> bool:
    """Bit for bit."""
    import jax
    import numpy as np

    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)


def bits_changed(a: Any, b: Any) -> int:
    """Bits in which two trees of float32 differ."""
    import jax
    import numpy as np

    count = 0
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        differ = np.asarray(x).view(np.uint32) ^ np.asarray(y).view(np.uint32)
        count += int(np.unpackbits(differ.view(np.uint8)).sum())
    return count


def stopped_and_swept(make: Any, name: str) -> tuple[bool, int]:
    """Whether a sweep over off and on that was extended is the one of that length, and how many programs it took."""
    import purejaxrl_ext as prx
    from purejaxrl_ext.sweeps import program

    setting, off, on = SWITCH[name]
    algorithm = make(interventions=(name,))
    sweep = partial(prx.sweep, algorithm, grid={setting: [off, on]}, num_seeds=2, progress=False)
    before, steps = program.program.cache_info().misses, algorithm.steps_per_update
    with tempfile.TemporaryDirectory() as folder:
        sweep(out=f"{folder}/x", total_steps=4 * steps)
        prx.resume(f"{folder}/x", total_steps=8 * steps, progress=False)
        sweep(out=f"{folder}/y", total_steps=8 * steps)
        programs = program.program.cache_info().misses - before
        states = [prx.load_state(f"{folder}/{run}", seed=1, **{setting: value}) for value in (off, on) for run in "xy"]
    parts = [(s.params, s.opt_state, s.memory) for s in states]
    return same(parts[0], parts[1]) and same(parts[2], parts[3]), programs


def main(settings: Table) -> None:
    import purejaxrl_ext as prx

    make = partial(prx.make, "ppo", "CartPole-v1", metrics_every=0)
    timed = {name: Timed(make(interventions=(name,) if name else ()), settings.num_seeds) for name in ("", *SWITCH)}
    kinds = {("", "plain"): dict[str, float]()}
    for name, (setting, off, on) in SWITCH.items():
        kinds |= {(name, "off"): {setting: off}, (name, "on"): {setting: on}}
    after = {kind: timed[kind[0]](settings.num_updates, **given)[0] for kind, given in kinds.items()}
    seconds: dict[tuple[str, str], list[float]] = {kind: [] for kind in kinds}
    for _ in range(settings.turns):
        for kind, given in kinds.items():
            seconds[kind].append(timed[kind[0]](settings.num_updates, **given)[1])
    plain = seconds["", "plain"]

    def cost(name: str, kind: str) -> float:
        return statistics.median(x / y for x, y in zip(seconds[name, kind], plain, strict=True))

    rows = [
        "| intervention | lines | files | bits changed when off | resumed exactly | programs of a sweep | cost off | cost on |",
        "|:--|--:|--:|--:|:--|--:|--:|--:|",
    ]
    for name in SWITCH:
        exact, programs = stopped_and_swept(make, name)
        bits = bits_changed(after["", "plain"].params, after[name, "off"].params)
        rows.append(
            f"| `{name}` | {lines_of_code(file_of(prx.INTERVENTIONS[name]))} | 1 | {bits} | {'yes' if exact else 'no'} | "
            f"{programs} | {cost(name, 'off'):.2f} | {cost(name, 'on'):.2f} |"
        )
    each = 1e3 * statistics.median(plain) / settings.num_updates
    rows += [
        "",
        f"Plain PPO: {each:.1f} ms per update of {settings.num_seeds} seeds. `adam_reset` and `adam_rel` share a file.",
    ]
    text = "\n".join(rows) + "\n"
    if settings.out is None:
        print(text)
    else:
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        settings.out.write_text(text)


if __name__ == "__main__":
    cli.run(main, __doc__, Table)
