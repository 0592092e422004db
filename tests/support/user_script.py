"""A user's program: `.ci/check-distributions` type-checks and runs it with the installed wheel, outside the checkout.

`mypy --strict` passes only if the wheel carries its types. Lines that must be errors say which; strict checking also
refuses such a comment where there is no error.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, assert_type

from mlx_smolvlm import (
    DEMO_MODEL,
    BatchAnswer,
    BatchRequest,
    GenerationOptions,
    GenerationResponse,
    MediaOptions,
    Processor,
    RowEvent,
    Rows,
    Session,
    SmolVLM,
    generate_batch,
    generate_text,
    load,
    stream_generate,
)
from mlx_smolvlm.convert import ConversionReport, QuantizationOptions, convert_checkpoint

PICTURE = str(DEMO_MODEL.parent / "picture.png")
VIDEO = str(DEMO_MODEL.parent / "clip.mp4")
QUESTION = "What shape is it?"
ANSWER = "A circle."


def main() -> None:
    """Ask the demo model in every way that a program can."""
    model, processor = load(DEMO_MODEL)
    assert_type(model, SmolVLM)
    assert_type(processor, Processor)

    steps = stream_generate(model, processor, QUESTION, images=[PICTURE], max_tokens=16)
    text = "".join(step.text for step in typed(steps))
    _expect(text, ANSWER)
    _expect(generate_text(model, processor, QUESTION, images=[PICTURE]), ANSWER)

    options, media_options = GenerationOptions(max_tokens=16), MediaOptions(max_frames=16)
    requests = [BatchRequest(QUESTION, [PICTURE]), BatchRequest("Which way does the shape move?", videos=[VIDEO])]
    answers: dict[int, BatchAnswer] = {}
    for answer in generate_batch(model, processor, requests, options=options, media_options=media_options):
        assert_type(answer, BatchAnswer)
        answers[answer.index] = answer
    _expect(answers[0].text, ANSWER)
    _expect(answers[1].text, "The blue shape moves to the right.")

    session = Session(model, processor, options=options)
    _expect("".join(step.text for step in typed(session.ask(QUESTION, images=[PICTURE]))), ANSWER)

    with Rows(model, processor) as rows:
        rows.add(BatchRequest(QUESTION, [PICTURE]), options)
        events: list[RowEvent] = []
        while len(rows):
            events += rows.step()
    _expect("".join(event.text for event in events), ANSWER)
    print("The demo model answers as it should.")


def typed(steps: Iterator[GenerationResponse]) -> Iterator[GenerationResponse]:
    """The same steps; a type checker sees that they are responses."""
    return steps


def converted(folder: str) -> ConversionReport:
    """The converter has its types, too, although its folder stands beside the package."""
    return convert_checkpoint(DEMO_MODEL, folder, quantization=QuantizationOptions(bits=8))


def _expect(text: str, expected: str) -> None:
    if text != expected:
        raise SystemExit(f"the answer is {text!r}, expected {expected!r}")


if TYPE_CHECKING:
    from mlx_smolvlm import stream_genrate  # type: ignore[attr-defined]  # noqa: F401

    stream_generate(*load(DEMO_MODEL), QUESTION, max_token=16)  # type: ignore[call-arg]
    generate_text(*load(DEMO_MODEL), QUESTION, temprature=1.0)  # type: ignore[call-arg]
    generate_batch(*load(DEMO_MODEL), [QUESTION])  # type: ignore[list-item]
    GenerationOptions(temperature="hot")  # type: ignore[arg-type]

if __name__ == "__main__":
    main()
