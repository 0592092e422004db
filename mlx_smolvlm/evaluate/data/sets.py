"""The sets of VLMEvalKit that SmolVLM's prompts treat in their own way, as one table.

Source: ms-vlmeval 0.0.20, `vlmeval/vlm/smolvlm.py` (which builder a set has) and `vlmeval/dataset/` (its messages and
scores). A set that is not in the table has the default builder there, and here.
"""

import re
from dataclasses import dataclass

VIDEO = "video"  # the builder of videos, which only SmolVLM2's wrapper has
DEFAULT_FRAMES = 64
_SAMPLED = re.compile(r"_(?:(\d+)frame|(\d+(?:\.\d+)?)fps)((?:_[a-z]+)*)$")


@dataclass(frozen=True)
class SetRule:
    """How a set's rows become messages and prompts, and how answers are scored.

    Attributes:
        message: which message `set_messages` makes.
        builder: which builder of `wrapper_prompts`.
        scorer: a name in `scorers`.
        is_known: whether the suite's wrapper, or its list of sets, names the set.
    """

    message: str
    builder: str
    scorer: str
    is_known: bool = True


@dataclass(frozen=True)
class SetName:
    """A set's name, and what it says of how videos are sampled: `frames` in all or `fps`, of which one is None."""

    name: str
    frames: int | None = None
    fps: float | None = None

    @property
    def sampling(self) -> tuple[str, float]:
        """("frames", how many) or ("fps", how many a second)."""
        return ("fps", self.fps) if self.fps is not None else ("frames", self.frames or DEFAULT_FRAMES)


def _all(names: str, message: str, builder: str, scorer: str) -> dict[str, SetRule]:
    return {name: SetRule(message, builder, scorer) for name in names.split()}


_MMBENCH = " ".join(
    f"MMBench{part}{version}"
    for version in ("", "_V11")
    for part in ("_DEV_EN", "_TEST_EN", "_DEV_CN", "_TEST_CN", "", "_CN")
)
SETS = {
    **_all("MMStar SEEDBench_IMG AI2D_TEST ScienceQA_VAL ScienceQA_TEST", "mcq", "puremcq", "letter"),
    **_all(f"CCBench {_MMBENCH}", "mcq", "mmbench", "letter"),
    **_all("MMMU_DEV_VAL MMMU_TEST", "mmmu", "mmmu", "mmmu"),
    **_all("MathVista_MINI", "plain", "mathvista", "mathvista"),
    **_all("ChartQA_TEST", "word", "chartqa", "relaxed"),
    **_all("DocVQA_VAL DocVQA_TEST", "word", "docvqa", "anls"),
    **_all("TextVQA_VAL TextVQA_TEST", "word", "textvqa", "vqa"),
    **_all("InfoVQA_VAL InfoVQA_TEST", "word", "brief", "anls"),
    **_all("OCRVQA_TEST OCRVQA_TESTCORE", "word", "brief", "exact"),
    **_all("OCRBench", "plain", "brief", "ocrbench"),
    **_all("MME", "plain", "brief", "yes_no"),
    **_all("MMVet", "plain", "brief", "exact"),
    **_all("HallusionBench", "plain", "yes_or_no", "yes_no"),
    **_all("POPE", "plain", "default", "yes_no"),
    **_all("AMBER", "amber", "default", "yes_no"),
    **_all("RealWorldQA BLINK MMVP AI2D_TEST_NO_MASK A-OKVQA SEEDBench2_Plus", "mcq", "default", "letter"),
    **_all("GQA_TestDev_Balanced", "word", "default", "exact"),
    **_all("Video-MME", "video_mme", VIDEO, "video_letter"),
    **_all("MLVU MLVU_MCQ", "mlvu", VIDEO, "mlvu"),
    **_all("MLVU_OpenEnded", "mlvu_open", VIDEO, "exact"),
    **_all("MVBench MVBench_MP4", "mvbench", VIDEO, "mvbench"),
    **_all("TempCompass TempCompass_MCQ", "tempcompass", VIDEO, "tempcompass"),
    **_all("TempCompass_Captioning", "question", VIDEO, "exact"),
    **_all("TempCompass_YorN", "tempcompass_yorn", VIDEO, "tempcompass_yorn"),
    **_all("LongVideoBench", "longvideo", VIDEO, "long_video_letter"),
    **_all("MMBench-Video", "mmbench_video", VIDEO, "exact"),
    **_all("WorldSense", "worldsense", "default", "video_letter"),
}
# Sets of other sets: the suite's loop hands the sub-set's name to the wrapper, which the rows name here.
SUB_SET_FIELD = "SUB_DATASET"
_SPELLINGS = {"MMBench_Video": "MMBench-Video", "VideoMME": "Video-MME"}
_REFUSED_SUFFIXES = {
    "_pack": "several questions in one prompt (pack) are not supported; name the set with _nopack",
    "_subs": "subtitles beside a video are not supported; name the set without _subs",
}


def read_set_name(name: str) -> SetName:
    """A set's name without the sampling that the suite writes into it: "Video-MME_8frame", "MLVU_1fps".

    Raises:
        ValueError: a variant that is not supported.
    """
    if name.endswith("_local"):  # what the suite calls a table whose images it has taken out
        name = name.removesuffix("_local")
    found = _SAMPLED.search(name)
    if found is None:
        return SetName(_SPELLINGS.get(name, name))
    base = _SPELLINGS.get(name[: found.start()], name[: found.start()])
    if base not in SETS:  # another set, of whose name that is part
        return SetName(name, int(found[1]) if found[1] else None, float(found[2]) if found[2] else None)
    suffix = found[3].replace("_nopack", "")
    if base == "LongVideoBench" and suffix == "_subs":  # there it means frames alone
        base, suffix = f"{base}_subs", ""
    for refused, why in _REFUSED_SUFFIXES.items():
        if refused in suffix:
            raise ValueError(f"the set {name!r}: {why}")
    if suffix:
        raise ValueError(f"the set {name!r}: the variant {suffix!r} is not known; name the set without it")
    return SetName(base, int(found[1]) if found[1] else None, float(found[2]) if found[2] else None)


def rule_of(dataset: str, *, has_options: bool, is_video: bool = False) -> SetRule:
    """A set's rule; for other sets what the suite does with them: the default builder."""
    if dataset == "LongVideoBench_subs":
        return SetRule("longvideo", VIDEO, "long_video_letter")
    if dataset in SETS:
        return SETS[dataset]
    if is_video:
        return SetRule("question", "default", "letter" if has_options else "exact", is_known=False)
    if has_options:
        return SetRule("mcq", "default", "letter", is_known=False)
    return SetRule("plain", "default", "exact", is_known=False)
