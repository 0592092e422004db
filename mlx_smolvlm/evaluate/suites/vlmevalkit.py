"""VLMEvalKit's model class: its data sets and scores, this package's answers, in one process.

Prompts, frames and answers are those of the suite's own wrappers `SmolVLM` and `SmolVLM2` (ms-vlmeval 0.0.20,
`vlmeval/vlm/smolvlm.py`): raw prompts, float32, greedy, 2048 tokens, the answer stripped. One thing differs: there, a
video leaves the processor unsplit for all stills that follow in the process; here, it does not.
"""

from functools import partial
from typing import Any

from vlmeval.vlm.base import BaseModel

from ...api.finding import find_checkpoint
from ...api.generation import generate_text
from ...api.loading import load
from ...options import quoted
from ..data.sets import rule_of
from ..prompts.row_prompts import wrapper_of_checkpoint
from ..prompts.set_messages import MessagePart
from ..prompts.wrapper_prompts import build_prompt

MODELS = {
    "SmolVLM-256M": "HuggingFaceTB/SmolVLM-256M-Instruct",
    "SmolVLM-500M": "HuggingFaceTB/SmolVLM-500M-Instruct",
    "SmolVLM": "HuggingFaceTB/SmolVLM-Instruct",
    "SmolVLM2-256M": "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
    "SmolVLM2-500M": "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
    "SmolVLM2": "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
}


def register(**models: str) -> list[str]:
    """Add models to the suite's `supported_VLM`: the family's as "SmolVLM2-500M-MLX" and so on, and `models` as named.

    Args:
        models: name in the suite -> folder or Hub id.

    Returns:
        The names.
    """
    from vlmeval.config import supported_VLM

    named = {f"{name}-MLX": path for name, path in MODELS.items()} | models
    supported_VLM.update({name: partial(VLMEvalKitModel, model_path=path) for name, path in named.items()})
    return list(named)


class VLMEvalKitModel(BaseModel):  # type: ignore[misc]  # the suite has no types
    """A checkpoint for VLMEvalKit.

    Args:
        model_path: folder or Hub id.
        wrapper: "smolvlm" or "smolvlm2", whose prompts to use; None tells it by the checkpoint.
        adapter_path: an adapter, as in `load`.
        dtype: of what is not quantized.
        max_new_tokens: most tokens of an answer.
    """

    INSTALL_REQ = False
    INTERLEAVE = True
    is_api = False

    def __init__(
        self,
        model_path: str = MODELS["SmolVLM2"],
        wrapper: str | None = None,
        adapter_path: str | None = None,
        dtype: str = "float32",
        max_new_tokens: int = 2048,
    ):
        super().__init__()
        self.model, self.processor = load(model_path, adapters=adapter_path or (), dtype=dtype)
        self.choice = wrapper_of_checkpoint(str(model_path), find_checkpoint(model_path), wrapper)
        self.max_new_tokens = max_new_tokens

    def generate_inner(self, message: list[dict[str, Any]], dataset: str | None = None) -> str:
        """The answer to a message of the suite: items of `type` "text" or "image", with their `value`.

        Raises:
            ValueError: an item of another type, or what `stream_generate` raises.
        """
        parts: list[MessagePart] = []
        images: list[Any] = []
        for item in message:
            if item["type"] == "text":
                parts.append(MessagePart(text=item["value"], role=item.get("role")))
            elif item["type"] == "image":
                parts.append(MessagePart(image=len(images)))
                images.append(item["value"])
            else:
                raise ValueError(f"the message has an item of type {quoted(item['type'])}, expected text or image")
        name = dataset or ""
        prompt = build_prompt(
            self.choice.wrapper, rule_of(name, has_options=False).builder, name, parts, self.choice.frame_edge
        )
        answer = generate_text(
            self.model,
            self.processor,
            prompt.text,
            images=[images[number] for number in prompt.images],
            media_options=prompt.media_options,
            apply_chat_template=False,
            max_tokens=self.max_new_tokens,
            temperature=0.0,
        )
        return answer.strip()
