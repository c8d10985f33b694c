"""A judge made of rules: a predicate holds, so the rule speaks.

It needs no model and costs no tokens. The predicates are value/predicates.py, a file of rules is
value/constitution.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.value.constitution import load_constitution
from tokenzero.value.judge import Verdicts, fingerprint, paired
from tokenzero.value.predicates import Predicate, predicate


@dataclass(frozen=True)
class Rule:
    """When predicate(prompt, partial) holds, the rule speaks `verdict` (-1 or +1).

    source: what the predicate tests, as text. It is part of the judge's version; who writes a predicate in
    Python gives another one when its answers change.
    """

    name: str
    predicate: Predicate
    verdict: int
    source: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in (-1, 1):
            raise InputError(f"rule {self.name!r} has verdict {self.verdict}: use -1 (reject) or 1 (accept)")


class RuleJudge:
    """Named rules: any -1 is a veto, otherwise any +1 accepts, otherwise 0.

    A predicate that raises says nothing (0) and is counted under its name in `failures_by_rule`; the other
    rules still speak. Raises InputError for an empty or doubly named set of rules.
    """

    def __init__(self, rules: Sequence[Rule], *, name: str = "rules") -> None:
        if not rules:
            raise InputError("a rule judge needs at least one rule: leave the judge out instead")
        twice = [name for name, count in Counter(rule.name for rule in rules).items() if count > 1]
        if twice:
            raise InputError(f"rule {twice[0]!r} is given twice: name each rule once")
        self.name = name
        self.rules = tuple(rules)
        self.version = fingerprint("rules", [(rule.name, rule.verdict, rule.source) for rule in rules])
        self.failures_by_rule: Counter[str] = Counter()

    @classmethod
    def from_names(cls, verdicts: Mapping[str, int], *, name: str = "rules") -> RuleJudge:
        """Rules from built-in predicates, {"too_long:400": -1, "ends_with:.": 1}; see `predicate`."""
        rules = [Rule(rule, predicate(rule), verdict, rule) for rule, verdict in verdicts.items()]
        return cls(rules, name=name)

    @classmethod
    def from_constitution(
        cls, source: str | Path | Mapping[str, Any], *, name: str = "constitution"
    ) -> RuleJudge:
        """The articles that have a rule, of a YAML file or of what it would hold; see `load_constitution`.

        Raises InputError for a bad constitution and for one without a rule.
        """
        articles = load_constitution(source).articles
        rules = [Rule(a.name, a.predicate, a.verdict, a.rule) for a in articles if a.predicate is not None]
        if not rules:
            raise InputError(
                "none of the constitution's articles has a rule: give one a rule, or let a model judge by it"
            )
        return cls(rules, name=name)

    @property
    def failures(self) -> int:
        """How often a predicate raised, over all rules."""
        return self.failures_by_rule.total()

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> Verdicts:
        """int8 [L]. Raises InputError when the two lists differ in length."""
        pairs = paired(prompts, partials)
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
