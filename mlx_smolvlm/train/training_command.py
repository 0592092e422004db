"""`train` without `--check`: everything from the arguments to the folder that is made."""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..api.finding import find_checkpoint
from ..api.loading import DEMO_MODEL, default_dtype, load_model, refuse_retriever
from ..batch.ranks import Ranks
from ..command_line.arguments import media_options
from ..command_line.drawings import check_plot
from ..command_line.progress import Progress, counted, duration, per_second
from ..command_line.signals import Interruption, Stopping, if_held_up
from ..command_line.standard_streams import say, shown
from ..command_line.waiting import Waiting
from ..convert.checkpoint import convert_checkpoint
from ..files import refuse_to_replace
from ..media.reporting import reported_to
from ..model.checkpoint_folder import ADAPTER_CONFIG, PEFT_WEIGHTS, check_folder
from ..model.config import read_model_config
from ..model.json_fields import read_json
from ..model.smolvlm import SmolVLM
from ..processor.processor import load_processor
from .group import begin_alike, check_alike, shared_cancel
from .identity import folder_digest
from .learning.batch_parts import let_parts_run_together
from .learning.batches import StepPlan
from .learning.micro_batches import MicroBatches
from .learning.preferences import SHOWN
from .learning.step_memory import MemoryPlan
from .learning.stored_features import StoredFeatures
from .learning.trainable import Trainable
from .outputs import output_folders, write_output
from .recipe import Recipe
from .reports.loss_plot import write_plot
from .reports.training_report import write_report
from .run_data import RunData, read_data
from .run_folder import FEATURES, RECORD, RunFolder, refuse_changes
from .run_memory import memory_of
from .training import TrainingRun
from .validation import LOSS, Validation, best_step

_WORTH_SAYING = 10**8  # bytes of disk
_MUCH_WORSE = 2  # times the first loss: more than rows differ
_LARGEST = 1e4  # of numbers in weights that are of use


def run_training(arguments: argparse.Namespace, recipe: Recipe, ranks: Ranks) -> None:
    """Train, and write the output.

    Raises:
        ValueError, FileNotFoundError, FileExistsError, OSError: what is wrong with arguments, rows, model or disk.
        SystemExit: a signal ended the run; its state is kept.
    """
    let_parts_run_together()
    out, merged = output_folders(arguments, recipe)
    if arguments.plot is not None:
        check_plot(Path(arguments.plot).expanduser())
    base = find_checkpoint(arguments.model or DEMO_MODEL)
    check_folder(base)
    config = read_model_config(base)
    refuse_retriever(base, config)
    if merged is not None and config.quantization:
        raise ValueError(f"--merge cannot merge into {base}, which is quantized; use the adapter with --adapter-path")
    init = [] if recipe.init_adapter is None else [find_checkpoint(recipe.init_adapter)]
    processor = load_processor(base, config, init)
    with ExitStack() as opened:
        waiting = opened.enter_context(Waiting(not arguments.quiet and ranks.rank == 0))
        waiting.tell("reading the rows")
        data = read_data(arguments, recipe, processor)
        record: dict[str, Any] = {
            "options": recipe.as_json() | {"processes": ranks.size},
            "model": folder_digest(base, ["config.json", "*.safetensors"]),
            "init_adapter": folder_digest(init[0], [ADAPTER_CONFIG, PEFT_WEIGHTS]) if init else None,
            "data": data.digest,
        }
        check_alike(ranks, record)
        if arguments.resume and (out / RECORD).is_file():
            refuse_changes(read_json(out / RECORD), record, out)
            if ranks.rank == 0 and (RunFolder(out).path / RECORD).is_file():  # it was killed just before the end
                opened.enter_context(RunFolder(out)).remove()
            waiting.stop()
            if merged is None or merged.exists():
                say(f"{shown(out)} is finished: nothing is left to do")
            else:
                _merge(base, out, merged, ranks, arguments.quiet)
            return
        refuse_to_replace(out)
        folder = opened.enter_context(RunFolder(out)) if ranks.rank == 0 else None
        if folder is not None and folder.has_state and not arguments.resume:
            raise ValueError(
                f"{folder.path} holds a run that was stopped; add --resume to go on, or remove that folder"
            )
        waiting.tell("loading the model")
        load = partial(load_model, base, config, recipe.dtype or default_dtype(), fuse=False, is_lazy=True)
        model = load()
        trainable = Trainable(model, recipe, init[0] if init else None)
        memory = memory_of(trainable, recipe, processor.config.image_seq_len, data, ranks.size)
        plan = StepPlan(
            data.lengths[: data.num_trained],
            recipe.batch_size * recipe.accumulate * ranks.size,
            seed=recipe.seed,
            shuffle=recipe.shuffle,
        )
        if recipe.max_memory_gb is not None:  # buffers that MLX keeps for later count as well
            spare = int(recipe.max_memory_gb * 1e9) - memory.bound_bytes
            opened.callback(mx.set_cache_limit, mx.set_cache_limit(spare))
        epochs = recipe.run_epochs
        num_steps = recipe.steps or (epochs or 1) * plan.steps_per_epoch
        features = _features(arguments, trainable, folder, data, load if ranks.size == 1 else None)
        batches = MicroBatches(trainable, data.examples, features, are_pairs=recipe.preference)
        validation = None
        if folder is not None and data.num_held:
            options = media_options(arguments)
            validation = Validation(trainable, recipe, processor, data, batches, memory, num_steps, options)
        given = {name: value for name, value in recipe.as_json().items() if value != getattr(Recipe, name)}
        facts = {"model": arguments.model or DEMO_MODEL, "rows": arguments.data, "method": trainable.method} | given
        run = TrainingRun(
            trainable,
            recipe,
            data,
            batches,
            plan,
            memory,
            folder,
            num_steps=num_steps,
            validation=validation,
            on_validated=lambda: _write_report(folder, facts, run, validation, arguments.plot),
            save_every=arguments.save_every,
            rank=ranks.rank,
            num_ranks=ranks.size,
        )
        if folder is not None:
            if folder.has_state:
                folder.check_same(record)
                run.restore(*folder.load())
            else:
                folder.begin(record)
        begin_alike(ranks, run.optimization)
        waiting.stop()
        is_shown = ranks.rank == 0 and not arguments.quiet
        if is_shown:
            _say_plan(trainable, data, run, memory, arguments.resume)
            if features is not None and (size := features.bytes_of(data.examples)) > _WORTH_SAYING:
                say(f"image features take at most {size / 1e9:.1f} GB of disk while it trains")
        _train(run, ranks, out, is_shown)
        if folder is not None:
            _write_report(folder, facts, run, validation, arguments.plot)
            if validation is not None and (best := best_step(run.records)) is not None:
                trainable.parameters |= folder.load_best(best)
                record["best_step"] = best
            write_output(folder, trainable, base, str(arguments.model or DEMO_MODEL), record)
            folder.remove()
    if is_shown:
        say(f"wrote {shown(out)}; report.html in it shows how it went")
    if merged is not None:
        _merge(base, out, merged, ranks, arguments.quiet)


def _merge(base: Path, out: Path, merged: Path, ranks: Ranks, is_quiet: bool) -> None:
    if ranks.rank == 0:
        convert_checkpoint(base, merged, adapter_path=out)
        if not is_quiet:
            say(f"wrote {shown(merged)}, which is merged")


def _write_report(
    folder: RunFolder | None, facts: dict[str, Any], run: TrainingRun, validation: Validation | None, plot: str | None
) -> None:
    """The page about the run, and its drawing, so far."""
    if folder is None:
        return
    title = f"Training {folder.out.name}"
    answers = validation.held_answers(run.records) if validation is not None else ()
    write_report(folder.report, title, facts, run.records, answers)
    if plot is not None:
        write_plot(Path(plot).expanduser(), title, run.records)


def _features(
    arguments: argparse.Namespace,
    trainable: Trainable,
    folder: RunFolder | None,
    data: RunData,
    load: Callable[[], SmolVLM] | None,
) -> StoredFeatures | None:
    """Where image features come from; None if they change while it trains."""
    if not trainable.encoder_is_frozen:
        if arguments.feature_cache is not None:
            raise ValueError("--feature-cache: the encoder or the connector is trained, so its features change")
        return None
    if arguments.feature_cache is not None and Path(arguments.feature_cache).expanduser().is_file():
        raise ValueError(f"--feature-cache {arguments.feature_cache} is a file; name a folder")
    if not any(example.num_tiles for example in data.examples):
        return None
    own = folder.path / FEATURES if folder is not None else None
    return StoredFeatures(
        trainable.model, Path(arguments.feature_cache).expanduser() if arguments.feature_cache else own, load
    )


def _say_plan(trainable: Trainable, data: RunData, run: TrainingRun, memory: MemoryPlan, resume: bool) -> None:
    """Two lines before it begins."""
    done, num_steps = run.optimization.step, run.optimization.num_steps
    examples = data.examples[: data.num_trained * data.rows_per_unit]
    counts = sum(int(example.trained.sum()) for example in examples), sum(len(row.input_ids) for row in examples)
    held = f"{data.num_held:,} {'is' if data.num_held == 1 else 'are'} held, " if data.num_held else ""
    say(
        f"{trainable.method}: {trainable.num_parameters:,} parameters, {counted(data.num_trained, 'row')}, {held}"
        f"{counts[0]:,} of {counted(counts[1], 'token')} are trained"
    )
    if run.warmup > num_steps:
        say(f"note: --warmup {run.warmup} is longer than the run, so the rate stays below --learning-rate")
    again = ", activations computed again" if memory.checkpoint else ""
    where = f"from step {done + 1} on" if done else "nothing was saved, so from the beginning" if resume else ""
    steps = ", ".join(filter(None, [counted(num_steps, "step"), where]))
    at_once = counted(memory.max_tokens, "token")
    say(f"{steps}; {at_once} at a time{again}, at most {memory.bound_bytes / 1e9:.2f} GB of memory")
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory.bound_bytes > installed:
        say(
            f"note: this machine has {installed / 1e9:.0f} GB; --grad-checkpoint takes less, --max-memory keeps a bound"
        )


def _train(run: TrainingRun, ranks: Ranks, out: Path, is_shown: bool) -> None:
    optimization, start, num_tokens = run.optimization, time.monotonic(), 0
    first = optimization.step
    unheard = reported_to(lambda *_: None)  # the bar stands in the line that would say which image is read
    stopping = Stopping("stopping after this step, which is saved", again=lambda: None)
    told = if_held_up(stopping.noticed) if ranks.rank == 0 else nullcontext()
    with Interruption() as interruption, Progress(is_shown) as progress, unheard, told:
        run.prepare(
            interruption.cancel,
            lambda num_rows: progress.stage("encoding images", total=num_rows, unit="rows"),
            progress.advance,
        )
        progress.stage(total=optimization.num_steps, unit="steps", done=first)
        for report in run.steps(interruption.cancel, lambda is_set: shared_cancel(ranks, is_set)):
            num_tokens += report.num_tokens
            rate = per_second(report.num_tokens / max(report.seconds, 1e-9), "tokens")
            loss = "no trained tokens" if report.loss is None else f"loss {report.loss:.4f}"
            pairs = [f"{name.partition('/')[2]} {report.measures[name]:.2f}" for name in SHOWN if report.measures]
            progress.advance(note=", ".join([loss, *pairs, rate, f"{mx.get_peak_memory() / 1e9:.2f} GB"]))
    if run.has_converged:
        if is_shown:
            say(f"validation got no better; ended after step {optimization.step}")
    elif optimization.step < optimization.num_steps:
        if ranks.rank == 0:
            where = f"after step {optimization.step}, which is kept" if optimization.step else "before the first step"
            say(f"stopped {where}; run the same command with --resume to go on")
        interruption.conclude()
        raise SystemExit(0)
    if is_shown and optimization.step > first:
        seconds = time.monotonic() - start
        steps = counted(optimization.step - first, "step")
        say(f"{steps} in {duration(seconds)}, {per_second(num_tokens / seconds, 'tokens')}")
        for line in _what_was_learned(run):
            say(line)


def _what_was_learned(run: TrainingRun) -> Iterator[str]:
    """The losses at the beginning and the end of the whole run: of rows that are trained, and of held ones."""
    losses = [record["loss"] for record in run.records if record.get("loss") is not None]
    if len(losses) > 1:
        yield f"loss: {losses[0]:.4f} in the first step, {losses[-1]:.4f} in the last"
    if losses and run.last_loss is not None and run.last_loss > _MUCH_WORSE * losses[0] + 1:
        yield (
            f"note: the loss rose from {losses[0]:.4g} in the first step to {run.last_loss:.4g} after the last; the "
            "result is worse than what it began with, and --learning-rate may be too high"
        )
    if (largest := run.largest_number) > _LARGEST:
        yield f"note: the result holds numbers as large as {largest:.3g}; --learning-rate may be too high"
    held = {record["step"]: record[LOSS] for record in run.records if LOSS in record}
    if (best := best_step(run.records)) is not None:
        yield f"loss on held rows: {held[min(held)]:.4f} before, {held[best]:.4f} after step {best}, which is kept"
