"""Bodies of Ollama's chat and generate requests, as those of chat requests that ask the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...options import quoted
from ..errors import bad_request
from .fields import BodyFields
from .known_fields import OF_COMPLETIONS
from .translation import Place, Rename, renaming

LATEST = ":latest"  # the tag that clients add to a name
# Field of the chat interface -> that of Ollama's.
NAMES = {
    "max_completion_tokens": "options.num_predict",
    "repetition_penalty": "options.repeat_penalty",
    "response_format": "format",
    **{name: f"options.{name}" for name in ("temperature", "top_p", "top_k", "min_p", "seed", "stop")},
    **{name: f"options.{name}" for name in ("presence_penalty", "frequency_penalty")},
}
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty")
# How Ollama runs a model: nothing of it changes what an answer should be.
RUNNING = frozenset(
    {
        *("num_ctx", "num_keep", "num_batch", "num_gpu", "main_gpu", "num_thread", "numa", "low_vram", "f16_kv"),
        *("logits_all", "vocab_only", "use_mmap", "use_mlock", "embedding_only", "penalize_newline"),
        *("mirostat_tau", "mirostat_eta", "draft_num_predict"),
    }
)
# Options that would change the answer -> the values that change nothing.
REFUSED_OPTIONS: dict[str, tuple[Any, ...]] = {"mirostat": (0,), "tfs_z": (1,), "typical_p": (1,), "n": (1,)}
# The same of the body.
REFUSED: dict[str, tuple[Any, ...]] = {
    "think": (False,),
    "suffix": ("",),
    "template": ("",),
    "context": ([],),
    "raw": (False,),
    "tools": ([],),
    "n": (1,),
    **OF_COMPLETIONS,
}
ADVICE = {
    "think": "the model does not think",
    "suffix": "text cannot be inserted",
    "template": "the checkpoint's template is used",
    "context": "send the conversation to /api/chat",
    "raw": "/v1/completions takes raw prompts",
    "tools": "the model calls no tools",
    "n": "a response has one answer",
    **dict.fromkeys(OF_COMPLETIONS, "/v1/chat/completions has it"),
}
# Fields of the body, which are no options.
OF_BODY = ("model", "messages", "stream", "logprobs", "top_logprobs", "response_format")
IGNORED = frozenset({"keep_alive", "truncate", "shift"})


@dataclass(frozen=True)
class OllamaRequest:
    """A request, checked as far as only Ollama's interface has it.

    Attributes:
        chat: the body of a chat request that asks the same.
        rename: puts errors of the chat interface into this one's words.
        model: the name of the model, as it was sent.
        stream: whether the answer comes in lines.
        is_empty: nothing is asked; the model is to be loaded, or unloaded.
        load_reason: which of the two.
    """

    chat: dict[str, Any]
    rename: Rename
    model: str
    stream: bool
    is_empty: bool
    load_reason: str


def read_chat(body: Mapping[str, Any]) -> OllamaRequest:
    """Read the body of `/api/chat`.

    Raises:
        ApiError: what only this interface has, wrong or not supported.
    """
    fields = BodyFields(body)
    messages = fields.get("messages")
    if messages is None:
        messages = []
    elif not isinstance(messages, list):
        raise fields.wrong("messages", "a list of messages")
    read = [_message(message, f"messages[{number}]") for number, message in enumerate(messages)]
    counts = [len(images) for _, images in read]

    def place(message: int, part: int | None) -> str:
        where = f"messages[{message}]"
        if part is None or not counts[message]:
            return where
        return f"{where}.images[{part}]" if part < counts[message] else f"{where}.content"

    return _request(fields, [message for message, _ in read], NAMES, place)


def read_generate(body: Mapping[str, Any]) -> OllamaRequest:
    """Read the body of `/api/generate`.

    Raises:
        ApiError: as `read_chat`.
    """
    fields = BodyFields(body)
    prompt, system = fields.text("prompt") or "", fields.text("system")
    message, images = _message({"role": "user", "content": prompt, "images": fields.get("images")}, "")
    before = [{"role": "system", "content": system}] if system else []

    def place(message: int, part: int | None) -> str:
        if message < len(before):
            return "system"
        return f"images[{part}]" if part is not None and part < len(images) else "prompt"

    messages = [*before, message] if prompt or images else []
    return _request(fields, messages, {**NAMES, "messages": "prompt"}, place)


def served_name(name: str) -> str:
    """A model's name without the tag that Ollama's clients add."""
    return name.removesuffix(LATEST)


def _message(message: Any, where: str) -> tuple[Any, list[Any]]:
    """A message with its images as parts before the text, and the images."""
    if not isinstance(message, Mapping):
        return message, []
    images = message.get("images")
    dot = f"{where}." if where else ""
    if images is None:
        images = []
    elif not isinstance(images, list):
        raise bad_request(f"{dot}images is {quoted(images)}, expected a list of base64 texts", f"{dot}images")
    for number, image in enumerate(images):
        if not isinstance(image, str) or not image:
            place = f"{dot}images[{number}]"
            raise bad_request(f"{place} is {quoted(image)}, expected an image in base64", place)
    content = message.get("content")
    plain = {name: value for name, value in message.items() if name not in ("images", "content", "thinking")}
    if not images:
        return {**plain, "content": "" if content is None else content}, []
    if content is not None and not isinstance(content, str):
        raise bad_request(f"{dot}content is {quoted(content)}, expected text", f"{dot}content")
    parts: list[Any] = [{"type": "image_url", "image_url": _address(image)} for image in images]
    return {**plain, "content": [*parts, *([content] if content else [])]}, images


def _address(image: str) -> str:
    is_address = image[:8].lower().startswith(("data:", "http://", "https://"))
    return image if is_address else f"data:;base64,{image}"


def _request(fields: BodyFields, messages: list[Any], names: Mapping[str, str], place: Place) -> OllamaRequest:
    model = fields.text("model") or ""
    stream = fields.flag("stream")
    keep_alive = fields.get("keep_alive")
    fields.refuse(REFUSED, ADVICE)
    # An empty request is checked as any other.
    asked = messages or [{"role": "user", "content": ""}]
    options, unread = _options(fields)
    rename = renaming(names, place, {name: f"options.{name}" for name in unread})
    chat: dict[str, Any] = {"messages": asked, **options, **_format(fields)}
    chat |= {"model": served_name(model), "logprobs": fields.flag("logprobs")}
    chat["top_logprobs"] = fields.whole("top_logprobs", 0)
    for name in fields.unread(IGNORED):
        if chat.get(name) is not None:
            raise bad_request(f"{name} would stand beside {rename(name)}, which says the same; leave it out", name)
        chat[name] = fields.get(name)  # the chat interface knows it, or refuses or ignores it by name
    return OllamaRequest(
        chat=chat,
        rename=rename,
        model=model,
        stream=stream is not False,
        is_empty=not messages,
        load_reason="unload" if keep_alive in (0, "0", "0s") and keep_alive is not False else "load",
    )


def _options(fields: BodyFields) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options under the names of the chat interface, and those among them that are passed on as they are."""
    options = BodyFields(fields.object("options"))
    options.refuse(REFUSED_OPTIONS, ADVICE, "options.")
    values = {name: options.get(name) for name in SAMPLING}
    values["max_completion_tokens"] = _limit(options)
    values["repetition_penalty"] = options.get("repeat_penalty")
    window = options.get("repeat_last_n")
    if window not in (None, -1) and values["repetition_penalty"] not in (None, 1):
        raise bad_request(
            f"options.repeat_last_n is {quoted(window)}; penalties reach over the whole context, which is -1",
            "options.repeat_last_n",
        )
    unread = {name: options.get(name) for name in options.unread(RUNNING)}
    for name in unread:
        if name in OF_BODY:
            raise bad_request(
                f"options.{name} is no option; write it beside options, or leave it out", f"options.{name}"
            )
        if values.get(name) is not None:
            raise bad_request(f"options.{name} would stand beside {NAMES[name]}; leave it out", f"options.{name}")
    return {**values, **unread}, unread


def _limit(options: BodyFields) -> Any:
    limit = options.get("num_predict")
    endless = limit in (-1, -2) and not isinstance(limit, bool)  # until the end, or until the context is full
    return 2**31 if endless else limit


def _format(fields: BodyFields) -> dict[str, Any]:
    wanted = fields.get("format")
    if wanted is None or wanted == "":
        return {}
    if wanted == "json":
        return {"response_format": {"type": "json_object"}}
    if not isinstance(wanted, dict):
        raise fields.wrong("format", '"json" or a JSON schema')
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "format", "schema": wanted}}}
