"""Names of options as users type them: those of other programs, and misspelt ones."""

import re
from collections.abc import Collection, Sequence

# What mlx-lm, mlx-vlm and transformers call options of ours. `_` for `-` within a name is understood everywhere.
ALIASES = {
    "-p": "--prompt",
    "-v": "--verbose",
    "--adapter": "--adapter-path",
    "--lora": "--adapter-path",
    "--lora-rank": "--rank",
    "--lr": "--learning-rate",
    "--images": "--image",
    "--max-new-tokens": "--max-tokens",
    "--prefill-step-size": "--prefill-chunk",
    "--system-prompt": "--system",
    "--temp": "--temperature",
    "--videos": "--video",
}
# Options of theirs that have no counterpart -> what to do instead.
ELSEWHERE = {
    "--audio": "the models of this family do not hear; leave it out",
    "--chat": "write python -m mlx_smolvlm.chat",
    "--chat-template-config": "the checkpoint's own template is used; leave it out",
    "--do-sample": "--temperature T above 0 samples",
    "--draft-model": "--speculate N drafts from the text itself",
    "--eos-tokens": "write --stop TEXT",
    "--extra-eos-token": "write --stop TEXT",
    "--force-download": "download it first: hf download NAME --force-download",
    "--num-draft-tokens": "--speculate N drafts from the text itself",
    "--prefill-response": "put it into --messages as the assistant's turn, and add --continue-final-message",
    "--processor-kwargs": "see --no-split, --max-edge, --fps and --max-frames",
    "--prompt-cache-file": "a chat keeps what it has read: /save in python -m mlx_smolvlm.chat, then --load",
    "--resize-shape": "write --max-edge N, pixels of the longest side",
    "--revision": "download it first: hf download NAME --revision REVISION --local-dir FOLDER, then --model FOLDER",
    "--skip-special-tokens": "they are left out unless --keep-special-tokens is given; leave it out",
    "--trust-remote-code": "code of a checkpoint is never run; leave it out",
    "--use-default-chat-template": "the checkpoint's own template is used; leave it out",
}


def own_words(words: Sequence[str], known: Collection[str]) -> list[str]:
    """The words of a command line with the command's own names for its options.

    Args:
        words: as typed.
        known: the command's options, with their dashes.

    Raises:
        ValueError: an option that there is not, with a hint.
    """
    own: list[str] = []
    for number, word in enumerate(words):
        if word == "--":
            return [*own, *words[number:]]
        option, equals, value = word.partition("=")
        if not re.fullmatch(r"--?[A-Za-z][\w-]*", option):
            own.append(word)
            continue
        following = value if equals else next(iter(words[number + 1 :]), "")
        own.append(_own_name(option, following, known) + equals + value)
    return own


def _own_name(option: str, value: str, known: Collection[str]) -> str:
    """The command's name for an option; short ones that are joined (`-qd`) are left to the parser."""
    dashed = option.replace("_", "-")
    names = [option, dashed, ALIASES.get(dashed, option)]
    if option == "-m":  # mlx-lm's --max-tokens; other programs' --model
        names = ["--max-tokens", "--model"] if re.fullmatch(r"[+-]?\d+", value) else ["--model", "--max-tokens"]
    if own := next((name for name in names if name in known), None):
        return own
    if not option.startswith("--"):
        return option
    if dashed in ELSEWHERE:
        raise ValueError(f"unrecognized arguments: {option}; {ELSEWHERE[dashed]}")
    if dashed in ("--image", "--video", "--input", "--source"):
        raise ValueError(f"unrecognized arguments: {option}; name files and addresses without an option")
    from ..options import did_you_mean  # only mistakes need it

    raise ValueError("; ".join(filter(None, [f"unrecognized arguments: {option}", did_you_mean(dashed, list(known))])))
