"""Text that spells out special tokens, and is meant as text.

Where a program passes on what strangers write, `<image>` must claim no image and `<end_of_utterance>` end no turn. Such
spellings travel through the chat template as marks of characters for private use, and are tokenized in two pieces,
which no special token matches. Decoded, they are the same text.
"""

import re
from collections.abc import Iterator, Mapping

from tokenizers import Tokenizer

from .expansion import FAKE, GLOBAL
from .messages import IMAGE_MARKER, VIDEO_MARKER

BLOCK = 64 * 1024  # characters to search in one call, during which no other thread can do anything
_OPENING, _CLOSING = "\ue001", "\ue002"
_MARK = re.compile(f"{_OPENING}([0-9]{{1,4}}){_CLOSING}")
_STRUCTURE = re.compile(r"<\|.*\|>|<row_\d+_col_\d+>|</?s>|<end_of_utterance>|\[/?INST\]", re.DOTALL)


class LiteralText:
    """The special tokens of a tokenizer that give prompts their structure, as text.

    Others stay tokens: SmolDocling is asked about `<loc_12>`.
    """

    def __init__(self, tokenizer: Tokenizer, special_tokens: Mapping[str, str]):
        """
        Args:
            tokenizer: the checkpoint's.
            special_tokens: such as `bos_token`.
        """
        self._tokenizer = tokenizer
        named = {FAKE, GLOBAL, IMAGE_MARKER, VIDEO_MARKER, *special_tokens.values()}
        added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        structure = {token for token in added if token in named or _STRUCTURE.fullmatch(token)}
        self._spellings = sorted({IMAGE_MARKER, VIDEO_MARKER, *structure, _OPENING, _CLOSING}, key=len, reverse=True)
        self._numbers = {spelling: number for number, spelling in enumerate(self._spellings)}
        self._longest = len(self._spellings[0])
        self._pattern = re.compile("|".join(map(re.escape, self._spellings)))

    def escape(self, text: str) -> str:
        """Text with marks in the place of the spellings."""
        pieces, copied = [], 0
        for found in self._spelled(text):
            pieces += [text[copied : found.start()], f"{_OPENING}{self._numbers[found[0]]}{_CLOSING}"]
            copied = found.end()
        return "".join([*pieces, text[copied:]])

    def _spelled(self, text: str) -> Iterator[re.Match[str]]:
        position = 0
        while position < len(text):
            end = position + BLOCK
            found = self._pattern.search(text, position, end + self._longest)
            if found is None or found.start() >= end:  # behind the end, a longer spelling may have been cut
                position = end
            else:
                yield found
                position = found.end()

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Tokens of text with marks in it, or without."""
        first, *rest = _MARK.split(text)
        ids: list[int] = self._tokenizer.encode(first, add_special_tokens=add_special_tokens).ids
        for number, after in zip(rest[::2], rest[1::2], strict=True):
            known = int(number) < len(self._spellings)  # else somebody has written what looks like a mark
            spelling = self._spellings[int(number)] if known else f"{_OPENING}{number}{_CLOSING}"
            for part in (spelling[0], spelling[1:], after):
                ids += self._tokenizer.encode(part, add_special_tokens=False).ids if part else []
        return ids
