"""Many prompts answered together: each answer is the one that its prompt gets alone, in memory that is bounded.

One file: every test answers the same few requests, by the helpers at its top.
"""

import gc
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from threading import Event

import pytest
from support.media import picture, video_path
from support.slow_cases import slow

from mlx_smolvlm import DEMO_MODEL, BatchRequest, GenerationOptions, MediaOptions, generate_batch, load, stream_generate
from mlx_smolvlm.benchmark.generated_inputs import write_picture
from mlx_smolvlm.benchmark.geometries import GEOMETRIES, make_checkpoint
from mlx_smolvlm.engine import preparing
from mlx_smolvlm.engine.row_decoding import RowDecoder
from mlx_smolvlm.model.caches.batch_cache import BatchCache
from mlx_smolvlm.processor.prompt_media import LoadedImage

DEMO = DEMO_MODEL.parent
TILE = MediaOptions(do_image_splitting=False)
# Of very different lengths: text alone, pictures as one tile and as many, two pictures, a video.
REQUESTS = [
    BatchRequest("Hello"),
    BatchRequest("Describe the picture.", [str(DEMO / "picture.png")]),
    BatchRequest("What shape is it? " * 20, [str(DEMO / "first.png")]),
    BatchRequest("What is <image> beside <image>?", [str(DEMO / "first.png"), str(DEMO / "second.png")]),
    BatchRequest("Which way does the shape move?", videos=[str(DEMO / "clip.mp4")]),
    BatchRequest([{"role": "user", "content": [{"type": "text", "text": "What color is it?"}]}]),
    BatchRequest("What color is the shape?", [str(DEMO / "second.png")]),
]
FORM = {
    "type": "object",
    "properties": {"shape": {"type": "string", "maxLength": 12}, "count": {"type": "integer"}},
    "required": ["shape", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def demo():
    """The demo model, whose answers differ in length and end by themselves."""
    return load(DEMO_MODEL, dtype="float32")


def told(text, token_ids, finish_reason, prompt_tokens, image_tokens):
    """What two ways of answering are to agree on."""
    return text, token_ids, finish_reason, prompt_tokens, image_tokens


def alone(pair, request, options, media):
    steps = list(
        stream_generate(
            *pair,
            request.messages_or_prompt,
            images=list(request.images),
            videos=list(request.videos),
            **vars(options),
            **vars(media),
        )
    )
    last = steps[-1]
    ids = [step.token_id for step in steps]
    return told("".join(step.text for step in steps), ids, last.finish_reason, last.prompt_tokens, last.image_tokens)


def together(pair, requests, options=None, media=None, **how):
    answers = {}
    for answer in generate_batch(*pair, requests, options=options, media_options=media, **how):
        assert answer.index not in answers
        assert answer.error is None
        answers[answer.index] = told(
            answer.text, answer.token_ids, answer.finish_reason, answer.prompt_tokens, answer.image_tokens
        )
    return [answers[index] for index in range(len(answers))]


@pytest.mark.parametrize(
    "options",
    [
        {},
        slow({"temperature": 1.5, "seed": 3, "top_p": 0.9, "top_k": 50}),
        {"temperature": 1.0, "seed": 4, "min_p": 0.01, "repetition_penalty": 1.3},
        slow({"repetition_penalty": 1.5}),
        {"stop": ("is", " a ")},
        {"max_tokens": 1},
        {"regex": "(yes|no|maybe so)"},
        {"json_schema": FORM, "temperature": 1.0, "seed": 5, "max_tokens": 30},
        {"skip_special_tokens": False, "max_tokens": 2},
    ],
    ids=lambda options: ", ".join(options) or "greedy",
)
def test_answers_are_those_that_each_prompt_gets_alone(demo, options):
    requests = [REQUESTS[number] for number in (1, 2, 0, 6)] if options else REQUESTS
    options = GenerationOptions(**{"max_tokens": 16, **options})
    expected = [alone(demo, request, options, TILE) for request in requests]
    assert together(demo, requests, options, TILE, batch_size=3) == expected


@pytest.mark.parametrize("name", ["smolvlm_256m", "idefics3"])
def test_every_geometry_answers_together_as_it_does_alone(loaded, name):
    """Pictures in many tiles, read in portions that cut through them."""
    pair, options = loaded(name), GenerationOptions(max_tokens=12)
    requests = [BatchRequest("Hello")]
    requests += [BatchRequest("What is it?", [picture(image)]) for image in ("landscape", "tiny")]
    expected = [alone(pair, request, options, MediaOptions()) for request in requests]
    assert together(pair, requests, options, MediaOptions(), prefill_chunk=50) == expected


@pytest.mark.parametrize("how", [{"batch_size": 1}, {"batch_size": 32}, {"max_cache_bytes": 1}, {"prefill_chunk": 7}])
def test_how_many_are_answered_at_a_time_changes_nothing(demo, how):
    options = GenerationOptions(max_tokens=12)
    requests = REQUESTS[:4]
    assert together(demo, requests, options, TILE, **how) == together(demo, requests, options, TILE, batch_size=2)


class AtOnce:
    """An executor that does everything when it is asked to."""

    def __init__(self, *_, **__):
        pass

    def submit(self, function, *arguments):
        done = Future()
        done.set_result(function(*arguments))
        return done

    def shutdown(self, **_):
        pass


def test_a_finished_answer_makes_room_for_the_next_prompt(demo, monkeypatch):
    """Rows never outnumber the bound, and short answers do not wait for a long one."""
    sizes, original = [], RowDecoder.step

    def step(self):
        sizes.append(len(self))
        return original(self)

    monkeypatch.setattr(RowDecoder, "step", step)
    monkeypatch.setattr(preparing, "ThreadPoolExecutor", AtOnce)  # however busy the machine is
    answers = together(
        demo, [REQUESTS[number % 3] for number in range(12)], GenerationOptions(max_tokens=16), TILE, batch_size=4
    )
    assert max(sizes) == 4
    assert sum(sizes) == sum(len(token_ids) for _, token_ids, *_ in answers)
    few = next((step for step, size in enumerate(sizes) if size < 4), len(sizes))
    assert sizes[few:] == sorted(sizes[few:], reverse=True)  # with few rows there are no prompts left to fill them


def test_the_bound_on_memory_bounds_the_rows(demo, monkeypatch):
    sizes, original = set(), BatchCache.arrange

    def arrange(self, rows, num_rows):
        sizes.add(num_rows * self.bytes_per_row(256))
        original(self, rows, num_rows)

    monkeypatch.setattr(BatchCache, "arrange", arrange)
    limit = 3 * BatchCache(demo[0].config.text, 4).bytes_per_row(256)
    together(demo, [BatchRequest("Hello")] * 9, GenerationOptions(max_tokens=8), max_cache_bytes=limit)
    assert max(sizes) == limit


def test_prompts_are_taken_as_room_is_made(demo):
    taken = count()
    requests = (BatchRequest(f"Hello {next(taken)}") for _ in count())
    answers = generate_batch(*demo, requests, batch_size=2, options=GenerationOptions(max_tokens=2))
    assert {next(answers).index for _ in range(4)} <= set(range(8))
    answers.close()
    assert next(taken) < 20


def test_answers_may_be_taken_in_another_thread(demo):
    answers = generate_batch(*demo, REQUESTS[:2])
    with ThreadPoolExecutor(1) as pool:
        assert {answer.index for answer in pool.submit(list, answers).result()} == {0, 1}


def test_closing_does_not_wait_for_whole_prompts(demo, monkeypatch):
    model, processor = demo
    ended = []

    class Slow:
        @contextmanager
        def prepare(self, messages_or_prompt, *arguments, check_cancelled, **options):
            if messages_or_prompt == "slow":
                for _ in range(1000):
                    time.sleep(0.02)
                    check_cancelled()
                ended.append("whole")
            with processor.prepare(messages_or_prompt, *arguments, **options) as prompt:
                yield prompt

        def __getattr__(self, name):
            return getattr(processor, name)

    answers = generate_batch(model, Slow(), [BatchRequest("Hello"), BatchRequest("slow")], batch_size=1)
    next(answers)
    start = time.monotonic()
    answers.close()
    assert time.monotonic() - start < 5
    assert not ended


def test_pixels_are_not_kept_while_an_answer_is_made(demo, monkeypatch):
    step, kept = RowDecoder.step, []

    def noted(self):
        gc.collect()
        kept.append(sum(isinstance(thing, LoadedImage) for thing in gc.get_objects()))
        return step(self)

    monkeypatch.setattr(RowDecoder, "step", noted)
    gc.collect()
    gc.freeze()  # only what comes from here on is looked at, again and again
    answers = list(generate_batch(*demo, REQUESTS[1:4]))
    assert kept[-1] == 0
    assert [answer.image_tokens > 0 for answer in answers] == [True] * 3


def test_cancelling_ends_it(demo):
    cancel = Event()
    answers = generate_batch(
        *demo, (BatchRequest("Hello") for _ in count()), cancel=cancel, options=GenerationOptions(max_tokens=2)
    )
    next(answers)
    cancel.set()
    assert len(list(answers)) < 40


def test_a_repeated_call_draws_again_without_a_seed(demo):
    options = GenerationOptions(max_tokens=24, temperature=5.0)
    texts = {answer.text for answer in generate_batch(*demo, [BatchRequest("Hello")] * 4, options=options)}
    assert len(texts) == 4


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"prefill_chunk": 2.0}, "prefill_chunk is 2.0"),
        ({"options": GenerationOptions(regex="[a-z]{30}", max_tokens=2)}, "within 2 tokens; raise max_tokens"),
    ],
)
def test_what_fits_no_prompt_is_refused_at_once(demo, how, problem):
    with pytest.raises(ValueError, match=problem):
        generate_batch(*demo, [], **how)


def test_no_prompts_give_no_answers(demo):
    assert list(generate_batch(*demo, [])) == []


def test_videos_are_read_as_the_options_say(demo):
    media, options = MediaOptions(max_frames=2), GenerationOptions(max_tokens=4)
    request = BatchRequest("What?", videos=[str(video_path("short"))])
    assert together(demo, [request], options, media) == [alone(demo, request, options, media)]


@pytest.mark.slow
def test_sixty_four_captions_together_take_less_than_two_fifths_of_the_time(tmp_path):
    """Whole runs, pictures and prompts included, of a model that is nothing but overhead, as small ones are on GPUs."""
    pair = load(make_checkpoint(GEOMETRIES["overhead"], "float32", tmp_path / "model"), dtype="float32")
    paths = [write_picture(tmp_path / f"{number}.jpg", (512, 384), number) for number in range(64)]
    requests = [BatchRequest("Describe the picture.", [str(path)]) for path in paths]
    options = GenerationOptions(max_tokens=32)
    start = time.perf_counter()
    expected = [alone(pair, request, options, TILE) for request in requests]
    middle = time.perf_counter()
    assert together(pair, requests, options, TILE, batch_size=64) == expected
    alone_s, together_s = middle - start, time.perf_counter() - middle
    print(f"64 captions of 32 tokens: {alone_s:.1f} s one by one, {together_s:.1f} s together")
    assert together_s < alone_s / 2.5
