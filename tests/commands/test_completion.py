"""`smolvlm completion SHELL`: what the scripts offer."""

import shutil
import subprocess
import sys

import pytest
from support.command_lines import Run, assert_refused

from mlx_smolvlm import __main__ as program
from mlx_smolvlm.command_line.completion import script


def completed(words: str, number: int) -> list[str]:
    """What bash offers for the last of the words."""
    code = script("bash", program.COMMANDS, "mlx_smolvlm")
    code += f"COMP_WORDS=({words}); COMP_CWORD={number}; _smolvlm smolvlm; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_bash_offers_commands_options_and_choices():
    assert completed("smolvlm ''", 1) == [*program.COMMANDS, "completion", "--help", "--version"]
    assert completed("smolvlm gen", 1) == ["generate"]
    assert completed("smolvlm generate --max-t", 2) == ["--max-tokens"]
    assert completed("smolvlm batch --sys", 2) == ["--system"]
    assert completed("smolvlm generate --dtype ''", 3) == ["bfloat16", "float16", "float32"]
    assert completed("smolvlm completion ''", 2) == ["bash", "zsh", "fish"]


def test_bash_offers_files_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "photo.png").touch()
    monkeypatch.chdir(tmp_path)
    assert completed("smolvlm generate --image ph", 3) == ["photo.png"]
    assert completed("smolvlm generate ph", 2) == ["photo.png"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_can_read_their_scripts(shell, tmp_path):
    text = script(shell, program.COMMANDS, "mlx_smolvlm")
    assert "max-tokens" in text
    if shutil.which(shell):
        (tmp_path / "script").write_text(text)
        subprocess.run([shell, "-n", tmp_path / "script"], check=True)


def test_fish_quotes_what_it_describes():
    lines = script("fish", program.COMMANDS, "mlx_smolvlm").splitlines()
    assert all(line.replace("\\'", "").count("'") % 2 == 0 for line in lines)
    assert (
        "complete -c smolvlm -n '__fish_seen_subcommand_from convert' -l quantize -s q -d 'quantize the decoder'"
        in [line.replace("-s q -l quantize", "-l quantize -s q") for line in lines]
    )


@pytest.mark.parametrize("words", [(), ("tcsh",), ("bash", "zsh")])
def test_other_shells_are_refused(monkeypatch, capsys, words):
    monkeypatch.setattr(sys, "argv", ["smolvlm", "completion", *words])
    with pytest.raises(SystemExit) as ending:
        program.main()
    assert_refused(Run(ending.value.code, *capsys.readouterr()), "expected one of bash, zsh, fish")
