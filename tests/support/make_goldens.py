"""Record what the reference implementation makes of the test checkpoints: goldens/<checkpoint>.json and .npz.

    pip install torch transformers torchvision num2words av pillow tokenizers safetensors
    PYTHONPATH=.:tests python tests/support/make_goldens.py [CHECKPOINT ...]

Only for renewing the goldens; the tests themselves need neither torch nor transformers. See reference.py for versions.

A checkpoint's json holds {"checkpoint", "cases": {name: case}}, a case being
    messages          chat messages; media are named by "path" (media.py: pictures and videos), or
    prompt_text       a prompt given as it is, without a template
    options           {"do_image_splitting": false} or {}
    prompt            the template's text, before markers are expanded
    input_ids         the whole prompt
    images            per picture {"name", "rows", "cols", "num_tiles", "sha256"}: the hash of the 8-bit tiles
                      (num_tiles, H, W, 3) in row-major order
    videos            per video {"name", "total_num_frames", "fps", "duration_s", "frame_indices", "timestamps_s"}
    generated_ids     up to 32 greedy tokens, the end token included where one came
    text              their text without special tokens
    min_margin        the smallest distance between the best and the second-best logit over those steps
The npz holds slices of every stage for the case STAGE_CASE; see `record_stages`.
"""

import copy
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from support.checkpoint_configs import MAX_FRAMES
from support.checkpoints import CHECKPOINTS, write_checkpoint
from support.media import picture, video_path
from support.reference import eight_bit, load_frames, load_reference

GOLDENS = Path(__file__).parent.parent / "goldens"
NEW_TOKENS = 32
SMALLEST_MARGIN = 1e-3  # far above float32 noise, which is about 1e-4 in these logits
STAGE_CASE = "landscape"
VIDEO_PIXELS = ("smolvlm_256m", "video_clip")  # the one video whose frames are stored


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def image(name: str) -> dict:
    return {"type": "image", "path": name}


def video(name: str) -> dict:
    return {"type": "video", "path": name}


def user(*items: dict) -> dict:
    return {"role": "user", "content": list(items)}


CASES = {
    "text": {"messages": [user(text("What is the capital of France, and what was it called in 1984?"))]},
    "prompt_text": {"prompt_text": "The bridge has 12 arches\n\nand café tables — 30 of them."},
    "landscape": {"messages": [user(image("landscape"), text("What is in this image?"))]},
    "portrait": {"messages": [user(text("Describe this: "), image("portrait"), text("\nBe brief."))]},
    "square": {"messages": [user(image("square"), text("How many balls are there?"))]},
    "tiny": {"messages": [user(text("Is it small?"), image("tiny"))]},
    "panorama": {"messages": [user(image("panorama"))]},
    "two_images": {
        "messages": [
            user(text("First image: "), image("second"), text(" Second image: "), image("tiny"), text(" Compare them."))
        ]
    },
    "turns": {
        "messages": [
            {"role": "system", "content": [text("You are a visual agent and should provide concise answers.")]},
            user(image("second"), text("What color is it?")),
            {"role": "assistant", "content": [text("It is blue, with 2 green spots.")]},
            user(text("Are you sure?")),
        ]
    },
    "no_split": {
        "messages": [user(image("landscape"), text("What is in this image?"))],
        "options": {"do_image_splitting": False},
    },
}
VIDEO_CASES = {
    "video_clip": {"messages": [user(video("clip"), text("Describe this video in detail."))]},
    "video_short": {"messages": [user(text("What happens here? "), video("short"))]},
    "video_long": {"messages": [user(video("long"), text("What happens at the end?"))]},
}


def cases_of(checkpoint: str) -> dict[str, dict]:
    """The cases that this checkpoint is run on; a long video only where few frames are taken."""
    video_cases = VIDEO_CASES if checkpoint in MAX_FRAMES else {}
    if MAX_FRAMES.get(checkpoint) != 8:
        video_cases = {name: case for name, case in video_cases.items() if name != "video_long"}
    return CASES | video_cases


def media_names(case: dict, kind: str) -> list[str]:
    """Names of the pictures or videos of a case, in order."""
    items = [item for message in case.get("messages", []) for item in message["content"]]
    return [item["path"] for item in items if item["type"] == kind]


def prepare(processor, case: dict):
    """Run the processor. Returns the model's inputs, the template's text, and the records of images and videos."""
    options = case.get("options", {})
    if "messages" in case:
        prompt = processor.apply_chat_template(copy.deepcopy(case["messages"]), add_generation_prompt=True)
    else:
        prompt = case["prompt_text"]
    # As apply_chat_template(tokenize=True) does: a template that writes the start token has written it.
    special = not prompt.startswith(processor.tokenizer.bos_token)
    arguments = {"text": [prompt], "add_special_tokens": special, "return_tensors": "pt"}

    images, videos = [], []
    if names := media_names(case, "image"):
        pictures = [picture(name) for name in names]
        arguments |= {"images": [pictures], **options}
        for name, one in zip(names, pictures, strict=True):
            tiles = processor.image_processor(one, return_row_col_info=True, **options)
            pixels = eight_bit(np.stack(tiles["pixel_values"]))
            images.append(
                {"name": name, "rows": tiles["rows"][0][0], "cols": tiles["cols"][0][0], "num_tiles": len(pixels)}
                | {"sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}
            )
    if names := media_names(case, "video"):
        loaded = [load_frames(processor, video_path(name)) for name in names]
        arguments |= {"videos": [[frames for frames, _ in loaded]], "do_sample_frames": False}
        arguments["video_metadata"] = [[metadata for _, metadata in loaded]]
        for name, (_, metadata) in zip(names, loaded, strict=True):
            videos.append(
                {
                    "name": name,
                    "total_num_frames": metadata.total_num_frames,
                    "fps": metadata.fps,
                    "duration_s": metadata.duration,
                    "frame_indices": [int(i) for i in metadata.frames_indices],
                    "timestamps_s": [float(t) for t in metadata.timestamps],
                }
            )
    return processor(**arguments), prompt, images, videos


@torch.no_grad()
def run_case(model, processor, name: str, case: dict) -> tuple[dict, dict]:
    """The record of one case, and the model's inputs."""
    inputs, prompt, images, videos = prepare(processor, case)
    output = model.generate(
        **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    generated = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    best, second = torch.cat(output.logits).topk(2).values.T
    margin = (best - second).min().item()
    if margin < SMALLEST_MARGIN:
        raise ValueError(f"case {name}: the best two logits are {margin:.1e} apart; change this checkpoint's seed")
    record = {"options": {}} | case | {"prompt": prompt, "input_ids": inputs["input_ids"][0].tolist()}
    record |= {"images": images, "videos": videos, "generated_ids": generated}
    record |= {"text": processor.decode(generated, skip_special_tokens=True), "min_margin": margin}
    return record, inputs


@torch.no_grad()
def record_stages(model, inputs: dict) -> dict[str, np.ndarray]:
    """Float32 slices of each stage on one picture.

    tile_index                (2,): the first tile and the last, which is the whole picture
    patch_index               (k,): the diagonal of the patch grid and its last row's first, so that both axes show
    patch_embeddings          (2, k, vision hidden): patches plus positions
    vision_last_hidden_state  (2, k, vision hidden): after post_layernorm
    image_features            (2, image_seq_len, text hidden): the connector's output
    text_last_hidden_state    (4, text hidden): the last four positions, after the final norm
    logits                    (vocab,): the last position
    """
    stages = {}

    def keep(stage):
        return lambda module, args, output: stages.update({stage: output})

    modules = {
        "patch_embeddings": model.model.vision_model.embeddings,
        "vision_last_hidden_state": model.model.vision_model.post_layernorm,
        "image_features": model.model.connector,
        "text_last_hidden_state": model.model.text_model.norm,
        "logits": model.lm_head,
    }
    hooks = [module.register_forward_hook(keep(stage)) for stage, module in modules.items()]
    model(**inputs)
    for hook in hooks:
        hook.remove()

    num_tiles, num_patches, _ = stages["patch_embeddings"].shape
    side = round(num_patches**0.5)
    tiles = np.array([0, num_tiles - 1])
    patches = np.array([*range(0, num_patches, side + 1), num_patches - side])
    arrays = {stage: tensor.float().numpy() for stage, tensor in stages.items()}
    for stage in ("patch_embeddings", "vision_last_hidden_state"):
        arrays[stage] = arrays[stage][tiles][:, patches]
    arrays["image_features"] = arrays["image_features"][tiles]
    arrays["text_last_hidden_state"] = arrays["text_last_hidden_state"][0, -4:]
    arrays["logits"] = arrays["logits"][0, -1]
    return {"tile_index": tiles, "patch_index": patches} | arrays


def write_json(path: Path, checkpoint: str, records: dict[str, dict]) -> None:
    """One case a line, so that a renewed golden shows which cases changed."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(record)}" for name, record in records.items())
    path.write_text(f'{{"checkpoint": {json.dumps(checkpoint)}, "cases": {{\n{lines}\n}}}}\n', encoding="utf-8")


def main(checkpoints: list[str]) -> None:
    """Write the goldens of the named checkpoints, or of all."""
    torch.set_num_threads(1)
    for checkpoint in checkpoints or CHECKPOINTS:
        with tempfile.TemporaryDirectory() as folder:
            model, processor = load_reference(write_checkpoint(checkpoint, folder))
        records, arrays = {}, {}
        for name, case in cases_of(checkpoint).items():
            records[name], inputs = run_case(model, processor, name, case)
            if name == STAGE_CASE:
                arrays |= record_stages(model, inputs)
            if (checkpoint, name) == VIDEO_PIXELS:
                arrays[f"{name}_frames"] = eight_bit(inputs["pixel_values"])  # (frames, H, W, 3) uint8
            record = records[name]
            ids, margin = record["generated_ids"], record["min_margin"]
            print(f"{checkpoint:14} {name:12} {len(record['input_ids']):5} tokens in, margin {margin:.1e}: {ids}")
        write_json(GOLDENS / f"{checkpoint}.json", checkpoint, records)
        np.savez_compressed(GOLDENS / f"{checkpoint}.npz", **arrays)


if __name__ == "__main__":
    main(sys.argv[1:])
