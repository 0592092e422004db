"""What the command lines share: one clear line instead of a traceback, and exit statuses."""

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, NoReturn

from .. import __version__
from ..media.reporting import current_source
from .option_names import own_words

BAD_INPUT = 2
MAX_LINE = 2000  # characters of an error; whatever it quotes, it is read by a person
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
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
        return arguments

    def error(self, message: str) -> NoReturn:
        """End with one line and status 2, without the usage text."""
        self.exit(BAD_INPUT, f"error: {' '.join(message.split())} (see --help)\n")


@contextmanager
def refuse_tracebacks() -> Iterator[None]:
    """Within: what a user can cause ends the process with one line on stderr and status 2."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):  # what its encoding has not is shown or read as a question mark
            stream.reconfigure(errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.filterwarnings("always", module=r"PIL\b")  # of every image, not of the first alone
            yield
        sys.stdout.flush()  # a reader that has gone is noticed here, not while Python shuts down
    except REPORTED as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output has gone: nothing is left to say
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def explain_call(module: str, instead: str) -> None:
    """Let a module, which other programs have as a function of that name, say what to call in its place."""

    class Command(ModuleType):
        """The module of a command."""

        def __call__(self, *_: object, **__: object) -> NoReturn:
            raise TypeError(f"{module} is the command's module, not a function; call mlx_smolvlm.{instead}")

    sys.modules[module].__class__ = Command


def line_start() -> str:
    """What messages on stderr begin with: on a terminal, it clears the line that says what goes on."""
    return "\r\x1b[K" if sys.stderr.isatty() else ""


def print_json(record: Any) -> None:
    """Print an object as one line, in ASCII where the output is not UTF-8."""
    encoding = (sys.stdout.encoding or "utf-8").lower().replace("-", "")
    print(json.dumps(record, ensure_ascii=encoding != "utf8"), flush=True)


def one_line(error: BaseException) -> str:
    """An error's message without line breaks; files are named where the system's message does."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MAX_LINE else f"{text[: MAX_LINE // 2]}...{text[-MAX_LINE // 2 :]}"


def _called_as(prog: str) -> str:
    """The command as the user called it: `python -m mlx_smolvlm.chat`, or a console script's name."""
    module = prog.rpartition(" ")[2]
    package, _, command = module.rpartition(".")
    called = os.path.basename(sys.argv[0])
    return called if called in (module, f"smolvlm {command}", f"python -m {package} {command}") else prog


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    with suppress(OSError):  # whoever read it may be gone, which must not become an error of the work
        source = current_source()
        named = "" if not source or source in str(message) else f"{source}: "
        print(f"{line_start()}warning: {named}{' '.join(str(message).split())}", file=sys.stderr)
