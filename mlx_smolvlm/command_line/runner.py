"""What the command lines share: one clear line instead of a traceback, and exit statuses."""

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from .. import __version__
from . import starting
from .option_names import own_words
from .standard_streams import line_start, open_missing_streams, say, settle, silence
from .starting import INTERRUPTED

BAD_INPUT = 2
MAX_LINE = 1000  # characters of an error; whatever it quotes, it is read by a person
MAX_NAME = 300  # of a file's name in it
# What a user can cause. RuntimeError: MLX out of memory; ImportError: an extra that is not installed.
REPORTED = (ValueError, TypeError, OSError, MemoryError, RuntimeError, ImportError)


class CommandLine(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and which accepts no abbreviations."""

    def __init__(self, *, prog: str, **options: Any):
        super().__init__(prog=_called_as(prog), allow_abbrev=False, **options)
        self.add_argument("--version", action="version", version=f"mlx-smolvlm {__version__}")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse the words of a command line. Arguments of any number may stand between options, too."""
        try:
            words = own_words(sys.argv[1:] if args is None else args, self._option_string_actions)
        except ValueError as error:
            self.error(str(error))
        is_mixed = any(not action.option_strings and action.nargs == "*" for action in self._actions)
        parse = self.parse_known_intermixed_args if is_mixed else self.parse_known_args
        arguments, rest = parse(words, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        if getattr(arguments, "model", None) == "":  # a variable that is not set must not mean the demo model
            self.error("--model is empty; name a folder or Hub id, or leave it out")
        return arguments

    def print_help(self, file: Any = None) -> None:
        """Print the help; argparse's own way passes over a full disk."""
        print(self.format_help(), end="", file=file, flush=True)

    def error(self, message: str) -> NoReturn:
        """End with one line and status 2, without the usage text."""
        self.exit(BAD_INPUT, f"error: {_shown(message)} (see --help)\n")


@contextmanager
def refuse_tracebacks() -> Iterator[None]:
    """Within: what a user can cause ends the process with one line on stderr and status 2."""
    try:
        starting.end()
        open_missing_streams()
        for stream in (sys.stdin, sys.stdout):
            if isinstance(stream, io.TextIOWrapper):  # what its encoding has not is shown or read as a question mark
                stream.reconfigure(errors="replace")
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.filterwarnings("always", module=r"PIL\b")  # of every image, not of the first alone
            try:
                yield
            except SystemExit:  # also of --help and --version, which print
                sys.stdout.flush()
                raise
        sys.stdout.flush()  # a reader that has gone, or a full disk, is noticed here, not while Python shuts down
    except BrokenPipeError:  # the reader of our output has gone: nothing is left to say
        silence(sys.stdout)
        sys.exit(0)
    except REPORTED as error:
        say(f"error: {one_line(error)}")
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # not foreseen; libraries in Rust raise what is no `Exception`
        say(f"error: {_unforeseen(error)}")
        sys.exit(BAD_INPUT)
    finally:
        settle(sys.stdout)
        settle(sys.stderr)


def path_argument(text: str) -> Path:
    """The `type` of arguments that are paths: an empty one, as of a variable that is not set, is not this folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a file or folder")
    return Path(text)


def output_argument(text: str) -> str:
    """The `type` of arguments that name what is written, where that is not for standard output."""
    if text == "-":
        raise argparse.ArgumentTypeError(
            "- would be standard output, where this is not written to; name a file or folder"
        )
    return text


def output_path(text: str) -> Path:
    """As `output_argument`, as a path."""
    return path_argument(output_argument(text))


def explain_call(module: str, instead: str) -> None:
    """Let a module, which other programs have as a function of that name, say what to call in its place."""

    class Command(ModuleType):
        """The module of a command."""

        def __call__(self, *_: object, **__: object) -> NoReturn:
            raise TypeError(f"{module} is the command's module, not a function; call mlx_smolvlm.{instead}")

    sys.modules[module].__class__ = Command


def print_json(record: Any) -> None:
    """Print an object as one line, in ASCII where the output is not UTF-8, or a name of a file in it is not."""
    encoding = (sys.stdout.encoding or "utf-8").lower().replace("-", "")
    line = json.dumps(record, ensure_ascii=encoding != "utf8")
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        line = json.dumps(record)
    print(line, flush=True)


def one_line(error: BaseException) -> str:
    """An error's message without line breaks; files are named where the system's message does."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {_shown(error.filename, MAX_NAME)}" if error.filename else error.strerror
    return _shown(error) or type(error).__name__


def _shown(text: object, max_chars: int = MAX_LINE) -> str:
    """On one line, of bounded length, and without what could steer a terminal, as names of files may."""
    from ..media.urls import printable  # --help does without

    return printable(" ".join(str(text).split()), max_chars)


def _unforeseen(error: BaseException) -> str:
    """What and where, so that it can be reported."""
    import traceback  # few commands come here

    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {os.path.basename(frames[-1].filename)}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}: {one_line(error)[:300]} (not foreseen: please report it)"


def _called_as(prog: str) -> str:
    """The command as the user called it: `python -m mlx_smolvlm.chat`, or a console script's name."""
    module = prog.rpartition(" ")[2]
    package, _, command = module.rpartition(".")
    called = os.path.basename(sys.argv[0])
    return called if called in (module, f"smolvlm {command}", f"python -m {package} {command}") else prog


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    from ..media.reporting import current_source  # few commands warn

    source = current_source()
    named = "" if not source or source in str(message) else f"{source}: "
    say(f"{line_start()}warning: {_shown(f'{named}{message}')}")
