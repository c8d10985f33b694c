"""A small invented world: texts that tell its facts, and questions that need two of them at once, with the
chain of thought that answers them.

A held-out question combines two facts that no text tells together and no training question combines. Nothing
here is read or random beyond the seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

JOBS = ("baker", "smith", "teacher", "sailor", "weaver", "miller", "doctor", "painter")
GOODS = ("cheese", "glass", "wool", "honey", "clocks", "salt", "apples", "boats")
ENDINGS = {"person": ("a", "o", "i"), "town": ("ham", "ton", "by"), "river": ("ne", "rk", "sse")}

TELLINGS = {
    "town": "The home of {} is in {}.",
    "job": "{} works as a {}.",
    "age": "{} is {} years old.",
    "friend": "The best friend of {} is {}.",
    "river": "{} lies on the {}.",
    "goods": "{} is known for its {}.",
}
"""How a fact is told, by what it is about."""

QUESTIONS = (
    ("town", "river", "Which river is near the home of {}?"),
    ("town", "goods", "What is the town of {} known for?"),
    ("friend", "town", "Where does the best friend of {} live?"),
    ("friend", "job", "What is the job of the best friend of {}?"),
    ("friend", "age", "How old is the best friend of {}?"),
)
"""Two facts to be put together, and the question about a person."""


class Chain(NamedTuple):
    """A question, the two sentences that lead to its answer, and the answer."""

    question: str
    facts: tuple[str, str]
    answer: str

    def row(self) -> dict[str, str]:
        """As in a file of questions."""
        return {"question": self.question, "reasoning": " ".join(self.facts), "answer": self.answer}


@dataclass(frozen=True)
class FactWorld:
    """``facts``: what is so, by subject and kind of fact. ``documents``: texts, each on one subject.
    ``chains``: questions by split.
    """

    facts: Mapping[str, Mapping[str, str]]
    documents: list[str]
    chains: Mapping[str, list[Chain]]

    def write(self, directory: Path) -> None:
        """``facts.jsonl`` with the documents, and a file of questions for each split."""
        _write(directory / "facts.jsonl", ({"text": text} for text in self.documents))
        for split, chains in self.chains.items():
            _write(directory / f"{split}.jsonl", (chain.row() for chain in chains))


def make_world(
    people: int = 40,
    towns: int = 10,
    copies: int = 10,
    test: float = 0.2,
    validation: float = 0.1,
    seed: int = 1,
) -> FactWorld:
    """``people`` who live in ``towns``, ``copies`` documents about each of them and half as many for each
    of its people about a town, the shares ``test`` and ``validation`` of the questions held out.
    """
    rng = np.random.default_rng(seed)
    facts = _facts(rng, _names(rng, "person", people), _names(rng, "town", towns))
    told = [
        s
        for s in facts
        for _ in range(copies if "town" in facts[s] else max(1, copies * people // (2 * towns)))
    ]
    documents = [_document(rng, subject, facts[subject]) for subject in told]
    chains = [_chain(facts, name, *kind) for name in facts if "town" in facts[name] for kind in QUESTIONS]
    held, near = int(test * len(chains)), int((test + validation) * len(chains))
    order = [chains[i] for i in rng.permutation(len(chains)).tolist()]
    splits = {"test": order[:held], "validation": order[held:near], "train": order[near:]}
    return FactWorld(facts, [documents[i] for i in rng.permutation(len(documents)).tolist()], splits)


def tell(kind: str, subject: str, what: str) -> str:
    """A fact as a sentence."""
    return TELLINGS[kind].format(subject, what)


def _facts(rng: np.random.Generator, people: list[str], towns: list[str]) -> dict[str, dict[str, str]]:
    rivers = _names(rng, "river", max(2, len(towns) // 2))
    friends = np.roll(rng.permutation(len(people)), 1)  # one round of friends, so that nobody is his own
    order = np.roll(friends, 1)
    friend = {people[int(a)]: people[int(b)] for a, b in zip(order, friends, strict=True)}
    facts = {
        name: {
            "town": towns[i % len(towns)],
            "job": str(rng.choice(JOBS)),
            "age": str(rng.integers(20, 60)),
            "friend": friend[name],
        }
        for i, name in enumerate(people)
    }
    return facts | {
        town: {"river": rivers[i % len(rivers)], "goods": GOODS[i % len(GOODS)]}
        for i, town in enumerate(towns)
    }


def _names(rng: np.random.Generator, kind: str, count: int) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < count:
        begin, middle, after = (
            str(rng.choice(list(letters))) for letters in ("BDFGHKLMNPRSTV", "aeiou", "dlmnrt")
        )
        names[begin + middle + after + str(rng.choice(ENDINGS[kind]))] = None
    return list(names)


def _document(rng: np.random.Generator, subject: str, facts: Mapping[str, str]) -> str:
    kinds = [list(facts)[i] for i in rng.permutation(len(facts)).tolist()]
    return " ".join(tell(kind, subject, facts[kind]) for kind in kinds)


def _chain(
    facts: Mapping[str, Mapping[str, str]], name: str, first: str, second: str, question: str
) -> Chain:
    between = facts[name][first]
    answer = facts[between][second]
    return Chain(question.format(name), (tell(first, name, between), tell(second, between, answer)), answer)


def _write(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
