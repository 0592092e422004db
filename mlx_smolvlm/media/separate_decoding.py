"""Decodes JPEG 2000 in a process of its own: Pillow holds Python's lock all the while, and cannot be stopped."""

import atexit
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from weakref import WeakSet

import PIL
from PIL import Image

from .image_limits import MAX_DECODE_S, SlowImageError
from .leaving import POLL_S

# It answers "ready", and then "pixels MODE WIDTH HEIGHT" with the pixels, or "error REASON".
SCRIPT = """
import io, resource, sys
sys.path.insert(0, sys.argv[1])
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]), int(sys.argv[2]) + 1))
from PIL import Image, Jpeg2KImagePlugin
out = sys.stdout.buffer
out.write(b"ready\\n")
out.flush()
try:
    image = Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(sys.stdin.buffer.read()), "")
    image.load()
    if not image.mode.startswith("I"):
        image = image.convert("RGB")
    out.write(f"pixels {image.mode} {image.width} {image.height}\\n".encode() + image.tobytes())
except Exception as error:
    out.write(f"error {str(error) or type(error).__name__}\\n".encode())
"""
_READY = b"ready\n"
_running: "WeakSet[subprocess.Popen[bytes]]" = WeakSet()


def can_start_python() -> bool:
    """Whether `sys.executable` is Python, and no program that embeds it and would start once more."""
    is_python = re.fullmatch(r"pythonw?[\d.]*[dmt]*(-intel64)?", Path(sys.executable or "").name, re.IGNORECASE)
    return bool(is_python) and not getattr(sys, "frozen", False) and os.name == "posix"


def decode_separately(content: bytes, size: tuple[int, int], check: Callable[[], None]) -> Image.Image | None:
    """Decode a JPEG 2000 file, without its metadata. None if no process could be started for it.

    Args:
        content: of the file.
        size: (width, height) as its header says.
        check: called many times a second; it may raise to stop, which ends the process.

    Returns:
        An image in mode RGB, or one of Pillow's integer modes for 16-bit grey.

    Raises:
        SlowImageError: it takes longer than `MAX_DECODE_S` of the processor's time.
        ValueError: it is damaged.
    """
    folder = str(Path(PIL.__file__).parent.parent)
    command = [sys.executable, "-I", "-S", "-c", SCRIPT, folder, f"{MAX_DECODE_S:.0f}"]
    try:
        with TemporaryFile() as file:
            file.write(content)
            file.seek(0)
            process = subprocess.Popen(
                command,
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                process_group=0,  # Ctrl-C is for this process, which may be to finish what it has begun
            )
    except OSError:
        return None
    _running.add(process)
    _end_with_this_process()
    try:
        answer = _answer(process, check)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    if not answer.startswith(_READY):
        return None
    kind, _, rest = answer[len(_READY) : len(_READY) + 300].partition(b" ")
    words = rest.partition(b"\n")[0].decode(errors="replace")
    if kind == b"pixels":
        mode, width, height = words.split(" ")
        if (int(width), int(height)) == size:
            return Image.frombytes(mode, size, memoryview(answer)[len(_READY) + len(f"pixels {words}\n") :])
    if kind == b"error":
        raise ValueError(words)
    if process.returncode == -signal.SIGXCPU:
        raise SlowImageError(f"takes longer to decode than the limit of {MAX_DECODE_S:g} s; save it in another format")
    raise ValueError(f"its decoder ended with status {process.returncode}")


@cache
def _end_with_this_process() -> None:
    """Have them end when this process does, though they are not of its group: a thread may still wait for one."""

    def kill() -> None:
        for process in list(_running):
            process.kill()

    atexit.register(kill)


def _answer(process: "subprocess.Popen[bytes]", check: Callable[[], None]) -> bytes:
    while True:
        check()
        try:
            return process.communicate(timeout=POLL_S)[0]
        except subprocess.TimeoutExpired:
            pass
