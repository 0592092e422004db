"""Schemas of `/openapi.json`: bodies of requests and responses, as JSON Schema 2020-12 has them.

They say what is accepted, no more and no less, as far as a schema can. A field that is null is as absent; names that
are not listed are ignored, or refused with `--strict`.
"""

from ...options import MAX_FPS, MAX_LOGPROBS
from ..endpoints import responses
from ..intake.known_fields import REFUSED
from ..intake.message_parts import IMAGE_PARTS, OF_MESSAGES, OF_PARTS, ONE_TILE, WHOLE
from ..settings import MAX_CHOICES, MAX_STOPS, ServerSettings
from .openapi_ollama import ollama_schemas
from .openapi_parts import FLAG, SEED, TEXT, Schema, array, either, given, nothing, number, ref, whole

SCHEMA: Schema = {"description": "A JSON schema, or its text.", "type": ["object", "string"]}


def request_schemas(settings: ServerSettings) -> dict[str, Schema]:
    """Bodies of requests, and what they are made of."""
    texts = either(TEXT, array(either(ref("TextPart"), TEXT), minItems=1))
    contents = array(either(ref("TextPart"), ref("ImagePart"), ref("VideoPart"), TEXT), minItems=1)
    sampling = _sampling()
    lost = {name: nothing([], "") for name in OF_PARTS}
    unsupported = {name: nothing(*values) for name, values in REFUSED.items()}
    answer = {
        "model": {"description": "A name that /v1/models lists, or an alias; missing: the first one listed.", **TEXT},
        **sampling,
        **unsupported,
        "max_tokens": whole(1),
        "max_completion_tokens": whole(1),
        "n": whole(1, MAX_CHOICES),
        "stream": FLAG,
        "stream_options": given(
            "Needs `stream: true`.", {"include_usage": FLAG, "continuous_usage_stats": nothing(False)}
        ),
        "return_token_ids": {**FLAG, "description": "List the tokens of prompt and answers."},
        "return_progress": {**FLAG, "description": "Tell how much of the prompt is read. Needs `stream: true`."},
        "timings_per_token": {**FLAG, "description": "Timings in each chunk. Needs `stream: true`."},
        "response_format": ref("ResponseFormat"),
    }
    return {
        "TextPart": given(
            "Text.", {"type": {"enum": ["text", "input_text", "output_text"]}, "text": TEXT}, "type", "text"
        ),
        "ImagePart": given(
            "An image as a data URL, or an address where the server fetches such.",
            {
                **lost,
                "type": {"enum": list(IMAGE_PARTS)},
                "image_url": either(_address("detail"), _url()),
                "detail": _detail(),
            },
            "type",
            "image_url",
        ),
        "VideoPart": {
            "description": "A video, or frames in turn: `data:video/jpeg;base64,FRAME,FRAME`.",
            **either(
                given(
                    "By address or data URL.",
                    {**lost, "type": {"const": "video_url"}, "video_url": either(_address(), _url())},
                    "type",
                    "video_url",
                ),
                given(
                    "In base64.",
                    {**lost, "type": {"const": "input_video"}, "input_video": given("", {"data": TEXT}, "data")},
                    "type",
                    "input_video",
                ),
            ),
        },
        "Message": either(
            given("Instructions.", {"role": {"enum": ["system", "developer"]}, "content": texts}, "role", "content"),
            given(
                "A question.",
                {
                    **{name: nothing([], "") for name in OF_MESSAGES},
                    "role": {"const": "user"},
                    "content": either(TEXT, contents),
                },
                "role",
                "content",
            ),
            given(
                "An answer.",
                {"role": {"const": "assistant"}, "content": texts, "tool_calls": nothing([])},
                "role",
                "content",
            ),
            given(
                "The result of a tool.", {"role": {"enum": ["tool", "function"]}, "content": texts}, "role", "content"
            ),
        ),
        "ResponseFormat": either(
            given("Plain text.", {"type": {"const": "text"}}, "type"),
            given(
                "Any JSON object, or one of a schema.",
                {"type": {"const": "json_object"}, "schema": SCHEMA},
                "type",
            ),
            given(
                "JSON of a schema.",
                {
                    "type": {"const": "json_schema"},
                    "json_schema": given("", {"name": {}, "description": {}, "strict": {}, "schema": SCHEMA}),
                    "schema": {"type": "null"},
                },
                "type",
            ),
            given(
                "The same as the Responses interface has it.",
                {
                    "type": {"const": "json_schema"},
                    "name": {},
                    "strict": {},
                    "schema": SCHEMA,
                    "json_schema": {"type": "null"},
                },
                "type",
            ),
        ),
        "ChatRequest": given(
            "A conversation and how it is answered.",
            {
                **answer,
                "messages": array(ref("Message"), minItems=1, maxItems=settings.max_messages),
                "logprobs": FLAG,
                "top_logprobs": whole(0, MAX_LOGPROBS),
                "continue_final_message": FLAG,
                "add_generation_prompt": FLAG,
            },
            "messages",
        ),
        "CompletionRequest": given(
            "A prompt as it is, with an image or video for each `<image>` and `<video>` in it.",
            {
                **answer,
                "prompt": either({**TEXT, "minLength": 1}, array({**TEXT, "minLength": 1}, minItems=1, maxItems=1)),
                "images": array(either(_url(), ref("ImagePart")), maxItems=settings.max_images),
                "videos": array(either(_url(), ref("VideoPart")), maxItems=settings.max_videos),
                "logprobs": whole(0, MAX_LOGPROBS),
                "echo": FLAG,
                "suffix": nothing(""),
            },
            "prompt",
        ),
        "ResponsesRequest": given(
            "The same as a chat request, in the words of the newer interface. Nothing is remembered.",
            {
                "model": answer["model"],
                **sampling,
                **unsupported,
                "input": either(TEXT, array(ref("Message"), minItems=1, maxItems=settings.max_messages - 1)),
                "instructions": TEXT,
                "max_output_tokens": whole(1),
                "text": given("", {"format": ref("ResponseFormat"), "verbosity": {}}),
                "include": array(TEXT),
                "top_logprobs": whole(0, MAX_LOGPROBS),
                "stream": FLAG,
                **{name: nothing(*values) for name, values in responses.REFUSED.items()},
            },
            "input",
        ),
        **ollama_schemas(sampling),
    }


def _sampling() -> dict[str, Schema]:
    """Fields of every interface of OpenAI's."""
    return {
        "temperature": number(0, 2),
        "top_p": number(0, 1, exclusiveMinimum=0),
        "top_k": whole(-1),
        "min_p": number(0, 1),
        "repetition_penalty": number(0, exclusiveMinimum=0),
        "seed": SEED,
        "stop": either({**TEXT, "minLength": 1}, array({**TEXT, "minLength": 1}, maxItems=MAX_STOPS)),
        "skip_special_tokens": FLAG,
        "structured_outputs": given("A regular expression, or a JSON schema.", {"regex": TEXT, "json": SCHEMA}),
        "media_io_kwargs": {
            **given(
                "", {"video": given("How videos are sampled.", {"num_frames": whole(-1), "fps": number(-1, MAX_FPS)})}
            ),
            "additionalProperties": {"type": "null"},
        },
    }


def _url() -> Schema:
    return {**TEXT, "minLength": 1}


def _detail() -> Schema:
    return {"enum": [*WHOLE, ONE_TILE]}


def _address(*more: str) -> Schema:
    return given("", {"url": _url(), **({"detail": _detail()} if more else {})}, "url")
