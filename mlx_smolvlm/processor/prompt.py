"""A prepared prompt: its tokens known, its media open, no pixel resized yet; and one with all its pixels."""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from .kept_media import KeptImage, KeptVideo
from .messages import IMAGE_MARKER, VIDEO_MARKER
from .processor_config import ProcessorConfig
from .prompt_media import Clip, FrameSeries, LoadedImage, Medium

PromptMedium = LoadedImage | Clip | FrameSeries | KeptImage | KeptVideo
MARKER = re.compile(f"{IMAGE_MARKER}|{VIDEO_MARKER}")


@dataclass(frozen=True)
class Inputs:
    """The input of the model.

    Attributes:
        input_ids: the prompt's tokens.
        pixel_values: (num_tiles, tile_size, tile_size, 3) uint8, 0..255, in prompt order; None without media.
        media: one entry for each image and video, in prompt order.
    """

    input_ids: list[int]
    pixel_values: np.ndarray | None
    media: list[Medium]

    @property
    def image_tokens(self) -> int:
        """Tokens of the prompt that stand for images and frames."""
        return sum(medium.image_tokens for medium in self.media)


BEGINNING_CHARS = 2**17  # enough to tell that a text is far too long


class ContextLengthError(ValueError):
    """A prompt leaves no room for an answer in the model's context; `num_tokens` says for people how many it has."""

    def __init__(self, message: str, num_tokens: str):
        super().__init__(message)
        self.num_tokens = num_tokens


def least_tokens(text: str, encode: Callable[[str], list[int]], context_length: int) -> int:
    """How many tokens a long text has at least, where its beginning alone is longer than the context; else 0.

    To tokenize megabytes takes seconds and gigabytes, only to refuse them.
    """
    num_chars = max(BEGINNING_CHARS, 8 * context_length)
    if len(text) < 4 * num_chars:
        return 0
    length = len(encode(text[:num_chars]))
    return length if length > context_length else 0


class Prompt:
    """Text with its media in order.

    Attributes:
        input_ids: the prompt's tokens; `settle` may change them.
        media: the images and videos, in prompt order.
    """

    def __init__(
        self,
        text: str,
        media: list[PromptMedium],
        encode: Callable[[str, bool], list[int]],
        config: ProcessorConfig,
        check_cancelled: Callable[[], None],
    ):
        """
        Raises:
            ContextLengthError: it is so long that it is not even tokenized.
        """
        self.media = media
        self.image_seq_len = config.image_seq_len
        self._text = text
        self._encode = encode
        self._image_token_id = config.image_token_id
        self._context_length = config.context_length
        self._check_cancelled = check_cancelled
        self._warnings: list[str] = []
        self.input_ids = self._expanded()

    @property
    def is_cut(self) -> bool:
        """Whether all tiles are at hand: nothing is left to be resized or decoded."""
        return all(isinstance(medium, LoadedImage) and medium.is_cut for medium in self.media)

    @property
    def costs(self) -> list[Medium]:
        """The cost of each medium."""
        return [medium.cost(self.image_seq_len) for medium in self.media]

    @property
    def image_positions(self) -> np.ndarray:
        """(num_tiles * image_seq_len,) positions of the image tokens in `input_ids`."""
        return np.flatnonzero(np.asarray(self.input_ids) == self._image_token_id)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """For each medium, where in `input_ids` its image tokens begin and end."""
        positions, spans, first = self.image_positions, [], 0
        for medium in self.media:
            last = first + medium.num_tiles * self.image_seq_len - 1
            spans.append((int(positions[first]), int(positions[last]) + 1))
            first = last + 1
        return spans

    def tokens_within(self, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        """Which tokens stand for some parts of the prompt's text.

        Args:
            spans: where the parts begin and end, in characters of the text before its markers are expanded; ascending,
                and none within a marker.

        Returns:
            (number of tokens,) bool.

        Raises:
            ValueError: a part begins or ends within a token.
        """
        texts = iter([medium.expansion(self.image_seq_len) for medium in self.media])
        edges = [0, *chain.from_iterable(spans), len(self._text)]
        ids: list[int] = []
        within: list[bool] = []
        for number, (start, end) in enumerate(pairwise(edges)):
            piece = MARKER.sub(lambda _: next(texts), self._text[start:end])
            piece_ids = self._encode(piece, number == 0)
            ids += piece_ids
            within += [number % 2 == 1] * len(piece_ids)
        if ids != self.input_ids:
            raise ValueError("what the assistant says begins or ends within a token")
        return np.array(within, dtype=bool)

    def check_context(self) -> None:
        """Refuse, before any image is cut or encoded, a prompt that leaves no room for an answer.

        Raises:
            ContextLengthError: with what each image costs.
        """
        length = len(self.input_ids)
        if length >= self._context_length:
            raise self._too_long(length, str(length))

    def _too_long(self, length: int, num_tokens: str) -> ContextLengthError:
        costs = self.costs
        spent = "; ".join(f"{cost.name}: {cost.image_tokens} tokens ({cost.layout})" for cost in costs)
        advice = "Shorten the text, or leave out earlier turns of the conversation"
        if 2 * sum(cost.image_tokens for cost in costs) > length:
            advice = "Send fewer images or frames, do not split images, or choose a smaller longest edge"
        return ContextLengthError(
            f"the prompt has {num_tokens} tokens and the model's context is {self._context_length}: "
            f"{spent or 'text alone'}. {advice}",
            num_tokens,
        )

    def tiles(self, first_medium: int = 0) -> Iterator[np.ndarray]:
        """The tiles of the media from one on, (tile_size, tile_size, 3) uint8 each, in prompt order.

        Each is made when it is asked for. A video that breaks off gives fewer than planned: call `settle` afterwards.
        """
        for medium in self.media[first_medium:]:
            count = 0
            for tile in medium.tiles(self._check_cancelled):
                yield tile
                count += 1
            if count < medium.num_tiles and isinstance(medium, Clip | KeptVideo):
                if count == 0:
                    raise ValueError(f"{medium.name}: no frame could be decoded; the file is damaged")
                self._warnings.append(f"{medium.name} breaks off: {count} of {medium.num_tiles} frames could be read")
                medium.shorten(count)

    def inputs(self) -> Inputs:
        """All of it, every pixel made."""
        tiles = list(self.tiles())
        self.settle()
        return Inputs(self.input_ids, np.stack(tiles) if tiles else None, self.costs)

    def settle(self) -> bool:
        """After the last tile: adapt the prompt to the frames read. Warns and returns True if `input_ids` changed."""
        for message in self._warnings:
            warnings.warn(message, stacklevel=2)
        if not self._warnings:
            return False
        self._warnings = []
        self.input_ids = self._expanded()
        return True

    def _expanded(self) -> list[int]:
        texts = iter([medium.expansion(self.image_seq_len) for medium in self.media])
        text = MARKER.sub(lambda _: next(texts), self._text)
        if least := least_tokens(text, lambda beginning: self._encode(beginning, True), self._context_length):
            raise self._too_long(least, f"more than {least}")
        return self._encode(text, True)
