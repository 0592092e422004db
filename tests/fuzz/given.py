"""What a caller gives beside media: options and the rows of lists. Seeds, and what reads them."""

import json
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from mlx_smolvlm import (
    BatchRequest,
    FetchPolicy,
    GenerationOptions,
    MediaOptions,
    Processor,
    SmolVLM,
    generate_batch,
    stream_generate,
)
from mlx_smolvlm.batch.inputs import read_items
from mlx_smolvlm.options import resolve_options

from .mutators import json_bytes, mutated_bytes, mutated_json

OPTIONS: list[dict[str, Any]] = [
    {"max_tokens": 3, "temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 4, "stop": ["x"], "fps": 2},
    {"max_tokens": 3, "repetition_penalty": 1.1, "logprobs": 2, "prefill_chunk": 16, "max_kv_size": 64, "page": 1},
    {"max_tokens": 3, "kv_bits": 8, "kv_group_size": 32, "quantized_kv_start": 4, "skip_special_tokens": False},
    {"max_tokens": 3, "prompt_lookup_tokens": 4, "do_image_splitting": False, "longest_edge": 64, "max_pixels": 9999},
    {"max_tokens": 3, "json_schema": {"type": "string", "enum": ["a", "b"]}, "max_frames": 2, "start_s": 0, "end_s": 1},
    {"max_tokens": 3, "regex": "a+b?", "apply_chat_template": True, "continue_final_message": False},
    {"max_tokens": 3, "hardware_decoding": False, "fetch_policy": {
        "max_bytes": 1000, "timeout_s": 2.0, "connect_timeout_s": 1.0, "stall_timeout_s": 1.0, "max_redirects": 2,
        "schemes": ["https"], "check_address": None,
    }},
]  # fmt: skip
ROWS: list[Any] = [
    {"path": "a.png", "prompt": "What is this?"},
    {"file_name": "b.mp4", "question": "Where?"},
    {"image": "https://example.org/c.jpg"},
    {"video": "d.mp4", "prompt": ""},
    "e.png",
]
CSV_ROWS = b'path,prompt\r\na.png,"What, ""exactly"", is this?"\r\nb.png,\r\n'
REQUESTS: list[dict[str, Any]] = [
    {"messages_or_prompt": "What is this?", "images": [], "videos": []},
    {"messages_or_prompt": [{"role": "user", "content": "Hi"}], "options": OPTIONS[0], "media_options": {"fps": 1}},
    {"messages_or_prompt": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "options": {"seed": 1}},
]


def example_of_options(choices: Random) -> bytes:
    """Keywords of a call, damaged."""
    return json_bytes(mutated_json(choices.choice(OPTIONS), choices))


def example_of_rows(choices: Random) -> bytes:
    """A list, damaged, after its name."""
    if choices.random() < 0.3:
        return b"list.csv\0" + mutated_bytes(CSV_ROWS, choices)
    lines = b"\n".join(json_bytes(mutated_json(row, choices) if choices.random() < 0.5 else row) for row in ROWS)
    return b"list.jsonl\0" + (mutated_bytes(lines, choices) if choices.random() < 0.3 else lines)


def example_of_requests(choices: Random) -> bytes:
    """The keywords of a `BatchRequest`, damaged."""
    return json_bytes(mutated_json(choices.choice(REQUESTS), choices))


def read_options(example: bytes, model: SmolVLM, processor: Processor) -> None:
    """Begin an answer with them: what is wrong shows at once or at the first tokens, as a refusal."""
    given = _keywords(json.loads(example))
    resolve_options(None, None, given)
    image = Image.new("RGB", (40, 30), "red")
    steps = stream_generate(model, processor, "What is this?", images=[image], **given)
    for _ in range(2):
        next(steps, None)
    steps.close()


def read_rows(example: bytes, folder: Path) -> None:
    """Read a list."""
    name, _, content = example.partition(b"\0")
    (folder / name.decode()).write_bytes(content)
    read_items([str(folder / name.decode())])


def read_requests(example: bytes, model: SmolVLM, processor: Processor) -> None:
    """Answer one request; the reason why it cannot be is raised."""
    given = _object(json.loads(example))
    for name, kind in (("options", GenerationOptions), ("media_options", MediaOptions)):
        if isinstance(given.get(name), dict):
            given[name] = kind(**given[name])
    for answer in generate_batch(model, processor, [BatchRequest(**given)], max_tokens=2):
        if answer.error is not None:
            raise answer.error


def _keywords(given: Any) -> dict[str, Any]:
    """Keywords as a program would build them from JSON."""
    given = _object(given)
    policy = given.get("fetch_policy")
    return given | {"fetch_policy": FetchPolicy(**policy)} if isinstance(policy, dict) else given


def _object(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise TypeError("keywords are an object")
    return given
