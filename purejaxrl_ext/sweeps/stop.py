"""Ctrl-C and SIGTERM, read between chunks."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any


class Stop:
    """Turns the first Ctrl-C or SIGTERM into a flag, to be read between chunks; the second acts as ever.

    A handler may do no more: the state given to a running chunk is gone until the chunk returns.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            # A SIGTERM that somebody handles is theirs: submitit's jobs wait for the signal that sends them again.
            free = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
            self.before = {s: signal.signal(s, self._note) for s in [signal.SIGINT, *[signal.SIGTERM] * free]}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def raise_if_asked(self, message: str) -> None:
        """Stop now, with a message, if a signal has come."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt(message)
        if self.signal is not None:
            print(message, file=sys.stderr, flush=True)
            raise SystemExit(128 + self.signal)
