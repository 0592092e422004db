"""What may be fetched holds for sources that are watched, too."""

import pytest
from support.http_server import serving

from mlx_smolvlm import DEMO_MODEL, FetchPolicy, MediaOptions, stream_captions
from mlx_smolvlm.media.fetch import refuse_private_addresses

PUBLIC_ONLY = FetchPolicy(check_address=refuse_private_addresses)


def watch(pair, source: str, policy: FetchPolicy) -> None:
    next(stream_captions(*pair, source, "What?", media_options=MediaOptions(fetch_policy=policy), stall_timeout_s=2))


@pytest.mark.parametrize("scheme", ["http", "tcp"])
def test_an_address_is_checked_before_it_is_connected_to(demo, scheme: str) -> None:
    with serving() as server:
        with pytest.raises(ValueError, match=r"127\.0\.0\.1 is not an address of the public internet"):
            watch(demo, f"{scheme}://127.0.0.1:{server.server_port}/body", PUBLIC_ONLY)
        assert server.requests == []


@pytest.mark.parametrize("source", ["rtsp://127.0.0.1/live", "http://127.0.0.1/live.m3u8", "udp://@:1234"])
def test_what_cannot_be_checked_is_refused(demo, source: str) -> None:
    with pytest.raises(ValueError, match="FFmpeg connects to it by itself"):
        watch(demo, source, PUBLIC_ONLY)


def test_schemes_and_sizes_count(demo) -> None:
    with serving() as server:
        address = f"http://127.0.0.1:{server.server_port}/body"
        with pytest.raises(ValueError, match="only https addresses"):
            watch(demo, address, FetchPolicy(schemes=("https",)))
        with pytest.raises(ValueError, match="larger than the limit of 1000 bytes"):
            watch(demo, address, FetchPolicy(max_bytes=1000))


@pytest.mark.parametrize("source", ["http://[::1", "rtsp://[::1", "tcp://[", "file://[::1"])
def test_an_address_that_is_none_is_refused_in_one_line(demo, source: str) -> None:
    with pytest.raises(ValueError, match="not a valid address; expected"):
        stream_captions(*demo, source, "What?")


@pytest.mark.parametrize("fps", [1e308, 1001.0, 10**400])
def test_an_absurd_rate_is_refused(fps: float) -> None:
    with pytest.raises(ValueError, match=r"fps is .*, expected a positive number of frames per second, at most 1000"):
        MediaOptions(fps=fps)


def test_an_absurd_window_is_refused(demo) -> None:
    with pytest.raises(ValueError, match=r"window is 1e\+308, expected .* at most 1e\+06"):
        stream_captions(*demo, str(DEMO_MODEL.parent / "clip.mp4"), "What?", window_s=1e308)
