"""Rows as a server drives them: told when a prompt begins, woken by other threads, cancelled while nobody decodes."""

import threading
import time
from threading import Event
from types import SimpleNamespace

import pytest
from support.row_events import finished

from mlx_smolvlm import BatchRequest, GenerationOptions, Rows
from mlx_smolvlm.api.loading import DEMO_MODEL
from mlx_smolvlm.engine.pacing import Pace
from mlx_smolvlm.processor.prompt import Prompt


def test_a_cancel_takes_effect_between_two_units_where_nobody_decodes(demo, monkeypatch):
    """All prompts are read within one step then; a server's client may leave meanwhile."""
    cancel, begun = Event(), []
    with Rows(*demo) as rows:
        unit = rows._reading.unit

        def counted(rows, seconds):
            begun.extend(["unit"] if rows else [])  # none while the prompt is being prepared
            if begun.count("unit") == 2:
                cancel.set()
            return unit(rows, seconds)

        monkeypatch.setattr(rows._reading, "unit", counted)
        request = BatchRequest("a " * 600, options=GenerationOptions(prefill_chunk=64))
        rows.add(request, key="long", cancel=cancel, on_begin=lambda: begun.append("begin"))
        events = finished(rows)
    assert [event.finish_reason for event in events["long"]] == ["cancelled"]
    assert begun[:2] == ["begin", "unit"]
    assert begun.count("unit") <= 4  # of more than ten


def test_a_step_that_waits_returns_when_it_is_woken(demo, monkeypatch):
    go_on = Event()
    with Rows(*demo) as rows:
        monkeypatch.setattr("mlx_smolvlm.engine.rows._POLL_S", 20)
        prepare = demo[1].prepare

        def slow_prepare(*arguments, **keywords):
            go_on.wait(20)
            return prepare(*arguments, **keywords)

        monkeypatch.setattr(demo[1], "prepare", slow_prepare)
        rows.add(BatchRequest("Hello", options=GenerationOptions(max_tokens=2)))
        waker = threading.Timer(0.05, rows.wake)
        waker.start()
        start = time.perf_counter()
        assert rows.step() == []
        assert time.perf_counter() - start < 10
        waker.join()
        go_on.set()
        assert finished(rows)[0][-1].finish_reason in ("stop", "length")


def test_a_unit_is_bounded_where_nobody_decodes_too():
    """A question that comes while a picture is read waits for one unit, not for eight tiles of a slow encoder."""
    pace = Pace(0.08)
    pace.tile_s, pace.token_s = 0.1, 0.01
    assert pace.tiles_within(pace.unit_s, 8) == 2
    assert pace.tokens_within(pace.unit_s, 512) == 24
    pace.step_s = 0.2
    assert pace.unit_s == pace.pause_s == 2 * 0.2
    assert Pace(None).unit_s == float("inf")


def test_a_step_that_waited_for_other_programs_allows_no_longer_pause(monkeypatch):
    clock = iter([0, 0.05, 1, 1.05, 2, 5, 6, 6.05, *(number * 0.3 for number in range(100, 108))])
    monkeypatch.setattr("mlx_smolvlm.engine.pacing.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    pace, pauses = Pace(0.065), []
    for _ in range(8):
        with pace.step(1):
            pass
        pauses.append(pace.pause_s)
    assert pauses[:7] == pytest.approx([0.1] * 7)  # the third took three seconds
    assert pauses[7] == pytest.approx(0.6)  # rows became many, and each step takes longer


def test_chunks_shrink_where_tokens_become_slow():
    """On a CPU, 16 tokens that attend to 6,000 took 0.2 s, three times what decoding may wait."""
    pace = Pace(0.065)
    pace.token_s, pace.step_s = 0.013, 0.02
    assert pace.tokens_within(pace.pause_s, 512) == 4
    assert pace.tokens_within(0.01, 512) == 4  # a chunk of one token would take as long as a decode step
    assert not pace.is_used_up(pace.pause_s) and pace.is_used_up(pace.pause_s / 4)
    with pace.tokens(4):
        time.sleep(0.1)
    assert pace.token_s > 0.02  # a chunk of so few is measured, too
    pace.token_s = 1e-3
    assert pace.tokens_within(0.01, 512) == 16


def test_a_prompt_that_has_been_read_begins_in_a_pause_of_its_own(demo, monkeypatch):
    """To copy what 6,000 tokens left behind took half a second, after the last chunk of them."""
    with Rows(*demo) as rows:
        rows.add(BatchRequest("Hello"), key="first", max_tokens=60)
        while not rows._decoder:
            rows.step()
        units, done = [], []
        for owner, name in ((rows._reading, "unit"), (rows, "_begin")):
            work = getattr(owner, name)

            def noted(*arguments, name=name, work=work):
                units[-1].append(name)
                return work(*arguments)

            monkeypatch.setattr(owner, name, noted)
        monkeypatch.setattr(rows._pace, "is_used_up", lambda left_s: True)
        rows.add(BatchRequest("a " * 40), key="second", max_tokens=1)
        while "second" not in done:
            units.append([])
            done += [event.key for event in rows.step()]
    assert ["_begin"] in units and all(len(names) <= 1 for names in units)


@pytest.mark.parametrize("where", ["preparing", "tiles"])
def test_a_thread_that_wants_to_end_the_program_ends_its_row_alone(demo, monkeypatch, where):
    """A SystemExit of a library left `step`, and would have ended a server. A row whose first tile failed with any
    error waited forever for more of them."""
    owner, name = (demo[1], "prepare") if where == "preparing" else (Prompt, "tiles")
    work = getattr(owner, name)

    def ending(*_):
        raise SystemExit(3)
        yield

    def preparing(*arguments, **keywords):
        if arguments[0] != "Hello":
            raise SystemExit(3)
        return work(*arguments, **keywords)

    monkeypatch.setattr(owner, name, preparing if where == "preparing" else ending)
    with Rows(*demo) as rows:
        video = str(DEMO_MODEL.parent / "clip.mp4")
        rows.add(BatchRequest("What?", videos=[video]), key="ends", max_tokens=2)
        rows.add(BatchRequest("Hello"), key="goes on", max_tokens=2)
        events = finished(rows)
    assert str(events["ends"][-1].error) == "a thread ended with SystemExit 3"
    assert events["goes on"][-1].error is None
