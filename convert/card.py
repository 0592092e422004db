"""The model card, `README.md` of a converted folder."""

import re
from pathlib import Path

from ..model.json_fields import read_json
from .conversion_report import ConversionReport
from .quality import QUALITY

CARD = "README.md"
_QUALITY_START, _QUALITY_END = "<!-- quality -->", "<!-- end of quality -->"
_RETRIEVING = """\
With mlx-smolvlm:

    python -m mlx_smolvlm.index documents --out pages --model {name}
    python -m mlx_smolvlm.search pages "What were the costs?"
"""
_ANSWERING = """\
With mlx-smolvlm:

    python -m mlx_smolvlm.generate --model {name} --image photo.jpg --prompt "Describe this image."

With [mlx-vlm](https://github.com/Blaizzy/mlx-vlm):

    python -m mlx_vlm.generate --model {name} --image photo.jpg --prompt "Describe this image."

In Swift, with [mlx-swift-lm](https://github.com/ml-explore/mlx-swift-lm):

    let session = ChatSession(try await loadModel(id: "{name}"))
    print(try await session.respond(to: "Describe this image.", image: .url(photo)))
"""
_HEAD_CHARS = 64 * 1024
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def write_card(
    folder: Path, source: Path, report: ConversionReport, command: str | None = None, repo_id: str | None = None
) -> None:
    """Write the card.

    Args:
        folder: where to; its `quality.json`, if there is one, becomes a table.
        source: the folder converted from; its own card says base model and licence.
        report: what was done.
        command: the command line that did it.
        repo_id: the Hub repository that it is meant for.
    """
    origin = _front_matter(source / CARD)
    is_hub_id = not Path(report.source).exists() and _HUB_ID.fullmatch(report.source)
    is_conversion = origin.get("library_name") == "mlx"
    base_model = (origin.get("base_model") if is_conversion else None) or (report.source if is_hub_id else None)
    fields = {
        "base_model": base_model,
        **{key: origin.get(key) for key in ("license", "license_name", "license_link")},
        "library_name": "mlx",
        "pipeline_tag": "visual-document-retrieval" if "linear" in report.plan else "image-text-to-text",
    }
    head = [f"{key}: {value}" for key, value in fields.items() if value]
    name = repo_id or report.folder.name
    made_from = (
        f"[{base_model}](https://huggingface.co/{base_model})" if base_model else f"`{Path(report.source).name}`"
    )
    made_from += _with_adapters(report)
    how = [f"    {command}"] if command else ["Made from Python, with `mlx_smolvlm.convert.convert_checkpoint`."]
    summary = report.summary() or ["not quantized"]
    text = f"""---
{chr(10).join(head)}
tags:
- mlx
- smolvlm
---

# {name.rsplit("/", 1)[-1]}

{made_from} for Apple's MLX: {report.size_bytes / 1e6:.0f} MB, {report.bits_per_weight:.2f} bits per weight.

{chr(10).join(how)}

## Quantization

{chr(10).join(f"- {line}" for line in summary)}

`quantization_report.json` has each layer.

## Quality

{_QUALITY_START}
{_QUALITY_END}

## Use

{_RETRIEVING.format(name=name) if "linear" in report.plan else _ANSWERING.format(name=name)}"""
    (folder / CARD).write_text(text, encoding="utf-8", errors="backslashreplace")  # of names that are not UTF-8
    refresh_quality(folder)


def _with_adapters(report: ConversionReport) -> str:
    """The adapters that were merged, by name: links where they are of the Hub."""
    if not report.adapters:
        return ""
    names = [
        (f"[{name}](https://huggingface.co/{name})" if _HUB_ID.fullmatch(name) else f"`{name}`")
        + (f" (weight {weight:g})" if weight != 1 else "")
        for name, weight in report.adapters
    ]
    return f", with the adapter{'s' * (len(names) > 1)} {' and '.join(names)} merged into it,"


def refresh_quality(folder: Path) -> None:
    """Bring a card's section on quality up to date with the folder's `quality.json`; a card without one stays."""
    path = folder / QUALITY
    section = quality_table(read_json(path)) if path.is_file() else "Not measured."
    card = (folder / CARD).read_text(encoding="utf-8")
    if not (_QUALITY_START in card and _QUALITY_END in card):  # another program's, or edited
        return
    start, end = card.index(_QUALITY_START) + len(_QUALITY_START), card.index(_QUALITY_END)
    (folder / CARD).write_text(f"{card[:start]}\n{section}\n{card[end:]}", encoding="utf-8")


def quality_table(quality: dict[str, object]) -> str:
    """Markdown tables of `quality.json`: the numbers and short texts at its top level, then the other measures."""
    others = quality.get("other_measures")
    tables = [_table(quality)]
    if isinstance(others, dict):
        tables += [f"Also, on {name}:\n\n{_table(measure)}" for name, measure in others.items()]
    return "\n\n".join(tables)


def _table(quality: dict[str, object]) -> str:
    rows = [
        f"| {key.replace('_', ' ')} | {f'{value:.4g}' if isinstance(value, float) else value} |"
        for key, value in quality.items()
        if isinstance(value, int | float | str)
    ]
    return "\n".join(["| measure | value |", "|---|---|", *rows])


def _front_matter(card: Path) -> dict[str, str]:
    """The plain `key: value` lines at the head of a model card, and the first items of its lists; {} if none."""
    if not card.is_file():
        return {}
    with card.open(encoding="utf-8", errors="replace") as file:
        head = re.match(r"---\n(.*?)\n---", file.read(_HEAD_CHARS), re.DOTALL)
    lines = re.findall(r"^(\w+):(?: *|\n- *)([\w./:-]+) *$", head[1], re.MULTILINE) if head else []
    return dict(lines)
