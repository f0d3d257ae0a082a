"""What the experiments' command lines share. Import it first: from then on Ctrl-C shows no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from types import TracebackType
from typing import Any

MISTAKES = (ValueError, TypeError, OSError, ImportError)


def _quietly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("\nstopped before anything was run", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _quietly


def whole_number(text: str) -> int:
    """An int as people write large ones: 1e6, 2.5e5 and 1_000_000 too.

    Raises:
        ValueError: no whole number.
    """
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number.adjusted() > 18 or number != int(number):
        raise ValueError(f"{text!r} is no whole number")
    return int(number)


def parse(settings: type, description: str | None = None, args: Sequence[str] | None = None) -> Any:
    """An instance of ``settings`` from the command line, or from ``args``."""
    import tyro  # not above: it takes a while, in which Ctrl-C may come
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def ints(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
        if info.type is not int:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda texts: whole_number(texts[0]),
            is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
            str_from_instance=lambda value: [str(value)],
        )

    return tyro.cli(settings, description=description, args=args, registry=registry)


def run(main: Callable[..., None], description: str | None, settings: type) -> None:
    """Call ``main`` with the command line's ``settings``; a user's mistake is one line, no traceback."""
    arguments = parse(settings, description)
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
