"""Detectors that read text: end token, stop strings, length, end of a sentence, likeness to a public text.

Each maker returns a `TextDetector`. They look at the partial answer only; what stands in the prompt finishes
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tokenzero.mcts.errors import InputError
from tokenzero.value.rewards import Measure
from tokenzero.value.terminal import TextDetector, check_threshold

PublicReference = Callable[[str], str | None]
"""prompt -> a text that the problem itself shows to anyone (a passage to copy, a worked example), or None.

It takes the prompt and nothing else because search asks at test time, where the gold answer has no place:
what ends an answer when it resembles gold has told the search where gold is.
"""

ABBREVIATIONS = (
    *("e.g.", "i.e.", "cf.", "vs.", "mr.", "mrs.", "ms.", "dr.", "prof.", "st."),
    *("fig.", "figs.", "eq.", "eqs.", "sec.", "ch.", "vol.", "approx.", "ca.", "resp.", "al."),
)
# by code point, as many look alike: . ! ? and their full-width forms; quotes, brackets and marks of emphasis
_MARKS = ".!?\u3002\uff01\uff1f"
_CLOSERS = "\"')]}*_`\u2019\u201d\u00bb\u203a\u300d\u300f\uff09"
_OPENERS = "\"'([{*_`\u2018\u201c\u201e\u00ab\u2039\u300c\u300e\uff08"
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]\.")


def end_token(token: str, name: str = "end_token") -> TextDetector:
    """The text of the end token ("<eos>", "</s>", ...) stands somewhere in the answer.

    For texts decoded with special tokens kept; ids are compared where they are made. Raises InputError for an
    empty token.
    """
    if not token:
        raise InputError(f"detector {name!r} has an empty end token; give the tokenizer's own, such as <eos>")
    return TextDetector(name, lambda prompt, partial: token in partial)


def stop_strings(stops: Sequence[str], name: str = "stop_strings") -> TextDetector:
    """One of the strings stands somewhere in the answer, whole; case matters, half of one does not count.

    As `stop` of OpenAI-compatible servers. Raises InputError for no strings and for an empty one.
    """
    wanted = tuple(stops)
    if not wanted or "" in wanted:
        raise InputError(f"detector {name!r} has stop strings {list(wanted)}; give at least one, none empty")
    return TextDetector(name, lambda prompt, partial: any(stop in partial for stop in wanted))


def length_reached(limit: int, length: Callable[[str], int], name: str = "length") -> TextDetector:
    """length(answer) >= limit. The last unit may still be half written. Raises InputError below 1."""
    if limit < 1:
        raise InputError(f"detector {name!r} has limit {limit}; give at least 1")
    return TextDetector(name, lambda prompt, partial: length(partial) >= limit)


def sentence_end(abbreviations: Sequence[str] = ABBREVIATIONS, name: str = "sentence_end") -> TextDetector:
    """The answer ends with a finished sentence, see `ends_sentence`."""
    known = frozenset(word.casefold() for word in abbreviations)
    return TextDetector(name, lambda prompt, partial: ends_sentence(partial, known))


def ends_sentence(text: str, abbreviations: frozenset[str] = frozenset(ABBREVIATIONS)) -> bool:
    """Whether a text that may go on ends with . ! or ? (full-width too) and closing quotes or brackets.

    A full stop does not count after an abbreviation (`abbreviations`, case folded, with their full stop) or
    letters with full stops between them (a.m., U.S.); after another full stop (...), where the writer trails
    off; after a number that begins its line, as in lists, until the line ends; and after a digit until white
    space or a closing mark follows, for 3. may become 3.5. A single letter does count: "The answer is B."
    """
    body = text.rstrip()
    core = body.rstrip(_CLOSERS)
    stem = core.rstrip(_MARKS)
    marks = core[len(stem) :]
    if not marks or not any(letter.isalnum() for letter in stem):
        return False
    if marks.strip("."):
        return True
    return len(marks) == 1 and not _goes_on(stem, text[len(core) :], abbreviations)


def _goes_on(stem: str, after: str, abbreviations: frozenset[str]) -> bool:
    """Whether one full stop between `stem` and `after` (closing marks, white space) is no end."""
    item = stem.rsplit("\n", 1)[-1].strip().isdigit() and "\n" not in after
    if stem[-1].isdigit() and (not after or item):
        return True
    word = stem.rsplit(None, 1)[-1].lstrip(_OPENERS).casefold() + "."
    return word in abbreviations or _DOTTED.fullmatch(word) is not None


def resembles(
    measure: Measure, public_reference: PublicReference, threshold: float, name: str
) -> TextDetector:
    """measure(answer, public reference) >= threshold, for BLEU or ROUGE (`text_overlap`).

    Silent where the prompt has no public reference; see `PublicReference` for why gold must not stand in.
    Raises InputError for a threshold outside (0, 1].
    """
    check_threshold(name, threshold)

    def holds(prompt: str, partial: str) -> bool:
        reference = public_reference(prompt)
        return reference is not None and measure(partial, reference) >= threshold

    return TextDetector(name, holds)
