"""A row's line of results, whoever answered it; nothing here needs MLX."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.eval_rows import EvalRow
from ..prompts.frame_choice import frame_files, names_of
from ..prompts.row_prompts import RowPrompt, row_rule
from ..scoring.scorers import RowScore, score_answer
from .evaluation_folder import Result


@dataclass
class AskedRow:
    """A row while it is asked.

    Attributes:
        row: the row.
        digest: its digest.
        prompt: the prompt, once it is known.
        images: what is shown with it, by name and in order; None if frames are.
        frames: positions of the frames in their video, in order; None if images are.
        error: why it cannot be asked; None if it can.
    """

    row: EvalRow
    digest: str
    prompt: str = ""
    images: list[str] | None = None
    frames: list[int] | None = None
    error: str | None = None

    def show(self, found: RowPrompt, check_cancelled: Callable[[], None] = lambda: None) -> list[Any]:
        """Note its prompt, and return the images to hand over with it.

        Raises:
            ValueError, OSError: images or frames that cannot be read.
        """
        row, wanted, names = self.row, found.prompt.images, names_of(self.row)
        self.prompt = found.prompt.text
        if found.frames is not None:
            self.frames = [found.frames.indices[number] for number in wanted]
            return list(frame_files(found.frames, wanted, check_cancelled))
        if isinstance(row.frames, int) and row.video is not None:
            raise FileNotFoundError(f"{row.video}: no such video")
        if isinstance(row.frames, int):
            raise ValueError("frames only says how many there are; expected a video or a list of images")
        self.images = [] if names is None else [names[number] for number in wanted]
        sources = row.images if row.frames is None else row.frames
        return [sources[number].load() for number in wanted]

    def result(
        self,
        text: str = "",
        token_ids: Sequence[int] = (),
        finish_reason: str | None = None,
        *,
        error: str | None = None,
        scorer: str | None = None,
    ) -> Result:
        """The line of results.

        Args:
            text: the answer, without special tokens.
            token_ids: its tokens, the end token included.
            finish_reason: "stop" or "length".
            error: why there is no answer.
            scorer: the scorer of rows that name none; None for their sets'.
        """
        row, text = self.row, text.strip()
        error = self.error or error
        name = row.scorer or scorer or row_rule(row).scorer
        scored, note = RowScore(0.0, False), None
        if error is None:
            try:
                scored = score_answer(name, row, text)
            except ValueError as problem:
                note = str(problem)
        return {
            "dataset": row.dataset,
            "index": row.index,
            "row": self.digest,
            "category": row.category,
            "prompt": self.prompt,
            **({"images": self.images} if self.images is not None else {}),
            **({"frames": self.frames} if self.frames is not None else {}),
            "token_ids": list(token_ids),
            "answer": text,
            "expected": row.answer,
            "scorer": name,
            "score": None if note or row.fault else scored.score,
            "matched": scored.is_matched,
            "extracted": scored.extracted,
            "finish_reason": "error" if error else finish_reason,
            "error": error or note,
        }
