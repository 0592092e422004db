"""The published table: every figure has its source, and runs stand beside it with what differs."""

from mlx_smolvlm.evaluate.data.sets import SETS
from mlx_smolvlm.evaluate.published.leaderboard import OwnRun, OwnScore, leaderboard_text
from mlx_smolvlm.evaluate.published.published_scores import BENCHMARKS, MODELS, PUBLISHED


def test_every_figure_has_a_place_and_a_source_and_what_is_unsure_a_reason():
    assert {score.benchmark for score in PUBLISHED} == {benchmark.name for benchmark in BENCHMARKS}
    assert {score.model for score in PUBLISHED} == set(MODELS)
    assert all(score.source and (score.is_sure or score.note) and 0 < score.score < 100 for score in PUBLISHED)
    assert {name for benchmark in BENCHMARKS for name in benchmark.sets} - set(SETS) == {"CinePile"}


def test_figures_are_where_they_belong_and_marked():
    lines = {line.split("  ")[0]: line.split()[-5:] for line in leaderboard_text().splitlines()}
    assert lines["OCRBench /10"] == ["65.5", "-", "72.9", "61?", "52.6?"]
    assert lines["AI2D"][0] == "84.5?"
    assert lines["Video-MME"] == ["-", "-", "52.1", "42.2", "33.7"]


def test_runs_stand_beside_the_published_figures():
    like = OwnRun("mine", "vlmevalkit", "float32", {"OCRBench": OwnScore(71.24, 68.1, 74, 1000)})
    other = OwnRun("4 bits", "chat", "bfloat16", {"MLVU_MCQ": OwnScore(50, 40, 60, 99), "mini": OwnScore(9, 1, 20, 42)})
    text = leaderboard_text([like, other])
    assert "71.2 (68.1-74.0)" in text and "50.0? (40.0-60.0)" in text
    assert "mine: protocol vlmevalkit, float32; OCRBench 1000 rows" in text
    assert "the published ones are vlmevalkit in float32); MLVU_MCQ 99 rows; not published: mini" in text
