"""The benchmark's reports and plots: drawn of what was measured, and never over a user's file."""

import sys

import pytest
from support.command_lines import assert_refused, run

from mlx_smolvlm.benchmark.report import write_report_plot


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_users_file_is_not_replaced(monkeypatch, capsys, tmp_path, option):
    path = tmp_path / "thesis.png"
    path.write_text('{"a": 1}')
    result = run(monkeypatch, capsys, "benchmark", "--only", "size", option, path)
    assert_refused(result, "exists already and is no")
    assert path.read_text() == '{"a": 1}'


def test_plots_need_matplotlib_and_a_known_ending(monkeypatch, capsys):
    """Said before hours of measuring, not after them."""
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib.figure", None)
        assert_refused(run(without, capsys, "benchmark", "--only", "size", "--plot", "plot.png"), "mlx-smolvlm[plot]")
    pytest.importorskip("matplotlib")
    for options, problem in (
        (["--plot", "plot.docx", "--only", "size"], "no image format is called '.docx'; try .png, .svg or .pdf"),
        (["--plot", "plot.png"], "nothing to draw"),
    ):
        assert_refused(run(monkeypatch, capsys, "benchmark", *options), problem)


def test_plots_are_drawn_of_what_was_measured(tmp_path):
    pytest.importorskip("matplotlib")
    comparison = {"name": "decode", "peer": "mlx-vlm", "unit": "tokens/s", "ratio": 1.5}
    sizes = [
        {"section": "size", "name": f"{count} pictures: first token", "median": float(count)} for count in (1, 2, 4)
    ]
    write_report_plot({"comparisons": [comparison], "measurements": sizes}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="nothing to draw"):
        write_report_plot({"comparisons": [], "measurements": []}, tmp_path / "none.png")
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]
