"""Checks what a session file holds before anything is made of it. Its checksum tells damage, not intent."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..media.image_files import MAX_IMAGE_PIXELS
from ..media.urls import is_url, printable
from ..model.config import ModelConfig

MAX_RECORD_BYTES = 64 * 1024**2  # the conversation's text, its times and tokens
MAX_PIXEL_BYTES = 4 * 1024**3  # images and frames that have no file of their own
MAX_SECONDS = 1e8  # of a video
MAX_SIDE = 2**20  # pixels of a resized image, far above what is sent
FINISH_REASONS = ("stop", "length", "cancelled", "closed")
STORED_TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}  # NumPy does not know the last
_DIGEST = re.compile(r"[0-9a-f]{32}")


def most_bytes(config: ModelConfig) -> int:
    """A bound of the size of any session's file with a model: a full context in float32, and all else."""
    text = config.text
    token = 4 * 2 * text.num_key_value_heads * text.head_dim * text.num_hidden_layers
    return text.max_position_embeddings * token + MAX_RECORD_BYTES + MAX_PIXEL_BYTES


def check_session(record: Any, tensors: Mapping[str, np.ndarray], config: ModelConfig) -> None:
    """Compare the record and the tensors of a file with each other and with the model.

    Args:
        record: the JSON of the file.
        tensors: all but the record and the checksum.
        config: of the model.

    Raises:
        ValueError: what is wrong, and what was expected.
    """
    names = ("format", "model", "system", "turns", "media", "token_ids", "dtypes", "read_media")
    record = _object(record, "the record", names)
    _check("system", record["system"], record["system"] is None or isinstance(record["system"], str), "text or null")
    most_tokens = config.text.max_position_embeddings
    token_ids = _list(record["token_ids"], "token_ids", most_tokens)
    for token_id in token_ids:
        _check("token_ids", token_id, _is_whole(token_id, 0, config.text.vocab_size - 1), "tokens of the model")
    used = _check_layers(_object(record["dtypes"], "dtypes"), tensors, config, len(token_ids))
    media = _list(record["media"], "media", most_tokens)
    for number, medium in enumerate(media):
        prefix = f"media.{number}."
        arrays = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
        _check_medium(medium, f"media {number}", arrays, max(1, most_tokens // config.image_seq_len))
        used |= {prefix + name for name in arrays}
    for turn in _list(record["turns"], "turns", most_tokens):
        _check_turn(turn, media)
    end = 0
    for read in _list(record["read_media"], "read_media", len(media) + most_tokens):
        is_right = isinstance(read, list) and len(read) == 3 and _is_whole(read[0], end, len(token_ids))
        is_right = is_right and _is_whole(read[1], read[0] + 1, len(token_ids)) and _is_digest(read[2])
        _check("read_media", read, is_right, "a start, an end after it and a digest, in order")
        end = read[1]
    _check("tensors", sorted(tensors.keys() - used), tensors.keys() <= used, "those of the record alone")


def _check_layers(
    dtypes: dict[str, Any], tensors: Mapping[str, np.ndarray], config: ModelConfig, length: int
) -> set[str]:
    """Check keys and values; returns the names of their tensors."""
    text = config.text
    names = [str(number) for number in range(text.num_hidden_layers if length else 0)]
    _check("dtypes", sorted(dtypes), dtypes.keys() == set(names), f"one for each of {len(names)} layers")
    shape = (1, 2 * text.num_key_value_heads, length, text.head_dim)
    for name in names:
        dtype, array = dtypes[name], tensors.get(f"layers.{name}")
        _check("dtypes", dtype, isinstance(dtype, str) and dtype in STORED_TYPES, f"one of {', '.join(STORED_TYPES)}")
        _check("dtypes", dtype, dtype == dtypes["0"], "the same for all layers")
        found = None if array is None else (array.shape, array.dtype.name)
        expected = (shape, np.dtype(STORED_TYPES[dtype]).name)
        _check(f"layers.{name}", found, found == expected, str(expected))
    return {f"layers.{name}" for name in names}


def _check_medium(medium: Any, where: str, arrays: dict[str, np.ndarray], most_tiles: int) -> None:
    common = ("kind", "name", "digest", "options", "source")
    kind = medium.get("kind") if isinstance(medium, dict) else None
    _check(f"{where}: kind", kind, kind in ("image", "video"), "image or video")
    if kind == "image":
        medium = _object(medium, where, (*common, "layout"))
        _check_layout(_object(medium["layout"], where, ("rows", "columns", "fitted", "grid")), where, most_tiles)
        names = {"pixels"} if arrays else set()
    else:
        is_sampled = "sampled" in medium
        medium = _object(medium, where, (*common, "timestamps_s", "duration_s", *(("sampled",) if is_sampled else ())))
        _check_times(medium, where, most_tiles)
        names = set()
        if is_sampled:
            fields = ("timestamps_s", "duration_s", "are_tiles", "name")
            sampled = _object(medium["sampled"], f"{where}: sampled", fields)
            _check_times(sampled, where, most_tiles)
            _check(f"{where}: name", sampled["name"], isinstance(sampled["name"], str), "text")
            _check(f"{where}: are_tiles", sampled["are_tiles"], isinstance(sampled["are_tiles"], bool), "true or false")
            names = {f"frames.{number}" for number in range(len(sampled["timestamps_s"]))}
    _check(f"{where}: name", medium["name"], isinstance(medium["name"], str), "text")
    _check(f"{where}: digest", medium["digest"], _is_digest(medium["digest"]), "32 hexadecimal digits")
    for name, value in _object(medium["options"], f"{where}: options").items():
        is_right = value is None or type(value) in (bool, int, float)  # `MediaOptions` checks their ranges
        _check(f"{where}: {printable(name, 40)}", value, is_right, "a number, true, false or null")
    source = medium["source"]
    is_right = source is None if names else isinstance(source, str) and (kind == "video" or _is_path(source))
    _check(f"{where}: source", source, is_right, "null with pixels, otherwise a path, or a video's address")
    _check(f"{where}: pixels", sorted(arrays), arrays.keys() == names, f"{len(names)} arrays")
    for name, array in arrays.items():
        channels = (3,) if kind == "image" else (1, 3, 4)
        is_image = array.dtype == np.uint8 and (
            (array.ndim == 3 and array.shape[2] in channels) or (array.ndim, kind) == (2, "video")
        )
        is_image = is_image and 0 < array.shape[0] * array.shape[1] <= MAX_IMAGE_PIXELS
        _check(f"{where}: {name}", (array.dtype.name, array.shape), is_image, "uint8 (height, width, 3)")


def _check_layout(layout: dict[str, Any], where: str, most_tiles: int) -> None:
    rows, columns = layout["rows"], layout["columns"]
    is_grid = _is_whole(rows, 0, most_tiles) and _is_whole(columns, 0, most_tiles)
    is_grid = is_grid and (rows == 0) == (columns == 0) and rows * columns < most_tiles
    _check(f"{where}: layout", [rows, columns], is_grid, f"rows and columns of fewer than {most_tiles} tiles")
    for name in ("fitted", "grid"):
        size = layout[name]
        is_size = isinstance(size, list) and len(size) == 2 and all(_is_whole(side, 1, MAX_SIDE) for side in size)
        _check(f"{where}: {name}", size, is_size, "a width and a height")


def _check_times(facts: dict[str, Any], where: str, most_frames: int) -> None:
    times = _list(facts["timestamps_s"], f"{where}: timestamps_s", most_frames)
    seconds = [*times, facts["duration_s"]]
    is_right = all(type(second) in (int, float) and 0 <= second <= MAX_SECONDS for second in seconds)
    is_right = is_right and bool(times) and times == sorted(times) and all(map(math.isfinite, seconds))
    _check(f"{where}: timestamps_s and duration_s", seconds, is_right, "ascending seconds")


def _check_turn(turn: Any, media: list[Any]) -> None:
    turn = _object(turn, "a turn", ("content", "answer", "finish_reason"))
    _check("answer", turn["answer"], isinstance(turn["answer"], str), "text")
    _check("finish_reason", turn["finish_reason"], turn["finish_reason"] in FINISH_REASONS, ", ".join(FINISH_REASONS))
    content = _list(turn["content"], "content", len(media) + 2**16)
    _check("content", content, bool(content), "at least one item")
    for item in content:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "text":
            item = _object(item, "an item", ("type", "text"))
            _check("text", item["text"], isinstance(item["text"], str), "text")
        else:
            item = _object(item, "an item", ("type", "medium"))
            is_medium = _is_whole(item["medium"], 0, len(media) - 1) and media[item["medium"]]["kind"] == kind
            _check("an item", item, is_medium, "text, or the number of an image or video")


def _object(value: Any, where: str, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """An object with these fields and no other; any fields if None."""
    is_right = isinstance(value, dict) and (names is None or value.keys() == set(names))
    _check(where, value, is_right, f"an object with {', '.join(names)}" if names else "an object")
    found: dict[str, Any] = value
    return found


def _list(value: Any, where: str, most: int) -> list[Any]:
    _check(where, value, isinstance(value, list) and len(value) <= most, f"a list of at most {most}")
    found: list[Any] = value
    return found


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _is_path(source: str) -> bool:
    return not is_url(source) or source[:5].lower() == "file:"


def _check(where: str, value: Any, is_right: bool, expected: str) -> None:
    if not is_right:
        shown = (
            f"a list of {len(value)}" if isinstance(value, list) and len(value) > 20 else printable(repr(value), 100)
        )
        raise ValueError(f"{where} is {shown}, expected {expected}")
