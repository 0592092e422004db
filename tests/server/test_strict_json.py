import json

import pytest

from mlx_smolvlm.server.errors import ApiError
from mlx_smolvlm.server.http import strict_json
from mlx_smolvlm.server.http.strict_json import LONG_STRING, parse

LONG = b"A" * (LONG_STRING + 1)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"[]", "a JSON array, expected an object"),
        (b"null", "a JSON null, expected an object"),
        (b'"' + LONG + b'"', "a JSON string, expected an object"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "byte order mark"),
        ('{"a": 1}'.encode("utf-16-be"), "not UTF-8"),
        ('{"a": 1}'.encode("utf-32-le"), "not UTF-8"),
        (b'{"a": "\xe9"}', "not UTF-8"),
        (b'{"a": "' + LONG + b'\xe9"}', "not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),  # a surrogate, encoded
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\uDC00": ["x"]}', "surrogate"),
        (b'{"a": [{"b": "x\\udfff"}]}', "surrogate"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e400}', "'1e400', which is out of range"),
        (b'{"a": 1' + b"0" * 400 + b"}", "out of range"),
        (b'{"a": -1' + b"0" * 5000 + b"}", "out of range"),  # int() itself refuses so many digits
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' twice"),
        (b'{"' + LONG + b'": 1, "' + LONG + b'": 2}', "has a key of more than"),
        (b'{"a": ' + b"[" * 10000 + b"]" * 10000 + b"}", "more than 64 levels"),
        (b"[" * 10000, "more than 64 levels"),
        (b'{"a": ' + b'{"a": ' * 64 + b"1" + b"}" * 65, "more than 64 levels"),
        (b'{"a": [' + b"[]," * 100_000 + b"1]}", "more than 100000 values"),
        (b'{"a": "\x01"}', "Invalid control character"),
        (b'{"a": "' + LONG + b'\n"}', "Invalid control character"),
        (b'{"a": 1} {"b": 2}', "Extra data"),
        (b'{"a": "\\', "Unterminated string"),
        (b'{"a": "' + LONG, "Unterminated string"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1,}', "not JSON"),
    ],
)
def test_bodies_that_parsers_may_read_differently_are_refused_with_the_reason(body, reason):
    with pytest.raises(ApiError) as refusal:
        parse(body)
    assert (refusal.value.status, refusal.value.code) == (400, "invalid_json")
    assert reason in refusal.value.message and len(refusal.value.message) < 200
    json.dumps(refusal.value.body, ensure_ascii=False).encode()  # the answer itself can be sent


def test_other_bodies_are_read_as_by_the_standard_parser():
    long, escaped = LONG.decode(), "\\/" * LONG_STRING
    for text in (
        '{"a": [1, -2.5, 1e3, true, null, "\\ud83d\\ude00 \\"[[[\\\\"], "b": {"b": {}}, "": ""}',
        '{"a": ' + "[" * 63 + "]" * 63 + "}",
        f'{{"emoji": "😀", "media": ["{long}", "{long}é", {{"x": "{escaped}"}}], "url": "data:,{long}"}}',
        '{"a": "' + '\\"' * 1000 + '{[,", "b": "\\\\"}',
        f'{{"{long}é\\n": 1}}',
    ):
        assert parse(text.encode()) == json.loads(text)


def test_a_string_that_looks_like_a_mark_stays_as_it_is(monkeypatch):
    """Long strings are put back by a mark that a body cannot guess; what begins with half of it is left alone."""
    monkeypatch.setattr(strict_json.secrets, "token_hex", lambda count: "f" * 2 * count)
    assert parse(b'{"a": "ffff", "b": "' + LONG + b'"}') == {"a": "ffff", "b": LONG.decode()}
