"""Make five PDFs with 30 pages to try document conversion on: `python examples/demo_documents.py FOLDER [--seed 0]`.

Text, tables, formulas, code, charts and two columns, of made-up words: free to share. Beside each PDF lies the DocTags
file that a perfect model would write. Needs nothing but Python: the PDFs use the fonts that every reader has.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

WIDTH, HEIGHT = 612, 792  # points: US Letter
MARGIN, GUTTER = 60, 24
SIZE, LEADING = 10, 13  # of text
# Advance widths of Helvetica, thousandths of the size, from the space to the tilde
HELVETICA = [
    *(278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, *[556] * 10, 278, 278, 584, 584),
    *(584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778, 667, 778, 722, 667),
    *(611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556, 556, 278, 556, 556, 222),
    *(222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584),
]  # fmt: skip
FONTS = {"Helvetica": "F1", "Helvetica-Bold": "F2", "Courier": "F3", "Times-Italic": "F4"}
CONSONANTS, VOWELS = "bdklmnrstv", "aeio"
ITEMS = ["Tea", "Coffee", "Bread", "Rice", "Salt", "Honey", "Oil", "Flour"]
MONTHS = ["January", "February", "March", "April", "May", "June"]
FORMULAS = [  # what is drawn, as runs on, above and below the line, and its LaTeX
    (["E = m c", "^2"], r"E = m c ^ { 2 }"),
    (["a", "_n", " = a", "_{n-1}", " + d"], r"a _ { n } = a _ { n - 1 } + d"),
    (["f(x) = x", "^3", " - 2x + 1"], r"f ( x ) = x ^ { 3 } - 2 x + 1"),
    (["v", "^2", " = u", "^2", " + 2as"], r"v ^ { 2 } = u ^ { 2 } + 2 a s"),
]
CODE = [
    (
        "Python",
        "def total(prices):\n    result = 0\n    for price in prices:\n        result += price\n    return result",
    ),
    ("C++", "#include <vector>\nint last(const std::vector<int>& v) {\n    return v.empty() ? 0 : v.back();\n}"),
    ("Bash", 'for file in *.pdf; do\n    echo "$file" && cp "$file" backup/\ndone'),
]


@dataclass
class Page:
    """What is drawn, and what a model should say about it."""

    commands: list[str] = field(default_factory=list)
    doctags: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, size: float = SIZE, font: str = "Helvetica") -> None:
        """One line; y is the baseline's distance from the top."""
        escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        self.commands.append(f"BT /{FONTS[font]} {size} Tf {x:.1f} {HEIGHT - y:.1f} Td ({escaped}) Tj ET")

    def line(self, *points: tuple[float, float]) -> None:
        """Lines from point to point."""
        path = [f"{x:.1f} {HEIGHT - y:.1f} {'l' if number else 'm'}" for number, (x, y) in enumerate(points)]
        self.commands.append(" ".join([*path, "S"]))

    def bar(self, x: float, y: float, width: float, height: float) -> None:
        """A filled rectangle, (x, y) its upper left corner."""
        self.commands.append(f".3 .5 .8 rg {x:.1f} {HEIGHT - y - height:.1f} {width:.1f} {height:.1f} re f 0 g")

    def element(self, tag: str, box: tuple[float, float, float, float], content: str) -> None:
        """What a model should say; the box is left, top, right, bottom in points."""
        self.doctags.append(f"<{tag}>{place(box)}{content}</{tag}>")


def place(box: tuple[float, float, float, float]) -> str:
    """The box in DocTags: 0 to 500 of the page."""
    sizes = (WIDTH, HEIGHT, WIDTH, HEIGHT)
    return "".join(f"<loc_{round(500 * value / size)}>" for value, size in zip(box, sizes, strict=True))


def text_width(text: str, size: float = SIZE) -> float:
    """In Helvetica, points."""
    return sum(HELVETICA[ord(character) - 32] for character in text) * size / 1000


def wrapped(text: str, width: float) -> list[str]:
    """Lines of at most that width."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


class Writer:
    """Puts elements below each other."""

    def __init__(self, choices: Random, title: str, columns: int = 1):
        self.choices, self.title, self.columns = choices, title, columns
        self.pages: list[Page] = []
        self.width = (WIDTH - 2 * MARGIN - (columns - 1) * GUTTER) / columns
        self.new_page()

    def new_page(self) -> None:
        """Begin a page with its header and footer."""
        self.page, self.column, self.y = Page(), 0, MARGIN + 30.0
        self.pages.append(self.page)
        number = str(len(self.pages))
        for tag, y, text in (("page_header", 40, self.title), ("page_footer", HEIGHT - 40, number)):
            self.page.text(MARGIN, y, text, 8)
            self.page.element(tag, (MARGIN, y - 8, MARGIN + text_width(text, 8), y + 3), text)

    @property
    def x(self) -> float:
        """Left edge of the column."""
        return MARGIN + self.column * (self.width + GUTTER)

    def room(self, height: float) -> bool:
        """Whether so much fits, in the next column if not in this one."""
        if self.y + height > HEIGHT - MARGIN - 10 and self.column + 1 < self.columns:
            self.column, self.y = self.column + 1, MARGIN + 30.0
        return self.y + height <= HEIGHT - MARGIN - 10

    def word(self) -> str:
        """One to four made-up syllables."""
        choice = self.choices.choice
        return "".join(choice(CONSONANTS) + choice(VOWELS) for _ in range(self.choices.randint(1, 4)))

    def words(self, count: int) -> str:
        """A made-up sentence."""
        words = [self.word() for _ in range(count)]
        return " ".join(words).capitalize() + "."

    def add(self, tag: str, text: str, size: float = SIZE, font: str = "Helvetica", lines: list[str] | None = None):
        """Text in lines."""
        lines = lines or wrapped(text, self.width if size == SIZE else self.width * SIZE / size / 1.15)
        leading = size * LEADING / SIZE
        top = self.y
        for line in lines:
            self.y += leading
            self.page.text(self.x, self.y, line, size, font)
        self.page.element(tag, (self.x, top, self.x + self.width, self.y + size / 3), text)
        self.y += leading

    def paragraph(self) -> None:
        """Some sentences."""
        self.add("text", " ".join(self.words(self.choices.randint(6, 14)) for _ in range(self.choices.randint(2, 5))))

    def heading(self, level: int = 1) -> None:
        """A section's title."""
        self.add(f"section_header_level_{level}", self.words(3).rstrip("."), 14 - level, "Helvetica-Bold")

    def bullets(self) -> None:
        """A list."""
        tags = []
        for _ in range(self.choices.randint(2, 4)):
            text, top = self.words(5), self.y
            self.y += LEADING
            self.page.text(self.x, self.y, f"- {text}")
            tags.append(f"<list_item>{place((self.x, top, self.x + self.width, self.y + 3))}{text}</list_item>")
        self.page.doctags.append(f"<unordered_list>{''.join(tags)}</unordered_list>")
        self.y += LEADING

    def formula(self) -> None:
        """A formula with its number."""
        runs, latex = self.choices.choice(FORMULAS)
        top, x = self.y, self.x + self.width / 4
        self.y += 20
        for run in runs:
            is_raised = run[0] in "^_"
            shown, size = run.strip("^_{}") if is_raised else run, 8 if is_raised else 12
            self.page.text(x, self.y + {"^": -5, "_": 3}.get(run[0], 0), shown, size, "Times-Italic")
            x += text_width(shown, size)
        self.page.element("formula", (self.x, top, self.x + self.width, self.y + 8), latex)
        self.y += LEADING + 6

    def code(self) -> None:
        """A listing."""
        language, code = self.choices.choice(CODE)
        self.add("code", f"<_{language}_>{code}", 9, "Courier", code.split("\n"))

    def table(self, is_spanned: bool = False) -> None:
        """Rows of items and numbers; the header of two columns may be one."""
        names = self.choices.sample(ITEMS, self.choices.randint(3, 6))
        rows = [["Item", "Sold", "" if is_spanned else "Left"]]
        rows += [[name, str(self.choices.randint(1, 999)), f"{self.choices.random() * 100:.2f}"] for name in names]
        top, step = self.y + LEADING + 4, self.width / 3
        caption = f"Table {self.choices.randint(1, 99)}: {self.words(4)}"
        self.page.text(self.x, self.y + LEADING, caption)
        tags = f"<caption>{place((self.x, self.y, self.x + self.width, top))}{caption}</caption>"
        bottom = top + 18 * len(rows)
        for number, row in enumerate(rows):
            y = top + 18 * number
            self.page.line((self.x, y), (self.x + self.width, y))
            for column, cell in enumerate(row):
                self.page.text(self.x + column * step + 4, y + 13, cell)
                tags += "<lcel>" if not cell else f"<{'ched' if number == 0 else 'fcel'}>{cell}"
            tags += "<nl>"
        self.page.line((self.x, top), (self.x, bottom), (self.x + self.width, bottom), (self.x + self.width, top))
        self.page.element("otsl", (self.x, top, self.x + self.width, bottom), tags)
        self.y = bottom + LEADING

    def chart(self) -> None:
        """Bars or a line over the months."""
        is_line = self.choices.random() < 0.4
        values = [self.choices.randint(10, 100) for _ in MONTHS]
        top, bottom, step = self.y + 10, self.y + 130, (self.width - 40) / len(MONTHS)
        self.page.line((self.x + 20, top), (self.x + 20, bottom), (self.x + self.width, bottom))
        tops = [(self.x + 40 + step * number, bottom - value) for number, value in enumerate(values)]
        if is_line:
            self.page.line(*tops)
        for (x, y), month, value in zip(tops, MONTHS, values, strict=True):
            if not is_line:
                self.page.bar(x - 10, y, 20, value)
            self.page.text(x - 8, y - 3, str(value), 7)
            self.page.text(x - 12, bottom + 10, month[:3], 8)
        caption = f"Figure {self.choices.randint(1, 99)}: {self.words(4)}"
        self.page.text(self.x, bottom + 28, caption)
        cells = "<ched>Month<ched>Value<nl>" + "".join(
            f"<fcel>{month[:3]}<fcel>{value}<nl>" for month, value in zip(MONTHS, values, strict=True)
        )
        under = f"<caption>{place((self.x, bottom + 16, self.x + self.width, bottom + 32))}{caption}</caption>"
        kind = "<line_chart>" if is_line else "<bar_chart>"
        self.page.element("chart", (self.x, self.y, self.x + self.width, bottom + 14), kind + cells + under)
        self.y = bottom + 32 + LEADING


def make_document(name: str, choices: Random) -> list[Page]:
    """The pages of one of the documents."""
    num_pages, columns, kinds = {
        "report": (8, 1, ["heading", "paragraph", "paragraph", "bullets"]),
        "tables": (6, 1, ["heading", "table", "spanned", "paragraph"]),
        "paper": (6, 2, ["heading", "paragraph", "formula", "paragraph"]),
        "manual": (5, 1, ["heading", "paragraph", "code", "bullets"]),
        "figures": (5, 1, ["heading", "chart", "paragraph"]),
    }[name]
    writer = Writer(choices, f"Demo {name}", columns)
    writer.add("title", f"The {name}", 20, "Helvetica-Bold")
    while True:
        for kind in kinds:
            if not writer.room(180):
                if len(writer.pages) == num_pages:
                    return writer.pages
                writer.new_page()
            if kind == "spanned":
                writer.table(is_spanned=True)
            elif kind == "heading":
                writer.heading(choices.randint(1, 3))
            else:
                getattr(writer, kind)()


def pdf(pages: list[Page]) -> bytes:
    """The simplest file that holds them."""
    fonts = " ".join(f"/{key} << /Type /Font /Subtype /Type1 /BaseFont /{name} >>" for name, key in FONTS.items())
    kids = " ".join(f"{3 + 2 * number} 0 R" for number in range(len(pages)))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>"]
    for number, page in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {WIDTH} {HEIGHT}] /Contents {4 + 2 * number} 0 R "
            f"/Resources << /Font << {fonts} >> >> >>"
        )
        content = "\n".join(page.commands)
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    body, places = "%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{one}\nendobj\n"
    table = "".join(f"{at:010} 00000 n \n" for at in places)
    end = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return f"{body}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}".encode("ascii")


def make_documents(folder: Path, seed: int = 0) -> list[Path]:
    """Write the five PDFs, and the DocTags of each; the paths of the PDFs."""
    paths = [folder / f"{name}.pdf" for name in ("report", "tables", "paper", "manual", "figures")]
    for path in paths:
        pages = make_document(path.stem, Random(f"{path.stem} {seed}"))
        doctags = "\n<page_break>\n".join("\n".join(page.doctags) for page in pages)
        path.write_bytes(pdf(pages))
        path.with_suffix(".doctags").write_text(f"<doctag>{doctags}</doctag>\n", encoding="utf-8")
    return paths


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write; it is made if it is not there")
    parser.add_argument("--seed", type=int, default=0, help="other words for another number (default: 0)")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for path in make_documents(arguments.folder, arguments.seed):
        print(path)


if __name__ == "__main__":
    main()
