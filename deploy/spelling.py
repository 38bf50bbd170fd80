"""Tokens to the characters that each completes: together they are the text of all of them."""

from .text import Words

#: What a tokenizer gives for bytes that are no character, or none yet.
UNKNOWN = "\ufffd"


class Spelling:
    """One text's tokens in order, as characters.

    Each is read behind those before it that gave characters last, as a token's text may depend on
    what it follows. `tokenizers.DecodeStream` does so too, but fails on bytes that never become a
    character, and keeps what it holds at the end.
    """

    def __init__(self, words: Words) -> None:
        self._words = words
        self._ids: list[int] = []
        #: How many of them are read, and their text.
        self._read = 0
        self._text = ""

    def add(self, token: int) -> str:
        """The characters that a token completes."""
        self._ids.append(token)
        new = self.rest()
        if not new or new.endswith(UNKNOWN):
            return ""
        self._ids = self._ids[self._read :]
        self._read = len(self._ids)
        self._text = self._words.decode(self._ids)
        return new

    def rest(self) -> str:
        """What is held, characters that lack bytes among it."""
        text = self._words.decode(self._ids)
        if text.startswith(self._text):
            return text[len(self._text) :]
        return self._words.decode(self._ids[self._read :])  # bytes spoilt those before them
