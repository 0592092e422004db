"""`python -m mlx_smolvlm.server`: arguments, startup lines, signals and exit codes."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ..command_line import starting
from ..command_line.adapter_arguments import add_adapter_argument
from ..command_line.arguments import add_cache_arguments
from ..command_line.runner import CommandLine, refuse_tracebacks
from .settings import LOG_LEVELS, MIB, ServerSettings

KEY_VARIABLE = "SMOLVLM_API_KEY"
GIB = 1024**3
_MOST_BYTES = 2**60  # more is no bound
SWITCH_S = 0.001  # after which a thread hands over Python's lock: the event loop takes it many times for each response
EXTRA = "the server needs starlette and uvicorn; install them with: pip install 'mlx-smolvlm[server]'"


def main() -> None:
    """Run the command line; exits with 0 when stopped by a signal, and with 2 and one line if it cannot serve."""
    with refuse_tracebacks():
        arguments = _parser().parse_args()
        settings = _settings(arguments)
        with starting.importing():
            try:
                from .running import ServerRun
            except ImportError as error:
                if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "h11", "anyio"):
                    raise
                raise ImportError(EXTRA) from None
        sys.setswitchinterval(SWITCH_S)
        with _logged(settings.log_level):
            status = ServerRun(settings, opens_page=arguments.open).serve()
    sys.stdout.flush()
    sys.stderr.flush()
    # All is closed. Python's own way out runs into MLX, which may abort the process where a thread has computed, and
    # would wait for a model that is still being loaded.
    os._exit(status)


def _settings(arguments: argparse.Namespace) -> ServerSettings:
    values = {name: value for name, value in vars(arguments).items() if name in ServerSettings.__annotations__}
    if arguments.api_key == "":  # a variable that is not set must not open the server
        raise ValueError(f"--api-key is empty; give it a value, or leave it out for that of {KEY_VARIABLE}")
    values["api_key"] = arguments.api_key or os.environ.get(KEY_VARIABLE) or None
    values["fetch_public"] = arguments.allow_urls == "public"
    for name, unit in (("max_cache_bytes", GIB), ("max_feature_bytes", MIB), ("max_prefix_bytes", MIB)):
        values[name] = int(min(values[name] * unit, _MOST_BYTES)) if values[name] >= 0 else -1
    values["fetch_hosts"] = [host.lower() for host in arguments.fetch_hosts]
    return ServerSettings(**values)


@contextmanager
def _logged(level: str) -> Iterator[None]:
    """Within: the server's own lines go to standard error, and what is wrong from uvicorn."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    with ExitStack() as undone:
        for name, least in (("mlx_smolvlm", level.upper()), ("uvicorn", "WARNING"), ("asyncio", "ERROR")):
            logger = logging.getLogger(name)
            undone.callback(logger.setLevel, logger.level)
            undone.callback(setattr, logger, "propagate", logger.propagate)
            undone.callback(logger.removeHandler, handler)
            logger.addHandler(handler)
            logger.setLevel(least)
            logger.propagate = False
        yield


def _parser() -> argparse.ArgumentParser:
    defaults = ServerSettings()
    parser = CommandLine(
        prog="python -m mlx_smolvlm.server",
        description="Serve a model to programs, over OpenAI's and Ollama's interfaces, and to people, by a page at its "
        "address.",
        epilog=f"The API key may also come from the environment variable {KEY_VARIABLE}. Exit status: 0 when it was "
        "stopped, 2 if it could not serve.",
    )
    model = parser.add_argument_group("the model")
    model.add_argument("--model", metavar="PATH_OR_HUB_ID", help="checkpoint (default: the embedded demo model)")
    add_adapter_argument(
        model,
        "used without merging: the model's name stands for all of them, and each alone is a model by its own name",
    )
    model.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="type to compute in")
    model.add_argument(
        "--alias", action="append", default=[], dest="aliases", metavar="NAME", help="a further name of the model"
    )
    model.add_argument("--any-model", action="store_true", help="answer whatever model a request names")

    where = parser.add_argument_group("who may ask")
    where.add_argument("--host", default=defaults.host, help=f"address to listen on (default: {defaults.host})")
    where.add_argument("--port", type=int, default=defaults.port, help=f"0: any (default: {defaults.port})")
    where.add_argument("--api-key", metavar="KEY", help="what requests must bring; needed on any but this machine")
    where.add_argument("--insecure", action="store_true", help="let other machines ask without a key")
    where.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        dest="cors_origins",
        metavar="ORIGIN",
        help="a page elsewhere that may ask, such as https://example.com",
    )
    where.add_argument(
        "--allow-host-header",
        action="append",
        default=[],
        dest="allowed_hosts",
        metavar="NAME",
        help="a further name by which the server is called, such as that of a proxy",
    )
    where.add_argument("--open", action="store_true", help="open the page in the browser")

    media = parser.add_argument_group("where images and videos may come from, beside the request itself")
    media.add_argument("--allow-urls", choices=("public",), help="fetch from addresses of the public internet")
    media.add_argument(
        "--allow-host",
        action="append",
        default=[],
        dest="fetch_hosts",
        metavar="NAME",
        help="fetch from this host, wherever it is",
    )
    media.add_argument("--media-root", metavar="DIR", help="read file:// addresses below this folder")

    bounds = parser.add_argument_group("bounds")
    bounds.add_argument(
        "--rows",
        type=int,
        default=defaults.rows,
        metavar="N",
        help=f"most answers to make at a time (default: {defaults.rows})",
    )
    bounds.add_argument(
        "--max-waiting",
        type=int,
        default=defaults.max_waiting,
        metavar="N",
        help=f"most requests that wait (default: {defaults.max_waiting})",
    )
    bounds.add_argument(
        "--max-cache-gb",
        type=float,
        default=defaults.max_cache_bytes / GIB,
        dest="max_cache_bytes",
        metavar="GIB",
        help=f"keys and values of answers in flight (default: {defaults.max_cache_bytes / GIB:g})",
    )
    bounds.add_argument(
        "--max-prefix-mb",
        type=float,
        default=defaults.max_prefix_bytes / MIB,
        dest="max_prefix_bytes",
        metavar="MIB",
        help=f"keys and values of earlier prompts (default: {defaults.max_prefix_bytes / MIB:g})",
    )
    bounds.add_argument(
        "--max-feature-mb",
        type=float,
        default=defaults.max_feature_bytes / MIB,
        dest="max_feature_bytes",
        metavar="MIB",
        help=f"features of images (default: {defaults.max_feature_bytes / MIB:g})",
    )
    add_cache_arguments(bounds)
    for name, unit in _LIMITS.items():
        value = getattr(defaults, name)
        bounds.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(value),
            default=value,
            metavar="N",
            help=f"{unit} (default: {value})",
        )
    other = parser.add_argument_group("other")
    other.add_argument("--strict", action="store_true", help="refuse fields of requests that are not known")
    other.add_argument("--log-level", choices=LOG_LEVELS, default=defaults.log_level, help="(default: info)")
    return parser


# The limits of a request, by the names of `ServerSettings`, and what they count.
_LIMITS = {
    "default_max_tokens": "tokens of an answer whose request sets no limit",
    "queue_timeout_s": "seconds to wait for a place",
    "request_timeout_s": "seconds for a request in all",
    "stalled_client_s": "seconds that a client may read nothing",
    "keep_alive_s": "seconds of silence before a comment in a stream",
    "shutdown_s": "seconds that answers have to finish at the end",
    "max_held_bytes": "bytes of all requests in flight",
    "max_body_bytes": "bytes of a request",
    "max_header_bytes": "bytes of its header",
    "max_json_depth": "levels of its JSON",
    "max_messages": "messages",
    "header_timeout_s": "seconds to send the header",
    "body_timeout_s": "seconds to send the body, and",
    "body_timeout_s_per_mib": "seconds more for each MiB of it",
    "idle_timeout_s": "seconds that an idle connection is kept",
    "max_connections": "connections",
    "max_connections_per_address": "connections from one address",
    "max_image_bytes": "bytes of an image",
    "max_image_pixels": "pixels of an image",
    "max_video_bytes": "bytes of a video in a request",
    "max_fetched_video_bytes": "bytes of a video that is fetched",
    "max_images": "images in a request",
    "max_videos": "videos in a request",
    "max_pixels_in_flight": "pixels decoded at a time",
    "max_fetches": "transfers at a time",
    "fetch_timeout_s": "seconds for a transfer",
    "fetch_stall_timeout_s": "seconds of a transfer without a byte",
    "max_redirects": "redirects of a transfer",
    "max_schema_bytes": "bytes of a JSON schema",
}
