"""`python -m mlx_smolvlm.evaluate`: arguments, signals and printing."""

import argparse
import math
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .. import __version__
from ..command_line import starting
from ..command_line.adapter_arguments import add_adapter_argument, loading_options, model_name
from ..command_line.progress import Progress, counted, duration, per_second
from ..command_line.runner import CommandLine, output_path, path_argument, print_json, refuse_tracebacks
from ..command_line.signals import Interruption, leave_threads
from ..command_line.standard_streams import say, shown
from ..command_line.waiting import Waiting
from .data.row_files import RowFiles, read_rows
from .mini.mini_arguments import add_mini_arguments, data_files, set_defaults
from .other_modes import add_other_modes, run_other_mode, unused_by_listing
from .prompts.row_notes import say_notes
from .prompts.row_prompts import (
    CHAT,
    MAX_TOKENS,
    PROTOCOLS,
    VLMEVALKIT,
    listed_prompts,
    wrapper_for,
    wrapper_of_checkpoint,
)
from .prompts.wrapper_prompts import WRAPPERS
from .scoring.judge import KEY_VARIABLE, Judge
from .scoring.scorers import SCORERS

_ROWS_PER_CLEANING = 64
_SOME_FAILED = 1  # exit status
_MOST_GIB = 2.0**30  # more is no bound


def main() -> None:
    """Run the command line; exits with 1 if rows failed, with 2 and one line on bad input, with 130 or 143 when
    interrupted."""
    with refuse_tracebacks():
        status = _run(_parser().parse_args())
    sys.exit(status)


def _run(arguments: argparse.Namespace) -> int:
    defaults = _parser().parse_args([])
    if (status := run_other_mode(arguments, defaults)) is not None:
        return status
    unused = unused_by_listing(arguments, defaults) if arguments.print_prompts else []
    set_defaults(arguments, protocol=VLMEVALKIT, max_tokens=MAX_TOKENS)
    _check(arguments)
    root = arguments.image_root.expanduser() if arguments.image_root else None
    if root is not None and not root.is_dir():
        raise FileNotFoundError(f"--image-root {root}: there is no such folder")
    with ExitStack() as opened:
        with Waiting(not arguments.quiet) as waiting:
            waiting.tell("reading the data")
            paths = data_files(arguments, opened)
            found = read_rows(paths, arguments.dataset, root)
        found.rows = found.rows[: arguments.limit]
        if arguments.print_prompts:
            _print_prompts(arguments, found)
            if unused:
                say(f"note: --print-prompts asks no model; not used: {', '.join(unused)}")
            return 0
        return _evaluate(arguments, found, paths)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what has no meaning together, before anything is read. Raises ValueError."""
    if arguments.dataset == "":
        raise ValueError("--dataset is empty; name a set, or leave it out")
    if not arguments.data:
        raise ValueError("name the data: .tsv, .csv or .jsonl files, or mini")
    if not arguments.print_prompts and arguments.out is None:
        raise ValueError("nothing says where the results go; name a folder by --out DIR, or add --print-prompts")
    for name in ("batch_size", "max_tokens", "limit"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}, expected at least 1")
    if (arguments.judge is None) != (arguments.judge_model is None):
        raise ValueError("--judge URL and --judge-model NAME belong together; give both, or none")
    if arguments.judge is not None:
        Judge(arguments.judge, arguments.judge_model)
    if not 0 < arguments.max_cache_gib < math.inf:
        raise ValueError(f"--max-cache-gib is {arguments.max_cache_gib:g}, expected a number above 0")
    if arguments.protocol == CHAT and arguments.wrapper is not None:
        raise ValueError("--wrapper chooses VLMEvalKit's prompts, and --protocol chat has its own; leave one out")


def _print_prompts(arguments: argparse.Namespace, found: RowFiles) -> None:
    if arguments.protocol == CHAT:
        from .runs.chat_listing import listed_chats  # imports MLX

        chats = listed_chats(found.rows, arguments.model, loading_options(arguments))
        for listed in chats:
            print_json(listed)
    else:
        loading_options(arguments)  # without --model, an adapter's base is the model
        for listed in listed_prompts(found.rows, wrapper_for(arguments.model, arguments.wrapper)):
            print_json(listed)
    say_notes(found, arguments.protocol)


def _evaluate(arguments: argparse.Namespace, found: RowFiles, paths: list[Path]) -> int:
    """The run; returns the exit status."""
    with ExitStack() as opened:
        with Waiting(not arguments.quiet) as waiting:
            waiting.tell("loading the model")
            with starting.importing():
                from ..api.finding import find_checkpoint
                from ..api.loading import DEMO_MODEL, default_dtype, load
                from ..api.session_file import model_fingerprint
                from .runs.eval_report import write_summary
                from .runs.eval_run import Asking, EvalRun
                from .runs.evaluation_folder import EvaluationFolder, file_digest, read_run
                from .runs.summary import summary_text

            read_run(arguments.out, is_new_allowed=True)  # what it is refused for is said before a model is loaded
            if arguments.dtype is None and arguments.protocol == VLMEVALKIT:
                arguments.dtype = "float32"
            loading = loading_options(arguments)
            name = model_name(arguments)
            model_path = arguments.model or DEMO_MODEL
            model, processor = load(model_path, **loading)
            found_at = find_checkpoint(model_path, revision=loading.get("revision"))
            choice = wrapper_of_checkpoint(arguments.model, found_at, arguments.wrapper)
            waiting.tell("reading the data")
            settings = {
                "version": __version__,
                "model": name,
                "fingerprint": model_fingerprint(model),
                "dtype": arguments.dtype or default_dtype(),
                "protocol": arguments.protocol,
                "wrapper": choice.wrapper if arguments.protocol == VLMEVALKIT else None,
                "frame_edge": choice.frame_edge if arguments.protocol == VLMEVALKIT else None,
                "max_tokens": arguments.max_tokens,
                "scorer": arguments.scorer,
                "dataset": arguments.dataset,
                "rows": len(found.rows),
                "data": [{"name": path.name, "sha256": file_digest(path)} for path in paths],
            }
            keys = [row.key for row in found.rows]
            folder = opened.enter_context(EvaluationFolder(arguments.out, settings, keys))
            folder.note_places(paths, arguments.image_root)
        if not folder.done:  # a run that goes on has said it
            say_notes(found, arguments.protocol)
        asking = Asking(
            arguments.protocol,
            choice,
            max_tokens=arguments.max_tokens,
            batch_size=arguments.batch_size,
            max_cache_bytes=int(min(arguments.max_cache_gib, _MOST_GIB) * 2**30),
            scorer=arguments.scorer,
        )
        import mlx.core as mx

        todo, start, failed = found.rows[folder.done :], time.monotonic(), 0
        with Interruption(second=leave_threads) as interruption, Progress(not arguments.quiet) as progress:
            progress.stage(total=len(todo), unit="rows")
            run = EvalRun(model, processor, asking, interruption.cancel)
            for number, (result, timing) in enumerate(run.results(todo), 1):
                folder.add(result, timing)
                failed += result["finish_reason"] == "error"
                progress.advance(note=f"{failed} failed")
                if number % _ROWS_PER_CLEANING == 0:
                    mx.clear_cache()  # buffers of lengths that may not come again
        seconds = time.monotonic() - start
        if interruption.received is not None:
            say(f"stopped; what was done is kept in {shown(folder.path)}. Run the same command again to do the rest")
        interruption.conclude()
        judged = _judged(arguments, folder.path, found) if arguments.judge else None
        summary = write_summary(folder.path, found.rows, settings, judged)
    print(summary_text(summary))
    if not arguments.quiet:
        rate = per_second(len(todo) / max(seconds, 1e-9), "rows")
        done = f"{counted(len(todo), 'row')} in {duration(seconds)}, {rate}" if todo else "nothing was left to do"
        say(f"{done}; see {shown(folder.path)}")
        if truncated := sum(figures["truncated"] for figures in summary["sets"].values()):
            answers = f"{counted(truncated, 'answer')} {'is' if truncated == 1 else 'are'}"
            say(f"note: {answers} cut, by --max-tokens {arguments.max_tokens} or the end of the model's context")
    has_failed = any(figures["failed"] for figures in summary["sets"].values()) or (judged and judged["failed"])
    return _SOME_FAILED if has_failed else 0


def _judged(arguments: argparse.Namespace, folder: Path, found: RowFiles) -> dict[str, Any]:
    """What the judge says of a run."""
    from .runs.evaluation_folder import read_results
    from .scoring.judge import judge_run

    with Progress(not arguments.quiet) as progress:

        def advance(done: int, total: int) -> None:
            if done == 1:
                progress.stage(total=total, unit="rows judged")
            progress.advance()

        judge = Judge(arguments.judge, arguments.judge_model)
        return judge_run(folder, judge, found.rows, read_results(folder), advance)


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="python -m mlx_smolvlm.evaluate",
        description="Score a model on local data, with the prompts and scores of VLMEvalKit. Run the same command "
        "again to go on after an interruption.",
        epilog="Exit status: 0 if all rows were answered, 1 if some failed (results.jsonl says why), 2 if the run "
        "could not be done, 130 or 143 if it was stopped.",
    )
    what = parser.add_argument_group("what to ask")
    what.add_argument(
        "data",
        nargs="*",
        metavar="DATA",
        help="rows: .tsv or .csv with VLMEvalKit's columns, .jsonl with the same names as fields, or mini",
    )
    what.add_argument("--model", metavar="PATH_OR_HUB_ID", help="checkpoint (default: the embedded demo model)")
    add_adapter_argument(what)
    what.add_argument("--dataset", metavar="NAME", help="VLMEvalKit's name of the set (default: the file's name)")
    what.add_argument("--image-root", type=path_argument, metavar="DIR", help="where paths in rows count from")
    what.add_argument("--limit", type=int, metavar="N", help="only the first N rows, to try things out")

    how = parser.add_argument_group("how to ask and score")
    how.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        help="VLMEvalKit's raw prompts, or the model's chat template (default: vlmevalkit; chat for mini alone)",
    )
    how.add_argument(
        "--wrapper", choices=tuple(WRAPPERS), help="whose prompts: SmolVLM's or SmolVLM2's (default: by the model)"
    )
    how.add_argument(
        "--print-prompts",
        action="store_true",
        help="only print prompts, images and their order, a line of JSON each; no model is loaded",
    )
    how.add_argument("--scorer", choices=tuple(SCORERS), help="for all rows that name none (default: by the set)")
    how.add_argument("--max-tokens", type=int, metavar="N", help="most tokens of an answer (default: 2048; mini: 64)")
    how.add_argument(
        "--judge",
        metavar="URL",
        help="OpenAI-compatible address of a model to ask about answers that no rule can match; its scores stand "
        f"beside those by rules ({KEY_VARIABLE} of the environment is its key)",
    )
    how.add_argument("--judge-model", metavar="NAME", help="the name under which the judge is served")
    how.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="default: float32 with VLMEvalKit's prompts, as there",
    )

    where = parser.add_argument_group("where results go, and how many are made at a time")
    where.add_argument(
        "--out", type=output_path, metavar="DIR", help="folder for results.jsonl, summary.json, report.html"
    )
    where.add_argument("--batch-size", type=int, default=32, metavar="N", help="most answers at a time (default: 32)")
    where.add_argument(
        "--max-cache-gib", type=float, default=2.0, metavar="G", help="most memory for keys and values (default: 2)"
    )
    where.add_argument("--quiet", action="store_true", help="nothing on stderr but errors and notes")
    add_mini_arguments(parser)
    add_other_modes(parser)
    return parser


if __name__ == "__main__":
    main()
