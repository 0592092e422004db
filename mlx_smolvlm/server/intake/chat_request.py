"""The body of a chat request -> what is asked and how it is answered. Each field is honoured, refused or ignored."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...options import MAX_FPS, MAX_LOGPROBS, GenerationOptions, quoted
from ..errors import ApiError, bad_request
from ..settings import MAX_CHOICES, MAX_STOPS, ServerSettings
from .fields import BodyFields
from .known_fields import ADVICE, IGNORED, IGNORED_OF_SCHEMAS, IGNORED_OF_STREAMS, OF_COMPLETIONS, REFUSED
from .message_parts import ChatMessage, read_messages
from .unknown_fields import MAX_NAME_CHARS, UnknownFields


@dataclass(frozen=True)
class AnswerRequest:
    """How a request is answered.

    Attributes:
        options: of every answer; the seed is that of the first.
        n: how many answers.
        stream: whether they come as they are made.
        include_usage: whether a stream ends with a chunk of usage.
        return_token_ids: whether the tokens of prompt and answers are listed.
        return_progress: whether a stream tells how much of the prompt has been read.
        timings_per_token: whether each chunk of a stream has timings.
        fps, num_frames: how videos are sampled; None as the checkpoint says.
    """

    options: GenerationOptions
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    return_token_ids: bool = False
    return_progress: bool = False
    timings_per_token: bool = False
    fps: float | None = None
    num_frames: int | None = None


@dataclass(frozen=True)
class ChatRequest:
    """Messages, and how they are answered."""

    messages: tuple[ChatMessage, ...]
    answer: AnswerRequest


def read_chat_request(
    body: Mapping[str, Any], settings: ServerSettings, rename: Callable[[str], str] = str
) -> ChatRequest:
    """Check the body of a chat request. `model` is checked elsewhere.

    Args:
        body: the fields.
        settings: of the server.
        rename: puts places into the words of the interface that the request came by.

    Raises:
        ApiError: a field of another type or range, or one that would change the answer and is not supported.
    """
    fields = BodyFields(body)
    fields.get("model")
    continues = _continues(fields)
    unknown = UnknownFields(settings.strict, rename)
    messages = read_messages(fields.get("messages"), settings, unknown, continues=continues)
    logprobs = _chat_logprobs(fields)
    answer = read_answer_request(fields, settings, unknown, continue_final_message=continues, logprobs=logprobs)
    return ChatRequest(messages, answer)


def read_answer_request(
    fields: BodyFields, settings: ServerSettings, unknown: UnknownFields, **given: Any
) -> AnswerRequest:
    """Read all fields that say how an answer is made, and refuse or ignore what is left.

    Args:
        fields: of the body; those that say what is asked have been read.
        settings: of the server.
        unknown: is told of fields that are not known.
        given: fields of `GenerationOptions` that the caller has read.

    Raises:
        ApiError: as `read_chat_request`.
    """
    values = {name: value for name, value in given.items() if value is not None}
    old_limit = fields.whole("max_tokens", 1)
    limit = fields.whole("max_completion_tokens", 1)
    values["max_tokens"] = limit or old_limit or settings.default_max_tokens
    for name, value in (
        ("temperature", fields.number("temperature", 0, 2)),
        ("top_p", fields.number("top_p", 0, 1)),
        ("top_k", fields.whole("top_k", -1)),
        ("min_p", fields.number("min_p", 0, 1)),
        ("repetition_penalty", fields.number("repetition_penalty", 0)),
        ("skip_special_tokens", fields.flag("skip_special_tokens")),
    ):
        if value is not None:
            values[name] = max(value, 0) if name == "top_k" else value  # -1 is vLLM's word for all
    seed = fields.whole("seed", -(2**63), 2**64 - 1)
    values["seed"] = None if seed is None else seed % 2**64
    values["stop"] = _stop(fields)
    structure, param = _structure(fields, settings, unknown)
    if structure and values["stop"]:
        raise bad_request(f"stop cannot be combined with {param}: it could cut the output; leave one out", "stop")
    values |= structure
    n = fields.whole("n", 1, MAX_CHOICES) or 1
    stream = fields.flag("stream") or False
    include_usage = _include_usage(fields, stream, unknown)
    told = {name: fields.flag(name) or False for name in OF_COMPLETIONS}
    for name in ("return_progress", "timings_per_token"):
        if told[name] and not stream:
            raise bad_request(f"{name} needs stream: true", name)
    num_frames, fps = _video(fields)
    fields.refuse(REFUSED, ADVICE)
    fields.check_unknown(unknown, IGNORED)
    try:
        options = GenerationOptions(**values)
    except ValueError as error:
        raise bad_request(str(error), str(error).partition(" ")[0]) from None
    return AnswerRequest(options, n, stream, include_usage, **told, fps=fps, num_frames=num_frames)


def _include_usage(fields: BodyFields, stream: bool, unknown: UnknownFields) -> bool:
    options = fields.object("stream_options")
    if options and not stream:
        raise bad_request("stream_options needs stream: true", "stream_options")
    inner = BodyFields(options)
    try:
        include_usage = inner.flag("include_usage") or False
    except ApiError as error:
        raise bad_request(f"stream_options.{error.message}", "stream_options.include_usage") from None
    inner.refuse({"continuous_usage_stats": (False,)}, prefix="stream_options.")
    inner.check_unknown(unknown, IGNORED_OF_STREAMS, "stream_options")
    return include_usage


def _continues(fields: BodyFields) -> bool:
    continues = fields.flag("continue_final_message") or False
    opens = fields.flag("add_generation_prompt")
    if opens is not None and opens == continues:
        advice = "it is false exactly where continue_final_message is true"
        raise bad_request(f"add_generation_prompt is {json.dumps(opens)}; {advice}", "add_generation_prompt")
    return continues


def _chat_logprobs(fields: BodyFields) -> int | None:
    wanted = fields.flag("logprobs") or False
    top = fields.whole("top_logprobs", 0, MAX_LOGPROBS)
    if top is not None and not wanted and top:
        raise bad_request("top_logprobs needs logprobs: true", "top_logprobs")
    return (top or 0) if wanted else None


def _stop(fields: BodyFields) -> tuple[str, ...]:
    stop = fields.get("stop")
    if stop is None:
        return ()
    strings = [stop] if isinstance(stop, str) else stop
    if (
        not isinstance(strings, list)
        or len(strings) > MAX_STOPS
        or not all(isinstance(string, str) and string for string in strings)
    ):
        raise fields.wrong("stop", f"a string or a list of at most {MAX_STOPS}, none of them empty")
    return tuple(strings)


def _structure(fields: BodyFields, settings: ServerSettings, unknown: UnknownFields) -> tuple[dict[str, Any], str]:
    """`json_schema` or `regex` as options, and the field that asks for it."""
    found: list[tuple[str, str, Any]] = []
    wanted = fields.object("response_format")
    kind = "text" if fields.get("response_format") is None else wanted.get("type")
    if kind == "json_object":
        found.append(("json_schema", "response_format", wanted.get("schema", {"type": "object"})))
    elif kind == "json_schema":
        if "json_schema" in wanted and "schema" in wanted:
            raise bad_request(
                "response_format has a schema within json_schema and beside it; send one", "response_format"
            )
        inner = wanted.get("json_schema", wanted)
        if not isinstance(inner, dict):
            raise fields.wrong("response_format", "a json_schema object with name and schema")
        schema = inner.get("schema")
        found.append(("json_schema", "response_format", {"type": "object"} if schema is None else schema))
    elif kind != "text":
        raise bad_request(
            f"response_format has type {quoted(kind)}, expected text, json_object or json_schema",
            "response_format.type",
        )
    _check_format(wanted, kind, unknown)
    outputs = fields.object("structured_outputs")
    for name, option in (("regex", "regex"), ("json", "json_schema")):
        if name in outputs:
            found.append((option, f"structured_outputs.{name}", outputs.pop(name)))
    advice = dict.fromkeys(outputs, "use regex or json")
    BodyFields(outputs).refuse(dict.fromkeys(outputs, (False, [], "")), advice, "structured_outputs.")
    if len(found) > 1:
        raise bad_request(f"{found[0][1]} and {found[1][1]} are both given; an answer follows one", found[1][1])
    for option, param, value in found:
        if option == "regex" and not isinstance(value, str):
            raise bad_request(f"{param} is {quoted(value)}, expected text", param)
        if option == "json_schema" and not isinstance(value, dict | str):
            raise bad_request(f"{param} has schema {quoted(value)}, expected an object", param)
        size = len(value if isinstance(value, str) else json.dumps(value))
        if size > settings.max_schema_bytes:
            raise bad_request(f"{param} has {size} bytes, the limit is {settings.max_schema_bytes}", param)
        return {option: value}, param
    return {}, ""


def _check_format(wanted: Mapping[str, Any], kind: Any, unknown: UnknownFields) -> None:
    """Refuse a schema that the type has no use for, and look at the other fields of `response_format`."""
    used = {"json_object": ("schema",), "json_schema": ("schema", "json_schema")}.get(kind, ())
    for name in ("schema", "json_schema"):
        if wanted.get(name) is not None and name not in used:
            where = f"response_format.{name}"
            raise bad_request(f"{where} has no use with type {kind}; write type json_schema", where)
    inner = wanted.get("json_schema")
    if inner is None:
        unknown.check(wanted, "response_format", ("type", "schema"), IGNORED_OF_SCHEMAS)
    else:
        unknown.check(wanted, "response_format", ("type", "json_schema"))
        unknown.check(inner, "response_format.json_schema", ("schema",), IGNORED_OF_SCHEMAS)


def _video(fields: BodyFields) -> tuple[int | None, float | None]:
    """`media_io_kwargs.video`: num_frames and fps."""
    kinds = fields.object("media_io_kwargs")
    video = kinds.pop("video", {})
    if kinds:
        name = next(iter(kinds))[:MAX_NAME_CHARS]
        where = f"media_io_kwargs.{name}"
        raise bad_request(f"media_io_kwargs has {quoted(name)}, which is not supported; only video is", where)
    if not isinstance(video, dict):
        raise bad_request(f"media_io_kwargs.video is {quoted(video)}, expected an object", "media_io_kwargs.video")
    inner = BodyFields(video)
    try:
        num_frames, fps = inner.whole("num_frames", -1), inner.number("fps", -1, MAX_FPS)
    except ApiError as error:
        raise bad_request(f"media_io_kwargs.video: {error.message}", "media_io_kwargs.video") from None
    for name in inner.unread(()):
        where = f"media_io_kwargs.video.{name[:MAX_NAME_CHARS]}"
        raise bad_request(f"media_io_kwargs.video has {quoted(name)}, expected num_frames or fps", where)
    # -1 and 0 are vLLM's words for all, which the checkpoint bounds.
    return (num_frames if num_frames and num_frames > 0 else None), (fps if fps and fps > 0 else None)
