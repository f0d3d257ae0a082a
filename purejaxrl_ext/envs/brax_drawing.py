"""Pictures of Brax's bodies: their capsules and spheres as MuJoCo places them, from the side or from above, with no renderer."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from purejaxrl_ext.envs.drawing import BLUE, GREEN, GREY, ORANGE, Canvas, Point

PLANE, CAPSULE = 0, 3  # MuJoCo's numbers of these kinds of geom


class View(NamedTuple):
    """A window on the world, in metres: its corners, which of x, y, z lie across and up, and whether it goes with the body."""

    low: Point = (-2.0, -0.3)
    high: Point = (2.0, 2.1)
    axes: tuple[int, int] = (0, 2)
    follows: bool = True


VIEWS = {
    "inverted_pendulum": View((-1.2, -0.4), (1.2, 0.9), follows=False),
    "inverted_double_pendulum": View((-1.5, -0.4), (1.5, 1.5), follows=False),
    "pusher": View((-0.6, -1.0), (1.4, 0.8), (0, 1), follows=False),
    "reacher": View((-0.33, -0.33), (0.33, 0.33), (0, 1), follows=False),
    "swimmer": View((-2.5, -2.0), (2.5, 2.0), (0, 1)),
}


def draw_bodies(name: str, model: Any, q: Any) -> np.ndarray:
    """``[H, W, 3]`` uint8 of joint positions ``q``: a colour per body, what belongs to none grey, a mark on the floor every metre.

    Args:
        name: Brax's name, of which the view depends.
        model: MuJoCo's.
        q: ``[Q]`` joint positions.
    """
    import mujoco

    data = mujoco.MjData(model)
    data.qpos[:] = q
    mujoco.mj_forward(model, data)
    view, center = VIEWS.get(name, View()), np.array(data.geom_xpos)
    moves = model.geom_bodyid > 0
    shift = center[moves].mean(axis=0)[list(view.axes)] * view.follows
    if view.axes[1] == 2:
        shift[1] = 0.0  # from the side the floor stays where it is
    low, high = ((c[0] + shift[0], c[1] + shift[1]) for c in (view.low, view.high))
    canvas = Canvas(low, high)
    _draw_floor(canvas, view, shift)
    hidden = ({0, 1, 2} - set(view.axes)).pop()
    # The far side of y, or the ground, first.
    depth = center[:, hidden] * (-1 if hidden == 1 else 1)
    for i in np.argsort(depth, kind="stable"):
        if model.geom_type[i] == PLANE:
            continue
        color = (BLUE, ORANGE, GREEN)[(model.geom_bodyid[i] - 1) % 3] if moves[i] else GREY
        half = np.zeros(3)
        if model.geom_type[i] == CAPSULE:
            half = data.geom_xmat[i].reshape(3, 3)[:, 2] * model.geom_size[i, 1]
        ends = [tuple((center[i] + sign * half)[list(view.axes)]) for sign in (-1, 1)]
        radius = float(model.geom_size[i, 0])
        canvas.line(ends, color, 2 * radius)
        for end in ends:
            canvas.circle(end, radius, color)
    return np.asarray(canvas.image)


def _draw_floor(canvas: Canvas, view: View, shift: np.ndarray) -> None:
    low, high = (np.array(c) + shift for c in (view.low, view.high))
    across = np.arange(np.ceil(low[0]), high[0])
    if view.axes[1] == 2:
        canvas.line([(low[0], 0.0), (high[0], 0.0)], GREY, 0.0)
        for x in across:
            canvas.line([(x, 0.0), (x, -0.1)], GREY, 0.0)
        return
    for x in across:
        for y in np.arange(np.ceil(low[1]), high[1]):
            canvas.circle((x, y), 0.02, GREY)
