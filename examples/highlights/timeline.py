"""The time line of a video's segments, as JSON and as Markdown."""

from typing import Any

from .segments import Segment


def as_json(source: str, model: str, segments: list[Segment], output: str | None) -> dict[str, Any]:
    """For programs; times in seconds, `output` is the file that shows the highlights, None if there is none."""
    parts = [
        {
            "start_s": round(segment.start_s, 6),
            "end_s": round(segment.end_s, 6),
            "description": segment.description,
            "is_highlight": segment.is_highlight,
        }
        for segment in segments
    ]
    return {"source": source, "model": model, "segments": parts, "output": output}


def as_markdown(source: str, model: str, segments: list[Segment], output: str | None) -> str:
    """For people; highlights in bold."""
    lines = [
        f"# Time line of {source}",
        "",
        f"Described by {model}. " + (f"The highlights, in bold, are in {output}." if output else "No highlights."),
        "",
        "| from | to | what happens |",
        "|---|---|---|",
    ]
    for segment in segments:
        cells = [clock(segment.start_s), clock(segment.end_s), segment.description.replace("|", "\\|") or "-"]
        mark = "**" if segment.is_highlight else ""
        lines.append("| " + " | ".join(f"{mark}{cell}{mark}" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def clock(second: float) -> str:
    """H:MM:SS, rounded to the second."""
    whole = round(second)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
