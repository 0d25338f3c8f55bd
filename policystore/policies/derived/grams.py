"""Words as the index of searched text knows them: by their runs of three characters."""

from __future__ import annotations

GRAM = 3
# Where names are numbered, the numbers tell them apart: such runs have so many digits, and so many of them are enough.
DIGITS = 2
FEWEST, MOST = 3, 5


def of_word(word: str) -> list[str]:
    """The runs of a word, in lower case as what is searched; none of one that is shorter."""
    word = word.lower()
    return sorted({word[start : start + GRAM] for start in range(len(word) - GRAM + 1)})


def covering(word: str) -> list[str]:
    """As few of these runs as have all of the word's characters: little else has these, and each takes a look-up."""
    word = word.lower()
    last = len(word) - GRAM
    return sorted({word[start : start + GRAM] for start in {*range(0, last, GRAM), last} if last >= 0})


def telling(word: str) -> list[str]:
    """A few of these runs that little else has: those of its numbers, where these are long enough, else `covering`."""
    numbers = numbered(word)
    return numbers[:MOST] if len(numbers) >= FEWEST else covering(word)


def numbered(word: str) -> list[str]:
    """Those of these runs that have DIGITS at least, the ones with most first."""
    return sorted((gram for gram in of_word(word) if digits(gram) >= DIGITS), key=digits, reverse=True)


def digits(text: str) -> int:
    """How many digits there are in a text."""
    return sum(map(str.isdigit, text))
