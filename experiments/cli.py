"""What the experiments' command lines share. Import it first: from then on Ctrl-C shows no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

MISTAKES = (ValueError, TypeError, OSError, ImportError)


def _quietly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("\nstopped before anything was run", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _quietly


def run(main: Callable[..., None], description: str | None, settings: type) -> None:
    """Call ``main`` with the command line's ``settings``; a user's mistake is one line, no traceback."""
    import tyro  # not above: it takes a while, in which Ctrl-C may come

    arguments: Any = tyro.cli(settings, description=description)
    try:
        if getattr(arguments, "distributed", False):
            from purejaxrl_ext import initialize

            # Before anything computes.
            initialize(arguments.coordinator, arguments.num_processes, arguments.process_id)
        main(arguments)
    except MISTAKES as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        raise SystemExit(130) from None
