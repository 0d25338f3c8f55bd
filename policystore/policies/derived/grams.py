"""Words as the index of searched text knows them: by their runs of three characters."""

from __future__ import annotations

GRAM = 3


def of_word(word: str) -> list[str]:
    """The runs of a word, in lower case as what is searched; none of one that is shorter."""
    word = word.lower()
    return sorted({word[start : start + GRAM] for start in range(len(word) - GRAM + 1)})


def covering(word: str) -> list[str]:
    """As few of these runs as have all of the word's characters: little else has these, and each takes a look-up."""
    word = word.lower()
    last = len(word) - GRAM
    return sorted({word[start : start + GRAM] for start in {*range(0, last, GRAM), last} if last >= 0})
