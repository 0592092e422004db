"""Requests of other interfaces are put into the words of the chat interface and read there, by one reader of fields."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from starlette.requests import Request

from ..errors import ApiError
from .chat_request import ChatRequest, read_chat_request

Rename = Callable[[str], str]
Place = Callable[[int, int | None], str]
PLACE = re.compile(r"messages\[(?P<message>[0-9]+)\](?:\.content\[(?P<part>[0-9]+)\])?")


def read_translated(request: Request, body: Mapping[str, Any], rename: Rename) -> ChatRequest:
    """Check a chat request's body that stands for another one, and say errors in that one's words.

    Raises:
        ApiError: it is refused.
    """
    state = request.app.state
    with in_words(rename):
        request.state.served = state.models.find(body)
        return read_chat_request(body, state.settings, rename)


@contextmanager
def in_words(rename: Rename) -> Iterator[None]:
    """Within, errors of the chat interface are put into the words of the other one."""
    try:
        yield
    except ApiError as error:
        param = None if error.param is None else rename(error.param)
        raise ApiError(error.status, error.code, rename(error.message), param, error.headers) from None


def renaming(names: Mapping[str, str], place: Place, unread: Mapping[str, str] | None = None) -> Rename:
    """A function that puts names of fields, as whole words, and places into the words of another interface.

    Args:
        names: of fields of the chat interface and of the other one. `messages` is replaced only where it stands alone,
            as it is a word of sentences, too.
        unread: the same of fields that are passed on as they are, which texts do not name.
        place: from the numbers of a message and of a part in it, or None, to what `messages[0].content[1]` is there.
    """
    fields = [re.escape(name) for name in names if name != "messages"]
    words = re.compile(rf"(?<![\w'\".])(?:{'|'.join(fields)})(?![\w'\"])")

    def place_of(match: re.Match[str]) -> str:
        part = match["part"]
        try:
            return place(int(match["message"]), None if part is None else int(part))
        except IndexError:  # no place, but text of the request that looks like one
            return match[0]

    def rename(text: str) -> str:
        for known in (unread or {}, names):
            if text in known:
                return known[text]
        return words.sub(lambda match: names[match[0]], PLACE.sub(place_of, text))

    return rename
