"""The question about every image, and whether earlier results answer it."""

import json
from dataclasses import dataclass, fields
from hashlib import blake2b

from ..command_line.arguments import with_system_prompt
from ..engine.row import BatchRequest
from ..options import GenerationOptions, MediaOptions
from .items import Item
from .record import Result, key_of

_DIGITS = 12  # of a digest
_LISTED = "listed"  # in place of a digest: the prompt stood in the input


@dataclass(frozen=True)
class Question:
    """The prompts for images and for videos that bring none of their own, and how answers are made."""

    image_prompt: str
    video_prompt: str
    system: str | None
    options: GenerationOptions
    media_options: MediaOptions

    def about(self, item: Item) -> str:
        """The question about one image or video."""
        if item.prompt is not None:
            return item.prompt
        return self.video_prompt if item.is_video else self.image_prompt

    def key(self, item: Item) -> bytes:
        """As `Result.key` of its line."""
        return key_of(item.source, self.about(item))

    def request(self, item: Item) -> BatchRequest:
        """What the model is asked about one image or video."""
        images, videos = ([], [item.source]) if item.is_video else ([item.source], [])
        return BatchRequest(with_system_prompt(self.about(item), self.system, len(images), len(videos)), images, videos)

    def run(self, fingerprint: str, item: Item) -> str:
        """See `Result.run`."""
        prompt = _LISTED if item.prompt is not None else digest(self.about(item))
        return f"{fingerprint[:_DIGITS]}-{self._options_digest}-{prompt}"

    def check(self, name: object, result: Result) -> None:
        """Raise ValueError if a line of the file `name` was made with another prompt or other options."""
        _, options, prompt = result.run.split("-")
        if prompt not in (_LISTED, digest(self.image_prompt), digest(self.video_prompt)):
            raise ValueError(f"{name} answers another prompt, {result.prompt[:200]!r}; {_ADVICE}")
        if options != self._options_digest:
            raise ValueError(
                f"{name} was made with other options (system prompt, sampling, structured output, reading of "
                f"images); {_ADVICE}"
            )

    def check_model(self, name: object, result: Result, model_name: str, fingerprint: str) -> None:
        """Raise ValueError if a line of the file `name` is of another model."""
        if result.run.split("-")[0] != fingerprint[:_DIGITS]:
            raise ValueError(
                f"{name} holds answers of another model ({result.model}) or of other types of numbers (dtype) than "
                f"this one ({model_name}); {_ADVICE}"
            )

    @property
    def _options_digest(self) -> str:
        # Of those that differ from their defaults, so that options that come to be known change no digest.
        given = [
            {field.name: value for field in fields(part) if (value := getattr(part, field.name)) != field.default}
            for part in (self.options, self.media_options)
        ]
        return digest(json.dumps([self.system, *given], sort_keys=True))


_ADVICE = "name another file with --out, or remove this one"


def digest(text: str) -> str:
    """Stands for a text, in hexadecimal."""
    return blake2b(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
