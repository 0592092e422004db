"""Images, questions and texts drawn from a seed: what quality is measured on unless the user gives data.

They are drawn on the fly, so that nothing is downloaded or shipped, and vary in what quantization may hurt: flat
colours, gradients and textures, shapes to count, charts, tables and pages to read; prose, dialogue, arithmetic, code.
"""

from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .calibration_data import Sample

_INK = (20, 20, 20)
_COLORS = {"red": (205, 50, 45), "green": (45, 140, 70), "blue": (45, 90, 200), "yellow": (235, 200, 50)}
_COLORS |= {"purple": (130, 65, 160), "orange": (235, 130, 40), "black": (30, 30, 35)}
_NOUNS = [
    "river",
    "market",
    "garden",
    "teacher",
    "engine",
    "window",
    "letter",
    "bridge",
    "kitchen",
    "village",
    "doctor",
    "mountain",
    "ship",
    "library",
]
_VERBS = [
    "opened",
    "repaired",
    "painted",
    "described",
    "followed",
    "measured",
    "carried",
    "visited",
    "remembered",
    "sold",
    "crossed",
    "drew",
]
_ADJECTIVES = [
    "old",
    "quiet",
    "bright",
    "narrow",
    "heavy",
    "famous",
    "wooden",
    "distant",
    "careful",
    "broken",
    "green",
    "early",
]
_TASKS = ("Describe this image.", "What do you see in the picture?", "Describe the image in detail.", "What is this?")
_QUESTIONS = {
    "shapes": ("How many shapes are there?", "What colors do you see?", "Where is the largest shape?"),
    "scenery": ("Is it day or night?", "What is in the background?", "Which colors dominate?"),
    "chart": ("Which bar is the tallest?", "What does the chart show?", "Read the labels of the chart."),
    "page": ("What is written here?", "Read the text.", "What is the document about?"),
    "table": ("What is in the second row?", "Convert the table to text.", "What is the largest number?"),
}


def built_in_samples(seed: str, num_pictures: int = 16, num_texts: int = 8) -> list[Sample]:
    """Samples without answers (images, with a question each) and with them (texts, scored from the second word on).

    The same seed gives the same samples; different ones share no image. Every other image is sent as one tile, to
    keep what a sample costs within bounds, the rest as the checkpoint has it.
    """
    samples = []
    for number in range(num_pictures):
        rng = Random(f"{seed}/picture/{number}")
        kind = list(_QUESTIONS)[number % len(_QUESTIONS)]
        image = _PAINTERS[kind](rng)
        question = rng.choice(_QUESTIONS[kind] if rng.random() < 0.6 else _TASKS)
        content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}]
        samples.append(Sample(f"{kind} {number}", messages, do_image_splitting=False if number % 2 else None))
    for number in range(num_texts):
        rng = Random(f"{seed}/text/{number}")
        kind = list(_WRITERS)[number % len(_WRITERS)]
        samples.append(Sample(f"{kind} {number}", text=_WRITERS[kind](rng)))
    return samples


def _noise(rng: Random, width: int, height: int, cells: int) -> np.ndarray:
    """Smooth random relief, (height, width) from 0 to 1, of about `cells` bumps a side."""
    coarse = np.random.RandomState(rng.getrandbits(32)).randint(0, 256, (cells, cells)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32) / 255


def _canvas(rng: Random) -> Image.Image:
    """A paper of one tone or a gradient between two, with a little texture."""
    width, height = rng.choice(((512, 512), (640, 480), (480, 640), (768, 432)))
    ends = [np.array([rng.randint(170, 255) for _ in range(3)], np.float32) for _ in range(2)]
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    paper = ends[0] + (ends[1] - ends[0]) * ramp + 20 * (_noise(rng, width, height, 32)[..., None] - 0.5)
    return Image.fromarray(np.clip(paper, 0, 255).astype(np.uint8))


def _shapes(rng: Random) -> Image.Image:
    image = _canvas(rng)
    pen = ImageDraw.Draw(image)
    for _ in range(rng.randint(1, 6)):
        x, y, radius = rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.85), rng.uniform(0.05, 0.2) * image.height
        box = (x * image.width - radius, y * image.height - radius, x * image.width + radius, y * image.height + radius)
        color, corners = rng.choice(list(_COLORS.values())), rng.choice((0, 3, 4, 5, 6))
        if corners:
            pen.regular_polygon((x * image.width, y * image.height, radius), corners, rng.randint(0, 90), fill=color)
        else:
            pen.ellipse(box, fill=color)
    return image


def _scenery(rng: Random) -> Image.Image:
    """Sky over hills, with the textures of a photograph."""
    width, height = rng.choice(((640, 480), (768, 512), (512, 512)))
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    sky = np.array([rng.randint(20, 160), rng.randint(60, 190), rng.randint(120, 255)], np.float32)
    pixels = sky + (255 - sky) * (rows**2 + 0.4 * _noise(rng, width, height, 6))[..., None]
    for layer in range(3):
        ridge = 0.45 + 0.15 * layer + 0.15 * (_noise(rng, width, 1, 7) - 0.5)
        ground = np.array([rng.randint(20, 140), rng.randint(60, 160), rng.randint(20, 90)], np.float32)
        textured = ground * (0.7 + 0.6 * _noise(rng, width, height, 48))[..., None]
        pixels = np.where((rows > ridge)[..., None], textured, pixels)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _chart(rng: Random) -> Image.Image:
    image = _canvas(rng)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(image.width / 28)
    count = rng.randint(3, 6)
    step, base = image.width / (count + 1), image.height * 0.85
    pen.text((step / 2, image.height * 0.03), f"{rng.choice(_NOUNS).capitalize()}s per year", fill=_INK, font=font)
    for bar in range(count):
        value, left = rng.randint(5, 99), step * (bar + 0.6)
        top = base - value / 99 * image.height * 0.65
        pen.rectangle((left, top, left + step * 0.7, base), fill=rng.choice(list(_COLORS.values())))
        pen.text((left, base + 4), str(rng.randint(1990, 2030)), fill=_INK, font=font)
        pen.text((left, top - image.width / 24), str(value), fill=_INK, font=font)
    return image


def _page(rng: Random) -> Image.Image:
    image = Image.new("RGB", (rng.choice((560, 640)), 720), (rng.randint(235, 255),) * 3)
    pen = ImageDraw.Draw(image)
    heading = f"THE {rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}".upper()
    pen.text((40, 30), heading, fill=_INK, font=ImageFont.load_default(30))
    words, font = _prose(rng).split(), ImageFont.load_default(rng.uniform(18, 24))
    for line in range(18):
        pen.text((40, 90 + 32 * line), " ".join(words[7 * line : 7 * line + 7]), fill=(25, 25, 25), font=font)
    return image


def _table(rng: Random) -> Image.Image:
    image = Image.new("RGB", (640, 420), (250, 250, 248))
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(24)
    for row in range(6):
        pen.line((30, 40 + 58 * row, 610, 40 + 58 * row), fill=(90, 90, 90), width=2)
        cells = [rng.choice(_NOUNS), str(rng.randint(1, 999)), f"{rng.uniform(0, 100):.1f}%"]
        for column, cell in enumerate(cells if row else ["name", "count", "share"]):
            pen.text((45 + 200 * column, 54 + 58 * row), cell, fill=_INK, font=font)
    return image


_PAINTERS = {"shapes": _shapes, "scenery": _scenery, "chart": _chart, "page": _page, "table": _table}


def _sentence(rng: Random) -> str:
    subject, object_ = (f"the {rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}" for _ in range(2))
    ending = rng.choice(("", " in the evening", " without a word", f" near the {rng.choice(_NOUNS)}", " again"))
    return f"{subject.capitalize()} {rng.choice(_VERBS)} {object_}{ending}."


def _prose(rng: Random) -> str:
    return " ".join(_sentence(rng) for _ in range(20))


def _dialogue(rng: Random) -> str:
    lines = []
    for _ in range(6):
        noun, adjective = rng.choice(_NOUNS), rng.choice(_ADJECTIVES)
        lines += [f"User: What can you tell me about the {noun}?", f"Assistant: It is {adjective}. {_sentence(rng)}"]
    return "\n".join(lines)


def _arithmetic(rng: Random) -> str:
    lines = []
    for _ in range(16):
        a, b = rng.randint(2, 99), rng.randint(2, 99)
        lines.append(rng.choice((f"{a} + {b} = {a + b}", f"{a} * {b} = {a * b}", f"The root of {a * a} is {a}.")))
    return "\n".join(lines)


def _code(rng: Random) -> str:
    lines = []
    for _ in range(4):
        noun, other, number = rng.choice(_NOUNS), rng.choice(_NOUNS), rng.randint(2, 9)
        lines += [f"def {rng.choice(_VERBS)}_{noun}({other}, count={number}):", f"    {noun} = []"]
        lines += ["    for i in range(count):", f"        {noun}.append({other} * i + {number})"]
        lines += [f"    return {noun}", ""]
    return "\n".join(lines)


_WRITERS = {"prose": _prose, "dialogue": _dialogue, "arithmetic": _arithmetic, "code": _code}
