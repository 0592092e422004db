"""Lines with attachments: whole, bounded, and the end of the connection where they are not."""

import io
import json

import pytest

from mlx_smolvlm.bridge.wire import MAX_LINE_BYTES, WireError, read_messages


def messages(data: bytes) -> list[tuple[str, list[bytes]]]:
    return list(read_messages(io.BufferedReader(io.BytesIO(data))))


def test_attachments_follow_their_line():
    first = json.dumps({"request": "x", "attachments": [3, 0, 2]})
    assert messages(first.encode() + b"\nab\ncd\n{}\n") == [(first + "\n", [b"ab\n", b"", b"cd"]), ("{}\n", [])]


def test_what_is_no_json_is_left_to_the_engine():
    assert messages(b"nonsense\n\n[1]\n") == [("nonsense\n", []), ("[1]\n", [])]


@pytest.mark.parametrize(
    "data",
    [
        b"x" * (MAX_LINE_BYTES + 1) + b"\n",
        b"{}",
        b"\xff\n",
        b'{"attachments": [4]}\nabc',
        b'{"attachments": [-1]}\n',
        b'{"attachments": [true]}\n',
        b'{"attachments": [67108865]}\n',
        b'{"attachments": 3}\n',
        json.dumps({"attachments": [0] * 257}).encode() + b"\n",
    ],
)
def test_what_cannot_be_read_on_from_ends_the_connection(data):
    with pytest.raises(WireError):
        messages(data)
