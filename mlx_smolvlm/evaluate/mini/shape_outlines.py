"""The colours and shapes of drawn images, for the mini suite and for the demo model's examples."""

import math

COLORS = {
    "red": (214, 40, 40),
    "orange": (244, 140, 30),
    "yellow": (240, 215, 40),
    "green": (50, 160, 70),
    "blue": (40, 90, 210),
    "purple": (140, 60, 170),
    "black": (25, 25, 28),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")


def polar_corners(shape: str) -> list[tuple[float, float]]:
    """Corners of the polygon of one of `SHAPES`, a circle's 40-gon too: distance from the centre, about 1, and angle in
    radians, clockwise from the right."""
    if shape == "circle":
        return [(1.0, 2 * math.pi * i / 40) for i in range(40)]
    if shape == "square":
        return [(1.15, math.pi / 4 + math.pi / 2 * i) for i in range(4)]
    if shape == "triangle":
        return [(1.15, -math.pi / 2 + 2 * math.pi / 3 * i) for i in range(3)]
    if shape == "star":
        return [(1.15 if i % 2 == 0 else 0.48, -math.pi / 2 + math.pi / 5 * i) for i in range(10)]
    # A cross, its arms a third as wide as they are long.
    arm, end, inner = math.atan2(0.36, 1.05), math.hypot(0.36, 1.05), 0.36 * math.sqrt(2)
    turns = [quarter * math.pi / 2 for quarter in range(4)]
    return [corner for turn in turns for corner in ((end, turn - arm), (end, turn + arm), (inner, turn + math.pi / 4))]
