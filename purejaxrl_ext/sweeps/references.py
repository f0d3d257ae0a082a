"""Settings as JSON and back: numbers as they are, arrays by value or digest, objects by import path and what they hold.

    {"import": "module:name"}                                    what a module holds under a name
    {"import": "module:name", "args": [...], "fields": {...}}    that, called
    {"object": "...", "contents": {...}}                         what only its maker can bring back, described
    {"array": "float32[50, 50]", "sha256": ..., "data": ...}     ``data`` where it is small

What is stored says what an arm is: a run goes on only with arms of equal settings, so whatever an object holds is in it.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import functools
import hashlib
import importlib
import inspect
import json
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

ARRAY_BYTES = 2**16  # of an array that is stored by value, at most
DEPTH = 8  # objects inside objects whose contents are told
_MARKS = {"import", "object", "array", "items"}


def plain(value: Any, depth: int = DEPTH) -> Any:
    """A setting as JSON; see the module. An array inside an object counts by its values, not by its repr.

    What is equal only to itself, such as a function, a class or an intervention, comes back by the name under which a module
    holds it; a dataclass, a flax module or a named tuple of a class that can be imported, by its fields.
    """
    if isinstance(value, enum.Enum):
        return _by_name(value, depth) or {"object": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth == 0:
        return {"object": _text(value)}
    if isinstance(value, list) or (isinstance(value, tuple) and not hasattr(value, "_fields")):
        return [plain(v, depth) for v in value]
    if isinstance(value, Mapping):
        if all(isinstance(k, str) for k in value) and not _MARKS & set(value):
            return {k: plain(v, depth) for k, v in value.items()}
        return {"items": [[plain(k, depth), plain(v, depth)] for k, v in value.items()]}
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return _array(value)
    ways = (_called, _by_name) if type(value).__eq__ is not object.__eq__ else (_by_name, _called)
    for way in ways:
        if (found := way(value, depth)) is not None:
            return found
    return {"object": _text(value)} | _contents(value, depth)


def restored(stored: Any) -> Any:
    """What :func:`plain` stored; lists are tuples again, since a dataclass that can be hashed has no list.

    Raises:
        ValueError: it cannot be imported here, or :func:`lost` names something in it.
    """
    if isinstance(stored, list):
        return tuple(restored(v) for v in stored)
    if not isinstance(stored, dict):
        return stored
    if "array" in stored or "object" in stored:
        return _restored_array(stored)
    if "items" in stored:
        return {restored(k): restored(v) for k, v in stored["items"]}
    if "import" not in stored:
        return {k: restored(v) for k, v in stored.items()}
    found = _imported(stored["import"])
    if "args" not in stored and "fields" not in stored:
        return found
    fields = {k: restored(v) for k, v in stored.get("fields", {}).items()}
    return found(*map(restored, stored.get("args", [])), **fields)


def lost(stored: Any) -> str | None:
    """What in a stored setting cannot be brought back, in words; None: all can."""
    if isinstance(stored, list):
        return next(filter(None, map(lost, stored)), None)
    if not isinstance(stored, dict):
        return None
    if "array" in stored:
        return None if "data" in stored else f"an array of {stored['array']}"
    if "object" in stored:
        return str(stored["object"])
    return lost([v for k, v in stored.items() if k != "contents" or "import" not in stored])


def difference(mine: Any, stored: Any) -> tuple[str, Any, Any] | None:
    """Where two stored settings first differ: the path to it as ``.walls`` or ``[0]``, and both values; None: nowhere."""
    if _canonical(mine) == _canonical(stored):
        return None
    if isinstance(mine, dict) and isinstance(stored, dict) and not {"array", "items"} & (mine.keys() | stored.keys()):
        pairs = [(k, mine.get(k), stored.get(k)) for k in sorted(mine.keys() | stored.keys())]
        # What it is says more than what it holds.
        pairs.sort(key=lambda pair: pair[0] not in ("import", "object"))
        steps = {"fields": "", "contents": "", "args": ""}
        found = [(steps.get(k, f".{k}"), difference(a, b)) for k, a, b in pairs]
    elif isinstance(mine, list) and isinstance(stored, list) and len(mine) == len(stored):
        found = [(f"[{i}]", difference(a, b)) for i, (a, b) in enumerate(zip(mine, stored, strict=True))]
    else:
        return "", mine, stored
    step, (path, a, b) = next(((step, inner) for step, inner in found if inner), ("", ("", mine, stored)))
    return ("", mine, stored) if step in (".import", ".object") else (step + path, a, b)


def _canonical(stored: Any) -> str:
    """As text, in which NaN equals NaN and 1 equals 1.0; an array is its type, shape and digest, whoever's it is."""
    if isinstance(stored, float) and stored.is_integer():
        stored = int(stored)
    if isinstance(stored, dict):
        kept = ("array", "sha256") if "array" in stored else sorted(stored)
        return f"{{{', '.join(f'{k}: {_canonical(stored.get(k))}' for k in kept)}}}"
    return f"[{', '.join(map(_canonical, stored))}]" if isinstance(stored, list | tuple) else json.dumps(stored)


def describe(stored: Any) -> str:
    """A stored setting for a message."""
    if isinstance(stored, dict) and "array" in stored:
        return f"an array {stored['array']} of sha256 {stored['sha256'][:12]}"
    text = repr(stored)
    return text if len(text) <= 200 else f"{text[:200]}…"


def import_path(value: Any, everywhere: bool = True) -> str | None:
    """``module:name`` under which a module holds this very object: its own name, or one found by looking; else None.

    Looked for where it, its class and the functions in it were defined, then ``everywhere``: in all imported modules.
    """
    own = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if all(isinstance(part, str) for part in own) and _is_at(value, *own):
        return f"{own[0]}:{own[1]}"
    for module in _modules(value, everywhere):
        for name, held in list(vars(module).items()):
            if held is value and name.isidentifier() and not name.startswith("__"):
                return f"{module.__name__}:{name}"
    return None


def _is_at(value: Any, module: Any, qualname: Any) -> bool:
    if module.startswith("__m"):
        return False  # __main__ is another module in another process
    try:
        return functools.reduce(getattr, qualname.split("."), sys.modules[module]) is value
    except (KeyError, AttributeError):
        return False


def _modules(value: Any, everywhere: bool) -> Iterator[ModuleType]:
    names = [getattr(part, "__module__", None) for part in (value, *(_fields(value) or {}).values())]
    likely = [name for name in names if isinstance(name, str)]
    for name in dict.fromkeys(likely + list(sys.modules) * everywhere):
        module = sys.modules.get(name)
        if isinstance(module, ModuleType) and module.__name__ == name and not name.startswith(("__m", "builtins")):
            yield module


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{name!r} of module {module!r} cannot be imported here ({error}): put the module where Python finds it, or "
            "give the arms themselves (arms=, or algorithm=)"
        ) from error


def _called(value: Any, depth: int) -> dict[str, Any] | None:
    """As a call that makes it again; None: none is known, or it makes something else."""
    stored = _call(value, depth)
    if stored is None or lost(stored):
        return None
    if depth < DEPTH:
        return stored  # what it is inside of is tried as a whole
    try:
        return stored if difference(_call(restored(stored), depth), stored) is None else None
    except Exception:
        return None  # then only its maker can bring it back


def _call(value: Any, depth: int) -> dict[str, Any] | None:
    args: list[Any] = []
    fields: Mapping[str, Any] = {}
    if isinstance(value, functools.partial):
        path, args, fields = "functools:partial", [value.func, *value.args], value.keywords
    elif inspect.ismethod(value):
        path, args = "builtins:getattr", [value.__self__, value.__name__]
    elif isinstance(value, np.dtype):
        path, args = "numpy:dtype", [value.str if value.kind != "V" else value.name]
    elif isinstance(value, set | frozenset):
        path, args = f"builtins:{type(value).__name__}", [sorted(value, key=repr)]
    elif isinstance(value, pathlib.PurePath):
        path, args = "pathlib:Path", [str(value)]
    else:
        found, inner = import_path(type(value), False), _fields(value)
        if found is None or inner is None:
            return None
        path, fields = found, inner
    called = {"args": [plain(v, depth - 1) for v in args]} if args else {}
    return {"import": path} | called | {"fields": {k: plain(v, depth - 1) for k, v in fields.items()}}


def _by_name(value: Any, depth: int) -> dict[str, Any] | None:
    """By the name under which a module holds it, and what it holds now, since that may change; None: under none."""
    if isinstance(value, enum.Enum):
        held = import_path(type(value), False)
        return {"import": f"{held}.{value.name}"} if held else None
    path = import_path(value, everywhere=depth == DEPTH)
    if path is None:
        return None
    return {"import": path} if _has_own_name(value) else {"import": path} | _contents(value, depth)


def _has_own_name(value: Any) -> bool:
    return inspect.isclass(value) or isinstance(value, ModuleType) or isinstance(getattr(value, "__name__", None), str)


def _fields(value: Any) -> dict[str, Any] | None:
    """What a record is made of: a dataclass, a flax module (without flax's own bookkeeping) or a named tuple."""
    if inspect.isclass(value):
        return None
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if not dataclasses.is_dataclass(value):
        return None
    names = [f.name for f in dataclasses.fields(value) if f.init]
    hidden = ("parent", "name") if isinstance(value, nn.Module) else ()
    return {name: getattr(value, name) for name in names if name not in hidden}


def _contents(value: Any, depth: int) -> dict[str, Any]:
    """What an object holds, as ``{"contents": ...}``; of a function its defaults and what it closed over."""
    if inspect.isfunction(value):
        held: dict[Any, Any] = dict(enumerate(value.__defaults__ or ())) | (value.__kwdefaults__ or {})
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                held[name] = cell.cell_contents
            except ValueError:
                continue  # not set yet
    elif inspect.isclass(value):
        held = {}
    else:
        held = _fields(value) or getattr(value, "__dict__", {})
        kinds = type(value).__mro__
        cached = [n for kind in kinds for n, v in vars(kind).items() if isinstance(v, functools.cached_property)]
        held = {k: v for k, v in held.items() if k not in cached}
    # Half as deep, since such objects may hold each other.
    inner = {str(k): plain(v, depth // 2) for k, v in held.items() if v is not value}
    return {"contents": inner} if inner else {}


def _text(value: Any) -> str:
    """What it calls itself, without its place in memory, which is another in each process."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
    return text if len(text) <= 200 else f"{text[:200]}… sha256 {hashlib.sha256(text.encode()).hexdigest()}"


def _array(value: Any) -> Any:
    """A scalar as a number; an array by its type, shape and digest, and by value where it is small."""
    kind = "jax" if isinstance(value, jax.Array) else "numpy"
    if kind == "jax" and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        data = plain(np.asarray(jax.random.key_data(value)))
        return {
            "import": "jax.random:wrap_key_data",
            "args": [data],
            "fields": {"impl": str(jax.random.key_impl(value))},
        }
    array = np.asarray(value)
    if array.ndim == 0 and array.dtype.kind in "biufU":
        return array.item()
    if array.dtype.hasobject or array.dtype.names:
        return {"object": f"array {array.dtype}{list(array.shape)}", "contents": {"values": plain(array.tolist())}}
    name = array.dtype.name if array.dtype.kind == "V" else array.dtype.str
    raw = np.ascontiguousarray(array).tobytes()
    stored = {"array": f"{array.dtype}{list(array.shape)}", "sha256": hashlib.sha256(raw).hexdigest()}
    if len(raw) > ARRAY_BYTES:
        return stored
    return stored | {"data": base64.b64encode(raw).decode(), "dtype": name, "shape": list(array.shape), "kind": kind}


def _restored_array(stored: dict[str, Any]) -> Any:
    if "data" not in stored:
        raise ValueError(f"{lost(stored)} cannot be brought back: only its description is stored")
    raw = np.frombuffer(base64.b64decode(stored["data"]), np.dtype(stored["dtype"]))
    array = raw.reshape(stored["shape"]).copy()
    return jnp.asarray(array) if stored["kind"] == "jax" else array
