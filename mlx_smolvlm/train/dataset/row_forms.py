"""The fields of a row -> a conversation. Each field is used, or refused by name.

Three forms, each with `image` or `images`, `video` or `videos`: `messages` (Hugging Face, OpenAI) or `conversations`
(llava's `from` and `value`), `prompt` and `completion` (TRL), `question` and `answer` (mlx-vlm, tables).
"""

import json
import re
from collections.abc import Collection
from itertools import pairwise
from typing import Any

from ...options import did_you_mean, quoted
from ...processor.messages import IMAGE_MARKER, VIDEO_MARKER
from .row_media import RowMedia
from .training_row import TrainingRow

FORMS = (("messages",), ("conversations",), ("prompt", "completion"), ("question", "answer"))
MEDIA_FIELDS = {"image": ("image", "images", "file_name"), "video": ("video", "videos")}
LABELS = ("id", "index", "idx", "source", "dataset", "question_id", "image_id")  # say nothing about the conversation
_ROLES = {"human": "user", "gpt": "assistant"}
_KNOWN_ROLES = ("system", "user", "assistant")
_SOURCES = ("image", "video", "path", "url", "base64", "image_url")
_MARKER = re.compile(rf"\n?({IMAGE_MARKER}|{VIDEO_MARKER})\n?")  # llava puts a line break beside it, the family none
_OPENING = "<|im_start|>"


def read_row(fields: dict[str, Any], name: str, media: RowMedia, ignored: Collection[str] = ()) -> TrainingRow:
    """The conversation of a row.

    Args:
        fields: as the file has them; None counts as missing, as tables fill it in.
        name: the row's, for errors.
        media: where its images and videos are.
        ignored: fields that are not used.

    Raises:
        ValueError: fields that are missing, unknown or contradictory, or turns that are none.
    """
    fields = {key: value for key, value in fields.items() if value is not None and key not in ignored}
    form = _form(fields)
    known = [*form, *LABELS, *(field for group in MEDIA_FIELDS.values() for field in group)]
    known += ["system"] if form[0] in ("prompt", "question") else []
    for key in fields:
        if key not in known:
            expected = ", ".join(name for name in known if name not in LABELS)
            advice = did_you_mean(key, known) or f"expected {expected}; --ignore-fields {key} ignores it"
            raise ValueError(f"the field {quoted(key)} is not known; {advice}")
    unplaced = {kind: _media(fields, kind, media) for kind in MEDIA_FIELDS}
    first, prompt = 0, fields.get("prompt")
    if isinstance(prompt, str) and prompt.startswith(_OPENING):
        return _rendered(fields, name, unplaced)
    if len(form) == 1:
        raw = _listed(fields[form[0]], form[0])
    elif form[0] == "prompt" and not isinstance(prompt, str):
        raw = _listed(prompt, "prompt")
        first = len(raw)
        raw = [*raw, *_listed(fields["completion"], "completion")]
    else:
        raw = [
            {"role": role, "content": fields[field]} for role, field in zip(("user", "assistant"), form, strict=True)
        ]
    if "system" in fields:
        raw = [{"role": "system", "content": fields["system"]}, *raw]
        first += 1 if first else 0
    messages = [_message(message, number, media, unplaced["image"]) for number, message in enumerate(raw)]
    _check_turns(messages, first)
    _place(messages, unplaced)
    return TrainingRow(name, messages, first)


def _form(fields: dict[str, Any]) -> tuple[str, ...]:
    """The fields that hold the conversation."""
    given = [form for form in FORMS if any(field in fields for field in form)]
    if len(given) != 1:
        found = ", ".join(fields)[:200] or "none"
        expected = ", or ".join(" and ".join(form) for form in FORMS)
        raise ValueError(f"expected the fields {expected}; got {found}")
    for field in given[0]:
        if field not in fields:
            raise ValueError(f"has no {field}, which belongs to {' and '.join(set(given[0]) - {field})}")
    return given[0]


def _listed(value: Any, field: str) -> list[Any]:
    """Messages as a list; tables hold them as JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"{field} is {quoted(value)}, expected a list of messages") from None
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        if len({len(column) for column in value.values()}) > 1:
            raise ValueError(
                f"{field} has columns of different lengths, {quoted(value)}; expected one entry per message"
            )
        value = [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)]  # by columns
    elif isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ValueError(f"{field} is {quoted(value)}, expected a list of messages")
    return value


def _media(fields: dict[str, Any], kind: str, media: RowMedia) -> list[Any]:
    """The sources that stand beside the conversation."""
    given = [field for field in MEDIA_FIELDS[kind] if fields.get(field) not in ("", [])]
    given = [field for field in given if field in fields]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are both given; expected one of them")
    if not given:
        return []
    value = fields[given[0]]
    return [media.source(one, kind) for one in (value if isinstance(value, list) else [value])]


def _message(message: Any, number: int, media: RowMedia, images: list[Any]) -> dict[str, Any]:
    """A message in Hugging Face's form; items without a source are left for `_place`."""
    if not isinstance(message, dict):
        raise ValueError(f"message {number} is {quoted(message)}, expected an object with role and content")
    message = {key: value for key, value in message.items() if value is not None}
    role_key = "from" if "from" in message else "role"
    text_key = "value" if "value" in message else "content"
    for key in message:
        if key not in (role_key, text_key):
            raise ValueError(f"message {number} has the unknown key {quoted(key)}; expected role and content")
    role, content = message.get(role_key), message.get(text_key)
    role = _ROLES.get(role, role) if isinstance(role, str) else role
    if role not in _KNOWN_ROLES:
        expected = ", ".join((*_KNOWN_ROLES, *_ROLES))
        raise ValueError(f"message {number} has the role {quoted(role)}, expected one of {expected}")
    if isinstance(content, str):
        return {"role": role, "content": _split(content)}
    if not isinstance(content, list) or not content:
        raise ValueError(f"message {number} has the content {quoted(content)}, expected text or a list of items")
    return {"role": role, "content": [_item(item, media, images) for item in content]}


def _split(text: str) -> list[dict[str, Any]]:
    """Text with markers -> items."""
    pieces = _MARKER.split(text)
    items: list[dict[str, Any]] = []
    for number, piece in enumerate(pieces):
        if number % 2:
            items.append({"type": piece.strip("<>")})
        elif piece or len(pieces) == 1:
            items.append({"type": "text", "text": piece})
    return items


def _item(item: Any, media: RowMedia, images: list[Any]) -> Any:
    """An item whose source, if it has one, is in full; `processor/messages.py` checks the rest."""
    if not isinstance(item, dict):
        return item
    item = {key: value for key, value in item.items() if value is not None}
    kind = str(item.get("type"))
    place = item.pop("index", None) if kind == "image" else None
    if place is not None:
        if type(place) is not int or not 0 <= place < len(images):
            raise ValueError(f"an image item has the index {quoted(place)}, but the row has {len(images)} images")
        return {**item, "image": images[place], "index": place}
    if kind == "image_url" and isinstance(item.get("image_url"), dict):
        url = item["image_url"].get("url")
        return {**item, "image_url": {**item["image_url"], "url": media.source(url, "image")}}
    for key in _SOURCES:
        if key in item and key != "base64":
            item[key] = media.source(item[key], kind)
    return item


def _place(messages: list[dict[str, Any]], unplaced: dict[str, list[Any]]) -> None:
    """Give items without a source those of the row, in order; if there are none, add some before the first question."""
    for kind, sources in unplaced.items():
        items = [item for message in messages for item in message["content"] if _is(item, kind)]
        indexed = {item.pop("index") for item in items if "index" in item}
        sources = [source for number, source in enumerate(sources) if number not in indexed]
        empty = [item for item in items if not any(key in item for key in _SOURCES)]
        if sources and not empty and not indexed:
            user = next(message for message in messages if message["role"] == "user")
            empty = [{"type": kind} for _ in sources]
            user["content"] = [*empty, *user["content"]]
        if len(empty) != len(sources):
            raise ValueError(
                f"places for {kind}s in the conversation (<{kind}>, or items without a source): {len(empty)}; {kind}s "
                f"of the row: {len(sources)}; they must be as many"
            )
        for item, source in zip(empty, sources, strict=True):
            item[kind] = source


def _is(item: Any, kind: str) -> bool:
    return isinstance(item, dict) and item.get("type") in (kind, f"{kind}_url")


def _check_turns(messages: list[dict[str, Any]], first: int) -> None:
    roles = [message["role"] for message in messages]
    if "assistant" not in roles[first:]:
        raise ValueError("has no turn of the assistant, so there is nothing to train")
    speakers = [role for role in roles if role != "system"]
    if speakers[0] == "assistant":
        raise ValueError("begins with the assistant, expected a turn of the user first")
    if ("user", "user") in pairwise(speakers):  # two answers in a row are fine: both are trained, as TRL does it
        raise ValueError("has two turns of the user in a row; join them, or put the answer between them")


def _rendered(fields: dict[str, Any], name: str, unplaced: dict[str, list[Any]]) -> TrainingRow:
    """A prompt that is written as the template would write it, as TRL takes it: no template, and no words added."""
    prompt, completion = fields["prompt"], fields["completion"]
    if not isinstance(completion, str) or not completion:
        raise ValueError(f"completion is {quoted(completion)}, expected text, as prompt is")
    if unplaced["video"] or "system" in fields:
        raise ValueError("a prompt that begins with <|im_start|> takes images alone; write messages instead")
    return TrainingRow(name, [], rendered=(prompt, completion), images=unplaced["image"])
