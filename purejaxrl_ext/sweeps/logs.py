"""Logs of a sweep on its way, for TensorBoard and Weights & Biases, and for any object of yours.

A logger is an object with three methods, which the sweep calls on the host, between chunks of updates::

    open(path, config, start)
        path: the run's directory, or None; config: what config.json holds, with "seeds", "grid" and "arms";
        start: environment steps that each arm has done already, by its name: all 0 unless the run is resumed.
    log(arm, env_steps, metrics)
        env_steps [U], increasing: each run's steps at the end of each update; metrics[name]: [*grid, seed, U], NaN where a
        run has no number (no episode ended, not measured).
    close()

An arm whose seeds run in waves is logged wave by wave, each the mean over its own seeds: the first under the arm's name,
further ones under it and their places on the seed axis (``ppo-64-128``).

After a stop, a resumed sweep computes, and logs, the updates since its last checkpoint once more, with the same numbers: a
logger drops or overwrites what it has beyond ``start``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import google_crc32c  # what zarr has its checksums from
import numpy as np

from purejaxrl_ext.analysis import stats
from purejaxrl_ext.errors import check, unknown_name
from purejaxrl_ext.sweeps import results
from purejaxrl_ext.sweeps.locks import hold

Log = Callable[[str, np.ndarray, Mapping[str, np.ndarray]], None]


class Logger(Protocol):
    """What a sweep asks of a logger; see the module's docstring."""

    def open(self, path: Path | None, config: dict[str, Any], start: Mapping[str, int]) -> None: ...

    def log(self, arm: str, env_steps: np.ndarray, metrics: Mapping[str, np.ndarray]) -> None: ...

    def close(self) -> None: ...


def loggers(log: Any) -> tuple[Logger, ...]:
    """What ``log=`` stands for: a logger, or several, each an object or the name ``"tensorboard"`` or ``"wandb"``.

    Raises:
        ValueError: another name, a class in place of an object, or what lacks a logger's methods.
    """
    several = isinstance(log, Sequence) and not isinstance(log, str)
    return tuple(_logger(one) for one in ((log,) if not several else log)) if log is not None else ()


def _logger(one: Any) -> Logger:
    if isinstance(one, str):
        kinds: dict[str, Callable[[], Logger]] = {"tensorboard": TensorBoard, "wandb": lambda: WandB("purejaxrl_ext")}
        if one not in kinds:
            raise ValueError(unknown_name("logger", one, kinds))
        return kinds[one]()
    fits = not isinstance(one, type) and all(callable(getattr(one, name, None)) for name in ("open", "log", "close"))
    check(fits, "log", one, 'a logger such as logs.TensorBoard(), a list of such, or "tensorboard" or "wandb"')
    return one


@contextlib.contextmanager
def opened(
    loggers: Sequence[Logger], path: Path | None, config: dict[str, Any], start: Mapping[str, int]
) -> Iterator[Log]:
    """All loggers open, as one ``log``; they are closed at the end, whatever happens."""
    with contextlib.ExitStack() as stack:
        for logger in loggers:
            logger.open(path, config, start)
            stack.callback(logger.close)

        def log(arm: str, env_steps: np.ndarray, metrics: Mapping[str, np.ndarray]) -> None:
            for logger in loggers:
                logger.log(arm, env_steps, metrics)

        yield log


def series(
    metrics: Mapping[str, np.ndarray], config: Mapping[str, Any], per_seed: bool
) -> tuple[list[str], np.ndarray]:
    """An arm's metrics as named series: K tags and their numbers ``[U, K]``, NaN where there is none.

    Tags are ``episode_return/mean`` and ``episode_return/iqm`` over the runs with a finite number (a single seed has the
    mean only), and per seed ``episode_return/seed=3``; in a grid each cell's, ``episode_return/mean/gamma=0.9``.

    Args:
        metrics: by name ``[*grid, seed, U]``.
        config: with "seeds" and "grid".
        per_seed: whether every seed has series of its own too.
    """
    seeds, grid = config["seeds"], config["grid"]
    x = np.moveaxis(np.stack([np.asarray(v, np.float64) for v in metrics.values()]), -1, 0)  # [U, metric, *grid, seed]
    x = x.reshape(*x.shape[:2], -1, len(seeds))
    parts = {"mean": stats.mean(x)} | ({"iqm": stats.iqm(x)} if len(seeds) > 1 else {})
    if per_seed:
        parts |= {f"seed={seed}": x[..., i] for i, seed in enumerate(seeds)}
    cells = ["".join(f"/{n}={v:g}" for n, v in zip(grid, c, strict=True)) for c in itertools.product(*grid.values())]
    tags = [f"{name}/{part}{cell}" for part, name, cell in itertools.product(parts, metrics, cells)]
    numbers = np.stack(list(parts.values()), axis=1).reshape(len(x), -1)
    return tags, np.where(np.isfinite(numbers), numbers, np.nan)


def rows(
    env_steps: np.ndarray, metrics: Mapping[str, np.ndarray], config: Mapping[str, Any], per_seed: bool
) -> Iterator[tuple[int, dict[str, float]]]:
    """Every update's environment step and its numbers by tag; what is not finite is left out."""
    check(len(metrics) > 0, "metrics", metrics, "at least one")
    for name, x in metrics.items():
        shape = (*map(len, config["grid"].values()), len(config["seeds"]), len(env_steps))
        check(np.shape(x) == shape, f"metrics[{name!r}].shape", np.shape(x), f"{shape}")
    tags, numbers = series(metrics, config, per_seed)
    for step, row in zip(np.asarray(env_steps).tolist(), numbers.tolist(), strict=True):
        yield int(step), {tag: x for tag, x in zip(tags, row, strict=True) if x == x}


class TensorBoard:
    """Event files for TensorBoard, a directory per arm: ``tensorboard --logdir runs``.

    A resumed run begins a new file, whose first record tells TensorBoard to drop what earlier files of the arm hold from
    there on (``purge_step``). So two sweeps that share ``path`` and an arm's name show the later one.

    Args:
        path: where to write; None: ``tensorboard`` in the run's directory.
        per_seed: series of every seed too, not only the mean and the interquartile mean over them.

    Raises:
        ImportError: tensorboardX is not installed.
        ValueError: there is neither ``path`` nor a run's directory.
    """

    def __init__(self, path: str | Path | None = None, per_seed: bool = False) -> None:
        try:
            from tensorboardX.proto.event_pb2 import Event, SessionLog
            from tensorboardX.proto.summary_pb2 import Summary
        except ImportError as error:
            raise ImportError("TensorBoard logs need the extra: pip install 'purejaxrl_ext[tensorboard]'") from error
        # Only its messages: its writer hands each event to a thread, syncs the disk at every flush and has its checksums from
        # Python, a byte at a time. Here a chunk's rows are one write (measured: 3 times faster).
        self._event, self._session, self._summary = Event, SessionLog, Summary
        self._path, self._per_seed = path, per_seed
        self._files: dict[str, Any] = {}

    def open(self, path: Path | None, config: dict[str, Any], start: Mapping[str, int]) -> None:
        where = self._path if self._path is not None else path and Path(path) / "tensorboard"
        check(where is not None, "path", self._path, "a directory where the sweep has none (out=None)")
        self._config = config
        for arm in config["arms"]:
            folder = Path(where) / arm  # type: ignore[arg-type]
            folder.mkdir(parents=True, exist_ok=True)
            again = any(folder.glob("events.out.tfevents.*"))
            # TensorBoard reads a directory's files in the order of their names.
            self._files[arm] = (folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}").open("xb")
            self._write(arm, [self._event(wall_time=time.time(), file_version="brain.Event:2")])
            if again:
                status = self._session(status=self._session.START)
                self._write(arm, [self._event(wall_time=time.time(), step=start.get(arm, 0) + 1, session_log=status)])

    def log(self, arm: str, env_steps: np.ndarray, metrics: Mapping[str, np.ndarray]) -> None:
        now, value, summary = time.time(), self._summary.Value, self._summary
        self._write(
            arm,
            [
                self._event(
                    wall_time=now,
                    step=step,
                    summary=summary(value=[value(tag=t, simple_value=x) for t, x in row.items()]),
                )
                for step, row in rows(env_steps, metrics, self._config, self._per_seed)
            ],
        )

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}

    def _write(self, arm: str, events: list[Any]) -> None:
        self._files[arm].write(b"".join(_record(event.SerializeToString()) for event in events))
        self._files[arm].flush()


def _record(data: bytes) -> bytes:
    """A TFRecord: length, its checksum, data, its checksum."""
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    # CRC-32C, rotated and shifted so that a checksum of data that holds checksums is none of them.
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


class WandB:
    """Runs of Weights & Biases, one per arm, grouped by the sweep's directory; steps are environment steps.

    The runs' ids are kept in the sweep's directory (``wandb.json``), so a resumed sweep goes on with the same runs: W&B
    ignores steps that it has already. Offline, a resumed sweep begins a second local folder of the same id: upload both
    with ``wandb sync --append``.

    Args:
        project: W&B's project.
        mode: ``"offline"`` (nothing leaves the machine; upload later with ``wandb sync``), ``"online"`` or ``"disabled"``.
        per_seed: series of every seed too, not only the mean and the interquartile mean over them.
        dir: where W&B keeps its files; None: the run's directory, or the working directory where there is none.

    Raises:
        ImportError: wandb is not installed.
        ValueError: another mode.
    """

    def __init__(
        self,
        project: str,
        mode: Literal["offline", "online", "disabled"] = "offline",
        per_seed: bool = False,
        dir: str | Path | None = None,
    ) -> None:
        modes = ("offline", "online", "disabled")
        check(mode in modes, "mode", mode, f"one of {', '.join(map(repr, modes))}")
        try:
            import wandb
        except ImportError as error:
            raise ImportError("Weights & Biases needs the extra: pip install 'purejaxrl_ext[wandb]'") from error
        self._wandb, self._project, self._mode, self._per_seed, self._dir = wandb, project, mode, per_seed, dir
        self._runs: dict[str, Any] = {}

    def open(self, path: Path | None, config: dict[str, Any], start: Mapping[str, int]) -> None:
        self._config, self._group = config, None if path is None else Path(path).name
        self._where = self._dir if self._dir is not None else path
        self._ids = {arm: secrets.token_hex(4) for arm in config["arms"]}
        if path is not None:
            # Other processes add their arms' to the same file.
            with hold(Path(path), "wandb", "wandb.json", wait=True):
                file = Path(path) / "wandb.json"
                self._ids |= json.loads(file.read_text()) if file.exists() else {}
                results.write_json(file, self._ids)

    def log(self, arm: str, env_steps: np.ndarray, metrics: Mapping[str, np.ndarray]) -> None:
        # Made at an arm's first row: arms run one after another, and each run costs a second.
        run = self._runs.get(arm) or self._begin(arm)
        for step, row in rows(env_steps, metrics, self._config, self._per_seed):
            if row:
                run.log(row, step=step)

    def close(self) -> None:
        for run in self._runs.values():
            run.finish()
        self._runs = {}

    def _begin(self, arm: str) -> Any:
        self._runs[arm] = self._wandb.init(
            project=self._project,
            group=self._group,
            name=arm,
            id=self._ids[arm],
            resume=None if self._mode == "offline" else "allow",
            mode=self._mode,
            dir=None if self._where is None else str(self._where),
            config={k: v for k, v in self._config.items() if k != "arms"} | self._config["arms"][arm],
            reinit="create_new",
            settings=self._wandb.Settings(silent=True, console="off"),
        )
        return self._runs[arm]
