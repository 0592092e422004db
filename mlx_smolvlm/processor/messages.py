"""What a caller passes -> checked chat messages, each image and video in its place.

The format is that of Hugging Face: `[{"role": "user", "content": [{"type": "image", "path": "cat.jpg"},
{"type": "text", "text": "What is this?"}]}]`. Content may also be a plain string, and OpenAI's
`{"type": "image_url", "image_url": {"url": ...}}` is read as an image. `content_items.py` says what an item may hold.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ..options import did_you_mean, quoted
from .content_items import MediaItem, OptionedSource, a, read_item

Medium_co = TypeVar("Medium_co", covariant=True)


class Several(Protocol[Medium_co]):
    """A sequence that is no `str`: type checkers refuse `images="cat.jpg"`, as `check_media` does at run time.

    What tells them apart is that a `str` can be asked for parts of it only, and other sequences for anything.
    """

    def __contains__(self, value: object, /) -> bool: ...

    def __getitem__(self, index: int, /) -> Medium_co: ...

    def __iter__(self) -> Iterator[Medium_co]: ...

    def __len__(self) -> int: ...


Message = Mapping[str, Any]
"""One chat message, `{"role": ..., "content": text or a list of content items}`."""

ROLES = ("system", "user", "assistant")
IMAGE_MARKER = "<image>"
VIDEO_MARKER = "<video>"
MAX_PROMPT_CHARS = 4 * 1024**2  # `tokenizers` needs some 100 bytes for each, and aborts the process where they lack
MAX_MESSAGES = 10_000
_MESSAGE_KEYS = ("role", "content")


@dataclass(frozen=True)
class Conversation:
    """Messages ready for a template, and the sources of their media in the order of the markers.

    A source is an `OptionedSource` where its item says how it is read.
    `text` is set instead of `messages` if the caller rendered the prompt itself.
    """

    messages: list[dict[str, Any]]
    images: list[Any]
    videos: list[Any]
    text: str | None = None


def read_conversation(messages_or_prompt: str | Sequence[Message], images: Any, videos: Any) -> Conversation:
    """Check a prompt and pair it with its media.

    A string is the user's question, after the media, unless it places them itself with `<image>` and `<video>`
    markers. In messages, items without a source of their own take `images` and `videos` in order.

    Raises:
        ValueError: malformed messages, unknown content types, or not as many media as markers.
    """
    images, videos = check_media("images", images), check_media("videos", videos)
    if isinstance(messages_or_prompt, str):
        return _from_prompt(messages_or_prompt, images, videos)
    return _from_messages(messages_or_prompt, images, videos)


def read_rendered(prompt: Any, images: Any, videos: Any) -> Conversation:
    """Pair a prompt that needs no template with its media, one for each marker.

    Raises:
        ValueError: not a string, or not as many media as markers.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"without a chat template the prompt must be text, got {quoted(prompt)}")
    images, videos = check_media("images", images), check_media("videos", videos)
    for marker, media in ((IMAGE_MARKER, images), (VIDEO_MARKER, videos)):
        _check_markers(prompt, marker, media)
    return Conversation([], images, videos, text=prompt)


def check_media(name: str, media: Any) -> list[Any]:
    """The images or videos of a call as a list; None is an empty one.

    Raises:
        ValueError: anything but a list or tuple, such as a single image or path.
    """
    if media is None:
        return []
    if not isinstance(media, list | tuple):
        raise ValueError(f"{name} is {quoted(media)}, expected a list; pass a single one as {name}=[...]")
    for place, source in enumerate(media):
        if source is None:
            raise ValueError(f"{name}[{place}] is None, expected {a(name.removesuffix('s'))}")
    return list(media)


def check_length(messages_or_prompt: str | Sequence[Message]) -> None:
    """Refuse a prompt before anything of its size is made."""
    if isinstance(messages_or_prompt, str):
        check_chars(len(messages_or_prompt))
    elif isinstance(messages_or_prompt, Sequence) and len(messages_or_prompt) > MAX_MESSAGES:
        raise ValueError(f"there are {len(messages_or_prompt)} messages, the limit is {MAX_MESSAGES}")


def check_chars(num_chars: int) -> None:
    """Raise ValueError for a prompt of more characters than a tokenizer can take."""
    if num_chars > MAX_PROMPT_CHARS:
        raise ValueError(f"the prompt has {num_chars} characters, the limit is {MAX_PROMPT_CHARS}; shorten the text")


def check_continues(conversation: Conversation) -> None:
    """Raise ValueError if a conversation does not end with text of the assistant, which could be continued."""
    last = conversation.messages[-1] if conversation.messages else None
    if last is None or last["role"] != "assistant" or last["content"][-1]["type"] != "text":
        ending = "a prompt as text" if last is None else f"a message of the {last['role']}"
        raise ValueError(
            f"continue_final_message needs a conversation that ends with text of the assistant, not with {ending}"
        )


def _from_prompt(prompt: str, images: list[Any], videos: list[Any]) -> Conversation:
    for marker, media in ((IMAGE_MARKER, images), (VIDEO_MARKER, videos)):
        if marker in prompt:
            _check_markers(prompt, marker, media)
    content = user_content(prompt, len(images), len(videos))
    if not content:
        raise ValueError("the prompt is empty and there is no image or video; ask something")
    return Conversation([{"role": "user", "content": content}], images, videos)


def _check_markers(prompt: str, marker: str, media: list[Any]) -> None:
    count = prompt.count(marker)
    if count != len(media):
        kind = marker.strip("<>")
        has = f"{count} {marker} marker{'s' * (count != 1)}"
        given = f"{len(media)} {kind} was" if len(media) == 1 else f"{len(media)} {kind}s were"
        raise ValueError(f"the prompt has {has} but {given} given; pass one each")


def user_content(prompt: str, num_images: int, num_videos: int) -> list[dict[str, Any]]:
    """A question as content items: media at the prompt's markers, or before the text where it has none."""
    content = [{"type": "image"}] * (0 if IMAGE_MARKER in prompt else num_images)
    content += [{"type": "video"}] * (0 if VIDEO_MARKER in prompt else num_videos)
    for part in re.split(f"({IMAGE_MARKER}|{VIDEO_MARKER})", prompt):
        if part in (IMAGE_MARKER, VIDEO_MARKER):
            content.append({"type": part.strip("<>")})
        elif part:
            content.append({"type": "text", "text": part})
    return content


def _from_messages(messages: Sequence[Message], images: list[Any], videos: list[Any]) -> Conversation:
    if not isinstance(messages, Sequence) or isinstance(messages, bytes | bytearray | memoryview) or not messages:
        advice = "; put it in a list" if isinstance(messages, Mapping) else ""
        raise ValueError(f"messages are {quoted(messages)}, expected a list with at least one message{advice}")
    unplaced = {"image": iter(images), "video": iter(videos)}
    placed: dict[str, list[Any]] = {"image": [], "video": []}
    checked = []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        content = _content(message, where)
        items = []
        for item in content:
            if isinstance(item, str):
                items.append(text_item(item))
                continue
            source = next(unplaced[item.kind], None) if item.source is None else item.source
            if source is None:
                raise ValueError(f"{where} has more {item.kind} items than {item.kind}s were given; pass one for each")
            placed[item.kind].append(OptionedSource(source, item.options) if item.options else source)
            items.append({"type": item.kind})
        checked.append({"role": message["role"], "content": items})
    _refuse_left_over(list(unplaced["image"]), list(unplaced["video"]))
    _refuse_markers_in_text(checked)
    return Conversation(checked, placed["image"], placed["video"])


def _content(message: Any, where: str) -> list[str | MediaItem]:
    """The content of a message, its role checked."""
    if not isinstance(message, Mapping):
        raise ValueError(f"{where} is {quoted(message)}, expected an object with 'role' and 'content'")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        advice = "; write system" if role == "developer" else ""
        raise ValueError(f"{where} has role {quoted(role)}, expected one of {', '.join(ROLES)}{advice}")
    for key, value in message.items():
        if key not in _MESSAGE_KEYS and value is not None:  # tables fill in None
            advice = (
                did_you_mean(key, _MESSAGE_KEYS) or "a message has role and content; media are items of its content"
            )
            raise ValueError(f"{where} has the unknown key {quoted(key)}; {advice}")
    if isinstance(content, str) and content:
        return [content]
    if not isinstance(content, list | tuple) or not content:
        raise ValueError(f"{where} has content {quoted(content)}, expected text or a list of content items")
    return [read_item(item, where) for item in content]


def _refuse_left_over(images: list[Any], videos: list[Any]) -> None:
    for kind, left in (("image", images), ("video", videos)):
        if left:
            have = "has" if len(left) == 1 else "have"
            raise ValueError(
                f"{len(left)} of the {kind}s {have} no place in the prompt; add {a(kind)} item for each of them"
            )


def _refuse_markers_in_text(messages: list[dict[str, Any]]) -> None:
    """A marker within text would claim an image that belongs to another item."""
    for message in messages:
        for item in message["content"]:
            for marker in (IMAGE_MARKER, VIDEO_MARKER):
                if item["type"] == "text" and marker in item["text"]:
                    raise ValueError(f"text has a {marker} marker; in messages, add an item of that type instead")


def text_item(text: str) -> dict[str, Any]:
    """A text item of a message's content."""
    return {"type": "text", "text": text}


def without_markers(answer: str) -> str:
    """An answer may spell out a marker, which in the next prompt would ask for an image."""
    for marker in (IMAGE_MARKER, VIDEO_MARKER):
        answer = answer.replace(marker, f"< {marker[1:]}")
    return answer
