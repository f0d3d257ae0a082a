"""What is looked at before a sweep computes or writes anything: where it shall write, and how JAX and this process stand."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import jax

from purejaxrl_ext.errors import check


def run_path(out: Any, name: str = "out") -> Path:
    """A run's directory, absolute and with ``~`` in full at once: a later ``os.chdir`` changes nothing.

    Raises:
        ValueError: a URL, of which a local directory would be made, an empty text, or nobody's home.
        TypeError: neither a text nor a path.
    """
    if not isinstance(out, str | os.PathLike) or isinstance(os.fspath(out), bytes):
        raise TypeError(f"{name}={out!r} is not allowed: it must be a path, as a text or a pathlib.Path")
    text = os.fspath(out)
    # A Path has one slash left of the two.
    scheme = re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", text)
    check(scheme is None, name, text, "a directory of this machine's file system (a mounted one will do), not a URL")
    check(text != "", name, text, "the name of a directory")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{name}={text!r} is not allowed: {error}") from error


# Flags of JAX under which no sweep can run, and what to do instead.
_FATAL = {
    "jax_debug_nans": "metrics are NaN wherever they were not measured. A run's diverged_at says where it stopped being finite",
    "jax_disable_jit": "a sweep is one compiled program. Call algorithm.init and algorithm.step to go through an update by hand",
}


def check_flags() -> None:
    """Raise ``ValueError`` where a debugging flag of JAX is on under which no sweep can run."""
    for flag, why in _FATAL.items():
        if getattr(jax.config, flag):
            raise ValueError(
                f"{flag}=True (or {flag.upper()}=1 in the environment) is not allowed in a sweep: {why}. "
                f"Turn it off by jax.config.update({flag!r}, False)"
            )


def conditions() -> dict[str, Any]:
    """Settings of JAX that numbers depend on, or that a State must have been saved under to be read."""
    names = ("enable_x64", "default_prng_impl", "threefry_partitionable", "default_matmul_precision")
    return {name: getattr(jax.config, f"jax_{name}") for name in names}


def check_conditions(path: Path, config: dict[str, Any]) -> None:
    """Raise ``ValueError`` where a run's States cannot be read as JAX is set now, before anything of the run changes.

    Args:
        path: the run's directory.
        config: its ``config.json``.
    """
    now = conditions()
    for name in ("enable_x64", "default_prng_impl"):
        before = config["conditions"][name]
        if now[name] != before:
            raise ValueError(
                f"the run {str(path)!r} was made with jax_{name}={before!r}, and here it is {now[name]!r}: its states "
                f"cannot be read so. Call jax.config.update('jax_{name}', {before!r}) first, or unset "
                f"JAX_{name.upper()} in the environment"
            )
