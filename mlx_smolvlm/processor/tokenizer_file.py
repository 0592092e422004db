"""`tokenizer.json` of a checkpoint -> a tokenizer that can be used, and its errors as ValueErrors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Tokenizer

from ..media.urls import printable
from ..model.json_fields import check_file_size
from .messages import IMAGE_MARKER

MAX_TOKENIZER_BYTES = 64 * 1024**2


@contextmanager
def tokenizer_errors(what: str) -> Iterator[None]:
    """Turn whatever `tokenizers` raises into a ValueError: bare exceptions, and panics, which are no `Exception`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, TypeError):
        raise
    except BaseException as error:
        raise ValueError(f"{what}: {printable(str(error), 200)}") from None


def read_tokenizer(path: Path, image_token_id: int) -> Tokenizer:
    """The tokenizer of a checkpoint, from its `tokenizer.json`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or a tokenizer that does not know the model's image token.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no tokenizer.json in {path.parent}: not a model folder, or an incomplete one")
    check_file_size(path, MAX_TOKENIZER_BYTES)
    with tokenizer_errors(f"{path} is not a tokenizer"):
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None):
        raise ValueError(f"{path}: dropout is {tokenizer.model.dropout}, which makes tokens random; set it to null")
    if tokenizer.token_to_id(IMAGE_MARKER) != image_token_id:
        raise ValueError(
            f"{path}: {IMAGE_MARKER} is token {tokenizer.token_to_id(IMAGE_MARKER)}, "
            f"but config.json says image_token_id {image_token_id}"
        )
    return tokenizer
