"""A message -> the prompt that VLMEvalKit's wrappers `SmolVLM` and `SmolVLM2` hand to the processor.

Source: ms-vlmeval 0.0.20, `vlmeval/vlm/smolvlm.py`. No chat template is used there: prompts are raw strings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...options import MediaOptions
from ..data.sets import VIDEO
from .set_messages import Message, MessagePart

WRAPPERS = {"smolvlm": "SmolVLM", "smolvlm2": "SmolVLM2"}
MARK = "<image>"
MAX_FRAMES = 64  # of a run of frames
_OPENING, _END, _TURN = "<|im_start|>", "<end_of_utterance>", "\nAssistant:"
_PREFILL = " Answer:"
_SELECT = "Please select the correct answer from the options above."
_CHOICES = ("\nOptions:", "\nChoices:")
_LETTER_ONLY = "respond ONLY with one of the multiple choice letter options (A/B/C/D):"

_CHARTQA = """For the question below, follow the following instructions:
-The answer should contain as few words as possible.
-Don't paraphrase or reformat the text you see in the image.
-Answer a binary question with Yes or No.
-When asked to give a numerical value, provide a number like 2 instead of Two.
-If the final answer has two or more items, provide it in the list format like [1, 2].
-When asked to give a ratio, give out the decimal value like 0.25 instead of 1:4.
-When asked to give a percentage, give out the whole value like 17 instead of decimal like 0.17%.
-Don't include any units in the answer.
-Do not include any full stops at the end of the answer.
-Try to include the full label from the graph when asked about an entity.
Question: """
_DOCVQA = (
    "Give a short and terse answer to the following question. Do not paraphrase or reformat the text you see in the "
    "image. Do not include any full stops. Just give the answer without additional explanation. Question: "
)
_TEXTVQA = """Answer the following question about the image using as few words as possible. \
Follow these additional instructions:
-Always answer a binary question with Yes or No.
-When asked what time it is, reply with the time seen in the image.
-Do not put any full stops at the end of the answer.
-Do not put quotation marks around the answer.
-An answer with one or two words is favorable.
-Do not apply common sense knowledge. The answer can be found in the image.
Question: """


@dataclass(frozen=True)
class Builder:
    """How a message of stills becomes a prompt.

    Attributes:
        opening: what stands behind `User:`, and behind the one mark of `one_mark`.
        one_mark: a single mark stands first, however many images there are; otherwise each image has its mark in its
            place.
        swaps: what is replaced in each text, in order.
        strips_again: whether a text is stripped once more after that.
        hint_last: a hint that leads moves behind the question.
        closing: what is added to the text.
        prefill: whether the answer is begun with ` Answer:`: True, False, or None where the prompt decides, by "A."
            and "B." anywhere in it.
    """

    opening: str = ""
    one_mark: bool = False
    swaps: tuple[tuple[str, str], ...] = ()
    strips_again: bool = False
    hint_last: bool = False
    closing: str = ""
    prefill: bool | None = False


_BRACKETS = tuple((f"({letter}) ", f"{letter}. ") for letter in "ABCDEFGH")
BUILDERS = {
    "default": Builder(),
    "brief": Builder(closing="\nGive a very brief answer."),
    "yes_or_no": Builder(closing="\nAnswer yes or no."),
    "puremcq": Builder(swaps=(_CHOICES, (_SELECT, "Answer with the letter.")), prefill=True),
    "mmbench": Builder(
        one_mark=True, swaps=(_CHOICES, (_SELECT, "Answer with a letter.")), hint_last=True, prefill=True
    ),
    "mmmu": Builder(
        swaps=(("Question:", ""), (_SELECT, "Answer with the letter."), _CHOICES), strips_again=True, prefill=None
    ),
    "mathvista": Builder(one_mark=True, swaps=(*_BRACKETS, _CHOICES, ("Hint: ", "")), strips_again=True, prefill=None),
    "chartqa": Builder(opening=_CHARTQA, one_mark=True),
    "docvqa": Builder(opening=_DOCVQA, one_mark=True),
    "textvqa": Builder(opening=_TEXTVQA, one_mark=True),
}


@dataclass(frozen=True)
class VideoSwaps:
    """What is replaced in the whole prompt of a video set; `needs_options`: only where "Options:" stands in it."""

    swaps: tuple[tuple[str, str], ...] = ()
    needs_options: bool = False


_TO_CHOICES = (("Options:", "Choices:"), (_SELECT, "Answer with the letter."))
VIDEO_SETS = {
    **{name: VideoSwaps((("Options:", _LETTER_ONLY),)) for name in ("MLVU_MCQ", "MLVU_OpenEnded", "LongVideoBench")},
    **{
        name: VideoSwaps((("Options:", _LETTER_ONLY), ("Best option:(", "Answer:")), needs_options=True)
        for name in ("MVBench", "MVBench_MP4")
    },
    "TempCompass_MCQ": VideoSwaps(_TO_CHOICES),
    "Video-MME": VideoSwaps(_TO_CHOICES, needs_options=True),
}


@dataclass(frozen=True)
class WrappedPrompt:
    """A prompt, and what is handed over with it.

    Attributes:
        text: the prompt, marks included.
        images: which of the row's images or frames, in order; one may come twice.
        media_options: how they are read.
        builder: the builder's name.
    """

    text: str
    images: list[int]
    media_options: MediaOptions
    builder: str

    @property
    def marks(self) -> int:
        """Marks in the prompt, those of the question included; the processor wants one per image."""
        return self.text.count(MARK)


def build_prompt(wrapper: str, builder: str, dataset: str, message: Message, frame_edge: int) -> WrappedPrompt:
    """The prompt of a row.

    Args:
        wrapper: "smolvlm" or "smolvlm2".
        builder: the set's builder; the one of videos is SmolVLM2's alone, and SmolVLM has the default in its place.
        dataset: the set's name, for what is particular to it.
        message: from `set_message`.
        frame_edge: pixels of a frame's longest side, in the builder of videos.

    Raises:
        ValueError: a row for which the suite's own code raises an error.
    """
    if builder == VIDEO and wrapper == "smolvlm2":
        text, images = _video_prompt(dataset, message)
        return WrappedPrompt(text, images, MediaOptions(do_image_splitting=False, longest_edge=frame_edge), VIDEO)
    if builder == VIDEO:
        builder = "default"
    text, images = _still_prompt(builder, message)
    if builder == "chartqa" and wrapper == "smolvlm":  # its rules have another apostrophe, the question has not
        text = text.replace(_CHARTQA, _CHARTQA.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}"), 1)
    return WrappedPrompt(text, images, MediaOptions(), builder)


def frame_edge(model: str) -> int:
    """The longest side to which the wrapper resizes frames, by the model's name."""
    return 384 if "SmolVLM2-2.2B" in model else 512


def _still_prompt(builder: str, message: Message) -> tuple[str, list[int]]:
    rules = BUILDERS[builder]
    images = [part.image for part in message if part.image is not None]
    prompt = f"{_OPENING}User:{MARK if rules.one_mark else ''}{rules.opening}"
    if builder == "mmmu":
        prompt += " Question: " + "".join(f"<image {number}>:{MARK}\n" for number in range(1, len(images) + 1))
    number = 0
    for part in message:
        if part.text is not None:
            prompt += _swapped(part.text, rules)
            continue
        number += 1
        if builder == "mmmu":
            prompt += f" <image {number}> "
        elif not rules.one_mark:
            prompt += MARK
    prompt += f"{rules.closing}{_END}{_TURN}"
    names_options = "A." in prompt and "B." in prompt
    return prompt + _PREFILL * (names_options if rules.prefill is None else rules.prefill), images


def _swapped(text: str, rules: Builder) -> str:
    text = text.strip()
    for old, new in rules.swaps:
        text = text.replace(old, new)
    if rules.hint_last and text.startswith("Hint:"):
        text = _with_hint_last(text)
    return text.strip() if rules.strips_again else text


def _with_hint_last(text: str) -> str:
    hint, *rest = text.split("\nQuestion:")
    question, *choices = rest[0].split("\nChoices:") if len(rest) == 1 else ("",)
    if len(rest) != 1 or len(choices) != 1:
        raise ValueError(
            "the suite's code for this set fails on a hint with no options, or with a line that begins as one of its "
            f"own ({len(rest)} times Question:, {len(choices)} times Choices:; expected one of each)"
        )
    return f"Question:{question}\n{hint}\nChoices:{choices[0]}"


def _video_prompt(dataset: str, message: Message) -> tuple[str, list[int]]:
    system = next((part.text for part in message if part.role == "system"), None)
    parts = [f"{_OPENING}System:", system or "pay attention to the video and answer the question", f"{_END}\n"]
    parts += [f"{_OPENING}User:", "Here are some frames sampled from a video:\n"]
    images: list[int] = []
    for run in _runs(message):
        for position in evenly(len(run), MAX_FRAMES):
            parts += [f"Frame from {position // 60:02}:{position % 60:02}:", MARK]
            images.append(run[position])
        parts.append("\n")
    parts += [part.text.strip() for part in message if part.text is not None and part.role != "system"]
    prompt = " ".join([*parts, _END, _TURN])
    rules = VIDEO_SETS.get(dataset, VideoSwaps())
    if not rules.needs_options or "Options:" in prompt:
        for old, new in rules.swaps:
            prompt = prompt.replace(old, new)
    return prompt, images


def _runs(message: Sequence[MessagePart]) -> list[list[int]]:
    """Frames with no text between them, each run in its order."""
    runs: list[list[int]] = []
    follows = False
    for part in message:
        if part.image is None:
            follows = False
            continue
        if not follows:
            runs.append([])
        runs[-1].append(part.image)
        follows = True
    return runs


def evenly(count: int, most: int) -> list[int]:
    """Positions of at most `most` of `count` frames: an even spacing, ends included, cut down to whole numbers."""
    positions: list[int] = np.linspace(0, count - 1, most, dtype=int).tolist() if count > most else list(range(count))
    return positions
