"""How often the demo model is right, task by task, on scenes that it was not trained on.

    python examples/demo_model/evaluate.py --model examples/demo_model/checkpoint --samples 300
    python examples/demo_model/evaluate.py --model mlx_smolvlm/demo/model --samples 300
    python examples/demo_model/evaluate.py --model examples/demo_model/checkpoint --reference --samples 300

An answer counts if it equals the true one to the letter. Clips are H.264 files, decoded and sampled like any
video. `--reference` answers with transformers (`pip install torch torchvision transformers num2words`) instead
of this project; both in float32, greedy, on the same scenes.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import scenes

Answerer = Callable[[list[dict]], str]


def with_media(scene: scenes.Scene, folder: Path) -> list[dict]:
    """The scene's question as messages whose media are there: PIL pictures, or the path of a video file."""
    media = iter(scene.images)
    if scene.kind == "clip":
        path = folder / "clip.mp4"
        scenes.write_clip(scene, path)
        media = iter([str(path)])
    chat = scenes.messages(scene)
    for message in chat:
        for item in message["content"]:
            if item["type"] != "text":
                item[item["type"]] = next(media)
    return chat


def mlx_answerer(folder: str) -> Answerer:
    from mlx_smolvlm import generate_text, load

    model, processor = load(folder, dtype="float32")
    return lambda messages: generate_text(model, processor, messages, max_tokens=48)


def reference_answerer(folder: str) -> Answerer:
    import reference

    return reference.answerer(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of the checkpoint")
    parser.add_argument("--reference", action="store_true", help="answer with transformers")
    parser.add_argument("--samples", type=int, default=300, help="scenes per task")
    parser.add_argument("--seed", default="evaluation", help="training never uses this one")
    parser.add_argument("--tasks", nargs="+", default=list(scenes.QUESTIONS), choices=scenes.QUESTIONS)
    parser.add_argument("--show", type=int, default=0, help="print this many wrong answers per task")
    arguments = parser.parse_args()

    answer = (reference_answerer if arguments.reference else mlx_answerer)(arguments.model)
    accuracy = {}
    with tempfile.TemporaryDirectory() as folder:
        for task in arguments.tasks:
            right = shown = 0
            for number in range(arguments.samples):
                scene = scenes.scene_for(Random(f"{arguments.seed}/{task}/{number}"), task)
                given = answer(with_media(scene, Path(folder))).strip()
                right += given == scene.turns[0][2]
                if given != scene.turns[0][2] and shown < arguments.show:
                    shown += 1
                    print(f"  {scene.turns[0][2]!r} but said {given!r}")
            accuracy[task] = right / arguments.samples
            print(f"{task:12} {accuracy[task]:.1%}", flush=True)
    print(json.dumps({"model": arguments.model, "reference": arguments.reference, "accuracy": accuracy}))


if __name__ == "__main__":
    main()
