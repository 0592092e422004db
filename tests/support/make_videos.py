"""Make the small videos of the tests with ffmpeg, once: the files in goldens/media are committed.

    PYTHONPATH=.:tests python tests/support/make_videos.py

All have a constant frame rate and moving content, so that every frame differs from its neighbours.

    clip.mp4   160 x 120, 10 frames/s,  5 s: the ordinary case
    short.mp4   96 x 128, 24 frames/s,  1 s: a single frame is sampled; upright
    long.mp4    64 x 48,   5 frames/s, 40 s: with few frames wanted, the first and the last second are skipped
"""

import subprocess

from support.media import video_path

SOURCES = {  # name -> ffmpeg's test picture source
    "clip": "testsrc2=size=160x120:rate=10:duration=5",
    "short": "testsrc2=size=96x128:rate=24:duration=1",
    "long": "testsrc2=size=64x48:rate=5:duration=40",
}
ENCODER = "-c:v libx264 -preset veryslow -crf 30 -pix_fmt yuv420p -threads 1 -fflags +bitexact -flags:v +bitexact"


def main() -> None:
    """Write the three files."""
    for name, source in SOURCES.items():
        path = video_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        command = ["ffmpeg", "-loglevel", "error", "-y", "-f", "lavfi", "-i", source, *ENCODER.split(), str(path)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
