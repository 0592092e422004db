"""One run of the benchmark: its settings, the checkpoint, and the inputs, made when first needed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import mlx.core as mx

from ..api.finding import find_checkpoint
from ..api.generation import GenerationResponse, stream_generate
from ..api.loading import load
from ..command_line.progress import Progress
from ..model.config import read_model_config
from ..model.smolvlm import SmolVLM
from ..processor.processor import Processor, load_processor
from .generated_inputs import prompt_of, write_noise_film, write_picture
from .geometries import GEOMETRIES, make_checkpoint

QUESTION = "What is this?"
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What to measure, and how often; `None` layers are the geometry's, `bits` None does not quantize."""

    model: str | None
    adapters: tuple[tuple[str, float], ...]
    geometry: str
    decoder_layers: int | None
    encoder_layers: int | None
    bits: int | None
    dtype: str
    runs: int
    prompt_tokens: int
    new_tokens: int
    image_size: tuple[int, int]
    video: str | None
    clip_s: float
    max_frames: int
    pictures: list[int]
    contexts: list[int]
    clients: list[int]

    @property
    def checkpoint_name(self) -> str:
        """Of a random checkpoint's folder: says all that it depends on."""
        geometry = GEOMETRIES[self.geometry].with_layers(self.decoder_layers, self.encoder_layers)
        layers = f"decoder{geometry.text.num_hidden_layers}-encoder{geometry.vision.num_hidden_layers}"
        return f"{self.geometry}-{layers}-{self.dtype}"


@dataclass
class BenchmarkRun:
    """Settings with what follows from them.

    Attributes:
        folder: keeps checkpoints and inputs.
        is_interrupted: Ctrl-C came, and nothing more is to be measured.
    """

    settings: Settings
    folder: Path
    progress: Progress = field(default_factory=Progress)
    is_interrupted: bool = False

    @cached_property
    def checkpoint(self) -> Path | str:
        """Folder or Hub id of the model."""
        settings = self.settings
        if settings.model is not None:
            return settings.model
        plain = self.folder / settings.checkpoint_name
        self.progress.stage(f"checkpoint {plain.name}")
        geometry = GEOMETRIES[settings.geometry].with_layers(settings.decoder_layers, settings.encoder_layers)
        make_checkpoint(geometry, settings.dtype, plain)
        if settings.bits is None:
            return plain
        quantized = self.folder / f"{plain.name}-{settings.bits}bit"
        if not quantized.is_dir():
            options = ["-q", "--q-bits", str(settings.bits)]
            self.run_module("mlx_smolvlm.convert", "--hf-path", str(plain), "--mlx-path", str(quantized), *options)
        return quantized

    @cached_property
    def model(self) -> SmolVLM:
        """The loaded model."""
        return self.load()[0]

    def load(self) -> tuple[SmolVLM, Processor]:
        """Load the model, with its adapters."""
        return load(self.checkpoint, dtype=self.settings.dtype, adapters=self.settings.adapters)

    @cached_property
    def processor(self) -> Processor:
        """The model's, for which no weights are read."""
        folder = find_checkpoint(self.checkpoint)
        return load_processor(folder, read_model_config(folder))

    def forget_model(self) -> None:
        """Give its memory to others; it is loaded again when it is needed."""
        self.__dict__.pop("model", None)
        mx.clear_cache()

    @cached_property
    def picture(self) -> Path:
        """A photo of the size asked for."""
        return self.pictures(1)[0]

    def pictures(self, count: int) -> list[Path]:
        """As many different photos."""
        width, height = self.settings.image_size
        paths = [self.folder / f"photo{index}-{width}x{height}.jpg" for index in range(count)]
        for index, path in enumerate(paths):
            if not path.is_file():
                write_picture(path, self.settings.image_size, index)
        return paths

    @cached_property
    def clip(self) -> Path:
        """The video asked for, or a generated one."""
        if self.settings.video is not None:
            return Path(self.settings.video)
        path = self.folder / f"clip-{self.settings.clip_s:g}s.mp4"
        if not path.is_file():
            self.progress.stage(f"clip of {self.settings.clip_s:g} s")
            write_noise_film(path, self.settings.clip_s)
        return path

    @cached_property
    def long_prompt(self) -> str:
        """Text of as many tokens as asked for."""
        return prompt_of(self.processor, self.settings.prompt_tokens)

    def repeated(self, part: str, work: Callable[[], T], *, is_warm: bool = False) -> list[T]:
        """What each run of a part gives, after one that does not count unless it `is_warm` already.

        Ctrl-C ends it with the runs that there are, and sets `is_interrupted`.

        Raises:
            KeyboardInterrupt: there are none yet.
        """
        if self.is_interrupted:
            raise KeyboardInterrupt
        results: list[T] = []
        self.progress.stage(part, total=self.settings.runs + (not is_warm), unit="runs")
        try:
            if not is_warm:
                work()
                self.progress.advance()
            for _ in range(self.settings.runs):
                results.append(work())
                self.progress.advance()
        except KeyboardInterrupt:
            if not results:
                raise
            self.is_interrupted = True
        self.progress.close()
        return results

    def timed(self, part: str, work: Callable[[], object]) -> list[float]:
        """Seconds of each run of a part; as `repeated`."""

        def seconds() -> float:
            start = time.perf_counter()
            work()
            return time.perf_counter() - start

        return self.repeated(part, seconds)

    def answer(self, prompt: str, **options: object) -> GenerationResponse:
        """The last step of a greedy answer, with its times."""
        for step in stream_generate(self.model, self.processor, prompt, **options):  # type: ignore[arg-type]
            last = step
        return last

    @property
    def environment(self) -> dict[str, str]:
        """For processes of this package: they find it where this one has found it."""
        package_root = str(Path(__file__).parents[2])
        entries = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(entries)}

    def run_module(self, module: str, *arguments: str) -> None:
        """`python -m module arguments`, quietly.

        Raises:
            ValueError: it failed; with its last line.
        """
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise ValueError(f"python -m {module} failed: {(done.stderr.strip() or '?').splitlines()[-1]}")
