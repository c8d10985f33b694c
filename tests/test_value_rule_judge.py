"""Judges made of rules: vetoes, failing predicates, versions, and rules out of a constitution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tokenzero.mcts.errors import InputError
from tokenzero.value.rule_judge import Rule, RuleJudge


def test_a_veto_beats_an_accept_whatever_the_order() -> None:
    good = Rule("good", lambda prompt, partial: "g" in partial, 1)
    bad = Rule("bad", lambda prompt, partial: "b" in partial, -1)
    for rules in ([good, bad], [bad, good]):
        verdicts = RuleJudge(rules).judge(["p"] * 4, ["", "g", "b", "gb"])
        assert verdicts.dtype == np.int8
        assert verdicts.tolist() == [0, 1, -1, -1]


def test_rules_see_the_prompt() -> None:
    judge = RuleJudge([Rule("echo", lambda prompt, partial: prompt == partial, -1)])
    assert judge.judge(["a", "a"], ["a", "b"]).tolist() == [-1, 0]


def test_a_predicate_that_raises_is_neutral_counted_and_silences_nobody_else() -> None:
    def broken(prompt: str, partial: str) -> bool:
        return bool(1 / len(partial))

    judge = RuleJudge([Rule("broken", broken, -1), Rule("empty", lambda prompt, partial: not partial, 1)])
    assert judge.judge(["p", "p", "p"], ["", "x", ""]).tolist() == [1, -1, 1]
    assert judge.failures == 2
    assert dict(judge.failures_by_rule) == {"broken": 2}
    assert RuleJudge([Rule("broken", broken, -1)]).judge(["p"], [""]).tolist() == [0]


def test_rules_from_names() -> None:
    judge = RuleJudge.from_names({"too_long:5": -1, "ends_with:!": 1})
    assert judge.judge([""] * 3, ["ok!", "much too long!", "ok"]).tolist() == [1, -1, 0]
    assert [rule.name for rule in judge.rules] == ["too_long:5", "ends_with:!"]


def test_unusable_rule_sets_and_batches_are_refused() -> None:
    rule = Rule("a", lambda prompt, partial: True, 1)
    with pytest.raises(InputError, match="at least one"):
        RuleJudge([])
    with pytest.raises(InputError, match="twice"):
        RuleJudge([rule, rule])
    with pytest.raises(InputError, match="verdict 0"):
        Rule("a", rule.predicate, 0)
    with pytest.raises(InputError, match="2 prompts and 1"):
        RuleJudge([rule]).judge(["p", "q"], ["x"])
    assert RuleJudge([rule]).judge([], []).shape == (0,)


def test_the_version_changes_with_what_the_rules_test() -> None:
    first = RuleJudge.from_names({"too_long:5": -1}, name="a")
    assert first.version == RuleJudge.from_names({"too_long:5": -1}, name="b").version
    others = [{"too_long:6": -1}, {"too_long:5": 1}, {"too_long:5": -1, "contains:x": 1}]
    assert first.version not in {RuleJudge.from_names(rules).version for rules in others}
    same_name = [Rule("a", lambda prompt, partial: True, 1, source) for source in ("first", "second")]
    assert RuleJudge([same_name[0]]).version != RuleJudge([same_name[1]]).version


CONSTITUTION = """
articles:
  - {name: brief, rule: "too_long:5", verdict: reject, text: Short.}
  - {name: polite, verdict: accept, text: Says please.}
  - name: emphatic
    rule: {all: ["ends_with:!", {not: "contains:?"}]}
    verdict: accept
"""


def test_rules_from_a_constitution(tmp_path: Path) -> None:
    path = tmp_path / "constitution.yaml"
    path.write_text(CONSTITUTION, encoding="utf-8")
    judge = RuleJudge.from_constitution(path)
    assert [rule.name for rule in judge.rules] == ["brief", "emphatic"]
    assert judge.judge([""] * 5, ["ok!", "ok?!", "please", "ok", "long!!"]).tolist() == [1, 0, -1, 0, -1]
    text = {"articles": [{"name": "polite", "verdict": "accept", "text": "Says please."}]}
    with pytest.raises(InputError, match="none of the constitution's articles has a rule"):
        RuleJudge.from_constitution(text)


def test_the_version_follows_the_constitution_s_rules() -> None:
    def version(limit: int, text: str) -> str:
        article = {"name": "brief", "rule": f"too_long:{limit}", "verdict": -1, "text": text}
        return RuleJudge.from_constitution({"articles": [article]}).version

    assert version(5, "Short.") == version(5, "Brief."), "rules do not read the text"
    assert version(5, "Short.") != version(6, "Short.")
