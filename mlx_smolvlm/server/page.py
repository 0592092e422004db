"""The browser page: its files, served with an ETag and with headers that keep it to this server."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PACKAGE = Path(__file__).parent.parent
FOLDER = Path(__file__).with_name("page")
MEDIA_TYPES = {  # said here, as what the system's own table says of .js differs between machines
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".mp4": "video/mp4",
}
SAMPLES = ("picture.png", "first.png", "second.png", "clip.mp4")  # of the package's demo folder
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # no text becomes HTML
        "trusted-types 'none'",
    )
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "permissions-policy": "camera=(self), display-capture=(self), microphone=(), geolocation=(), usb=()",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # ask each time whether the ETag still holds
}
# What the page checks before it uploads; the names are those of `ServerSettings`.
LIMITS = ("max_body_bytes", "max_image_bytes", "max_video_bytes", "max_images", "max_videos", "default_max_tokens")


def page_routes() -> list[Route]:
    """`GET /` and the files below `/page/`. All of them are to be served without an API key.

    Raises:
        OSError: a file of the page cannot be read.
    """
    index, *others = sorted(FOLDER.iterdir(), key=lambda path: (path.name != "index.html", path.name))
    routes = [_route("/", index)]
    routes += [_route(f"/page/{path.name}", path) for path in others if path.suffix in MEDIA_TYPES]
    routes += [_route(f"/page/samples/{name}", PACKAGE / "demo" / name) for name in SAMPLES]
    return [*routes, Route("/page/config.json", _config)]


def _route(url_path: str, file: Path) -> Route:
    content = file.read_bytes()
    headers = {**HEADERS, "etag": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}
    media_type = MEDIA_TYPES[file.suffix]

    async def serve(request: Request) -> Response:
        if _is_known(request.headers, headers["etag"]):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return Route(url_path, serve)


def _is_known(headers: Mapping[str, str], etag: str) -> bool:
    known = [value.strip().removeprefix("W/") for value in headers.get("if-none-match", "").split(",")]
    return "*" in known or etag in known


async def _config(request: Request) -> JSONResponse:
    """The limits of a request, and what the page says of the demo model only."""
    settings = request.app.state.settings
    values = {name: getattr(settings, name) for name in LIMITS}
    return JSONResponse({**values, "is_demo": settings.model is None}, headers=HEADERS)
