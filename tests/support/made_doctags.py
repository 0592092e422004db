"""DocTags made by seed: well-formed, of every kind that docling-core reads without loss."""

from random import Random

_WORDS = [
    *("alpha", "beta_x", "AT&T", "3.14", "42", "1,000", "résumé", "*bold*", "a|b", "#", "-", ">", "`tick`", "```"),
    *("\\_esc", "![img](u_r_l)", "[l](u)", "100%", "“q”", "$5", "~", "1e5", "nan", "True", "07", "1_000", "-5", ".5"),
    *("i.e.", ";", "'", '"', "\\", "=", "<5", "<=", "<", "->"),
]
_NUMBERS = ["1", "22", "3.5", "1,234", "-7", "12%", "True"]
_CLASSES = ["bar_chart", "logo", "natural_image", "other", "table", "line", "vbar_categorical", "illustration", "map"]
_KINDS = [
    *(
        "text",
        "text",
        "title",
        "header",
        "caption",
        "footnote",
        "formula",
        "code",
        "code",
        "page_header",
        "page_footer",
    ),
    *("checkbox_selected", "checkbox_unselected", "list", "list", "table", "table", "table", "chart", "picture"),
    "inline",
]
_COVERED = ("lcel", "ucel", "xcel")


def made_doctags(seed: int) -> str:
    """One to three pages with one to five elements each."""
    return _Maker(Random(f"doctags {seed}")).document()


class _Maker:
    def __init__(self, choices: Random):
        self.choices = choices

    def document(self) -> str:
        counts = self.choices.choice([[3], [5], [2, 1], [1, 2, 1]])
        pages = (self._space().join(self._element() for _ in range(count)) for count in counts)
        return "<doctag>" + "\n<page_break>\n".join(pages) + "</doctag>"

    def _element(self) -> str:
        kind = self.choices.choice(_KINDS)
        if kind == "header":
            return self._leaf(f"section_header_level_{self.choices.randint(1, 6)}")
        if kind == "code":
            language = self.choices.choice(["", "<_Python_>", "<_C++_>", "<_Nobodys_>"])
            return f"<code>{self._place()}{language}{self._space()}{self._words(2, 9)}{self._space()}</code>"
        if kind == "list":
            return self._list(self.choices.choice(["ordered_list", "unordered_list"]))
        if kind == "table":
            return f"<otsl>{self._place()}{self._caption()}{self._cells()}</otsl>"
        if kind == "chart":
            inner = [self._caption(), self._cells()]
            self.choices.shuffle(inner)
            return f"<chart>{self._place(1)}{self._class()}{''.join(inner)}</chart>"
        if kind == "picture":
            return f"<picture>{self._place()}{self._class()}{self._caption()}</picture>"
        if kind == "inline":
            kinds = self.choices.choices(["text", "formula", "code"], k=self.choices.randint(1, 3))
            return f"<inline>{''.join(map(self._leaf, kinds))}</inline>"
        return self._leaf(kind)

    def _leaf(self, tag: str) -> str:
        return f"<{tag}>{self._place()}{self._words(1, 8)}{self._space()}</{tag}>"

    def _list(self, tag: str, depth: int = 0) -> str:
        pieces = []
        for _ in range(self.choices.randint(1, 4)):
            pieces.append(self._leaf("list_item") + self._space())
            if depth == 0 and self.choices.random() < 0.2:  # docling-core loses text of one of the same kind
                pieces.append(self._list("unordered_list" if tag == "ordered_list" else "ordered_list", 1))
        return f"<{tag}>{''.join(pieces)}</{tag}>"

    def _cells(self) -> str:
        num_rows, num_columns = self.choices.randint(1, 4), self.choices.randint(1, 4)
        kinds = ["fcel", "fcel", "fcel", "ched", "rhed", "srow", "ecel"]
        grid = [self.choices.choices(kinds, k=num_columns) for _ in range(num_rows)]
        row, column = self.choices.randrange(num_rows), self.choices.randrange(num_columns)
        below, right = self.choices.randint(row + 1, num_rows), self.choices.randint(column + 1, num_columns)
        for y in range(row, below):
            for x in range(column, right):
                if (y, x) != (row, column):
                    grid[y][x] = "lcel" if y == row else "ucel" if x == column else "xcel"
        return "".join("".join(map(self._cell, tags)) + "<nl>" for tags in grid)

    def _cell(self, tag: str) -> str:
        if tag == "ecel" or tag in _COVERED:
            return f"<{tag}>"
        text = self.choices.choice(_NUMBERS) if self.choices.random() < 0.4 else self._words(1, 3).replace("<", "x")
        return f"<{tag}>{text}"

    def _caption(self) -> str:
        text = self._words(1, 5).replace("\n", " ").replace("<", "x")
        return f"<caption>{self._place()}{text}</caption>" if self.choices.random() < 0.5 else ""

    def _class(self) -> str:
        return f"<{self.choices.choice(_CLASSES)}>" if self.choices.random() < 0.7 else ""

    def _place(self, likelihood: float = 0.7) -> str:
        if self.choices.random() >= likelihood:
            return ""
        left, right = sorted(self.choices.sample(range(501), 2))
        top, bottom = sorted(self.choices.sample(range(501), 2))
        return f"<loc_{left}><loc_{top}><loc_{right}><loc_{bottom}>"

    def _words(self, least: int, most: int) -> str:
        words = self.choices.choices(_WORDS, k=self.choices.randint(least, most))
        gaps = self.choices.choices([" "] * 12 + ["\n", "\n\n", "  ", "\n\n\n"], k=len(words))
        return "".join(word + gap for word, gap in zip(words, gaps, strict=True)).strip()

    def _space(self) -> str:
        return self.choices.choice(["", "", "\n", " ", "\n\n"])
