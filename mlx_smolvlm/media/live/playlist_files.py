"""What an HLS playlist names, opened for FFmpeg by the rules of all media addresses.

FFmpeg's own connections trust any certificate and go wherever they are sent, from https to http, too.
"""

import io
import logging
import re
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urljoin

from ...options import FetchPolicy
from ..connections import Closed, Patience, Stalled
from ..urls import FetchError, check_size, printable, redact_url
from .transport import ServerRefusal, open_http

LOG = logging.getLogger(__name__)
_BEGINNING = b"#EXTM3U"
_MAX_PLAYLIST_BYTES = 16 * 1024**2  # of a recording of days
_ENCRYPTED = re.compile(r"crypto[+:]")
_NAMED = re.compile(r'(\bURI=")([^"]*)(")')


class PlaylistFiles:
    """A playlist, and the playlists, segments and keys that it names.

    A segment that the server does not have, or that breaks off, is named in the log and left out, as a live stream goes
    on after it. What the rules forbid ends the reading.
    """

    def __init__(self, address: str, patience: Patience, policy: FetchPolicy, on_data: Callable[[], None]):
        """
        Args:
            address: of the playlist, http or https. Where it is https, nothing else is fetched.
            patience: with each connection and each wait for bytes.
            policy: as for single files.
            on_data: called when bytes come.
        """
        self.address = address
        self._patience = patience
        self._policy = replace(policy, schemes=("https",)) if address[:6].lower() == "https:" else policy
        self._on_data = on_data
        self._is_first = True
        self._is_over = False  # PyAV prints a second error, with where it came from

    def open(self, url: str, flags: int, options: dict[str, str]) -> "OpenedPart":
        """PyAV's `io_open`.

        Raises:
            FetchError: the policy forbids it.
            OSError, ServerRefusal: the first playlist cannot be had.
            Closed, Stalled: as `Patience`.
        """
        is_first, self._is_first = self._is_first, False
        if self._is_over:
            return OpenedPart(ExitStack(), b"", lambda _: b"")
        try:
            return self._opened(url, options)
        except (Closed, Stalled, FetchError):
            self._is_over = True
            raise
        except (OSError, ServerRefusal) as error:
            if is_first:
                self._is_over = True
                raise
            return self._left_out(url, error)

    def _opened(self, url: str, options: dict[str, str]) -> "OpenedPart":
        if _ENCRYPTED.match(url):
            with self._opened(_ENCRYPTED.sub("", url, count=1), {}) as part:
                return OpenedPart(ExitStack(), b"", io.BytesIO(_decrypted(part.all(self._policy), options)).read)
        if url.partition(":")[0].lower() not in self._policy.schemes:
            schemes = " and ".join(self._policy.schemes)
            raise FetchError(
                f"{redact_url(url)} is not permitted in this playlist: only {schemes} addresses are fetched"
            )
        first, end = options.get("offset"), options.get("end_offset")
        wanted = None if first is None else (int(first), int(end) if end else None)
        with ExitStack() as opening:
            body, _, _ = opening.enter_context(open_http(url, self._patience, self._policy, wanted))

            def read(max_bytes: int) -> bytes:
                try:
                    data: bytes = body.read(max_bytes)
                except (Closed, Stalled):
                    self._is_over = True
                    raise
                except OSError as error:
                    return self._left_out(url, error).read(max_bytes)
                self._on_data()
                return data

            head = b""
            while len(head) < len(_BEGINNING) and (more := read(len(_BEGINNING) - len(head))):
                head += more
            part = OpenedPart(opening.pop_all(), head, read)
        if head == _BEGINNING:
            with part:
                text = part.all(replace(self._policy, max_bytes=_MAX_PLAYLIST_BYTES)).decode(errors="replace")
            return OpenedPart(ExitStack(), b"", io.BytesIO(_with_whole_addresses(text, body.address).encode()).read)
        return part

    def _left_out(self, url: str, error: Exception) -> "OpenedPart":
        reason = printable(getattr(error, "strerror", None) or str(error), 200)
        LOG.warning("%s: %s is left out or ends early (%s)", redact_url(self.address), redact_url(url), reason)
        return OpenedPart(ExitStack(), b"", lambda _: b"")


class OpenedPart:
    """What FFmpeg reads one of them from."""

    def __init__(self, opened: ExitStack, head: bytes, read: Callable[[int], bytes]):
        self._opened, self._head, self._read = opened, head, read

    def __enter__(self) -> "OpenedPart":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, max_bytes: int) -> bytes:
        """What there is, at most `max_bytes`; nothing at the end."""
        if self._head:
            data, self._head = self._head[:max_bytes], self._head[max_bytes:]
            return data
        return self._read(max_bytes)

    def all(self, policy: FetchPolicy) -> bytes:
        """All of it. Raises FetchError if that is more than the policy allows."""
        content = bytearray()
        while data := self.read(64 * 1024):
            content += data
            check_size(len(content), policy.max_bytes, "a part of a playlist")
        return bytes(content)

    def close(self) -> None:
        """End the connection."""
        with suppress(OSError):
            self._opened.close()


def _with_whole_addresses(text: str, address: str) -> str:
    """A playlist that may be read as if it came from anywhere: FFmpeg does not learn of redirects."""
    lines = []
    for line in text.splitlines():
        if line.startswith("#"):
            lines.append(_NAMED.sub(lambda found: f"{found[1]}{urljoin(address, found[2])}{found[3]}", line))
        else:
            lines.append(urljoin(address, line.strip()) if line.strip() else line)
    return "\n".join([*lines, ""])


def _decrypted(content: bytes, options: dict[str, Any]) -> bytes:
    """AES-128 as HLS has it, by FFmpeg: Python's standard library has none."""
    import av

    keys = {name: str(options[name]) for name in ("key", "iv") if name in options}
    with TemporaryDirectory(prefix="mlx_smolvlm_") as folder:
        path = Path(folder, "segment")
        path.write_bytes(content)
        arguments: dict[str, Any] = {"container_options": {**keys, "protocol_whitelist": "crypto,file"}}
        with av.open(f"crypto:{path}", format="data", **arguments) as container:
            return b"".join(bytes(packet) for packet in container.demux() if packet.size)
