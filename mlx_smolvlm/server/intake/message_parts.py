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
OF_MESSAGES = {
    **dict.fromkeys(("images", "videos", "image_url", "video_url"), "send them as parts of content"),
    "audio": "send text",
}
OF_PARTS = {
    **dict.fromkeys(("fps", "num_frames", "max_frames", "nframes"), "set media_io_kwargs.video"),
    **dict.fromkeys(("min_pixels", "max_pixels", "total_pixels"), "set detail"),
    **dict.fromkeys(("max_dynamic_patch", "min_dynamic_patch", "resized_height", "resized_width"), "set detail"),
    **dict.fromkeys(("video_start", "video_end"), "cut the video"),
}
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


def read_messages(messages: Any, settings: ServerSettings, *, continues: bool = False) -> tuple[ChatMessage, ...]:
    """Check `messages`. System messages are joined into one, which comes first.

    Args:
        messages: of the body.
        settings: how many messages and media there may be.
        continues: the last message is the assistant's, and is continued.

    Raises:
        ApiError: malformed messages; `param` names the place.
    """
    if not isinstance(messages, list) or not messages:
        raise bad_request(f"messages is {quoted(messages)}, expected a list with at least one message", "messages")
    if len(messages) > settings.max_messages:
        raise bad_request(f"there are {len(messages)} messages, the limit is {settings.max_messages}", "messages")
    read = [_message(message, f"messages[{number}]") for number, message in enumerate(messages)]
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


def _message(message: Any, where: str) -> ChatMessage:
    if not isinstance(message, Mapping):
        raise bad_request(f"{where} is {quoted(message)}, expected an object with role and content", where)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        known = ", ".join(name for name in ROLES if name != "function")
        raise bad_request(f"{where} has role {quoted(role)}, expected one of {known}", f"{where}.role")
    if message.get("tool_calls") or message.get("function_call"):
        raise bad_request(f"{where} has tool calls, which this server does not support", f"{where}.tool_calls")
    _refuse_lost(message, OF_MESSAGES, where)
    content = message.get("content")
    if content is None and role == "assistant":
        content = message.get("refusal")
    if isinstance(content, str):
        return ChatMessage(ROLES[role], (content,))
    if not isinstance(content, list) or not content:
        expected = "expected text or a list of parts"
        raise bad_request(f"{where} has content {quoted(content)}, {expected}", f"{where}.content")
    parts = tuple(read_part(part, f"{where}.content[{number}]") for number, part in enumerate(content))
    for part in parts:
        if isinstance(part, MediaPart) and role != "user":
            raise bad_request(f"{part.where} is {_a(part.kind)} in a message of role {role}, expected text", part.where)
    return ChatMessage(ROLES[role], parts)


def read_part(part: Any, where: str) -> str | MediaPart:
    """A part of a message: its text, or its image or video. Raises ApiError, which calls it `where`."""
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise bad_request(f"{where} is {quoted(part)}, {EXPECTED}", where)
    kind = part.get("type")
    if kind in TEXT_PARTS:
        text = part.get("refusal" if kind == "refusal" else "text")
        if not isinstance(text, str):
            raise bad_request(f"{where} has text {quoted(text)}, expected a string", where)
        return text
    if kind in IMAGE_PARTS:
        return _image(part, where)
    if kind in VIDEO_PARTS:
        return _video(part, where)
    advice = ""
    if kind in ("image", "video"):
        advice = f'; write {{"type": "{kind}_url", "{kind}_url": {{"url": "data:..."}}}}'
    raise bad_request(f"{where} has type {quoted(kind)}, {EXPECTED}{advice}", where)


def _image(part: Mapping[str, Any], where: str) -> MediaPart:
    value = part.get("image_url", part.get("input_image"))
    inner = value if isinstance(value, Mapping) else {"url": value}
    _refuse_files({**part, **inner}, where)
    _refuse_lost({**part, **inner}, OF_PARTS, where)
    detail = inner.get("detail", part.get("detail"))
    if detail is not None and detail != ONE_TILE and detail not in WHOLE:
        expected = f"expected {', '.join((*WHOLE, ONE_TILE))}"
        raise bad_request(f"{where} has detail {quoted(detail)}, {expected}", f"{where}.image_url.detail")
    return MediaPart("image", _url(inner.get("url"), where, "image_url"), where, one_tile=detail == ONE_TILE)


def _video(part: Mapping[str, Any], where: str) -> MediaPart:
    value = part.get("video_url", part.get("input_video"))
    inner = value if isinstance(value, Mapping) else {"url": value}
    _refuse_files({**part, **inner}, where)
    _refuse_lost({**part, **inner}, OF_PARTS, where)
    data = inner.get("data")
    if data is not None:
        if not isinstance(data, str) or inner.get("url") is not None:
            raise bad_request(f"{where} needs either data, in base64, or url", f"{where}.input_video")
        return MediaPart("video", data if data[:5].lower() == "data:" else f"data:;base64,{data}", where)
    return MediaPart("video", _url(inner.get("url"), where, "video_url"), where)


def _url(url: Any, where: str, name: str) -> str:
    if not isinstance(url, str) or not url:
        raise bad_request(f"{where} has url {quoted(url)}, expected a data URL or an address", f"{where}.{name}")
    return url


def _refuse_lost(values: Mapping[str, Any], lost: Mapping[str, str], where: str) -> None:
    for name, advice in lost.items():
        if values.get(name) not in (None, [], ""):
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
