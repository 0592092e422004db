"""Tokens -> text, as it becomes certain."""

from tokenizers.decoders import DecodeStream

from ..processor.processor import Processor


class TextStream:
    """One answer's text.

    Characters of several tokens come out whole; text that may be the beginning of a stop string is held back.
    `stopped` is set when a stop string has come: the text ends before it.
    """

    def __init__(
        self, processor: Processor, stop: list[str], skip_special_tokens: bool, *, keeps_first_space: bool = False
    ):
        """
        Args:
            processor: decodes the tokens.
            stop: strings that end the text.
            skip_special_tokens: leave special tokens out of the text.
            keeps_first_space: a space at the beginning is part of the text, which goes on in the middle of a message;
                otherwise it is what separates an answer from the prompt.
        """
        self._processor = processor
        self._decoder = DecodeStream(skip_special_tokens=skip_special_tokens)
        self._skip_special_tokens = skip_special_tokens
        self._stop = stop
        self._ids: list[int] = []
        self._decoded = ""  # all text that is certain, but the space that prompts end before
        self._keeps_first_space = keeps_first_space
        self._is_begun = keeps_first_space
        self._given = 0  # characters handed out
        self.stopped = False

    def add(self, token_id: int) -> str:
        """The text that this token makes certain."""
        if token_id in self._processor.stop_token_ids and self._skip_special_tokens:
            return ""
        self._ids.append(token_id)
        self._extend(self._decoder.step(self._processor.tokenizer, token_id) or "")
        held = 0 if self.stopped else self._possible_stop_length()
        return self._hand_out(len(self._decoded) - held)

    def flush(self) -> str:
        """What was held back: the beginning of a stop string that did not come, bytes of a broken character."""
        if not self.stopped:
            whole = self._processor.decode(self._ids, skip_special_tokens=self._skip_special_tokens)
            whole = whole if self._keeps_first_space else whole.removeprefix(" ")
            self._extend(whole[len(self._decoded) :])
        return self._hand_out(len(self._decoded))

    def _extend(self, text: str) -> None:
        before = len(self._decoded)
        self._decoded += text if self._is_begun else text.removeprefix(" ")
        self._is_begun = self._is_begun or bool(text)
        search_from = max(0, before - max(map(len, self._stop), default=0))
        found = [place for string in self._stop if (place := self._decoded.find(string, search_from)) >= 0]
        if found:
            self._decoded = self._decoded[: min(found)]
            self.stopped = True

    def _possible_stop_length(self) -> int:
        """Characters at the end that begin a stop string."""
        lengths = [
            length
            for string in self._stop
            for length in range(1, min(len(string), len(self._decoded) + 1))
            if self._decoded.endswith(string[:length])
        ]
        return max(lengths, default=0)

    def _hand_out(self, end: int) -> str:
        text = self._decoded[self._given : end]
        self._given = max(self._given, end)
        return text
