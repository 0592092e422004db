"""A checked request -> a prompt whose tokens are known and whose media are open, or the reason why there is none."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...options import MediaOptions
from ..errors import refusal
from .chat_request import AnswerRequest
from .message_parts import ChatMessage, MediaPart
from .scratch import ScratchFiles

if TYPE_CHECKING:
    from ...engine.row import BatchRequest
    from ...model.smolvlm import SmolVLM
    from ...processor.processor import Processor
    from .media_intake import Intake

    Pair = tuple[SmolVLM, Processor]


@dataclass(frozen=True)
class Plan:
    """A prompt that can be answered.

    Attributes:
        request: what `Rows` takes.
        answer: how it is answered.
        prompt_ids: tokens of the prompt.
        image_tokens: how many of them stand for images and frames.
    """

    request: "BatchRequest"
    answer: AnswerRequest
    prompt_ids: list[int]
    image_tokens: int

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the prompt has."""
        return len(self.prompt_ids)

    @property
    def processor(self) -> "Processor":
        """Of the model that answers."""
        assert self.request.pair is not None
        return self.request.pair[1]


@asynccontextmanager
async def planned_chat(
    messages: Sequence[ChatMessage], answer: AnswerRequest, pair: "Pair", intake: "Intake"
) -> AsyncIterator[Plan]:
    """Open the media of a conversation and plan its prompt, for a model and its processor. Within, its files are there.

    Raises:
        ApiError: media that cannot be read, a prompt that does not fit, or a schema that cannot be enforced.
    """
    from ...processor.messages import check_chars

    _, processor = pair
    parts = [part for message in messages for part in message.content if isinstance(part, MediaPart)]
    async with _files() as files:
        media = await intake.open_all(parts, _media_options(answer), processor, files)

        def content() -> list[dict[str, Any]]:
            left = iter(media)
            check_chars(sum(len(part) for message in messages for part in message.content if isinstance(part, str)))
            return [
                {
                    "role": message.role,
                    "content": [
                        {"type": "text", "text": processor.literal(part)}
                        if isinstance(part, str)
                        else {"type": part.kind, part.kind: next(left)}
                        for part in message.content
                    ],
                }
                for message in messages
            ]

        yield await _planned(content, "messages", (), (), answer, pair, intake)


@asynccontextmanager
async def planned_prompt(
    prompt: str, parts: Sequence[MediaPart], answer: AnswerRequest, pair: "Pair", intake: "Intake"
) -> AsyncIterator[Plan]:
    """The same for a prompt that is taken as it is, with a medium for each marker in it."""
    async with _files() as files:
        media = await intake.open_all(parts, _media_options(answer), pair[1], files)
        images = [medium for part, medium in zip(parts, media, strict=True) if part.kind == "image"]
        videos = [medium for part, medium in zip(parts, media, strict=True) if part.kind == "video"]
        yield await _planned(lambda: prompt, "prompt", images, videos, answer, pair, intake)


@asynccontextmanager
async def _files() -> AsyncIterator[ScratchFiles]:
    """Files that are removed at the end, by a thread: large ones take their time."""
    files = ScratchFiles()
    try:
        yield files
    finally:
        if files.folder is not None:
            await asyncio.shield(asyncio.to_thread(files.close))


def _media_options(answer: AnswerRequest) -> MediaOptions:
    return MediaOptions(fps=answer.fps, max_frames=answer.num_frames)


async def _planned(
    asked: Callable[[], Any],
    field: str,
    images: Sequence[Any],
    videos: Sequence[Any],
    answer: AnswerRequest,
    pair: "Pair",
    intake: "Intake",
) -> Plan:
    """Plan what `asked` returns, messages or a prompt; it is called in a thread, as texts may be long."""
    from ...engine.answer import Answer
    from ...engine.row import BatchRequest, check_row_options

    options = answer.options
    model, processor = pair

    def plan(check: Callable[[], None]) -> Plan:
        check_row_options(model, options)
        messages_or_prompt = asked()
        with processor.prepare(
            messages_or_prompt,
            list(images),
            list(videos),
            apply_chat_template=options.apply_chat_template,
            continue_final_message=options.continue_final_message,
            check_cancelled=check,
        ) as prompt:
            prompt_ids = list(prompt.input_ids)
            image_tokens = sum(medium.image_tokens for medium in prompt.costs)
        if options.is_structured:
            Answer(model, processor, options, len(prompt_ids))  # raises if its tokens do not suffice
        request = BatchRequest(messages_or_prompt, list(images), list(videos), pair=pair)
        return Plan(request, answer, prompt_ids, image_tokens)

    try:
        return await intake.plan(plan)
    except Exception as error:
        is_structure = options.is_structured and ("schema" in str(error) or "regex" in str(error))
        if is_structure:
            field = "structured_outputs" if options.regex is not None else "response_format"
            field = "max_tokens" if "raise max_tokens" in str(error) else field
        raise refusal(error, field) from None
