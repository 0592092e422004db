"""Rows -> token ids, which of them are trained, and the tiles of their images."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...media.prefetch import mapped_in_threads
from ...options import MediaOptions
from ...processor.assistant_turns import Turns, render_turns, render_whole
from ...processor.messages import read_conversation
from ...processor.processor import Processor
from ...processor.prompt import ContextLengthError, Prompt
from .training_row import RowError, RowTooLong, TrainingRow

_READING_THREADS = min(4, os.cpu_count() or 1)  # images in flight, each at its full size in memory


@dataclass(frozen=True, eq=False)
class Example:
    """A row as the model is trained on it.

    Attributes:
        name: the row's, such as "rows.jsonl:12".
        input_ids: (length,) int32.
        trained: (length,) bool; True where the token counts in the loss. The first one has none before it that could
            predict it.
        num_tiles: how many tiles its images and videos have.
        opened: opens its images and videos once more.
    """

    name: str
    input_ids: np.ndarray
    trained: np.ndarray
    num_tiles: int
    tile_size: int
    opened: Callable[[], AbstractContextManager[Prompt]] = field(repr=False)

    def tiles(self) -> np.ndarray:
        """Open the images once more and cut them: (num_tiles, tile_size, tile_size, 3) uint8, 0..255, in prompt order.

        Raises:
            RowError: an image has changed since, or a video breaks off.
        """
        made = np.empty((self.num_tiles, self.tile_size, self.tile_size, 3), np.uint8)
        if not self.num_tiles:
            return made
        count = 0
        try:
            with self.opened() as prompt:
                if not np.array_equal(prompt.input_ids, self.input_ids):
                    raise RowError(self.name, "an image has changed since training began; begin again")
                for count, tile in enumerate(prompt.tiles(), 1):
                    made[count - 1] = tile
        except RowError:
            raise
        except (ValueError, OSError, TypeError) as error:
            raise RowError(self.name, error) from None
        if count < self.num_tiles:
            raise RowError(self.name, f"a video breaks off: {count} of {self.num_tiles} frames could be read")
        return made


def make_example(
    processor: Processor,
    row: TrainingRow,
    train_on_prompt: bool = False,
    *,
    max_length: int | None = None,
    media_options: MediaOptions | None = None,
) -> Example:
    """Find the tokens of a row. Its images are opened and measured, and closed again.

    Args:
        processor: the checkpoint's.
        row: from `read_rows`.
        train_on_prompt: train all tokens but those of images, as the family's own notebook does, and not what the
            assistant says alone (TRL's `assistant_only_loss`; its `completion_only_loss` for rows with a completion).
        max_length: most tokens; None for the model's context.
        media_options: how images and videos are read, where not as the checkpoint says.

    Raises:
        RowTooLong: more tokens.
        RowError: anything else that is wrong with the row, its images included.
    """
    try:
        if row.rendered is None:
            conversation = read_conversation(row.messages, (), ())
            images, videos = conversation.images, conversation.videos
            text = render_whole(processor.config, conversation) if train_on_prompt else ""
            turns = Turns(text, []) if train_on_prompt else render_turns(processor.config, conversation, row.first)
        else:
            images, videos, whole = row.images, [], "".join(row.rendered)
            turns = Turns(whole, [] if train_on_prompt else [(len(row.rendered[0]), len(whole))])

        def opened() -> AbstractContextManager[Prompt]:
            return processor.prepare(
                turns.text, _loaded(images), _loaded(videos), media_options=media_options, apply_chat_template=False
            )

        with opened() as prompt:
            input_ids = np.array(prompt.input_ids, np.int32)
            trained = prompt.tokens_within(turns.spans)
            num_tiles = sum(medium.num_tiles for medium in prompt.media)
    except ContextLengthError as error:
        raise RowTooLong(
            row.name,
            f"{error.num_tokens} tokens, and the context is {processor.config.context_length}; "
            "left out, as images cannot be cut",
        ) from None
    except (ValueError, OSError, TypeError) as error:
        raise RowError(row.name, error) from None
    if max_length is not None and len(input_ids) > max_length:
        raise RowTooLong(
            row.name, f"{len(input_ids)} tokens, and --max-length is {max_length}; left out, as images cannot be cut"
        )
    if train_on_prompt:
        trained = input_ids != processor.config.image_token_id
    return Example(row.name, input_ids, trained, num_tiles, processor.config.image.tile_size, opened)


def make_examples(
    processor: Processor,
    rows: Sequence[TrainingRow],
    train_on_prompt: bool = False,
    *,
    max_length: int | None = None,
    media_options: MediaOptions | None = None,
    on_left_out: Callable[[RowError], None] = lambda error: None,
    skip_bad_rows: bool = False,
) -> Iterator[Example]:
    """The examples of rows, in their order.

    Args:
        processor, train_on_prompt, max_length, media_options: as in `make_example`.
        rows: from `read_rows`.
        on_left_out: called with why a row is left out: those that are too long, and with `skip_bad_rows` bad ones.
        skip_bad_rows: leave bad rows out.

    Raises:
        RowError: a bad row, unless they are left out.
    """

    def made(row: TrainingRow) -> Example | RowError:
        try:
            return make_example(processor, row, train_on_prompt, max_length=max_length, media_options=media_options)
        except RowError as error:
            return error

    with closing(mapped_in_threads(made, rows, _READING_THREADS)) as results:
        for result in results:
            if isinstance(result, Example):
                yield result
            elif skip_bad_rows or isinstance(result, RowTooLong):
                on_left_out(result)
            else:
                raise result


def _loaded(sources: list[Any]) -> list[Any]:
    """Sources that can be opened: what lies in tables is read."""
    return [source.read() if hasattr(source, "read") else source for source in sources]
