"""Fields that nobody knows, at any depth of a request: each is logged once, or refused where the server is strict."""

import logging
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ...options import did_you_mean, quoted
from ..errors import bad_request

LOG = logging.getLogger("mlx_smolvlm.server")
MAX_NAME_CHARS = 100  # of a name in `param`
MAX_LOGGED = 100  # fields of the process, as anybody may make up new ones
NUMBER = re.compile(r"\[[0-9]+\]")

_logged: set[str] = set()


class UnknownFields:
    """What becomes of them.

    Args:
        strict: whether they are refused.
        rename: puts places of the chat interface into the words of the interface that was used.
    """

    def __init__(self, strict: bool, rename: Callable[[str], str] = str):
        self._strict = strict
        self._rename = rename

    def check(
        self, values: Mapping[str, Any], where: str, read: Collection[str], ignored: Collection[str] = ()
    ) -> None:
        """Look at the fields of an object; null is as absent.

        Args:
            values: the object.
            where: its place, such as `messages[0].content[1]`; empty for the body.
            read: names that are understood.
            ignored: names that are known to change nothing.

        Raises:
            ApiError: 400 `unknown_field`, with the place in `param`.
        """
        for name, value in values.items():
            if value is None or name in read or name in ignored:
                continue
            path = f"{where}.{name[:MAX_NAME_CHARS]}" if where else name[:MAX_NAME_CHARS]
            if self._strict:
                advice = did_you_mean(name, sorted(read)) or "leave it out"
                raise bad_request(f"there is no field {quoted(self._rename(path))}; {advice}", path, "unknown_field")
            _log(NUMBER.sub("[]", self._rename(path)))


def _log(path: str) -> None:
    if path in _logged or len(_logged) >= MAX_LOGGED:
        return
    _logged.add(path)
    LOG.info("ignored the unknown field %s of a request", quoted(path))
    if len(_logged) == MAX_LOGGED:
        LOG.info("these were %d unknown fields; no more of them are logged", MAX_LOGGED)
