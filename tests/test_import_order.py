"""Imports run downwards: a module imports from its own room and from floors below, and there are no circles."""

import ast
from graphlib import TopologicalSorter

from support.layout import MODULES, tree_of

from mlx_smolvlm import _HOME

# From the bottom up; the rooms of one floor do not know each other.
ORDER = """options files < model media < processor < engine < api < documents < retrieval < command_line
    < generate chat watch batch server bridge document index search evaluate
    < __main__ < benchmark convert < train"""
FLOORS = {room: floor for floor, rooms in enumerate(ORDER.split("<")) for room in rooms.split()}


def imports_of(module: tuple[str, ...]) -> set[tuple[str, ...]]:
    """The package's modules that a module imports, at its top or within functions."""
    found = set()
    for node in ast.walk(tree_of(MODULES[module])):
        if isinstance(node, ast.ImportFrom):
            base = [*("mlx_smolvlm", *module)[: -node.level if node.level else 0], *(node.module or "").split(".")]
            for top, *names in ([name for name in (*base, alias.name) if name] for alias in node.names):
                if top != "mlx_smolvlm":  # another package may have modules of the same names
                    continue
                public = _HOME.get(".".join(names), "")  # `from .. import load`
                known = (tuple(public.split(".")), tuple(names), tuple(names[:-1]))
                found |= {name for short in known for name in (short, (*short, "__init__")) if name in MODULES}
    return found


def test_imports_run_downwards():
    imports = {module: imports_of(module) for module in MODULES}
    TopologicalSorter(imports).prepare()  # raises CycleError
    pairs = [(module, other) for module, others in imports.items() for other in others if module[0] != other[0]]
    assert [pair for pair in pairs if FLOORS[pair[0][0]] <= FLOORS[pair[1][0]]] == []
