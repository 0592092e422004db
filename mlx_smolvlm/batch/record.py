"""What came of one image, and how it is recognised."""

import json
from dataclasses import asdict, dataclass
from hashlib import blake2b


@dataclass(frozen=True)
class Result:
    """One line.

    Attributes:
        path: of the image or video, as the input names it.
        source: the same in full, where `path` counts from the folder of a list; else None.
        prompt: what was asked.
        text: the answer; None if there is an error.
        error: why there is no answer; None if there is one.
        finish_reason: "stop" or "length"; None if there is an error.
        prompt_tokens, image_tokens, completion_tokens: as `generate --json` counts them.
        seconds: from the model's first work on the image to the last token; images of one batch share them.
        model: what the model was called.
        run: tells models as they are in memory, options and prompts from others: MODEL-OPTIONS-PROMPT.
    """

    path: str
    source: str | None
    prompt: str
    text: str | None
    error: str | None
    finish_reason: str | None
    prompt_tokens: int
    image_tokens: int
    completion_tokens: int
    seconds: float
    model: str
    run: str

    @property
    def key(self) -> bytes:
        """What is not done twice: an image with a question."""
        return key_of(self.source or self.path, self.prompt)

    def line(self) -> bytes:
        """As it stands in the file."""
        record = asdict(self)
        try:
            return (json.dumps(record, ensure_ascii=False) + "\n").encode()
        except UnicodeEncodeError:  # a file name that is not UTF-8
            return (json.dumps(record) + "\n").encode()


def key_of(source: str, prompt: str) -> bytes:
    """Stands for an image with a question; results are remembered by it, since texts would fill the memory."""
    return blake2b(f"{source}\0{prompt}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def parse_line(line: bytes) -> Result:
    """The inverse of `Result.line`. Raises ValueError if it is not a result."""
    try:
        result = Result(**json.loads(line))
        if not (isinstance(result.path, str) and isinstance(result.prompt, str) and result.run.count("-") == 2):
            raise ValueError
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ValueError("not a result of this command") from None
    return result
