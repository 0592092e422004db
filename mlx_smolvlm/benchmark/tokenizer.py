"""A tokenizer for random checkpoints: the family's markers at the family's ids, on a made-up vocabulary."""

from itertools import islice, product

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

LAYOUT_TOKENS = ["<global-img>", *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))]
END_OF_UTTERANCE = "<end_of_utterance>"
_OPENING_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_CHARACTERS = [chr(code) for code in range(ord("!"), ord("~") + 1)]
NUM_MARKERS = 128  # ids after the plain vocabulary, in every checkpoint with learned layout tokens


def make_tokenizer(plain_vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer with `plain_vocab_size` + 128 tokens.

    All bytes, then pairs and triples of printable ASCII characters, so that what a model with random weights answers
    can be printed as it comes.
    """
    vocab = {token: i for i, token in enumerate([*_OPENING_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    pairs = [("Ċ", "Ċ"), *product(["Ġ"], _CHARACTERS), *product(_CHARACTERS, repeat=2)]  # Ċ, Ġ: newline, space
    triples = ((first + second, third) for first, second in pairs[1:] for third in _CHARACTERS)
    merges = []
    for left, right in islice((*pairs, *triples), plain_vocab_size - len(vocab)):
        vocab[left + right] = len(vocab)
        merges.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    named = [*LAYOUT_TOKENS, "<fake_token_around_image>", "<image>"]
    reserved = [f"<|reserved_special_token_{index}|>" for index in range(NUM_MARKERS - len(named) - 1)]
    markers = [*named, *reserved, END_OF_UTTERANCE]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in markers])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in _OPENING_TOKENS])
    return tokenizer
