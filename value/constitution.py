"""A constitution: named articles in a YAML file, each with what it tests, what it says and what it means.

    articles:
      - name: brief
        rule: too_long:400
        verdict: reject
        text: An answer is at most 400 characters long.
      - name: closes what it opens
        rule: {all: ["contains:(", {not: unbalanced_parentheses}]}
        verdict: accept
        text: Brackets are used, and closed in order.

`rule` is a named predicate (value/predicates.py) or `all`, `any`, `not` of rules; rule judges read it. `text`
is for model judges and for people. An article has a rule, a text or both. The file is read with PyYAML's
safe loader. Who judges by it is value/rule_judge.py and value/label_judge.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from tokenzero.mcts.errors import InputError
from tokenzero.value.predicates import Predicate, predicate

VERDICTS = {"reject": -1, "accept": 1}
_KEYS = ("name", "rule", "verdict", "text")
_CONNECTIVES = ("all", "any", "not")
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Article:
    """What an article says (`verdict`, -1 or +1), when its rule holds. rule: the rule as JSON, "" without
    one; `predicate` is None then. text: what it means, "" when the rule says it all.
    """

    name: str
    verdict: int
    text: str
    rule: str
    predicate: Predicate | None


@dataclass(frozen=True)
class Constitution:
    """Articles in the order of the file, no name twice."""

    articles: tuple[Article, ...]

    @property
    def text(self) -> str:
        """One line an article, as a model judge reads it: "- reject: ..."."""
        words = {verdict: word for word, verdict in VERDICTS.items()}
        return "\n".join(f"- {words[a.verdict]}: {a.text or a.name}" for a in self.articles)


def load_constitution(source: str | Path | Mapping[str, Any]) -> Constitution:
    """Read a YAML file, or take a mapping of what it would hold.

    Raises InputError for an unreadable file, bad YAML, aliases, unknown or missing keys, a bad rule or
    verdict, or a name given twice. The message names the file and the line.
    """
    if isinstance(source, Mapping):
        return _constitution(source, _Origin("constitution"))
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"constitution {path} cannot be read ({error.strerror}); give a YAML file"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"constitution {path} is not UTF-8 text; give a YAML file") from error
    values, lines = _parse(text, f"constitution {path}")
    return _constitution(values, _Origin(f"constitution {path}", lines))


@dataclass(frozen=True)
class _Origin:
    """Where the values were written, for messages."""

    source: str
    lines: Mapping[Place, int] = field(default_factory=dict)

    def error(self, place: Place, message: str) -> InputError:
        """`message` with the line of `place`, or of what surrounds it."""
        line = next((self.lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in self.lines), 0)
        where = f", line {line}" if line else ""
        return InputError(f"{self.source}{where}: {message}")


def _parse(text: str, source: str) -> tuple[Any, dict[Place, int]]:
    """The values of one YAML document, and the line on which each begins."""
    lines: dict[Place, int] = {}
    try:
        _refuse_aliases(text, source)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _find_lines(node, (), _Origin(source, lines), lines)
        return yaml.safe_load(text), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise InputError(f"{source}{where}: not valid YAML ({error.problem}); mend the line") from error
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: an impossible date
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{source}: not valid YAML ({reason}); mend the file") from error


def _refuse_aliases(text: str, source: str) -> None:
    """A few aliases of aliases can stand for more values than there is memory."""
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            where = f"{source}, line {event.start_mark.line + 1}" if event.start_mark else source
            raise InputError(f"{where}: *{event.anchor} is an alias; write the text out")


def _find_lines(node: yaml.Node, place: Place, origin: _Origin, lines: dict[Place, int]) -> None:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _find_lines(item, (*place, index), origin, lines)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*place, str(key.value))
            if here in lines:
                lines[here] = key.start_mark.line + 1
                raise origin.error(here, f"{key.value!r} occurs twice; write it once")
            lines[here] = key.start_mark.line + 1
            _find_lines(value, here, origin, lines)


def _constitution(values: Any, origin: _Origin) -> Constitution:
    if not isinstance(values, Mapping):
        raise origin.error((), f"holds {_kind(values)}; give a mapping with 'articles:'")
    _refuse_unknown(values, ("articles",), (), origin)
    listed = values.get("articles")
    if not isinstance(listed, list) or not listed:
        raise origin.error(("articles",), f"articles is {_kind(listed)}; give a list of at least one article")
    articles = tuple(_article(item, ("articles", index), origin) for index, item in enumerate(listed))
    seen: set[str] = set()
    for index, article in enumerate(articles):
        if article.name in seen:
            raise origin.error(
                ("articles", index, "name"), f"article {article.name!r} is given twice; name each one once"
            )
        seen.add(article.name)
    return Constitution(articles)


def _article(values: Any, place: Place, origin: _Origin) -> Article:
    if not isinstance(values, Mapping):
        raise origin.error(place, f"an article is {_kind(values)}; give a mapping with {', '.join(_KEYS)}")
    _refuse_unknown(values, _KEYS, place, origin)
    name = _text(values, "name", place, origin)
    if not name:
        raise origin.error(place, "an article has no name; give it one")
    text = _text(values, "text", place, origin)
    if "rule" not in values and not text:
        raise origin.error(place, f"article {name!r} has neither rule nor text; give one of them")
    holds = None
    if "rule" in values:
        holds = _rule(values["rule"], (*place, "rule"), origin)
    rule = "" if holds is None else json.dumps(values["rule"], sort_keys=True)
    return Article(name, _verdict(values, name, place, origin), text, rule, holds)


def _verdict(values: Mapping[str, Any], name: str, place: Place, origin: _Origin) -> int:
    said = values.get("verdict")
    if type(said) is int and said in (-1, 1):  # True is an int too
        return said
    if isinstance(said, str) and said in VERDICTS:
        return VERDICTS[said]
    raise origin.error((*place, "verdict"), f"article {name!r} has verdict {said!r}; use reject or accept")


def _text(values: Mapping[str, Any], key: str, place: Place, origin: _Origin) -> str:
    text = values.get(key, "")
    if not isinstance(text, str):
        raise origin.error((*place, key), f"{key} is {_kind(text)}; give text, in quotes if need be")
    return text.strip()


def _rule(rule: Any, place: Place, origin: _Origin) -> Predicate:
    if isinstance(rule, str):
        try:
            return predicate(rule)
        except InputError as error:
            raise origin.error(place, str(error)) from error
    if not isinstance(rule, Mapping) or len(rule) != 1:
        raise origin.error(
            place, f"a rule is {_kind(rule)}; give a predicate, or one of {', '.join(_CONNECTIVES)}"
        )
    _refuse_unknown(rule, _CONNECTIVES, place, origin)
    ((connective, inner),) = rule.items()
    here = (*place, connective)
    if connective == "not":
        return _negation(_rule(inner, here, origin))
    if not isinstance(inner, list) or not inner:
        raise origin.error(here, f"{connective} holds {_kind(inner)}; give a list of at least one rule")
    return _junction(connective, [_rule(item, (*here, index), origin) for index, item in enumerate(inner)])


# What raises inside a connective raises through it: the opposite of "cannot say" is not "holds".


def _negation(part: Predicate) -> Predicate:
    return lambda prompt, partial: not part(prompt, partial)


def _junction(connective: str, parts: Sequence[Predicate]) -> Predicate:
    join = all if connective == "all" else any
    return lambda prompt, partial: join(part(prompt, partial) for part in parts)


def _refuse_unknown(values: Mapping[str, Any], known: Sequence[str], place: Place, origin: _Origin) -> None:
    for key in values:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(known)}"
            raise origin.error((*place, str(key)), f"{key!r} is not a key here; {hint}")


def _kind(value: Any) -> str:
    """What a wrong value is, short enough for one line."""
    if value is None:
        return "nothing"
    if isinstance(value, (str, int, float, bool)):
        return repr(value)[:60]
    return {"dict": "a mapping", "list": "a list"}.get(type(value).__name__, type(value).__name__)
