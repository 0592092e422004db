"""Published scores of the family, each with its source and how sure it is.

They were measured with VLMEvalKit: its raw prompts, float32, greedy, at most 2048 tokens, videos as up to 64 frames.
"""

from dataclasses import dataclass

_CARD2 = "SmolVLM2's model card"
_CARD1 = "SmolVLM's model card of November 2024"
_PAPER = "the SmolVLM paper"


@dataclass(frozen=True)
class PublishedScore:
    """A published score.

    Attributes:
        benchmark: name in `BENCHMARKS`.
        model: a column of the table.
        score: percent, or for OCRBench thousandths divided by 10.
        source: who published it.
        is_sure: False where it was not read from its source, or contradicts it.
        note: what is doubtful.
    """

    benchmark: str
    model: str
    score: float
    source: str
    is_sure: bool = True
    note: str = ""


@dataclass(frozen=True)
class PublishedBenchmark:
    """A row of the table: VLMEvalKit's names of the set, and its measure."""

    name: str
    sets: tuple[str, ...]
    measure: str


BENCHMARKS = (
    PublishedBenchmark("MMMU val", ("MMMU_DEV_VAL",), "options, the val part"),
    PublishedBenchmark("MathVista", ("MathVista_MINI",), "with a judge model"),
    PublishedBenchmark("MMStar", ("MMStar",), "options"),
    PublishedBenchmark("OCRBench /10", ("OCRBench",), "substring"),
    PublishedBenchmark("DocVQA", ("DocVQA_VAL",), "ANLS"),
    PublishedBenchmark("ChartQA", ("ChartQA_TEST",), "relaxed accuracy"),
    PublishedBenchmark("TextVQA", ("TextVQA_VAL",), "VQA accuracy"),
    PublishedBenchmark("AI2D", ("AI2D_TEST",), "options"),
    PublishedBenchmark("ScienceQA", ("ScienceQA_TEST",), "options"),
    PublishedBenchmark("Video-MME", ("Video-MME",), "options"),
    PublishedBenchmark("MLVU", ("MLVU", "MLVU_MCQ"), "options"),
    PublishedBenchmark("MVBench", ("MVBench", "MVBench_MP4"), "options"),
    PublishedBenchmark("WorldSense", ("WorldSense",), "options"),
    PublishedBenchmark("TempCompass", ("TempCompass",), "several kinds"),
    PublishedBenchmark("CinePile", ("CinePile",), "options, 50 frames"),
)

_V1 = "SmolVLM 2.2B"
_V1_OLD = "SmolVLM 2.2B (Nov 2024)"
_V2 = "SmolVLM2 2.2B"
MODELS = (_V1, _V1_OLD, _V2, "SmolVLM2 500M", "SmolVLM2 256M")

_SLIP = "equals ScienceQA's, probably a slip of the card"
_SECOND_HAND = "read second hand; of the paper's own checkpoints"
_NO_PART = "the card does not say whether validation or test"
_FRAMES = "64 frames most likely, which is not stated"
_SCORES: dict[str, tuple[float | None, ...]] = {  # in the order of MODELS
    "MMMU val": (38.3, 38.8, 42.0, 33.7, 29.0),
    "MathVista": (43.9, 44.6, 51.5, 40.1, 35.9),
    "MMStar": (41.8, 42.1, 46.0, 38.2, 34.6),
    "OCRBench /10": (65.5, None, 72.9, 61.0, 52.6),
    "DocVQA": (79.7, 81.6, 79.98, 70.5, 58.3),
    "ChartQA": (71.6, None, 68.84, 62.8, 55.6),
    "TextVQA": (72.1, 72.7, 73.21, 60.2, 50.2),
    "AI2D": (84.5, None, 70.0, 59.2, 46.4),
    "ScienceQA": (84.5, None, 90.0, 80.0, 73.8),
    "Video-MME": (None, None, 52.1, 42.2, 33.7),
    "MLVU": (None, None, 55.2, 47.3, 40.6),
    "MVBench": (None, None, 46.27, 39.73, 32.7),
    "WorldSense": (None, None, 36.2, 30.6, 29.7),
    "TempCompass": (None, None, 53.7, 49.0, 43.1),
    "CinePile": (None, 27.14, None, None, None),
}
_OF_CARDS = ("Video-MME", "MLVU", "MVBench")  # whose cards have them for the small models, too
_OF_PAPER = ("WorldSense", "TempCompass")


def _published(benchmark: str, model: str, score: float) -> PublishedScore:
    source = {_V1: _CARD2, _V1_OLD: _CARD1, _V2: _CARD2}.get(model, _PAPER)
    if benchmark in _OF_CARDS:
        return PublishedScore(benchmark, model, score, _CARD2, True, _FRAMES)
    if benchmark in _OF_PAPER or source == _PAPER:
        return PublishedScore(benchmark, model, score, _PAPER, False, _SECOND_HAND)
    if benchmark == "AI2D" and model == _V1:
        return PublishedScore(benchmark, model, score, source, False, _SLIP)
    if benchmark == "DocVQA":
        return PublishedScore(benchmark, model, score, source, False, _NO_PART)
    return PublishedScore(benchmark, model, score, source)


PUBLISHED = tuple(
    _published(benchmark, model, score)
    for benchmark, scores in _SCORES.items()
    for model, score in zip(MODELS, scores, strict=True)
    if score is not None
)
