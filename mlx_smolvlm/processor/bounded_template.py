"""Chat templates as bounded work: steps, characters and seconds of one rendering are counted, and cancels heeded.

jinja2's sandbox keeps templates from Python's internals, but not from work without end. So everything in a template
that repeats or grows passes through here: loops and macros (the code that jinja2 generates for them counts a step),
operators, filters, calls, and every list, string and piece of output that they make. What a C function is about to
make is computed before it is called, since nothing can stop it halfway.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import islice
from types import BuiltinMethodType
from typing import Any

from jinja2 import pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import BlockReference, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

from .template_limits import (
    ITEM_SIZE,
    ITEMS_PER_STEP,
    MAX_DEPTH,
    MAX_INT_BITS,
    MAX_SEARCH,
    MAX_STRIPPED,
    MAX_TEXT,
    MAX_WIDTH,
    CountingGenerator,
    TemplateLimitError,
    TemplateWork,
)

_REFUSED_FILTERS = ("pprint", "striptags", "urlize", "wordwrap", "xmlattr")  # slow on long text; no template needs them
_LAZY_FILTERS = ("map", "select", "reject", "selectattr", "rejectattr")
_METHODS = {
    str: frozenset(
        [
            *("capitalize", "casefold", "center", "count", "endswith", "expandtabs", "find", "format", "format_map"),
            *("index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric"),
            *("isprintable", "isspace", "istitle", "isupper", "join", "ljust", "lower", "lstrip", "partition"),
            *("removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip"),
            *("split", "splitlines", "startswith", "strip", "swapcase", "title", "upper", "zfill"),
        ]
    ),
    list: frozenset(["copy", "count", "index"]),
    tuple: frozenset(["count", "index"]),
    dict: frozenset(["copy", "get", "items", "keys", "values"]),
}
_PERCENT = re.compile(r"%(?:\([^)]*\))?[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?")
_BRACES = re.compile(r"\{[^{}]*\{|\{[^{}]*?\d{4}")  # a field within a field, or one that is wide


@pass_context  # which also keeps jinja2 from computing constants while it compiles
def _finalize(context: Any, value: Any) -> Any:
    return context.environment.made(value)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox in which templates are compiled and rendered within `working`. Threads may share it."""

    code_generator_class = CountingGenerator
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, **options: Any):
        super().__init__(optimized=False, finalize=_finalize, **options)
        self._thread = threading.local()
        self.concat = self._concat  # type: ignore[method-assign]
        del self.globals["lipsum"]
        self._functions: list[Any] = list(self.globals.values())
        for name in list(self.filters):
            self.add_filter(name, self.filters[name])
        self.tests = {name: self._stepped(test) for name, test in self.tests.items()}

    @contextmanager
    def working(self, check_cancelled: Callable[[], None]) -> Iterator[TemplateWork]:
        """Within, what this thread renders is counted. `check_cancelled` may raise."""
        self._thread.work = work = TemplateWork(check_cancelled)
        try:
            yield work
        finally:
            del self._thread.work

    def add_function(self, name: str, function: Callable[..., Any]) -> None:
        """A function that templates may call."""
        self.globals[name] = function
        self._functions.append(function)

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """A filter, its arguments and result bounded."""
        num_hidden = 1 if hasattr(function, "jinja_pass_arg") else 0

        @wraps(function)
        def bounded(*arguments: Any, **keywords: Any) -> Any:
            self.step()
            if name in _REFUSED_FILTERS:
                raise SecurityError(f"the filter '{name}' is not allowed in chat templates")
            hidden, given = arguments[:num_hidden], list(arguments[num_hidden:])
            if name not in _LAZY_FILTERS:
                given = [self._held(value) for value in given]
                keywords = {key: self._held(value) for key, value in keywords.items()}
            self._foresee(name, given, keywords)
            return self.made(function(*hidden, *given, **keywords))

        self.filters[name] = bounded

    def step(self) -> bool:
        """Count a step."""
        self._thread.work.step()
        return True

    def made(self, value: Any) -> Any:
        """Count what was made; returns it."""
        size = len(value) if type(value) is str else self._size(value)
        if size > MAX_TEXT:
            self._allow(size)
        self._thread.work.spend(size)
        return value

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator whose result may be large."""
        self.step()
        sizes = self._size(left), self._size(right)
        if operator == "%" and isinstance(left, str):
            self._foresee_percent(left, right)
        elif operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, str | list | tuple) and isinstance(times, int):
                    self._allow(self._size(text) * max(0, times))
        elif operator == "+":
            self._allow(sum(sizes))
            if isinstance(left, list | tuple):
                self._thread.work.spend(sum(sizes))
                return super().call_binop(context, operator, left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            self._allow_bits(left.bit_length() * abs(right))
        return self.made(super().call_binop(context, operator, left, right))

    def call(self, context: Any, obj: Any, /, *arguments: Any, **keywords: Any) -> Any:
        """Call what a template may call."""
        self.step()
        method = getattr(obj, "__wrapped__", obj)  # str.format, which the sandbox wraps
        given = [self._held(value) for value in arguments]
        keywords = {key: self._held(value) for key, value in keywords.items()}
        owner = getattr(method, "__self__", None)
        if isinstance(owner, tuple(_METHODS)):
            names = next(names for kind, names in _METHODS.items() if isinstance(owner, kind))
            if method.__name__ not in names:
                raise SecurityError(f"the method '{method.__name__}' is not allowed in chat templates")
            if isinstance(owner, str):
                self._foresee(method.__name__, [owner, *given], keywords)
        elif isinstance(method, BuiltinMethodType) and owner is not None:
            raise SecurityError(f"the method '{method.__name__}' is not allowed in chat templates")
        else:
            kinds = (Macro, LoopContext, BlockReference, Cycler, Joiner, Undefined)
            is_known = isinstance(obj, kinds) or isinstance(owner, kinds) or any(obj is f for f in self._functions)
            if not is_known:
                raise SecurityError("a call of something that is no function of chat templates")
        return self.made(super().call(context, obj, *given, **keywords))

    def _stepped(self, function: Any) -> Callable[..., Any]:
        @wraps(function)
        def stepped(*arguments: Any, **keywords: Any) -> Any:
            self.step()
            return function(*arguments, **keywords)

        return stepped

    def _concat(self, pieces: Any) -> str:
        held, length = [], 0
        for piece in pieces:
            length += len(piece)
            if length > MAX_TEXT:
                self._allow(length)
            held.append(piece)
        self._thread.work.spend(length)
        return "".join(held)

    def _held(self, value: Any) -> Any:
        """An argument; what is made item by item becomes a list, so that it can be counted."""
        if hasattr(value, "__next__"):
            value = list(islice(value, MAX_TEXT // ITEM_SIZE + 1))
        self._size(value)
        return value

    def _size(self, value: Any, depth: int = 0) -> int:
        """Characters of a value if it were printed, about. Values may be shared, so it is their tree that counts."""
        if isinstance(value, str):
            size = len(value)
        elif isinstance(value, int):
            size = ITEM_SIZE
            self._allow_bits(value.bit_length())
        elif isinstance(value, list | tuple | dict | Namespace):
            if depth > MAX_DEPTH:
                raise TemplateLimitError(f"it nests lists more than {MAX_DEPTH} deep")
            if isinstance(value, Namespace):
                value = object.__getattribute__(value, "_Namespace__attrs")
            size = 0
            for item in value:
                size += ITEM_SIZE + self._size(item, depth + 1)
                if isinstance(value, dict):
                    size += self._size(value[item], depth + 1)
                self._allow(size)
            self._thread.work.step(len(value) // ITEMS_PER_STEP)
        else:
            size = ITEM_SIZE
        self._allow(size)
        return size

    def _foresee(self, name: str, given: list[Any], keywords: dict[str, Any]) -> None:
        """Refuse a filter or a string's method, by its arguments, whose result would be too large."""
        text = given[0] if given else ""
        numbers = [abs(value) for value in [*given[1:], *keywords.values()] if isinstance(value, int)]
        others = [value for value in [*given[1:], *keywords.values()] if isinstance(value, str)]
        number = max(numbers, default=0)
        if name in ("center", "ljust", "rjust", "zfill", "expandtabs", "indent", "batch", "slice", "round", "truncate"):
            self._allow(number)
        if name in ("expandtabs", "indent"):
            breaks = str(text).count("\t" if name == "expandtabs" else "\n") + 1
            self._allow(breaks * max(number, *map(len, others), 8))
        elif name in ("title", "urlencode"):  # slow for their size
            self._allow(4 * self._size(text))
        elif name in ("strip", "lstrip", "rstrip", "trim") and max(map(len, others), default=0) > MAX_STRIPPED:
            raise TemplateLimitError(f"it strips more than {MAX_STRIPPED} different characters")
        elif name in ("rfind", "rindex", "rsplit", "rpartition"):  # which take the product of the two lengths
            if len(text) * max(map(len, others), default=0) > MAX_SEARCH:
                raise TemplateLimitError("it searches a long text from its end for a long one")
        elif name == "round" and number > MAX_WIDTH:
            raise TemplateLimitError(f"it rounds to more than {MAX_WIDTH} places")
        elif name == "replace" and len(others) >= 2:
            self._allow(str(text).count(others[0]) * len(others[1]))
        elif name == "join":  # as a filter of a list, as a method of what stands between
            between, items = (text, given[1:2]) if isinstance(text, str) and len(given) > 1 else ("", [text])
            longest = max(len(between), *map(len, others), 0)
            self._allow(longest * max((len(item) for item in items if hasattr(item, "__len__")), default=0))
        elif name == "format" and isinstance(text, str):
            self._foresee_percent(text, [*given[1:], *keywords.values()])
        if name in ("format", "format_map") and isinstance(text, str):
            self._foresee_braces(text, [*given[1:], *keywords.values()])

    def _foresee_percent(self, text: str, values: Any) -> None:
        for width, precision in _PERCENT.findall(text):
            if "*" in (width, precision) or max(len(width), len(precision)) > 3:
                raise TemplateLimitError(f"it formats fields wider than {MAX_WIDTH}")
        self._allow(text.count("%") * (MAX_WIDTH + self._size(values)))

    def _foresee_braces(self, text: str, values: Any) -> None:
        if _BRACES.search(text.replace("{{", "")):
            raise TemplateLimitError(f"it formats fields within fields, or wider than {MAX_WIDTH}")
        self._allow(text.count("{") * (MAX_WIDTH + self._size(values)))

    def _allow(self, size: int) -> None:
        if size > MAX_TEXT:
            raise TemplateLimitError(f"it makes a text or list larger than the limit of {MAX_TEXT} characters")

    def _allow_bits(self, bits: int) -> None:
        if bits > MAX_INT_BITS:
            raise TemplateLimitError(f"it computes numbers of more than {MAX_INT_BITS} bits")
