"""A record of a data file -> a row: its texts, and where its images or its video lie."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...media.urls import is_url
from ...options import quoted
from ..scoring.scorers import check_scorer
from .eval_rows import LETTERS, EvalRow, ImageRef, JsonValue, is_list, list_of
from .sets import SUB_SET_FIELD, SetName, read_set_name
from .table_cells import TableCell

INDEX_CHARS = 64  # an image's cell of up to so many is the index of the row that has the image
_MEDIA = {"image", "images", "image_path", "video", "video_path", "prefix", "suffix", "frames"}
_READ = {"index", "question", "answer", "hint", "category", "scorer", "dataset", "candidates", "subtitles"}
_USED = {
    *(
        "split",
        "difficulty",
        "l2-category",
        "g_index",
        "task_type",
        "choices",
        "question_type",
        "answer_type",
        "answer_option",
    ),
    *("starting_timestamp_for_subtitles", "duration", "bound", "start", "end", "correct_choice", "subtitle_path"),
}
_VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov")
Record = dict[str, Any]


def read_row(record: Record, set_name: SetName, root: Path, unused: set[str]) -> EvalRow:
    """The row that a record is.

    Args:
        record: columns or fields; None, or none at all, for an empty one.
        set_name: its set, where the record names none.
        root: the folder from which its paths count.
        unused: gets the names of what neither prompts nor scores use.

    Raises:
        ValueError: an index that is none. What is wrong otherwise is the row's `fault`.
    """
    index = record.get("index")
    if not isinstance(index, int | str) or isinstance(index, bool) or not str(index).strip():
        raise ValueError(f"the index is {quoted(index)}, expected a whole number or text")
    named = _plain_text(record.get("dataset")) or _plain_text(record.get(SUB_SET_FIELD))
    name = read_set_name(named) if named else set_name
    sampling = (name if name.frames or name.fps else set_name).sampling
    faults = [record["fault"]] if "fault" in record else []

    def attempt(read: Any, *arguments: Any) -> Any:
        try:
            return read(*arguments)
        except (ValueError, OSError) as error:
            faults.append(str(error))
            return None

    question = _plain_text(record.get("question"))
    if question is None:
        faults.append("has no question")
    options = {letter: text for letter in LETTERS if (text := _plain_text(record.get(letter))) is not None}
    video = attempt(_video, record, root)
    frames = attempt(_frames, record, root)
    images = attempt(_images, record, index, root) or []
    if frames in (0, []):
        faults.append("its video has no frames")
    elif isinstance(frames, int) and video is not None:  # how many to sample of it, or to list where it is not there
        sampling, frames = ("frames", float(frames)), None if os.path.isfile(video) else frames
    has_frames = frames is not None and not (isinstance(frames, int) and video is not None)
    given = {"images": bool(images), "a video": video is not None, "frames": has_frames}
    if sum(given.values()) > 1:
        faults.append(f"has {' and '.join(name for name, is_given in given.items() if is_given)}; expected one of them")
    if not (images or video or frames or faults):
        faults.append("has no image and no video")
    scorer = _plain_text(record.get("scorer"))
    if scorer is not None:
        attempt(check_scorer, scorer)
    known = _MEDIA | _READ | set(LETTERS) | {"fault", SUB_SET_FIELD}
    fields = {name: text for name in record.keys() - known if (text := _plain_text(record[name])) is not None}
    unused |= fields.keys() - _USED
    return EvalRow(
        index=index,
        dataset=name.name,
        question=question or "",
        options=options,
        candidates=attempt(_texts, record.get("candidates")),
        answer=_answer(record),
        hint=_plain_text(record.get("hint")),
        category=_plain_text(record.get("category")),
        scorer=scorer,
        images=images,
        video=video,
        frames=frames,
        sampling=sampling,
        subtitles=attempt(_subtitles, record, root),
        fields=fields,
        fault="; ".join(faults) or None,
    )


def _plain_text(value: Any) -> str | None:
    """A value as text; None if it is missing."""
    if value is None or isinstance(value, TableCell | JsonValue):
        return None
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def _answer(record: Record) -> str | list[str] | None:
    value = record.get("answer")
    if isinstance(value, list):
        return [str(item) for item in value]
    choice = _count(record.get("correct_choice"))  # LongVideoBench's: a number from 0
    if value is None and isinstance(choice, int) and 0 <= choice < len(LETTERS):
        return LETTERS[choice]
    return _plain_text(value)


def _count(value: Any) -> Any:
    """A number that a table has as text, with ".0" where its column has an empty cell; all else as it is."""
    text = str(value) if isinstance(value, float) else value
    if isinstance(text, str) and text.removesuffix(".0").isdecimal():
        return int(text.removesuffix(".0"))
    return value


def _texts(value: Any) -> list[str] | None:
    if value is None:
        return None
    return [str(item) for item in value] if isinstance(value, list) else list_of(str(value))


def _path(name: str, root: Path) -> Path:
    return Path(os.path.abspath(root / Path(name).expanduser()))


def _image(value: Any, name: str, root: Path, item: int | None = None) -> ImageRef:
    """An image of a row: a path, an address, or base64."""
    if isinstance(value, TableCell | JsonValue):
        return ImageRef(name, value, item)
    if not isinstance(value, str) or not value:
        raise ValueError(f"an image is {quoted(value)}, expected a path, an address or base64")
    if is_url(value):
        return ImageRef(name if value.startswith("data:") else value, value)
    if len(value) > INDEX_CHARS and not Path(value[-8:]).suffix:
        return ImageRef(name, value)
    return ImageRef(value, _path(value, root))


def _images(record: Record, index: int | str, root: Path) -> list[ImageRef]:
    """The images of a row, by the names that the suite gives their files."""
    if record.get("images") is not None:
        values = record["images"]
        if not isinstance(values, list):
            text = values.read() if isinstance(values, JsonValue) else str(values)
            values = list_of(text) if is_list(text) else [text]
        return [_image(value, f"{index}_{number}.png", root) for number, value in enumerate(values)]
    paths = _plain_text(record.get("image_path"))
    names = [] if paths is None else list_of(paths) if is_list(paths) else [paths]
    value = record.get("image")
    if value is None:
        if "image" in record and not names and not ({"video", "frames"} & record.keys()):
            raise ValueError("has no image; the suite leaves such rows out")
        return [_image(name, name, root) for name in names]
    if isinstance(value, TableCell | JsonValue) and _holds_list(value):
        count = len(list_of(value.read()))
        names = names or [f"{index}_{number}.png" for number in range(count)]
        return [ImageRef(name, value, number) for number, name in enumerate(names[:count])]
    if isinstance(value, list) or (isinstance(value, str) and is_list(value)):
        values = value if isinstance(value, list) else list_of(value)
        return [_image(item, f"{index}_{number}.png", root) for number, item in enumerate(values)]
    return [_image(value, names[0] if names else f"{index}.png", root)]


def _holds_list(value: TableCell | JsonValue) -> bool:
    return value.is_list if isinstance(value, JsonValue) else value.ends() == ("[", "]")


def _video(record: Record, root: Path) -> Path | None:
    """The file of a video: `video_path`, or `prefix`/`video``suffix`, or `video` with or without its ending."""
    path, video = _plain_text(record.get("video_path")), _plain_text(record.get("video"))
    if path is None and video is None:
        return None
    if path is not None:
        return _path(path, root)
    prefix, suffix = _plain_text(record.get("prefix")) or "", _plain_text(record.get("suffix")) or ""
    place = _path(os.path.join(prefix, f"{video}{suffix}"), root)
    if not os.path.exists(place):
        for folder in (place.parent, place.parent / "video", place.parent / "videos"):
            for ending in ("", *_VIDEO_ENDINGS):
                if os.path.isfile(folder / f"{place.name}{ending}"):
                    return folder / f"{place.name}{ending}"
    return place


def _frames(record: Record, root: Path) -> int | list[ImageRef] | None:
    value = _count(record.get("frames"))
    if value is None:
        return None
    if isinstance(value, str):
        value = list_of(value)
    if isinstance(value, list):
        return [_image(item, f"frame-{number}", root) for number, item in enumerate(value, 1)]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"frames is {quoted(value)}, expected how many there are, or a list of images")
    return value


def _subtitles(record: Record, root: Path) -> list[Mapping[str, Any]] | None:
    value = record.get("subtitles")
    if value is None and (name := _plain_text(record.get("subtitle_path"))) is not None:
        places = [path for folder in (root / "subtitles", root) if (path := _path(name, folder)).is_file()]
        if not places or places[0].suffix.lower() != ".json":
            return None
        value = places[0].read_text(encoding="utf-8")
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):  # refused below
            value = json.loads(value)
    if value is not None and not (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
        raise ValueError(f"subtitles is {quoted(value)}, expected a list of objects")
    return value
