"""Judges: what a partial answer looks like from outside, as -1 reject, 0 neutral or +1 accept.

The verdict shifts the leaf value, clip(v + eta * judge, -1, 1), so that the search looks elsewhere sooner.
The idea is LMGT's (Deng et al. 2024, arXiv 2409.04744, "LMGT: Optimizing Exploration-Exploitation Balance in
Reinforcement Learning through Language Model Guided Trade-offs"), there on rewards. This file holds the
protocol, rules and a cache. It does not anneal eta (selfplay/) and its verdicts never reach a training target
(value/targets.py).
"""

from __future__ import annotations

import difflib
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokenzero.mcts.errors import InputError

Predicate = Callable[[str, str], bool]
Verdicts = NDArray[np.int8]


class Judge(Protocol):
    """judge(prompts, partials), both of length L -> int8 [L] in {-1, 0, 1}. Same pair, same verdict."""

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> Verdicts: ...


def shift(value: ArrayLike, verdict: ArrayLike, eta: float) -> NDArray[np.float32]:
    """clip(value + eta * verdict, -1, 1), float32, shapes broadcast. eta >= 0, else InputError."""
    if not 0.0 <= eta < float("inf"):
        raise InputError(f"judge eta is {eta}: use 0 (off) or a positive number, usually below 1")
    moved = np.asarray(value, dtype=np.float64) + eta * np.asarray(verdict, dtype=np.float64)
    return np.clip(moved, -1.0, 1.0).astype(np.float32)


@dataclass(frozen=True)
class Rule:
    """When predicate(prompt, partial) holds, the rule speaks `verdict` (-1 or +1)."""

    name: str
    predicate: Predicate
    verdict: int

    def __post_init__(self) -> None:
        if self.verdict not in (-1, 1):
            raise InputError(f"rule {self.name!r} has verdict {self.verdict}: use -1 (reject) or 1 (accept)")


class RuleJudge:
    """A constitution of named rules: any -1 is a veto, otherwise any +1 accepts, otherwise 0.

    A predicate that raises says nothing (0) and is counted under its name in `failures_by_rule`; the other
    rules still speak. Raises InputError for an empty or doubly named set of rules.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        if not rules:
            raise InputError("a rule judge needs at least one rule: leave the judge out instead")
        twice = [name for name, count in Counter(rule.name for rule in rules).items() if count > 1]
        if twice:
            raise InputError(f"rule {twice[0]!r} is given twice: name each rule once")
        self.rules = tuple(rules)
        self.failures_by_rule: Counter[str] = Counter()

    @classmethod
    def from_names(cls, verdicts: Mapping[str, int]) -> RuleJudge:
        """Rules from built-in predicates, {"too_long:400": -1, "ends_with:.": 1}; see `predicate`."""
        return cls([Rule(name, predicate(name), verdict) for name, verdict in verdicts.items()])

    @property
    def failures(self) -> int:
        """How often a predicate raised, over all rules."""
        return self.failures_by_rule.total()

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> Verdicts:
        """int8 [L]. Raises InputError when the two lists differ in length."""
        pairs = _paired(prompts, partials)
        return np.array([self._verdict(prompt, partial) for prompt, partial in pairs], dtype=np.int8)

    def _verdict(self, prompt: str, partial: str) -> int:
        verdict = 0
        for rule in self.rules:
            if self._holds(rule, prompt, partial):
                if rule.verdict < 0:
                    return -1
                verdict = 1
        return verdict

    def _holds(self, rule: Rule, prompt: str, partial: str) -> bool:
        try:
            return bool(rule.predicate(prompt, partial))
        # A predicate is the user's code and may raise anything; the run must go on without it.
        except Exception:  # noqa: BLE001
            self.failures_by_rule[rule.name] += 1
            return False


class CachedJudge:
    """Remembers the verdict of each (prompt, partial); repeats inside one batch are asked once.

    `calls` counts the pairs handed to the inner judge, `hits` those answered from memory. At most `capacity`
    verdicts are kept, the least recently used leave first. Raises InputError when the inner judge returns
    something other than one verdict of -1, 0 or 1 per pair.
    """

    def __init__(self, inner: Judge, capacity: int = 100_000) -> None:
        if capacity < 1:
            raise InputError(f"judge cache capacity is {capacity}: use 1 or more")
        self.inner = inner
        self.capacity = capacity
        self.calls = 0
        self.hits = 0
        self._known: OrderedDict[tuple[str, str], int] = OrderedDict()

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> Verdicts:
        """int8 [L], the inner judge's verdicts."""
        pairs = _paired(prompts, partials)
        unknown = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        answers = {pair: self._known[pair] for pair in pairs if pair in self._known}
        if unknown:
            raw = self.inner.judge([pair[0] for pair in unknown], [pair[1] for pair in unknown])
            answers.update(zip(unknown, _checked(raw, len(unknown)), strict=True))
        self.calls += len(unknown)
        self.hits += len(pairs) - len(unknown)
        for pair in pairs:
            self._known[pair] = answers[pair]
            self._known.move_to_end(pair)
        while len(self._known) > self.capacity:
            self._known.popitem(last=False)
        return np.array([answers[pair] for pair in pairs], dtype=np.int8)


def _paired(prompts: Sequence[str], partials: Sequence[str]) -> list[tuple[str, str]]:
    if len(prompts) != len(partials):
        raise InputError(f"judge got {len(prompts)} prompts and {len(partials)} partials: give one each")
    return list(zip(prompts, partials, strict=True))


def _checked(raw: ArrayLike, length: int) -> list[int]:
    verdicts = np.asarray(raw)
    if verdicts.shape != (length,) or not np.isin(verdicts, (-1, 0, 1)).all():
        raise InputError(f"the judge must return {length} verdicts of -1, 0 or 1, got shape {verdicts.shape}")
    return [int(verdict) for verdict in verdicts]


# The built-in predicates. Each maker takes the text after the colon and returns (prompt, partial) -> bool.


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
        near = difflib.get_close_matches(head, _MAKERS, n=1, cutoff=0.0)[0]
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
