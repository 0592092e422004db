"""HLS masters: one film in several sizes. FFmpeg would begin to download them all. Standard library only."""

import re
from urllib.parse import urljoin, urlsplit

from ...options import FetchPolicy
from ..connections import Patience
from .transport import ReadableFile, open_http

_MAX_BYTES = 1024**2  # of a master

_VARIANT = "#EXT-X-STREAM-INF:"
_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^,]*)')


def variant_of(address: str, patience: Patience, wanted_edge: int, policy: FetchPolicy) -> str:
    """The address to read: of an HLS master the best variant's, else the same. Raises what `open_http` raises."""
    with open_http(address, patience, policy) as (body, _, _):
        return variant_in(body, address, wanted_edge)


def variant_in(body: ReadableFile, address: str, wanted_edge: int) -> str:
    """The same, where the playlist is open."""
    data = b""
    while len(data) < _MAX_BYTES and (more := body.read(_MAX_BYTES)):
        data += more
    return best_variant(data.decode(errors="replace"), body.address, wanted_edge) or address


def best_variant(text: str, address: str, wanted_edge: int) -> str | None:
    """The address of the variant to read; None if the playlist is no master.

    It is the smallest of those whose longest edge is at least `wanted_edge`, else the largest; of the same size, the
    one with most bits a second. Variants that state no size are sound, unless none does.

    Args:
        text: the playlist.
        address: where it came from; the addresses in it may be relative.
        wanted_edge: pixels.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found: list[tuple[int, int, str]] = []
    for number, line in enumerate(lines):
        if not line.startswith(_VARIANT):
            continue
        named = next((other for other in lines[number + 1 :] if not other.startswith("#")), None)
        if named is None or urlsplit(urljoin(address, named)).scheme not in ("http", "https"):
            continue
        stated = dict(_ATTRIBUTE.findall(line.removeprefix(_VARIANT)))
        sides = re.fullmatch(r"(\d+)x(\d+)", stated.get("RESOLUTION", "").strip('"'))
        edge = max(int(side) for side in sides.groups()) if sides else 0
        bits = stated.get("BANDWIDTH", "0")
        found.append((edge, int(bits) if bits.isdecimal() else 0, urljoin(address, named)))
    if not found:
        return None
    enough = [variant for variant in found if variant[0] >= wanted_edge]
    edge = min(variant[0] for variant in enough) if enough else max(variant[0] for variant in found)
    return max(variant for variant in found if variant[0] == edge)[2]
