"""Record which tokens of conversations TRL trains, as goldens/training_masks.json.

In an environment with transformers and trl's files (`pip install transformers; pip install --no-deps trl`):

    PYTHONPATH=.:tests python tests/support/make_training_goldens.py

Text and spans are those of transformers' renderer with TRL's template for `assistant_only_loss`. A token is trained if
it overlaps a span, as in transformers, `processing_utils.py` (`_adjust_assistant_masks_indices`).
"""

import json
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from random import Random

from tokenizers import Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from support.checkpoint_configs import TOKENIZERS

CHECKPOINT = "smolvlm_256m"
GOLDENS = Path(__file__).parents[1] / "goldens"
PIECES = (
    *("Hello", " world", "\n", "\n\n", " ", "  ", "\t", "A.", "...", "😀", "👍🏽", "元気です", "1234", "é", "'s", "!?"),
    *(
        "<end_of_utterance>",
        "Assistant:",
        "User: x",
        "<|im_start|>",
        "Assistant: yes<end_of_utterance>\n",
        "\r\n",
        "</s>",
    ),
)


def conversation(rng: Random) -> list[dict]:
    """Turns of odd texts, some empty."""

    def content() -> list[dict]:
        return [
            {"type": "text", "text": "".join(rng.choices(PIECES, k=rng.randint(0, 6)))}
            for _ in range(rng.randint(1, 2))
        ]

    turns = [{"role": "system", "content": content()}] if rng.random() < 0.3 else []
    for _ in range(rng.randint(1, 3)):
        turns += [{"role": "user", "content": content()}, {"role": "assistant", "content": content()}]
    return turns


def main() -> None:
    template = Path(find_spec("trl").submodule_search_locations[0], "chat_templates", "smolvlm_training.jinja")
    conversations = [conversation(Random(number)) for number in range(40)]
    texts, spans = render_jinja_template(
        conversations, chat_template=template.read_text(encoding="utf-8"), return_assistant_tokens_mask=True
    )
    tokenizer = Tokenizer.from_file(str(GOLDENS / "tokenizers" / TOKENIZERS[CHECKPOINT]))
    rows = []
    for turns, text, own in zip(conversations, texts, spans, strict=True):
        encoded = tokenizer.encode(text, add_special_tokens=False)
        trained = [int(any(a < end and b > start for start, end in own)) for a, b in encoded.offsets]
        rows.append({"messages": turns, "input_ids": encoded.ids, "trained": "".join(map(str, trained))})
    versions = {name: version(name) for name in ("transformers", "trl", "tokenizers")}
    content = {"checkpoint": CHECKPOINT, "versions": versions, "rows": rows}
    lines = json.dumps(content, ensure_ascii=False).replace('{"messages"', '\n{"messages"')
    (GOLDENS / "training_masks.json").write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
