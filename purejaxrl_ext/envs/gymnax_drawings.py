"""Pictures of the states of gymnax's environments, by name: ``DRAWINGS[name](env, env_state)``, ``env`` being gymnax's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from purejaxrl_ext.envs.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, Canvas, Point, draw_cells


def cart_pole(env: Any, state: Any) -> Image.Image:
    """θ = 0 is upright, θ > 0 leans to the right; episodes end beyond ±2.4."""
    canvas, x, theta = Canvas((-2.6, -0.5), (2.6, 1.5)), float(state.x), float(state.theta)
    canvas.line([(-2.4, 0.0), (2.4, 0.0)], GREY, 0.02)
    canvas.box((x - 0.25, -0.15), (x + 0.25, 0.15), BLUE)
    canvas.line([(x, 0.15), (x + np.sin(theta), 0.15 + np.cos(theta))], ORANGE, 0.08)
    return canvas.image


def mountain_car(env: Any, state: Any) -> Image.Image:
    """The road is 0.45 sin 3x; the flag stands at 0.5 (actions that are continuous have to reach 0.45)."""

    def road(x: float, above: float = 0.0) -> Point:
        return x, 0.45 * float(np.sin(3.0 * x)) + above

    canvas, x = Canvas((-1.25, -0.55), (0.65, 0.75)), float(state.position)
    canvas.line([road(p) for p in np.linspace(-1.2, 0.6, 60)], GREY, 0.02)
    canvas.line([road(0.5), road(0.5, 0.2)], GREEN, 0.03)
    canvas.circle(road(x, 0.05), 0.06, BLUE)
    return canvas.image


def acrobot(env: Any, state: Any) -> Image.Image:
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


def pendulum(env: Any, state: Any) -> Image.Image:
    """θ = 0 is upright, θ > 0 leans to the left."""
    canvas, theta = Canvas((-1.3, -1.3), (1.3, 1.3)), float(state.theta)
    canvas.line([(0.0, 0.0), (-np.sin(theta), np.cos(theta))], ORANGE, 0.14)
    canvas.circle((0.0, 0.0), 0.06, BLACK)
    return canvas.image


def frozen_lake(env: Any, state: Any) -> np.ndarray:
    """Holes are orange, the goal green."""
    chars = np.array(list("S.XG"))[np.asarray(env.desc)]  # gymnax numbers start, frozen, hole, goal
    return draw_cells(chars, np.array(divmod(int(state.position), env.ncol)))


def rooms(env: Any, state: Any) -> np.ndarray:
    """FourRooms and MetaMaze: walls are grey, the goal green."""
    chars = np.where(np.asarray(env.env_map), ".", "#")
    chars[tuple(state.goal)] = "G"
    return draw_cells(chars, state.pos)


def reacher(env: Any, state: Any) -> Image.Image:
    """Links of length 1 from the origin; the tip wants to be at the goal. gymnax adds up their directions, not their angles."""
    reach = env.num_joints + 0.2
    canvas = Canvas((-reach, -reach), (reach, reach))
    steps = np.stack([np.cos(state.angles), np.sin(state.angles)], axis=-1)
    joints = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    canvas.circle(tuple(state.goal_xy), 0.12, GREEN)
    for i in range(len(steps)):
        canvas.line([tuple(joints[i]), tuple(joints[i + 1])], (BLUE, ORANGE)[i % 2], 0.12)
        canvas.circle(tuple(joints[i]), 0.09, BLACK)
    return canvas.image


def swimmer(env: Any, state: Any) -> Image.Image:
    """The point wants to the goal, green, past the urchins, orange; the world has no walls."""
    canvas = Canvas((-1.5, -1.5), (1.5, 1.5))
    for urchin in state.urchin_xys:
        canvas.circle(tuple(urchin), 0.1, ORANGE)
    canvas.circle(tuple(state.goal_xy), 0.1, GREEN)
    canvas.circle(tuple(state.xy), 0.08, BLUE)
    return canvas.image


def point_robot(env: Any, state: Any) -> Image.Image:
    """The point wants to the goal somewhere on the upper half of a circle, which it does not see."""
    canvas, angles = Canvas((-1.6, -1.1), (1.6, 1.6)), np.linspace(0.0, np.pi, 40)
    canvas.line(list(zip(np.cos(angles), np.sin(angles), strict=True)), GREY, 0.0)
    canvas.circle(tuple(state.goal), 0.2, GREEN)
    canvas.circle(tuple(state.pos), 0.06, BLUE)
    return canvas.image


DRAWINGS: dict[str, Callable[[Any, Any], Any]] = {
    "CartPole-v1": cart_pole,
    "MountainCar-v0": mountain_car,
    "MountainCarContinuous-v0": mountain_car,
    "Acrobot-v1": acrobot,
    "Pendulum-v1": pendulum,
    "FrozenLake-misc": frozen_lake,
    "FourRooms-misc": rooms,
    "MetaMaze-misc": rooms,
    "Reacher-misc": reacher,
    "Swimmer-misc": swimmer,
    "PointRobot-misc": point_robot,
}
