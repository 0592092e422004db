"""The generated API reference names everything that is public. `mkdocs build --strict` checks links and docstrings."""

import re
from pathlib import Path

import mlx_smolvlm
from mlx_smolvlm import convert

ROOT = Path(__file__).parent.parent
NAMES = re.findall(r"^::: mlx_smolvlm\.([\w.]+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_reference_has_every_public_name_once():
    assert sorted(name for name in NAMES if "." not in name) == sorted(mlx_smolvlm.__all__)


def test_what_it_says_of_the_converter_is_public():
    names = [name.removeprefix("convert.") for name in NAMES if name.startswith("convert.")]
    assert names
    assert set(names) <= set(convert.__all__)


def test_files_that_the_design_names_exist():
    """A path in a section about a folder begins there, or at the package."""
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    named = set()
    for section in re.split(r"^## ", design, flags=re.MULTILINE)[1:]:
        folder = section.split("\n")[0].removesuffix("/")
        places = (ROOT / "mlx_smolvlm" / folder, ROOT / "mlx_smolvlm", ROOT)
        for name in re.findall(r"`([a-z_/]+\.py)`", section):
            named.add((folder, name, any((place / name).exists() for place in places)))
    assert len(named) > 100
    assert sorted(name for name in named if not name[2]) == []


def test_files_and_tests_that_contributing_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`([a-z_./]+/[a-z_.]+\.(?:py|md|toml|yml))`", text))
    tests = set(re.findall(r"`(test_\w+)`", text))
    assert len(files) > 30
    assert len(tests) >= 4
    assert sorted(name for name in files if not (ROOT / name).exists()) == []
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert sorted(name for name in tests if f"def {name}(" not in code) == []
