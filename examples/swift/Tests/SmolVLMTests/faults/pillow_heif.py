"""Stands for a library that goes wrong when it is imported, as an image in HEIC asks for: in the way that it names."""

import os
import sys


def fail(name: str) -> None:
    """Go wrong in the way of this name."""
    if name == "raise":
        raise RuntimeError("a fault of a test")
    if name == "exit":
        sys.exit(3)
    if name == "print":
        print('{"event":"end","id":1}')
        os.write(1, b'{"event":"end","id":1}\n')
    if name == "recurse":
        fail(name)
    if name == "memory":
        raise MemoryError
    raise ImportError(name)


frame = sys._getframe()
while "head" not in frame.f_locals:
    frame = frame.f_back
fail(frame.f_locals["head"][16:].decode())
