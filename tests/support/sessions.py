"""What the tests of sessions share: a conversation asked without any memory is the yardstick."""

from mlx_smolvlm import GenerationOptions, stream_generate

OPTIONS = GenerationOptions(max_tokens=6)


def ids(steps) -> list[int]:
    return [step.token_id for step in steps]


def media_item(kind: str, source) -> dict:
    return {"type": kind, kind: source}


def from_scratch(pair, session, question: str, *media: dict, turns=None) -> list[int]:
    """What a call without any memory answers to a question at the end of a session's turns.

    `media` are those of the whole conversation, in order.
    """
    unused = list(media)

    def raw(item):
        return item if item["type"] == "text" else unused.pop(0)

    messages = [{"role": "system", "content": session.system}] if session.system else []
    for turn in session.turns if turns is None else turns:
        messages += [
            {"role": "user", "content": [raw(item) for item in turn.content]},
            {"role": "assistant", "content": [{"type": "text", "text": turn.answer}]},
        ]
    messages.append({"role": "user", "content": [*unused, {"type": "text", "text": question}]})
    return ids(stream_generate(*pair, messages, max_tokens=OPTIONS.max_tokens))
