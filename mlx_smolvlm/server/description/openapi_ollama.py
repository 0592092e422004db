"""Schemas of `/openapi.json` for requests of Ollama's interface."""

from ..intake.ollama_request import REFUSED, REFUSED_OPTIONS
from .openapi_parts import FLAG, TEXT, Schema, array, either, given, nothing, whole


def ollama_schemas(sampling: dict[str, Schema]) -> dict[str, Schema]:
    """Bodies of requests; `sampling` has the fields of the chat interface."""
    names = ("temperature", "top_p", "top_k", "min_p", "seed", "stop")
    options = given(
        "Options that say how Ollama runs a model are ignored.",
        {
            **{name: sampling[name] for name in names},
            "num_predict": whole(-2),
            "repeat_penalty": sampling["repetition_penalty"],
            "presence_penalty": nothing(0),
            "frequency_penalty": nothing(0),
            **{name: nothing(*values) for name, values in REFUSED_OPTIONS.items()},
        },
    )
    options["properties"]["num_predict"]["not"] = {"const": 0}
    shared = {
        "model": TEXT,
        "stream": FLAG,
        "options": options,
        "format": either({"enum": ["", "json"]}, {"type": "object"}),
        "keep_alive": {},
        "logprobs": FLAG,
        **{name: nothing(*values) for name, values in REFUSED.items()},
    }
    images = array({**TEXT, "minLength": 1, "description": "In base64."})
    message = given(
        "",
        {"role": {"enum": ["system", "user", "assistant", "tool"]}, "content": TEXT, "images": images},
        "role",
        "content",
    )
    return {
        "OllamaChatRequest": given("Without messages: loads the model.", {**shared, "messages": array(message)}),
        "OllamaGenerateRequest": given(
            "Without a prompt: loads the model.", {**shared, "prompt": TEXT, "system": TEXT, "images": images}
        ),
        "OllamaShowRequest": given("", {"model": {**TEXT, "minLength": 1}}, "model"),
    }
