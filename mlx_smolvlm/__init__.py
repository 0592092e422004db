"""SmolVLM vision-language models on Apple's MLX.

The public names are loaded when first used, so importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as `typing` says it, whose import would take longer than all else here
if TYPE_CHECKING:
    from typing import Any

    from .api.adapter_set import AdapterSet
    from .api.batching import BatchAnswer, generate_batch
    from .api.caption_steps import Caption
    from .api.captioning import stream_captions
    from .api.generation import GenerationResponse, generate_text, stream_generate
    from .api.loading import DEMO_MODEL, load
    from .api.session import Session
    from .documents.page_reading import PageReading
    from .documents.reading import read_document
    from .engine.feature_cache import FeatureCache
    from .engine.prompt_cache import PromptCache
    from .engine.row import BatchRequest, RowEvent
    from .engine.rows import Rows
    from .model.smolvlm import SmolVLM
    from .options import FetchPolicy, GenerationOptions, MediaOptions
    from .processor.processor import Processor
    from .processor.prompt import Inputs
    from .processor.sampled_video import SampledVideo
    from .retrieval.retriever import Retriever
    from .retrieval.retriever_loading import load_retriever

_HOME = {
    "AdapterSet": "api.adapter_set",
    "BatchAnswer": "api.batching",
    "BatchRequest": "engine.row",
    "Caption": "api.caption_steps",
    "DEMO_MODEL": "api.loading",
    "FeatureCache": "engine.feature_cache",
    "FetchPolicy": "options",
    "GenerationOptions": "options",
    "GenerationResponse": "api.generation",
    "Inputs": "processor.prompt",
    "MediaOptions": "options",
    "PageReading": "documents.page_reading",
    "Processor": "processor.processor",
    "PromptCache": "engine.prompt_cache",
    "Retriever": "retrieval.retriever",
    "RowEvent": "engine.row",
    "Rows": "engine.rows",
    "SampledVideo": "processor.sampled_video",
    "Session": "api.session",
    "SmolVLM": "model.smolvlm",
    "generate_batch": "api.batching",
    "generate_text": "api.generation",
    "load": "api.loading",
    "read_document": "documents.reading",
    "load_retriever": "retrieval.retriever_loading",
    "stream_captions": "api.captioning",
    "stream_generate": "api.generation",
}

__all__ = [  # noqa: RUF022 - the order in which a reader meets them
    "load",
    "AdapterSet",
    "stream_generate",
    "generate_text",
    "GenerationResponse",
    "generate_batch",
    "BatchRequest",
    "BatchAnswer",
    "Rows",
    "RowEvent",
    "Session",
    "GenerationOptions",
    "MediaOptions",
    "stream_captions",
    "Caption",
    "read_document",
    "PageReading",
    "load_retriever",
    "Retriever",
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


if not TYPE_CHECKING:  # type checkers know the names from the imports above, and refuse any other

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(import_module(f".{_HOME[name]}", __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
