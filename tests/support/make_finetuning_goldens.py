"""Record what torch, PEFT and TRL make of small training runs, as goldens/training/runs.json.

In an environment with this package and torch, torchvision, transformers, peft, trl and datasets:

    PYTHONPATH=.:tests python tests/support/make_finetuning_goldens.py

All of it is float32 on the CPU, on the test checkpoint `smolvlm_256m` and the adapters of `support/finetuning.py`.
"""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from random import Random

import torch
from datasets import Dataset
from peft import PeftModel
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, get_cosine_schedule_with_warmup
from trl import DPOConfig, DPOTrainer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from support.checkpoints import write_checkpoint
from support.finetuning import PREFERENCES, RECIPE, SHOWN, write_adapter, write_preferences
from support.make_training_goldens import conversation
from support.training import examples_of, write_rows

GOLDEN = Path(__file__).parents[1] / "goldens" / "training" / "runs.json"


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = write_checkpoint("smolvlm_256m", folder / "base")
        processor = AutoProcessor.from_pretrained(base)
        processor.image_processor = AutoImageProcessor.from_pretrained(base, backend="pil", do_image_splitting=False)
        content = {
            "versions": {name: version(name) for name in ("torch", "transformers", "peft", "trl")},
            "completions": completions(processor),
            "steps": steps(base, processor, folder),
            "preferences": preferences(base, processor, folder),
        }
    lines = json.dumps(content, ensure_ascii=False).replace('{"prompt"', '\n{"prompt"')
    GOLDEN.write_text(lines + "\n", encoding="utf-8")


def completions(processor) -> list[dict]:
    """Prompts of several turns, some of which end with an answer, and completions of several turns."""
    collator = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
    rows = []
    for number in range(24):
        random = Random(number)
        turns = conversation(random) + conversation(random)[-2:]
        if number % 4 == 0:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": "And more."}]})
        first = random.choice([at for at, turn in enumerate(turns) if turn["role"] == "assistant"])
        row = {"prompt": turns[:first], "completion": turns[first:]}
        made = collator([{**json.loads(json.dumps(row)), "images": []}])
        trained = "".join(str(int(label != -100)) for label in made["labels"][0].tolist())
        rows.append({**row, "input_ids": made["input_ids"][0].tolist(), "trained": trained})
    return rows


def adapted(base: Path, adapter: Path) -> PeftModel:
    """The base with an adapter that is trained."""
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter, is_trainable=True)


def shown(model: PeftModel, folder: Path) -> dict[str, list[float]]:
    """Some numbers of each tensor of the adapter's file."""
    from safetensors.numpy import load_file

    model.save_pretrained(folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    return {name: array.reshape(-1)[:: -(-array.size // SHOWN)].tolist() for name, array in sorted(tensors.items())}


def steps(base: Path, processor, folder: Path) -> dict:
    """Losses and gradients' norms of steps, and the adapter after them."""
    rows = write_rows(folder)
    examples = examples_of(base, rows)
    model = adapted(base, write_adapter(folder / "adapter")).train()
    inputs = []
    for line, example in zip(rows.read_text(encoding="utf-8").splitlines(), examples, strict=True):
        row = json.loads(line)
        images = [Image.open(folder / row["image"])] if "image" in row else None
        content = [{"type": "image"}] * bool(images) + [{"type": "text", "text": row["question"]}]
        answer = {"role": "assistant", "content": [{"type": "text", "text": row["answer"]}]}
        text = processor.apply_chat_template([{"role": "user", "content": content}, answer])
        made = processor(text=text, images=images, return_tensors="pt", add_special_tokens=False)
        assert made["input_ids"][0].tolist() == example.input_ids.tolist()
        labels = made["input_ids"].masked_fill(~torch.tensor(example.trained)[None], -100)
        inputs.append((made, labels[0, 1:]))
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW([parameter for _, parameter in named], RECIPE.learning_rate, eps=1e-8)
    for group in optimizer.param_groups:
        group["weight_decay"] = RECIPE.weight_decay
    schedule = get_cosine_schedule_with_warmup(optimizer, RECIPE.warmup, RECIPE.steps)
    records = []
    for step in range(RECIPE.steps):
        batch = inputs[:3] if step % 2 == 0 else inputs[3:]
        count = sum(int((labels != -100).sum()) for _, labels in batch)
        total = 0.0
        for made, labels in batch:
            logits = model(**made).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum") / count
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_([parameter for _, parameter in named], RECIPE.max_grad_norm).item()
        records.append({"loss": total, "gradient_norm": norm, "learning_rate": schedule.get_last_lr()[0]})
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return {"records": records, "tensors": shown(model, folder / "steps")}


def preferences(base: Path, processor, folder: Path) -> dict:
    """TRL's DPO of an adapter that is continued."""
    rows = [json.loads(line) for line in write_preferences(folder).read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["images"] = [Image.open(folder / name) for name in row.get("images", [])]

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, number: int) -> dict:
            texts = {name: value for name, value in rows[number].items() if name != "images"}
            return {**json.loads(json.dumps(texts)), "images": rows[number]["images"]}

    recipe = PREFERENCES
    options = DPOConfig(
        output_dir=str(folder / "out"),
        beta=recipe.beta,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        per_device_train_batch_size=recipe.batch_size,
        max_steps=recipe.steps,
        max_length=None,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
        logging_steps=1,
        save_strategy="no",
        optim="adamw_torch",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    model = adapted(base, write_adapter(folder / "preferences", whole=False))
    like = Dataset.from_list([{"prompt": "", "chosen": "", "rejected": "", "images": []}])
    trainer = DPOTrainer(model=model, args=options, train_dataset=like, processing_class=processor)
    trainer.train_dataset = Rows()
    trainer.train()
    logged = [record for record in trainer.state.log_history if "loss" in record]
    records = [
        {"loss": record["loss"], "gradient_norm": record["grad_norm"], "margin": record["rewards/margins"]}
        for record in logged
    ]
    return {"records": records, "tensors": shown(trainer.model, folder / "preferred")}


if __name__ == "__main__":
    main()
