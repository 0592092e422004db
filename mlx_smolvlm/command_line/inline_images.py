"""Images shown within the text, on terminals that can: iTerm2, WezTerm, kitty, Ghostty."""

import base64
import io
import os
import sys
from contextlib import suppress

from PIL import Image

MAX_SIDE = 320  # pixels
_CHUNK = 4096  # characters that kitty's protocol takes at a time


def show_inline(image: Image.Image) -> bool:
    """Show an image on stderr; False if the terminal cannot."""
    protocol = _protocol()
    if protocol is None or not sys.stderr.isatty():
        return False
    small = image.copy()
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    with suppress(OSError):
        sys.stderr.write(encoded(buffer.getvalue(), protocol) + "\n")
        sys.stderr.flush()
    return True


def encoded(png: bytes, protocol: str) -> str:
    """The escape sequences that show a PNG file; `protocol` is "iterm2" or "kitty"."""
    text = base64.b64encode(png).decode("ascii")
    if protocol == "iterm2":
        return f"\x1b]1337;File=inline=1;size={len(png)}:{text}\x07"
    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    controls = ["a=T,f=100,q=2,m=1", *["m=1"] * (len(chunks) - 1)]
    controls[-1] = controls[-1].replace("m=1", "m=0")
    return "".join(f"\x1b_G{control};{chunk}\x1b\\" for control, chunk in zip(controls, chunks, strict=True))


def _protocol() -> str | None:
    if "TMUX" in os.environ or os.environ.get("TERM", "").startswith("screen"):  # swallow what they do not know
        return None
    program = os.environ.get("TERM_PROGRAM", "") + os.environ.get("LC_TERMINAL", "")
    if "iTerm" in program or "WezTerm" in program:
        return "iterm2"
    is_kitty = "kitty" in os.environ.get("TERM", "") or "KITTY_WINDOW_ID" in os.environ or "ghostty" in program.lower()
    return "kitty" if is_kitty else None
