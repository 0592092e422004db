"""One item of a message's content: text, or an image or video with how it is read. Each key is used or refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..options import MediaOptions, did_you_mean, quoted

_SOURCE_KEYS = {"image": ("image", "path", "url", "base64"), "video": ("video", "path", "url")}
_OPTION_KEYS = {
    "image": ("do_image_splitting", "longest_edge", "page"),
    "video": ("fps", "max_frames", "start_s", "end_s", "hardware_decoding"),
}
_TEXT_ITEM = '{"type": "text", "text": ...}'
_PATH_ITEM = '{"type": "image", "path": ...}'
# What other programs write -> what to write here.
_TRANSLATIONS = {
    "input_text": _TEXT_ITEM,
    "output_text": _TEXT_ITEM,
    "input_image": '{"type": "image", "url": ...}',
    "video_url": '{"type": "video", "url": ...}',
    "input_video": '{"type": "video", "url": ...}',
    "file": _PATH_ITEM,
    "input_file": _PATH_ITEM,
    "document": _PATH_ITEM,
}
_SOURCE_TRANSLATIONS = {  # the `type` of the `source` in Anthropic's items
    "base64": '{"type": "%s", "base64": DATA}',
    "url": '{"type": "%s", "url": ADDRESS}',
}


@dataclass(frozen=True)
class MediaItem:
    """An image or video item.

    Attributes:
        kind: "image" or "video".
        source: what it is read from; None takes the next of the call's images or videos.
        options: fields of `MediaOptions` that hold for this item alone.
    """

    kind: str
    source: Any = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OptionedSource:
    """A source whose item says how it is read.

    Attributes:
        source: what it is read from.
        options: fields of `MediaOptions`, in place of the call's.
    """

    source: Any
    options: dict[str, Any]

    def resolve(self, options: MediaOptions) -> MediaOptions:
        """The options of a call, with the item's own in their place.

        Raises:
            ValueError: they contradict each other.
        """
        return replace(options, **self.options)


def read_item(item: Any, where: str) -> str | MediaItem:
    """The text of an item, or its image or video.

    Args:
        item: what a caller passed.
        where: the message, as errors call it.

    Raises:
        ValueError: an unknown type or key, a missing or second source, or an option out of range.
    """
    if not isinstance(item, Mapping):
        advice = f"; write text as {_TEXT_ITEM}" if isinstance(item, str) else ""
        raise ValueError(f"{where} has content type None in {quoted(item)}, expected an object with a type{advice}")
    item = {key: value for key, value in item.items() if value is not None}  # tables fill in None
    kind = item.get("type")
    if kind == "text":
        if not isinstance(item.get("text"), str):
            raise ValueError(f"{where} has a text item without 'text': {quoted(item)}")
        _refuse_unknown(item, ("type", "text"), where)
        return str(item["text"])
    if kind == "image_url":
        return _openai_image(item, where)
    if isinstance(kind, str) and kind in _SOURCE_KEYS:
        return _media_item(item, kind, where)
    translation = _TRANSLATIONS.get(kind) if isinstance(kind, str) else None
    advice = f"; write {translation}" if translation else ", expected text, image or video"
    raise ValueError(f"{where} has content type {quoted(kind)} in {quoted(item)}{advice}")


def _openai_image(item: Mapping[str, Any], where: str) -> MediaItem:
    """`{"type": "image_url", "image_url": {"url": ...}}`; the address may also stand alone."""
    _refuse_unknown(item, ("type", "image_url"), where)
    value = item.get("image_url")
    inner = dict(value) if isinstance(value, Mapping) else {"url": value}
    detail = inner.pop("detail", "auto")
    if detail not in (None, "auto"):
        raise ValueError(
            f"{where} has an image_url item with 'detail' {quoted(detail)}; write "
            '{"type": "image", "url": ...} with "do_image_splitting": false for low, true for high'
        )
    _refuse_unknown(inner, ("url", "detail"), where, "image_url")
    if inner.get("url") is None:
        raise ValueError(f"{where} has an image_url item without a url: {quoted(item)}")
    return MediaItem("image", inner["url"])


def _media_item(item: Mapping[str, Any], kind: str, where: str) -> MediaItem:
    if "source" in item:  # Anthropic's
        source = item["source"]
        name = source.get("type") if isinstance(source, Mapping) else None
        form = _SOURCE_TRANSLATIONS.get(str(name), '{"type": "%s", "path": ...}')
        raise ValueError(f"{where} has {a(kind)} item with a 'source' {quoted(source)}; write {form % kind}")
    _refuse_unknown(item, ("type", *_SOURCE_KEYS[kind], *_OPTION_KEYS[kind]), where)
    sources = {key: item[key] for key in _SOURCE_KEYS[kind] if key in item}
    if len(sources) > 1:
        raise ValueError(f"{where} has {a(kind)} item with {len(sources)} sources, expected one")
    options = {key: item[key] for key in _OPTION_KEYS[kind] if key in item}
    try:
        MediaOptions(**options)
    except ValueError as error:
        raise ValueError(f"{where} has {a(kind)} item whose {error}") from None
    source = next(iter(sources.values()), None)
    if "base64" in sources:
        if not isinstance(source, str):
            raise ValueError(f"{where} has an image item whose base64 is {quoted(source)}, expected text")
        source = f"data:;base64,{source.rpartition(',')[2]}"
    return MediaItem(kind, source, options)


def _refuse_unknown(item: Mapping[Any, Any], known: tuple[str, ...], where: str, kind: str | None = None) -> None:
    kind = kind or str(item.get("type"))
    for key in item:
        if key not in known:
            advice = did_you_mean(key, known) or f"it takes {', '.join(key for key in known if key != 'type')}"
            raise ValueError(f"{where} has {a(kind)} item with the unknown key {quoted(key)}; {advice}")


def a(kind: str) -> str:
    """With its article: an image, a video."""
    return f"an {kind}" if kind.startswith("i") else f"a {kind}"
