"""Damaged videos: seeds of the containers that people have, and damage that keeps their structure."""

import struct
from functools import cached_property, partial
from pathlib import Path
from random import Random

from PIL import Image
from support.video_encoding import MPEG2, VP9, X264, encode, pixels
from support.video_files import TS_PACKET_BYTES

from .mutators import mutated_bytes

SHORT = {"size": (48, 32), "times": range(12)}
FASTSTART = {"movflags": "faststart"}  # the index first, where most damage is done
SEEDS = {
    "sound.mp4": partial(X264, audio_codec="aac", muxing=FASTSTART, **SHORT),
    "parts.mp4": partial(X264, muxing={"movflags": "frag_keyframe+empty_moov"}, **SHORT),
    "plain.ts": partial(X264, **SHORT),
    "sound.ts": partial(X264, audio_codec="aac", **SHORT),
    "mpeg2.ts": partial(MPEG2, **SHORT),
    "vp9.webm": partial(VP9, **SHORT),
    "jpeg.avi": partial(encode, codec="mjpeg", pix_fmt="yuvj420p", **SHORT),
    "jpeg.mjpeg": partial(encode, codec="mjpeg", pix_fmt="yuvj420p", **SHORT),
    "parts.mkv": partial(X264, **SHORT),
}
ANIMATIONS = {"plain.gif": {"disposal": 2}, "plain.webp": {}}
ODD_SIZES = [0, 1, 7, 8, 2**16, 2**31 - 1, 2**31, 2**32 - 1]


class Videos:
    """The kind "videos": read as `Processor` does, every frame that is chosen included."""

    @cached_property
    def _videos(self) -> dict[str, bytes]:
        folder = self.folder / "videos"
        folder.mkdir()
        for name, write in SEEDS.items():
            write(folder / name)
        for name, options in ANIMATIONS.items():
            first, *rest = [Image.fromarray(pixels(index, SHORT["size"])) for index in range(6)]
            first.save(folder / name, save_all=True, append_images=rest, duration=40, **options)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    def _example_videos(self, choices: Random) -> bytes:
        name = choices.choice(list(self._videos))
        content = self._videos[name]
        way = choices.random()
        if name.endswith(".ts") and way < 0.6:
            content = self._joined_streams(content, choices)
        elif way < 0.3:
            content = _with_odd_size(content, choices)
        if way > 0.1:
            content = mutated_bytes(content, choices)
        return name.encode() + b"\0" + content

    def _joined_streams(self, content: bytes, choices: Random) -> bytes:
        """Packets left out, doubled and exchanged, and those of other streams from some place on."""
        streams = [video for name, video in self._videos.items() if name.endswith(".ts")]
        packets = _packets(content)
        for _ in range(choices.randrange(1, 4)):
            others = _packets(choices.choice(streams))
            at, size = choices.randrange(len(packets) + 1), choices.randrange(1, 40)
            other_at = choices.randrange(len(others))
            way = choices.randrange(4)
            if way == 0:
                packets[at:] = others[other_at:]
            elif way == 1:
                packets[at:at] = others[other_at : other_at + size]
            elif way == 2:
                del packets[at : at + size]
            else:
                packets += packets[at:] + others
        return b"".join(packets)

    def _read_videos(self, example: bytes) -> None:
        name, _, content = example.partition(b"\0")
        path = self.folder / f"video{Path(name.decode()).suffix}"
        path.write_bytes(content)
        self.processor("What is this?", videos=[str(path)])


def _packets(stream: bytes) -> list[bytes]:
    return [stream[at : at + TS_PACKET_BYTES] for at in range(0, len(stream), TS_PACKET_BYTES)]


def _with_odd_size(content: bytes, choices: Random) -> bytes:
    """One number of 32 bits in the first part of the file, where sizes and counts are."""
    at = choices.randrange(min(len(content) - 4, 3000))
    return content[:at] + struct.pack(choices.choice("><") + "I", choices.choice(ODD_SIZES)) + content[at + 4 :]
