"""What the house promises: light imports, one direction of dependence, short files, public names.

One file, though long: most of it is the table of what each module may import.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mlx_smolvlm

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mlx_smolvlm"
ROOMS = ("batch", "caches", "engine", "layers", "live", "media", "prompting", "video")  # benchmark, convert: no rules
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for folder in (PACKAGE, *(PACKAGE / room for room in ROOMS))
    for path in folder.glob("*.py")
    if path.stem != "__init__"
}
MODULES = sorted(FILES)

# What each module may import from the package. Each stands below all that it imports: there are no circles.
MAY_IMPORT: dict[str, set[str]] = {
    "batch.files": set(),
    "batch.progress": set(),
    "batch.ranks": set(),
    "batch.results": set(),
    "cache": set(),
    "command_line": set(),
    "engine.closing": set(),
    "engine.timing": set(),
    "json_fields": set(),
    "layers.activations": set(),
    "layers.normalization": set(),
    "layers.projections": set(),
    "layers.streams": set(),
    "media.urls": set(),
    "prefetch": set(),
    "prompting.chat_template": set(),
    "prompting.expansion": set(),
    "prompting.messages": set(),
    "sampling": set(),
    "video.animated_webp": set(),
    "video.container": set(),
    "video.packet_table": set(),
    "batch.inputs": {"media.urls"},
    "caches.quantized": {"cache"},
    "caches.rotating": {"cache"},
    "config": {"json_fields"},
    "engine.row_sampling": {"sampling"},
    "media.fetch": {"media.urls"},
    "weights": {"json_fields"},
    "caches.batch": {"cache", "config"},
    "caches.options": {"cache", "caches.quantized", "caches.rotating"},
    "connector": {"config"},
    "layers.rotary": {"config"},
    "live.transport": {"media.fetch", "media.urls"},
    "media.image_loading": {"media.fetch", "media.urls"},
    "processor_config": {"config", "json_fields"},
    "vision": {"config", "layers.activations"},
    "engine.prompt_lookup": {"caches.options", "sampling"},
    "image_processing": {"processor_config"},
    "language": {
        "cache",
        "caches.options",
        "config",
        "layers.activations",
        "layers.normalization",
        "layers.projections",
        "layers.rotary",
    },
    "live.frame_buffer": {"live.transport"},
    "live.source": {"live.transport", "media.image_loading", "media.urls", "video.container"},
    "video.probing": {"processor_config", "video.animated_webp", "video.container", "video.packet_table"},
    "media.options": {"image_processing", "processor_config"},
    "model": {"cache", "caches.options", "config", "connector", "language", "layers.streams", "vision"},
    "video.frames": {"video.animated_webp", "video.container", "video.packet_table", "video.probing"},
    "engine.feature_cache": {"model"},
    "live.reader": {
        "live.frame_buffer",
        "live.source",
        "live.transport",
        "media.urls",
        "video.container",
        "video.frames",
    },
    "prompting.prompt_media": {
        "image_processing",
        "media.fetch",
        "media.image_loading",
        "media.options",
        "media.urls",
        "prefetch",
        "processor_config",
        "prompting.expansion",
        "video.frames",
        "video.probing",
    },
    "prompting.kept_media": {"image_processing", "media.options", "media.urls", "prompting.prompt_media"},
    "prompting.prompt": {"processor_config", "prompting.kept_media", "prompting.messages", "prompting.prompt_media"},
    "engine.prompt_cache": {"cache", "caches.options", "model", "prompting.prompt"},
    "processing": {
        "config",
        "image_processing",
        "media.image_loading",
        "media.options",
        "processor_config",
        "prompting.chat_template",
        "prompting.expansion",
        "prompting.kept_media",
        "prompting.messages",
        "prompting.prompt",
        "prompting.prompt_media",
    },
    "engine.decoding": {"cache", "engine.prompt_cache", "engine.prompt_lookup", "model", "sampling"},
    "engine.prefill": {
        "cache",
        "engine.feature_cache",
        "engine.prompt_cache",
        "engine.timing",
        "model",
        "prefetch",
        "prompting.prompt",
    },
    "engine.answer": {"processing"},
    "loading": {"config", "model", "processing", "weights"},
    "session_file": {
        "engine.prompt_cache",
        "image_processing",
        "media.options",
        "model",
        "prompting.kept_media",
        "prompting.prompt_media",
    },
    "engine.structured": {
        "engine.closing",
        "engine.decoding",
        "engine.prompt_cache",
        "model",
        "processing",
        "sampling",
    },
    "engine.generation_options": {"engine.structured", "sampling"},
    "engine.rows": {
        "cache",
        "caches.batch",
        "engine.decoding",
        "engine.generation_options",
        "engine.row_sampling",
        "engine.structured",
        "engine.answer",
        "model",
        "processing",
        "prompting.prompt",
    },
    "generation": {
        "caches.options",
        "engine.decoding",
        "engine.feature_cache",
        "engine.generation_options",
        "engine.prefill",
        "engine.prompt_cache",
        "engine.prompt_lookup",
        "engine.structured",
        "engine.answer",
        "engine.timing",
        "media.options",
        "model",
        "processing",
        "prompting.prompt_media",
        "sampling",
    },
    "generation_arguments": {
        "caches.options",
        "engine.generation_options",
        "engine.prompt_lookup",
        "engine.structured",
        "media.options",
        "media.urls",
        "prompting.messages",
        "sampling",
    },
    "batching": {
        "engine.feature_cache",
        "engine.generation_options",
        "engine.prefill",
        "engine.rows",
        "engine.structured",
        "media.options",
        "model",
        "prefetch",
        "processing",
        "sampling",
    },
    "generate": {"command_line", "engine.structured", "generation", "generation_arguments", "loading"},
    "live.captions": {
        "engine.feature_cache",
        "generation",
        "live.frame_buffer",
        "live.reader",
        "live.source",
        "media.options",
        "model",
        "processing",
        "prompting.messages",
        "prompting.prompt_media",
    },
    "session": {
        "engine.feature_cache",
        "engine.generation_options",
        "engine.prompt_cache",
        "generation",
        "media.options",
        "model",
        "processing",
        "prompting.kept_media",
        "prompting.messages",
        "session_file",
    },
    "batch.question": {
        "batch.inputs",
        "batch.results",
        "batching",
        "engine.generation_options",
        "generation_arguments",
        "media.options",
    },
    "chat": {
        "command_line",
        "engine.generation_options",
        "generation",
        "generation_arguments",
        "loading",
        "media.image_loading",
        "media.options",
        "media.urls",
        "session",
        "video.probing",
    },
    "watch": {"command_line", "generation_arguments", "live.captions", "live.source", "loading", "media.options"},
    "batch.job": {
        "batch.files",
        "batch.inputs",
        "batch.question",
        "batch.ranks",
        "batch.results",
        "batching",
        "command_line",
        "model",
        "processing",
        "session_file",
    },
    "batch.__main__": {
        "batch.files",
        "batch.inputs",
        "batch.job",
        "batch.progress",
        "batch.question",
        "batch.ranks",
        "command_line",
        "engine.generation_options",
        "generation_arguments",
        "loading",
        "media.options",
    },
}


def imports_of(path: Path) -> set[str]:
    """The package's modules that a file imports, at its top or within functions."""
    package = list(path.relative_to(PACKAGE).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) + 1 - node.level]
            if node.module:
                found.add(".".join([*base, node.module]))
            else:  # `from . import DEMO_MODEL`
                found |= {mlx_smolvlm._HOME.get(name.name, name.name) for name in node.names}
    return found


def test_every_module_has_its_import_rule():
    assert sorted(MAY_IMPORT) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_only_what_they_may(module):
    assert imports_of(FILES[module]) <= MAY_IMPORT[module]


def test_imports_run_in_one_direction():
    above: set[str] = set()
    for module, imports in MAY_IMPORT.items():
        assert imports <= above, module
        above.add(module)


def test_the_package_never_imports_the_converter_nor_the_benchmark():
    for path in FILES.values():
        assert not {name.split(".")[0] for name in imports_of(path)} & {"convert", "benchmark"}, path


def test_the_benchmark_is_imported_by_nobody_and_its_worker_runs_in_any_interpreter():
    for path in (ROOT / "convert").glob("*.py"):
        assert "benchmark" not in path.read_text(encoding="utf-8"), path
    worker = ast.parse((PACKAGE / "benchmark" / "worker.py").read_text(encoding="utf-8"))
    imports = {
        name.split(".")[0]
        for node in worker.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imports <= sys.stdlib_module_names


def test_public_names_are_these():
    assert mlx_smolvlm.__all__ == [
        "load",
        "stream_generate",
        "generate_text",
        "GenerationResponse",
        "generate_batch",
        "BatchRequest",
        "BatchAnswer",
        "Session",
        "GenerationOptions",
        "MediaOptions",
        "stream_captions",
        "Caption",
        "SmolVLM",
        "Processor",
        "Inputs",
        "SampledVideo",
        "PromptCache",
        "FeatureCache",
        "FetchPolicy",
        "DEMO_MODEL",
    ]
    for name in mlx_smolvlm.__all__:
        assert getattr(mlx_smolvlm, name) is not None


def test_no_public_name_shadows_a_module():
    assert not set(mlx_smolvlm.__all__) & {*MODULES, *ROOMS, "convert", "benchmark"}


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    ).stdout


def test_importing_is_light_and_changes_nothing():
    """Neither the heavy libraries, nor those that few prompts need; no limits, signals or environment changed."""
    report = json.loads(
        run_python(
            """
import json, os, resource, signal, sys, threading
import mlx.core as mx
def state():
    return [dict(os.environ), resource.getrlimit(resource.RLIMIT_NOFILE), signal.getsignal(signal.SIGINT) is
            signal.default_int_handler, threading.active_count(), mx.random.state[0].tolist(), os.getcwd()]
before = state()
import mlx_smolvlm
for name in mlx_smolvlm.__all__:
    getattr(mlx_smolvlm, name)
heavy = {"torch", "transformers", "mlx_lm", "av", "jinja2", "num2words", "huggingface_hub", "requests"}
heavy |= {"llguidance", "matplotlib"}
print(json.dumps([before == state(), sorted(heavy & set(sys.modules))]))
"""
        )
    )
    assert report == [True, []]


def test_importing_everything_costs_less_than_twice_its_libraries():
    """Measured in one process, libraries first, in processor time; the least of five, as machines have moods."""
    code = """
import json, time
start = time.process_time()
import mlx.core, mlx.nn, numpy, PIL.Image, tokenizers, safetensors
middle = time.process_time()
import mlx_smolvlm
for name in mlx_smolvlm.__all__:
    getattr(mlx_smolvlm, name)
print(json.dumps([middle - start, time.process_time() - middle]))
"""
    libraries_s, own_s = (min(times) for times in zip(*(json.loads(run_python(code)) for _ in range(5)), strict=True))
    assert own_s < libraries_s


def test_files_can_be_read_in_one_sitting():
    files = [*FILES.values(), *(PACKAGE / "benchmark").glob("*.py"), *(ROOT / "convert").glob("*.py")]
    lengths = {str(path): path.read_text(encoding="utf-8").count("\n") for path in files}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
