"""What a run leaves: an adapter in PEFT's format, or with full training a checkpoint like the one it began with."""

import argparse
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from ..api.finding import check_utf8
from ..convert.save import copy_companions, find_companions
from ..files import refuse_to_replace, refuse_unwritable, whole_folder, write_json
from ..model.adapters.adapter_export import peft_files
from ..model.adapters.changes import EMBEDDINGS, HEAD
from ..model.adapters.companion_files import COMPANIONS
from ..model.checkpoint_folder import ADAPTER_CONFIG, PEFT_WEIGHTS
from ..model.weights import INDEX, PATCH_EMBEDDING_WEIGHT, load_tensors, read_index
from .learning.trainable import Trainable
from .recipe import Recipe
from .run_folder import FEATURES, RECORD, RunFolder, save_arrays


def output_folders(arguments: argparse.Namespace, recipe: Recipe) -> tuple[Path, Path | None]:
    """The folder to make, and the merged one; that they can be made is known before anything is trained.

    Raises:
        ValueError, OSError: an option that is missing or has no sense, or a place where no folder can be made.
    """
    if not arguments.adapter_out:
        raise ValueError("--adapter-out is missing; name the folder to make")
    out = Path(arguments.adapter_out).expanduser().absolute()
    check_utf8(out)
    is_finished = arguments.resume and (out / RECORD).is_file()
    if not is_finished:
        refuse_to_replace(out)
        refuse_unwritable(out.parent, "--adapter-out")
    state = RunFolder(out).path
    if arguments.feature_cache:
        cache = Path(arguments.feature_cache).expanduser().absolute()
        if {out, state} & {cache, *cache.parents} and cache != state / FEATURES:  # it would be in their way at the end
            raise ValueError(f"--feature-cache {cache} is a folder of this run, or within one; choose another folder")
    if arguments.merge is None:
        return out, None
    if recipe.method == "full":
        raise ValueError("--merge merges an adapter; --method full writes a whole checkpoint already")
    merged = Path(arguments.merge).expanduser().absolute() if arguments.merge else out.with_name(f"{out.name}-merged")
    check_utf8(merged)
    for place, what in ((out, "the adapter's own folder"), (state, "where the run keeps its state")):
        if merged in (place, *place.parents) or place in merged.parents:
            raise ValueError(f"--merge {merged} is {what}, around it or within it; choose another folder")
    if not (is_finished and (merged / "config.json").is_file()):  # merged before, as far as one can see
        refuse_to_replace(merged)
        refuse_unwritable(merged.parent, "--merge")
    return out, merged


def write_output(run: RunFolder, trainable: Trainable, base: Path, base_name: str, record: Mapping[str, Any]) -> None:
    """Write the folder that the run is for, with its record, metrics and report, whole or not at all.

    Args:
        run: the run.
        trainable: what was trained.
        base: folder of the base model.
        base_name: what the adapter's configuration calls it.
        record: of the run, for `training.json`.

    Raises:
        FileExistsError: the folder is there by now, and not empty.
        OSError: it cannot be written.
    """
    arrays: Any = tree_flatten(trainable.parameters)
    if broken := [name for name, array in arrays if not mx.isfinite(array).all().item()]:
        raise ValueError(
            f"{broken[0]} is not finite after the last step; the learning rate may be too high. "
            f"Remove {run.path}, and train at a lower one"
        )
    with _output(run.out) as folder:
        if trainable.method == "full":
            _write_checkpoint(folder, trainable, base)
        else:
            _write_adapter(folder, trainable, base_name, record["options"]["dropout"])
        write_json(folder / RECORD, record)
        for file in (run.metrics, run.report):
            if file.is_file():
                shutil.copyfile(file, folder / file.name)


@contextmanager
def _output(out: Path) -> Iterator[Path]:
    with whole_folder(out, refuse_to_replace) as folder:
        yield folder


def _write_adapter(folder: Path, trainable: Trainable, base_name: str, dropout: float) -> None:
    config, tensors = peft_files(trainable.adapter(base_name), base_name)
    settings = {name: value for name, value in trainable.settings.items() if name in config}
    write_json(folder / ADAPTER_CONFIG, config | settings | {"lora_dropout": dropout})
    save_arrays(folder / PEFT_WEIGHTS, tensors, {"format": "pt"})
    for name in COMPANIONS if trainable.init_folder else ():
        if (trainable.init_folder / name).is_file():  # type: ignore[operator]
            shutil.copyfile(trainable.init_folder / name, folder / name)  # type: ignore[operator]


def _write_checkpoint(folder: Path, trainable: Trainable, base: Path) -> None:
    """The base's files again, under its names, in its layout and types, with the trained values."""
    index = read_index(base)
    parameters = dict(trainable.parameters)
    if f"{HEAD}.weight" in index and f"{HEAD}.weight" not in parameters:  # a copy of the tied embeddings
        parameters[f"{HEAD}.weight"] = parameters[f"{EMBEDDINGS}.weight"]
    stored = load_tensors(index.items())
    by_file: dict[Path, dict[str, mx.array]] = {}
    for name, info in index.items():
        array = parameters.get(name, stored[name]).astype(stored[name].dtype)
        if name == PATCH_EMBEDDING_WEIGHT and info.is_huggingface:
            array = array.transpose(0, 3, 1, 2)  # (out, height, width, in) -> (out, in, height, width)
        by_file.setdefault(info.file, {})[info.name_in_file] = array
    is_huggingface = any(info.is_huggingface for info in index.values())
    for file, arrays in by_file.items():
        save_arrays(folder / file.name, arrays, {"format": "pt" if is_huggingface else "mlx"})
    copy_companions(find_companions(base), folder)
    for name in ("config.json", INDEX):
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
