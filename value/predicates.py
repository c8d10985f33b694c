"""The named predicates that rules are made of: what can be said of a partial answer without a model.

They test texts and know neither verdicts nor judges (value/rule_judge.py), nor how a constitution combines
them (value/constitution.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches

from tokenzero.mcts.errors import InputError

Predicate = Callable[[str, str], bool]


# Each maker below takes the text after the colon and returns (prompt, partial) -> bool.


def predicate(name: str) -> Predicate:
    """The built-in predicate of that name, written `name` or `name:argument`.

    repeats_ngram[:n]        some n words in a row (default 4) occur twice in the partial answer
    unbalanced_parentheses   a closing bracket of ()[]{} has no partner; open ones may still be closed
    too_long:n               the partial answer has more than n characters
    contains:text, ends_with:text    plain text, case matters; ends_with ignores white space at the end
    matches:regex            the regular expression is found anywhere in the partial answer

    Raises InputError for an unknown name (with the nearest known one) or a bad argument.
    """
    head, _, argument = name.partition(":")
    maker = _MAKERS.get(head)
    if maker is None:
        near = get_close_matches(head, _MAKERS, n=1, cutoff=0.0)[0]
        raise InputError(f"unknown rule {head!r}: did you mean {near!r}? Known: {', '.join(_MAKERS)}")
    return maker(argument)


def _positive(rule: str, argument: str) -> int:
    if not (argument.isascii() and argument.isdigit() and int(argument) > 0):
        raise InputError(f"rule {rule}:{argument}: the argument must be a whole number above 0")
    return int(argument)


def _text(rule: str, argument: str) -> str:
    if not argument:
        raise InputError(f"rule {rule} needs a text: write {rule}:TEXT")
    return argument


def _repeats_ngram(argument: str) -> Predicate:
    n = _positive("repeats_ngram", argument) if argument else 4

    def holds(prompt: str, partial: str) -> bool:
        words = partial.split()
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        return len(set(grams)) < len(grams)

    return holds


_CLOSES = {")": "(", "]": "[", "}": "{"}


def _unbalanced_parentheses(argument: str) -> Predicate:
    if argument:
        raise InputError(f"rule unbalanced_parentheses takes no argument, it got {argument!r}")

    def holds(prompt: str, partial: str) -> bool:
        open_brackets: list[str] = []
        for letter in partial:
            if letter in "([{":
                open_brackets.append(letter)
            elif letter in _CLOSES and (not open_brackets or open_brackets.pop() != _CLOSES[letter]):
                return True
        return False

    return holds


def _too_long(argument: str) -> Predicate:
    limit = _positive("too_long", argument)
    return lambda prompt, partial: len(partial) > limit


def _contains(argument: str) -> Predicate:
    text = _text("contains", argument)
    return lambda prompt, partial: text in partial


def _ends_with(argument: str) -> Predicate:
    text = _text("ends_with", argument)
    return lambda prompt, partial: partial.rstrip().endswith(text)


def _matches(argument: str) -> Predicate:
    try:
        pattern = re.compile(_text("matches", argument))
    except re.error as error:
        raise InputError(f"rule matches:{argument}: not a regular expression ({error})") from error
    return lambda prompt, partial: pattern.search(partial) is not None


_MAKERS: dict[str, Callable[[str], Predicate]] = {
    "repeats_ngram": _repeats_ngram,
    "unbalanced_parentheses": _unbalanced_parentheses,
    "too_long": _too_long,
    "contains": _contains,
    "ends_with": _ends_with,
    "matches": _matches,
}
