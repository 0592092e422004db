"""What one rendering of a chat template may cost, and the code generator that has its steps counted."""

import time
from collections.abc import Callable
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame

MAX_STEPS = 1_000_000  # passes of loops, calls, filters
MAX_TEXT = 4 * 1024**2  # characters of one string, or of a list's strings with 32 for each of its items
MAX_MADE = 16 * MAX_TEXT  # characters of all strings and lists that one rendering makes
MAX_SECONDS = 10.0
MAX_DEPTH = 100  # of lists within lists
MAX_INT_BITS = 60  # larger ones can be made to share a hash, and dictionaries slow without end
MAX_SEARCH = 64 * 1024**2  # characters of a text times those that it is searched for, from its end
MAX_STRIPPED = 100  # different characters to strip
MAX_WIDTH = 999  # of a field that text is formatted into
_LOOK_EVERY = 64  # steps between two looks at the clock and at the cancel event
ITEMS_PER_STEP = 16  # items of a list that are counted in the time of one step
ITEM_SIZE = 32  # what an item of a list counts for, beside its text


class TemplateLimitError(ValueError):
    """A template asked for more than it may have."""


class TemplateWork:
    """What one rendering has left."""

    def __init__(self, check_cancelled: Callable[[], None]):
        self.steps, self.made, self.next_look = 0, 0, 1
        self.until_s = time.monotonic() + MAX_SECONDS
        self.check_cancelled = check_cancelled
        self.stopped: BaseException | None = None

    def step(self, num_steps: int = 1) -> None:
        """Count steps; raises TemplateLimitError past the limits, and what `check_cancelled` raises."""
        self.steps += num_steps
        if self.steps >= self.next_look:
            self.next_look = self.steps + _LOOK_EVERY
            self.look()

    def look(self) -> None:
        """Compare steps and time with their limits, and ask `check_cancelled`."""
        if self.steps > MAX_STEPS:
            raise TemplateLimitError(f"it takes more than the limit of {MAX_STEPS} steps")
        if time.monotonic() > self.until_s:
            raise TemplateLimitError(f"it takes longer than the limit of {MAX_SECONDS:g} s")
        try:
            self.check_cancelled()
        except BaseException as error:
            self.stopped = error  # to be told apart from the template's own errors
            raise

    def spend(self, size: int) -> None:
        """Count characters that are made; raises TemplateLimitError past the limit."""
        self.made += size
        if self.made > MAX_MADE:
            raise TemplateLimitError(f"it makes more than the limit of {MAX_MADE} characters in all")


class CountingGenerator(CodeGenerator):
    """jinja2's code, with steps counted and what is made shown to the environment."""

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        """Each pass is a step, and so is each test of a pass."""
        node.body = [nodes.ExprStmt(_step()), *node.body]
        if node.test is not None:
            node.test = nodes.And(_step(), node.test)
        super().visit_For(node, frame)

    def macro_body(self, node: Any, frame: Frame) -> Any:
        """Each call of a macro is a step."""
        node.body = [nodes.ExprStmt(_step()), *node.body]
        return super().macro_body(node, frame)

    def visit_Call(self, node: nodes.Call, frame: Frame, **options: Any) -> None:  # type: ignore[override]
        """Writes the steps that `_step` put in."""
        if isinstance(node.node, nodes.EnvironmentAttribute):
            self.write("environment.step()")
        else:
            super().visit_Call(node, frame, **options)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        """The parts of `~` are shown before they are joined."""
        self.write("environment.concat((")
        for child in node.nodes:
            self.write("str(environment.made(")
            self.visit(child, frame)
            self.write(")), ")
        self.write("))")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        """Slices are shown."""
        self._shown(super().visit_Getitem, node, frame, isinstance(node.arg, nodes.Slice))

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        """Tuples are shown."""
        self._shown(super().visit_Tuple, node, frame, node.ctx == "load")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        """Lists are shown."""
        self._shown(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        """Dictionaries are shown."""
        self._shown(super().visit_Dict, node, frame)

    def _shown(self, visit: Callable[[Any, Frame], None], node: nodes.Expr, frame: Frame, is_made: bool = True) -> None:
        self.write("environment.made(" if is_made else "")
        visit(node, frame)
        self.write(")" if is_made else "")


def _step() -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute("step"), [], [], None, None)
