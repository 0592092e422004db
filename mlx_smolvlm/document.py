"""`python -m mlx_smolvlm.document`: arguments and printing."""

from .command_line import starting  # first: Ctrl-C may come while the rest is imported

# isort: split
import argparse
import sys
from pathlib import Path

from .command_line.runner import CommandLine, refuse_tracebacks
from .command_line.signals import end_process, handled_by
from .command_line.standard_streams import say

_FORMATS = ("md", "html", "json", "doctags")
_STANDARD_INPUT = "-"


def main() -> None:
    """Run the command line; exits with 2 and one line on bad input, with 130 or 143 when interrupted."""
    with refuse_tracebacks(), handled_by(end_process):
        _run(_parser().parse_args())


def _run(arguments: argparse.Namespace) -> None:
    if arguments.from_doctags is None:
        raise ValueError("nothing to convert; name a file of DocTags: --from-doctags FILE")
    target = _target(arguments.out, arguments.from_doctags, arguments.to)
    text = _read(arguments.from_doctags)
    with starting.importing():
        from .documents.doctags import DocTagsParser
        from .documents.export import export
    parser = DocTagsParser()
    parser.feed(text)
    if open_tags := parser.open_tags:
        say(f"the DocTags end within {', '.join(open_tags)}: closed, with all text there is")
    exported = export(parser.close(), arguments.to) + "\n"
    if target is None:
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
        print(exported, end="", flush=True)
        return
    from .files import refuse_to_replace, whole_file

    with whole_file(target, refuse_to_replace) as file:
        file.write_text(exported, encoding="utf-8", newline="")


def _read(name: str) -> str:
    """The content of a file, or of standard input."""
    shown = "standard input" if name == _STANDARD_INPUT else name
    content = sys.stdin.buffer.read() if name == _STANDARD_INPUT else Path(name).read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{shown}: byte {error.start} is not UTF-8 text; expected DocTags, as a model writes them, saved as UTF-8"
        ) from None
    if not text.strip():
        raise ValueError(f"{shown} is empty; expected DocTags, as a model writes them")
    return text


def _target(out: Path | None, source: str, to: str) -> Path | None:
    """The file to write; one of the source's name in a folder that is there."""
    if out is None or not out.is_dir():
        return out
    stem = "document" if source == _STANDARD_INPUT else Path(source).stem
    return out / f"{stem}.{to}"


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python -m mlx_smolvlm.document",
        description="Convert documents to Markdown, HTML, JSON or DocTags.",
    )
    parser.add_argument(
        "--from-doctags",
        metavar="FILE",
        help="DocTags that are already there, as models for document conversion write them; - is standard input",
    )
    parser.add_argument("--to", choices=_FORMATS, default="md", help="what to write (default: md, Markdown)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE_OR_DIR",
        help="where to write it, never over another file (default: standard output)",
    )
    return parser


if __name__ == "__main__":
    main()
