"""What a model says of each segment, and which of them it takes for highlights."""

import math
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from mlx_smolvlm import MediaOptions, Processor, PromptCache, SampledVideo, SmolVLM, generate_text
from mlx_smolvlm.media.video.frames import read_frames
from mlx_smolvlm.media.video.probing import VideoInfo, choose_frames

from .segments import Segment

OVERVIEW = "Describe what this video is about, what happens most of the time and what stands out."
JUDGEMENT = (
    'This clip is a part of a longer video, of which it was said: "{overview}" '
    "Does the clip show a highlight: something exciting, decisive or unusual compared with the rest? "
    "Answer yes or no."
)
OVERVIEW_TOKENS, DESCRIPTION_TOKENS, VERDICT_TOKENS = 192, 96, 12


class Narrator:
    """Shows parts of one video to a model, each as a clip of its own whose time begins at zero."""

    def __init__(self, model: SmolVLM, processor: Processor, info: VideoInfo, options: MediaOptions):
        self._model = model
        self._processor = processor
        self._info = info
        config = processor.config
        self._sampling = config.video_for(options)

    def overview(self) -> str:
        """What the whole video is about, by frames from all over it."""
        whole = Segment(0, self._info.frame_count, 0.0, self._info.duration_s)
        return self._answer([_user(OVERVIEW, self._frames(whole))], OVERVIEW_TOKENS, PromptCache())

    def describe(self, segment: Segment, question: str, overview: str | None) -> tuple[str, bool | None]:
        """The answer to the question, and, given an overview, whether the segment is a highlight.

        The verdict is None where none was asked for, or where the answer was neither yes nor no.
        """
        cache = PromptCache()  # the second question goes on from the first: the frames are read once
        chat = [_user(question, self._frames(segment))]
        description = self._answer(chat, DESCRIPTION_TOKENS, cache)
        if overview is None:
            return description, None
        chat += [{"role": "assistant", "content": description}, _user(JUDGEMENT.format(overview=overview))]
        return description, verdict(self._answer(chat, VERDICT_TOKENS, cache))

    def _frames(self, segment: Segment) -> SampledVideo:
        times_s, first, end = self._info.times_s, segment.first, segment.end
        # Between two frames, so that rounding cannot move a frame into its neighbours' segment.
        start_s = float(times_s[first - 1] + times_s[first]) / 2 if first else None
        end_s = float(times_s[end - 1] + times_s[end]) / 2 if end < len(times_s) else None
        fps, max_frames = self._sampling.fps, self._sampling.max_frames
        sample = choose_frames(self._info, fps, max_frames, start_s=start_s, end_s=end_s)
        tiles = [self._processor.video_tile(frame) for frame in read_frames(self._info, sample.indices)]
        stamps_s = [max(0.0, second - segment.start_s) for second in sample.timestamps_s[: len(tiles)]]
        name = f"{self._info.path} from {segment.start_s:g} s on"
        if not tiles:
            raise ValueError(f"{name}: no frame could be decoded; the file is damaged")
        return SampledVideo(tiles, stamps_s, segment.end_s - segment.start_s, are_tiles=True, name=name)

    def _answer(self, chat: list[dict], max_tokens: int, cache: PromptCache) -> str:
        text = generate_text(self._model, self._processor, chat, max_tokens=max_tokens, prompt_cache=cache)
        return " ".join(text.split())


def _user(text: str, video: SampledVideo | None = None) -> dict:
    content = [{"type": "text", "text": text}]
    if video is not None:
        content.insert(0, {"type": "video", "video": video})
    return {"role": "user", "content": content}


def verdict(answer: str) -> bool | None:
    """Whether an answer says yes or no: by the first of the two words in it, None without one."""
    found = re.search(r"\b(yes|no)\b", answer, re.IGNORECASE)
    return None if found is None else found[1].lower() == "yes"


def most_distinct(segments: list[Segment], candidates: list[int], count: int) -> list[int]:
    """The `count` candidates whose descriptions differ most from those of all segments, in order of time.

    A description is the more distinct the fewer segments share its words; of equals, the earlier wins.
    """
    words = [set(_words(segment.description)) for segment in segments]
    sharing = Counter(word for of_one in words for word in of_one)

    def distinctness(number: int) -> float:
        rarities = [math.log(len(segments) / sharing[word]) for word in words[number]]
        return float(np.mean(rarities)) if rarities else 0.0

    return sorted(sorted(candidates, key=distinctness, reverse=True)[:count])


def _words(text: str) -> Iterator[str]:
    return (match[0] for match in re.finditer(r"\w+", text.lower()))
