"""Reading lines from a terminal: editing, history, Tab, and pasted lines as one.

prompt_toolkit where it is installed (`pip install 'mlx-smolvlm[chat]'`), otherwise Python's readline.
"""

import glob
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .state import History

PROMPT = "> "
MORE = "... "  # the prompt within triple quotes
QUOTES = '"""'
PASTE_S = 0.03  # within which the next line of what is pasted comes
PATH_COMMANDS = ("/image ", "/video ", "/load ", "/save ")

Reader = Callable[[str], str]
"""From a prompt to a line without its end. Raises EOFError at the end, KeyboardInterrupt at Ctrl-C."""


class LineInput:
    """Lines from a terminal, with an editor and a history, or from a pipe."""

    def __init__(self, commands: Sequence[str] = (), history_name: str | None = None):
        """
        Args:
            commands: what Tab completes at the start of a line.
            history_name: of the file in the state folder that keeps what is typed on a terminal; None keeps nothing.
        """
        self.is_terminal = sys.stdin.isatty()
        self._history = History(history_name if self.is_terminal else None)
        self.handles_interrupts = self.is_terminal and _has_full_editor()  # an exception would come amidst its own work
        self._read = open_editor(self._history, commands) if self.is_terminal else _read_from_pipe

    def next(self) -> str:
        """The next line, or what stands between triple quotes. Raises EOFError at the end."""
        line = self._read(PROMPT)
        if line.lstrip().startswith(QUOTES):
            line = line.lstrip().removeprefix(QUOTES)
            with suppress(EOFError):  # told again by the next read
                while not line.rstrip().endswith(QUOTES):
                    line += "\n" + self._read(MORE)
            line = line.rstrip().removesuffix(QUOTES).strip()
        self._history.add(line)
        return line


def _read_from_pipe(_: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


def open_editor(history: History, commands: Sequence[str]) -> Reader:
    """What reads lines from standard input, which is a terminal. Prompts never go to an output that is redirected.

    Args:
        history: entries to step through; the caller adds to it.
        commands: what Tab completes at the start of a line.
    """
    return (_full_editor if _has_full_editor() else _plain_editor)(history, commands)


def _has_full_editor() -> bool:
    if not sys.stderr.isatty() or os.environ.get("TERM", "") in ("", "dumb"):
        return False
    return find_spec("prompt_toolkit") is not None


def candidates(line: str, commands: Sequence[str]) -> tuple[int, list[str]]:
    """What Tab offers at the end of a line.

    Returns:
        From where on the line would be replaced, and by what: commands, or paths with spaces escaped.
    """
    found = [command for command in commands if command.startswith(line)]
    if line.startswith("/") and found:
        return 0, found
    if line.startswith(PATH_COMMANDS):
        start = line.index(" ") + 1
    else:
        start = max(_ends_of_words(line), default=0)
        if not line[start:].startswith(("/", "~", ".")):
            return start, []
    typed = line[start:].lstrip("'\"").replace("\\ ", " ")
    expanded = os.path.expanduser(typed)
    names = sorted(glob.glob(glob.escape(expanded) + "*"))
    kept = typed[: len(typed) - len(os.path.basename(typed))]  # as typed, such as ~/
    return start, [(kept + os.path.basename(name) + "/" * os.path.isdir(name)).replace(" ", "\\ ") for name in names]


def _ends_of_words(line: str) -> Iterator[int]:
    """Where words begin after a space that is not escaped."""
    for place, sign in enumerate(line):
        if sign == " " and line[place - 1 : place] != "\\":
            yield place + 1


def _full_editor(history: History, commands: Sequence[str]) -> Reader:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.data_structures import Size
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import InMemoryHistory
    from prompt_toolkit.output.vt100 import Vt100_Output
    from prompt_toolkit.shortcuts import CompleteStyle

    class Words(Completer):
        """Commands and paths."""

        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
            """What may replace the end of the text before the cursor."""
            line = document.current_line_before_cursor
            start, found = candidates(line, commands)
            for candidate in found:
                yield Completion(candidate, start_position=start - len(line))

    def terminal_size() -> Size:
        columns, rows = os.get_terminal_size(sys.stderr.fileno())
        return Size(rows=rows or 24, columns=columns or 80)  # pseudo-terminals may not know theirs

    session: PromptSession[str] = PromptSession(
        history=InMemoryHistory(history.entries),
        completer=Words(),
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,
        output=Vt100_Output(sys.stderr, terminal_size, term=os.environ.get("TERM"), enable_cpr=False),
    )
    return lambda prompt: session.prompt([("bold ansicyan", prompt)])


def _plain_editor(history: History, commands: Sequence[str]) -> Reader:
    """With Python's readline if there is one, and with the terminal's own editing if not."""
    readline: Any = None
    with suppress(ImportError):
        readline = import_module("readline")
    has_brackets = False
    if readline is not None:
        has_brackets = "libedit" not in (readline.__doc__ or "")
        readline.set_completer_delims("\n")
        readline.set_completer(_completer(commands))
        readline.parse_and_bind("tab: complete" if has_brackets else "bind ^I rl_complete")
        if has_brackets:
            readline.parse_and_bind("set enable-bracketed-paste on")
        readline.clear_history()
        for entry in history.entries:
            readline.add_history(entry)

    def read(prompt: str) -> str:
        is_shown = sys.stdout.isatty()
        if not is_shown and sys.stderr.isatty():
            print(prompt, end="", file=sys.stderr, flush=True)
        try:
            lines = [input(prompt if is_shown else "")]
        except EOFError:
            if not has_brackets or not is_shown:
                print(file=sys.stderr)  # the shell's prompt begins a line of its own
            raise
        while not has_brackets and select.select([sys.stdin], [], [], PASTE_S)[0]:
            try:
                lines.append(input())
            except EOFError:  # told again by the next read
                break
        return "\n".join(lines)

    return read


def _completer(commands: Sequence[str]) -> Callable[[str, int], str | None]:
    found: list[str] = []

    def complete(line: str, number: int) -> str | None:
        if number == 0:
            start, ends = candidates(line, commands)
            found[:] = [line[:start] + end for end in ends]
        return found[number] if number < len(found) else None

    return complete
