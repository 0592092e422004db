"""A tiny checkpoint like granite-docling: tags of DocTags as special tokens, a tied head, a template of its own."""

import json
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from support.checkpoint_configs import image_processor_config, image_seq_len, model_config
from support.checkpoints import TOKENIZER_FOLDER, random_weights, save_weights

SEED = 12
END = "<|end_of_text|>"
TEMPLATE = (
    "{% for message in messages %}<|start_of_role|>{{ message['role'] }}<|end_of_role|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for item in message['content'] %}{{ item['text'] if item['type'] == 'text' else '<image>' }}{% endfor %}"
    f"{{% endif %}}{END}\n{{% endfor %}}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
PAIRED = (
    *("doctag", "text", "title", "caption", "footnote", "formula", "list_item", "page_footer", "page_header"),
    *("picture", "otsl", "checkbox_selected", "checkbox_unselected", "chart", "code", "paragraph", "references"),
    *("ordered_list", "unordered_list", "form", "key_value_region", "smiles"),
    *(f"section_header_level_{level}" for level in range(1, 7)),
)
SINGLE = ("fcel", "ecel", "lcel", "ucel", "xcel", "nl", "ched", "rhed", "page_break", "group")
TAGS = [f"<{slash}{name}>" for name in PAIRED for slash in ("", "/")] + [f"<{name}>" for name in SINGLE]


@cache
def document_tokenizer() -> Tokenizer:
    """The tests' tokenizer with these tags, none of which is a location: `<loc_7>` is several tokens."""
    tokenizer = Tokenizer.from_file(str(TOKENIZER_FOLDER / "learned.json"))
    names = [*TAGS, "<|start_of_role|>", "<|end_of_role|>", END]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
    return tokenizer


def write_document_checkpoint(folder: Path) -> Path:
    """Write the checkpoint into `folder`, which is made; the bytes are the same each time."""
    folder.mkdir(parents=True)
    tokenizer = document_tokenizer()
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    config = model_config("tied", vocab)
    config |= {"model_type": "idefics3", "architectures": ["Idefics3ForConditionalGeneration"]}
    config["vision_config"]["model_type"] = "idefics3_vision"
    special = {"bos_token": "<|start_of_role|>", "eos_token": END, "pad_token": END}
    files = {
        "config.json": config,
        "generation_config.json": {"bos_token_id": vocab["<|start_of_role|>"], "eos_token_id": vocab[END]},
        "preprocessor_config.json": image_processor_config("tied"),
        "processor_config.json": {"image_seq_len": image_seq_len("tied"), "processor_class": "Idefics3Processor"},
        "tokenizer_config.json": special | {"tokenizer_class": "GPT2Tokenizer"},
        "added_tokens.json": {"<|end_of_nothing|>": len(vocab)},  # beyond the embeddings, as granite's file has one
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    save_weights(random_weights(config, SEED), folder, num_files=1)
    return folder


def tokens(text: str) -> list[int]:
    """The tokens of an answer."""
    return document_tokenizer().encode(text, add_special_tokens=False).ids
