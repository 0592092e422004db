"""The reference's cases, made by `make_goldens.py`."""

import json
from pathlib import Path

from .media import picture, video_path

GOLDENS = Path(__file__).parent.parent / "goldens"
CHECKPOINT_NAMES = ("smolvlm_256m", "smolvlm2_2b", "smolvlm_2b_v1", "idefics3", "tied")


def golden_cases(name: str) -> dict[str, dict]:
    """The reference's cases for one checkpoint."""
    return json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))["cases"]


def with_media(messages: list[dict]) -> list[dict]:
    """Golden messages with pictures and videos in place of their names."""

    def item(content: dict) -> dict:
        if content["type"] == "image":
            return {"type": "image", "image": picture(content["path"])}
        if content["type"] == "video":
            return {"type": "video", "path": str(video_path(content["path"]))}
        return content

    return [{**message, "content": [item(content) for content in message["content"]]} for message in messages]
