"""PDFs that a password opens: 40-bit RC4, as in section 7.6 of ISO 32000-1, security handler of revision 2."""

import re
from collections.abc import Sequence
from hashlib import md5

from support.made_pdfs import MadePage, pdf_bytes

_PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
_PERMISSIONS = (-44).to_bytes(4, "little", signed=True)
_ID = b"\1" * 16
_STREAM = re.compile(rb"(\d+) 0 obj\n<< /Length \d+ >>\nstream\n(.*?)\nendstream", re.DOTALL)


def locked_pdf_bytes(pages: Sequence[MadePage], password: str) -> bytes:
    """`pdf_bytes`, encrypted with this user password, of ASCII; nobody knows the owner's."""
    padded = (password.encode("ascii") + _PADDING)[:32]
    owner = _rc4(md5(b"owner").digest()[:5], padded)
    key = md5(padded + owner + _PERMISSIONS + _ID).digest()[:5]
    user = _rc4(key, _PADDING)
    encryption = f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{owner.hex()}> /U <{user.hex()}> /P -44 >> "
    plain = pdf_bytes(pages, f"{encryption} /ID [<{_ID.hex()}> <{_ID.hex()}>]")

    def encrypted(match: re.Match[bytes]) -> bytes:
        own_key = md5(key + int(match[1]).to_bytes(3, "little") + b"\0\0").digest()[:10]
        return match[0].replace(match[2], _rc4(own_key, match[2]))

    return _STREAM.sub(encrypted, plain)


def _rc4(key: bytes, content: bytes) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    result = bytearray()
    for byte in content:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        result.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(result)
