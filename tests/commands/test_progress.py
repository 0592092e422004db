"""What the command lines tell of how far they are."""

import io
import sys

import pytest
from support.patience import until

from mlx_smolvlm.command_line.progress import Progress, duration


def test_a_terminal_shows_a_bar_and_other_places_lines(capsys, monkeypatch):
    monkeypatch.setattr("mlx_smolvlm.command_line.progress.REPORT_S", 0)
    with Progress() as progress:
        progress.stage(total=3, unit="pictures")
        for num_errors in (0, 1, 1):
            progress.advance(note=f"{num_errors} errors")
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("1 of 3, 0 errors, ")
    assert second.startswith("2 of 3, 1 errors, ")
    assert " pictures/s, " in second
    assert second.endswith(" s left")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress() as progress:
        progress.stage("reading", 3, "pictures")
        progress.stage(total=3, unit="pictures")
        progress.advance(note="1 errors")
    shown = capsys.readouterr().err
    assert "reading:   0%|" in shown
    assert "1/3" in shown
    assert "1 errors" in shown


def test_nothing_is_shown_unless_it_is_wanted(capsys, monkeypatch):
    monkeypatch.setattr("mlx_smolvlm.command_line.progress.REPORT_S", 0)
    for is_terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda is_terminal=is_terminal: is_terminal)
        with Progress(is_shown=False) as progress:
            progress.stage("reading")
            progress.stage("writing", 3, "B")
            progress.advance()
    assert capsys.readouterr().err == ""


def test_what_was_done_before_counts_but_not_in_the_rate(capsys, monkeypatch):
    monkeypatch.setattr("mlx_smolvlm.command_line.progress.REPORT_S", 0)
    monkeypatch.setattr("mlx_smolvlm.command_line.progress.time.monotonic", iter((0.0, 2.0, 2.0)).__next__)
    progress = Progress()
    progress.stage(total=40, unit="steps", done=6)
    progress.advance(4)
    assert capsys.readouterr().err == "10 of 40, 2 steps/s, 15 s left\n"


def test_bytes_are_counted_in_megabytes_and_a_beginning_anew_is_no_fault(capsys, monkeypatch):
    monkeypatch.setattr("mlx_smolvlm.command_line.progress.REPORT_S", 0)
    progress = Progress()
    progress.stage("writing", 5_000_000, "B")
    progress.reach(2e6)
    progress.reach(0.2)
    progress.reach(3e6)
    stage, first, second = capsys.readouterr().err.splitlines()
    assert stage == "writing"
    assert first.startswith("2 of 5, ")
    assert second.startswith("3 of 5, ")
    assert " MB/s, " in second


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (312.4, "312 s"), (750, "12 min"), (12_000, "3 h 20 min")]
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_a_stage_without_a_count_shows_on_terminals_that_it_goes_on(monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return True

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Progress() as progress:
        progress.stage("rounding layer by layer")
        until(lambda: "working" in screen.getvalue())
    assert screen.getvalue().startswith("rounding layer by layer\n\r\x1b[K| working (")
    assert screen.getvalue().endswith("\r\x1b[K")
