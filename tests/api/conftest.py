"""Sessions on a tiny checkpoint, and counts of the work that they do."""

import pytest
from support.sessions import OPTIONS

import mlx_smolvlm.media.video.frames
import mlx_smolvlm.processor.processor
import mlx_smolvlm.processor.prompt_media
from mlx_smolvlm import Session


@pytest.fixture
def work(pair, monkeypatch):
    """Counts of pictures and videos opened, cut and decoded, of tiles encoded and prompt tokens read."""
    counts = {}

    def counting(module, name, key, amount=lambda *_: 1):
        original = getattr(module, name)

        def wrapper(*args, **options):
            counts[key] = counts.get(key, 0) + amount(*args)
            return original(*args, **options)

        monkeypatch.setattr(module, name, wrapper)

    counting(mlx_smolvlm.processor.processor, "open_image", "opened")
    counting(mlx_smolvlm.processor.processor, "open_clip", "opened")
    counting(mlx_smolvlm.media.video.frames, "read_frames", "decoded")
    counting(mlx_smolvlm.processor.prompt_media, "cut_grid", "cut")
    counting(mlx_smolvlm.processor.prompt_media, "_digest", "digested")
    counting(type(pair[0]), "image_features", "encoded", lambda _, pixels: len(pixels))
    counting(type(pair[0]), "input_embeddings", "tokens", lambda _, ids, features: len(ids))
    return counts


@pytest.fixture
def session(pair):
    return Session(*pair, options=OPTIONS)
