"""What strangers hand in, by kind: how a hostile example is made from a number, and what reads it.

Every example is bytes, so that one that was found to do harm can stay as a file.
"""

import io
import json
import shutil
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import safetensors.numpy
from PIL import Image
from support.checkpoints import write_checkpoint
from support.golden_cases import GOLDENS

from mlx_smolvlm import DEMO_MODEL, GenerationOptions, Session, load, stream_generate
from mlx_smolvlm.api.session_file import _checksum
from mlx_smolvlm.batch.results import Result, ResultsFile
from mlx_smolvlm.engine.structured import make_constraint
from mlx_smolvlm.media.images import load_image
from mlx_smolvlm.model.adapters.adapter_files import read_adapter
from mlx_smolvlm.processor.chat_template import FAMILY_TEMPLATE, render

from . import given
from .doctags import DocTags
from .entry_points import EntryPoints
from .mutators import json_bytes, mutated_bytes, mutated_json
from .templates import template
from .videos import Videos

REFUSALS = (ValueError, OSError)  # what a command reports in one line and status 2
CALLS = ("messages", "options", "requests")  # what a program passes; another type than expected is a TypeError
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "image", "image": "picture.png"}, {"type": "text", "text": "What is this?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A shape."}]},
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 20, "pattern": "^[a-z]+$"},
        "tags": {"type": "array", "items": {"enum": ["a", "b", 1]}, "minItems": 1, "maxItems": 4},
        "size": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"$ref": "#/$defs/none"}]},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"none": {"type": "null"}},
}


def image_seeds() -> list[bytes]:
    """One small picture in each format."""
    seeds = []
    for mode, kind, options in [
        ("RGB", "PNG", {}), ("RGB", "JPEG", {"progressive": True}), ("RGB", "WEBP", {}), ("P", "GIF", {}),
        ("RGB", "BMP", {}), ("RGB", "TIFF", {"compression": "tiff_lzw"}), ("L", "PPM", {}), ("RGB", "JPEG2000", {}),
        ("RGBA", "PNG", {"optimize": True}), ("I;16", "PNG", {}),
    ]:  # fmt: skip
        file = io.BytesIO()
        pixels = np.arange(40 * 30, dtype=np.uint16 if mode == "I;16" else np.uint8).reshape(30, 40)
        image = Image.fromarray(pixels)
        (image if mode == "I;16" else image.convert(mode)).save(file, kind, **options)
        seeds.append(file.getvalue())
    return seeds


class Workplace(DocTags, EntryPoints, Videos):
    """Seeds of every kind, and a folder in which examples are tried."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.checkpoint = write_checkpoint("smolvlm_256m", folder / "checkpoint")
        self.adapter = Path(shutil.copytree(GOLDENS / "adapters" / "plain", folder / "adapter"))
        self.model, self.processor = load(DEMO_MODEL, dtype="float32")
        self.images = image_seeds()
        session = Session(self.model, self.processor, system="Be brief.")
        for _ in session.ask("What is this?", images=[DEMO_MODEL.parent / "first.png"], max_tokens=2):
            pass
        session.save(folder / "session")
        self.session = (folder / "session").read_bytes()
        result = Result("a.png", None, "What?", "A shape", None, "stop", 9, 4, 2, 0.1, "demo", "a-b-c")
        self.results = result.line() * 3
        side_files = sorted(path.name for path in self.checkpoint.glob("*.json") if path.name != "tokenizer.json")
        self.side_files = [*side_files, "config.json", "config.json"]
        self.originals = {path.name: path.read_bytes() for path in self.checkpoint.iterdir()}
        self.adapter_originals = {path.name: path.read_bytes() for path in self.adapter.iterdir()}

    def example(self, kind: str, number: int) -> bytes:
        """The hostile example of this number."""
        choices = Random(f"{kind} {number}")
        if maker := getattr(self, f"_example_{kind}", None):
            return maker(choices)
        if kind == "weights":
            return mutated_bytes(self.originals["model.safetensors"], choices)
        if kind == "configs":
            name = choices.choice(self.side_files)
            return self._damaged_file(name, self.originals[name], choices)
        if kind == "tokenizers":
            return self._damaged_file("tokenizer.json", self.originals["tokenizer.json"], choices)
        if kind == "adapters":
            name = choices.choice(["adapter_config.json", "adapter_model.safetensors"])
            return self._damaged_file(name, self.adapter_originals[name], choices)
        if kind == "templates":
            if choices.random() < 0.3:
                return mutated_bytes(FAMILY_TEMPLATE.encode(), choices)
            return template(choices).encode()
        if kind == "images":
            return mutated_bytes(choices.choice(self.images), choices)
        if kind == "sessions":
            return mutated_bytes(self.session, choices) if choices.random() < 0.2 else self._resealed(choices)
        if kind == "results":
            return mutated_bytes(self.results, choices)
        if kind in ("options", "requests", "rows"):
            return bytes(getattr(given, f"example_of_{kind}")(choices))
        seed: Any = MESSAGES if kind == "messages" else SCHEMA
        return json_bytes(mutated_json(seed, choices))

    def attempt(self, kind: str, example: bytes) -> None:
        """Have an example read. What is refused as it should be is fine; anything else is raised."""
        refusals = (*REFUSALS, TypeError) if kind in CALLS else REFUSALS
        try:
            getattr(self, f"_read_{kind}")(example)
        except refusals as error:
            text = str(error)
            if len(text) > 1000:
                raise AssertionError(f"a message of {len(text)} characters: {text[:300]}") from error

    def _damaged_file(self, name: str, content: bytes, choices: Random) -> bytes:
        if name.endswith(".json") and choices.random() < 0.8:
            content = json_bytes(mutated_json(json.loads(content), choices))
        else:
            content = mutated_bytes(content, choices)
        return name.encode() + b"\0" + content

    def _resealed(self, choices: Random) -> bytes:
        """A session whose record, and often a tensor, was changed on purpose: its checksum fits."""
        tensors = safetensors.numpy.load(self.session)
        del tensors["checksum"]
        record = json_bytes(mutated_json(json.loads(tensors.pop("record").tobytes()), choices))
        if choices.random() < 0.4:
            name = choices.choice(sorted(tensors))
            array = tensors.pop(name)
            changes = [array[..., :-1], array[None], array.astype(np.int8), array * np.nan, array.reshape(-1)]
            tensors[choices.choice([name, name, "layers.99", "media.0.pixels"])] = choices.choice(changes)
        tensors["record"] = np.frombuffer(record, np.uint8)
        tensors["checksum"] = np.frombuffer(_checksum(tensors), np.uint8)
        return safetensors.numpy.save(tensors)

    def _read_weights(self, example: bytes) -> None:
        self._read_configs(b"model.safetensors\0" + example)

    def _read_configs(self, example: bytes) -> None:
        name, _, content = example.partition(b"\0")
        path = self.checkpoint / name.decode()
        path.write_bytes(content)
        try:
            pair = load(self.checkpoint, dtype="float32")
            pair[1].decode(pair[1]("What is this?", apply_chat_template=False).input_ids)
            for _ in stream_generate(*pair, "What is this?", images=[self.images[0]], max_tokens=2):
                pass
        finally:
            path.write_bytes(self.originals[name.decode()])

    _read_tokenizers = _read_configs

    def _read_adapters(self, example: bytes) -> None:
        name, _, content = example.partition(b"\0")
        path = self.adapter / name.decode()
        path.write_bytes(content)
        try:
            read_adapter(self.adapter)
        finally:
            path.write_bytes(self.adapter_originals[name.decode()])

    def _read_templates(self, example: bytes) -> None:
        content = [{"type": "image"}, {"type": "text", "text": "What is this?"}]
        render(example.decode(errors="replace"), [{"role": "user", "content": content}], {"bos_token": "<s>"})

    def _read_images(self, example: bytes) -> None:
        load_image(example)

    def _read_sessions(self, example: bytes) -> None:
        (self.folder / "session").write_bytes(example)
        Session.load(self.folder / "session", self.model, self.processor)

    def _read_results(self, example: bytes) -> None:
        (self.folder / "results.jsonl").write_bytes(example)
        with ResultsFile(self.folder / "results.jsonl") as results:
            list(results.lines())

    def _read_messages(self, example: bytes) -> None:
        with suppress(TypeError):  # images that are of no kind of source
            self.processor(json.loads(example))

    def _read_schemas(self, example: bytes) -> None:
        options = GenerationOptions(json_schema=json.loads(example), max_tokens=40)
        make_constraint(options, self.processor, self.model.config.text.vocab_size, 40)

    def _read_options(self, example: bytes) -> None:
        given.read_options(example, self.model, self.processor)

    def _read_requests(self, example: bytes) -> None:
        given.read_requests(example, self.model, self.processor)

    def _read_rows(self, example: bytes) -> None:
        given.read_rows(example, self.folder)


KINDS = sorted(name.removeprefix("_read_") for name in dir(Workplace) if name.startswith("_read_"))
