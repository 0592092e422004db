"""Videos: sampling beside decoding every frame, and the pipeline beside its stages one after the other."""

import time

from ..media.video.probing import choose_frames, probe
from ..processor.sampled_video import SampledVideo
from .benchmark_run import QUESTION, BenchmarkRun
from .measurement import Measurement
from .peers import Worker


def video(run: BenchmarkRun) -> list[Measurement]:
    """All of it, on one file."""
    return [*_sampling(run), *_pipeline(run)]


def _sampling(run: BenchmarkRun) -> list[Measurement]:
    """In processes of their own: most memory of a process is known for the whole of it only."""
    path, frames = str(run.clip), run.settings.max_frames
    sampling, whole, memory = [], [], []
    for number in range(run.settings.runs + 1):
        with Worker("video", run) as worker:
            sampled = worker.request("sample_video", video=path, max_frames=frames)
            decoded = worker.request("decode_video", video=path)
        if number == 0:  # reads the file into the system's memory
            continue
        sampling.append(sampled["spent_s"])
        whole.append(decoded["spent_s"])
        memory.append((sampled["peak_rss_bytes"] - sampled["base_rss_bytes"]) / 1e6)
    note = f"{sampled['frames']} of {decoded['frames']} frames, {run.clip.name}"
    ratios = [own / all_frames for own, all_frames in zip(sampling, whole, strict=True)]
    return [
        Measurement("video", "sampling frames", "s", sampling, note),
        Measurement("video", "decoding every frame", "s", whole, note),
        Measurement("video", "sampling / decoding every frame", "ratio", ratios, note),
        Measurement("video", "peak memory of sampling", "MB", memory, "of the process, over its base"),
    ]


def _pipeline(run: BenchmarkRun) -> list[Measurement]:
    """To the first token: while frames are decoded, and after they have been."""
    processor = run.processor
    path, frames = str(run.clip), run.settings.max_frames
    sampling = processor.config.video
    if sampling is None:
        return []
    sample = choose_frames(probe(path), sampling.fps, frames)
    decoding, reading, serial, pipelined = [], [], [], []
    run.answer(QUESTION, videos=[path], max_frames=1, max_tokens=1)
    for _ in range(run.settings.runs):
        start = time.perf_counter()
        inputs = processor(QUESTION, videos=[path], max_frames=frames)
        decoding.append(time.perf_counter() - start)
        tiles = [] if inputs.pixel_values is None else list(inputs.pixel_values)
        given = SampledVideo(tiles, sample.timestamps_s, sample.duration_s, are_tiles=True)
        after = run.answer(QUESTION, videos=[given], max_tokens=1)
        reading.append(after.timing.time_to_first_token)
        serial.append(decoding[-1] + reading[-1])
        together = run.answer(QUESTION, videos=[path], max_frames=frames, max_tokens=1)
        if together.prompt_ids != after.prompt_ids:
            raise ValueError(f"{path}: the two ways give different prompts")
        pipelined.append(together.timing.time_to_first_token)
    note = f"{len(tiles)} frames, {together.prompt_tokens} tokens"
    timing = after.timing
    parts = f"vision {timing.vision:.2f} s, prefill {timing.prefill:.2f} s in the last run"
    ratios = [one / other for one, other in zip(pipelined, serial, strict=True)]
    return [
        Measurement("video", "decoding and resizing alone", "s", decoding, note),
        Measurement("video", "vision and prefill alone", "s", reading, parts),
        Measurement("video", "first token, one stage after the other", "s", serial, note),
        Measurement("video", "first token, pipelined", "s", pipelined, note),
        Measurement("video", "pipelined / one after the other", "ratio", ratios, note),
    ]
