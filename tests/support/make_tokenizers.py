"""Train the small tokenizers of the test checkpoints, once: their files in goldens/tokenizers are committed.

    pip install tokenizers && PYTHONPATH=.:tests python tests/support/make_tokenizers.py

They copy what matters in the released ones: the pre-tokenizer, the post-processor and which markers are tokens.

    learned.json   SmolVLM 256M, 500M, SmolVLM2: single digits, ByteLevel; `<row_r_col_c>`, `<global-img>` are tokens
    strings.json   SmolVLM 2.2B v1: the same, but the layout markers are plain strings, split into pieces
    llama3.json    Idefics3-8B-Llama3: Llama 3's split pattern, `<|begin_of_text|>` prepended by a post-processor
"""

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

FOLDER = Path(__file__).parent.parent / "goldens" / "tokenizers"
NUM_MERGES = 140  # on top of the 256 bytes; enough for pieces such as "\n\n", " the" and "Assistant"

IMAGE_MARKERS = ["<fake_token_around_image>", "<image>"]
LAYOUT_MARKERS = ["<global-img>"] + [f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)]
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(pre_tokenizer: pre_tokenizers.PreTokenizer, special_tokens: list[str], ignore_merges: bool) -> Tokenizer:
    """Train a byte-level BPE on corpus.txt; `special_tokens` take the first ids."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(special_tokens) + 256 + NUM_MERGES,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # "\n\n" must be one token, as in the released tokenizers: the last row of tiles ends in "\n" and the global image
    # begins with one. Inside text the pre-tokenizers split it, so it is fed by itself.
    corpus = (FOLDER / "corpus.txt").read_text(encoding="utf-8")
    tokenizer.train_from_iterator([corpus] + ["\n\n"] * 100, trainer)
    return tokenizer


def add_specials(tokenizer: Tokenizer, tokens: list[str]) -> None:
    """Append special tokens at the end of the vocabulary, as the released checkpoints did."""
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in tokens])


def smollm2_tokenizer(layout_markers: bool) -> Tokenizer:
    """SmolLM2's tokenizer with the markers of SmolVLM 2.2B v1, or with the learned ones of its successors."""
    pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer = train(pre_tokenizer, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], ignore_merges=False)
    if layout_markers:
        reserved = [f"<|reserved_special_token_{i}|>" for i in range(4)]
        add_specials(tokenizer, LAYOUT_MARKERS + IMAGE_MARKERS + reserved + ["<end_of_utterance>"])
    else:
        add_specials(tokenizer, [*IMAGE_MARKERS, "<end_of_utterance>"])
    return tokenizer


def llama3_tokenizer() -> Tokenizer:
    """Llama 3's tokenizer with the markers of Idefics3; its first special token comes after the merges."""
    pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer = train(pre_tokenizer, [], ignore_merges=True)
    add_specials(tokenizer, ["<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|eot_id|>"])
    add_specials(tokenizer, [*IMAGE_MARKERS, "<end_of_utterance>"])
    bos = "<|begin_of_text|>"
    template = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def main() -> None:
    """Write the three files."""
    smollm2_tokenizer(layout_markers=True).save(str(FOLDER / "learned.json"), pretty=False)
    smollm2_tokenizer(layout_markers=False).save(str(FOLDER / "strings.json"), pretty=False)
    llama3_tokenizer().save(str(FOLDER / "llama3.json"), pretty=False)


if __name__ == "__main__":
    main()
