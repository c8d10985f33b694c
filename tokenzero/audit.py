"""The audit of a run: what its stored answers say about gamed rewards, judges and teachers.

It reads the run's records and the games that are still kept, and scores nothing anew. The measures are
``selfplay/audit_measures.py``'s, the conclusions ``selfplay/audit_findings.py``'s, the page ``audit_page``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import load_tokenizer
from tokenzero.run_records import Record, read_run
from tokenzero.selfplay.audit_findings import LOOK, AuditLimits, Finding, findings
from tokenzero.selfplay.audit_measures import TRUTHS, Measures, answer_tokens, measure_round, solved
from tokenzero.selfplay.audit_statistics import repeated_share
from tokenzero.selfplay.episode import Episode, read_episodes
from tokenzero.selfplay.run_directory import checkpoint_path, shard_path

SHOWN = 5
"""Samples of each kind."""


@dataclass(frozen=True)
class Answer:
    """An episode of the last kept round with what the audit measured of it: ``length`` in tokens and the
    share of ``repetition``; ``right`` as ``audit_measures.solved`` has it.
    """

    episode: Episode
    length: int
    repetition: float
    right: bool


@dataclass(frozen=True)
class Audit:
    """``rounds`` the measures of every round that could be measured, in order; ``answers`` those of the last
    round whose games are kept, ``last``; ``samples`` of them, by what they are samples of.
    """

    run: Path
    rounds: list[Measures]
    findings: list[Finding]
    tokenizer: PreTrainedTokenizerBase
    last: int | None = None
    answers: list[Answer] = field(default_factory=list)
    samples: dict[str, list[Answer]] = field(default_factory=dict)

    def summary(self) -> Record:
        """The audit for ``--json``."""
        return {
            "run": str(self.run),
            "look": sum(finding.verdict == LOOK for finding in self.findings),
            "findings": [asdict(finding) for finding in self.findings],
            "rounds": self.rounds,
            "samples": {
                kind: [_told(answer) for answer in answers] for kind, answers in self.samples.items()
            },
        }


def audit(run: Path, limits: AuditLimits | None = None) -> Audit:
    """Audit the run in directory ``run``. A round whose games are gone is measured by the "audit" entry of
    its record, if it has one.

    Raises InputError where there is no run, no round was measured, or a file is damaged.
    """
    _, records = read_run(run)
    tokenizer = load_tokenizer(checkpoint_path(run, 0))

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    measured: list[Measures] = []
    last, episodes = None, list[Episode]()
    for record in records:
        number = int(record["round"])
        if shard_path(run, number).is_file():
            last, episodes = number, read_episodes(shard_path(run, number))
            teachers = list(record.get("teacher_weights", ()))
            measured.append(measure_round(number, episodes, teachers, encode))
        elif record.get("audit"):
            measured.append(record["audit"])
    if not measured:
        raise InputError(
            f"{run} keeps no games to audit; let it finish a round, or play with keep.shards=all"
        )
    answers = []
    for episode in episodes:
        tokens = answer_tokens(episode, encode)
        answers.append(Answer(episode, len(tokens), repeated_share(tokens), solved(episode)))
    return Audit(run, measured, findings(measured, limits), tokenizer, last, answers, samples(answers))


def praise(episode: Episode) -> float:
    """Mean of the parts of the reward that do not say what is right; 0 without any."""
    parts = [reward for name, reward in episode.rewards.items() if name not in TRUTHS]
    return sum(parts) / len(parts) if parts else 0.0


def samples(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Up to ``SHOWN`` answers of each kind that a person should see, the most telling first."""
    return {
        "highest reward, and wrong": _most(answers, lambda a: 0.0 if a.right else praise(a.episode)),
        "longest": _most(answers, lambda a: a.length),
        "most repetitive": _most(answers, lambda a: a.repetition),
        "accepted by the judge, and wrong": _most(
            answers, lambda a: float(a.episode.verdict > 0 and not a.right)
        ),
        "rejected by the judge, and right": _most(
            answers, lambda a: float(a.episode.verdict < 0 and a.right)
        ),
    }


def _most(answers: Sequence[Answer], key: Callable[[Answer], float]) -> list[Answer]:
    """The answers with the highest key above 0, the earlier of equals first."""
    return sorted((answer for answer in answers if key(answer) > 0), key=key, reverse=True)[:SHOWN]


def _told(answer: Answer) -> dict[str, Any]:
    episode = answer.episode
    return {
        "problem": episode.problem,
        "prompt": episode.prompt,
        "answer": episode.answer,
        "outcome": episode.outcome,
        "rewards": episode.rewards,
        "verdict": episode.verdict,
        "audit_verdict": episode.audit_verdict,
        "length": answer.length,
        "repetition": answer.repetition,
    }
