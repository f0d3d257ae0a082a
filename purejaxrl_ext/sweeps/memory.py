"""The memory there is, and how many seeds of an arm fit into it at once."""

from __future__ import annotations

import math
from pathlib import Path

import jax
import numpy as np
import psutil

from purejaxrl_ext.sweeps.program import compiled, lay_out
from purejaxrl_ext.types import Algorithm

MEMORY_SHARE = 0.8  # of what is available, that a wave may need


def fitting_width(name: str, algorithm: Algorithm, grid: dict[str, list[float]], width: int, copies: int) -> int:
    """The most seeds, up to ``width``, whose program fits into the memory there is, by the compiler's own count.

    Args:
        name, algorithm: the arm.
        grid: swept settings: a wave has every combination of them.
        width: seeds.
        copies: of the State that are held besides the program's own, on the host.

    Raises:
        MemoryError: not even one seed fits.
    """
    while True:
        built = compiled(algorithm, lay_out(algorithm, list(range(width)), grid))
        need = built.memory + copies * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(built.state))
        limit = MEMORY_SHARE * available_memory()
        if need <= limit:
            return width
        if width == 1:
            cells = int(np.prod([len(v) for v in grid.values()]))
            raise MemoryError(
                f"arm {name!r}: one seed of its {cells} grid cells needs {need / 2**30:.2f} GiB, and "
                f"{limit / 2**30:.2f} GiB may be used; make the grid, num_envs or the replay smaller"
            )
        width = max(1, min(width // 2, int(width * limit / need)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device said that its memory is full."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def available_memory() -> float:
    """Bytes that this process may still use, of its devices or of the machine whose cores they are; infinite if unknown."""
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        return min(psutil.virtual_memory().available, _cgroup_memory())
    stats = [device.memory_stats() or {} for device in devices]
    return sum(s.get("bytes_limit", math.inf) - s.get("bytes_in_use", 0) for s in stats)


def _cgroup_memory(root: Path = Path("/")) -> float:
    """What a container or a cluster's job has left of its own limit, which the machine's figures do not show."""
    left = math.inf
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return left
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            top, names, cached = root / "sys/fs/cgroup", ("memory.max", "memory.current"), "inactive_file"
        elif "memory" in controllers.split(","):  # version 1
            top, names = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
            cached = "total_inactive_file"
        else:
            continue
        # The limits of all groups around it hold too. From inside a container its own group may be the top.
        folder = top / group.lstrip("/")
        for at in (folder, *folder.parents[: len(folder.relative_to(top).parts)]):
            try:
                limit, used = ((at / name).read_text().strip() for name in names)
                stat = dict(row.split() for row in (at / "memory.stat").read_text().splitlines())
            except OSError:
                continue
            if limit != "max":
                # The system gives back what it merely keeps of files that were read or written.
                left = min(left, int(limit) - int(used) + int(stat.get(cached, 0)))
    return left
