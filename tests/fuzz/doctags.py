"""Damaged DocTags: every word is kept, whatever the order of the tags."""

import json
import re
from collections import Counter
from functools import cached_property
from random import Random

from support.golden_cases import GOLDENS

from mlx_smolvlm.documents.doctags import DocTagsParser, parse_doctags
from mlx_smolvlm.documents.export import EXPORT_FORMATS, export
from mlx_smolvlm.documents.tags import CONTAINER_TAGS, PICTURE_CLASSES, TAG, TEXT_TAGS, WRAPPER_TAGS

from .mutators import mutated_bytes

_SINGLE = ["<nl>", "<page_break>", "<loc_7>", "<loc_-1>", "<loc_501>", "<link_1>", "<rec_1>", "<end_of_utterance>"]
_CELLS = ["<fcel>", "<ecel>", "<lcel>", "<ucel>", "<xcel>", "<ched>", "<rhed>", "<srow>"]
_PLACE = "<loc_10><loc_20><loc_300><loc_400>"
_TEXTS = ["word", " a<b ", "<vector>", "<", ">", "</", "<te", "\n", "\0", "_x_", "![a](b_c)", "|", "<_C++_>", "<_", "é"]
_LANGUAGE = re.compile(r"<_([^<>]+)_>")
_WORD = re.compile(r"[^\W_]+")


class DocTags:
    """The kind "doctags"."""

    @cached_property
    def _doctags(self) -> list[str]:
        cases = json.loads((GOLDENS / "doctags.json").read_text(encoding="utf-8"))["cases"]
        return [case["doctags"] for case in cases.values()]

    @cached_property
    def _tags(self) -> list[str]:
        names = [*TEXT_TAGS, *CONTAINER_TAGS, *WRAPPER_TAGS, "key_1", "value_2"]
        return [f"<{slash}{name}>" for name in names for slash in ("", "/")]

    def _example_doctags(self, choices: Random) -> bytes:
        way = choices.random()
        if way < 0.3:
            return mutated_bytes(choices.choice(self._doctags).encode(), choices)
        if way < 0.5:
            return "".join(self._piece(choices) for _ in range(choices.randrange(1, 60))).encode()
        pieces = [piece for piece in TAG.split("".join(choices.choices(self._doctags, k=2))) if piece]
        pieces = [f"<{piece}>" if TAG.fullmatch(f"<{piece}>") else piece for piece in pieces]
        for _ in range(choices.choice([1, 2, 5, 20])):
            at = choices.randrange(len(pieces) + 1)
            end = at + choices.choice([1, 1, 3, 10])
            change = choices.randrange(4)
            if change == 0:
                del pieces[at:end]
            elif change == 1:
                pieces.insert(at, self._piece(choices))
            elif change == 2:
                pieces[at:end] = choices.sample(pieces[at:end], len(pieces[at:end]))
            else:
                pieces[at:at] = pieces[at:end] * choices.choice([1, 1, 50])
        return "".join(pieces).encode()

    def _piece(self, choices: Random) -> str:
        """A tag or a text."""
        kinds = [self._tags, self._tags, _SINGLE, _CELLS, _TEXTS, _TEXTS, [f"<{name}>" for name in PICTURE_CLASSES]]
        piece = choices.choice(choices.choice(kinds))
        return piece + _PLACE if choices.random() < 0.2 else piece

    def _read_doctags(self, example: bytes) -> None:
        text = example.decode("utf-8", "surrogateescape")
        tree = parse_doctags(text)
        exports = {to: export(tree, to) for to in EXPORT_FORMATS}
        kept = Counter(_WORD.findall(" ".join(_texts(json.loads(exports["json"])))))
        given = Counter(_WORD.findall(_LANGUAGE.sub(r" \1 ", TAG.sub(" ", text))))
        assert given <= kept, f"lost: {given - kept}"
        assert all(exported.encode() is not None for exported in exports.values())
        half = len(text) // 2
        parser = DocTagsParser()
        parser.feed(text[:half])
        parser.feed(text[half:])
        assert parser.close() == tree, "pieces make another tree"
        again = parse_doctags(exports["doctags"])
        assert export(again, "md") == exports["md"], "written and read again, it differs"


def _texts(record: object) -> list[str]:
    if isinstance(record, dict):
        return [text for value in record.values() for text in _texts(value)]
    return [text for value in record for text in _texts(value)] if isinstance(record, list) else [str(record)]
