"""A model that says what a test wants: the real network runs, and its logits are outvoted."""

import mlx.core as mx

from mlx_smolvlm.model.language import LanguageModel


class Planted:
    """Makes every model go on with `answer` after a prompt of `prompt_tokens`, and counts its steps.

    What it says at a position depends on the tokens that it has read up to there: after a wrong one it babbles.
    """

    def __init__(self, monkeypatch, prompt_tokens: int, answer: list[int]):
        self.steps: list[int] = []  # tokens read in each step
        original_call, original_logits = LanguageModel.__call__, LanguageModel.logits
        end = 0

        def call(model, embeddings, cache):
            nonlocal end
            self.steps.append(embeddings.shape[1])
            hidden = original_call(model, embeddings, cache)
            end = cache[0].offset
            return hidden

        def logits(model, hidden):
            rows = hidden.reshape(-1, hidden.shape[-1]).shape[0]
            real = original_logits(model, hidden)
            wanted = [
                answer[i] if 0 <= i < len(answer) else 7
                for i in range(end - rows - prompt_tokens + 1, end - prompt_tokens + 1)
            ]
            bonus = mx.arange(real.shape[-1]) == mx.array(wanted)[:, None]
            return real + 1e4 * bonus.reshape(real.shape)

        monkeypatch.setattr(LanguageModel, "__call__", call)
        monkeypatch.setattr(LanguageModel, "logits", logits)
