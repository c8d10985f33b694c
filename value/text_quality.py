"""Measures of written text where nobody can say that it is right: how much it repeats itself, and how likely
it is to a referee that had no part in writing it.

Likelihood alone is a bad judge: a text that says one line over and over is likely under nearly every language
model (Holtzman et al., arXiv:1904.09751). So the two belong together. Units are tokens, or characters where a
string is given; nothing here knows models, tables or tokenizers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError

Units = Sequence[int] | str
F64 = NDArray[np.float64]
LogProbs = Callable[[Sequence[int], Sequence[int]], F64]
"""(prompt, continuation) -> log-probability in nats of each token of the continuation, f64 [T]."""


def distinct(text: Units, n: int) -> float:
    """Distinct n-grams / n-grams, in (0, 1]; 1.0 for a text of fewer than n units.

    Distinct-n of Li et al. (arXiv:1510.03055), here over n-grams in place of units. Raises InputError for n
    below 1.
    """
    _check(n)
    count = len(text) - n + 1
    return len({tuple(text[i : i + n]) for i in range(count)}) / count if count > 0 else 1.0


def longest_repeat(text: Units, prompt: Units = "") -> int:
    """Units of the longest substring that ends within ``text`` and stood in ``prompt`` + ``text`` before; the
    two occurrences may overlap. 0 where no unit occurs twice.
    """
    return int(repeat_lengths(text, prompt).max(initial=0))


def repeat_lengths(text: Units, prompt: Units = "") -> NDArray[np.int64]:
    """For each unit of ``text``: the length of the longest substring ending there that ended earlier in
    ``prompt`` + ``text`` as well, i64 [T].

    By the suffix automaton of the units so far (Blumer et al. 1985), in time linear in the text.
    """
    if isinstance(text, str) != isinstance(prompt, str) and len(prompt):
        raise InputError("text and prompt are a string and tokens; give two of one kind")
    links, lengths = [-1], [0]
    following: list[dict[int | str, int]] = [{}]
    last = 0
    found = np.zeros(len(text), np.int64)
    for at, unit in enumerate([*prompt, *text]):
        last = _grow(links, lengths, following, last, unit)
        if at >= len(prompt):  # the link of a prefix is its longest suffix that also ended before
            found[at - len(prompt)] = lengths[links[last]]
    return found


def _grow(
    links: list[int], lengths: list[int], following: list[dict[int | str, int]], last: int, unit: int | str
) -> int:
    """Append ``unit`` to a suffix automaton; its new last state."""
    new = len(links)
    lengths.append(lengths[last] + 1)
    links.append(0)
    following.append({})
    while last != -1 and unit not in following[last]:
        following[last][unit] = new
        last = links[last]
    if last == -1:
        return new
    below = following[last][unit]
    if lengths[below] == lengths[last] + 1:
        links[new] = below
        return new
    copy = len(links)
    lengths.append(lengths[last] + 1)
    links.append(links[below])
    following.append(dict(following[below]))
    links[new] = links[below] = copy
    while last != -1 and following[last].get(unit) == below:
        following[last][unit] = copy
        last = links[last]
    return new


def repeated(text: Units, n: int, prompt: Units = "") -> NDArray[np.bool_]:
    """Whether each unit of ``text`` lies in an n-gram that came before in ``prompt`` + ``text``, bool [T].

    The first occurrence is not marked. Raises InputError for n below 1.
    """
    _check(n)
    marks = np.zeros(len(text), np.bool_)
    for end in np.flatnonzero(repeat_lengths(text, prompt) >= n).tolist():
        marks[max(0, end - n + 1) : end + 1] = True
    return marks


def repeated_units(text: Units, n: int, prompt: Units = "") -> float:
    """The share of units that `repeated` marks, in [0, 1]; 0.0 for no text."""
    return float(repeated(text, n, prompt).mean()) if len(text) else 0.0


@dataclass(frozen=True)
class TextQuality:
    """One continuation. ``nats`` is its negative log-probability per character under a referee and
    ``fresh_nats`` the same where every repeated token counts as ``charge`` nats or what the referee says,
    whichever is more (see `quality`). ``distinct`` holds distinct-1 to distinct-4 of its tokens;
    ``longest_repeat`` and ``repeated`` (a share) look back on the prompt too.
    """

    nats: float
    fresh_nats: float
    distinct: tuple[float, float, float, float]
    longest_repeat: int
    repeated: float


def quality(
    prompt: Sequence[int],
    continuation: Sequence[int],
    log_probs: LogProbs,
    *,
    characters: int | None = None,
    n: int = 12,
    charge: float = 0.0,
) -> TextQuality:
    """Measure ``continuation``, tokens of which ``characters`` are the text's (None: one each).

    A token inside an n-gram that came before (`repeated`) is no merit of the writer: ``fresh_nats`` prices it
    at ``charge`` nats at least. With the charge at what true text costs a token, copying a line earns nothing
    against writing one, and costs nothing either. Raises InputError for an empty continuation.
    """
    if not len(continuation):
        raise InputError("an empty continuation has no quality; give at least one token")
    nats = -np.asarray(log_probs(prompt, continuation), np.float64)
    marks = repeated(continuation, n, prompt)
    units = len(continuation) if characters is None else characters
    fresh = np.where(marks, np.maximum(nats, charge), nats)
    return TextQuality(
        nats=float(nats.sum() / units),
        fresh_nats=float(fresh.sum() / units),
        distinct=tuple(distinct(continuation, size) for size in (1, 2, 3, 4)),  # type: ignore[arg-type]
        longest_repeat=longest_repeat(continuation, prompt),
        repeated=float(marks.mean()),
    )


def _check(n: int) -> None:
    if n < 1:
        raise InputError(f"n-grams of {n} units are none; give at least 1")
