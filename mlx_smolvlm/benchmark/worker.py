"""One program under test, in a process and an interpreter of its own.

    python worker.py PROGRAM CHECKPOINT DTYPE      PROGRAM: a name in PROGRAMS

A line of JSON on stdin is a request, one on stdout the answer. The file is run by its path, as the interpreter of
another program need not have this package: it imports nothing of it but in the functions for `own`.
"""

import contextlib
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any


def peak_rss_bytes() -> int:
    """Most memory of this process so far, as the system counts it."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/status", encoding="utf-8") as status:  # ru_maxrss begins with that of the parent on Linux
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))


class Program:
    """What each program can be asked; times in seconds, from the call to the event."""

    version = ""

    def peak_bytes(self) -> int:
        """Most memory since `reset_peak`, of the program's own count; 0 where it keeps none."""
        return 0

    def reset_peak(self) -> None:
        """Reset the count of peak memory."""

    def answer(self, request: dict[str, Any]) -> Iterator[tuple[list[int], list[int]]]:
        """Yield the prompt's tokens and those chosen so far, at each token."""
        raise NotImplementedError

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer greedily: `prompt`, and optionally `images`, `video` (paths), `max_frames`; `max_tokens`."""
        self.reset_peak()
        start = time.perf_counter()
        first_s, prompt_ids, token_ids = 0.0, list[int](), list[int]()
        for prompt_ids, token_ids in self.answer(request):  # noqa: B007 - the last ones are needed
            first_s = first_s or time.perf_counter() - start
        decode_s = time.perf_counter() - start - first_s
        return {
            "first_token_s": first_s,
            "decode_tokens_per_s": (len(token_ids) - 1) / decode_s if len(token_ids) > 1 else 0.0,
            "prompt_tokens": len(prompt_ids),
            "token_ids": token_ids,
            "peak_bytes": self.peak_bytes(),
            "peak_rss_bytes": peak_rss_bytes(),
        }

    def pixels(self, image: Any) -> Any:
        """All tiles of a loaded picture."""
        raise NotImplementedError

    def preprocess(self, request: dict[str, Any]) -> dict[str, Any]:
        """Prepare the picture at `image`, loaded beforehand."""
        import numpy as np
        from PIL import Image

        with Image.open(request["image"]) as file:
            image = file.convert("RGB")
        start = time.perf_counter()
        pixels = self.pixels(image)
        spent_s = time.perf_counter() - start
        array = np.asarray(pixels).reshape(-1, *np.shape(pixels)[-3:])
        if array.dtype != np.uint8:  # back to 8 bits, channels last, so that pixels can be compared
            array = np.rint((array + 1) * 127.5).astype(np.uint8)
        if array.shape[1] == 3:
            array = array.transpose(0, 2, 3, 1)
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
        return {"preprocessing_s": spent_s, "digest": digest, "num_tiles": len(array)}


class MlxProgram(Program):
    """Programs that count memory as MLX does."""

    def peak_bytes(self) -> int:
        """Most memory that MLX has held."""
        import mlx.core as mx

        return mx.get_peak_memory()

    def reset_peak(self) -> None:
        """Reset the count."""
        import mlx.core as mx

        mx.clear_cache()
        mx.reset_peak_memory()


class Own(MlxProgram):
    """This package."""

    def __init__(self, folder: str, dtype: str):
        import mlx_smolvlm

        self.version = mlx_smolvlm.__version__
        self._model, self._processor = mlx_smolvlm.load(folder, dtype=dtype)

    def answer(self, request: dict[str, Any]) -> Iterator[tuple[list[int], list[int]]]:
        """See `Program.answer`."""
        from mlx_smolvlm import stream_generate

        token_ids: list[int] = []
        for step in stream_generate(
            self._model,
            self._processor,
            request["prompt"],
            images=request.get("images", []),
            videos=[request["video"]] if request.get("video") else [],
            max_frames=request.get("max_frames"),
            max_tokens=request["max_tokens"],
        ):
            token_ids += [] if step.token_id is None else [step.token_id]
            yield step.prompt_ids, token_ids

    def pixels(self, image: Any) -> Any:
        """See `Program.pixels`."""
        return self._processor("", images=[image]).pixel_values


class MlxVlm(MlxProgram):
    """mlx-vlm; videos as its command line has them: stills, as its processor for this model takes none."""

    def __init__(self, folder: str, dtype: str):
        import mlx.core as mx
        import mlx_vlm

        self.version = mlx_vlm.__version__
        self._model, self._processor = mlx_vlm.load(folder)
        self._model.set_dtype(getattr(mx, dtype))  # it takes the file's

    def answer(self, request: dict[str, Any]) -> Iterator[tuple[list[int], list[int]]]:
        """See `Program.answer`."""
        import mlx_vlm
        from mlx_vlm.prompt_utils import apply_chat_template

        images = list(request.get("images", []))
        if request.get("video"):
            from mlx_vlm.generate.video import resolve_video_inputs

            images = resolve_video_inputs(
                self._processor, [request["video"]], max_frames=request.get("max_frames") or 16
            ).images
        prompt = apply_chat_template(self._processor, self._model.config, request["prompt"], num_images=len(images))
        token_ids: list[int] = []
        steps = mlx_vlm.stream_generate(
            self._model, self._processor, prompt, images or None, max_tokens=request["max_tokens"], temperature=0.0
        )
        for step in steps:
            if len(token_ids) < request["max_tokens"] and step.token is not None:  # the last step repeats a token
                token_ids.append(int(step.token))
            yield [0] * step.prompt_tokens, token_ids  # it does not tell the tokens of the prompt

    def pixels(self, image: Any) -> Any:
        """See `Program.pixels`."""
        from transformers.image_utils import make_nested_list_of_images

        return self._processor.image_processor(make_nested_list_of_images([image]))["pixel_values"]


class Transformers(Program):
    """transformers on PyTorch, the reference; texts and pictures."""

    def __init__(self, folder: str, dtype: str):
        import torch
        import transformers

        self.version = transformers.__version__
        device = "mps" if torch.backends.mps.is_available() else "cuda" if torch.cuda.is_available() else "cpu"
        self._torch = torch
        self._folder = folder
        self._processor = transformers.AutoProcessor.from_pretrained(folder)
        loaded = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=getattr(torch, dtype))
        self._model = loaded.to(device).eval()

    def answer(self, request: dict[str, Any]) -> Iterator[tuple[list[int], list[int]]]:
        """See `Program.answer`."""
        from PIL import Image

        content = [{"type": "image", "image": Image.open(path)} for path in request.get("images", [])]
        content.append({"type": "text", "text": request["prompt"]})
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._model.device, self._model.dtype)
        prompt_ids, token_ids, cache = inputs["input_ids"][0].tolist(), list[int](), None
        with self._torch.inference_mode():
            while len(token_ids) < request["max_tokens"]:
                output = self._model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache = output.past_key_values
                token = output.logits[:, -1].argmax(-1)
                token_ids.append(int(token))
                yield prompt_ids, token_ids
                inputs = {"input_ids": token[:, None]}

    def pixels(self, image: Any) -> Any:
        """See `Program.pixels`."""
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(self._folder, backend="pil")
        start = time.perf_counter()
        pixels = processor([[image]], return_tensors="np")["pixel_values"]
        self._spent_s = time.perf_counter() - start
        return pixels

    def preprocess(self, request: dict[str, Any]) -> dict[str, Any]:
        """See `Program.preprocess`."""
        return super().preprocess(request) | {"preprocessing_s": self._spent_s}  # without making the processor


class Video(Program):
    """Sampling of videos by this package, without a model."""

    def __init__(self, folder: str, dtype: str):
        import av  # noqa: F401 - part of the base

        import mlx_smolvlm.media.video.frames  # noqa: F401

        self._base_rss_bytes = peak_rss_bytes()

    def sample_video(self, request: dict[str, Any]) -> dict[str, Any]:
        """Decode the frames that a model would be shown, at most `max_frames`, and let them go."""
        from mlx_smolvlm.media.video.frames import read_frames
        from mlx_smolvlm.media.video.probing import choose_frames, probe

        start = time.perf_counter()
        info = probe(request["video"])
        sample = choose_frames(info, 1.0, request["max_frames"])
        return self._report(start, sum(1 for _ in read_frames(info, sample.indices)))

    def decode_video(self, request: dict[str, Any]) -> dict[str, Any]:
        """Decode every frame, with as many threads, and do nothing with them."""
        import av

        start = time.perf_counter()
        with av.open(request["video"]) as container:
            container.streams.video[0].thread_type = "AUTO"
            return self._report(start, sum(1 for _ in container.decode(video=0)))

    def _report(self, start: float, frames: int) -> dict[str, Any]:
        spent_s = time.perf_counter() - start
        memory = {"base_rss_bytes": self._base_rss_bytes, "peak_rss_bytes": peak_rss_bytes()}
        return {"spent_s": spent_s, "frames": frames, **memory}


PROGRAMS = {"video": Video, "own": Own, "mlx-vlm": MlxVlm, "transformers": Transformers}


def main() -> None:
    """Load the program and serve requests until stdin ends."""
    name, folder, dtype = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a program prints must not mix with the answers
    with contextlib.suppress(BrokenPipeError):
        start = time.perf_counter()
        program = PROGRAMS[name](folder, dtype)
        report = {"version": program.version, "load_s": time.perf_counter() - start}
        print(json.dumps(report), file=answers, flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            report = getattr(program, request.pop("task"))(request)
            print(json.dumps(report), file=answers, flush=True)


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose modules are not for the programs under test
    main()
