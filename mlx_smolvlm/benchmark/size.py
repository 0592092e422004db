"""Cost against size: more pictures, longer contexts."""

from collections.abc import Iterator

from .benchmark_run import QUESTION, BenchmarkRun
from .generated_inputs import prompt_of
from .measurement import Measurement, peak_over, reset_memory


def size(run: BenchmarkRun) -> Iterator[Measurement]:
    """Time to the first token and peak memory for each number of pictures and each context, and decoding after it.

    What does not fit into the model's context is left out.
    """
    settings = run.settings
    run.answer(QUESTION, images=[str(run.picture)], max_tokens=2)  # does not count
    for count in settings.pictures:
        paths = [str(path) for path in run.pictures(count)]
        yield from _answers(run, f"{count} pictures", QUESTION, images=paths, max_tokens=1)
    for context in settings.contexts:
        try:
            prompt = prompt_of(run.processor, context)
        except ValueError as error:
            run.progress.stage(f"size: {context} tokens left out: {error}")
            continue
        yield from _answers(run, f"{context} tokens", prompt, max_tokens=settings.new_tokens)


def _answers(run: BenchmarkRun, name: str, prompt: str, **options: object) -> Iterator[Measurement]:
    base = reset_memory()
    try:
        answers = run.repeated(f"size: {name}", lambda: run.answer(prompt, **options), is_warm=True)
    except ValueError as error:
        run.progress.stage(f"size: {name} left out: {error}")
        return
    note = f"{answers[0].prompt_tokens} tokens"
    yield Measurement("size", f"{name}: first token", "s", [a.timing.time_to_first_token for a in answers], note)
    yield Measurement("size", f"{name}: peak memory over the weights", "MB", [peak_over(base)], note)
    if answers[0].timing.vision:
        yield Measurement("size", f"{name}: vision", "s", [a.timing.vision for a in answers], note)
    yield Measurement("size", f"{name}: prefill", "s", [a.timing.prefill for a in answers], note)
    if answers[0].completion_tokens > 1:
        speeds = [answer.decode_tokens_per_second for answer in answers]
        yield Measurement("size", f"{name}: decode", "tokens/s", speeds, note)
