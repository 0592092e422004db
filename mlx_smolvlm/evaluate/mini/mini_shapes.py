"""Coloured shapes for the mini suite: images and clips with questions, drawn from a seed.

Difficulty makes shapes smaller, paler and noisier; the easiest ones are of the kind that the demo model knows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .mini_question import MiniQuestion
from .shape_outlines import COLORS, SHAPES, polar_corners

PLACES = {  # name -> centre, share of width and height
    "at the top left": (0.25, 0.25),
    "at the top right": (0.75, 0.25),
    "on the left": (0.25, 0.5),
    "in the center": (0.5, 0.5),
    "on the right": (0.75, 0.5),
    "at the bottom left": (0.25, 0.75),
    "at the bottom right": (0.75, 0.75),
}
DIRECTIONS = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}
COUNTS = ("one", "two", "three", "four", "five")
CLIP_FPS = 10

_QUESTIONS = {
    "color": ("What color is the shape?", "Which color is it?", "What color is it?"),
    "shape": ("What shape is it?", "Which shape is this?", "What shape do you see?"),
    "place": ("Where is the shape?", "Where is it?", "In which place is the shape?"),
    "description": ("Describe the picture.", "What do you see?", "What is in this picture?", "Describe this image."),
    "count": ("How many shapes are there?", "How many shapes do you see?", "Count the shapes."),
    "number": ("What number is written?", "Which number do you see?", "Read the number."),
    "change": (
        "What is different between the two pictures?",
        "What differs between these pictures?",
        "What are the differences between these two images?",
    ),
    "motion": ("Which way does the shape move?", "In which direction does it move?"),
}
_COLOR_NAMES = {name: [name] for name in COLORS}
_SHAPE_NAMES = {name: [name] for name in SHAPES} | {"cross": ["cross", "plus"]}
_COUNT_NAMES = {word: [word, str(number)] for number, word in enumerate(COUNTS, 1)}
_DIRECTION_NAMES = {name: [name, f"{name}ward", f"{name}wards"] for name in DIRECTIONS}
_PLACE_NAMES = {
    "at the top left": ["top left", "upper left"],
    "at the top right": ["top right", "upper right"],
    "on the left": ["left"],
    "in the center": ["center", "centre", "middle"],
    "on the right": ["right"],
    "at the bottom left": ["bottom left", "lower left"],
    "at the bottom right": ["bottom right", "lower right"],
}
_CHANGE_NAMES = {"color": ["color", "colour"], "shape": ["shape"], "size": ["size"], "place": ["place", "position"]}


@dataclass(frozen=True)
class _Level:
    """How clear an image is: radius of a shape as a share of the shorter side, strength of its colour, grain."""

    radius: tuple[float, float]
    ink: float
    grain: int


_LEVELS = {1: _Level((0.16, 0.24), 1.0, 6), 2: _Level((0.14, 0.18), 0.88, 9), 3: _Level((0.12, 0.16), 0.74, 14)}


@dataclass(frozen=True)
class _Shape:
    color: str
    shape: str
    x: float  # centre, share of the width
    y: float
    radius: float  # share of the shorter side
    angle: float = 0.0  # radians


def one_shape(rng: Random, difficulty: int, asked: str) -> MiniQuestion:
    """One shape; `asked` is its color, shape or place, or its description, which has all three."""
    shape, place = _random_shape(rng, _LEVELS[difficulty])
    image = _draw([shape], _canvas(rng), rng, _LEVELS[difficulty])
    facts = {"color": (shape.color, _COLOR_NAMES), "shape": (shape.shape, _SHAPE_NAMES), "place": (place, _PLACE_NAMES)}
    wanted = list(facts.values()) if asked == "description" else [facts[asked]]
    answers, names = [answer for answer, _ in wanted], [names for _, names in wanted]
    answer = answers if asked == "description" else answers[0]
    return MiniQuestion(rng.choice(_QUESTIONS[asked]), answer, "choice", images=[image], choices=names)


def counted_shapes(rng: Random, difficulty: int) -> MiniQuestion:
    """One to five shapes that do not touch."""
    level, count = _LEVELS[difficulty], rng.randint(1, len(COUNTS))
    cells = rng.sample([(column, row) for column in range(3) for row in range(3)], count)
    shapes = [
        replace(
            _random_shape(rng, level)[0],
            x=(column + 0.5) / 3 + rng.uniform(-0.03, 0.03),
            y=(row + 0.5) / 3 + rng.uniform(-0.03, 0.03),
            radius=min(0.125, rng.uniform(*level.radius)),
        )
        for column, row in cells
    ]
    image = _draw(shapes, _canvas(rng, square=True), rng, level)
    answer = COUNTS[count - 1]
    return MiniQuestion(rng.choice(_QUESTIONS["count"]), answer, "choice", images=[image], choices=[_COUNT_NAMES])


def written_number(rng: Random, difficulty: int) -> MiniQuestion:
    """A number of two digits."""
    level, number = _LEVELS[difficulty], str(rng.randint(10, 99))
    width, height = _canvas(rng)
    paper = _paper(rng)
    image = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(image)
    size = {1: 0.56, 2: 0.55, 3: 0.53}[difficulty] * min(width, height)
    font = ImageFont.load_default(round(size))
    left, top, right, bottom = pen.textbbox((0, 0), number, font=font)
    x = round((0.5 + rng.uniform(-0.05, 0.05)) * width - (left + right) / 2)
    y = round((0.5 + rng.uniform(-0.05, 0.05)) * height - (top + bottom) / 2)
    color = _blend(COLORS[rng.choice(("red", "green", "blue", "purple", "black"))], paper, level.ink)
    pen.text((x, y), number, fill=color, font=font)
    return MiniQuestion(rng.choice(_QUESTIONS["number"]), number, "ocrbench", images=[_grain(image, rng, level.grain)])


def changed_shape(rng: Random, difficulty: int) -> MiniQuestion:
    """Two images of one shape that differ in its color, shape, size or place."""
    level, attribute = _LEVELS[difficulty], rng.choice(list(_CHANGE_NAMES))
    first, place = _random_shape(rng, level)
    radius = level.radius[0] + rng.choice((0.0, 0.05)) if difficulty > 1 else rng.choice((0.14, 0.235))
    first = replace(first, radius=radius)
    second = replace(first, x=first.x + rng.uniform(-0.01, 0.01), y=first.y + rng.uniform(-0.01, 0.01))
    if attribute == "color":
        second = replace(second, color=rng.choice([color for color in COLORS if color != first.color]))
    elif attribute == "shape":
        second = replace(second, shape=rng.choice([shape for shape in SHAPES if shape != first.shape]))
    elif attribute == "size":
        sizes = (0.14, 0.235)
        first = replace(first, radius=sizes[0])
        second = replace(second, radius=sizes[1])
        if rng.random() < 0.5:
            first, second = second, first
    else:
        x, y = PLACES[rng.choice([name for name in PLACES if name != place])]
        second = replace(second, x=x, y=y)
    size, paper = _canvas(rng), _paper(rng)
    images = [_draw([shape], size, rng, level, paper) for shape in (first, second)]
    return MiniQuestion(rng.choice(_QUESTIONS["change"]), attribute, "choice", images=images, choices=[_CHANGE_NAMES])


def moving_shape(rng: Random, difficulty: int) -> MiniQuestion:
    """A clip of one shape that moves."""
    level, direction = _LEVELS[difficulty], rng.choice(list(DIRECTIONS))
    shape, _ = _random_shape(rng, level)
    dx, dy = DIRECTIONS[direction]
    travel = {1: rng.uniform(0.35, 0.6), 2: rng.uniform(0.17, 0.28), 3: rng.uniform(0.11, 0.17)}[difficulty]
    across, along = rng.uniform(0.25, 0.75), 0.5 + rng.uniform(-0.08, 0.08)
    size, paper = rng.choice(((80, 80), (96, 72), (72, 96))), _paper(rng)
    num_frames = rng.randint(26, 60)
    frames = []
    for index in range(num_frames):
        shift = travel * (index / (num_frames - 1) - 0.5)
        x, y = (along + dx * shift, across) if dx else (across, along + dy * shift)
        frames.append(_draw([replace(shape, x=x, y=y)], size, rng, level, paper))
    return MiniQuestion(
        rng.choice(_QUESTIONS["motion"]), direction, "choice", frames=frames, fps=CLIP_FPS, choices=[_DIRECTION_NAMES]
    )


def color_sequence(rng: Random, difficulty: int) -> MiniQuestion:
    """A clip of a shape that changes its color; the options name colors."""
    level = _LEVELS[1]
    colors = rng.sample(list(COLORS), difficulty + 1)
    shape, _ = _random_shape(rng, level)
    paper, size = _paper(rng), (192, 144)
    frames = [
        frame
        for color in colors
        for frame in [_draw([replace(shape, color=color)], size, rng, level, paper)] * (2 * CLIP_FPS)
    ]
    asked = rng.randrange(len(colors))
    options = rng.sample([colors[asked], *rng.sample([name for name in COLORS if name != colors[asked]], 3)], 4)
    ordinal = ("first", "second", "third", "fourth")[asked]
    question = f"The shape changes its color. Which color is the {ordinal} one?"
    letter = _letter(options, colors[asked])
    return MiniQuestion(question, letter, "letter", frames=frames, fps=CLIP_FPS, options=options)


def two_shapes(rng: Random, difficulty: int) -> MiniQuestion:
    """Where one shape is from another: yes or no at difficulty 1, options beyond."""
    level = _LEVELS[1] if difficulty < 3 else _LEVELS[2]
    colors = rng.sample(list(COLORS), difficulty + 1)
    positions = rng.sample([(0.25, 0.25), (0.75, 0.28), (0.28, 0.75), (0.72, 0.72)], len(colors))
    shapes = []
    for color, (x, y) in zip(colors, positions, strict=True):
        x, y = (share + rng.uniform(-0.04, 0.04) for share in (x, y))
        shapes.append(_Shape(color, rng.choice(SHAPES), x, y, min(0.15, level.radius[1])))
    names = [f"{shape.color} {shape.shape}" for shape in shapes]
    image = _draw(shapes, (448, 448), rng, level)
    a, b = shapes[0], shapes[1]
    is_horizontal = abs(a.x - b.x) > abs(a.y - b.y)
    true, false = ("left of", "right of") if is_horizontal else ("above", "below")
    if (a.x > b.x) if is_horizontal else (a.y > b.y):
        true, false = false, true
    if difficulty == 1:
        said = rng.choice((true, false))
        question = f"Is the {names[0]} {said} the {names[1]}? Answer yes or no."
        return MiniQuestion(question, "Yes" if said == true else "No", "yes_no", images=[image])
    options = rng.sample(["left of", "right of", "above", "below"], 4)
    if min(abs(a.x - b.x), abs(a.y - b.y)) > 0.2:  # on a diagonal two would be right
        options = rng.sample([true, false, "inside", "in the same place as"], 4)
    question = f"Where is the {names[0]}, seen from the {names[1]}?"
    return MiniQuestion(question, _letter(options, true), "letter", images=[image], options=options)


def _letter(options: Sequence[str], answer: str) -> str:
    return "ABCDEFGHIJ"[list(options).index(answer)]


def _random_shape(rng: Random, level: _Level) -> tuple[_Shape, str]:
    """A shape somewhere, and the name of its place."""
    place = rng.choice(list(PLACES))
    x, y = (share + rng.uniform(-0.05, 0.05) for share in PLACES[place])
    color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
    return _Shape(color, shape, x, y, rng.uniform(*level.radius), rng.uniform(-0.12, 0.12)), place


def _canvas(rng: Random, square: bool = False) -> tuple[int, int]:
    return rng.choice(((128, 128),) if square else ((128, 128), (128, 128), (128, 96), (84, 112)))


def _paper(rng: Random) -> tuple[int, ...]:
    """A light, nearly grey tone."""
    level = rng.randint(205, 247)
    return tuple(level + rng.randint(-8, 8) for _ in range(3))


def _blend(color: Sequence[int], paper: Sequence[int], ink: float) -> tuple[int, ...]:
    return tuple(round(ink * c + (1 - ink) * p) for c, p in zip(color, paper, strict=True))


def _draw(
    shapes: Sequence[_Shape], size: tuple[int, int], rng: Random, level: _Level, paper: tuple[int, ...] | None = None
) -> Image.Image:
    paper = paper or _paper(rng)
    image = Image.new("RGB", size, paper)
    pen = ImageDraw.Draw(image)
    for shape in shapes:
        pen.polygon(_outline(shape, *size), fill=_blend(COLORS[shape.color], paper, level.ink))
    return _grain(image, rng, level.grain)


def _grain(image: Image.Image, rng: Random, strength: int) -> Image.Image:
    """Add noise of up to `strength` levels, from Python's generator, whose bytes are the same everywhere."""
    noise = np.frombuffer(rng.randbytes(image.width * image.height), np.uint8).astype(np.int32)
    noise = (noise * (2 * strength + 1) // 256 - strength).reshape(image.height, image.width, 1)
    return Image.fromarray(np.clip(np.asarray(image, np.int32) + noise, 0, 255).astype(np.uint8))


def _outline(shape: _Shape, width: int, height: int) -> list[tuple[int, int]]:
    """Corners in whole pixels, so that the last digit of a sine does not matter."""
    reach = shape.radius * min(width, height)
    return [
        (
            round(shape.x * width + reach * radius * math.cos(angle + shape.angle)),
            round(shape.y * height + reach * radius * math.sin(angle + shape.angle)),
        )
        for radius, angle in polar_corners(shape.shape)
    ]
