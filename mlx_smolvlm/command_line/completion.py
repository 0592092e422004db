"""`smolvlm completion SHELL`: a script that lets bash, zsh or fish complete commands, options and paths."""

import argparse
from collections.abc import Mapping
from importlib import import_module

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
_smolvlm() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
  local command="${{COMP_WORDS[1]}}" words=""
  COMPREPLY=()
  case "$1" in mlx_smolvlm.*) command="${{1#mlx_smolvlm.}}" ;; esac
  if [ "$1" = smolvlm ] && [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W "{commands} completion --help --version" -- "$current"))
    return
  fi
  case "$command $previous" in
{choices}
  esac
  if [ -z "$words" ] && [[ "$current" == -* ]]; then
    case "$command" in
{options}
    esac
  fi
  if [ -n "$words" ]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  else
    compopt -o filenames 2>/dev/null
    local IFS=$'\n'
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}}
complete -F _smolvlm smolvlm {scripts}
"""
_ZSH_START = "autoload -Uz bashcompinit && bashcompinit\n"


def script(shell: str, commands: Mapping[str, tuple[str, str]], package: str) -> str:
    """The script, to be evaluated by the shell when it starts.

    Args:
        shell: one of `SHELLS`.
        commands: the module of each command, and its purpose.
        package: against which module names count.

    Raises:
        ValueError: another shell.
    """
    if shell not in SHELLS:
        raise ValueError(f"no completion for {shell or 'nothing'!r}; expected one of {', '.join(SHELLS)}")
    parsers = {name: import_module(module, package)._parser() for name, (module, _) in commands.items()}
    return _fish(parsers, commands) if shell == "fish" else _ZSH_START * (shell == "zsh") + _bash(parsers)


def _bash(parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    choices, options = ['    "completion "*) words="bash zsh fish" ;;'], []
    for command, parser in parsers.items():
        names: list[str] = []
        for action in parser._actions:
            names += action.option_strings
            if action.option_strings and action.choices:
                patterns = "|".join(f'"{command} {name}"' for name in action.option_strings)
                choices.append(f'    {patterns}) words="{" ".join(map(str, action.choices))}" ;;')
        options.append(f'      {command}) words="{" ".join(names)}" ;;')
    scripts = " ".join(f"mlx_smolvlm.{name}" for name in parsers)
    return _BASH.format(
        commands=" ".join(parsers), choices="\n".join(choices), options="\n".join(options), scripts=scripts
    )


def _fish(parsers: Mapping[str, argparse.ArgumentParser], commands: Mapping[str, tuple[str, str]]) -> str:
    lines = [
        f"complete -c smolvlm -n __fish_use_subcommand -f -a {name} -d {_quoted(commands[name][1])}" for name in parsers
    ]
    lines.append("complete -c smolvlm -n __fish_use_subcommand -f -a completion -d 'print a completion script'")
    lines.append("complete -c smolvlm -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'")
    for command, parser in parsers.items():
        for action in parser._actions:
            if not action.option_strings:
                continue
            names = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in action.option_strings
            )
            value = f" -x -a {_quoted(' '.join(map(str, action.choices)))}" if action.choices else ""
            if not action.choices and action.nargs != 0:
                value = " -r"
            text = _quoted((action.help or "").replace("%(default)s", str(action.default)))
            for start in (f"-c smolvlm -n '__fish_seen_subcommand_from {command}'", f"-c mlx_smolvlm.{command}"):
                lines.append(f"complete {start} {names}{value} -d {text}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """For fish: in single quotes, where a backslash escapes both."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
