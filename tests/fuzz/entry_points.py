"""What strangers hand in, read by whole commands: they end with a documented status, and without a traceback."""

import json
import shutil
import sys
from functools import cached_property
from pathlib import Path
from random import Random
from unittest.mock import patch

from mlx_smolvlm.batch.__main__ import main as batch
from mlx_smolvlm.convert.__main__ import main as convert

from .mutators import json_bytes, mutated_bytes, mutated_json

CONVERSIONS = [[], ["-q", "--q-group-size", "32"], ["-q", "--q-mode", "mxfp4"], ["--dtype", "bfloat16"], ["-d"]]
DONE, SOME_FAILED, REFUSED = 0, 1, 2


class EntryPoints:
    """The kinds "conversions" and "batches"."""

    def _example_conversions(self, choices: Random) -> bytes:
        """Which options, what is damaged, and its content."""
        options = choices.randrange(len(CONVERSIONS))
        if choices.random() < 0.2:
            name = choices.choice(["adapter_config.json", "adapter_model.safetensors"])
            damaged = self._damaged_file(name, self.adapter_originals[name], choices)
            return bytes([options]) + b"adapter/" + damaged
        name = choices.choice([*self.side_files, "tokenizer.json", "model.safetensors", "model.safetensors"])
        return bytes([options]) + b"checkpoint/" + self._damaged_file(name, self.originals[name], choices)

    def _read_conversions(self, example: bytes) -> None:
        name, _, content = example[1:].partition(b"\0")
        path = self.folder / name.decode()
        original, target = path.read_bytes(), self.folder / "converted"
        path.write_bytes(content)
        words = ["--hf-path", self.checkpoint, "--mlx-path", target, *CONVERSIONS[example[0]]]
        if path.parent == self.adapter:
            words += ["--adapter-path", self.adapter]
        try:
            status = _status(convert, "convert", *words)
            assert status in (DONE, REFUSED), status
            assert target.exists() == (status == DONE), f"status {status}, but {target.exists()}"
            assert not list(self.folder.glob(".converted*")), "something is left of a conversion"
        finally:
            path.write_bytes(original)
            shutil.rmtree(target, ignore_errors=True)

    @cached_property
    def _list(self) -> bytes:
        rows = [{"path": "a.png"}, {"path": "b.png", "prompt": "Which colour?"}, {"video": "clip.gif"}]
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    def _example_batches(self, choices: Random) -> bytes:
        """An image, a list or the results of an earlier run, damaged."""
        what = choices.choice(["a.png", "list.jsonl", "list.csv", "list.txt", "results.jsonl", "results.csv"])
        if what == "a.png":
            content = mutated_bytes(choices.choice(self.images), choices)
        elif what == "list.jsonl" and choices.random() < 0.7:
            rows = mutated_json([json.loads(line) for line in self._list.splitlines()], choices)
            content = b"\n".join(map(json_bytes, rows if isinstance(rows, list) else [rows]))
        elif what == "list.jsonl":
            content = mutated_bytes(self._list, choices)
        elif what == "list.csv":
            content = mutated_bytes(b"path,prompt\na.png,What?\nb.png,\n", choices)
        elif what == "list.txt":
            content = mutated_bytes(b"a.png\nb.png\n", choices)
        else:
            content = mutated_bytes(self._earlier_results[what], choices)
        return what.encode() + b"\0" + content

    @cached_property
    def _earlier_results(self) -> dict[str, bytes]:
        contents = {}
        for name in ("results.jsonl", "results.csv"):
            self._answer(self._input_folder(), name)
            contents[name] = (self.folder / name).read_bytes()
            (self.folder / name).unlink()
        return contents

    def _read_batches(self, example: bytes) -> None:
        name, _, content = example.partition(b"\0")
        folder = self._input_folder()
        is_results = name.startswith(b"results")
        path = (self.folder if is_results else folder) / name.decode()
        path.write_bytes(content)
        out = path.name if is_results else "results.json"
        try:
            status = self._answer(path if path.stem == "list" else folder, out)
            assert status in (DONE, SOME_FAILED, REFUSED), status
        finally:
            (self.folder / out).unlink(missing_ok=True)

    def _input_folder(self) -> Path:
        """A folder of two images; without what earlier examples have put there."""
        folder = self.folder / "inputs"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "a.png").write_bytes(self.images[0])
        (folder / "b.png").write_bytes(self.images[0])
        return folder

    def _answer(self, source: Path, out: str) -> int:
        with patch("mlx_smolvlm.api.loading.load", return_value=(self.model, self.processor)):
            return _status(batch, "batch", source, "--out", self.folder / out, "--max-tokens", "2")


def _status(command, name: str, *words: object) -> int:
    with patch.object(sys, "argv", [f"mlx_smolvlm.{name}", *map(str, words)]):
        try:
            command()
        except SystemExit as end:
            return end.code or DONE
    return DONE
