"""Pictures of single states: a canvas in an environment's own coordinates, and what is drawn on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIZE = 240  # pixels of a frame's longer side, about
BACKGROUND = (255, 255, 255)
GREY, BLACK = (190, 190, 190), (30, 30, 30)
BLUE, ORANGE, GREEN = (0, 114, 178), (213, 94, 0), (0, 158, 115)

Point = tuple[float, float]


class Canvas:
    """A picture in an environment's own coordinates, y upwards."""

    def __init__(self, low: Point, high: Point, size: int = SIZE) -> None:
        self.low, self.top = low[0], high[1]
        self.scale = size / max(high[0] - low[0], high[1] - low[1])
        width, height = (round((b - a) * self.scale) for a, b in zip(low, high, strict=True))
        self.image = Image.new("RGB", (width, height), BACKGROUND)
        self.draw = ImageDraw.Draw(self.image)

    def at(self, point: Point) -> Point:
        return (point[0] - self.low) * self.scale, (self.top - point[1]) * self.scale

    def line(self, points: list[Point], color: tuple, width: float) -> None:
        """Through ``points``; ``width`` in their units."""
        self.draw.line([self.at(p) for p in points], fill=color, width=max(1, round(width * self.scale)), joint="curve")

    def circle(self, center: Point, radius: float, color: tuple) -> None:
        (x, y), r = self.at(center), radius * self.scale
        self.draw.ellipse([x - r, y - r, x + r, y + r], fill=color)

    def box(self, low: Point, high: Point, color: tuple) -> None:
        (left, bottom), (right, top) = self.at(low), self.at(high)
        self.draw.rectangle([left, top, right, bottom], fill=color)


def cart_pole(state: Any) -> Image.Image:
    """θ = 0 is upright, θ > 0 leans to the right; episodes end beyond ±2.4."""
    canvas, x, theta = Canvas((-2.6, -0.5), (2.6, 1.5)), float(state.x), float(state.theta)
    canvas.line([(-2.4, 0.0), (2.4, 0.0)], GREY, 0.02)
    canvas.box((x - 0.25, -0.15), (x + 0.25, 0.15), BLUE)
    canvas.line([(x, 0.15), (x + np.sin(theta), 0.15 + np.cos(theta))], ORANGE, 0.08)
    return canvas.image


def mountain_car(state: Any) -> Image.Image:
    """The road is 0.45 sin 3x; the flag stands at 0.5 (actions that are continuous have to reach 0.45)."""

    def road(x: float, above: float = 0.0) -> Point:
        return x, 0.45 * float(np.sin(3.0 * x)) + above

    canvas, x = Canvas((-1.25, -0.55), (0.65, 0.75)), float(state.position)
    canvas.line([road(p) for p in np.linspace(-1.2, 0.6, 60)], GREY, 0.02)
    canvas.line([road(0.5), road(0.5, 0.2)], GREEN, 0.03)
    canvas.circle(road(x, 0.05), 0.06, BLUE)
    return canvas.image


def acrobot(state: Any) -> Image.Image:
    """Two links of length 1 hanging from the origin at θ = 0; the tip has to rise above the line."""
    canvas = Canvas((-2.2, -2.2), (2.2, 2.2))
    first, both = float(state.joint_angle1), float(state.joint_angle1 + state.joint_angle2)
    elbow = (np.sin(first), -np.cos(first))
    tip = (elbow[0] + np.sin(both), elbow[1] - np.cos(both))
    canvas.line([(-2.2, 1.0), (2.2, 1.0)], GREEN, 0.03)
    canvas.line([(0.0, 0.0), elbow], BLUE, 0.12)
    canvas.line([elbow, tip], ORANGE, 0.12)
    for joint in ((0.0, 0.0), elbow):
        canvas.circle(joint, 0.09, BLACK)
    return canvas.image


def pendulum(state: Any) -> Image.Image:
    """θ = 0 is upright, θ > 0 leans to the left."""
    canvas, theta = Canvas((-1.3, -1.3), (1.3, 1.3)), float(state.theta)
    canvas.line([(0.0, 0.0), (-np.sin(theta), np.cos(theta))], ORANGE, 0.14)
    canvas.circle((0.0, 0.0), 0.06, BLACK)
    return canvas.image


DRAWINGS: dict[str, Callable[[Any], Image.Image]] = {
    "CartPole-v1": cart_pole,
    "MountainCar-v0": mountain_car,
    "MountainCarContinuous-v0": mountain_car,
    "Acrobot-v1": acrobot,
    "Pendulum-v1": pendulum,
}
