"""`messages` of a request -> checked messages, their text and the addresses of their media apart.

Roles and parts are those of OpenAI's chat interface, and `video_url` and `input_video` as other servers take them.
Nothing is decoded or fetched here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...options import quoted
from ..errors import ApiError, bad_request
from ..settings import ServerSettings
from .known_fields import IGNORED_OF_MESSAGES, IGNORED_OF_PARTS
from .unknown_fields import UnknownFields

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "user",
    "function": "user",
}
TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
IMAGE_PARTS = ("image_url", "input_image")
VIDEO_PARTS = ("video_url", "input_video")
EXPECTED = "expected text, image_url or video_url"
# Fields of messages and parts that other servers take, and that would be lost here -> what to do instead.
AS_PARTS = ("image", "images", "image_url", "video", "videos", "video_url", "file", "files", "attachments")
OF_MESSAGES = {
    **dict.fromkeys(AS_PARTS, "send them as parts of content"),
    **dict.fromkeys(("prefix", "partial"), "set continue_final_message"),
    "audio": "send text",
}
READ_OF_MESSAGES = ("role", "content", "refusal", "tool_calls", "function_call", *OF_MESSAGES)
OF_PARTS = {
    **dict.fromkeys(("fps", "num_frames", "max_frames", "nframes"), "set media_io_kwargs.video"),
    **dict.fromkeys(("min_pixels", "max_pixels", "total_pixels"), "set detail"),
    **dict.fromkeys(("max_dynamic_patch", "min_dynamic_patch", "resized_height", "resized_width"), "set detail"),
    **dict.fromkeys(("video_start", "video_end"), "cut the video"),
}
# What a part may hold. It holds one of them, that of its type.
CONTENTS = ("text", "refusal", *IMAGE_PARTS, *VIDEO_PARTS, "url", "data", "image", "video", "audio", "input_audio")
WHOLE, ONE_TILE = ("auto", "high", "original"), "low"  # of `detail`


@dataclass(frozen=True)
class MediaPart:
    """An image or video of a message.

    Attributes:
        kind: "image" or "video".
        url: data URL or address, as it was sent.
        where: the part, as errors name it: `messages[0].content[1]`.
        one_tile: whether an image is shown as one tile.
    """

    kind: str
    url: str
    where: str
    one_tile: bool = False


@dataclass(frozen=True)
class ChatMessage:
    """A message: role system, user or assistant, and its texts and media in order."""

    role: str
    content: tuple[str | MediaPart, ...]


def read_messages(
    messages: Any, settings: ServerSettings, unknown: UnknownFields, *, continues: bool = False
) -> tuple[ChatMessage, ...]:
    """Check `messages`. System messages are joined into one, which comes first.

    Args:
        messages: of the body.
        settings: how many messages and media there may be.
        unknown: is told of fields that are not known.
        continues: the last message is the assistant's, and is continued.

    Raises:
        ApiError: malformed messages; `param` names the place.
    """
    if not isinstance(messages, list) or not messages:
        raise bad_request(f"messages is {quoted(messages)}, expected a list with at least one message", "messages")
    if len(messages) > settings.max_messages:
        raise bad_request(f"there are {len(messages)} messages, the limit is {settings.max_messages}", "messages")
    read = [_message(message, f"messages[{number}]", unknown) for number, message in enumerate(messages)]
    check_counts([part for message in read for part in message.content if isinstance(part, MediaPart)], settings)
    systems = [text for message in read if message.role == "system" for text in message.content]
    turns = [message for message in read if message.role != "system"]
    if (read[-1].role == "assistant") != continues:
        last = f"messages[{len(messages) - 1}]"
        if continues:
            raise bad_request(f"continue_final_message needs a last message of the assistant, {last} is none", last)
        raise bad_request(
            f"{last} is the assistant's; end with a message of the user, or set continue_final_message", last
        )
    joined = "\n\n".join(text for text in systems if isinstance(text, str) and text)
    return (*([ChatMessage("system", (joined,))] if joined else ()), *turns)


def check_counts(parts: Sequence[MediaPart], settings: ServerSettings, param: str = "messages") -> None:
    """Raise ApiError for more images or videos than a request may have."""
    for kind, most in (("image", settings.max_images), ("video", settings.max_videos)):
        count = sum(part.kind == kind for part in parts)
        if count > most:
            raise ApiError(413, f"too_many_{kind}s", f"the request has {count} {kind}s, the limit is {most}", param)


def _message(message: Any, where: str, unknown: UnknownFields) -> ChatMessage:
    if not isinstance(message, Mapping):
        raise bad_request(f"{where} is {quoted(message)}, expected an object with role and content", where)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        known = ", ".join(name for name in ROLES if name != "function")
        raise bad_request(f"{where} has role {quoted(role)}, expected one of {known}", f"{where}.role")
    for name in ("tool_calls", "function_call"):
        if message.get(name):
            raise bad_request(f"{where} has tool calls, which this server does not support", f"{where}.{name}")
    _refuse_lost(message, OF_MESSAGES, where)
    unknown.check(message, where, READ_OF_MESSAGES, IGNORED_OF_MESSAGES)
    content = message.get("content")
    if content is None and role == "assistant":
        content = message.get("refusal")
    else:
        _refuse_lost(message, {"refusal": "send it as the content of a message of the assistant"}, where)
    if isinstance(content, str):
        return ChatMessage(ROLES[role], (content,))
    if not isinstance(content, list) or not content:
        expected = "expected text or a list of parts"
        raise bad_request(f"{where} has content {quoted(content)}, {expected}", f"{where}.content")
    parts = tuple(read_part(part, f"{where}.content[{number}]", unknown) for number, part in enumerate(content))
    for part in parts:
        if isinstance(part, MediaPart) and role != "user":
            raise bad_request(f"{part.where} is {_a(part.kind)} in a message of role {role}, expected text", part.where)
    return ChatMessage(ROLES[role], parts)


def read_part(part: Any, where: str, unknown: UnknownFields) -> str | MediaPart:
    """A part of a message: its text, or its image or video. Raises ApiError, which calls it `where`."""
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise bad_request(f"{where} is {quoted(part)}, {EXPECTED}", where)
    kind = part.get("type")
    if kind in TEXT_PARTS:
        name = "refusal" if kind == "refusal" else "text"
        text = part.get(name)
        if not isinstance(text, str):
            raise bad_request(f"{where} has text {quoted(text)}, expected a string", where)
        _check_fields(part, where, (name,), unknown)
        return text
    if kind in IMAGE_PARTS:
        return _image(part, where, unknown)
    if kind in VIDEO_PARTS:
        return _video(part, where, unknown)
    advice = ""
    if kind in ("image", "video"):
        advice = f'; write {{"type": "{kind}_url", "{kind}_url": {{"url": "data:..."}}}}'
    raise bad_request(f"{where} has type {quoted(kind)}, {EXPECTED}{advice}", where)


def _image(part: Mapping[str, Any], where: str, unknown: UnknownFields) -> MediaPart:
    inner = _held(part, IMAGE_PARTS, ("url", "detail"), where, unknown)
    details = [values["detail"] for values in (inner, part) if values.get("detail") is not None]
    detail = details[0] if details else None
    if detail is not None and detail != ONE_TILE and detail not in WHOLE:
        expected = f"expected {', '.join((*WHOLE, ONE_TILE))}"
        raise bad_request(f"{where} has detail {quoted(detail)}, {expected}", f"{where}.image_url.detail")
    if any(other != detail for other in details):
        raise bad_request(f"{where} has detail {quoted(details[1])} beside {quoted(detail)}", f"{where}.detail")
    return MediaPart("image", _url(inner.get("url"), where, "image_url"), where, one_tile=detail == ONE_TILE)


def _video(part: Mapping[str, Any], where: str, unknown: UnknownFields) -> MediaPart:
    inner = _held(part, VIDEO_PARTS, ("url", "data", "detail"), where, unknown)
    data = inner.get("data")
    if data is not None:
        if not isinstance(data, str) or inner.get("url") is not None:
            raise bad_request(f"{where} needs either data, in base64, or url", f"{where}.input_video")
        return MediaPart("video", data if data[:5].lower() == "data:" else f"data:;base64,{data}", where)
    return MediaPart("video", _url(inner.get("url"), where, "video_url"), where)


def _held(
    part: Mapping[str, Any], names: Sequence[str], read: Sequence[str], where: str, unknown: UnknownFields
) -> Mapping[str, Any]:
    """The object of a part that holds an address, under one of `names`; its fields are `read`."""
    name = next((name for name in names if part.get(name) is not None), names[0])
    value = part.get(name)
    _check_fields(part, where, (name, "detail"), unknown)
    if not isinstance(value, Mapping):
        return {"url": value}
    _check_fields(value, f"{where}.{name}", read, unknown)
    return value


def _check_fields(values: Mapping[str, Any], where: str, read: Sequence[str], unknown: UnknownFields) -> None:
    """Refuse what would be lost of a part, or of the object in it, beyond the fields that are `read`."""
    _refuse_files(values, where)
    _refuse_lost(values, OF_PARTS, where)
    beside = {name: "send it as a part of its own" for name in CONTENTS if name not in read}
    _refuse_lost(values, beside, where)
    unknown.check(values, where, ("type", *read, *OF_PARTS, *beside), IGNORED_OF_PARTS)


def _url(url: Any, where: str, name: str) -> str:
    if not isinstance(url, str) or not url:
        raise bad_request(f"{where} has url {quoted(url)}, expected a data URL or an address", f"{where}.{name}")
    return url


def _refuse_lost(values: Mapping[str, Any], lost: Mapping[str, str], where: str) -> None:
    for name, advice in lost.items():
        if values.get(name) not in (None, [], "") and values[name] is not False:
            raise bad_request(
                f"{where} has {name}, which is not supported there: {advice}",
                f"{where}.{name}",
                "unsupported_parameter",
            )


def _refuse_files(values: Mapping[str, Any], where: str) -> None:
    for name in ("file_id", "path", "file"):
        if values.get(name) is not None:
            raise bad_request(f"{where} has {name}; send the content as a data URL", f"{where}.{name}")


def _a(kind: str) -> str:
    return f"an {kind}" if kind == "image" else f"a {kind}"
