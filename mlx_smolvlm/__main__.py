"""`smolvlm COMMAND` and `python -m mlx_smolvlm COMMAND`: find the command and hand over to its module.

Nothing heavy is imported before the command is known.
"""

from .command_line import starting  # first: Ctrl-C may come while the rest is imported

# isort: split
import sys
from importlib import import_module
from pathlib import Path

from . import __version__
from .command_line.runner import BAD_INPUT, refuse_tracebacks
from .command_line.standard_streams import say

# Command -> the module whose `main` runs it, and one line for the help.
COMMANDS = {
    "generate": (".generate", "ask about images, documents and videos"),
    "chat": (".chat", "talk with a model on the terminal"),
    "watch": (".watch", "caption a camera, a stream or a video window by window"),
    "batch": (".batch.__main__", "ask one question about many images, one line of JSON each"),
    "document": (".document.__main__", "convert documents to Markdown, HTML, JSON or DocTags"),
    "index": (".index", "make an index of the pages of PDFs and images"),
    "search": (".search", "find the pages of an index that answer a question"),
    "server": (".server.__main__", "serve programs (OpenAI's and Ollama's interfaces) and a page"),
    "train": (".train.__main__", "fine-tune a model on rows of questions and answers"),
    "convert": (".convert.__main__", "convert, quantize and compare checkpoints"),
    "evaluate": (".evaluate.__main__", "score a model on local data, as VLMEvalKit does"),
    "benchmark": (".benchmark.__main__", "measure the speed of each stage on this machine"),
}


def main() -> None:
    """Run the command that the first argument names; its own arguments follow."""
    program = "smolvlm" if Path(sys.argv[0]).name == "smolvlm" else "python -m mlx_smolvlm"
    with refuse_tracebacks():
        if len(sys.argv) < 2:  # an error, so that a script that forgot the command notices
            say(_help(program))
            sys.exit(BAD_INPUT)
        command, *arguments = sys.argv[1:]
        if command in ("-h", "--help"):
            print(_help(program))
            return
        if command == "--version":
            print(f"mlx-smolvlm {__version__}")
            return
        if command == "completion":
            from .command_line.completion import script

            print(script(" ".join(arguments), COMMANDS, __package__), end="")
            return
        if command not in COMMANDS:
            raise ValueError(_no_such_command(program, command))
        sys.argv = [f"{program} {command}", *arguments]  # the command's usage line begins with it
        with starting.importing():
            run = import_module(COMMANDS[command][0], __package__).main
    run()


def _help(program: str) -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            f"usage: {program} COMMAND [ARGUMENTS]",
            "",
            "SmolVLM vision-language models on Apple's MLX.",
            "",
            "commands:",
            *(f"  {name:{width}}  {purpose}" for name, (_, purpose) in COMMANDS.items()),
            "",
            f"{program} completion SHELL prints a script for bash, zsh or fish that completes commands and options.",
            f"{program} COMMAND --help lists a command's options; {program} --version prints the version.",
        ]
    )


def _no_such_command(program: str, command: str) -> str:
    from .options import did_you_mean, quoted  # only mistakes need it

    advice = did_you_mean(command, list(COMMANDS)) or f"expected one of {', '.join(COMMANDS)}"
    return f"no command {quoted(command)}; {advice} (see {program} --help)"


if __name__ == "__main__":
    main()
