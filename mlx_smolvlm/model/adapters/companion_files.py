"""Tokenizer, chat template and processor files that stand beside an adapter: they win over the base's."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..json_fields import read_json

COMPANIONS = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "chat_template.jinja", "chat_template.json"),
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
)

Find = Callable[[str], Path]
"""A file's name -> where to read it; it need not be there."""


def companion_finder(base: Path, adapters: Sequence[Path]) -> Find:
    """Where the files of a base with adapters are.

    A base's files are passed over where they would say otherwise under another name: a chat template, settings of
    images and videos, tables of a tokenizer. What an adapter has only in part is completed by the base's.

    Raises:
        ValueError: two adapters bring different files of one name.
    """
    own = [folder for folder in adapters if any((folder / name).is_file() for name in COMPANIONS)]
    for name in COMPANIONS if len(own) > 1 else ():
        contents = {(folder / name).read_bytes(): folder for folder in own if (folder / name).is_file()}
        if len(contents) > 1:
            first, second = list(contents.values())[:2]
            raise ValueError(
                f"{first} and {second} bring different {name}, of which one prompt can have only one; "
                "leave one of the two adapters out, or remove the file that is not to be used"
            )
    hidden: set[str] = set()  # files of the base that one of an adapter stands for
    for folder in own:
        if (folder / "tokenizer.json").is_file():
            hidden |= {"special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"}
        if _has_template(folder):
            hidden |= {"chat_template.jinja", "chat_template.json"}
        images = _fields(folder / "preprocessor_config.json")
        if images and "image_processor" in _fields(base / "processor_config.json"):
            hidden.add("processor_config.json")
        if "video_sampling" in images or "video_processor" in _fields(folder / "processor_config.json"):
            hidden.add("video_preprocessor_config.json")

    def find(name: str) -> Path:
        place = next((folder / name for folder in own if (folder / name).is_file()), None)
        if place is not None:
            return place
        return own[0] / name if name in hidden else base / name

    return find


def _has_template(folder: Path) -> bool:
    """Whether there is a chat template in any of the places where transformers has written them."""
    named = any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json"))
    return named or any(
        "chat_template" in _fields(folder / f"{name}_config.json") for name in ("tokenizer", "processor")
    )


def _fields(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
