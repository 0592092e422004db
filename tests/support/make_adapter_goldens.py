"""Make goldens/adapters: LoRA adapters saved by PEFT, and what PEFT merges them to.

    pip install torch transformers torchvision peft
    PYTHONPATH=.:tests python tests/support/make_adapter_goldens.py

Committed goldens: peft 0.21, torch 2.13, transformers 5.23. Of each weight that changed, a product with a fixed vector
is kept (see `fingerprint`), which every element takes part in.
"""

import tempfile
from pathlib import Path

import numpy as np

from support.checkpoints import write_checkpoint

FOLDER = Path(__file__).parent.parent / "goldens" / "adapters"
BASE = "smolvlm_256m"
CASES = {
    "plain": {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj", "proj"]},
    "patterns": {
        "r": 2,
        "lora_alpha": 3,
        "use_rslora": True,
        "fan_in_fan_out": True,  # PEFT drops it for linear layers
        "target_modules": ["q_proj", "down_proj", "fc1", "embed_tokens"],
        "rank_pattern": {"layers.0.self_attn.q_proj": 3, r".*\.1\.mlp\.fc1": 1},
        "alpha_pattern": {"down_proj": 7},
        "modules_to_save": ["text_model.norm"],
    },
    "dora": {"r": 2, "lora_alpha": 2, "use_dora": True, "target_modules": ["up_proj", "out_proj"]},
}


def fingerprint(weight: np.ndarray) -> np.ndarray:
    """Every row's product with cos(0), cos(1), ...: (out, in) -> (out,)."""
    return weight.astype(np.float64) @ np.cos(np.arange(weight.shape[-1]))


def main() -> None:
    from support.reference import allow_torchvision  # with torch, which the tests do without

    allow_torchvision()
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    for name, options in CASES.items():
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(BASE, folder)
            model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        adapted = get_peft_model(model, LoraConfig(init_lora_weights=False, **options))
        with torch.no_grad():  # what training would have changed
            for key, parameter in adapted.named_parameters():
                if "modules_to_save" in key or "magnitude" in key:
                    parameter += 0.1 * torch.randn_like(parameter)
        adapted.peft_config["default"].base_model_name_or_path = "owner/base"
        adapted.save_pretrained(FOLDER / name, save_embedding_layers=False)
        (FOLDER / name / "README.md").unlink(missing_ok=True)
        merged = adapted.merge_and_unload().state_dict()
        different = (key for key in merged if not torch.equal(merged[key], before[key]))
        changed = {key: fingerprint(merged[key].numpy()) for key in different}
        np.savez_compressed(FOLDER / name / "merged.npz", **changed)
        print(name, len(changed))


if __name__ == "__main__":
    main()
