"""Rows -> prompts, by a protocol; and their listing, which needs no model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...model.json_fields import read_json
from ..data.eval_rows import EvalRow
from ..data.sets import SetRule, rule_of
from ..scoring.option_scorers import options_of
from .frame_choice import ChosenFrames, choose, names_of, row_media
from .set_messages import Message, MessageMedia, listed_message, set_message
from .wrapper_prompts import WRAPPERS, WrappedPrompt, build_prompt, frame_edge

VLMEVALKIT, CHAT = PROTOCOLS = ("vlmevalkit", "chat")
MAX_TOKENS = 2048  # of an answer, as in the suite
_WRAPPER_OF_TYPE = {"smolvlm": "smolvlm2", "idefics3": "smolvlm"}  # model_type of config.json
_LARGE_TILE = 384  # pixels; the 2.2B's


@dataclass(frozen=True)
class WrapperChoice:
    """Which of the suite's wrappers asks, and the longest side of its frames in pixels."""

    wrapper: str
    frame_edge: int


def wrapper_for(model: str | None, chosen: str | None) -> WrapperChoice:
    """The wrapper of a model: by its configuration where it is a folder, and otherwise by its name.

    The suite goes by names alone. A folder may be called anything, so its model type tells the wrapper, and tiles of
    384 pixels the 2.2B.
    """
    name = model or ""
    edge = frame_edge(name)
    folder = Path(name).expanduser()
    wrapper = "smolvlm" if "SmolVLM" in name and "SmolVLM2" not in name and "Solari" not in name else "smolvlm2"
    if name and (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        wrapper = _WRAPPER_OF_TYPE.get(str(config.get("model_type")), wrapper)
        vision = config.get("vision_config")
        if isinstance(vision, dict) and vision.get("image_size") == _LARGE_TILE:
            edge = _LARGE_TILE
    return WrapperChoice(chosen or wrapper, edge)


def wrapper_of_checkpoint(model: str | None, folder: Path, chosen: str | None) -> WrapperChoice:
    """The wrapper of a model that is there: by the name that was given, and by the folder that it stands for."""
    by_name, by_folder = wrapper_for(model, chosen), wrapper_for(str(folder), chosen)
    return WrapperChoice(by_folder.wrapper, min(by_name.frame_edge, by_folder.frame_edge))


@dataclass(frozen=True)
class RowPrompt:
    """A row as the suite asks it.

    Attributes:
        row: the row.
        rule: its set's.
        message: what the set makes of it.
        prompt: what the wrapper makes of that.
        frames: the frames of its video; None if it has none.
    """

    row: EvalRow
    rule: SetRule
    message: Message
    prompt: WrappedPrompt
    frames: ChosenFrames | None


def row_rule(row: EvalRow) -> SetRule:
    """The rule of a row's set."""
    return rule_of(row.dataset, has_options={"A", "B"} <= row.options.keys(), is_video=row.is_video)


def left_out(row: EvalRow) -> list[str]:
    """What a row has that its set's message does not show."""
    kind = row_rule(row).message
    shows_options = kind in ("mcq", "mmmu")
    shows_candidates = kind in ("longvideo", "mlvu", "mvbench", "tempcompass", "video_mme", "worldsense")
    given = {
        "hint": row.hint is not None and not shows_options,
        "options": bool(row.options) and not shows_options,
        "candidates": row.candidates is not None and not shows_candidates,
    }
    return [name for name, is_left_out in given.items() if is_left_out]


def row_prompt(row: EvalRow, choice: WrapperChoice, check_cancelled: Callable[[], None] = lambda: None) -> RowPrompt:
    """The prompt of a row.

    Raises:
        ValueError: the row's fault, or one for which the suite's own code raises an error.
        OSError: its video cannot be read.
    """
    if row.fault is not None:
        raise ValueError(row.fault)
    rule = row_rule(row)
    frames = choose(row, check_cancelled) if row.video is not None and row.frames is None else None
    media = row_media(row, frames)
    if row.is_video and not media.count:
        raise ValueError("its video has no frames")
    message = set_message(rule.message, row, media)
    prompt = build_prompt(choice.wrapper, rule.builder, row.dataset, message, choice.frame_edge)
    return RowPrompt(row, rule, message, prompt, frames)


def chat_message(row: EvalRow) -> tuple[list[dict[str, Any]], SetRule]:
    """The row as the product's own chat has it: one user message, a video as a video.

    Raises:
        ValueError: the row's fault, or frames that are only counted.
    """
    if row.fault is not None:
        raise ValueError(row.fault)
    rule = row_rule(row)
    if isinstance(row.frames, int):
        raise ValueError("frames only says how many there are; expected a video or a list of images")
    images = row.frames if row.frames is not None else row.images
    kind = rule.message
    if row.is_video:  # the sets' own texts speak of frames
        row = replace(row, options=options_of(row))
        kind = "mcq" if row.options else "plain"
    content: list[dict[str, Any]] = [{"type": "video"}] if row.video is not None else []
    for part in set_message(kind, row, MessageMedia(0 if row.video is not None else len(images))):
        if part.image is not None:
            content.append({"type": "image"})
        elif part.text and part.text.strip():
            content.append({"type": "text", "text": part.text.strip()})
    return [{"role": "user", "content": content}], rule


def listed_prompts(rows: Sequence[EvalRow], choice: WrapperChoice) -> Iterator[dict[str, Any]]:
    """Each row's prompt as JSON, or the reason why it has none; no image is opened.

    Yields:
        index, dataset, wrapper, builder; `message` of the set; `prompt`; `marks`, how often `<image>` stands in it;
        `images`, by name and in order, or for videos `frames`, positions among the chosen ones, in order; and with the
        builder of videos `image_processor`, the settings of the processor.
    """
    for row in rows:
        listed: dict[str, Any] = {"index": row.index, "dataset": row.dataset, "wrapper": WRAPPERS[choice.wrapper]}
        try:
            found = row_prompt(row, choice)
        except (ValueError, OSError) as error:
            yield listed | {"error": str(error)}
            continue
        prompt, names = found.prompt, names_of(row)
        listed |= {"builder": prompt.builder, "message": listed_message(found.message, names)}
        listed |= {"prompt": prompt.text, "marks": prompt.marks}
        if names is not None:
            listed["images"] = [names[number] for number in prompt.images]
        if row.is_video:
            listed["frames"] = prompt.images
        if found.frames is not None:
            listed["frame_indices"] = [found.frames.indices[number] for number in prompt.images]
        edge = prompt.media_options.longest_edge
        if edge is not None:
            size = {"longest_edge": edge}
            listed["image_processor"] = {"size": size, "do_resize": True, "do_image_splitting": False}
        yield listed
