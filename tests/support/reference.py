"""The reference implementation, transformers in float32 on the CPU; imported only by the scripts that make goldens.

    pip install torch transformers torchvision num2words av pillow tokenizers safetensors

The committed goldens were made with torch 2.13, transformers 5.23, torchvision 0.28, Pillow 13 and PyAV 18.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import library


def allow_torchvision() -> None:
    """Make torchvision importable where its compiled operators are of another build than torch.

    transformers' SmolVLM video processor needs torchvision's transforms, which are pure Python. With a CPU torch beside
    torchvision installed with --no-deps, the import fails on registering shapes for operators that do not exist;
    nothing here calls those, so their registration is skipped. Call it before transformers is imported.
    """
    register_fake = library.register_fake
    if register_fake.__name__ == "register_fake_but_torchvision":
        return

    def register_fake_but_torchvision(op, *args, **kwargs):
        if isinstance(op, str) and op.startswith("torchvision::"):
            return lambda function: function
        return register_fake(op, *args, **kwargs)

    library.register_fake = register_fake_but_torchvision


def load_reference(folder: str | Path):
    """The model in float32 and its processor, whose image processor is the Pillow one.

    Raises:
        ValueError: the checkpoint has missing, unexpected or misshaped weights.
    """
    allow_torchvision()
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

    folder = str(folder)
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if any(info.values()):
        raise ValueError(f"{folder} did not load cleanly: {info}")
    processor = AutoProcessor.from_pretrained(folder)
    # AutoProcessor would hand backend="pil" to the video processor too, which has no such backend
    processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return model.eval(), processor


def load_frames(processor, path: Path):
    """The sampled frames (n, height, width, 3) of a video file, by PyAV, and their metadata."""
    from transformers.video_utils import load_video

    settings = processor.video_processor
    sample = partial(settings.sample_frames, num_frames=settings.num_frames, fps=settings.fps)
    return load_video(str(path), backend="pyav", sample_indices_fn=sample)


def tile_picture(picture, longest_edge: int, tile: int, **options) -> dict:
    """What the Pillow image processor of that geometry gives: `pixel_values`, `rows`, `cols`."""
    allow_torchvision()
    from transformers import SmolVLMImageProcessorPil

    processor = SmolVLMImageProcessorPil(size={"longest_edge": longest_edge}, max_image_size={"longest_edge": tile})
    return processor(picture, return_row_col_info=True, **options)


def sample_frames(
    total_num_frames: int, fps: float, duration_s: float, max_frames: int, sample_fps: float
) -> list[int]:
    """The indices that the video processor samples."""
    allow_torchvision()
    from transformers import SmolVLMVideoProcessor
    from transformers.video_utils import VideoMetadata

    metadata = VideoMetadata(total_num_frames=total_num_frames, fps=fps, duration=duration_s)
    return SmolVLMVideoProcessor().sample_frames(metadata, num_frames=max_frames, fps=sample_fps).tolist()


def eight_bit(pixel_values) -> np.ndarray:
    """The 8-bit pixels (n, H, W, 3) behind normalized ones (1, n, 3, H, W) in -1..1."""
    pixels = torch.as_tensor(pixel_values)[0].double()
    exact = (pixels * 0.5 + 0.5) * 255
    if (exact - exact.round()).abs().max() > 1e-3:
        raise ValueError("the normalized pixels are not x / 127.5 - 1 of 8-bit ones")
    return exact.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
