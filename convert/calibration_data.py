"""Samples to measure and calibrate on: prompts with images, and the tokens of an answer to each."""

import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..api.generation import stream_generate
from ..documents.page_files import open_pages
from ..documents.tasks import PageTask
from ..engine.prefill import tiles_per_step
from ..media.signatures import is_pdf, is_picture_of_folder, skipped_note
from ..media.urls import is_url
from ..model.json_fields import read_text
from ..model.smolvlm import SmolVLM
from ..options import quoted
from ..processor.processor import END_OF_UTTERANCE, Processor

MAX_ANSWER_TOKENS = 48
MAX_TEXT_TOKENS = 96
DEFAULT_QUESTION = "Describe this image."
_TEXTS = (".txt", ".jsonl")
_MAX_TEXT_BYTES = 1024**3  # of one file; lines may hold images


@dataclass(frozen=True)
class Sample:
    """A prompt as chat messages, or a plain `text` that is scored from its second token on.

    `answer` is what the model should say; None stands for the reference's own greedy answer.
    `do_image_splitting` as in `Processor.__call__`.
    """

    name: str
    messages: Sequence[dict[str, Any]] = ()
    answer: str | None = None
    text: str | None = None
    do_image_splitting: bool | None = None


@dataclass(frozen=True)
class ScoredSample:
    """A prompt and its answer as the model reads them.

    `input_ids[first_scored:]` are the tokens of the answer. `pixel_values` as in `Inputs`.
    """

    name: str
    input_ids: list[int]
    pixel_values: np.ndarray | None
    first_scored: int

    @property
    def answer_ids(self) -> list[int]:
        """The tokens that are scored."""
        return self.input_ids[self.first_scored :]


def read_samples(folder: str | Path) -> list[Sample]:
    """The samples of a user's folder.

    Either images, each with its question in a text file of the same name (`cat.jpg`, `cat.txt`; without one it is
    `DEFAULT_QUESTION`) and, if known, the answer in `cat.answer.txt`; or `.jsonl` files with a conversation per line:
    messages in Hugging Face format, or an object with `messages`, paths of media relative to the folder. A last message
    of the assistant is the answer. Of a PDF, each page is an image; its question is that for a page's DocTags, unless a
    text file says otherwise. All may stand side by side. Content tells images from other files, and a warning counts
    what is skipped.

    Raises:
        FileNotFoundError: no such folder, or nothing of the kind in it.
        ValueError: a line that is no conversation; a PDF that cannot be opened.
        ImportError: a PDF, and what reads PDFs is not installed.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r}; --data takes a folder of images or .jsonl conversations")
    samples = []
    skipped: Counter[str] = Counter()
    for file in sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")):
        suffix = file.suffix.lower()
        if suffix == ".jsonl":
            samples += _conversations(file)
        elif suffix not in _TEXTS and _is_pdf(file):
            samples += _page_samples(file)
        elif suffix not in _TEXTS and is_picture_of_folder(file, skipped):
            samples.append(_image_sample(file))
    note = skipped_note(skipped)
    if not samples:
        raise FileNotFoundError(
            "; ".join(filter(None, [f"{folder} holds no images and no .jsonl conversations", note]))
        )
    if note:
        warnings.warn(f"{folder}: {note}", stacklevel=2)
    return samples


def _image_sample(file: Path) -> Sample:
    question = _text_beside(file, ".txt") or DEFAULT_QUESTION
    content = [{"type": "image", "path": str(file)}, _text_item(question)]
    return Sample(file.name, [{"role": "user", "content": content}], answer=_text_beside(file, ".answer.txt"))


class PdfPage:
    """A page as `load_image` takes it: it is rendered when it is looked at, so that a long PDF takes no memory."""

    def __init__(self, file: Path, number: int):
        self._file, self._number = file, number

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The page's pixels, (height, width, 3) uint8."""
        with open_pages(self._file) as pages:
            return np.asarray(pages.image(self._number), dtype)


def _page_samples(file: Path) -> list[Sample]:
    question = _text_beside(file, ".txt") or PageTask().prompt
    with open_pages(file) as pages:
        numbers = range(1, pages.num_pages + 1)
    return [
        Sample(
            f"{file.name}, page {number}",
            [{"role": "user", "content": [{"type": "image", "image": PdfPage(file, number)}, _text_item(question)]}],
        )
        for number in numbers
    ]


def _is_pdf(file: Path) -> bool:
    with file.open("rb") as content:
        return is_pdf(content.read(1024)) or file.suffix.lower() == ".pdf"  # the latter is said to be damaged


def _text_item(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _text_beside(image: Path, ending: str) -> str | None:
    file = image.with_name(image.stem + ending)
    return _text(file).strip() or None if file.is_file() else None


def _text(file: Path) -> str:
    return read_text(file, _MAX_TEXT_BYTES).removeprefix("\ufeff")  # a mark that some editors put first


def _conversations(file: Path) -> list[Sample]:
    samples = []
    for number, line in enumerate(_text(file).split("\n"), 1):  # strings may hold other line breaks
        if not line.strip():
            continue
        where = f"{file.name}:{number}"
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where} is not JSON ({error}); expected one conversation per line") from None
        messages = content.get("messages") if isinstance(content, dict) else content
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise ValueError(f"{where} has no list of messages, expected [{{'role': ..., 'content': ...}}, ...]")
        answer = None
        if messages and messages[-1].get("role") == "assistant":
            answer = _plain_text(messages[-1].get("content"), where)
            messages = messages[:-1]
        samples.append(Sample(where, _with_paths(messages, file.parent), answer))
    return samples


def _plain_text(content: Any, where: str) -> str:
    """The text of an answer."""
    items = [{"text": content}] if isinstance(content, str) else content
    try:
        return "".join(item["text"] for item in items)
    except (TypeError, KeyError):
        raise ValueError(f"{where}: the answer is {quoted(content)}, expected text") from None


def _with_paths(messages: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Messages whose relative paths begin at their file; web and data addresses stay."""

    def item(content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        paths = {key: content[key] for key in ("path", "url", "image", "video") if isinstance(content.get(key), str)}
        local = {key: path for key, path in paths.items() if not is_url(path)}
        return {**content, **{key: str(folder / os.path.expanduser(path)) for key, path in local.items()}}

    return [
        {**message, "content": [item(part) for part in message["content"]]}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def score_samples(model: SmolVLM, processor: Processor, samples: Sequence[Sample]) -> list[ScoredSample]:
    """Prepare samples for a model; where there is no answer, its own greedy one of `MAX_ANSWER_TOKENS` is taken.

    Raises:
        ValueError: no samples, or, with the sample's name, unreadable images, malformed messages, or prompts longer
            than the context.
    """
    scored = []
    for sample in samples:
        with _named(sample):
            scored.append(_score(model, processor, sample))
    scored = [sample for sample in scored if sample.answer_ids]
    if not scored:
        raise ValueError("no sample has an answer to measure on")
    return scored


def check_samples(processor: Processor, samples: Sequence[Sample]) -> None:
    """Refuse now what `score_samples` would refuse later; raises as it does."""
    for sample in samples:
        with _named(sample):
            if sample.text is None:
                processor(sample.messages, do_image_splitting=sample.do_image_splitting)


@contextmanager
def _named(sample: Sample) -> Iterator[None]:
    """Within: errors say which sample they are about."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise ValueError(f"{sample.name}: {error}") from None


def _score(model: SmolVLM, processor: Processor, sample: Sample) -> ScoredSample:
    context = processor.config.context_length

    def tokens(text: str) -> list[int]:
        return processor.tokenizer.encode(text, add_special_tokens=False).ids

    if sample.text is not None:
        return ScoredSample(sample.name, tokens(sample.text)[: min(MAX_TEXT_TOKENS, context)], None, 1)
    split = sample.do_image_splitting
    inputs = processor(sample.messages, do_image_splitting=split)
    if sample.answer is None:
        steps = stream_generate(
            model, processor, sample.messages, max_tokens=MAX_ANSWER_TOKENS, do_image_splitting=split
        )
        answer = [step.token_id for step in steps if step.token_id is not None]
    else:
        space = " " if processor.decode(inputs.input_ids[-1:], skip_special_tokens=False).endswith(":") else ""
        answer = [*tokens(space + sample.answer), *_end_tokens(processor)]
    return ScoredSample(sample.name, (inputs.input_ids + answer)[:context], inputs.pixel_values, len(inputs.input_ids))


def _end_tokens(processor: Processor) -> list[int]:
    """What ends an answer: the family's token, or the one that a checkpoint names in its place; [] if there is none."""
    named, end = processor.config.eos_token_ids, processor.tokenizer.token_to_id(END_OF_UTTERANCE)
    return [end] if end is not None and (end in named or not named) else list(named[:1])


def embed(model: SmolVLM, sample: ScoredSample) -> mx.array:
    """The decoder's input, (1, num_tokens, hidden_size); tiles are encoded a few at a time, as in generation."""
    features = None
    if sample.pixel_values is not None:
        parts, step = [], tiles_per_step(model)
        for start in range(0, len(sample.pixel_values), step):
            parts.append(model.image_features(sample.pixel_values[start : start + step]))
            mx.eval(parts[-1])
        features = mx.concatenate(parts)
    prompt = model.input_embeddings(sample.input_ids[: sample.first_scored], features)
    # An answer's tokens are themselves, even where a model says an image token.
    return mx.concatenate([prompt, model.language_model.embed_tokens(mx.array(sample.answer_ids))[None]], axis=1)


def answer_logits(model: SmolVLM, sample: ScoredSample) -> mx.array:
    """Logits that predict the answer's tokens, (num_answer_tokens, vocab_size) float32."""
    hidden = model.language_model(embed(model, sample), model.make_cache())
    return model.language_model.logits(hidden[0, sample.first_scored - 1 : -1]).astype(mx.float32)
