"""URLs as text: their names in messages, the paths of file URLs, and the content of data URLs."""

import binascii
import re
from collections.abc import Callable
from functools import partial
from urllib.parse import unquote_to_bytes, urlsplit

URL_SCHEME = re.compile(r"(?:data|file)(?=:)|[a-z][a-z0-9+.-]*(?=://)", re.IGNORECASE)
DEFAULT_MAX_BYTES = 64 * 1024**2  # enough for any image
BLOCK_BYTES = 1024**2  # decoded in one call; a multiple of 4, as base64 goes by four


class FetchError(ValueError):
    """A transfer that was refused or that failed. One line, without the address's password or query."""


def is_url(source: str) -> bool:
    """Whether a source's name is an address, and not that of a file."""
    return URL_SCHEME.match(source) is not None


def redact_url(url: str) -> str:
    """Return `url` for a message: on one line, shortened, without user, password, query and fragment."""
    if url[:5].lower() == "data:":
        return f"{printable(url.partition(',')[0], 40)},... ({len(url)} characters)"
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where a password with a slash or question mark was taken for the port
    except ValueError:
        return "web address that cannot be read"
    return printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}", 120)


def path_of_file_url(url: str, name: str) -> str:
    """The path in a file:// URL; `name` is what errors call it."""
    from urllib.request import url2pathname  # imports an HTTP client, which files do not need

    parts = urlsplit(url)
    if parts.netloc.lower() not in ("", "localhost"):
        raise ValueError(f"{name}: a file on another computer; expected file:///path")
    return url2pathname(parts.path)


def decode_data_url(
    url: str, max_bytes: int = DEFAULT_MAX_BYTES, check_cancelled: Callable[[], None] = lambda: None
) -> bytes:
    """Return what `data:[media type][;base64],...` holds, base64 or percent-encoded (RFC 2397).

    White space within base64 and missing `=` at its end are accepted, as browsers do; the media type is
    not looked at.

    `check_cancelled` is called between the steps of decoding; it may raise to stop.

    Raises: ValueError for a malformed URL, and for one that holds more than `max_bytes`.
    """
    name = redact_url(url)
    header, comma, text = url.partition(",")
    if header[:5].lower() != "data:" or not comma:
        raise ValueError(f"{name}: not a data URL; expected 'data:image/png;base64,...'")
    if not text.isascii() or ("%" in text and re.search(r"%(?![0-9A-Fa-f]{2})", text)):
        raise ValueError(f"{name}: data URLs hold ASCII and %XX escapes only; encode the content as base64")
    check_cancelled()
    content = unquote_to_bytes(text)
    check_cancelled()
    if header.lower().rstrip().endswith(";base64"):
        content = _by_blocks(lambda block: block.translate(None, b" \t\r\n\f"), content, check_cancelled)
        check_size(len(content) * 3 // 4 - 2, max_bytes, name)  # before decoding doubles the memory
        content += b"=" * (-len(content) % 4)
        is_early = 0 <= content.find(b"=") < len(content) - 2  # padding before the end, which the decoder refuses
        try:
            decode = partial(binascii.a2b_base64, strict_mode=True)
            content = decode(content) if is_early else _by_blocks(decode, content, check_cancelled)
        except binascii.Error as error:
            raise ValueError(f"{name}: not valid base64 ({error}); encode the file's bytes again") from error
    check_size(len(content), max_bytes, name)
    return content


def _by_blocks(function: Callable[[bytes], bytes], data: bytes, check_cancelled: Callable[[], None]) -> bytes:
    """Apply a function to blocks: other threads go on in between, as they cannot within one call."""
    blocks = []
    for start in range(0, len(data), BLOCK_BYTES):
        check_cancelled()
        blocks.append(function(data[start : start + BLOCK_BYTES]))
    return b"".join(blocks)


def check_size(num_bytes: int, max_bytes: int, name: str) -> None:
    """Refuse more than `max_bytes`; `name` is what the message calls it."""
    if num_bytes > max_bytes:
        raise FetchError(f"{name}: larger than the limit of {max_bytes} bytes; use a smaller file or raise max_bytes")


def printable(text: str, max_chars: int) -> str:
    """Cut `text` in the middle, then escape what could break the line or steer a terminal."""
    text = text if len(text) <= max_chars else f"{text[: max_chars - 23]}...{text[-20:]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
