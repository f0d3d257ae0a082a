"""Locks on a run's directory. They are ``flock``s, which the system takes back when a process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hold(path: Path, name: str, what: str, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold a lock on something in a run's directory, or say who holds it.

    Args:
        path: the run's directory.
        name: of the lock.
        what: it protects, for the message.
        shared: others may hold it too, as long as all share it.
        wait: for whoever holds it.

    Raises:
        BlockingIOError: another process holds it.
    """
    file = path / "locks" / f"{name}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as lock:
        kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.flock(lock, kind)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise BlockingIOError(
                error.errno, f"{what} of the run {str(path)!r} is being worked on by another process ({holder})"
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
