"""What released checkpoints are known to answer, as a check of this machine, its MLX and this version."""

import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from PIL import Image

from ...api.generation import stream_generate
from ...api.loading import DTYPES, default_dtype, load
from ...model.json_fields import read_text
from ...model.smolvlm import SmolVLM
from ...options import quoted
from ...processor.processor import Processor

KNOWN_ANSWERS = Path(__file__).parent / "known_answers.json"
_TOLERANCE = {"float32": 0.01, "float16": 0.1, "bfloat16": 0.5}  # of logits, whose size is about 20
_DEFAULT_TOKENS = 40
_MAX_BYTES = 16 * 1024**2
_FIELDS = (
    *("model", "name", "prompt", "images", "dtype", "max_tokens", "source"),
    *("prompt_ids", "answer_ids", "first_logits", "image_tokens", "marker_ids", "text_start"),
)


@dataclass(frozen=True)
class KnownAnswer:
    """A prompt, and what is known of it and of its greedy answer; None where nothing is known.

    Attributes:
        model: Hub id or folder.
        name: what the check is called.
        prompt: raw, with an `<image>` for each image.
        images: addresses, paths or the width and height of a grey image.
        dtype: that of the record; None for `default_dtype()`.
        max_tokens: most tokens of the answer.
        source: where it is known from.
        prompt_ids: tokens of the prompt.
        answer_ids: the first tokens of the answer.
        first_logits: token -> its logit at the answer's first token.
        image_tokens: tokens that stand for images.
        marker_ids: which tokens of the prompt, from the smallest of these to the largest, stand there, in order.
        text_start: how the answer begins.
    """

    model: str
    name: str
    prompt: str
    images: Sequence[Any] = ()
    dtype: str | None = None
    max_tokens: int = _DEFAULT_TOKENS
    source: str = ""
    prompt_ids: list[int] | None = None
    answer_ids: list[int] | None = None
    first_logits: dict[str, float] = field(default_factory=dict)
    image_tokens: int | None = None
    marker_ids: list[int] | None = None
    text_start: str | None = None


@dataclass(frozen=True)
class CheckedAnswer:
    """A check: which, in which number type, what was compared, and what differs (nothing if it holds)."""

    known: KnownAnswer
    dtype: str
    compared: list[str]
    differences: list[str]


def read_known_answers(path: Path = KNOWN_ANSWERS, model: str | None = None) -> list[KnownAnswer]:
    """The records of a file, those of one model if it is named: by its Hub id, or a folder called as the Hub calls it.

    Raises:
        ValueError: no list of records, a field that is not known, or a model of which nothing is known.
    """
    try:
        records = json.loads(read_text(path, _MAX_BYTES))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); expected a list of known answers") from None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{path} is no list of known answers; expected objects with {', '.join(_FIELDS[:3])}")
    found = []
    for number, record in enumerate(records, 1):
        unknown = sorted(record.keys() - set(_FIELDS))
        missing = [name for name in _FIELDS[:3] if not isinstance(record.get(name), str)]
        if unknown or missing:
            what = f"the unknown field {quoted(unknown[0])}" if unknown else f"no {missing[0]}"
            raise ValueError(f"{path}, record {number} has {what}; fields are {', '.join(_FIELDS)}")
        if record.get("dtype") not in (None, *DTYPES):
            what = f"dtype {quoted(record['dtype'])}, expected {', '.join(DTYPES)}"
            raise ValueError(f"{path}, record {number} has {what}")
        found.append(KnownAnswer(**record))
    if model is None:
        return found
    of_model = [known for known in found if model == known.model or Path(model).name == Path(known.model).name]
    if not of_model:
        names = ", ".join(dict.fromkeys(known.model for known in found))
        raise ValueError(f"nothing is known of {quoted(model)}; a folder must be called as the Hub calls it: {names}")
    return of_model


def check_known_answers(
    known: Sequence[KnownAnswer], model: str | None = None, dtype: str | None = None
) -> Iterator[CheckedAnswer]:
    """Run the checks; a checkpoint is loaded once for those that follow one another.

    Args:
        known: from `read_known_answers`.
        model: a folder or Hub id to load in place of the records' own.
        dtype: a number type in place of the records' own.

    Yields:
        A result per record. A checkpoint or image that cannot be had is a difference, too; why and what to do is told
        once, and a checkpoint is not asked for again.
    """
    failed: dict[tuple[str, str], Exception] = {}  # checkpoints that could not be loaded
    told: dict[str, str] = {}  # by reason, the first check that had it
    loaded: tuple[str, str] | None = None
    pair: tuple[SmolVLM, Processor] | None = None
    for record in known:
        path, computed_in = model or record.model, dtype or record.dtype or default_dtype()
        try:
            if (path, computed_in) in failed:
                raise failed[path, computed_in]
            if loaded != (path, computed_in) or pair is None:
                pair = loaded = None  # two checkpoints would not fit
                try:
                    pair = load(path, dtype=computed_in)
                except (OSError, ValueError, RuntimeError) as error:
                    failed[path, computed_in] = error
                    raise
                loaded = (path, computed_in)
            compared, differences = _compare(record, *pair, computed_in)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).replace(path, "MODEL")
            why = f", for the same reason as {told[reason]}" if reason in told else f": {error}"
            told.setdefault(reason, record.name)
            compared, differences = [], [f"could not be run{why}"]
        yield CheckedAnswer(record, computed_in, compared, differences)


def environment_line() -> str:
    """What the checks run on: versions, machine and MLX's device."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("mlx-smolvlm", "mlx", "tokenizers", "pillow"))
    return f"{versions}; Python {platform.python_version()}, {platform.platform()}; {mx.default_device()}"


def check_line(checked: CheckedAnswer) -> str:
    """A check as a line of text."""
    head = f"{'FAIL' if checked.differences else 'ok':4} {checked.known.model}, {checked.dtype}: {checked.known.name}"
    return f"{head}: {'; '.join(checked.differences or checked.compared)}"


def _compare(record: KnownAnswer, model: SmolVLM, processor: Processor, dtype: str) -> tuple[list[str], list[str]]:
    """What was compared, and what differs."""
    images = [_drawn(image) if isinstance(image, dict) else image for image in record.images]
    compared: list[str] = []
    differences: list[str] = []

    def check(what: str, found: Any, expected: Any) -> None:
        (compared if found == expected else differences).append(
            what if found == expected else f"{what} {quoted(found)}, expected {quoted(expected)}"
        )

    with processor.prepare(record.prompt, images, apply_chat_template=False) as prompt:
        ids = prompt.input_ids
        if record.prompt_ids is not None:
            check("prompt ids", ids, record.prompt_ids)
        if record.image_tokens is not None:
            check(f"{record.image_tokens} image tokens", ids.count(model.config.image_token_id), record.image_tokens)
        if record.marker_ids is not None:
            low, high = min(record.marker_ids), max(record.marker_ids)
            check("layout markers", [i for i in ids if low <= i <= high], record.marker_ids)
    if record.first_logits:
        logits = _first_logits(model, processor, record, images)
        off = max(abs(float(logits[int(token)]) - logit) for token, logit in record.first_logits.items())
        text = f"first logits within {off:.2g}"
        if off <= _TOLERANCE[dtype]:
            compared.append(text)
        else:
            differences.append(f"first logits off by {off:.2g}, expected at most {_TOLERANCE[dtype]:g}")
    if record.answer_ids is not None or record.text_start is not None:
        count = record.max_tokens if record.answer_ids is None else len(record.answer_ids)
        text, answer = "", []
        for step in stream_generate(
            model, processor, record.prompt, images=images, apply_chat_template=False, max_tokens=count, temperature=0.0
        ):
            text += step.text
            answer += [step.token_id]
        if record.answer_ids is not None:
            check(f"{count} answer ids", answer, record.answer_ids)
        if record.text_start is not None:
            check("the answer's beginning", text[: len(record.text_start)], record.text_start)
    return compared, differences


def _drawn(size: dict[str, int]) -> Image.Image:
    return Image.new("RGB", (size["width"], size["height"]), (128, 128, 128))


def _first_logits(model: SmolVLM, processor: Processor, record: KnownAnswer, images: Sequence[Any]) -> np.ndarray:
    """Logits of the answer's first token, (vocab_size,) float32."""
    inputs = processor(record.prompt, images=images, apply_chat_template=False)
    logits = model(inputs.input_ids, inputs.pixel_values)[0, -1].astype(mx.float32)
    return np.array(logits)
