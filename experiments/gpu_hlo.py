"""What XLA says of a program for a GPU, read: the tree of its loops with the kernels of each, and what the host launches.

Two texts are read. The optimised HLO has one instruction for each kernel (a fusion, a copy, a library call), so that kernels,
bytes written, and the source line of each are known. The sequence of thunks, which XLA writes to ``xla_dump_to``, says which of
them the host launches one by one and which lie in a command buffer (a CUDA graph), launched all at once. No jax is needed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import PurePosixPath

# Instructions that are no kernel.
FREE = {"parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all", "add-dependency", "partition-id"}
FREE |= {"replica-id", "opt-barrier", "async-done", "async-update", "copy-done", "get-dimension-size", "domain"}
SIZES = {"pred": 1, "bf16": 2, "f16": 2, "token": 0}
# What the functions that JAX loops over are called, in words.
WORDS = {
    "env_step": "rollout step",
    "minibatch": "minibatch",
    "one_step": "rollout step",
    "update_minbatch": "minibatch",
    "update_minibatch": "minibatch",
    "learn_phase": "minibatch",
    "get_advantages": "GAE scan",
    "backward": "scan of returns",
    "discounted_sum": "scan of returns",
    "update_step": "update",
    "update_epoch": "epoch",
    "learn_epoch": "epoch",
    "train_iteration": "update",
    "representation_metrics": "representation metrics",
}
Place = tuple[str, str, int]  # function, file, line


@dataclass
class Kernel:
    """One kernel, or copy.

    Attributes:
        name, kind: HLO's instruction and opcode, or the library's function.
        written: bytes; of what is written in place only that part.
        flops: of matrix products and convolutions.
        stack: the source it comes from, innermost first; op: JAX's operation.
    """

    name: str
    kind: str
    written: int
    flops: float
    stack: list[Place]
    op: str


@dataclass
class Loop:
    """The entry, a loop's body or a branch.

    Attributes:
        label: what it does, in words.
        times: trips; None: known only as it runs.
        kernels: of one trip, without those of ``inner``.
        taken: False: a branch of a conditional of which another is counted: it counts nowhere.
        is_while: a loop, not a branch or the entry.
        launches: that the host does in a trip, inner loops included; None: not known.
    """

    label: str
    times: int | None = 1
    kernels: list[Kernel] = field(default_factory=list)
    inner: list[Loop] = field(default_factory=list)
    taken: bool = True
    is_while: bool = False
    launches: int | None = None

    def total(self, of: str = "kernels") -> float:
        """Kernels, bytes "written" or "flops" of one trip with those of all inner loops' trips."""
        own = len(self.kernels) if of == "kernels" else sum(getattr(k, of) for k in self.kernels)
        return own + sum((loop.times or 1) * loop.total(of) for loop in self.inner if loop.taken)

    def repeated(self, times: float) -> Loop:
        """The outermost loop of so many trips, rounded up or down.

        Raises:
            ValueError: there is none.
        """
        whiles = [loop for _, loop in self.walk() if loop.is_while]
        for loop in whiles:
            if loop.times and abs(loop.times - times) < 1.0:
                return loop
        have = ", ".join(f"{loop.times} × {loop.label}" for loop in whiles)
        raise ValueError(f"the program has no loop of {times:,.1f} updates; it has {have}")

    def counted(self) -> Iterator[Loop]:
        """This and all inner loops that count."""
        yield self
        for loop in self.inner:
            if loop.taken:
                yield from loop.counted()

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Loop]]:
        """This and all inner loops, with how deep they lie."""
        yield depth, self
        for loop in self.inner:
            yield from loop.walk(depth + 1)


@dataclass
class Instruction:
    """A line of HLO."""

    name: str
    type: str
    opcode: str
    operands: list[str]
    line: str
    is_root: bool

    def attribute(self, name: str) -> str | None:
        """As ``body`` or ``calls``: a computation's name."""
        found = re.search(rf"[ ,]{name}=%?([\w.\-]+)", self.line)
        return found and found[1]


class Module:
    """An HLO text."""

    def __init__(self, text: str, branch: Callable = min):
        self.branch = branch
        self.computations: dict[str, list[Instruction]] = {}
        self.entry, now = "", None
        for line in text.splitlines():
            if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*-> .*\{$", line):
                now = self.computations[head[2]] = []
                self.entry = head[2] if head[1] else self.entry
            elif line.startswith("}"):
                now = None
            elif now is not None and (found := instruction(line)):
                now.append(found)
        tables = [_table(text, name) for name in ("FileNames", "FunctionNames", "FileLocations", "StackFrames")]
        self.files, self.functions, self.locations, self.frames = tables

    def stack(self, line: str) -> list[Place]:
        """Where an instruction comes from: function, file and line of each call, the innermost first."""
        found, calls = re.search(r"stack_frame_id=(\d+)", line), []
        at = int(found[1]) if found else 0
        while frame := self.frames.get(str(at)):
            location = self.locations[_number("file_location_id", frame)]
            name = self.functions[_number("function_name_id", location)].strip('"')
            file = self.files[_number("file_name_id", location)].strip('"')
            calls.append((name, PurePosixPath(file).name, int(_number("line", location))))
            at = int(_number("parent_frame_id", frame)) - 1  # 1: none
        return calls

    def called(self, name: str) -> Iterator[Instruction]:
        """A computation's instructions and those of its fusions."""
        for x in self.computations.get(name, []):
            yield x
            if x.opcode == "fusion":
                yield from self.called(x.attribute("calls") or "")

    def label(self, loop: Instruction, body: str) -> str:
        """What a loop does: the function that it repeats, in words if it is a known one, and where it stands."""
        stack = _unpacked(self.stack(loop.line))
        if not stack:
            name = re.search(r'op_name="([^"]*)"', loop.line)
            return name[1] if name else body
        function, file, line = stack[0]
        inside = Counter(
            next((name for name, *_ in calls[at - 1 :: -1] if not name.endswith(">")), function)
            for x in self.called(body)
            if stack[0] in (calls := _unpacked(self.stack(x.line))) and (at := calls.index(stack[0]))
        )
        repeated = (inside.most_common(1)[0][0] if inside else function).split(".")[-1].strip("_")
        return f"{WORDS.get(repeated, repeated)} ({_short(function)}, {file}:{line})"


def _unpacked(calls: list[Place]) -> list[Place]:
    """A stack without what packs a loop's arrays: who loops is whoever called it."""
    return [call for call in calls if call[1] != "packing.py"]


def count_launches(thunks: str, loops: Loop, branch: Callable = min) -> None:
    """Fill in ``launches`` of a program's loops from its sequence of thunks; ``branch`` as of :func:`read`."""
    root = _Thunk("kSequential")
    around = [(-1, root)]
    for line in thunks.splitlines():
        if mark := re.match(r"(\s*)(condition|body|\w+_branch|branch_\w+):$", line):
            # "condition:" stands at the margin, however deep its loop.
            indent = len(mark[1]) if mark[1] else around[-1][0] + 1
            while around[-1][0] >= indent:
                around.pop()
            around[-1][1].parts.append((mark[2], []))
        elif found := re.match(r"(\s*)\d+: (k\w+)", line):
            while around[-1][0] >= len(found[1]):
                around.pop()
            thunk = _Thunk(found[2])
            around[-1][1].parts[-1][1].append(thunk)
            around.append((len(found[1]), thunk))
    whiles = [loop for _, loop in loops.walk() if loop.is_while]
    if len(list(root.whiles())) == len(whiles):
        loops.launches = root.launches(iter(whiles), branch)


class _Thunk:
    """A step of what the host does; ``parts`` are a loop's condition and body, a conditional's branches, or all there is."""

    def __init__(self, kind: str):
        self.kind = kind
        self.parts: list[tuple[str, list[_Thunk]]] = [("", [])]

    def whiles(self) -> Iterator[_Thunk]:
        if self.kind == "kWhile":
            yield self
        for _, thunks in self.parts:
            for thunk in thunks:
                yield from thunk.whiles()

    def launches(self, loops: Iterator[Loop], branch: Callable) -> int:
        """By the host; ``loops`` are the whiles in the order in which the program has them."""
        if self.kind == "kCommandBuffer":
            for _ in self.whiles():
                next(loops).launches = 0
            return 1
        loop = next(loops) if self.kind == "kWhile" else None
        of = {name: sum([thunk.launches(loops, branch) for thunk in thunks]) for name, thunks in self.parts}
        if loop is not None:
            loop.launches = of.get("body", 0)
            return (loop.times or 1) * loop.launches + (0 if loop.times else of.get("condition", 0))
        if self.kind == "kConditional":
            return branch(n for name, n in of.items() if name)
        return of[""] if self.kind == "kSequential" else 1


def instruction(line: str) -> Instruction | None:
    """A line of a computation, taken apart."""
    found = re.match(r"\s+(ROOT )?%?([\w.\-]+) = (.*)$", line)
    if not found:
        return None
    depth, end, rest = 0, 0, found[3]
    for end, character in enumerate(rest):  # noqa: B007
        depth += (character in "([{") - (character in ")]}")
        if character == " " and depth == 0:
            break
    call = re.match(r"([\w\-]+)\(", rest[end + 1 :])
    if not call:
        return None
    inside = rest[end + 1 + call.end() :].split(")", 1)[0]
    return Instruction(found[2], rest[:end], call[1], re.findall(r"%([\w.\-]+)", inside), line, bool(found[1]))


def shapes(kind: str) -> list[tuple[str, list[int]]]:
    """Element type and dimensions of each part of a type."""
    return [(t, [int(d) for d in dims.split(",") if d]) for t, dims in re.findall(r"(\w+)\[([\d,]*)\]", kind)]


def num_bytes(kind: str) -> int:
    """Bytes of a type, all parts of a tuple."""
    return sum(_size(t) * prod(dims) for t, dims in shapes(kind))


def read(text: str, branch: Callable = min) -> Loop:
    """The tree of a program's loops; of a conditional the cheapest branch is counted, or with ``max`` the dearest."""
    module = Module(text, branch)
    loop = Loop("outside the loops")
    _fill(module, module.entry, loop)
    return loop


def _fill(module: Module, name: str, loop: Loop) -> None:
    """Put what a computation does into ``loop``."""
    for x in module.computations[name]:
        if x.opcode == "while":
            body, trips = x.attribute("body") or "", re.search(r'known_trip_count"?:\{"n":"(\d+)"', x.line)
            inner = Loop(module.label(x, body), int(trips[1]) if trips else None, is_while=True)
            _fill(module, body, inner)
            loop.inner.append(inner)
        elif x.opcode == "conditional":
            loop.inner += _branches(module, x)
        elif x.opcode in ("call", "async-start") and (called := x.attribute("to_apply") or x.attribute("calls")):
            _fill(module, called, loop)
        elif x.opcode not in FREE:
            loop.kernels.append(_kernel(module, module.computations[name], x))


def _branches(module: Module, x: Instruction) -> list[Loop]:
    """A conditional's branches; one of them counts."""
    listed = re.search(r"branch_computations=\{([^}]*)\}", x.line)
    names = listed[1].replace("%", "").split(", ") if listed else []
    # In the order in which the sequence of thunks has them.
    names = names or [x.attribute(f"{side}_computation") or "" for side in ("true", "false")]
    branches = [Loop(f"a branch of {module.label(x, name)}", taken=False) for name in names]
    for branch, name in zip(branches, names, strict=True):
        _fill(module, name, branch)
    module.branch(branches, key=Loop.total).taken = True
    return branches


def _kernel(module: Module, around: list[Instruction], x: Instruction) -> Kernel:
    kind = x.opcode
    if kind == "custom-call":
        kind = (re.search(r'custom_call_target="([^"]*)"', x.line) or ["", kind])[1]
    named = re.search(r'op_name="([^"]*)"', x.line)
    inside = list(module.called(x.attribute("calls") or "")) if x.opcode == "fusion" else around
    types = {y.name: y.type for y in inside}
    flops = sum(_flops(y, types) for y in (inside if x.opcode == "fusion" else [x]))
    op = "/".join(named[1].split("/")[-2:]) if named else ""
    return Kernel(x.name, kind, _written(module, around, x), flops, module.stack(x.line), op)


def _written(module: Module, around: list[Instruction], x: Instruction) -> int:
    """Bytes that a kernel writes; into an array that it updates in place, the update alone."""
    if x.opcode in ("copy-start",):
        return num_bytes(x.type) // 2
    if x.opcode != "fusion":
        return _in_place(x, {y.name: y for y in around})
    inside = {y.name: y for y in module.computations.get(x.attribute("calls") or "", [])}
    root = next((y for y in inside.values() if y.is_root), x)
    parts = [inside[name] for name in root.operands] if root.opcode == "tuple" else [root]
    return sum(_in_place(part, inside) for part in parts)


def _in_place(x: Instruction, around: dict[str, Instruction]) -> int:
    while x.opcode == "bitcast" and x.operands and x.operands[0] in around:
        x = around[x.operands[0]]
    update = {"dynamic-update-slice": 1, "scatter": 2}.get(x.opcode)
    if update is None or len(x.operands) <= update or x.operands[update] not in around:
        return num_bytes(x.type)
    return num_bytes(around[x.operands[update]].type)


def _flops(x: Instruction, types: dict[str, str]) -> float:
    """Of a matrix product or a convolution: two for each product that enters a sum."""
    is_product = x.opcode == "dot" or "gemm" in x.line.split("custom_call_target=")[-1][:30]
    if is_product and x.operands and x.operands[0] in types:
        dims = shapes(types[x.operands[0]])[0][1]
        found = re.search(r'lhs_contracting_dim(?:s=\{|ensions":\[)([^}\]]*)', x.line)
        over = [int(d) for d in re.findall(r"\d+", found[1])] if found else []
        return 2.0 * prod(shapes(x.type)[0][1]) * prod(dims[d] for d in over)
    labels = re.search(r"dim_labels=\w+_(\w+)->", x.line)
    if labels and len(x.operands) > 1 and x.operands[1] in types:
        kernel = shapes(types[x.operands[1]])[0][1]
        return 2.0 * prod(shapes(x.type)[0][1]) * prod(kernel) / max(kernel[labels[1].index("o")], 1)
    return 0.0


def _short(function: str) -> str:
    return function.replace(".<locals>", "").split(".")[-1]


def _size(element: str) -> int:
    bits = re.search(r"\d+", element)
    return SIZES.get(element, max(int(bits[0]) // 8, 1) if bits else 1)


def _table(text: str, name: str) -> dict[str, str]:
    found = re.search(rf"^{name}\n(.*?)\n\n", text, re.DOTALL | re.MULTILINE)
    return dict(row.split(" ", 1) for row in found[1].splitlines()) if found else {}


def _number(name: str, row: str) -> str:
    return (re.search(rf"\b{name}=(\d+)", row) or ["", "0"])[1]
