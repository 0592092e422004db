"""A row -> the message that VLMEvalKit's data sets make of it: texts and images, in order.

Source: ms-vlmeval 0.0.20, `build_prompt` of the classes in `vlmeval/dataset/`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...options import quoted
from ..data.eval_rows import LETTERS, EvalRow

_LETTERS_OF_VIDEO = (
    "Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, or D) of the correct option.\n"
)
_WATCH = "Carefully watch this video and pay attention to every detail. Based on your observations, "
_SELECT = "select the best option that accurately addresses the question."
_MVBENCH = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
    "objects, and the action and pose of persons. Based on your observations, select the best option that accurately "
    "addresses the question.\n"
)
_ONE_QUESTION = (
    "\nYou will be provided with {} separate frames uniformly sampled from a video, the frames are provided in "
    "chronological order of the video.\nPlease analyze these images and provide the answer to the question about the "
    "video content.\nPlease directly reply with your response to the only question.\n"
)
_SINGLE_WORD = "\nAnswer the question using a single word or phrase."
_MIN_COVER_S = 1.0  # a subtitle that is shorter counts as that long


@dataclass(frozen=True)
class MessagePart:
    """A text, or an image by its position among the row's images or frames."""

    text: str | None = None
    image: int | None = None
    role: str | None = None


Message = list[MessagePart]


@dataclass(frozen=True)
class MessageMedia:
    """What a message is built from beside the row: how many images or frames it shows, and the frames' times."""

    count: int
    frame_times_s: list[float] | None = None
    duration_s: float | None = None


def set_message(kind: str, row: EvalRow, media: MessageMedia) -> Message:
    """The message of a kind (see `sets.SetRule`).

    Raises:
        ValueError: the row lacks what such a message needs, or numbers images that it has not.
    """
    return _KINDS[kind](row, media)


def listed_message(message: Message, names: list[str] | None) -> list[dict[str, Any]]:
    """A message as JSON: images by name, or where there are no names, runs of frames by their positions."""
    listed: list[dict[str, Any]] = []
    for part in message:
        if part.image is None:
            listed.append({"type": "text", "value": part.text} | ({"role": part.role} if part.role else {}))
        elif names is not None:
            listed.append({"type": "image", "value": names[part.image]})
        elif listed and listed[-1]["type"] == "frames" and _end(listed[-1]) == part.image:
            listed[-1]["count"] += 1
        else:
            listed.append({"type": "frames", "first": part.image, "count": 1})
    return listed


def _end(run: Mapping[str, Any]) -> int:
    return int(run["first"] + run["count"])


def _images(media: MessageMedia) -> Message:
    return [MessagePart(image=number) for number in range(media.count)]


def _text(*texts: str) -> Message:
    return [MessagePart(text) for text in texts]


def _plain(row: EvalRow, media: MessageMedia) -> Message:
    return [*_images(media), *_text(row.question)]


def _word(row: EvalRow, media: MessageMedia) -> Message:
    return [*_images(media), *_text(row.question + _SINGLE_WORD)]


def _amber(row: EvalRow, media: MessageMedia) -> Message:
    return [*_images(media), *_text(row.question + "\nPlease answer yes or no.")]


def _choices_text(row: EvalRow) -> str:
    lines = [f"Hint: {row.hint}\n"] if row.hint is not None else []
    lines.append(f"Question: {row.question}\n")
    if row.options:
        lines += ["Options:\n", *(f"{letter}. {text}\n" for letter, text in row.options.items())]
        lines.append("Please select the correct answer from the options above. \n")
    return "".join(lines)


def _mcq(row: EvalRow, media: MessageMedia) -> Message:
    return [*_images(media), *_text(_choices_text(row))]


def _mmmu(row: EvalRow, media: MessageMedia) -> Message:
    """Images stand where the text names them; one that it does not name is not shown, unless it names none."""
    first, *rest = _choices_text(row).split("<image ")
    if not rest:
        return _mcq(row, media)
    message = _text(first)
    for segment in rest:
        if not (segment[:1].isdecimal() and segment[1:2] == ">"):
            raise ValueError(f"the text has '<image {segment[:12]}', expected a number of one digit and '>'")
        number = int(segment[0]) - 1
        if not -media.count <= number < media.count:
            raise ValueError(f"the text names <image {segment[0]}>, but the row has {media.count} images")
        message += [MessagePart(image=number % media.count), MessagePart(segment[2:])]
    return message


def _candidates(row: EvalRow) -> list[str]:
    if row.candidates is None:
        raise ValueError("has no candidates; expected a list such as ['yes', 'no']")
    return row.candidates


def _lines(row: EvalRow) -> str:
    return row.question + "\n" + "\n".join(_candidates(row))


def _lettered(row: EvalRow) -> str:
    options = "".join(f"({_letter(number)}) {text}\n" for number, text in enumerate(_candidates(row)))
    return f"Question: {row.question}\nOptions:\n{options}".rstrip()


def _letter(number: int) -> str:
    return chr(ord(LETTERS[0]) + number)


def _system(text: str) -> Message:
    return [MessagePart(text, role="system")]


def _video_mme(row: EvalRow, media: MessageMedia) -> Message:
    note = f"\nThese are the frames of a video. {_LETTERS_OF_VIDEO}"
    return [*_text(""), *_images(media), *_text(note, f"Question: {_lines(row)}\nAnswer: ")]


def _worldsense(row: EvalRow, media: MessageMedia) -> Message:
    note = f"\nThese are the frames of a video. {_LETTERS_OF_VIDEO}"
    return [*_text(_WATCH + _SELECT), *_images(media), *_text(note, f"Question: {_lines(row)}\nAnswer: ")]


def _mlvu(row: EvalRow, media: MessageMedia) -> Message:
    return [*_system(_WATCH + _SELECT), *_images(media), *_text(_lettered(row), "\nOnly give the best option.")]


def _mlvu_open(row: EvalRow, media: MessageMedia) -> Message:
    return [*_system(_WATCH + "answer the given questions."), *_images(media), *_text(row.question)]


def _mvbench(row: EvalRow, media: MessageMedia) -> Message:
    message = [*_system(_MVBENCH), *_images(media), *_text(_lettered(row), "\nOnly give the best option.")]
    return [*message, MessagePart("Best option:(", role="assistant")]


def _tempcompass(row: EvalRow, media: MessageMedia) -> Message:
    return [*_images(media), *_text(_lines(row), "\nPlease directly give the best option:")]


def _tempcompass_yorn(row: EvalRow, media: MessageMedia) -> Message:
    return [*_images(media), *_text(row.question, "\nPlease answer yes or no:")]


def _mmbench_video(row: EvalRow, media: MessageMedia) -> Message:
    note = _ONE_QUESTION.format(media.count)
    return [*_text(note), *_images(media), *_text(f"Question: {row.question}\nAnswer: ")]


def _longvideo(row: EvalRow, media: MessageMedia) -> Message:
    options = "\n".join(f"{_letter(number)}. {text}" for number, text in enumerate(_candidates(row)))
    question = f"{row.question}\n{options}\nAnswer with the option's letter from the given choices directly."
    frames = _images(media) if row.dataset == "LongVideoBench_subs" else _with_subtitles(row, media)
    return [*_text(""), *frames, *_text(question)]


def _with_subtitles(row: EvalRow, media: MessageMedia) -> Message:
    """Frames with subtitles among them: each behind the last frame up to its middle, if it is shown with any frame."""
    times = media.frame_times_s or [float(number) for number in range(media.count)]
    duration_s = _seconds_of(row, "duration", float(media.count) if media.duration_s is None else media.duration_s)
    offset_s = _seconds_of(row, "starting_timestamp_for_subtitles", 0.0)
    message: Message = []
    shown = 0
    for subtitle in row.subtitles or []:
        start, end, text = _subtitle(subtitle, duration_s)
        start, end = start - offset_s, end - offset_s
        middle = (start + end) / 2
        while shown < media.count and times[shown] <= middle:
            message.append(MessagePart(image=shown))
            shown += 1
        if end - start < _MIN_COVER_S:
            start, end = middle - _MIN_COVER_S / 2, middle + _MIN_COVER_S / 2
        if any(start < time < end for time in times):
            message.append(MessagePart(text + "\n"))
    return [*message, *(MessagePart(image=number) for number in range(shown, media.count))]


def _seconds_of(row: EvalRow, name: str, default: float) -> float:
    text = row.fields.get(name)
    try:
        return default if text is None else float(text)
    except ValueError:
        raise ValueError(f"{name} is {quoted(text)}, expected seconds") from None


def _subtitle(subtitle: Mapping[str, Any], duration_s: float) -> tuple[float, float, str]:
    """Start and end in seconds, and the text; in the suite, an end that is no fraction stands for the video's."""
    try:
        if "timestamp" in subtitle:
            start, end = subtitle["timestamp"]
            return float(start), end if isinstance(end, float) else duration_s, str(subtitle["text"])
        return _seconds(subtitle["start"]), _seconds(subtitle["end"]), str(subtitle["line"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"the subtitle {str(subtitle)[:80]} is not understood; expected timestamp and text, or start, end and line"
        ) from None


def _seconds(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


_KINDS: dict[str, Callable[[EvalRow, MessageMedia], Message]] = {
    "amber": _amber,
    "longvideo": _longvideo,
    "mcq": _mcq,
    "mlvu": _mlvu,
    "mlvu_open": _mlvu_open,
    "mmbench_video": _mmbench_video,
    "mmmu": _mmmu,
    "mvbench": _mvbench,
    "plain": _plain,
    "question": _plain,
    "tempcompass": _tempcompass,
    "tempcompass_yorn": _tempcompass_yorn,
    "video_mme": _video_mme,
    "word": _word,
    "worldsense": _worldsense,
}
