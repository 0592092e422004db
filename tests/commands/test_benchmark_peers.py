"""What ended another program is told as a whole, and in one line."""

from pathlib import Path

import pytest
from support.command_lines import assert_refused, run

from mlx_smolvlm.benchmark.peers import last_error

TRACE = 'Traceback (most recent call last):\n  File "/x/worker.py", line 3, in <module>\n    main()\n'
MISSING = (
    "ImportError: \nAutoImageProcessor requires the Torchvision library but it was not found in your environment.\n"
    "Check out the instructions on the installation page.\nPlease note that you may need to restart your runtime.\n"
)


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        (
            f"loading\n{TRACE}{MISSING}",
            "ImportError: AutoImageProcessor requires the Torchvision library",
        ),
        (
            f"{TRACE}KeyError: 'a'\n\nDuring handling, another exception occurred:\n\n{TRACE}{MISSING}",
            "ImportError: Auto",
        ),
        (f"{TRACE}    ~~~~^^\ntorch.OutOfMemoryError: no room\n", "torch.OutOfMemoryError: no room"),
        (f"{TRACE}KeyboardInterrupt\n", "KeyboardInterrupt"),
        ("a warning: of no matter\nerror: no folder 'x'\n", "error: no folder 'x'"),
        (f"{TRACE}OSError: {Path.home()}/models/x\n", "OSError: ~/models/x"),
        ("", "without a word"),
    ],
)
def test_the_error_is_told_whole_and_from_its_beginning(printed, told):
    assert last_error(printed).startswith(told)
    assert "\n" not in last_error(printed)


@pytest.mark.parametrize("word", ["long ", "long"])
def test_a_long_error_is_shortened(word):
    assert len(last_error(TRACE + "ValueError: " + word * 1000)) <= 300


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--peer-python", "mlx-vlm=/usr/bin/python3"], "mlx-vlm, which is not compared; add --against mlx-vlm"),
        (["--peers-only"], "--peers-only has nothing to compare with; add --against"),
    ],
)
def test_options_of_peers_are_refused_where_none_is_compared(monkeypatch, capsys, options, problem):
    """Nothing was measured, and the status was 0."""
    assert_refused(run(monkeypatch, capsys, "benchmark", "--quiet", *options), problem)
