"""Rows that answer what a test wants: the network runs, and the tokens of the answers are replaced."""

from collections.abc import Callable, Hashable

from mlx_smolvlm.engine.answer import Answer
from mlx_smolvlm.engine.row_decoding import RowDecoder


def force_tokens(monkeypatch, script: Callable[[Hashable], list[int]]) -> list[Hashable]:
    """Each row's answer has the tokens that `script` returns for its key, and then those that the model chooses.

    Returns:
        The keys of the rows, in the order in which their answers begin.
    """
    begun: list[Hashable] = []
    original_begin, original_take = RowDecoder.begin, Answer.take

    def begin(decoder, key, answer, *rest):
        begun.append(key)
        answer.forced = script(key)
        original_begin(decoder, key, answer, *rest)

    def take(answer, token_id, logprobs=None):
        place = len(answer.token_ids)
        forced = answer.forced
        return original_take(answer, forced[place] if place < len(forced) else token_id, logprobs)

    monkeypatch.setattr(RowDecoder, "begin", begin)
    monkeypatch.setattr(Answer, "take", take)
    return begun
