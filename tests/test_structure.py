"""What the house promises: light imports, one direction of dependence, short files, public names."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mlx_smolvlm

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mlx_smolvlm"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")

# What each module may import from the package, beside what those import in turn.
MAY_IMPORT = {
    "activations": set(),
    "cache": set(),
    "chat_template": set(),
    "command_line": set(),
    "json_fields": set(),
    "config": {"json_fields"},
    "expansion": set(),
    "urls": set(),
    "fetch": {"urls"},
    "messages": set(),
    "sampling": set(),
    "processor_config": {"config", "json_fields"},
    "image_loading": {"fetch", "urls"},
    "image_processing": {"processor_config"},
    "animated_webp": set(),
    "packet_table": set(),
    "video_container": set(),
    "video": {"animated_webp", "packet_table", "processor_config", "video_container"},
    "video_frames": {"animated_webp", "packet_table", "video", "video_container"},
    "media_options": {"image_processing", "processor_config"},
    "vision": {"activations", "config"},
    "connector": {"config"},
    "projections": set(),
    "rotary": {"config"},
    "quantized_cache": {"cache"},
    "rotating_cache": {"cache"},
    "cache_options": {"cache", "quantized_cache", "rotating_cache"},
    "language": {"activations", "cache", "cache_options", "config", "projections", "rotary"},
    "model": {"cache", "cache_options", "config", "connector", "language", "vision"},
    "weights": {"json_fields"},
    "prompt_media": {
        "expansion",
        "fetch",
        "image_loading",
        "image_processing",
        "media_options",
        "prefetch",
        "processor_config",
        "video",
        "video_frames",
    },
    "kept_media": {"image_loading", "image_processing", "media_options", "prompt_media"},
    "prompt": {"kept_media", "messages", "processor_config", "prompt_media"},
    "processing": {
        "chat_template",
        "config",
        "expansion",
        "image_loading",
        "image_processing",
        "kept_media",
        "media_options",
        "messages",
        "processor_config",
        "prompt",
        "prompt_media",
    },
    "prefetch": set(),
    "timing": set(),
    "feature_cache": {"model"},
    "prompt_cache": {"cache", "cache_options", "model", "prompt"},
    "prompt_lookup": {"cache_options", "sampling"},
    "decoding": {"model", "prompt_cache", "prompt_lookup", "sampling"},
    "prefill": {"feature_cache", "model", "prefetch", "prompt", "prompt_cache", "timing"},
    "text_stream": {"processing"},
    "loading": {"config", "model", "processing", "weights"},
    "closing": set(),
    "structured": {"closing", "decoding", "model", "processing", "prompt_cache", "sampling"},
    "generation_options": {"sampling", "structured"},
    "generation": {
        "cache_options",
        "decoding",
        "feature_cache",
        "generation_options",
        "media_options",
        "model",
        "prefill",
        "processing",
        "prompt_cache",
        "prompt_lookup",
        "sampling",
        "structured",
        "text_stream",
        "timing",
    },
    "live_transport": {"fetch", "urls"},
    "live_source": {"image_loading", "live_transport", "urls", "video_container"},
    "frame_buffer": {"live_transport"},
    "live_reader": {"frame_buffer", "live_source", "live_transport", "urls", "video_container", "video_frames"},
    "live_captions": {
        "feature_cache",
        "frame_buffer",
        "generation",
        "live_reader",
        "live_source",
        "media_options",
        "messages",
        "model",
        "processing",
        "prompt_media",
    },
    "session_file": {"image_processing", "kept_media", "media_options", "model", "prompt_cache", "prompt_media"},
    "session": {
        "feature_cache",
        "generation",
        "generation_options",
        "kept_media",
        "media_options",
        "messages",
        "model",
        "processing",
        "prompt_cache",
        "session_file",
    },
    "generation_arguments": {
        "cache_options",
        "media_options",
        "messages",
        "prompt_lookup",
        "sampling",
        "structured",
    },
    "generate": {"command_line", "generation", "generation_arguments", "loading", "structured"},
    "chat": {
        "command_line",
        "generation",
        "generation_arguments",
        "generation_options",
        "image_loading",
        "loading",
        "media_options",
        "session",
        "video",
    },
    "watch": {"command_line", "generation_arguments", "live_captions", "live_source", "loading", "media_options"},
}


def imports_of(path: Path) -> set[str]:
    """The package's modules that a file imports, at its top or within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level == 1:  # `from . import DEMO_MODEL`
            found |= {mlx_smolvlm._HOME.get(name.name, name.name) for name in node.names}
    return found


def test_every_module_has_its_import_rule():
    assert sorted(MAY_IMPORT) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_only_what_they_may(module):
    assert imports_of(PACKAGE / f"{module}.py") <= MAY_IMPORT[module]


def test_the_package_never_imports_the_converter_nor_the_benchmark():
    for path in PACKAGE.glob("*.py"):
        assert not imports_of(path) & {"convert", "benchmark"}, path


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
    assert not set(mlx_smolvlm.__all__) & {*MODULES, "convert", "benchmark"}


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
    """Measured in one process, libraries first, in processor time, so that the machine's mood cancels out."""
    libraries_s, own_s = json.loads(
        run_python(
            """
import json, time
start = time.process_time()
import mlx.core, mlx.nn, numpy, PIL.Image, tokenizers, safetensors
middle = time.process_time()
import mlx_smolvlm
for name in mlx_smolvlm.__all__:
    getattr(mlx_smolvlm, name)
print(json.dumps([middle - start, time.process_time() - middle]))
"""
        )
    )
    assert own_s < libraries_s


@pytest.mark.parametrize("folder", ["mlx_smolvlm", "mlx_smolvlm/benchmark", "convert"])
def test_files_can_be_read_in_one_sitting(folder):
    lengths = {path.name: path.read_text(encoding="utf-8").count("\n") for path in (ROOT / folder).glob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
