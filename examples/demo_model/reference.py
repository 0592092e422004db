"""The demo model's answers by the reference implementation (transformers on torch), for comparison."""

from collections.abc import Callable

import torch
import torchvision_stub  # noqa: F401 - before transformers
from transformers import AutoImageProcessor, AutoProcessor, SmolVLMForConditionalGeneration
from transformers.video_utils import load_video

torch.set_num_threads(1)


def answerer(folder: str) -> Callable[[list[dict]], str]:
    """A function from messages with media to the greedy answer, float32."""
    processor = AutoProcessor.from_pretrained(folder)
    processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = SmolVLMForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    sampler = processor.video_processor

    def answer(messages: list[dict]) -> str:
        items = [item for message in messages for item in message["content"]]
        images = [item["image"] for item in items if item["type"] == "image"]
        videos = [item["video"] for item in items if item["type"] == "video"]
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        media = {"images": [images]} if images else {}
        if videos:
            loaded = [load_video(path, backend="pyav", sample_indices_fn=sampler.sample_frames) for path in videos]
            media = {
                "videos": [[frames for frames, _ in loaded]],
                "video_metadata": [[metadata for _, metadata in loaded]],
                "do_sample_frames": False,
            }
        inputs = processor(text=[text], return_tensors="pt", **media)
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=48, do_sample=False)
        return processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return answer
