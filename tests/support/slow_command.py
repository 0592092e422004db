"""Run a command whose functions take their time: `python -m support.slow_command COMMAND FUNCTION,... ARGUMENTS`.

Each function, named as in `mlx_smolvlm.api.loading.load_model`, sleeps when it is first called, and says so: its name
and when it began, in seconds of `time.monotonic`, are appended to the file that SLOW_COMMAND_TIMES names.
"""

import importlib
import os
import sys
import time
import types
from typing import Any

from .command_lines import MODULES

SLEEP_S = 0.65
TIMES = "SLOW_COMMAND_TIMES"
_CALLS: dict[str, Any] = {}


def main() -> None:
    """Slow the functions down, then run the command."""
    command, names, *arguments = sys.argv[1:]
    for name in names.split(","):
        _slow_down(name)
    sys.argv = [command, *arguments]
    importlib.import_module(MODULES[command]).main()


def _slow_down(path: str) -> None:
    """Exchange the code of a function, so that it is slow wherever it was imported."""
    module, _, name = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError:  # a method
        module, _, owner = module.rpartition(".")
        function = getattr(getattr(importlib.import_module(module), owner), name)
    function = getattr(function, "__wrapped__", function)
    original = types.FunctionType(
        function.__code__, function.__globals__, name, function.__defaults__, function.__closure__
    )
    original.__kwdefaults__ = function.__kwdefaults__
    _CALLS[path] = _sleeping(path, original)
    scope: dict[str, Any] = {}
    exec(f"def slow(*arguments, **keywords): return _slowed[{path!r}](*arguments, **keywords)", scope)
    function.__globals__["_slowed"] = _CALLS
    function.__defaults__ = function.__kwdefaults__ = None
    function.__code__ = scope["slow"].__code__


def _sleeping(path: str, function: Any) -> Any:
    has_slept = False

    def call(*arguments: Any, **keywords: Any) -> Any:
        nonlocal has_slept
        if not has_slept:
            has_slept = True
            with open(os.environ[TIMES], "a", encoding="utf-8") as file:
                file.write(f"{time.monotonic()} {path}\n")
            time.sleep(SLEEP_S)
        return function(*arguments, **keywords)

    return call


if __name__ == "__main__":
    main()
