"""A session <-> one safetensors file: JSON for the conversation, tensors for what was read and for pixels."""

import json
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save_file

from ..engine.prompt_cache import PromptCache, ReadMedium
from ..files import refuse_foreign, whole_file
from ..model.smolvlm import SmolVLM
from ..options import FetchPolicy, MediaOptions, quoted
from ..processor.kept_media import Content, KeptImage, KeptMedium, KeptVideo
from ..processor.sampled_video import SampledVideo
from ..processor.tiling import Layout
from .session_record import MAX_RECORD_BYTES, check_session, most_bytes

FORMAT = "mlx-smolvlm session 2"
_FORMATS = b'"mlx-smolvlm session'
_RECORD, _CHECKSUM = "record", "checksum"
_PROBE = 64  # values of each parameter that tell a model from others of the same shape


@dataclass(frozen=True)
class Turn:
    """A question with its answer.

    Attributes:
        content: the question in Hugging Face format; its images and videos are `KeptMedium` objects.
        answer: the answer's text, as far as it was made.
        finish_reason: how it ended: "stop", "length", "cancelled", or "closed" by the consumer.
    """

    content: Content
    answer: str
    finish_reason: str


@dataclass(frozen=True)
class SavedSession:
    """The content of a file: the system prompt, (content, answer, finish_reason) of each turn, and the prompt cache."""

    system: str | None
    turns: list[tuple[list[dict[str, Any]], str, str]]
    prompt_cache: PromptCache


def model_fingerprint(model: SmolVLM) -> str:
    """Differs between models of other configurations, weights or number types."""
    digest = blake2b(repr(model.config).encode(), digest_size=16)
    parameters: Any = tree_flatten(model.parameters())
    for name, values in sorted(parameters):
        digest.update(f"{name} {values.shape} {values.dtype}".encode())
        digest.update(_to_numpy(values.reshape(-1)[:_PROBE]).tobytes())
    return digest.hexdigest()


def check_session_target(path: Path) -> None:
    """Raise FileExistsError if a session would replace a file that is none."""
    refuse_foreign(path, _is_session, "saved session")


def _is_session(path: Path) -> bool:
    """Whether a file is a session of any version. Its record is looked at, not the rest, which may be large."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            return _RECORD in names and _FORMATS in file.get_tensor(_RECORD).tobytes()[:100]
    except (SafetensorError, OSError, TypeError):
        return False


def write_session(path: Path, model: SmolVLM, session: SavedSession) -> None:
    """Write a session whole or not at all.

    Raises:
        FileExistsError: `path` is a file, and no session.
        OSError: the file cannot be written.
    """
    check_session_target(path)
    cache = session.prompt_cache
    layers = cache.arrays()
    # Quantized and rotating caches are not written: what they hold is read again.
    is_plain = len(layers) == len(cache.layers) and all(len(cache.token_ids) == x.shape[2] for x in layers.values())
    layers = layers if is_plain else {}
    tensors = {f"layers.{name}": _to_numpy(array) for name, array in layers.items()}
    media: list[dict[str, Any]] = []
    turns = []
    for content, answer, finish_reason in session.turns:
        items = []
        for item in content:
            if item["type"] != "text":
                record, pixels = _medium_record(item[item["type"]])
                tensors |= {f"media.{len(media)}.{name}": array for name, array in pixels.items()}
                item = {"type": item["type"], "medium": len(media)}
                media.append(record)
            items.append(item)
        turns.append({"content": items, "answer": answer, "finish_reason": finish_reason})
    record = {
        "format": FORMAT,
        "model": model_fingerprint(model),
        "system": session.system,
        "turns": turns,
        "media": media,
        "token_ids": cache.token_ids if layers else [],
        "dtypes": {name: _name_of(array.dtype) for name, array in layers.items()},
        "read_media": [[medium.start, medium.end, medium.digest.hex()] for medium in cache.media if layers],
    }
    tensors[_RECORD] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    tensors[_CHECKSUM] = np.frombuffer(_checksum(tensors), np.uint8)
    with whole_file(path, check_session_target) as temporary:
        try:
            save_file(tensors, temporary)
        except SafetensorError as error:
            raise OSError(f"{path} could not be written: {error}") from None


def read_session(path: Path, model: SmolVLM, fetch_policy: FetchPolicy | None = None) -> SavedSession:
    """The saved session; downloads of its videos follow `fetch_policy`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a session, damaged, or of another model.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; name one that a session was saved in")
    size, most = path.stat().st_size, most_bytes(model.config)
    if size > most:
        raise ValueError(f"{path} has {size} bytes, more than the {most} of any session with this model")
    try:
        tensors = load(path.read_bytes())
    except (SafetensorError, KeyError, TypeError) as error:  # the latter: types of numbers that NumPy does not know
        raise ValueError(f"{path} is not a session, or cut short: {error}") from None
    if not {_RECORD, _CHECKSUM} <= tensors.keys():
        raise ValueError(f"{path} is a safetensors file, but not a session")
    if tensors.pop(_CHECKSUM).tobytes() != _checksum(tensors):
        raise ValueError(f"{path} is damaged: its content does not match its checksum")
    try:
        return _restored(path, tensors, model, fetch_policy)
    except (KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"{path} is not a session as this version writes them: {quoted(error)}") from None


def _restored(
    path: Path, tensors: dict[str, np.ndarray], model: SmolVLM, fetch_policy: FetchPolicy | None
) -> SavedSession:
    stored = tensors.pop(_RECORD)
    if stored.dtype != np.uint8 or stored.nbytes > MAX_RECORD_BYTES:
        raise ValueError(f"{path} has a record of {stored.nbytes} bytes, {stored.dtype}, which no session has")
    try:
        record = json.loads(stored.tobytes())
    except ValueError as error:
        raise ValueError(f"{path} has a record that is not JSON: {error}") from None
    if record["format"] != FORMAT:
        raise ValueError(f"{path} is {quoted(record['format'])}, this version reads {FORMAT!r}")
    if record["model"] != model_fingerprint(model):
        raise ValueError(
            f"{path} was saved with another model or other types of numbers (dtype); load those that it was saved with"
        )
    try:
        check_session(record, tensors, model.config)
        kept = [
            _medium(entry, _of(tensors, f"media.{number}."), fetch_policy)
            for number, entry in enumerate(record["media"])
        ]
    except ValueError as error:
        raise ValueError(f"{path} is not a session as this version writes them: {error}") from None
    turns = [
        (
            [
                item if item["type"] == "text" else {"type": item["type"], item["type"]: kept[item["medium"]]}
                for item in turn["content"]
            ],
            turn["answer"],
            turn["finish_reason"],
        )
        for turn in record["turns"]
    ]
    media = [ReadMedium(start, end, bytes.fromhex(digest)) for start, end, digest in record["read_media"]]
    cache = PromptCache()
    layers = {name: _to_mlx(array, record["dtypes"][name]) for name, array in _of(tensors, "layers.").items()}
    cache.restore(model, record["token_ids"], media, layers)
    return SavedSession(record["system"], turns, cache)


def _medium_record(medium: KeptMedium) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The record of an image or video, and its pixels if it does not come from a file or address."""
    known, source = medium.known, medium.source
    if known is None:
        raise ValueError(f"a {medium.kind} has not been read")
    record: dict[str, Any] = {
        "kind": medium.kind,
        "name": known.name,
        "digest": known.digest.hex(),
        "options": {name: value for name, value in vars(medium.options).items() if name != "fetch_policy"},
        "source": source if isinstance(source, str) else None,
    }
    if isinstance(known, KeptImage):
        record["layout"] = asdict(known.layout)
    else:
        record |= {"timestamps_s": list(known.timestamps_s), "duration_s": known.duration_s}
    if isinstance(source, Image.Image):
        return record, {"pixels": np.asarray(source)}
    if isinstance(source, SampledVideo):
        facts = {"timestamps_s": list(source.timestamps_s), "duration_s": source.duration_s}
        record["sampled"] = facts | {"are_tiles": source.are_tiles, "name": source.name}
        return record, {f"frames.{number}": np.asarray(frame) for number, frame in enumerate(source.frames)}
    return record, {}


def _medium(record: dict[str, Any], arrays: dict[str, np.ndarray], fetch_policy: FetchPolicy | None) -> KeptMedium:
    """The inverse of `_medium_record`."""
    source, digest = record["source"], bytes.fromhex(record["digest"])
    known: KeptImage | KeptVideo
    if record["kind"] == "image":
        cut = record["layout"]
        layout = Layout(cut["rows"], cut["columns"], tuple(cut["fitted"]), tuple(cut["grid"]))
        known = KeptImage(record["name"], layout, digest)
        if "pixels" in arrays:
            source = Image.fromarray(arrays["pixels"])
    else:
        known = KeptVideo(record["name"], record["timestamps_s"], record["duration_s"], digest)
        if "sampled" in record:
            frames = [arrays[f"frames.{number}"] for number in range(len(arrays))]
            source = SampledVideo(frames, **record["sampled"])
    return KeptMedium(record["kind"], source, MediaOptions(**record["options"], fetch_policy=fetch_policy), known)


def _of(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _name_of(dtype: mx.Dtype) -> str:
    return str(dtype).removeprefix("mlx.core.")


def _to_numpy(array: mx.array) -> np.ndarray:
    """The values, or for bfloat16, which NumPy does not know, their bits."""
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)


def _to_mlx(array: np.ndarray, dtype: str) -> mx.array:
    """The inverse of `_to_numpy`, evaluated."""
    values = mx.array(array).view(getattr(mx, dtype))
    mx.eval(values)
    return values


def _checksum(tensors: dict[str, np.ndarray]) -> bytes:
    digest = blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape} {tensors[name].dtype}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.digest()
