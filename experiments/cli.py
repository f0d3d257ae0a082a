"""What the experiments' command lines share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import tyro

MISTAKES = (ValueError, TypeError, OSError, ImportError)


def run(main: Callable[..., None], description: str, settings: type) -> None:
    """Call ``main`` with the command line's ``settings``; a user's mistake is one line, no traceback."""
    arguments: Any = tyro.cli(settings, description=description)
    try:
        main(arguments)
    except MISTAKES as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
