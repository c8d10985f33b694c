"""Constitutions: connectives against Python's own, and mistakes named with their line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.value.constitution import load_constitution

GOOD = """\
# what a good answer is
articles:
  - name: brief
    rule: too_long:5
    verdict: reject
    text: |
      An answer is short.
  - name: polite
    verdict: +1
    text: It says please.
  - name: closed
    verdict: -1
    rule:
      any:
        - unbalanced_parentheses
        - not: "contains:a"
"""


def write(path: Path, text: str) -> Path:
    file = path / "constitution.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_file_and_a_mapping_are_read_alike(tmp_path: Path) -> None:
    constitution = load_constitution(write(tmp_path, GOOD))
    assert [(a.name, a.verdict, a.text) for a in constitution.articles] == [
        ("brief", -1, "An answer is short."),
        ("polite", 1, "It says please."),
        ("closed", -1, ""),
    ]
    assert constitution.articles[1].predicate is None
    assert json.loads(constitution.articles[2].rule) == {
        "any": ["unbalanced_parentheses", {"not": "contains:a"}]
    }
    assert constitution.text == "- reject: An answer is short.\n- accept: It says please.\n- reject: closed"
    closed = constitution.articles[2].predicate
    assert closed is not None
    assert [closed("", text) for text in ("a", "a)", "b", "(a)")] == [False, True, True, False]
    mapping = {"articles": [{"name": "brief", "rule": "too_long:5", "verdict": "reject"}]}
    assert load_constitution(mapping).articles[0].rule == '"too_long:5"'


rules = st.recursive(
    st.sampled_from(["contains:a", "contains:b", "contains:c"]),
    lambda inner: st.one_of(
        st.builds(lambda part: {"not": part}, inner),
        st.builds(lambda parts: {"all": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"any": parts}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)


def naive(rule: Any, text: str) -> bool:
    if isinstance(rule, str):
        return rule[-1] in text
    ((word, inner),) = rule.items()
    if word == "not":
        return not naive(inner, text)
    holds = [naive(part, text) for part in inner]
    return all(holds) if word == "all" else any(holds)


@given(rules, st.text("abc", max_size=4))
def test_connectives_mean_what_they_say(rule: Any, text: str) -> None:
    article = load_constitution({"articles": [{"name": "x", "verdict": 1, "rule": rule}]}).articles[0]
    assert article.predicate is not None
    assert article.predicate("", text) == naive(rule, text)


def test_what_cannot_be_said_is_not_turned_round(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        return lambda prompt, partial: 1 / 0

    monkeypatch.setattr("tokenzero.value.constitution.predicate", broken)
    article = load_constitution({"articles": [{"name": "x", "verdict": 1, "rule": {"not": "any"}}]})
    holds = article.articles[0].predicate
    assert holds is not None
    with pytest.raises(ZeroDivisionError):
        holds("", "")


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        (
            "    verdict: reject",
            "    verdikt: reject",
            5,
            "'verdikt' is not a key here; did you mean 'verdict'",
        ),
        ("verdict: reject", "verdict: yes", 5, "verdict True; use reject or accept"),
        ("verdict: reject", "verdict: 0", 5, "verdict 0; use reject or accept"),
        ("    verdict: +1\n", "", 8, "'polite' has verdict None"),
        ("too_long:5", "too_lang:5", 4, "did you mean 'too_long'"),
        ("- unbalanced_parentheses", "- too_long:x", 15, "whole number"),
        ("- unbalanced_parentheses", "- [a]", 15, "a rule is a list"),
        ("      any:", "      or:", 14, "'or' is not a key here; use all, any, not"),
        ("name: polite", "name: brief", 8, "'brief' is given twice"),
        ("name: polite", "name: 3", 8, "name is 3; give text"),
        ("  - name: polite\n    verdict", "  - verdict", 8, "an article has no name"),
        ("    text: It says please.\n", "", 8, "'polite' has neither rule nor text"),
        ("articles:", "article:", 2, "'article' is not a key here; did you mean 'articles'"),
        ("    verdict: reject\n", "    verdict: reject\n    verdict: accept\n", 6, "'verdict' occurs twice"),
        ("name: brief", "name: [brief", 4, "not valid YAML"),
        ("name: brief", "name: &x brief\n    text: *x", 4, "alias"),
        ("name: brief", "name: !!python/name:os.system x", 3, "not valid YAML"),
        ("name: brief", "? {a: b}\n    : c", 3, "not valid YAML"),
    ],
)
def test_mistakes_are_named_with_file_and_line(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    assert GOOD.count(old) == 1
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_constitution(path)
    text = str(caught.value)
    assert f"{path}, line {line}: " in text
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds nothing"),
        ("articles: []", "articles is a list"),
        ("articles: {}", "articles is a mapping"),
        ("articles: [brief]", "an article is 'brief'"),
        ("- a", "holds a list"),
        ("articles: 2026-99-99", "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("[" * 800, "not valid YAML"),
        ("articles: [{name: x, verdict: 1, rule: {all: []}}]", "all holds a list"),
        ("articles: [{name: x, verdict: 1, rule: {not: a, any: [b]}}]", "a rule is a mapping"),
        ("articles: [{name: x, verdict: 1, rule: null}]", "a rule is nothing"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_constitution(write(tmp_path, text))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_constitution(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match="not UTF-8"):
        load_constitution(str(tmp_path / "binary.yaml"))
