"""`--export-adapter`: an adapter in PEFT's format or in that of mlx-lm."""

import shutil
from pathlib import Path

import mlx.core as mx
from safetensors import SafetensorError

from ..api.finding import AdapterSource, check_utf8, open_adapters
from ..files import whole_folder, write_json
from ..model.adapters.adapter_export import FORMATS, depends_on_tying, mlx_files, peft_files
from ..model.adapters.companion_files import COMPANIONS
from ..model.checkpoint_folder import ADAPTER_CONFIG, MLX_ADAPTER_WEIGHTS, PEFT_WEIGHTS
from ..options import quoted


def export_adapter(
    adapter_path: AdapterSource, out: str | Path, *, adapter_format: str | None = None, base: str | None = None
) -> tuple[Path, list[str]]:
    """Write an adapter in another format, with the tokenizer, template and processor files that stand beside it.

    Args:
        adapter_path: folder or Hub id.
        out: the folder to make. It appears when it is whole.
        adapter_format: "peft" or "mlx-lm"; None for the one that it is not in.
        base: the base model's name, for the configuration; None for the one that the adapter names.

    Returns:
        The folder, and notes on what the format says otherwise.

    Raises:
        FileNotFoundError: no such adapter.
        FileExistsError: `out` exists and is not empty.
        ValueError: an adapter that is not understood, or that the format cannot represent.
        ConnectionError: the Hub cannot be reached or refuses.
        OSError: the folder cannot be written.
    """
    if adapter_format not in (None, *FORMATS):
        raise ValueError(f"the format is {quoted(adapter_format)}, expected one of {', '.join(FORMATS)}")
    if not str(out):
        raise ValueError("--export-adapter is empty; name the folder to make")
    target = Path(out).expanduser().absolute()
    check_utf8(target)
    _check_target(target)
    [(adapter, weight)] = open_adapters(adapter_path)
    if weight != 1:
        raise ValueError(f"weight {weight:g} cannot be exported; give it where the adapter is used")
    is_peft = adapter_format == "peft" if adapter_format else not adapter.is_peft
    config, tensors = peft_files(adapter, base) if is_peft else mlx_files(adapter, base)
    with whole_folder(target, _check_target) as folder:
        write_json(folder / ADAPTER_CONFIG, config)
        arrays = {name: mx.contiguous(array) for name, array in tensors.items()}
        name = PEFT_WEIGHTS if is_peft else MLX_ADAPTER_WEIGHTS[0]
        try:
            mx.save_safetensors(str(folder / name), arrays, {"format": "pt" if is_peft else "mlx"})
        except (SafetensorError, RuntimeError) as error:
            raise OSError(f"{target} could not be written: {error}") from None
        for companion in COMPANIONS:
            if (adapter.folder / companion).is_file():
                shutil.copyfile(adapter.folder / companion, folder / companion)
    notes = []
    if depends_on_tying(adapter) and is_peft != adapter.is_peft:
        notes.append(
            "the adapter changes embeddings or head: where a base ties them, mlx-lm and mlx-vlm change both, PEFT does "
            "not; the two adapters are the same on bases that do not tie them"
        )
    return target, notes


def _check_target(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists already; choose another folder for --export-adapter")
