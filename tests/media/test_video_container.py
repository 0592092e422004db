"""What PyAV may raise at hostile bytes."""

import pytest

from mlx_smolvlm.media.video.container import decoded, packets


class Broken:
    """A packet and a container of PyAV that raise what hostile bytes may make of them."""

    def decode(self):
        raise IndexError("list index out of range")

    def demux(self, *_):
        raise SystemError("error return without exception set")
        yield


def test_whatever_a_decoder_or_demuxer_raises_is_damage(tmp_path):
    assert decoded(Broken()) == []
    with pytest.raises(ValueError, match=r"clip is damaged: error return without exception set"):
        list(packets(Broken(), [None], tmp_path / "clip"))
