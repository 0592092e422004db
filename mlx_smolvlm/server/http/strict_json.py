"""Request bodies as JSON, read strictly: what two parsers might understand differently is refused.

UTF-8 only, one object, no key twice, no NaN or Infinity, no number beyond float64, no lone surrogate, and bounds on
depth and on the number of values, checked before anything is built.
"""

import asyncio
import json
import math
import re
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from starlette.requests import Request

from ...options import quoted
from ..errors import ApiError, bad_request

T = TypeVar("T")
MAX_VALUES = 100_000  # a Python object each: a body of many empty lists would take twenty times its size
THREAD_BYTES = 64 * 1024  # a larger body is parsed in a thread, so that the event loop goes on
LONG_STRING = 64 * 1024  # longer ones, which are media, do not go through the parser
BLOCK = 4 * 1024**2  # bytes to scan in one call, which no other thread can interrupt
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # escapes that may be one: most bodies have none, and need no second look
STRUCTURE = re.compile(rb'["\[\]{},]')
PLAIN = re.compile(rb'[^"\\\x00-\x1f]*+')  # possessive, here and below: no memory for going back
ESCAPED = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


async def read_body(request: Request, read: Callable[[dict[str, Any]], T]) -> T:
    """What `read` makes of the JSON object that is the body of a request. A large one is read in a thread.

    Raises:
        ApiError: the body is no such object, too large or too slow; and what `read` raises.
        ClientDisconnect: the client left before all of it had come.
    """
    data = bytearray()  # to join chunks at the end would stop the event loop
    async for chunk in request.stream():  # unlike body(), the request does not keep it
        data += chunk
    max_depth = request.app.state.settings.max_json_depth
    if len(data) <= THREAD_BYTES:
        return read(parse(data, max_depth))

    def work() -> T:
        nonlocal data
        body = parse(data, max_depth)
        data = bytearray()
        return read(body)

    return await asyncio.to_thread(work)


def parse(data: bytes | bytearray, max_depth: int = 64) -> dict[str, Any]:
    """The JSON object in `data`.

    Raises:
        ApiError: 400, with the reason.
    """
    if data.startswith(BYTE_ORDER_MARKS) or b"\0" in data[:4]:
        raise _invalid("has a byte order mark or is not UTF-8; send UTF-8 without a mark")
    scan = _Scan(data, max_depth)
    try:
        text = b"".join(scan.pieces).decode("utf-8")
        strings = [str(memoryview(data)[start:end], "utf-8") for start, end in scan.long_strings]
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int
        )
    except UnicodeDecodeError:
        raise _invalid("is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _invalid(f"is not JSON: {error.msg}, line {error.lineno} column {error.colno}") from None
    if strings:
        value = _restored(value, scan.mark, strings)
    if not isinstance(value, dict):
        raise _invalid(f"is a JSON {_kind(value)}, expected an object")
    if b"\\u" in data and SURROGATE.search(data):
        _check_surrogates(value)
    return value


class _Scan:
    """One pass over the bytes: counts what is outside of strings, and takes long strings out.

    A long string without escapes need not be parsed, only found. Left in, one emoji beside it would make the text of
    the whole body four bytes a character. Whether brackets match is for the parser to say.

    Attributes:
        pieces: the body with a short string for each long one: `mark` and its index.
        long_strings: start and end of each, in bytes, without the quotes.
    """

    def __init__(self, data: bytes | bytearray, max_depth: int):
        self.mark = secrets.token_hex(16)  # nobody can guess it, so no other string of the body begins with it
        self.pieces: list[bytes | memoryview] = []
        self.long_strings: list[tuple[int, int]] = []
        depth = num_values = position = copied = 0
        while (match := STRUCTURE.search(data, position)) is not None:
            position, sign = match.end(), match[0]
            if sign == b'"':
                end = _end_of_plain(data, position)
                if data[end : end + 1] != b'"':
                    end = _end_of_escaped(data, end)
                    if end >= len(data):
                        break
                elif end - position > LONG_STRING:
                    self.pieces += [memoryview(data)[copied:position], f"{self.mark}{len(self.long_strings)}".encode()]
                    self.long_strings.append((position, end))
                    copied = end
                position = end + 1
            elif sign in b"[{":
                depth, num_values = depth + 1, num_values + 1
                if depth > max_depth:
                    raise _invalid(f"is nested more than {max_depth} levels deep")
            elif sign == b",":
                num_values += 1
            else:
                depth -= 1
            if num_values > MAX_VALUES:
                raise _invalid(f"has more than {MAX_VALUES} values")
        self.pieces.append(memoryview(data)[copied:])


def _end_of_plain(data: bytes | bytearray, position: int) -> int:
    """Where the first quote, backslash or control character from `position` on is."""
    while True:
        match = PLAIN.match(data, position, position + BLOCK)
        end = match.end() if match else position
        if end < position + BLOCK:
            return end
        position = end


def _end_of_escaped(data: bytes | bytearray, position: int) -> int:
    """Where the first quote from `position` on is that no backslash escapes; the end of the data if there is none."""
    while True:
        match = ESCAPED.match(data, position, position + BLOCK)
        end = match.end() if match else position
        if end == position or data[end : end + 1] == b'"':
            return end if data[end : end + 1] == b'"' else len(data)
        position = end


def _restored(value: Any, mark: str, strings: list[str]) -> Any:
    """Put the long strings back."""
    if isinstance(value, str) and value.startswith(mark):
        return strings[int(value.removeprefix(mark))]
    if isinstance(value, list):
        return [_restored(item, mark, strings) for item in value]
    if isinstance(value, dict):
        if any(key.startswith(mark) for key in value):
            raise _invalid(f"has a key of more than {LONG_STRING} bytes")
        return {key: _restored(item, mark, strings) for key, item in value.items()}
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise _invalid(f"has the key {quoted(twice)} twice in one object")
    return value


def _constant(name: str) -> NoReturn:
    raise _invalid(f"has {name}, which is not a JSON number")


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _invalid(f"has the number {quoted(digits)}, which is out of range")
    return value


def _int(digits: str) -> int:
    _float(digits)  # linear in the number of digits, unlike int()
    return int(digits)


def _check_surrogates(value: Any) -> None:
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise _invalid("has half of a surrogate pair, which is no character") from None
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_surrogates(key)
            _check_surrogates(item)
    elif isinstance(value, list):
        for item in value:
            _check_surrogates(item)


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "number"


def _invalid(reason: str) -> ApiError:
    return bad_request(f"the request body {reason}", code="invalid_json")
