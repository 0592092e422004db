"""Charts, documents, receipts, forms and signs for the mini suite: images to read, drawn from a seed."""

from random import Random

from PIL import Image, ImageDraw, ImageFont

from .mini_question import MiniQuestion
from .shape_outlines import COLORS

_INK, _PALE, _PAPER = (25, 25, 30), (150, 150, 155), (252, 252, 250)
_CITIES = ("Lisbon", "Oslo", "Quito", "Hanoi", "Accra", "Perth", "Turin", "Osaka", "Lima", "Cork", "Graz", "Bergen")
_FIRST = ("Maya", "Jonas", "Aiko", "Carlos", "Nora", "Felix", "Amara", "Pavel", "Lucia", "Omar")
_LAST = ("Keller", "Okafor", "Lindgren", "Moreno", "Tanaka", "Novak", "Silva", "Hughes", "Rossi", "Patel")
_GOODS = ("Apples", "Bread", "Coffee", "Butter", "Honey", "Pencils", "Lamp", "Rice", "Soap", "Tea", "Towels", "Yogurt")
_WORDS = ("HARBOR", "MARKET", "GARDEN", "STATION", "MUSEUM", "BAKERY", "TUNNEL", "LIBRARY", "BRIDGE", "CASTLE")
_NOUNS = ("pump", "valve", "filter", "engine", "sensor", "cable", "heater", "panel", "motor", "switch")
_MONTHS = ("January", "March", "May", "June", "August", "October", "December")
_BRIEF = " Give a very brief answer."


def bar_chart(rng: Random, difficulty: int) -> MiniQuestion:
    """A chart of bars with their values; at difficulty 3 values are read from the axis."""
    count, width, height = 3 + difficulty, 640, 480
    labels = rng.sample(_CITIES, count)
    values = [10 * value for value in rng.sample(range(1, 10), count)]
    if difficulty < 3:
        values = [value + rng.randint(-4, 4) for value in values]
    image, pen, font = _page(width, height, 20)
    pen.text((60, 14), f"{rng.choice(_GOODS)} sold, in tons", fill=_INK, font=_font(26))
    base, unit, step = height - 60, (height - 140) / 100, (width - 100) / count
    for tick in range(0, 101, 20):
        y = round(base - unit * tick)
        pen.line((60, y, width - 30, y), fill=_PALE)
        pen.text((18, y - 12), str(tick), fill=_INK, font=font)
    colors = rng.sample(list(COLORS.values()), count)
    for number, (label, value) in enumerate(zip(labels, values, strict=True)):
        left, top = round(70 + step * number), round(base - unit * value)
        pen.rectangle((left, top, left + round(step * 0.7), base), fill=colors[number])
        pen.text((left, base + 8), label, fill=_INK, font=font)
        if difficulty < 3:
            pen.text((left + 4, top - 26), str(value), fill=_INK, font=font)
    one, other = rng.sample(range(count), 2)
    if difficulty == 2 and rng.random() < 0.5:
        question = f"How many tons were sold in {labels[one]} and {labels[other]} together?"
        return MiniQuestion(question + _BRIEF, str(values[one] + values[other]), "relaxed", images=[image])
    if rng.random() < 0.5:
        most = labels[values.index(max(values))]
        return MiniQuestion("Which city sold the most?" + _BRIEF, most, "ocrbench", images=[image])
    question = f"How many tons were sold in {labels[one]}?"
    return MiniQuestion(question + _BRIEF, str(values[one]), "relaxed", images=[image])


def document(rng: Random, difficulty: int) -> MiniQuestion:
    """A letter with a reference, a date, an addressee and sentences; smaller and longer with difficulty."""
    size, num_lines = {1: (30, 3), 2: (22, 8), 3: (15, 20)}[difficulty]
    facts = {
        "reference number": f"{rng.choice('ABCDEFGHK')}{rng.choice('LMNPRT')}-{rng.randint(1000, 9999)}",
        "date": f"{rng.randint(1, 28)} {rng.choice(_MONTHS)} {rng.randint(1995, 2030)}",
        "name of the addressee": f"{rng.choice(_FIRST)} {rng.choice(_LAST)}",
    }
    noun, city, hours = rng.choice(_NOUNS), rng.choice(_CITIES), rng.randint(2, 60)
    lines = [f"Reference: {facts['reference number']}", f"Date: {facts['date']}", ""]
    lines += [f"Dear {facts['name of the addressee']},", ""]
    lines += [f"your {noun} will arrive in {city}", f"within {hours} hours."]
    for _ in range(num_lines - 2):
        lines.append(f"The {rng.choice(_NOUNS)} is part {rng.randint(10, 99)}, made in {rng.choice(_CITIES)}.")
    image, pen, font = _page(640, 760, size)
    for number, line in enumerate(lines):
        pen.text((40, 40 + round(number * size * 1.35)), line, fill=_INK, font=font)
    facts |= {"city where the order will arrive": city} if difficulty > 1 else {}
    name = rng.choice(list(facts))
    question = f"What is the {name} in this letter?" + _BRIEF
    return MiniQuestion(question, facts[name], "anls", images=[image])


def receipt(rng: Random, difficulty: int) -> MiniQuestion:
    """A receipt; the price of an item, the total, or at difficulty 3 what two items cost together."""
    count = {1: 3, 2: 5, 3: 8}[difficulty]
    items = rng.sample(_GOODS, count)
    cents = [rng.randint(50, 2500) for _ in items]
    image, pen, font = _page(400, 200 + 44 * count, 24)
    pen.text((100, 20), f"{rng.choice(_WORDS)} SHOP", fill=_INK, font=font)
    rows = [*zip(items, cents, strict=True), ("TOTAL", sum(cents))]
    for number, (item, price) in enumerate(rows):
        y = 80 + 44 * number + (12 if item == "TOTAL" else 0)
        pen.text((30, y), item, fill=_INK, font=font)
        text = _money(price)
        pen.text((370 - round(pen.textlength(text, font=font)), y), text, fill=_INK, font=font)
    pen.line((30, 80 + 44 * count, 370, 80 + 44 * count), fill=_INK, width=2)
    one, other = rng.sample(range(count), 2)
    if difficulty == 3:
        question, price = f"What do {items[one]} and {items[other]} cost together?", cents[one] + cents[other]
        return MiniQuestion(question + _BRIEF, _money(price), "relaxed", images=[image])
    if rng.random() < 0.5:
        return MiniQuestion("What is the total?" + _BRIEF, _money(sum(cents)), "anls", images=[image])
    return MiniQuestion(f"How much is {items[one]}?" + _BRIEF, _money(cents[one]), "anls", images=[image])


def form(rng: Random, difficulty: int) -> MiniQuestion:
    """A form with fields that are filled in, and boxes that are ticked."""
    fields = {
        "Name": f"{rng.choice(_FIRST)} {rng.choice(_LAST)}",
        "City": rng.choice(_CITIES),
        "Phone": f"{rng.randint(100, 999)} {rng.randint(1000, 9999)}",
        "Customer no.": str(rng.randint(10000, 99999)),
        "Item": rng.choice(_GOODS),
        "Signed in": rng.choice(_CITIES),
    }
    size = {1: 26, 2: 21, 3: 16}[difficulty]
    image, pen, font = _page(560, 520, size)
    names = rng.sample(list(fields), 2 + difficulty)
    for number, name in enumerate(names):
        y = 30 + 60 * number
        pen.text((30, y), f"{name}:", fill=_INK, font=font)
        pen.rectangle((220, y - 6, 530, y + 34), outline=_PALE)
        pen.text((230, y), fields[name], fill=COLORS["blue"], font=font)
    boxes = rng.sample(("Express delivery", "Gift wrapping", "Invoice by mail", "Newsletter"), difficulty + 1)
    ticked = {box: rng.random() < 0.5 for box in boxes}
    for number, box in enumerate(boxes):
        y = 350 + 40 * number
        pen.rectangle((30, y, 54, y + 24), outline=_INK, width=2)
        if ticked[box]:
            pen.line((33, y + 3, 51, y + 21), fill=_INK, width=3)
            pen.line((51, y + 3, 33, y + 21), fill=_INK, width=3)
        pen.text((70, y), box, fill=_INK, font=_font(20))
    if rng.random() < 0.5:
        box = rng.choice(boxes)
        question = f'Is the box "{box}" ticked? Answer yes or no.'
        return MiniQuestion(question, "Yes" if ticked[box] else "No", "yes_no", images=[image])
    name = rng.choice(names)
    question = f'What is written in the field "{name}"?' + _BRIEF
    return MiniQuestion(question, fields[name], "anls", images=[image])


def sign(rng: Random, difficulty: int) -> MiniQuestion:
    """Words on a coloured sign: one large word, two smaller ones, or three pale ones that are turned."""
    words = rng.sample(_WORDS, difficulty)
    size = {1: 64, 2: 40, 3: 24}[difficulty]
    paper = tuple(rng.randint(190, 245) for _ in range(3))
    image = Image.new("RGB", (480, 320), paper)
    pen = ImageDraw.Draw(image)
    color, pale = COLORS[rng.choice(("red", "blue", "purple"))], tuple(value - 70 for value in paper)
    ink = {1: _INK, 2: color, 3: pale}[difficulty]
    x, y = rng.randint(20, 120), rng.randint(40, 120)
    for number, word in enumerate(words):
        pen.text((x, y + round(number * size * 1.4)), word, fill=ink, font=_font(size))
    if difficulty == 3:
        image = image.rotate(rng.choice((-12, 9, 14)), Image.Resampling.NEAREST, fillcolor=paper)
    asked = rng.randrange(difficulty)
    which = ("", " in the first line", " in the second line", " in the third line")[0 if difficulty == 1 else asked + 1]
    question = f"What is the word{which}?" + _BRIEF
    return MiniQuestion(question, words[asked], "ocrbench", images=[image])


def _page(width: int, height: int, size: int) -> tuple[Image.Image, ImageDraw.ImageDraw, ImageFont.FreeTypeFont]:
    image = Image.new("RGB", (width, height), _PAPER)
    return image, ImageDraw.Draw(image), _font(size)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ValueError("this Pillow has no FreeType, without which the mini suite cannot write texts; reinstall it")
    return font


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"
