"""Prompts of the model's own chat template, listed without its weights."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...api.finding import find_checkpoint, open_adapters
from ...api.loading import DEMO_MODEL
from ...model.config import read_model_config
from ...processor.processor import load_processor
from ..data.eval_rows import EvalRow
from ..prompts.frame_choice import names_of
from ..prompts.row_prompts import chat_message
from .eval_run import rendered_chat


def listed_chats(rows: Sequence[EvalRow], model: str | None, loading: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each row's chat as JSON: index, dataset, `prompt` as the template renders it, `images`, `video`; or an `error`.

    Args:
        rows: the rows.
        model: folder or Hub id; None for the demo model.
        loading: keywords of `load`, of which adapters bring processor files.
    """
    folder = find_checkpoint(model or DEMO_MODEL, revision=loading.get("revision"))
    adapters = [adapter.folder for adapter, _ in open_adapters(loading.get("adapters", ()))]
    processor = load_processor(folder, read_model_config(folder), adapters)
    for row in rows:
        listed: dict[str, Any] = {"index": row.index, "dataset": row.dataset, "wrapper": None}
        try:
            messages, _ = chat_message(row)
            listed |= {"builder": "chat", "messages": messages, "prompt": rendered_chat(processor, messages)}
        except ValueError as error:
            yield listed | {"error": str(error)}
            continue
        if row.video is not None:
            listed["video"] = str(row.video)
        else:
            listed["images"] = names_of(row) or []
        yield listed
