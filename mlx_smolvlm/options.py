"""Every option of an answer and of its media: names, defaults, checks and contradictions, once.

Plain data, below everything else: nothing of the package is imported. What only a model or llguidance can judge is
checked by the engine before an answer begins (`engine/answer.py`).

Longer than 300 lines, since options, defaults, checks and contradictions belong on one page, and each field is named
twice: in its dataclass and in the `TypedDict` that lets type checkers and editors know the keywords.
"""

import math
import operator
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict, get_args

MAX_SIDE = 4096  # pixels; no side of an image is ever resized beyond this
MAX_FPS = 1000.0
MAX_LOGPROBS = 20
KV_BITS = (4, 8)
KV_GROUP_SIZES = (32, 64, 128)
ROTATING_KEEP = 4  # first tokens that a rotating cache never forgets: attention leans on them whatever they are
SCHEMES = ("http", "https")


@dataclass(frozen=True)
class GenerationOptions:
    """How an answer is made: one vocabulary for every function and command.

    The sampling filters apply in transformers' order: penalty, temperature, top-k, top-p, min-p. The options of the
    key-value cache have the names and meaning of mlx-lm's.

    Attributes:
        max_tokens: most tokens to generate; fewer where the model's context ends.
        temperature: 0 takes the likeliest token (greedy); the other filters then change nothing but the penalty.
        top_p: keep the likeliest tokens whose probabilities add up to this share, in (0, 1].
        top_k: keep this many of the likeliest tokens; 0 keeps all.
        min_p: drop tokens less likely than this share of the likeliest one's probability, in [0, 1].
        repetition_penalty: divide the logits of tokens that have occurred, in the prompt too, by this (negative
            ones are multiplied); 1 changes nothing.
        seed: fixes the random choices, 0 to 2**64 - 1; None takes fresh entropy.
        stop: strings that end the answer; they are not part of the text.
        skip_special_tokens: False keeps special tokens in the text; most layout tags of document models are such.
        json_schema: the answer is JSON that is valid under this schema, given as an object or as JSON text.
        regex: the answer, as a whole, matches this regular expression (the syntax of Rust's `regex` crate). A
            first space is taken for the one that models begin with, and left out.
        logprobs: report the log probability of each chosen token and of this many of the likeliest tokens, 0 to 20;
            None reports none. They are the model's own: before penalty, temperature, filters and grammar.
        prompt_lookup_tokens: most tokens to draft from what the text has said before and to check in one step, for
            answers that repeat the prompt or themselves; None drafts nothing. The answer is the greedy one all the
            same, so the temperature must be 0 and no penalty set. Drafts stop by themselves where they fail.
        kv_bits: bits per number in the key-value cache, 4 or 8; None keeps the model's type.
        kv_group_size: numbers that share a scale, 32, 64 or 128; must divide the model's head_dim.
        quantized_kv_start: tokens from which on the cache is quantized; shorter contexts keep full precision.
        max_kv_size: most tokens to see: the first few and the latest; None sees all. Memory stays bounded, and what
            lies between is forgotten.
        prefill_chunk: most tokens of the prompt to read at a time.
        apply_chat_template: False takes the prompt as it is (raw), `<image>` and `<video>` markers included.
        continue_final_message: continue the last message, which is the assistant's, instead of answering it. The text
            of the answer is what is added.

    Raises:
        ValueError: an option out of range, or options that contradict each other.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()
    skip_special_tokens: bool = True
    json_schema: Mapping[str, Any] | str | None = None
    regex: str | None = None
    logprobs: int | None = None
    prompt_lookup_tokens: int | None = None
    kv_bits: int | None = None
    kv_group_size: int = 64
    quantized_kv_start: int = 0
    max_kv_size: int | None = None
    prefill_chunk: int = 512
    apply_chat_template: bool = True
    continue_final_message: bool = False

    def __post_init__(self) -> None:
        if self.stop is None:
            object.__setattr__(self, "stop", ())
        is_list = isinstance(self.stop, list | tuple) and all(
            isinstance(string, str) and string for string in self.stop
        )
        _check(self, "stop", is_list, "a list of strings that are not empty")
        object.__setattr__(self, "stop", tuple(self.stop))
        for name in ("max_tokens", "prefill_chunk"):
            _check(self, name, is_whole(getattr(self, name), 1), "a whole number of at least 1")
        _check(self, "temperature", is_between(self.temperature, 0, math.inf), "0 or more")
        _check(self, "top_p", is_between(self.top_p, 0, 1) and self.top_p > 0, "more than 0 and at most 1")
        _check(self, "top_k", is_whole(self.top_k, 0), "a whole number, 0 or more")
        _check(self, "min_p", is_between(self.min_p, 0, 1), "from 0 to 1")
        penalty = self.repetition_penalty
        _check(self, "repetition_penalty", is_between(penalty, 0, math.inf) and penalty > 0, "more than 0")
        _check(self, "seed", self.seed is None or is_whole(self.seed, 0, 2**64 - 1), "0 to 2**64 - 1")
        expected = f"a whole number from 0 to {MAX_LOGPROBS} or None"
        _check(self, "logprobs", self.logprobs is None or is_whole(self.logprobs, 0, MAX_LOGPROBS), expected)
        _check(self, "kv_bits", self.kv_bits is None or _is_one_of(self.kv_bits, KV_BITS), f"one of {KV_BITS} or None")
        _check(self, "kv_group_size", _is_one_of(self.kv_group_size, KV_GROUP_SIZES), f"one of {KV_GROUP_SIZES}")
        _check(self, "quantized_kv_start", is_whole(self.quantized_kv_start, 0), "a whole number, 0 or more")
        least = ROTATING_KEEP + 1
        is_size = self.max_kv_size is None or is_whole(self.max_kv_size, least)
        _check(self, "max_kv_size", is_size, f"a whole number above {ROTATING_KEEP}")
        drafts = self.prompt_lookup_tokens
        is_draft = drafts is None or is_whole(drafts, 1)
        _check(self, "prompt_lookup_tokens", is_draft, "a whole number of at least 1 or None")
        for name in ("skip_special_tokens", "apply_chat_template", "continue_final_message"):
            _check(self, name, is_flag(getattr(self, name)), "True or False")
        is_schema = self.json_schema is None or isinstance(self.json_schema, str | Mapping)
        _check(self, "json_schema", is_schema, "an object (a dict), JSON text or None")
        _check(self, "regex", self.regex is None or isinstance(self.regex, str), "text or None")
        _make_plain(self)
        self._check_contradictions()

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken, whatever was said before."""
        return self.temperature == 0 and self.repetition_penalty == 1

    @property
    def is_structured(self) -> bool:
        """Whether the answer follows a JSON schema or a regular expression."""
        return self.json_schema is not None or self.regex is not None

    @property
    def cache_options(self) -> tuple[int | None, int, int, int | None]:
        """What a key-value cache depends on: kv_bits, kv_group_size, quantized_kv_start, max_kv_size."""
        return self.kv_bits, self.kv_group_size, self.quantized_kv_start, self.max_kv_size

    def _check_contradictions(self) -> None:
        if self.json_schema is not None and self.regex is not None:
            raise ValueError("json_schema and regex are both given; an answer follows one of them")
        if self.is_structured:
            if self.stop:
                raise ValueError("stop cannot be combined with json_schema or regex: it could truncate the output")
            for name in ("prompt_lookup_tokens", "max_kv_size"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} cannot be combined with json_schema or regex; choose one")
        if self.kv_bits is None:
            for field in fields(self):
                if field.name in ("kv_group_size", "quantized_kv_start") and getattr(self, field.name) != field.default:
                    raise ValueError(f"{field.name} has no effect without kv_bits; add kv_bits, or leave it out")
        if self.kv_bits is not None and self.max_kv_size is not None:
            raise ValueError("kv_bits cannot be combined with max_kv_size; choose one")
        if self.prompt_lookup_tokens is not None:
            if not self.is_greedy:
                raise ValueError(
                    "prompt_lookup_tokens needs greedy answers: leave out temperature and repetition_penalty, "
                    "or the lookup"
                )
            if self.max_kv_size is not None:
                raise ValueError("prompt_lookup_tokens cannot be combined with max_kv_size; choose one")
            if self.kv_bits is not None and self.quantized_kv_start:
                # A draft beyond the start would round what stays before it.
                raise ValueError(
                    "prompt_lookup_tokens needs a cache that is quantized from the start; leave out "
                    "quantized_kv_start or the lookup"
                )
        if self.continue_final_message and not self.apply_chat_template:
            raise ValueError("continue_final_message needs the chat template; a raw prompt is continued as it is")


@dataclass(frozen=True)
class FetchPolicy:
    """What a transfer may cost and where it may go.

    Attributes:
        max_bytes: largest body; 64 MiB suits images, videos need more.
        timeout_s: seconds for everything from the first connection to the last byte, redirects and the
            consumer's own pauses included. Only looking up a name is left to the system's time limit.
        connect_timeout_s: seconds for one connection, TLS handshake included.
        stall_timeout_s: seconds without a byte.
        max_redirects: how many times a server may send the transfer elsewhere.
        schemes: allowed ones, a subset of ("http", "https"); redirects obey it too.
        check_address: called with each IP address, as text, before connecting to it, on every redirect
            too; it raises ValueError to refuse. The connection then goes to that very address, so a
            name that resolves differently the second time gains nothing. Proxies of the environment
            are not used then: nothing could vouch for what they connect to.
        trusted_hosts: names, in lower case, whose addresses and ports are not checked.
        ports: allowed ones, redirects included; None allows all.

    Raises:
        ValueError: a limit out of range, or another scheme.
    """

    max_bytes: int = 64 * 1024**2
    timeout_s: float = 60.0
    connect_timeout_s: float = 8.0
    stall_timeout_s: float = 8.0
    max_redirects: int = 5
    schemes: tuple[str, ...] = SCHEMES
    check_address: Callable[[str], None] | None = None
    trusted_hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("max_bytes", "timeout_s", "connect_timeout_s", "stall_timeout_s"):
            value = getattr(self, name)
            if not is_between(value, 0, math.inf) or value == 0:
                raise ValueError(f"FetchPolicy.{name} is {quoted(value)}; pass a number above 0")
        if not is_whole(self.max_redirects, 0):
            raise ValueError(f"FetchPolicy.max_redirects is {quoted(self.max_redirects)}; pass 0 or more")
        is_list = isinstance(self.schemes, list | tuple | set | frozenset)
        if not is_list or any(scheme not in SCHEMES for scheme in self.schemes):
            raise ValueError(f"FetchPolicy.schemes is {quoted(self.schemes)}; only 'http' and 'https' are known")
        object.__setattr__(self, "schemes", tuple(self.schemes))  # which nobody can change afterwards
        if self.check_address is not None and not callable(self.check_address):
            raise ValueError(f"FetchPolicy.check_address is {quoted(self.check_address)}; pass a function or None")
        hosts, ports = self.trusted_hosts, self.ports
        if not isinstance(hosts, list | tuple) or not all(isinstance(host, str) for host in hosts):
            raise ValueError(f"FetchPolicy.trusted_hosts is {quoted(hosts)}; pass names of hosts")
        is_list = ports is None or isinstance(ports, list | tuple)
        if not is_list or not all(is_whole(port, 1, 65535) for port in ports or ()):
            raise ValueError(f"FetchPolicy.ports is {quoted(ports)}; pass numbers from 1 to 65535, or None")
        _make_plain(self)


@dataclass(frozen=True)
class MediaOptions:
    """How images and videos are read; None leaves the checkpoint's setting.

    Attributes:
        do_image_splitting: False sends one tile per image.
        longest_edge: pixels to which an image's longest side is resized.
        max_pixels: width * height above which an image is refused, by its header alone; None for 178,956,970.
        page: which page of an image of several pages (TIFF), counted from 1. None takes the first, with a warning that
            names the others.
        fps: frames per second of video, at most 1000.
        max_frames: most frames per video.
        start_s, end_s: the part of each video to look at, in seconds from its first frame.
        hardware_decoding: decode videos with VideoToolbox where the machine has it, otherwise in software.
        fetch_policy: what downloads may cost and where they may go, for images and videos alike. None allows 64 MiB
            in a minute for an image and 2 GiB in ten minutes for a video, from any address.

    Raises:
        ValueError: an option out of range.
    """

    do_image_splitting: bool | None = None
    longest_edge: int | None = None
    max_pixels: int | None = None
    page: int | None = None
    fps: float | None = None
    max_frames: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    hardware_decoding: bool = False
    fetch_policy: FetchPolicy | None = None

    def __post_init__(self) -> None:
        splits = self.do_image_splitting
        _check(self, "do_image_splitting", splits is None or is_flag(splits), "True, False or None")
        if self.longest_edge is not None:
            is_side = is_whole(self.longest_edge, 1, MAX_SIDE)
            _check(self, "longest_edge", is_side, f"1 to {MAX_SIDE} pixels")
        is_limit = self.max_pixels is None or is_whole(self.max_pixels, 1)
        _check(self, "max_pixels", is_limit, "at least 1 pixel or None")
        _check(self, "page", self.page is None or is_whole(self.page, 1), "a whole number of at least 1 or None")
        is_rate = self.fps is None or (is_between(self.fps, 0, MAX_FPS) and self.fps > 0)
        _check(self, "fps", is_rate, f"a positive number of frames per second, at most {MAX_FPS:g}")
        _check(self, "max_frames", self.max_frames is None or is_whole(self.max_frames, 1), "at least 1")
        for name, second in (("start", self.start_s), ("end", self.end_s)):
            if second is not None and not is_between(second, 0, math.inf):
                raise ValueError(f"{name} is {quoted(second)}, expected seconds from the first frame of the video")
        start_s = self.start_s or 0
        if self.end_s is not None and start_s >= self.end_s:
            raise ValueError(f"start is {start_s:g} s and end {self.end_s:g} s, expected an end after the start")
        _check(self, "hardware_decoding", is_flag(self.hardware_decoding), "True or False")
        is_policy = self.fetch_policy is None or isinstance(self.fetch_policy, FetchPolicy)
        _check(self, "fetch_policy", is_policy, "a FetchPolicy or None")
        _make_plain(self)


class GenerationKeywords(TypedDict, total=False):
    """The fields of `GenerationOptions` as keywords."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    seed: int | None
    stop: Sequence[str] | None
    skip_special_tokens: bool
    json_schema: Mapping[str, Any] | str | None
    regex: str | None
    logprobs: int | None
    prompt_lookup_tokens: int | None
    kv_bits: int | None
    kv_group_size: int
    quantized_kv_start: int
    max_kv_size: int | None
    prefill_chunk: int
    apply_chat_template: bool
    continue_final_message: bool


class MediaKeywords(TypedDict, total=False):
    """The fields of `MediaOptions` as keywords."""

    do_image_splitting: bool | None
    longest_edge: int | None
    max_pixels: int | None
    page: int | None
    fps: float | None
    max_frames: int | None
    start_s: float | None
    end_s: float | None
    hardware_decoding: bool
    fetch_policy: FetchPolicy | None


class OptionKeywords(GenerationKeywords, MediaKeywords, total=False):
    """What every function that answers takes as keywords, beside `options` and `media_options`."""


_GENERATION_NAMES = frozenset(field.name for field in fields(GenerationOptions))
_MEDIA_NAMES = frozenset(field.name for field in fields(MediaOptions))


def resolve_options(
    options: GenerationOptions | None, media_options: MediaOptions | None, keywords: Mapping[str, Any]
) -> tuple[GenerationOptions, MediaOptions]:
    """The options of a call: those of the objects, with the keywords in their place.

    Raises:
        ValueError: an option out of range, or options that contradict each other.
        TypeError: an unknown option, or objects of another type.
    """
    if options is not None and not isinstance(options, GenerationOptions):
        raise TypeError(f"options is {type(options).__name__}, expected GenerationOptions")
    if media_options is not None and not isinstance(media_options, MediaOptions):
        raise TypeError(f"media_options is {type(media_options).__name__}, expected MediaOptions")
    for name in keywords:
        if name not in _GENERATION_NAMES and name not in _MEDIA_NAMES:
            advice = did_you_mean(name, [*_GENERATION_NAMES, *_MEDIA_NAMES])
            raise TypeError(f"there is no option {quoted(name)}; {advice or 'see GenerationOptions and MediaOptions'}")
    generation = {name: value for name, value in keywords.items() if name in _GENERATION_NAMES}
    media = {name: value for name, value in keywords.items() if name in _MEDIA_NAMES}
    return replace(options or GenerationOptions(), **generation), replace(media_options or MediaOptions(), **media)


def refuse_options(options: GenerationOptions | MediaOptions, names: Sequence[str], reason: str) -> None:
    """Raise ValueError, with the reason, if an option that a caller cannot use differs from its default."""
    defaults = type(options)()
    for name in names:
        if getattr(options, name) != getattr(defaults, name):
            raise ValueError(f"{name} is {quoted(getattr(options, name))}, but {reason}; leave it out")


def refuse_keywords(keywords: Mapping[str, Any], kind: type[GenerationOptions | MediaOptions], reason: str) -> None:
    """Raise TypeError, with the reason, if a keyword is a field of options of a kind that a call does not take."""
    for field in fields(kind):
        if field.name in keywords:
            raise TypeError(f"{field.name} is {quoted(keywords[field.name])}, but {reason}; leave it out")


def quoted(value: object, max_chars: int = 100) -> str:
    """A value as messages show it: on one line and cut in the middle, however large it is."""
    text = " ".join(_SHORT.repr(value).split())
    return text if len(text) <= max_chars else f"{text[: max_chars - 23]}...{text[-20:]}"


class _ShortRepr(reprlib.Repr):
    """`repr` that neither builds a huge text nor fails."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 12
        self.maxstring = self.maxother = self.maxlong = 400

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write whole numbers of more than 4300 digits."""
        return super().repr_int(x, level) if x.bit_length() < 4096 else f"<whole number of {x.bit_length()} bits>"

    def repr_str(self, x: str, level: int) -> str:
        """As `repr`, of the two ends of a long text alone."""
        return repr(x if len(x) <= self.maxstring else f"{x[: self.maxstring // 2]}...{x[-self.maxstring // 2 :]}")


_SHORT = _ShortRepr()


def did_you_mean(name: object, known: Sequence[str]) -> str:
    """`did you mean 'x'?` where a name is nearly one that is known, otherwise nothing."""
    from difflib import get_close_matches  # only mistakes need it

    near = get_close_matches(str(name)[:100], known, 1)
    return f"did you mean {near[0]!r}?" if near else ""


def _check(options: object, name: str, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {quoted(getattr(options, name))}, expected {expected}")


def _make_plain(options: Any) -> None:
    """Python's numbers of the declared types, in place of NumPy's, which JSON cannot hold; they have been checked.

    Whole numbers become floats where those are declared: MLX divides by no whole number beyond 32 bits.
    """
    for field in fields(options):
        value = getattr(options, field.name)
        kinds = get_args(field.type) or (field.type,)
        if value is None:
            continue
        if bool in kinds:
            object.__setattr__(options, field.name, bool(value))
        elif float in kinds:
            object.__setattr__(options, field.name, float(value))
        elif int in kinds and not isinstance(value, float):
            object.__setattr__(options, field.name, operator.index(value))


def _is_one_of(value: Any, known: Sequence[int]) -> bool:
    """Whether a value is one of a few whole numbers."""
    return is_whole(value, min(known), max(known)) and operator.index(value) in known


def is_flag(value: Any) -> bool:
    """Whether a value is True or False, NumPy's included."""
    return isinstance(value, bool) or (
        str(getattr(value, "dtype", "")).endswith("bool") and getattr(value, "shape", None) == ()
    )


def is_whole(value: Any, least: int, most: int | None = None) -> bool:
    """Whether a value is a whole number, NumPy's included, in a range."""
    if is_flag(value):
        return False
    try:
        number = operator.index(value)
    except TypeError:
        return False
    return number >= least and (most is None or number <= most)


def is_between(value: Any, least: float, most: float) -> bool:
    """Whether a value is a number from `least` to `most` that is not infinite."""
    if is_flag(value):
        return False
    try:
        number = float(value) if not isinstance(value, str | bytes | bytearray) else math.nan
    except (TypeError, ValueError, OverflowError):
        return False
    return least <= number <= most and math.isfinite(number)


DEFAULT_POLICY = FetchPolicy()  # after the checks that it calls
