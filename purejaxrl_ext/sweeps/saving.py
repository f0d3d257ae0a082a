"""How orbax saves: a pytree of host arrays as one file. Apart from who uses it, since its import takes a while."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from purejaxrl_ext.sweeps import checkpoints
from purejaxrl_ext.types import PyTree


class ArraysHandler(ocp.AsyncCheckpointHandler):
    """A pytree of host arrays as one ``arrays.npz``, each with a checksum.

    Orbax's own handlers let process 0 alone write host arrays, and here every process writes its own runs'.
    """

    async def async_save(self, directory: Any, args: Arrays) -> list[Any]:
        """Write ``args.item`` in the background."""

        async def write() -> None:
            np.savez(str(directory / checkpoints.FILE), **checkpoints.entries(args.item))

        return [ocp.future.CommitFutureAwaitingContractedSignals(write())]

    def save(self, directory: Any, args: Arrays) -> None:
        """Not used: orbax calls it only without a background."""
        raise NotImplementedError("the manager saves in the background")

    def restore(self, directory: Any, args: Arrays) -> PyTree:
        """The arrays, shaped and named as in ``args.item``."""
        return checkpoints.read(directory, args.item)


@ocp.args.register_with_handler(ArraysHandler, for_save=True, for_restore=True)
@dataclass
class Arrays(ocp.args.CheckpointArgs):
    """What :class:`ArraysHandler` saves, or what it restores looks like."""

    item: PyTree


def manager(where: Path, keep: int, keep_every: int) -> ocp.CheckpointManager:
    """Of a directory that this process alone writes to; arguments as of :class:`~purejaxrl_ext.sweeps.checkpoints.Checkpoints`."""
    alone = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:
        index = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(index, {index}, f"process{index}")
    # Directories made in the background are waited for under names that all processes share: one that has its own removes
    # what another still waits for.
    at_once = ocp.options.AsyncOptions(create_directories_asynchronously=False)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        keep_period=keep_every or None,
        create=False,
        multiprocessing_options=alone,
        async_options=at_once,
    )
    return ocp.CheckpointManager(where, item_handlers=ArraysHandler(), options=options)
