"""Pictures of single states: a canvas in an environment's own coordinates, colours, and grids of cells."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

SIZE = 240  # pixels of a frame's longer side, about
BACKGROUND = (255, 255, 255)
GREY, BLACK = (190, 190, 190), (30, 30, 30)
BLUE, ORANGE, GREEN = (0, 114, 178), (213, 94, 0), (0, 158, 115)

# Of the characters of a map: start and floor white, goal green, wall grey, cliff or hole orange.
CELLS = {"S": BACKGROUND, ".": BACKGROUND, "G": GREEN, "#": GREY, "X": ORANGE}

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
        """A point in pixels."""
        return (point[0] - self.low) * self.scale, (self.top - point[1]) * self.scale

    def line(self, points: list[Point], color: tuple, width: float) -> None:
        """Through ``points``; ``width`` in their units."""
        self.draw.line([self.at(p) for p in points], fill=color, width=max(1, round(width * self.scale)), joint="curve")

    def circle(self, center: Point, radius: float, color: tuple) -> None:
        """A filled disc."""
        (x, y), r = self.at(center), radius * self.scale
        self.draw.ellipse([x - r, y - r, x + r, y + r], fill=color)

    def box(self, low: Point, high: Point, color: tuple) -> None:
        """A filled rectangle between two corners."""
        (left, bottom), (right, top) = self.at(low), self.at(high)
        self.draw.rectangle([left, top, right, bottom], fill=color)


def draw_cells(chars: np.ndarray, place: np.ndarray) -> np.ndarray:
    """A map ``[H, W]`` as a picture ``[., ., 3]`` uint8 with a disc at ``place``, row and column."""
    height, width = chars.shape
    canvas = Canvas((0.0, -float(height)), (float(width), 0.0))
    for (row, column), char in np.ndenumerate(chars):
        canvas.box((column, -row - 1), (column + 1, -row), CELLS[char])
    for row in range(1, height):
        canvas.line([(0.0, -row), (width, -row)], GREY, 0.0)
    for column in range(1, width):
        canvas.line([(column, 0.0), (column, -height)], GREY, 0.0)
    canvas.circle((place[1] + 0.5, -place[0] - 0.5), 0.33, BLUE)
    return np.asarray(canvas.image)
