"""How often a model is right about hearts, and about what it knew before, with an adapter or without.

    python examples/new_shape/measure.py --model examples/demo_model/checkpoint --adapter hearts

An answer counts if it equals the true one to the letter.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from random import Random

sys.path.append(str(Path(__file__).parents[1] / "demo_model"))

import evaluate as demo
import make_rows
import scenes

import mlx_smolvlm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="the base")
    parser.add_argument("--adapter", help="folder of the adapter")
    parser.add_argument("--samples", type=int, default=300, help="scenes per task")
    arguments = parser.parse_args()
    adapters = [arguments.adapter] if arguments.adapter else []
    try:
        model, processor = mlx_smolvlm.load(arguments.model, adapters=adapters, dtype="float32")
    except (ValueError, OSError) as error:  # no such folder, or none of an adapter
        sys.exit(f"measure.py: {error}")
    tasks = [(f"heart, {task}", make_rows.heart_scene, task) for task in ("shape", "describe", "label")]
    tasks += [(f"known, {task}", make_rows.known_scene, task) for task in ("label", *scenes.QUESTIONS)]
    with tempfile.TemporaryDirectory() as folder:
        for name, make_scene, task in tasks:
            seed = task if name == f"known, {task}" and task in scenes.QUESTIONS else name  # as the demo model's table
            made = [make_scene(Random(f"evaluation/{seed}/{number}"), task) for number in range(arguments.samples)]
            requests = []
            for number, scene in enumerate(made):
                own = Path(folder) / f"{task}-{number}"
                own.mkdir(exist_ok=True)
                requests.append(mlx_smolvlm.BatchRequest(demo.with_media(scene, own)))
            answers = mlx_smolvlm.generate_batch(model, processor, requests, max_tokens=48)
            right = sum(answer.text.strip() == made[answer.index].turns[0][2] for answer in answers)
            print(f"{name:18} {right / arguments.samples:.1%}", flush=True)


if __name__ == "__main__":
    main()
