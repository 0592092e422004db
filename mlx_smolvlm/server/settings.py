"""Every setting and limit of the server, with defaults and checks, once. Imports nothing heavy."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..options import GenerationOptions, is_between, is_whole, quoted

MIB = 1024**2
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
LOG_LEVELS = ("debug", "info", "warning", "error")
MAX_STOPS = 4
MAX_CHOICES = 4


@dataclass(frozen=True)
class ServerSettings:
    """What the server serves, to whom, and what a request may cost.

    Attributes:
        model: checkpoint folder or Hub id; None for the embedded demo model.
        adapter_path: adapters to load with it, as `--adapter-path` takes them; requests choose by name, see
            `ServedModels`.
        dtype: as in `load`.
        aliases: further names by which requests may call the model.
        any_model: serve whatever model a request names, for clients with a fixed name.
        strict: refuse unknown fields of requests, which are otherwise ignored and logged once each.

        host, port: the address to listen on; port 0 takes a free one.
        api_key: what requests must bring, as `Authorization: Bearer KEY` or `X-Api-Key: KEY`.
        insecure: listen on other addresses than loopback without a key.
        allowed_hosts: names that a request's Host header may have beside localhost, 127.0.0.1 and [::1].
        cors_origins: origins of other pages that may call the server, such as https://example.com, or null.
        fetch_public: fetch images and videos from addresses of the public internet.
        fetch_hosts: names of hosts to fetch from, wherever they are.
        media_root: folder below which `file://` addresses are read; None reads no files.
        log_level: least level of the log on standard error.

        rows: most answers to make at a time.
        max_waiting: most requests that wait for a row.
        queue_timeout_s: seconds that a request may wait for a row.
        request_timeout_s: seconds for a request in all.
        stalled_client_s: seconds for which a client may read nothing of its stream while output is held up.
        keep_alive_s: seconds of silence after which a stream gets a comment.
        shutdown_s: seconds that answers in flight have to finish when the server ends.
        default_max_tokens: most tokens of an answer whose request sets no limit.
        max_cache_bytes, max_feature_bytes, max_prefix_bytes: as in `Rows`.
        kv_bits, kv_group_size, quantized_kv_start: of the keys and values of all answers, as in `GenerationOptions`.

        max_held_bytes: of the bodies of all requests that have not been answered; above, those over 1 MiB have to wait.
        max_body_bytes, max_header_bytes, max_json_depth, max_messages: of a request.
        header_timeout_s: seconds to send the header of a request.
        body_timeout_s, body_timeout_s_per_mib: seconds to send its body, and more for each MiB of it.
        idle_timeout_s: seconds that an idle connection is kept.
        max_connections, max_connections_per_address: open at a time.
        max_image_bytes, max_image_pixels: of one image.
        max_video_bytes, max_fetched_video_bytes: of one video in a request, and of one that is fetched.
        max_images, max_videos: in one request.
        max_pixels_in_flight: as many images are decoded at a time as have so many pixels, if all are of the largest.
        max_fetches: transfers at a time.
        fetch_timeout_s, fetch_stall_timeout_s, max_redirects: of one transfer.
        max_schema_bytes: of a JSON schema or regular expression.

    Raises:
        ValueError: a setting out of range, or an address that others can reach without a key.
    """

    model: str | None = None
    adapter_path: Sequence[str] = ()
    dtype: str | None = None
    aliases: Sequence[str] = ()
    any_model: bool = False
    strict: bool = False

    host: str = "127.0.0.1"
    port: int = 8080
    api_key: str | None = None
    insecure: bool = False
    allowed_hosts: Sequence[str] = ()
    cors_origins: Sequence[str] = ()
    fetch_public: bool = False
    fetch_hosts: Sequence[str] = ()
    media_root: str | None = None
    log_level: str = "info"

    rows: int = 8
    max_waiting: int = 64
    queue_timeout_s: float = 60.0
    request_timeout_s: float = 600.0
    stalled_client_s: float = 30.0
    keep_alive_s: float = 10.0
    shutdown_s: float = 10.0
    default_max_tokens: int = 1024
    max_cache_bytes: int = 2 * 1024 * MIB
    max_feature_bytes: int = 256 * MIB
    max_prefix_bytes: int = 512 * MIB
    kv_bits: int | None = None
    kv_group_size: int = 64
    quantized_kv_start: int = 0

    max_held_bytes: int = 1024 * MIB
    max_body_bytes: int = 100 * MIB
    max_header_bytes: int = 64 * 1024
    max_json_depth: int = 64
    max_messages: int = 1000
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    body_timeout_s_per_mib: float = 1.0
    idle_timeout_s: float = 5.0
    max_connections: int = 256
    max_connections_per_address: int = 64
    max_image_bytes: int = 64 * MIB
    max_image_pixels: int = 178_956_970
    max_video_bytes: int = 64 * MIB
    max_fetched_video_bytes: int = 512 * MIB
    max_images: int = 64
    max_videos: int = 4
    max_pixels_in_flight: int = 400_000_000
    max_fetches: int = 4
    fetch_timeout_s: float = 60.0
    fetch_stall_timeout_s: float = 8.0
    max_redirects: int = 5
    max_schema_bytes: int = 64 * 1024

    def __post_init__(self) -> None:
        for name in ("adapter_path", "aliases", "allowed_hosts", "cors_origins", "fetch_hosts"):
            self._make_texts(name)
        for name in ("any_model", "strict", "insecure", "fetch_public"):
            self._check(name, isinstance(getattr(self, name), bool), "True or False")
        for name in ("model", "dtype", "api_key", "media_root"):
            value = getattr(self, name)
            self._check(name, value is None or (isinstance(value, str) and bool(value)), "text that is not empty")
        self._check("host", isinstance(self.host, str) and bool(self.host), "an address to listen on")
        self._check("log_level", self.log_level in LOG_LEVELS, f"one of {', '.join(LOG_LEVELS)}")
        self._check("port", is_whole(self.port, 0, 65535), "a whole number from 0 to 65535")
        for name in _COUNTS:
            least = 0 if name in _MAY_BE_ZERO else 1
            self._check(name, is_whole(getattr(self, name), least), f"a whole number of at least {least}")
            object.__setattr__(self, name, operator.index(getattr(self, name)))
        cache = {name: getattr(self, name) for name in ("kv_bits", "kv_group_size", "quantized_kv_start")}
        GenerationOptions(**cache)  # which refuses what is out of range, or has no effect
        for name in _SECONDS:
            value = getattr(self, name)
            self._check(name, is_between(value, 0, math.inf) and value > 0, "a positive number of seconds")
        if self.media_root is not None and not Path(self.media_root).expanduser().is_dir():
            raise ValueError(f"media_root is {quoted(self.media_root)}, expected a folder")
        if self.api_key is not None and not self.api_key.isascii():
            raise ValueError("the API key has characters that are not ASCII, which HTTP headers cannot hold")
        if not self.is_loopback and self.api_key is None and not self.insecure:
            raise ValueError(
                f"{self.host} can be reached from other machines; set an API key (--api-key, or the environment "
                "variable SMOLVLM_API_KEY), or say --insecure"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the address."""
        return self.host.strip("[]").lower() in LOOPBACK_HOSTS

    @property
    def fetches(self) -> bool:
        """Whether any address is fetched."""
        return self.fetch_public or bool(self.fetch_hosts)

    def _check(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            shown = "not text" if name == "api_key" else quoted(getattr(self, name))
            raise ValueError(f"{name} is {shown}, expected {expected}")

    def _make_texts(self, name: str) -> None:
        value = getattr(self, name)
        is_list = isinstance(value, list | tuple) and all(isinstance(text, str) and text for text in value)
        self._check(name, is_list, "a list of texts that are not empty")
        object.__setattr__(self, name, tuple(value))


_COUNTS = tuple(name for name, kind in ServerSettings.__annotations__.items() if kind is int and name != "port")
_MAY_BE_ZERO = (
    *("max_waiting", "max_cache_bytes", "max_feature_bytes", "max_prefix_bytes", "max_images", "max_videos"),
    "quantized_kv_start",
)
_SECONDS = tuple(name for name, kind in ServerSettings.__annotations__.items() if kind is float)
