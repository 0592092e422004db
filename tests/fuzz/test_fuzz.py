"""Hostile examples of everything that strangers hand in: refused in one short line, in time and within memory.

A few of each kind always; `--slow` tries 10,000 of each, in processes of their own with limits. What once did harm lies
in `found/KIND/` and is tried each time.
"""

import time
from pathlib import Path

import pytest

from .kinds import KINDS, Workplace
from .long_run import try_examples
from .run_examples import MAX_SECONDS

FOUND = Path(__file__).parent / "found"
QUICK, SLOW = 12, 10_000


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.filterwarnings("ignore")  # libraries warn of damage in their own words
@pytest.mark.parametrize("kind", KINDS)
def test_a_few_examples_are_read_or_refused(place, kind: str) -> None:
    for number in range(QUICK):
        start = time.monotonic()
        place.attempt(kind, place.example(kind, number))
        assert time.monotonic() - start < MAX_SECONDS, number


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", sorted(FOUND.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_did_harm_does_none(place, path: Path) -> None:
    start = time.monotonic()
    place.attempt(path.parent.name, path.read_bytes())
    assert time.monotonic() - start < MAX_SECONDS


def test_examples_are_the_same_each_time(place) -> None:
    for kind in KINDS:
        examples = [place.example(kind, number) for number in range(20)]
        assert examples == [place.example(kind, number) for number in range(20)]
        assert len(set(examples)) > 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_10000_examples_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    assert [event for event in try_examples(kind, SLOW, tmp_path) if "harm" in event] == []


@pytest.mark.slow
def test_a_run_notes_what_does_harm_and_goes_on_where_it_was(tmp_path: Path) -> None:
    (figures,) = try_examples("schemas", 3, tmp_path)
    assert figures["done"] == 3 and figures["slowest_s"] < MAX_SECONDS
    assert list(try_examples("schemas", 3, tmp_path)) == []
    *harmful, figures = try_examples("unknown", 3, tmp_path / "unknown")
    assert [event["number"] for event in harmful] == [0, 1, 2] and figures["done"] == 3
    assert "_read_unknown" in harmful[0]["harm"]
