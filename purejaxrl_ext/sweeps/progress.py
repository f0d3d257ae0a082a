"""Progress of a sweep: a bar on a terminal, else one line a minute."""

from __future__ import annotations

import sys
import time
import warnings
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINE_SECONDS = 60.0


class Progress:
    """Shows, per arm: environment steps of each run, steps/s of all runs together, time left, and the return so far.

    The return is the mean ``episode_return`` over all runs and the last twentieth of their steps, however they were cut into
    chunks.

    Args:
        shown: False shows nothing but warnings.
        lengths: environment steps of each run, by arm.
        waves: how many of them run one after another.
    """

    def __init__(self, shown: bool, lengths: dict[str, int], waves: Mapping[str, int]):
        self.lengths = lengths
        self.totals = {arm: steps * waves[arm] for arm, steps in lengths.items()}
        self.console = Console(stderr=True)
        self.lines = shown and not self.console.is_terminal
        self.bar: Bar | None = None
        self.began = self.printed = time.perf_counter()
        self.rate = 0.0
        self.done = dict.fromkeys(lengths, 0)
        self.recent: dict[str, Recent] = {}
        self.said: set[str] = set()
        self.tasks: dict[str, Any] = {}
        if shown and self.console.is_terminal:
            self.bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[steps]}  {task.fields[rate]}  {task.fields[value]}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            for arm, total in self.totals.items():
                self.tasks[arm] = self.bar.add_task(arm, total=total, start=False, steps="waiting", rate="", value="")

    def __enter__(self) -> Progress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def compiling(self, arm: str) -> None:
        """An arm's program is being compiled, which may take a while; said off a terminal once."""
        if self.bar:
            self.bar.update(self.tasks[arm], rate="compiling")
        elif self.lines and self.done[arm] == 0:
            print(f"{arm}: compiling", file=sys.stderr, flush=True)

    def advance(self, arm: str, steps: int, gained: int, returns: np.ndarray) -> None:
        """``steps`` more of each run are done, ``gained`` over all runs together; ``episode_return`` ``[..., updates]``.

        ``gained`` is 0 for what was done before this process.
        """
        now = time.perf_counter()
        self.rate = gained / max(now - self.began, 1e-9)
        self.began = now
        if returns.shape[-1]:
            recent = self.recent.setdefault(arm, Recent(steps // returns.shape[-1], self.lengths[arm] // 20))
            recent.add(returns)
        before = self.done[arm]
        steps = self.done[arm] = before + steps
        value = str(self.recent.get(arm, ""))
        total = self.totals[arm]
        if self.bar:
            self.bar.start_task(self.tasks[arm])
            text = f"{steps:,}/{total:,} steps"
            self.bar.update(self.tasks[arm], completed=steps, steps=text, rate=f"{self.rate:,.0f}/s", value=value)
        elif self.lines and (now - self.printed > LINE_SECONDS or before < total <= steps):
            self.printed = now
            print(
                f"{arm}: {steps:,}/{total:,} steps, {self.rate:,.0f} steps/s, {value}",
                file=sys.stderr,
                flush=True,
            )

    def more_waves(self, arm: str, count: int) -> None:
        """An arm has so many waves more than it had."""
        self.totals[arm] += count * self.lengths[arm]
        if self.bar:
            self.bar.update(self.tasks[arm], total=self.totals[arm])

    def warn(self, message: str, once: str | None = None) -> None:
        """Said whether or not progress is shown; of those of one name ``once`` the first alone."""
        if once is None or once not in self.said:
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        self.said |= set() if once is None else {once}


class Recent:
    """The mean return over an arm's last updates.

    Args:
        steps: environment steps of an update.
        span: environment steps to look back on; an update at least.
    """

    def __init__(self, steps: int, span: int):
        self.steps = steps
        self.sums: deque[tuple[float, int]] = deque(maxlen=max(1, span // steps))

    def add(self, returns: np.ndarray) -> None:
        """Further updates, ``[..., updates]``, NaN where no episode ended."""
        returns = returns[..., -(self.sums.maxlen or 1) :].astype(np.float64)
        finite = np.isfinite(returns)
        axes = tuple(range(returns.ndim - 1))
        sums, counts = np.where(finite, returns, 0.0).sum(axes), finite.sum(axes)
        self.sums.extend(zip(sums.tolist(), counts.tolist(), strict=True))

    def __str__(self) -> str:
        total, count = (sum(part) for part in zip(*self.sums, strict=True))
        mean = f"{total / count:.4g}" if count else "-"
        return f"return {mean} (last {len(self.sums) * self.steps:,} steps)"
