"""`python -m mlx_smolvlm.chat`: arguments, commands and printing."""

from .command_line import starting  # first: Ctrl-C may come while the rest is imported

# isort: split
import argparse
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .command_line.adapter_arguments import add_adapter_argument
from .command_line.arguments import (
    add_answer_arguments,
    add_media_arguments,
    add_media_sources,
    check_files,
    generation_options,
    media_options,
)
from .command_line.chat_help import HELP
from .command_line.runner import REPORTED, CommandLine, explain_call, one_line, refuse_tracebacks
from .command_line.shown_media import ShownMedia, open_medium, typed_path
from .command_line.signals import Interruption, SingleInterrupts, Stopping, if_held_up
from .command_line.standard_input import check_standard_input
from .command_line.standard_streams import say
from .options import refuse_options

if TYPE_CHECKING:
    from .api.generation import GenerationResponse
    from .api.session import Session
    from .command_line.chat_models import ChatModels
    from .command_line.waiting import Waiting


def main() -> None:
    """Run the command line; exits with 2 and one line on bad arguments."""
    with refuse_tracebacks():
        arguments = _parser().parse_args()
        from .command_line.waiting import Waiting  # --help does without

        with Waiting(not arguments.quiet) as waiting:
            _run(arguments, waiting)


def _run(arguments: argparse.Namespace, waiting: "Waiting") -> None:
    # What is out of range or not there is said before a model is downloaded.
    check_standard_input(arguments, ("system", "json_schema"), "the chat")
    check_files([*arguments.image, *arguments.video, *filter(None, [arguments.load])])
    options, media = generation_options(arguments), media_options(arguments)
    refuse_options(options, ("logprobs",), "a chat prints text alone; generate --json reports them")
    if arguments.quiet and arguments.verbose:
        raise ValueError("--quiet and --verbose exclude each other; leave one out")
    waiting.tell("loading the model")
    with starting.importing():
        from .api.session import Session, check_session_options
        from .command_line.chat_models import ChatModels

    check_session_options(options)
    models = ChatModels(arguments)
    from .command_line.notes import show_demo_note, show_missing_decoder, show_speed_note, with_short_steps

    show_missing_decoder(arguments)
    options = with_short_steps(options)
    session = Session(*models.pair, system=arguments.system, options=options, media_options=media)
    waiting.stop()
    history_name = None if arguments.no_history else "chat-history"
    chat = _Chat(session, arguments.verbose, waiting, history_name, models, arguments.quiet)
    if arguments.load is not None:
        chat.load(arguments.load, arguments.system)
    for kind in ("image", "video"):
        for source in getattr(arguments, kind):
            chat.show(kind, source)
    if not arguments.quiet:
        if arguments.model is None:
            show_demo_note()
        show_speed_note()
    chat.run()


class _Chat:
    """One conversation on the terminal, or with lines from a pipe."""

    def __init__(
        self,
        session: "Session",
        verbose: bool,
        waiting: "Waiting",
        history_name: str | None = None,
        models: "ChatModels | None" = None,
        is_quiet: bool = False,
    ):
        self._session = session
        self._models = models
        self._verbose = verbose
        self._is_quiet = is_quiet
        self._waiting = waiting
        self._shown = ShownMedia()
        self._commands: dict[str, Callable[[str], None]] = {
            "/image": lambda source: self.show("image", source),
            "/video": lambda source: self.show("video", source),
            "/media": lambda text: say(self._shown.obey(text)),
            "/system": self._set_system,
            "/adapter": self._use_adapter,
            "/undo": self._undo,
            "/retry": lambda _: self._answer(self._session.regenerate),
            "/save": self._save,
            "/load": self.load,
            "/new": self._begin_new,
            "/help": lambda _: say(HELP),
        }
        from .command_line.line_editor import LineInput

        self._lines = LineInput([*self._commands, "/quit"], history_name)
        self._is_interactive = self._lines.is_terminal
        self._interrupts = SingleInterrupts(self._is_interactive)

    def run(self) -> None:
        """Answer until the input ends."""
        if self._is_interactive:
            say("/help lists the commands.")
        with self._interrupts:
            while (line := self._next_line()) is not None:
                if line.split(maxsplit=1)[:1] in (["/quit"], ["/exit"]) or line.strip() in ("quit", "exit"):
                    return
                self._obey_or_say(line)

    def _next_line(self) -> str | None:
        """What is typed next; None at the end. However often Ctrl-C is pressed, it clears the line and no more."""
        while True:
            try:
                with self._interrupts.expected(not self._lines.handles_interrupts):
                    return self._lines.next()
            except EOFError:
                return None
            except KeyboardInterrupt:
                if not self._is_interactive:
                    raise
            say("\n(Ctrl-D or /quit ends the chat)")

    def _obey_or_say(self, line: str) -> None:
        try:
            with self._interrupts.expected():
                self._obey(line)
        except BrokenPipeError:
            raise
        except REPORTED as error:
            self._waiting.stop()
            say(f"error: {one_line(error)}")
        except KeyboardInterrupt:
            self._waiting.stop()
            say("(stopped)")

    def show(self, kind: str, source: str) -> None:
        """Add an image or video to the next question. Raises what opening it raises."""
        from .media.images import describe_source

        source = typed_path(source)
        self._waiting.tell(f"opening the {kind}")
        opened = open_medium(kind, source, self._session.media_options, self._is_interactive and self._waiting.stop)
        self._waiting.stop()
        self._shown.add(kind, opened, describe_source(source))
        if self._is_interactive:
            say(f"(goes with the next question: {Path(source).name[:100]})")

    def load(self, path: str, system: str | None = None) -> None:
        """Go on with a saved conversation, with another system prompt if one is given.

        Raises what `Session.load` raises.
        """
        from .api.session import Session

        self._waiting.tell("loading the conversation")
        loaded = Session.load(typed_path(path), self._session.model, self._session.processor)
        self._waiting.stop()
        loaded.options, loaded.media_options = self._session.options, self._session.media_options
        if system is not None:
            loaded.system = system
        self._session = loaded
        say(f"(a conversation of {len(loaded.turns)} question{'s' * (len(loaded.turns) != 1)})")

    def _obey(self, line: str) -> None:
        if not line.strip():
            return
        from .command_line.dropped_media import take_media
        from .media.signatures import is_video

        is_command = line.partition(" ")[0].strip() in self._commands
        question, dropped = (line, []) if is_command else take_media(line)
        for source in dropped:
            self.show("video" if is_video(source) else "image", source)
        if dropped and not question:
            return
        if not dropped and line.startswith("/"):
            name, _, rest = line.partition(" ")
            if name.strip() not in self._commands:
                raise ValueError(f"no command {name.strip()}; /help lists them (a question may begin with a space)")
            self._commands[name.strip()](rest.strip())
            return
        images, videos = self._shown.sources("image"), self._shown.sources("video")
        num_turns = len(self._session.turns)

        def ask(**options: Any) -> Iterator["GenerationResponse"]:
            text = question if dropped else line.strip()
            return self._session.ask(text, images=images, videos=videos, **options)

        try:
            self._answer(ask)
        finally:
            if len(self._session.turns) > num_turns:  # else it goes with the question when it is asked again
                self._shown.clear()

    def _answer(self, ask: Callable[..., Iterator["GenerationResponse"]]) -> None:
        step = None
        # Ctrl-C stops the answer; pressed twice, it also takes the question back.
        with (
            if_held_up(Stopping("stopping when the model has ended its step; Ctrl-C again ends the chat").noticed),
            Interruption([signal.SIGINT], second=signal.default_int_handler) as interruption,
        ):
            try:
                self._waiting.tell("reading the question")
                for step in ask(cancel=interruption.cancel):
                    self._waiting.stop()
                    print(step.text, end="", flush=True)
            finally:
                self._waiting.stop()
                if step is not None:
                    print(flush=True)
        if step is None:
            return
        if step.finish_reason == "cancelled":
            say("(stopped)" if step.completion_tokens else "(stopped; the question is taken back)")
        elif step.finish_reason == "length" and not self._is_quiet:
            length = step.prompt_tokens + step.completion_tokens
            is_full = length >= self._session.processor.config.context_length
            advice = "the model's context is full; /new begins a new conversation" if is_full else "see --max-tokens"
            say(f"(cut at {step.completion_tokens} tokens; {advice})")
        if self._verbose:
            timing = step.timing
            say(
                f"({step.prompt_tokens} tokens of prompt, first token after {timing.time_to_first_token:.2f} s, "
                f"{step.completion_tokens} tokens at {step.decode_tokens_per_second:.1f} tokens/s)"
            )

    def _save(self, path: str) -> None:
        if path == "-":
            raise ValueError("/save - would be standard output, where this is not written to; name a file")
        self._waiting.tell("saving")
        self._session.save(typed_path(path))
        self._waiting.stop()
        say("(saved)")

    def _begin_new(self, _: str) -> None:
        self._session.turns = []
        removed = f"; removed: {self._shown.remove('all')}" if self._shown else ""
        say(f"(a new conversation{removed})")

    def _set_system(self, text: str) -> None:
        self._session.system = text or None

    def _use_adapter(self, text: str) -> None:
        assert self._models is not None
        self._waiting.tell("loading the adapter")
        said = self._models.obey(text)
        self._session.use(*self._models.pair)
        self._waiting.stop()
        say(f"({said})")

    def _undo(self, _: str) -> None:
        undone = self._session.undo()
        question = " ".join(item["text"] for item in undone.content if item["type"] == "text")
        media = self._shown.take_back(undone.content)
        say(f"(taken back: {' '.join(question.split())})")
        if media:
            say(f"(goes with the next question: {media}; /media remove all removes)")


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python -m mlx_smolvlm.chat",
        description="Talk with a SmolVLM model about images and videos; /help in the chat lists its commands.",
    )
    start = parser.add_argument_group("how to begin")
    start.add_argument("--model", metavar="PATH_OR_HUB_ID", help="checkpoint (default: the embedded demo model)")
    add_adapter_argument(start)
    add_media_sources(start)
    start.add_argument("--system", metavar="TEXT", help="system prompt")
    start.add_argument("--load", metavar="FILE", help="a conversation that /save wrote")
    start.add_argument("--verbose", action="store_true", help="token counts and times after each answer")
    start.add_argument("--quiet", action="store_true", help="no notes and no line that says what goes on")
    start.add_argument("--no-history", action="store_true", help="keep nothing of what is typed for later chats")
    add_media_arguments(parser)
    add_answer_arguments(parser)
    return parser


explain_call(__name__, "Session(model, processor)")

if __name__ == "__main__":
    main()
