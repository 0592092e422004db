"""Frames and times: the reference's choice on constant-rate files, true times elsewhere."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from support.frames import pixels_of
from support.golden_cases import GOLDENS, golden_cases
from support.media import video_path
from support.video_files import turned

from mlx_smolvlm.media.video.frames import read_frames
from mlx_smolvlm.media.video.probing import VideoInfo, choose_frames, probe, sample_positions
from mlx_smolvlm.processor.expansion import expand_video


def write_video(path: Path, times_ms: list[int], codec: str = "mpeg4", size: tuple[int, int] = (32, 32)) -> Path:
    """A file of grey frames, frame i shown at times_ms[i]."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for index, time_ms in enumerate(times_ms):
            pixels = np.full((size[1], size[0], 3), 4 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_sampling_equals_the_reference():
    records = json.loads((GOLDENS / "video_sampling.json").read_text())
    records = records["cases"] if isinstance(records, dict) else records
    for record in records:
        video = record["total_num_frames"], record["fps"], record["duration_s"]
        positions = sample_positions(*video, record["sample_fps"], record["max_frames"])
        assert np.unique(positions.astype(int)).tolist() == record["frame_indices"], record
    assert len(records) > 50


@pytest.mark.parametrize("case", ["video_clip", "video_short", "video_long"])
def test_container_facts_and_choice_equal_the_reference(case):
    expected = golden_cases("smolvlm_256m")[case]["videos"][0]
    info = probe(video_path(expected["name"]))
    sample = choose_frames(info, 1.0, 8)
    assert info.frame_count == expected["total_num_frames"]
    assert float(info.fps) == pytest.approx(expected["fps"])
    assert sample.indices == expected["frame_indices"]
    assert sample.timestamps_s == pytest.approx(expected["timestamps_s"])
    assert sample.duration_s == pytest.approx(expected["duration_s"])


def test_frames_are_those_of_a_full_decode():
    path = video_path("clip")
    with av.open(str(path)) as container:
        every = [pixels_of(frame) for frame in container.decode(video=0)]
    for expected, frame in zip([every[0], every[7], every[49]], read_frames(probe(path), [0, 7, 49]), strict=True):
        assert np.array_equal(frame, expected)


def test_variable_rate_files_are_sampled_evenly_in_time(tmp_path):
    """By index, a second filmed at 25 frames would be shown 25 times as often as one filmed at 1."""
    times = [*range(0, 5000, 1000), *range(5000, 6000, 40), *range(6000, 11000, 1000)]
    sample = choose_frames(probe(write_video(tmp_path / "phone.mkv", times)), 1.0, 64)
    even = np.linspace(0, 10, len(sample.timestamps_s))
    assert len(even) == 10
    assert np.abs(np.array(sample.timestamps_s) - even).max() <= 0.5  # half the widest gap between frames


def test_rotated_files_come_out_upright(tmp_path):
    """Phones store landscape frames and a note to turn them; the left edge below becomes the top."""
    source, rotated = tmp_path / "source.mp4", tmp_path / "rotated.mp4"
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :16] = 255
    with av.open(str(source), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    rotated.write_bytes(turned(source.read_bytes(), 90))
    frame = next(read_frames(probe(rotated), [0]))
    frame = np.asarray(frame)
    assert frame.shape == (64, 32, 3)
    assert frame[:12].mean() > 200
    assert frame[20:].mean() < 50


def test_prompt_counts_in_words_and_floors_time_stamps():
    text = expand_video([0.0, 61.9], 3725.7, 1)
    assert text.startswith("You are provided the following series of two frames from a 1:02:05 [H:MM:SS] video.\n")
    assert "\nFrame from 00:00:<fake_token_around_image><global-img><image><fake_token_around_image>" in text
    assert text.endswith("\nFrame from 01:01:<fake_token_around_image><global-img><image><fake_token_around_image>\n\n")


def test_time_stamps_print_no_days():
    text = expand_video([0.0, 95430.0], 95439.7, 1)
    assert "two frames from a 26:30:39 [H:MM:SS] video" in text
    assert "Frame from 1590:30:" in text


def test_a_file_that_breaks_off_is_read_as_far_as_it_goes(loaded, tmp_path):
    """An index at the front promises 50 frames; half the data is gone."""
    whole = video_path("clip").read_bytes()
    broken = tmp_path / "broken.mkv"
    with av.open(str(video_path("clip"))) as source, av.open(str(broken), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    broken.write_bytes(broken.read_bytes()[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"broken.mkv is incomplete: 0.0136 of 0.0268 MB are there, which are 2.2 s"):
        inputs = loaded("smolvlm_256m")[1]("What happens?", videos=[str(broken)])
    frames = inputs.media[0].num_tiles
    assert 1 <= frames < 5
    assert inputs.input_ids.count(loaded("smolvlm_256m")[1].config.image_token_id) == frames * 4


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"not a video at all" * 100, "not a video file"), (None, "no video file")],
)
def test_what_is_no_video_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        probe(path)
    assert str(path) in str(error.value)


def test_a_picture_is_no_video(tmp_path):
    path = tmp_path / "cat.mp4"
    Image.new("RGB", (32, 32)).save(path, format="PNG")
    with pytest.raises(ValueError, match="image, not a video"):
        probe(path)


def test_frames_that_share_a_time_can_be_all_of_a_part():
    """The rate of such a part was a division by zero."""
    info = VideoInfo(Path("clip.mkv"), Fraction(10), 4, np.array([0, 0, 1000, 2000]), 1e-3, None)
    assert choose_frames(info, 1, 10, start_s=0, end_s=0.5).timestamps_s == [0]
