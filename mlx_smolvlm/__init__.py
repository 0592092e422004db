"""SmolVLM vision-language models on Apple's MLX.

The public names are loaded when first used, so importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batching import BatchAnswer, BatchRequest, generate_batch
    from .engine.feature_cache import FeatureCache
    from .engine.generation_options import GenerationOptions
    from .engine.prompt_cache import PromptCache
    from .generation import GenerationResponse, generate_text, stream_generate
    from .live.captions import Caption, stream_captions
    from .loading import DEMO_MODEL, load
    from .media.fetch import FetchPolicy
    from .media.options import MediaOptions
    from .model import SmolVLM
    from .processing import Processor
    from .prompting.prompt import Inputs
    from .prompting.prompt_media import SampledVideo
    from .session import Session

_HOME = {
    "BatchAnswer": "batching",
    "BatchRequest": "batching",
    "Caption": "live.captions",
    "DEMO_MODEL": "loading",
    "FeatureCache": "engine.feature_cache",
    "FetchPolicy": "media.fetch",
    "GenerationOptions": "engine.generation_options",
    "GenerationResponse": "generation",
    "Inputs": "prompting.prompt",
    "MediaOptions": "media.options",
    "Processor": "processing",
    "PromptCache": "engine.prompt_cache",
    "SampledVideo": "prompting.prompt_media",
    "Session": "session",
    "SmolVLM": "model",
    "generate_batch": "batching",
    "generate_text": "generation",
    "load": "loading",
    "stream_captions": "live.captions",
    "stream_generate": "generation",
}

__all__ = [  # noqa: RUF022 - the order in which a reader meets them
    "load",
    "stream_generate",
    "generate_text",
    "GenerationResponse",
    "generate_batch",
    "BatchRequest",
    "BatchAnswer",
    "Session",
    "GenerationOptions",
    "MediaOptions",
    "stream_captions",
    "Caption",
    "SmolVLM",
    "Processor",
    "Inputs",
    "SampledVideo",
    "PromptCache",
    "FeatureCache",
    "FetchPolicy",
    "DEMO_MODEL",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
