"""Words as the index of searched text knows them: by their runs of three characters."""

from __future__ import annotations

GRAM = 3
# What is indexed ends with this, so that its last characters begin a run of three as well.
PADDING = "\n\n"


def of_word(word: str) -> list[str]:
    """The runs of a word, in lower case as what is searched; none of one that is shorter."""
    word = word.lower()
    return sorted({word[start : start + GRAM] for start in range(len(word) - GRAM + 1)})
