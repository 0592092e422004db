"""Run the command lines within the test's process, and check how they refuse."""

import sys
from importlib import import_module
from typing import NamedTuple

MODULES = {
    "batch": "mlx_smolvlm.batch.__main__",
    "benchmark": "mlx_smolvlm.benchmark.__main__",
    "evaluate": "mlx_smolvlm.evaluate.__main__",
    "convert": "mlx_smolvlm.convert.__main__",
    "train": "mlx_smolvlm.train.__main__",
    "index": "mlx_smolvlm.index",
    "search": "mlx_smolvlm.search",
    "server": "mlx_smolvlm.server.__main__",
    "generate": "mlx_smolvlm.generate",
    "chat": "mlx_smolvlm.chat",
    "watch": "mlx_smolvlm.watch",
    "document": "mlx_smolvlm.document.__main__",
}


class Run(NamedTuple):
    """Exit status and what was printed."""

    status: int
    out: str
    err: str


def run(monkeypatch, capsys, module, *arguments):
    """`python -m mlx_smolvlm.<module> <arguments>`, without a new process."""
    monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
    status = 0
    try:
        import_module(MODULES[module]).main()
    except SystemExit as exit_:
        status = exit_.code
    return Run(status, *capsys.readouterr())


def assert_refused(result, problem):
    """Status 2, one line that says what is wrong, and nothing else."""
    assert result.status == 2, result
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert result.err.endswith("\n")
    assert problem in result.err


def assert_failed_midway(result, problem):
    """As `assert_refused` of a conversion, after the line of the stage that was under way."""
    stage, line = result.err.splitlines(keepends=True)
    assert stage.startswith("writing ")
    assert_refused(result._replace(err=line), problem)
