"""Pictures of episodes, without a display: frames, GIFs, and small ones that show in a notebook.

    frames(env, env_states, obs)    [T, H, W, 3] uint8
    gif(frames, path, fps)          a file, x.gif
    animation(frames)               what a notebook shows inline, below 100 kB

Drawn are, in this order: an environment that says how itself, by a method ``render(env_state) -> uint8 [H, W, 3]`` (those of
Brax, the tabular MDPs and most of gymnax's do); observations of two or three axes (MinAtar's planes among them) as an image, a
colour per channel; any other observation as bars.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from purejaxrl_ext.envs.drawing import BLUE, GREY, ORANGE, SIZE, Canvas
from purejaxrl_ext.errors import check
from purejaxrl_ext.types import PyTree, abstract_key

# Channels of an image: told apart on black, as many as MinAtar's Seaquest has.
CHANNELS = (
    (240, 240, 240),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (120, 94, 240),
    (150, 150, 150),
)


def frames(env: Any, env_states: PyTree, obs: Any) -> np.ndarray:
    """Pictures ``[T, H, W, 3]`` uint8 of T states of one environment, in its wrappers or without.

    Args:
        env: the environment.
        env_states: leaves ``[T, ...]``, as ``env.step`` gave them.
        obs: ``[T, ...]``, drawn where no drawing of the state is known.

    Raises:
        ValueError: no state, or a ``render`` of the environment that gives something else than uint8 ``[H, W, 3]``.
    """
    obs = np.asarray(obs)
    check(len(obs) > 0, "obs", obs.shape, "of at least one step")
    env, env_states = unwrap(env, env_states)
    draw = getattr(env, "render", None)
    if draw is not None:
        host = jax.device_get(env_states)
        drawn = np.stack([np.asarray(draw(jax.tree.map(lambda x, t=t: x[t], host))) for t in range(len(obs))])
        fits = drawn.ndim == 4 and drawn.shape[-1] == 3 and drawn.dtype == np.uint8
        check(fits, f"{env.name}.render", f"{drawn.dtype}{list(drawn.shape[1:])}", "a function to uint8 [H, W, 3]")
        return drawn
    return images(obs) if obs.ndim in (3, 4) else bars(obs.reshape(len(obs), -1))


def unwrap(env: Any, env_states: PyTree) -> tuple[Any, PyTree]:
    """The environment inside all wrappers, and its part of the state.

    A wrapper keeps the inner state as it is, or as the first of several things.
    """
    while hasattr(env, "env") and not hasattr(env, "render"):
        inner: Any = jax.tree.structure(jax.eval_shape(env.env.reset, abstract_key())[0])
        if inner != jax.tree.structure(env_states):
            env_states = env_states[0]
        env = env.env
    return env, env_states


def images(obs: np.ndarray) -> np.ndarray:
    """``[T, H, W(, C)]`` as pictures: uint8 of 1 or 3 channels as they are, else a colour per channel, mixed.

    Where several channels are set, the first with a colour of its own in ``CHANNELS`` wins: in MinAtar it is the agent.
    """
    obs = obs[..., None] if obs.ndim == 3 else obs
    if obs.dtype == np.uint8 and obs.shape[-1] in (1, 3):
        picture = np.broadcast_to(obs, (*obs.shape[:-1], 3))
    else:
        picture = _colour_channels(obs.astype(np.float64))
    factor = max(1, SIZE // max(obs.shape[1:3]))
    return picture.repeat(factor, axis=1).repeat(factor, axis=2)


def _colour_channels(obs: np.ndarray) -> np.ndarray:
    low, high = min(obs.min(), 0.0), obs.max()
    level = (obs - low) / (high - low) if high > low else np.zeros_like(obs)
    first = (level > 0).argmax(-1)
    strength = np.take_along_axis(level, first[..., None], axis=-1)
    colours = np.array(CHANNELS, np.float64)[first % len(CHANNELS)]
    return (strength * colours).round().astype(np.uint8)


def bars(obs: np.ndarray) -> np.ndarray:
    """``[T, D]`` as a bar per entry, from its 0, relative to the entry's largest size in the episode."""
    most = np.abs(obs).max(axis=0)
    heights = np.divide(obs, most, out=np.zeros(obs.shape), where=(most > 0)[None])
    return np.stack([_bars(row) for row in heights])


def _bars(heights: np.ndarray) -> np.ndarray:
    canvas = Canvas((0.0, -1.1), (4.0, 1.1))
    width = 4.0 / len(heights)
    for i, height in enumerate(heights):
        left, right = (i + 0.15) * width, (i + 0.85) * width
        canvas.box((left, min(height, 0.0)), (right, max(height, 0.0)), BLUE if height >= 0 else ORANGE)
    canvas.line([(0.0, 0.0), (4.0, 0.0)], GREY, 0.01)
    return np.asarray(canvas.image)


def gif(frames: np.ndarray, path: str | Path, fps: float = 30.0) -> Path:
    """Write ``[T, H, W, 3]`` uint8 as a GIF that repeats. Equal frames in a row are stored once, and shown as long.

    Args:
        frames: pictures.
        path: the file, whose name ends in ``.gif``; its directory is made if need be.
        fps: frames per second, at most 50; GIFs count in hundredths of a second, so it is rounded to such.

    Raises:
        ValueError: a file of another kind, or what is no pictures.
    """
    path = check_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(frames, fps))
    return path


def check_path(path: str | Path) -> Path:
    """``path``, or a ``ValueError`` where its name says that it is not a GIF."""
    check(Path(path).suffix.lower() == ".gif", "path", str(path), "a name that ends in '.gif': nothing else is written")
    return Path(path)


def frame_rate(env: Any) -> float:
    """Frames per second that suit an environment: its own or its wrapped one's ``fps``, as far as a GIF goes; else 30."""
    while not hasattr(env, "fps") and hasattr(env, "env"):
        env = env.env
    return min(50.0, float(getattr(env, "fps", 30.0)))


def encode(frames: np.ndarray, fps: float) -> bytes:
    """The bytes of a GIF."""
    frames = np.asarray(frames)
    fits = frames.ndim == 4 and frames.shape[-1] == 3 and len(frames) > 0 and frames.dtype == np.uint8
    check(fits, "frames", f"{frames.dtype}{list(frames.shape)}", "uint8 [T, H, W, 3]")
    check(0.0 < fps <= 50.0, "fps", fps, "in (0, 50]")
    first, *rest = _indexed(frames)
    file = io.BytesIO()
    duration = 10 * max(2, round(100.0 / fps))
    first.save(file, "GIF", save_all=True, append_images=rest, duration=duration, loop=0, optimize=False)
    return file.getvalue()


def _indexed(frames: np.ndarray) -> list[Image.Image]:
    """All frames with one palette: their own colours where there are at most 256."""
    red, green, blue = np.moveaxis(frames.astype(np.int32), -1, 0)
    packed = red << 16 | green << 8 | blue
    index = np.zeros(1 << 24, np.uint8)  # by colour: a table is many times faster than sorting all pixels
    index[packed] = 1
    colours = np.flatnonzero(index)
    if len(colours) > 256:
        some = frames[:: max(1, len(frames) // 16)]
        palette = Image.fromarray(some.reshape(-1, *some.shape[2:])).quantize(256)
        return [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    index[colours] = np.arange(len(colours))
    table = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1).astype(np.uint8)
    pictures = [Image.fromarray(i) for i in index[packed]]
    for picture in pictures:
        picture.putpalette(table.tobytes())
    return pictures


class Animation:
    """A GIF which a notebook shows where the object is a cell's value.

    Attributes:
        data: the bytes of the file.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data

    def _repr_html_(self) -> str:
        return f'<img src="data:image/gif;base64,{base64.b64encode(self.data).decode()}">'


def animation(frames: np.ndarray, fps: float = 30.0, max_bytes: int = 100_000) -> Animation:
    """A GIF small enough to keep in a notebook: frames are left out, then pixels, until it fits.

    Args:
        frames: ``[T, H, W, 3]`` uint8.
        fps: of ``frames``; those left out do not change the speed.
        max_bytes: of the file.

    Raises:
        ValueError: even a frame in 32, an eighth as wide, is too large.
    """
    for stride, shrink in ((1, 1), (2, 1), (3, 1), (3, 2), (4, 2), (8, 2), (8, 4), (16, 4), (32, 8)):
        data = encode(frames[::stride, ::shrink, ::shrink], fps / stride)
        if len(data) <= max_bytes:
            return Animation(data)
    raise ValueError(f"max_bytes={max_bytes} is not allowed: it must be at least {len(data)} for these frames")
