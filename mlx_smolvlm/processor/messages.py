"""What a caller passes -> checked chat messages, each picture and video in its place.

The form is Hugging Face's: `[{"role": "user", "content": [{"type": "image", "path": "cat.jpg"},
{"type": "text", "text": "What is this?"}]}]`. Content may also be a plain string, and OpenAI's
`{"type": "image_url", "image_url": {"url": ...}}` is read as an image.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]
"""One chat message, `{"role": ..., "content": text or a list of content items}`."""

ROLES = ("system", "user", "assistant")
IMAGE_MARKER = "<image>"
VIDEO_MARKER = "<video>"
_SOURCE_KEYS = {"image": ("image", "path", "url", "base64"), "video": ("video", "path", "url")}


@dataclass(frozen=True)
class Conversation:
    """Messages ready for a template, and the sources of their media in the order of the markers.

    `text` is set instead of `messages` if the caller rendered the prompt itself.
    """

    messages: list[dict[str, Any]]
    images: list[Any]
    videos: list[Any]
    text: str | None = None


def read_conversation(
    messages_or_prompt: str | Sequence[Message], images: Sequence[Any], videos: Sequence[Any]
) -> Conversation:
    """Check a prompt and pair it with its media.

    A string is the user's question, after the media, unless it places them itself with `<image>` and `<video>`
    markers. In messages, items without a source of their own take `images` and `videos` in order.

    Raises:
        ValueError: malformed messages, unknown content types, or as many media as markers are needed.
    """
    check_media_lists(images, videos)
    if isinstance(messages_or_prompt, str):
        return _from_prompt(messages_or_prompt, list(images), list(videos))
    return _from_messages(messages_or_prompt, list(images), list(videos))


def read_rendered(prompt: Any, images: Sequence[Any], videos: Sequence[Any]) -> Conversation:
    """Pair a prompt that needs no template with its media, one for each marker.

    Raises:
        ValueError: not a string, or as many media as markers are needed.
    """
    check_media_lists(images, videos)
    if not isinstance(prompt, str):
        raise ValueError(f"without a chat template the prompt must be text, got {type(prompt).__name__}")
    for marker, media in ((IMAGE_MARKER, images), (VIDEO_MARKER, videos)):
        _check_markers(prompt, marker, media)
    return Conversation([], list(images), list(videos), text=prompt)


def check_media_lists(images: Any, videos: Any) -> None:
    """Raise ValueError for media that are no list: of a path, each letter would be taken for one."""
    for name, media in (("images", images), ("videos", videos)):
        if not isinstance(media, list | tuple):
            raise ValueError(f"{name} is {type(media).__name__}, expected a list such as [{name[:-1]}]")


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
        raise ValueError("the prompt is empty and there is no picture or video; ask something")
    return Conversation([{"role": "user", "content": content}], images, videos)


def _check_markers(prompt: str, marker: str, media: Sequence[Any]) -> None:
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
    if not isinstance(messages, Sequence) or not messages:
        raise ValueError(f"messages are {messages!r}, expected a list with at least one message")
    unplaced = {"image": iter(images), "video": iter(videos)}
    placed: dict[str, list[Any]] = {"image": [], "video": []}
    checked = []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, Mapping):
            raise ValueError(f"{where} is {message!r}, expected an object with 'role' and 'content'")
        role = message.get("role")
        if role not in ROLES:
            raise ValueError(f"{where} has role {role!r}, expected one of {', '.join(ROLES)}")
        items = []
        for kind, value in _items(message.get("content"), where):
            if kind == "text":
                items.append({"type": "text", "text": value})
                continue
            if value is None:
                value = next(unplaced[kind], None)
            if value is None:
                raise ValueError(f"{where} has more {kind} items than {kind}s were given; pass one for each")
            placed[kind].append(value)
            items.append({"type": kind})
        checked.append({"role": role, "content": items})
    _refuse_left_over(list(unplaced["image"]), list(unplaced["video"]))
    _refuse_markers_in_text(checked)
    return Conversation(checked, placed["image"], placed["video"])


def _items(content: Any, where: str) -> list[tuple[str, Any]]:
    """Content as (type, text or media source or None) pairs."""
    if isinstance(content, str) and content:
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list | tuple) or not content:
        raise ValueError(f"{where} has content {content!r}, expected text or a list of content items")
    items = []
    for item in content:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "text":
            if not isinstance(item.get("text"), str):
                raise ValueError(f"{where} has a text item without 'text': {item!r}")
            items.append(("text", item["text"]))
        elif kind == "image_url":
            value = item.get("image_url")
            items.append(("image", value.get("url") if isinstance(value, dict) else value))
        elif isinstance(kind, str) and kind in _SOURCE_KEYS:
            sources = [item[key] for key in _SOURCE_KEYS[kind] if item.get(key) is not None]
            if len(sources) > 1:
                raise ValueError(f"{where} has {_a(kind)} item with {len(sources)} sources, expected one")
            if item.get("base64") is not None and isinstance(sources[0], str):
                sources = [f"data:;base64,{sources[0].rpartition(',')[2]}"]
            items.append((kind, sources[0] if sources else None))
        else:
            raise ValueError(f"{where} has content type {kind!r} in {item!r}, expected text, image or video")
    return items


def _refuse_left_over(images: list[Any], videos: list[Any]) -> None:
    for kind, left in (("image", images), ("video", videos)):
        if left:
            have = "has" if len(left) == 1 else "have"
            raise ValueError(
                f"{len(left)} of the {kind}s {have} no place in the prompt; add {_a(kind)} item for each of them"
            )


def _a(kind: str) -> str:
    return f"an {kind}" if kind == "image" else f"a {kind}"


def _refuse_markers_in_text(messages: list[dict[str, Any]]) -> None:
    """A marker within text would claim a picture that belongs to another item."""
    for message in messages:
        for item in message["content"]:
            for marker in (IMAGE_MARKER, VIDEO_MARKER):
                if item["type"] == "text" and marker in item["text"]:
                    raise ValueError(f"text has a {marker} marker; in messages, add an item of that type instead")
