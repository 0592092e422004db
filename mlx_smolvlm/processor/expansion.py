"""The text of an image or a video in the prompt: layout markers, image tokens, time stamps.

Port of transformers, `models/smolvlm/processing_smolvlm.py`. The tokenizer turns the markers into learned
tokens, or into pieces where a checkpoint has none (SmolVLM-2.2B v1, Idefics3): the text is the same.
"""

from collections.abc import Sequence

FAKE = "<fake_token_around_image>"
IMAGE = "<image>"
GLOBAL = "<global-img>"


def layout_marker(row: int, column: int) -> str:
    """The marker of one tile; rows and columns count from 1."""
    return f"<row_{row}_col_{column}>"


def expand_image(rows: int, columns: int, image_seq_len: int) -> str:
    """An image of `rows` x `columns` tiles and its global image; 0 x 0 is the global image alone."""
    tokens = IMAGE * image_seq_len
    alone = f"{FAKE}{GLOBAL}{tokens}{FAKE}"
    if rows == columns == 0:
        return alone
    lines = [
        "".join(f"{FAKE}{layout_marker(row, column)}{tokens}" for column in range(1, columns + 1)) + "\n"
        for row in range(1, rows + 1)
    ]
    return "".join(lines) + "\n" + alone


def expand_video(timestamps_s: Sequence[float], duration_s: float, image_seq_len: int) -> str:
    """A video: how many frames of how long a film, then each frame with its time stamp."""
    from num2words import num2words  # only prompts with a video need it

    count = num2words(len(timestamps_s))
    minutes, seconds = divmod(int(duration_s), 60)
    length = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"  # hours go on after a day, as minutes after an hour
    frames = [
        f"\nFrame from {int(second // 60):02d}:{int(second % 60):02d}:{expand_image(0, 0, image_seq_len)}"
        for second in timestamps_s
    ]
    intro = f"You are provided the following series of {count} frames from a {length} [H:MM:SS] video.\n"
    return intro + "".join(frames) + "\n\n"
