"""Images and videos of requests, opened in threads before the queue.

Only bytes and decoded pixels go further. An address or a path reaches the processor in no case but a video below the
media root, whose place has been resolved here.
"""

import asyncio
import logging
import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from ...media.prefetch import as_exception
from ...options import FetchPolicy, MediaOptions
from ..errors import ApiError, bad_request
from ..settings import ServerSettings
from .message_parts import MediaPart
from .scratch import ScratchFiles

if TYPE_CHECKING:
    from ...processor.processor import Processor

T = TypeVar("T")
LOG = logging.getLogger("mlx_smolvlm.server")
FRAMES_URL = re.compile(r"data:video/jpeg;base64,", re.IGNORECASE)
MAX_FRAMES = 256
PORTS = (80, 443)
MAX_DECODING = 4


class Abandoned(Exception):
    """Nobody waits for the work of a thread any more."""


class Intake:
    """The threads that fetch and decode.

    As many images are decoded at a time as have at most `max_pixels_in_flight` pixels, were they as large as they may
    be; what is kept of them are tiles of a bounded size.
    """

    def __init__(self, settings: ServerSettings):
        self._settings = settings
        at_once = max(1, settings.max_pixels_in_flight // settings.max_image_pixels)
        num_threads = min(at_once, MAX_DECODING, os.cpu_count() or 1)
        self._decoding = ThreadPoolExecutor(num_threads, "mlx_smolvlm decoding")
        self._fetching = ThreadPoolExecutor(settings.max_fetches, "mlx_smolvlm fetching")
        self._planning = ThreadPoolExecutor(2, "mlx_smolvlm planning")

    def close(self) -> None:
        """Let the threads end."""
        for pool in (self._decoding, self._fetching, self._planning):
            pool.shutdown(wait=False, cancel_futures=True)

    async def open_all(
        self, parts: Sequence[MediaPart], options: MediaOptions, processor: "Processor", files: ScratchFiles
    ) -> list[Any]:
        """Open the media of a request, to be passed to `Processor.prepare`.

        Args:
            parts: the media, in order.
            options: how videos are sampled.
            processor: of the model.
            files: has a folder for videos.

        Raises:
            ApiError: something cannot be read, or is not allowed; `param` names the part.
        """
        folder: Path | None = None
        if any(part.kind == "video" for part in parts):
            folder = await self._in(self._fetching, lambda _: files.open())
        return [await self._open(part, options, processor, folder) for part in parts]

    async def plan(self, work: Callable[[Callable[[], None]], T]) -> T:
        """Run the planning of a prompt in a thread. `work` gets a function that raises when nobody waits any more."""
        return await self._in(self._planning, work)

    async def _open(self, part: MediaPart, options: MediaOptions, processor: "Processor", folder: Path | None) -> Any:
        source: Any = None
        try:
            kind = part.url[:8].lower()
            if kind.startswith("data:"):
                source = part.url
            elif kind.startswith(("http:", "https:")):
                source = await self._fetched(part, folder)
            else:
                source = await self._in(self._fetching, lambda _: self._file(part))
            if part.kind == "image":
                return await self._in(self._decoding, lambda check: self._image(part, source, processor, check))
            return await self._in(self._decoding, lambda check: self._video(source, options, processor, folder, check))
        except (ValueError, OSError) as error:
            if _is_own_fault(error):
                raise
            code = f"invalid_{part.kind}"
            hidden = source.parent if isinstance(source, Path) else folder  # paths are of no use to a stranger
            raise bad_request(f"{part.where}: {_reason(error, hidden)}", part.where, code) from None

    def _image(self, part: MediaPart, source: Any, processor: "Processor", check: Callable[[], None]) -> Any:
        settings = self._settings
        options = MediaOptions(
            do_image_splitting=False if part.one_tile else None,
            max_pixels=settings.max_image_pixels,
            fetch_policy=FetchPolicy(max_bytes=settings.max_image_bytes),
        )
        image = processor.open_image(_tolerant(source), options, check)
        image.cut()
        return image

    def _video(
        self,
        source: Any,
        options: MediaOptions,
        processor: "Processor",
        folder: Path | None,
        check: Callable[[], None],
    ) -> Any:
        assert folder is not None
        source = _tolerant(source)
        if isinstance(source, str) and FRAMES_URL.match(source) and "," in source[source.index(",") + 1 :]:
            source = self._frames(source, options, processor, check)
        policy = FetchPolicy(max_bytes=self._settings.max_video_bytes)
        own = MediaOptions(fps=options.fps, max_frames=options.max_frames, fetch_policy=policy)
        video = processor.open_video(source, folder, own, check)
        _ = video.digest  # which reads the file
        return video

    def _frames(self, url: str, options: MediaOptions, processor: "Processor", check: Callable[[], None]) -> Any:
        """`data:video/jpeg;base64,FRAME,FRAME`: frames in turn, `fps` of them a second."""
        from ...media.images import load_image
        from ...media.urls import decode_data_url
        from ...processor.sampled_video import SampledVideo

        texts = url.partition(",")[2].split(",")
        if len(texts) > MAX_FRAMES:
            raise ValueError(f"the video has {len(texts)} frames, the limit is {MAX_FRAMES}; send fewer")
        if options.max_frames is not None and len(texts) > options.max_frames:
            step = len(texts) / options.max_frames
            texts = [texts[int(number * step)] for number in range(options.max_frames)]
        tiles = []
        for number, text in enumerate(texts):
            check()
            try:
                data = decode_data_url(f"data:image/jpeg;base64,{text}", self._settings.max_image_bytes, check)
                frame = load_image(data, max_pixels=self._settings.max_image_pixels, check_cancelled=check)
            except ValueError as error:
                raise ValueError(f"frame {number}: {error}") from None
            tiles.append(processor.video_tile(frame))
        fps = options.fps or 1.0
        times = [number / fps for number in range(len(tiles))]
        return SampledVideo(tiles, times, len(tiles) / fps, are_tiles=True, name="the frames")

    # Where media come from

    async def _fetched(self, part: MediaPart, folder: Path | None) -> Any:
        """What is at an address: bytes of an image, or the path of a video."""
        from ...media.fetch import fetch, stream
        from ...media.urls import FetchError

        settings = self._settings
        limit = settings.max_image_bytes if part.kind == "image" else settings.max_fetched_video_bytes
        policy = self._policy(part, limit)

        def work(check: Callable[[], None]) -> Any:
            if part.kind == "image":
                return fetch(part.url, policy, check)
            assert folder is not None
            path = folder / f"video{len(list(folder.iterdir()))}"
            with path.open("wb") as file:
                for chunk in stream(part.url, policy, check):
                    file.write(chunk)
            return path

        try:
            return await self._in(self._fetching, work)
        except FetchError as error:
            raise ApiError(400, "fetch_failed", f"{part.where}: {error}", part.where) from None

    def _policy(self, part: MediaPart, max_bytes: int) -> FetchPolicy:
        """The rules for an address. Raises ApiError for one that is not fetched at all."""
        from ...media.fetch import refuse_private_addresses

        settings = self._settings
        if not settings.fetches:
            raise _not_allowed(
                part, "this server fetches no addresses; send a data URL, or start it with --allow-urls public"
            )
        try:
            parts = urlsplit(part.url)
            host, port, user = (parts.hostname or "").lower(), parts.port, parts.username
        except ValueError:
            raise _not_allowed(part, "not a valid address; expected https://host/path") from None
        if user is not None:
            raise _not_allowed(part, "addresses with a user or password are not fetched")
        if host not in settings.fetch_hosts:
            if not settings.fetch_public:
                raise _not_allowed(part, f"only addresses of {', '.join(settings.fetch_hosts)} are fetched")
            if port is not None and port not in PORTS:
                raise _not_allowed(part, "only ports 80 and 443 are fetched from")
        return FetchPolicy(
            max_bytes=max_bytes,
            timeout_s=settings.fetch_timeout_s,
            stall_timeout_s=settings.fetch_stall_timeout_s,
            connect_timeout_s=settings.fetch_stall_timeout_s,
            max_redirects=settings.max_redirects,
            check_address=refuse_private_addresses if settings.fetch_public else _refuse_all,
            trusted_hosts=tuple(settings.fetch_hosts),
            ports=PORTS,
        )

    def _file(self, part: MediaPart) -> Any:
        """A file below the media root: bytes of an image, or the path of a video."""
        root = self._settings.media_root
        if not part.url[:7].lower() == "file://":
            raise _not_allowed(part, "expected a data URL (data:image/png;base64,...) or an http(s) address")
        if root is None:
            raise _not_allowed(part, "this server reads no files; send a data URL, or start it with --media-root DIR")
        folder = Path(root).expanduser().resolve()
        address = urlsplit(part.url)
        path = Path(unquote(address.path))
        try:
            place = path.resolve()
            is_inside = address.netloc.lower() in ("", "localhost") and place.is_relative_to(folder)
            is_file = is_inside and place.is_file()
        except (OSError, ValueError, RuntimeError):  # a loop of links, or a zero byte
            is_file = False
        if not is_file:
            raise _not_allowed(part, "no such file below the media root")
        if part.kind == "video":
            return place
        if place.stat().st_size > self._settings.max_image_bytes:
            raise bad_request(f"{part.where}: larger than {self._settings.max_image_bytes} bytes", part.where)
        return place.read_bytes()

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[Callable[[], None]], T]) -> T:
        """Run `work` in a thread of a pool; if the caller is cancelled, so is the work, and it is waited for."""
        gone = threading.Event()

        def check() -> None:
            if gone.is_set():
                raise Abandoned

        def guarded() -> T:
            try:
                return work(check)
            except Exception:
                raise
            except BaseException as error:  # a SystemExit would end the event loop
                raise as_exception(error) from error

        future: Future[T] = pool.submit(guarded)
        waiting = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            gone.set()
            if not future.cancel():
                # Its files are removed next, so it has to end first; it looks at `gone` all the time.
                await asyncio.wait([waiting])
                if not waiting.cancelled():
                    waiting.exception()
            raise


def _refuse_all(address: str) -> None:
    raise ValueError(f"{address} is not an address of a host that is allowed here")


def _not_allowed(part: MediaPart, reason: str) -> ApiError:
    return bad_request(f"{part.where}: {reason}", part.where, "url_not_allowed")


def _tolerant(source: Any) -> Any:
    """A data URL whose base64 may be of the alphabet for URLs, which some programs send; other sources as they are."""
    if not isinstance(source, str):
        return source
    start = source.find(",") + 1
    if source[: max(start - 1, 0)].lower().rstrip().endswith(";base64") and (
        source.find("-", start) >= 0 or source.find("_", start) >= 0
    ):
        return source[:start] + source[start:].replace("-", "+").replace("_", "/")
    return source


def _is_own_fault(error: Exception) -> bool:
    """Whether the request is sound, and this machine has no room for it."""
    from ...engine.preparing import SYSTEM_ERRNOS

    return isinstance(error, OSError) and error.errno in SYSTEM_ERRNOS


def _reason(error: Exception, folder: Path | None) -> str:
    """An error's text without paths of this machine."""
    text = str(error.strerror if isinstance(error, OSError) and error.errno else error)
    return text if folder is None else text.replace(f"{folder}{os.sep}", "")
