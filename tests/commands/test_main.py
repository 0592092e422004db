"""`smolvlm COMMAND`, `python -m mlx_smolvlm COMMAND`, and the console scripts."""

import json
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from support.command_lines import MODULES, Run, assert_refused

import mlx_smolvlm
from mlx_smolvlm import __main__ as program

ROOT = Path(__file__).parents[2]


def run(monkeypatch, capsys, *words):
    """A command line as the shell passes it, without a new process: program and arguments."""
    monkeypatch.setattr(sys, "argv", list(words))
    status = 0
    try:
        program.main()
    except SystemExit as exit_:
        status = exit_.code
    return Run(status, *capsys.readouterr())


def test_the_version_is_printed_without_importing_mlx_or_numpy():
    code = """
import json, sys
from mlx_smolvlm.__main__ import main
sys.argv = ["smolvlm", "--version"]
main()
print(json.dumps(sorted({"mlx", "numpy", "PIL", "tokenizers"} & set(sys.modules))))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    version, imported = done.stdout.splitlines()
    assert version == f"mlx-smolvlm {mlx_smolvlm.__version__}"
    assert json.loads(imported) == []


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_the_help_lists_every_command_with_its_purpose(monkeypatch, capsys, flag):
    shown = run(monkeypatch, capsys, "/usr/local/bin/smolvlm", flag)
    assert (shown.status, shown.err) == (0, "")
    assert shown.out.startswith("usage: smolvlm COMMAND")
    for command, (_, purpose) in program.COMMANDS.items():
        assert any(line.split() == [command, *purpose.split()] for line in shown.out.splitlines())
    assert max(map(len, shown.out.splitlines())) <= 100


def test_without_a_command_the_help_goes_to_stderr_and_the_status_is_2(monkeypatch, capsys):
    shown = run(monkeypatch, capsys, "smolvlm")
    assert (shown.status, shown.out) == (2, "")
    assert shown.err == run(monkeypatch, capsys, "smolvlm", "--help").out


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("genrate", "did you mean 'generate'?"),
        ("Chat", "did you mean 'chat'?"),
        ("--image", f"expected one of {', '.join(program.COMMANDS)}"),
        ("", "expected one of generate"),
    ],
)
def test_an_unknown_command_is_refused_in_one_line(monkeypatch, capsys, word, advice):
    refused = run(monkeypatch, capsys, "smolvlm", word, "--image", "a.png")
    assert_refused(refused, f"no command '{word}'; {advice}")
    assert "(see smolvlm --help)" in refused.err


def test_every_command_is_there():
    assert {name: f"mlx_smolvlm{module}" for name, (module, _) in program.COMMANDS.items()} == MODULES


@pytest.mark.parametrize("command", program.COMMANDS)
@pytest.mark.parametrize("called", ["smolvlm", "python -m mlx_smolvlm"])
def test_a_command_names_itself_as_it_was_called(monkeypatch, capsys, command, called):
    first = "/opt/bin/smolvlm" if called == "smolvlm" else str(ROOT / "mlx_smolvlm" / "__main__.py")
    shown = run(monkeypatch, capsys, first, command, "--help")
    assert shown.status == 0
    assert shown.out.startswith(f"usage: {called} {command} ")


@pytest.mark.parametrize("command", program.COMMANDS)
@pytest.mark.parametrize(
    ("first", "called"),
    [("/opt/bin/mlx_smolvlm.{}", "mlx_smolvlm.{}"), ("/opt/mlx_smolvlm/{}.py", "python -m mlx_smolvlm.{}")],
)
def test_so_does_one_that_was_called_by_its_own_name(monkeypatch, capsys, command, first, called):
    monkeypatch.setattr(sys, "argv", [first.format(command), "--help"])
    with pytest.raises(SystemExit):
        import_module(MODULES[command]).main()
    assert capsys.readouterr().out.startswith(f"usage: {called.format(command)} ")


def test_arguments_and_errors_are_the_commands_own(monkeypatch, capsys, tmp_path):
    refused = run(monkeypatch, capsys, "smolvlm", "generate", "--image", str(tmp_path / "absent.png"), "--prompt", "Hi")
    assert_refused(refused, "absent.png: no such file")
    assert_refused(run(monkeypatch, capsys, "smolvlm", "chat", "--imagee", "a.png"), "--imagee")


def test_python_runs_the_package():
    done = subprocess.run(
        [sys.executable, "-m", "mlx_smolvlm", "generate", "--max-tokens", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert_refused(Run(done.returncode, done.stdout, done.stderr), "max_tokens")


def test_every_command_has_its_console_script():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {
        "smolvlm": "mlx_smolvlm.__main__:main",
        **{f"mlx_smolvlm.{command}": f"{module}:main" for command, module in MODULES.items()},
    }
    for script in scripts.values():
        module, function = script.split(":")
        assert callable(getattr(import_module(module), function))
