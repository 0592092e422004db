"""A document of 300 pages: killed at any moment, memory that stays flat, and pages that are read together."""

import os
import random
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from support.made_pdfs import MadePage, write_pdf

from mlx_smolvlm import load, read_document
from mlx_smolvlm.benchmark.geometries import GEOMETRIES, make_checkpoint

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
ODD = (
    MadePage(["turned"], width=90, height=120, rotation=90),
    MadePage(["cut"], width=90, height=120, crop=(10, 20, 60, 100)),
    MadePage(width=1, height=1),
    MadePage(["long"], width=400, height=20),
)
A0 = MadePage(["A0"], width=2384, height=3370)


def long_pdf(path: Path, number: int) -> Path:
    """Pages that differ, every tenth of them odd, two early ones of A0 size: what they take may stay allocated."""
    pages = [MadePage([f"Page {index}"], width=60 + index % 50, height=70 + index % 30) for index in range(number)]
    for place, index in enumerate(range(5, number, 10)):
        pages[index] = ODD[place % len(ODD)]
    pages[8] = pages[16] = A0
    return write_pdf(path, pages)


def command(pdf: Path, out: Path, checkpoint: Path) -> list[str]:
    options = ["--model", str(checkpoint), "--out", str(out), "--max-tokens", "6", "--quiet", "--to", "doctags"]
    return [sys.executable, "-m", "mlx_smolvlm.document", str(pdf), *options]


def start(*words: object) -> subprocess.Popen:
    return subprocess.Popen(command(*words), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


def records(out: Path) -> dict[int, tuple[int, bytes]]:
    """Number -> (when it was written, content) of every page that is kept."""
    found = out.glob(".pages/*/[0-9]*.json")
    return {int(path.stem): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of another process from /proc")
def test_three_hundred_pages_in_flat_memory_and_killed_ten_times(tmp_path, document_checkpoint):
    pdf = long_pdf(tmp_path / "long.pdf", 300)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process, held = start(pdf, whole, document_checkpoint), []
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if "VmRSS" in status and len(list(whole.glob(".pages/*/[0-9]*.json"))) > 20:
            held.append(int(status.partition("VmRSS:")[2].split()[0]) / 1024)
        time.sleep(0.05)
    assert process.returncode in (0, 1), process.communicate()[1]  # 1: most pages are cut
    process.communicate()
    quarter = len(held) // 4
    early, late = statistics.median(held[:quarter]), statistics.median(held[-quarter:])
    print(f"MiB held: {early:.0f} in the first quarter, {late:.0f} in the last, {max(held):.0f} at most")
    assert late < 1.15 * early and max(held) < 1500

    draw, before = random.Random(1), {}
    for _ in range(10):
        process = start(pdf, killed, document_checkpoint)
        wanted, end_s = len(before) + draw.randrange(1, 40), time.monotonic() + 120
        while len(list(killed.glob(".pages/*/[0-9]*.json"))) < wanted and process.poll() is None:
            assert time.monotonic() < end_s
            time.sleep(draw.random() / 50)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        after = records(killed)
        assert {number: after[number] for number in before} == before  # nothing is read twice
        before = after
    assert 10 < len(before) < 300
    process = start(pdf, killed, document_checkpoint)
    process.communicate(timeout=300)
    after = records(killed)
    assert {number: after[number] for number in before} == before and sorted(after) == list(range(1, 301))
    assert (killed / "long.doctags").read_bytes() == (whole / "long.doctags").read_bytes()
    assert sorted(path.name for path in killed.iterdir()) == [".pages", "long.doctags"]


@pytest.mark.slow
def test_four_pages_together_are_quicker_than_one_by_one(tmp_path):
    """A decoder of the 256M geometry, with fewer layers, behind an encoder that costs hardly anything."""
    geometry = GEOMETRIES["overhead"]
    geometry = replace(geometry, text=replace(GEOMETRIES["256m"].text, num_hidden_layers=6))
    model, processor = load(make_checkpoint(geometry, "float32", tmp_path / "model"), dtype="float32")
    images = [Image.new("RGB", (64, 64), (index, 0, 0)) for index in range(4)]

    def seconds(batch_size: int) -> float:
        start_s = time.perf_counter()
        reading = read_document(
            model, processor, images, batch_size=batch_size, max_tokens=32, do_image_splitting=False
        )
        assert len(list(reading)) == 4
        return time.perf_counter() - start_s

    seconds(4)
    alone, together = seconds(1), seconds(4)
    print(f"pages/s: {4 / alone:.2f} one by one, {4 / together:.2f} four at a time ({alone / together:.2f} times)")
    assert alone > 1.5 * together
