"""Videos: sampling beside decoding every frame, and the pipeline beside its stages one after the other."""

import time
from collections.abc import Iterator
from typing import Any

from ..api.generation import GenerationResponse
from ..media.video.probing import choose_frames, probe
from ..processor.sampled_video import SampledVideo
from .benchmark_run import QUESTION, BenchmarkRun
from .measurement import Measurement
from .peers import Worker


def video(run: BenchmarkRun) -> Iterator[Measurement]:
    """All of it, on one file."""
    yield from _sampling(run)
    yield from _pipeline(run)


def _sampling(run: BenchmarkRun) -> Iterator[Measurement]:
    """In processes of their own: most memory of a process is known for the whole of it only."""
    path, frames = str(run.clip), run.settings.max_frames

    def both() -> tuple[dict[str, Any], dict[str, Any]]:
        with Worker("video", run) as worker:
            sampled = worker.request("sample_video", video=path, max_frames=frames)
            return sampled, worker.request("decode_video", video=path)

    answers = run.repeated("video: sampling", both)  # the first reads the file into the system's memory
    sampling = [sampled["spent_s"] for sampled, _ in answers]
    whole = [decoded["spent_s"] for _, decoded in answers]
    memory = [(sampled["peak_rss_bytes"] - sampled["base_rss_bytes"]) / 1e6 for sampled, _ in answers]
    note = f"{answers[0][0]['frames']} of {answers[0][1]['frames']} frames, {run.clip.name}"
    ratios = [own / all_frames for own, all_frames in zip(sampling, whole, strict=True)]
    yield Measurement("video", "sampling frames", "s", sampling, note)
    yield Measurement("video", "decoding every frame", "s", whole, note)
    yield Measurement("video", "sampling / decoding every frame", "ratio", ratios, note)
    yield Measurement("video", "peak memory of sampling", "MB", memory, "of the process, over its base")


def _pipeline(run: BenchmarkRun) -> Iterator[Measurement]:
    """To the first token: while frames are decoded, and after they have been."""
    processor = run.processor
    path, frames = str(run.clip), run.settings.max_frames
    sampling = processor.config.video
    if sampling is None:
        return
    sample = choose_frames(probe(path), sampling.fps, frames)

    def both() -> tuple[float, GenerationResponse, GenerationResponse]:
        """Seconds of decoding, the answer after it, and the answer with both together."""
        start = time.perf_counter()
        inputs = processor(QUESTION, videos=[path], max_frames=frames)
        decoding_s = time.perf_counter() - start
        tiles = [] if inputs.pixel_values is None else list(inputs.pixel_values)
        given = SampledVideo(tiles, sample.timestamps_s, sample.duration_s, are_tiles=True)
        after = run.answer(QUESTION, videos=[given], max_tokens=1)
        together = run.answer(QUESTION, videos=[path], max_frames=frames, max_tokens=1)
        if together.prompt_ids != after.prompt_ids:
            raise ValueError(f"{path}: the two ways give different prompts")
        return decoding_s, after, together

    run.answer(QUESTION, videos=[path], max_frames=1, max_tokens=1)  # does not count
    answers = run.repeated("video: pipeline", both, is_warm=True)
    decoding = [decoding_s for decoding_s, _, _ in answers]
    reading = [after.timing.time_to_first_token for _, after, _ in answers]
    serial = [one + other for one, other in zip(decoding, reading, strict=True)]
    pipelined = [together.timing.time_to_first_token for _, _, together in answers]
    note = f"{answers[-1][2].media[0].num_tiles} frames, {answers[-1][2].prompt_tokens} tokens"
    timing = answers[-1][1].timing
    parts = f"vision {timing.vision:.2f} s, prefill {timing.prefill:.2f} s in the last run"
    ratios = [one / other for one, other in zip(pipelined, serial, strict=True)]
    yield Measurement("video", "decoding and resizing alone", "s", decoding, note)
    yield Measurement("video", "vision and prefill alone", "s", reading, parts)
    yield Measurement("video", "first token, one stage after the other", "s", serial, note)
    yield Measurement("video", "first token, pipelined", "s", pipelined, note)
    yield Measurement("video", "pipelined / one after the other", "ratio", ratios, note)
