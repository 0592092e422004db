"""The helper: an `Engine` behind a socket. `python -I -m mlx_smolvlm.bridge`, started by a program, never by hand.

Standard input and output are the two directions of the wire. It ends when its input ends.
"""

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bridge import BridgeEngine as Engine
    from .wire import LineWriter

END_OF_INPUT_S = 0.5  # after which the process ends, whatever MLX does
BROKEN = 75  # exit status: the GPU is lost to this process, a new one may have it
BAD_WIRE = 65  # exit status: what came is no protocol


def main() -> None:
    """Answer requests until the input ends."""
    incoming, outgoing = _take_streams()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, whose end ends this
    from .wire import LineWriter

    writer = LineWriter(outgoing)
    try:
        from .bridge import BridgeEngine as Engine
    except BaseException as error:  # an installation that is not whole
        writer.write(_package_missing(error))
        sys.exit(1)
    engine = Engine()
    _report_warnings(engine)
    status: list[int] = []
    _start_reading(incoming, engine, writer, status)
    try:
        _work(engine, writer, status)
    except OSError:  # the program has gone
        status.append(0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status[0])  # threads that open media or download are not waited for


def _take_streams() -> tuple[int, int]:
    """The two ends of the wire; from now on what is printed goes to standard error, and nothing reads the wire."""
    incoming, outgoing = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return incoming, outgoing


def _package_missing(error: BaseException) -> str:
    import json

    text = " ".join(f"{type(error).__name__}: {error}".split())[:2000]
    return json.dumps(
        {"event": "error", "id": None, "kind": "package_missing", "type": type(error).__name__, "message": text}
    )


def _report_warnings(engine: "Engine") -> None:
    """Warnings and lines of the log become events."""
    import logging
    import warnings

    class ToProgram(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            engine.report(record.levelname.lower(), record.getMessage())

    logging.getLogger().addHandler(ToProgram(logging.WARNING))
    warnings.showwarning = lambda message, *_, **__: engine.report("warning", str(message))


def _start_reading(incoming: int, engine: "Engine", writer: "LineWriter", status: list[int]) -> None:
    """Hand what comes to the engine, in a thread without MLX; `status` has an exit status once nothing comes."""
    from contextlib import suppress
    from threading import Thread, Timer

    from .events import error_event
    from .requests import WIRE_REQUESTS, FrameRequest, parse_json, read_request
    from .wire import WireError, read_messages

    def take(line: str, attachments: list[bytes]) -> None:
        if not any(f'"{name}"' in line for name in WIRE_REQUESTS):  # most are for the engine
            return engine.submit(line, attachments)
        try:
            value = parse_json(line)
            if not isinstance(value, dict) or value.get("request") not in WIRE_REQUESTS:
                return engine.submit(line, attachments)
            request = read_request(value, WIRE_REQUESTS)
        except ValueError as error:
            return engine.report("error", str(error))
        if not isinstance(request, FrameRequest):
            return engine.cancel(request.id)
        if len(attachments) != 1:
            return engine.report("error", f"frame has {len(attachments)} attachments, expected 1")
        engine.push_frame(
            request.source,
            attachments[0],
            request.width,
            request.height,
            request.bytes_per_row,
            request.format,
            request.seconds,
        )
        return None

    def read() -> None:
        ending = 0
        try:
            with open(incoming, "rb") as stream:
                for line, attachments in read_messages(stream):
                    take(line, attachments)
        except WireError as error:
            with suppress(OSError):
                writer.write(error_event(None, WireError(f"the connection ends: {error}")).json())
            ending = BAD_WIRE
        except OSError:  # the program has gone
            pass
        timer = Timer(END_OF_INPUT_S, os._exit, [ending])
        timer.daemon = True
        timer.start()
        status.append(ending)
        engine.report("info", "the input has ended")  # wakes the engine

    Thread(target=read, name="mlx_smolvlm requests", daemon=True).start()


def _work(engine: "Engine", writer: "LineWriter", status: list[int]) -> None:
    while not status:
        event = engine.step(1.0)
        if event is not None and not status:  # once the input has ended, nobody waits for it
            writer.write(event)
        if engine.is_broken:
            status.append(BROKEN)


if __name__ == "__main__":
    main()
