"""Synthetic scenes with true answers: the world that the demo model knows.

Every scene is drawn from a `random.Random`, so a seed fixes pictures, questions and answers.
A scene is one of
    picture   one shape, several shapes, or a number, with one to three questions about it
    pair      two pictures of one shape that differ in exactly one attribute
    clip      frames of one shape that moves up, down, left or right

The same module feeds training, evaluation and the tests.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mlx_smolvlm.evaluate.mini.shape_outlines import COLORS, SHAPES, polar_corners

SIZES = {"small": (0.13, 0.155), "large": (0.22, 0.25)}  # radius, share of the shorter side
PLACES = {  # name -> (x, y) of the nominal centre, share of width and height
    "at the top left": (0.25, 0.25),
    "at the top": (0.50, 0.25),
    "at the top right": (0.75, 0.25),
    "on the left": (0.25, 0.50),
    "in the center": (0.50, 0.50),
    "on the right": (0.75, 0.50),
    "at the bottom left": (0.25, 0.75),
    "at the bottom": (0.50, 0.75),
    "at the bottom right": (0.75, 0.75),
}
PLACE_JITTER = 0.055
COUNTS = ("One", "Two", "Three", "Four", "Five")
DIRECTIONS = {"up": (0, -1), "down": (0, 1), "to the left": (-1, 0), "to the right": (1, 0)}

QUESTIONS = {
    "describe": ("Describe the picture.", "What do you see?", "What is in this picture?", "Describe this image."),
    "color": ("What color is the shape?", "Which color is it?", "What color is it?"),
    "shape": ("What shape is it?", "Which shape is this?", "What shape do you see?"),
    "where": ("Where is the shape?", "Where is it?", "In which place is the shape?"),
    "count": ("How many shapes are there?", "How many shapes do you see?", "Count the shapes."),
    "number": ("What number is written?", "Which number do you see?", "Read the number."),
    "difference": (
        "What is different between the two pictures?",
        "What differs between these pictures?",
        "What are the differences between these two images?",
    ),
    "direction": ("Which way does the shape move?", "In which direction does it move?", "Describe the video."),
}
SYSTEM_PROMPTS = (
    "You are a visual agent and should provide concise answers.",
    "You are a helpful assistant.",
)


@dataclass(frozen=True)
class Shape:
    """One shape: four attributes that answers name, and where exactly it is drawn."""

    size: str
    color: str
    shape: str
    place: str
    x: float  # centre, share of the width
    y: float  # centre, share of the height
    radius: float  # share of the shorter side
    angle: float  # radians

    @property
    def description(self) -> str:
        return f"{self.size} {self.color} {self.shape} {self.place}"


@dataclass(frozen=True)
class Scene:
    """Pictures (or the frames of one clip), and questions about them with their true answers."""

    kind: str  # "picture", "pair" or "clip"
    images: list[Image.Image]
    turns: list[tuple[str, str, str]]  # (task, question, answer)
    timestamps: list[float]  # seconds, one per frame of a clip; empty otherwise
    duration: float  # seconds; 0 unless a clip
    fps: float = 0.0  # of the file that a clip would be


def random_shape(rng: Random) -> Shape:
    size, place = rng.choice(list(SIZES)), rng.choice(list(PLACES))
    x, y = PLACES[place]
    return Shape(
        size=size,
        color=rng.choice(list(COLORS)),
        shape=rng.choice(SHAPES),
        place=place,
        x=x + rng.uniform(-PLACE_JITTER, PLACE_JITTER),
        y=y + rng.uniform(-PLACE_JITTER, PLACE_JITTER),
        radius=rng.uniform(*SIZES[size]),
        angle=rng.uniform(-0.12, 0.12),
    )


def outline(shape: Shape, width: int, height: int) -> list[tuple[float, float]]:
    """Corners of the polygon in pixels (of a circle's 40-gon too)."""
    reach = shape.radius * min(width, height)
    centre_x, centre_y = shape.x * width, shape.y * height
    return [
        (centre_x + reach * r * math.cos(a + shape.angle), centre_y + reach * r * math.sin(a + shape.angle))
        for r, a in polar_corners(shape.shape)
    ]


def background(rng: Random) -> tuple[int, int, int]:
    """A light, nearly grey tone: every colour of `COLORS` stands out."""
    level = rng.randint(205, 250)
    return tuple(min(255, level + rng.randint(-8, 8)) for _ in range(3))


def draw(shapes: list[Shape], size: tuple[int, int], paper: tuple[int, int, int], rng: Random) -> Image.Image:
    """Shapes on paper at (width, height) pixels, with a little noise so that no two pixels are alike."""
    width, height = size
    image = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(image)
    for shape in shapes:
        color = tuple(max(0, min(255, c + rng.randint(-12, 12))) for c in COLORS[shape.color])
        pen.polygon(outline(shape, width, height), fill=color)
    return grain(image, rng)


def grain(image: Image.Image, rng: Random) -> Image.Image:
    noise = np.random.default_rng(rng.getrandbits(32)).integers(-6, 7, (image.height, image.width, 1))
    return Image.fromarray(np.clip(np.asarray(image, np.int16) + noise, 0, 255).astype(np.uint8))


def canvas_size(rng: Random) -> tuple[int, int]:
    """Mostly square, sometimes 4:3 or 3:4; all of them become 2 x 2 tiles."""
    return rng.choice(((96, 96), (96, 96), (128, 128), (128, 96), (84, 112)))


def picture_of_one_shape(rng: Random, tasks: list[str]) -> Scene:
    shape = random_shape(rng)
    answers = {
        "describe": f"A {shape.description}.",
        "color": f"{shape.color.capitalize()}.",
        "shape": f"A {shape.shape}.",
        "where": f"{shape.place.capitalize()}.",
        "count": "One.",
    }
    image = draw([shape], canvas_size(rng), background(rng), rng)
    turns = [(task, rng.choice(QUESTIONS[task]), answers[task]) for task in tasks]
    return Scene("picture", [image], turns, [], 0.0)


def picture_of_many_shapes(rng: Random) -> Scene:
    count = rng.randint(1, len(COUNTS))
    cells = rng.sample([(column, row) for column in range(3) for row in range(3)], count)  # apart, so no overlap
    shapes = [
        replace(
            random_shape(rng),
            x=(column + 0.5) / 3 + rng.uniform(-0.03, 0.03),
            y=(row + 0.5) / 3 + rng.uniform(-0.03, 0.03),
            radius=rng.uniform(0.11, 0.13),
        )
        for column, row in cells
    ]
    image = draw(shapes, rng.choice(((96, 96), (128, 128), (112, 98))), background(rng), rng)
    return Scene("picture", [image], [("count", rng.choice(QUESTIONS["count"]), f"{COUNTS[count - 1]}.")], [], 0.0)


def picture_of_number(rng: Random) -> Scene:
    number = str(rng.randint(10, 99) if rng.random() < 0.75 else rng.randint(0, 9))
    width, height = canvas_size(rng)
    image = Image.new("RGB", (width, height), background(rng))
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(rng.uniform(0.52, 0.6) * min(width, height))
    left, top, right, bottom = pen.textbbox((0, 0), number, font=font)
    x = (0.5 + rng.uniform(-0.06, 0.06)) * width - (left + right) / 2
    y = (0.5 + rng.uniform(-0.06, 0.06)) * height - (top + bottom) / 2
    color = COLORS[rng.choice(("red", "green", "blue", "purple", "black"))]
    pen.text((x, y), number, fill=color, font=font)
    return Scene("picture", [grain(image, rng)], [("number", rng.choice(QUESTIONS["number"]), f"{number}.")], [], 0.0)


def pair(rng: Random) -> Scene:
    """Two pictures whose shapes differ in one attribute; the answer names both and what differs."""
    first = random_shape(rng)
    attribute = rng.choice(("color", "shape", "size", "place"))
    while True:
        other = random_shape(rng)
        if getattr(other, attribute) != getattr(first, attribute):
            break
    changes = {attribute: getattr(other, attribute)}
    if attribute == "size":
        changes["radius"] = other.radius
    x, y = (other.x, other.y) if attribute == "place" else (first.x, first.y)
    second = replace(first, **changes, x=x + rng.uniform(-0.01, 0.01), y=y + rng.uniform(-0.01, 0.01))
    size, paper = canvas_size(rng), background(rng)
    answer = f"A {first.description}, then a {second.description}: the {attribute} differs."
    images = [draw([shape], size, paper, rng) for shape in (first, second)]
    return Scene("pair", images, [("difference", rng.choice(QUESTIONS["difference"]), answer)], [], 0.0)


def clip(rng: Random, fps: float = 10.0, sample_fps: float = 1.0, max_frames: int = 6, full: bool = False) -> Scene:
    """Frames of one moving shape, as the video sampling picks them (or all of them, if `full`)."""
    direction = rng.choice(list(DIRECTIONS))
    dx, dy = DIRECTIONS[direction]
    travel = rng.uniform(0.35, 0.6)
    across, along = rng.uniform(0.25, 0.75), 0.5 + rng.uniform(-0.08, 0.08)
    shape = random_shape(rng)
    size = rng.choice(((80, 80), (96, 72), (72, 96), (96, 54)))
    paper = background(rng)
    frames_in_file = rng.randint(int(2.6 * fps), int(9 * fps))
    duration = frames_in_file / fps
    wanted = max(1, min(round(sample_fps * duration), max_frames))
    start, end = 0, frames_in_file - 1
    if duration - 2 > max_frames * sample_fps:
        start, end = int(fps), int(frames_in_file - fps)
    picked = range(frames_in_file) if full else np.unique(np.linspace(start, end, wanted, dtype=int)).tolist()
    images = []
    for index in picked:
        progress = index / (frames_in_file - 1) - 0.5
        x = (along + dx * travel * progress) if dx else across
        y = (along + dy * travel * progress) if dy else across
        images.append(draw([replace(shape, x=x, y=y)], size, paper, rng))
    answer = f"The {shape.color} shape moves {direction}."
    turns = [("direction", rng.choice(QUESTIONS["direction"]), answer)]
    return Scene("clip", images, turns, [index / fps for index in picked], duration, fps)


def write_clip(scene: Scene, path: Path) -> None:
    """Write a clip with all its frames as an H.264 file."""
    import av  # only clips that become files need it

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=int(scene.fps), options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = *scene.images[0].size, "yuv420p"
        for image in scene.images:
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode(None))


def scene(rng: Random, kind: str) -> Scene:
    """A training scene of one kind; pictures mix all single-picture tasks, with up to three turns."""
    if kind == "pair":
        return pair(rng)
    if kind == "clip":
        return clip(rng)
    draw_of = rng.random()
    if draw_of < 0.40:
        tasks = rng.sample(("describe", "color", "shape", "where", "describe", "count"), rng.randint(1, 3))
        return picture_of_one_shape(rng, tasks)
    return picture_of_many_shapes(rng) if draw_of < 0.58 else picture_of_number(rng)


def scene_for(rng: Random, task: str) -> Scene:
    """A scene with a single question of one task, for evaluation; a clip has every frame of its file."""
    if task == "count":
        return picture_of_many_shapes(rng)
    if task == "number":
        return picture_of_number(rng)
    if task == "difference":
        return pair(rng)
    if task == "direction":
        return clip(rng, full=True)
    return picture_of_one_shape(rng, [task])


def messages(scene: Scene, answered: bool = False, system: str | None = None) -> list[dict]:
    """The scene's first question (with `answered`, every turn) as chat messages in Hugging Face form."""
    media = [{"type": "video"}] if scene.kind == "clip" else [{"type": "image"} for _ in scene.images]
    chat = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    for number, (_, question, answer) in enumerate(scene.turns if answered else scene.turns[:1]):
        chat.append({"role": "user", "content": (media if number == 0 else []) + [{"type": "text", "text": question}]})
        if answered:
            chat.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return chat
