"""The first signal asks for an end in good order, the second one does not ask."""

import os
import signal
import subprocess
import sys

import pytest

from mlx_smolvlm.command_line.signals import STOPPING, Interruption, SingleInterrupts, end_process, handled_by


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_sets_the_event_and_the_second_ends_the_process(number, status):
    before = [signal.getsignal(which) for which in STOPPING]
    with Interruption() as interruption:
        assert not interruption.cancel.is_set()
        signal.raise_signal(number)
        assert interruption.cancel.is_set()
        with pytest.raises(SystemExit) as second:
            signal.raise_signal(signal.SIGINT)
    assert second.value.code == 130
    assert [signal.getsignal(which) for which in STOPPING] == before
    with pytest.raises(SystemExit) as concluded:
        interruption.conclude()
    assert concluded.value.code == status


def test_signals_that_are_not_named_keep_their_handlers():
    before = signal.getsignal(signal.SIGTERM)
    with Interruption([signal.SIGINT], second=signal.default_int_handler) as interruption:
        assert signal.getsignal(signal.SIGTERM) is before
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert interruption.received == signal.SIGINT


def test_ctrl_c_is_one_exception_however_often_it_is_pressed():
    before, caught = signal.getsignal(signal.SIGINT), 0
    with SingleInterrupts(is_wanted=True) as interrupts:
        for _ in range(3):
            try:
                with interrupts.expected():
                    signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                caught += 1
                signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
    assert caught == 3
    with SingleInterrupts(is_wanted=False):
        assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGINT) is before


def test_without_a_signal_nothing_is_concluded():
    with Interruption(watches_output=True) as interruption:
        pass
    assert interruption.conclude() is None


def test_within_a_graceful_part_the_end_at_once_is_put_off():
    with handled_by(end_process):
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGTERM)
        assert interruption.received == signal.SIGTERM
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)


def test_a_reader_that_has_gone_sets_the_event():
    code = (
        "from mlx_smolvlm.command_line.signals import Interruption\n"
        "with Interruption(watches_output=True) as interruption:\n"
        "    came = interruption.cancel.wait(30)\n"
        "try:\n    interruption.conclude()\nexcept BrokenPipeError:\n    raise SystemExit(7 if came else 8)"
    )
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=writing)
    os.close(writing)
    os.close(reading)
    assert process.wait(60) == 7
