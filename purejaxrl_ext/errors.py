"""Messages for bad input: each names the field, the value and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def check(ok: bool, field: str, value: Any, allowed: str) -> None:
    """Raise ``ValueError`` naming ``field``, its ``value`` and what is ``allowed`` unless ``ok``."""
    if not ok:
        raise ValueError(f"{field}={value!r} is not allowed: it must be {allowed}")


def is_int(value: Any) -> bool:
    """Whether it is an int; ``True`` is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def unknown_name(what: str, name: str, known: Iterable[str], more: str = "") -> str:
    """The message for a name that nobody knows: the nearest ones first."""
    known = sorted(known)
    lowered = {k.lower(): k for k in known}
    near = [lowered[k] for k in difflib.get_close_matches(str(name).lower(), lowered, n=3, cutoff=0.5)]
    near += [k for k in known if str(name).lower() in k.lower() and k not in near][:3]
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"unknown {what} {name!r}.{hint} Known: {', '.join(known)}. {more}".rstrip()
