"""lmms-eval's model class (0.7.3): its tasks and scores, this package's answers, in one process.

Messages go through the checkpoint's chat template. lmms-eval's prompts are its own, so its figures are not comparable
with those that the family's authors publish, which are VLMEvalKit's.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmms_eval.api.model import lmms

from ...api.batching import generate_batch
from ...api.loading import load
from ...engine.row import BatchRequest
from ...options import GenerationOptions, MediaOptions, quoted

_OF_OTHERS = {"image_aspect_ratio"}  # how LLaVA tiles images; this model has its own way
_DEFAULT_TOKENS = 1024


class LmmsEvalModel(lmms):  # type: ignore[misc]  # the suite has no types
    """A checkpoint for lmms-eval, as `--model mlx_smolvlm --model_args pretrained=FOLDER_OR_ID`.

    Args:
        pretrained: folder or Hub id.
        adapter_path: an adapter, as in `load`.
        dtype: of what is not quantized; None as in `load`.
        batch_size: most answers to make at a time.
        max_batch_size: accepted for the suite, which passes it where `batch_size` is "auto"; that is refused.
        device: None alone: MLX computes on its own default device.
        system_prompt: put before each task's messages; or the path of a file that has it.
        max_frames: most frames of a video; None for the checkpoint's own.

    Raises:
        ValueError: a batch size or device that cannot be had.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str = "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        adapter_path: str | None = None,
        dtype: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        system_prompt: str | None = None,
        max_frames: int | None = None,
    ):
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ValueError(f"batch_size is {quoted(batch_size)}, expected a whole number of at least 1")
        if device not in (None, "mps", "gpu"):
            raise ValueError(f"device is {quoted(device)}: MLX computes on its default device; leave --device out")
        self.model, self.processor = load(pretrained, adapters=adapter_path or (), dtype=dtype)
        self.batch_size = int(batch_size)
        self.system_prompt = self._resolve_system_prompt(system_prompt) if system_prompt else None
        self.media_options = MediaOptions(max_frames=max_frames)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answers to requests, in their order.

        Raises:
            ValueError: settings or media that cannot be used, with the task and the number of the document.
        """
        answers = [""] * len(requests)
        for answer in generate_batch(
            self.model,
            self.processor,
            self._asked(requests),
            media_options=self.media_options,
            batch_size=self.batch_size,
        ):
            context, _, settings, doc_id, task, _ = requests[answer.index].args
            if answer.error is not None:
                raise ValueError(f"task {task}, document {doc_id}: {answer.error}") from answer.error
            answers[answer.index] = answer.text.strip()
            self.cache_hook.add_partial("generate_until", (context, settings), answers[answer.index])
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refused: tasks that choose among given answers by their probability."""
        raise NotImplementedError(
            "mlx_smolvlm answers generate_until tasks alone; choose a task whose output_type is generate_until, "
            "not loglikelihood or multiple_choice"
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refused: tasks of several rounds."""
        raise NotImplementedError("mlx_smolvlm answers single rounds alone, not generate_until_multi_round")

    def _asked(self, requests: Sequence[Any]) -> Iterator[BatchRequest]:
        for request in requests:
            _, doc_to_messages, settings, doc_id, task, split = request.args
            try:
                messages = [_message(message) for message in doc_to_messages(self.task_dict[task][split][doc_id])]
                if self.system_prompt:
                    messages = self._apply_system_prompt(messages, self.system_prompt)
                yield BatchRequest(messages, options=generation_options(settings))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"task {task}, document {doc_id}: {error}") from error


def generation_options(settings: Mapping[str, Any]) -> GenerationOptions:
    """A task's `generation_kwargs` as options.

    Raises:
        ValueError: a setting that cannot be used.
    """
    given = {name: value for name, value in settings.items() if value is not None and name not in _OF_OTHERS}
    values: dict[str, Any] = {"max_tokens": given.pop("max_new_tokens", _DEFAULT_TOKENS)}
    until = given.pop("until", [])
    values["stop"] = [text for text in ([until] if isinstance(until, str) else until) if text]
    temperature, top_p = given.pop("temperature", None), given.pop("top_p", 1.0)
    if given.pop("do_sample", bool(temperature)):
        values |= {"temperature": 1.0 if temperature is None else temperature, "top_p": top_p}
    for name in ("top_k", "min_p", "repetition_penalty", "seed"):
        if name in given:
            values[name] = given.pop(name)
    if given.pop("num_beams", 1) != 1:
        raise ValueError(f"num_beams is {settings['num_beams']}, and beam search is not supported; set it to 1")
    if given:
        unknown = quoted(json.dumps(given, default=str))
        raise ValueError(f"the task's generation_kwargs have {unknown}, which is not supported; take it out")
    return GenerationOptions(**values)


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of lmms-eval, whose media have a `url` that may be a PIL image or a path, as one of this package."""
    content = []
    for item in message["content"]:
        kind = item["type"]
        if kind == "text":
            content.append({"type": "text", "text": item["text"]})
        elif kind == "image":
            content.append({"type": "image", "image": item["url"]})
        elif kind == "video":
            part = {"start_s": item.get("start_time"), "end_s": item.get("end_time")}
            content.append({"type": "video", "video": item["url"], **part})
        else:
            raise ValueError(f"a message has an item of type {quoted(kind)}, expected text, image or video")
    return {"role": message["role"], "content": content}
