"""Sweeps over several processes and machines.

Two ways, for two kinds of sweep:

    many seeds       the same command in every process, under ``jax.distributed``: after :func:`initialize` each process runs
                     its own blocks of seeds, and writes them into the one store
    many arms        :func:`launch` sends a Slurm job per arm through submitit; each is a ``resume`` of its arm alone, so a job
                     that is pre-empted or dies goes on from its last checkpoint

No array is spread over processes and none waits for another but at the start and the end: runs do not talk to each other, so
a slow machine holds nobody up, and a run can be resumed by any number of processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from purejaxrl_ext.errors import check
from purejaxrl_ext.sweeps.checkpoints import remake
from purejaxrl_ext.sweeps.guards import run_path
from purejaxrl_ext.sweeps.logs import loggers
from purejaxrl_ext.sweeps.results import read_config
from purejaxrl_ext.sweeps.sweep import Arms, create, extend, resume, unfinished


def initialize(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Join this process to the others of its sweep; before JAX's first computation.

    Without arguments JAX finds the others by itself under Slurm, Open MPI and on Kubernetes.

    Args:
        coordinator: host and port of process 0, as ``"10.0.0.1:1234"``.
        num_processes: how many there are.
        process_id: which of them this is, from 0.

    Raises:
        ValueError: some are given and some are not, or the id is not below the number.
    """
    given = [x is not None for x in (coordinator, num_processes, process_id)]
    check(
        all(given) or not any(given),
        "coordinator",
        coordinator,
        "given with num_processes and process_id, or none of them",
    )
    if num_processes is not None and process_id is not None:
        check(num_processes > 0, "num_processes", num_processes, "at least 1")
        check(0 <= process_id < num_processes, "process_id", process_id, f"from 0 to {num_processes - 1}")
    jax.distributed.initialize(coordinator, num_processes, process_id)


class _Work:
    """What a job does. Submitit calls ``checkpoint`` when Slurm is about to take the machine away: then it is sent again."""

    def __call__(self, path: str, arm: str, settings: dict[str, Any]) -> None:
        resume(path, only=[arm], **settings)

    def checkpoint(self, *arguments: Any) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


def launch(
    arms: Arms,
    *,
    out: str | Path,
    executor: Any,
    progress: bool = True,
    checkpoint_seconds: float = 60.0,
    keep_checkpoints: int = 2,
    log: Any = (),
    **settings: Any,
) -> list[Any]:
    """Start a sweep as one job per arm.

    A run that is there already goes on with the arms that are not finished, so the same call sends lost jobs again; with
    more steps, seeds or arms than it has it grows.

    Args:
        arms: as in :func:`~purejaxrl_ext.sweeps.sweep.sweep`; environments and networks of your own must be importable where the
            jobs run.
        out: the run's directory, on a file system that all machines share.
        executor: submitit's, such as ``submitit.AutoExecutor(folder="logs")`` with ``update_parameters(...)`` called.
        progress, checkpoint_seconds, keep_checkpoints, log: as in ``sweep``, for every job.
        **settings: the others of ``sweep``: ``total_steps``, ``num_seeds``, ``grid``, ...

    Returns:
        submitit's jobs, one per arm: ``[job.result() for job in jobs]`` waits for them; then ``prx.load(out)``.

    Raises:
        ValueError: an arm that a job could not make again, or a setting that is not allowed, or not that of the run.
        BlockingIOError: the run would grow while jobs are at work on it.

    Example::

        executor = submitit.AutoExecutor(folder="logs")
        executor.update_parameters(slurm_partition="gpu", gpus_per_node=1, timeout_min=60)
        jobs = launch({"ppo": ppo, "pfo": pfo}, out="runs/x", executor=executor, num_seeds=64, total_steps=10_000_000)
    """
    path = run_path(out)
    if (path / "config.json").exists():
        extend(path, arms=arms, **settings)
    else:
        create(arms, out=path, **settings)
    for name, arm in read_config(path)["arms"].items():
        try:
            remake(arm["settings"])
        except ValueError as error:
            raise ValueError(f"arms[{name!r}] could not be made again by a job: {error}") from error
    how = {"progress": progress, "checkpoint_seconds": checkpoint_seconds, "keep_checkpoints": keep_checkpoints}
    return [executor.submit(_Work(), str(path), name, how | {"log": loggers(log)}) for name in unfinished(path, arms)]
