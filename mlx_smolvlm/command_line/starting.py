"""Ctrl-C while a command is still importing what it needs: it ends with status 130 and prints no traceback.

The command lines import this module first. It does nothing in programs that import them.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def _end_at_once(*_: object) -> None:
    os._exit(INTERRUPTED)  # an exception would be turned into other ones by the imports that it meets


def _is_command() -> bool:
    """Whether this process was started as a command of this package, by `python -m` or by a console script."""
    module = next((following for word, following in pairwise(sys.orig_argv) if word == "-m"), "")
    name = module or os.path.basename(sys.argv[0] if sys.argv else "")
    return name.partition(".")[0] in ("mlx_smolvlm", "smolvlm")


def _begin() -> None:
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_default and threading.current_thread() is threading.main_thread() and _is_command():
        signal.signal(signal.SIGINT, _end_at_once)


def end() -> None:
    """From here on, Ctrl-C is a KeyboardInterrupt as usual."""
    if signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def importing() -> Iterator[None]:
    """Within, Ctrl-C ends a command at once: some libraries make other errors of what comes while they are imported."""
    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and before not in (None, signal.SIG_IGN) and _is_command():
        signal.signal(signal.SIGINT, _end_at_once)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
    else:
        yield


_begin()
