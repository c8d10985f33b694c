"""What a round's answers look like to somebody who suspects that a reward, a judge or a teacher is gamed.

``measure_round`` turns the episodes of one round into numbers, plain enough for a round's record; what they
come to is ``audit_findings``'. It reads what the episodes hold: nothing is scored or judged anew. Episodes of
a play that keeps only what it solved say little here, as there is no wrong answer to compare with.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenzero.selfplay.audit_statistics import Mean, mean_of, repeated_share, slope
from tokenzero.selfplay.episode import Episode
from tokenzero.value.reward_metrics import spearman

F64 = npt.NDArray[np.float64]
Measures = dict[str, Any]
"""What ``measure_round`` returns: dictionaries, lists, numbers and None alone, so that JSON holds it."""

Encode = Callable[[str], Sequence[int]]
"""An answer's text to its tokens."""

TRUTHS = ("verifier", "exact")
"""Parts of the reward that say whether an answer is right, the better first."""
VERDICTS = {-1: "reject", 0: "neutral", 1: "accept"}
STUDENT = "student"


def measure_round(
    round_index: int, episodes: Sequence[Episode], teachers: Sequence[str], encode: Encode
) -> Measures:
    """The measures of round ``round_index``, or only "round" and "answers" where there are no ``episodes``.

    ``teachers`` are the names behind the columns of ``attribution`` after the student's; ``encode`` gives the
    answer's tokens where an episode holds a tree. A mean is {"mean", "deviation", "count"}, and None where
    there is nothing to average.

    ``outcome`` mean z, ``solved`` share of right answers (see :func:`solved`), ``rewards`` mean of each part;
    ``length`` in tokens and ``repetition`` (share of repeated 3-grams): means of "all", "solved" and
    "unsolved" answers; ``against_length`` of "outcome", "judge" and each "reward NAME": Spearman's
    "correlation" with the length, the same "within" answers that are equally right, the "slope" per token,
    "count"; answers without a token are left out there. ``duplicates`` share whose (problem, answer) came
    before; ``commonest`` the largest share of problems that got the same answer, with the number of
    problems; ``teachers``: see :func:`origins`. ``judge`` and ``audit_judge``: None where none spoke; see
    :func:`judged` and :func:`agreement`.
    """
    measures: Measures = {"round": round_index, "answers": len(episodes)}
    if not episodes:
        return measures
    answers = [answer_tokens(episode, encode) for episode in episodes]
    length = np.asarray([len(answer) for answer in answers], np.float64)
    repetition = np.asarray([repeated_share(answer) for answer in answers])
    right = np.asarray([solved(episode) for episode in episodes])
    return measures | {
        "outcome": _told(mean_of([episode.outcome for episode in episodes])),
        "solved": _told(mean_of(right)),
        "rewards": {name: _told(mean_of(rewards[~np.isnan(rewards)])) for name, rewards in _parts(episodes)},
        "length": _by_outcome(length, right),
        "repetition": _by_outcome(repetition, right),
        "against_length": {
            name: _against_length(signal, length, right) for name, signal in signals(episodes).items()
        },
        "duplicates": _duplicates(episodes, answers),
        "commonest": _commonest(episodes, answers),
        "teachers": origins(episodes, teachers),
        "judge": judged(episodes, right),
        "audit_judge": agreement(episodes),
    }


def solved(episode: Episode) -> bool:
    """Whether the answer is right: by the first of ``TRUTHS`` among its rewards (above 0.5), by its outcome
    (above 0) where it has none of them.
    """
    for name in TRUTHS:
        if name in episode.rewards:
            return episode.rewards[name] > 0.5
    return episode.outcome > 0


def answer_tokens(episode: Episode, encode: Encode) -> list[int]:
    """Tokens of the answer: those that were played, or ``encode`` of its text where the episode holds a tree
    of answers.
    """
    if episode.parents:
        return list(encode(episode.answer))
    return episode.tokens[episode.prompt_len :]


def signals(episodes: Sequence[Episode]) -> dict[str, F64]:
    """What the answers were praised by, f64 [N] each and NaN where an answer has none: "outcome", "judge" if
    any spoke, "reward NAME" for each part.
    """
    found = {"outcome": np.asarray([episode.outcome for episode in episodes], np.float64)}
    if any(episode.verdict for episode in episodes):
        found["judge"] = np.asarray([episode.verdict for episode in episodes], np.float64)
    return found | {f"reward {name}": rewards for name, rewards in _parts(episodes)}


def origins(episodes: Sequence[Episode], teachers: Sequence[str]) -> dict[str, Any]:
    """By proposer, the student first: ``share`` of the responsibility for the tokens of answers, the
    ``outcome`` of answers weighted by it, that ``of_others``, and how many ``answers`` of equal weight would
    say as much (Kish: squared sum of the weights over the sum of their squares).
    """
    rows = [[sum(column) for column in zip_longest(*e.attribution, fillvalue=0.0)] for e in episodes]
    width = max(map(len, rows), default=0)
    weight = np.zeros((len(rows), width))
    for row, held in zip(weight, rows, strict=True):
        row[: len(held)] = held
    total = float(weight.sum())
    if total <= 0:
        return {}
    outcome = np.asarray([episode.outcome for episode in episodes], np.float64)
    names = [STUDENT, *teachers, *(f"teacher {column}" for column in range(len(teachers) + 1, width))]
    return {
        name: {
            "share": float(weight[:, column].sum()) / total,
            "outcome": _weighted(outcome, weight[:, column]),
            "of_others": _weighted(outcome, np.delete(weight, column, axis=1).sum(axis=1)),
            "answers": _effective(weight[:, column]),
        }
        for column, name in enumerate(names[:width])
    }


def judged(episodes: Sequence[Episode], right: npt.NDArray[np.bool_]) -> dict[str, Any] | None:
    """The search's judge against outcomes: ``confusion`` of verdicts with "solved" and "unsolved" answers,
    ``accepted`` share of all answers, and the share solved of the accepted (``accepted_solved``) and of the
    others (``others_solved``). None where it never spoke.
    """
    verdict = np.asarray([episode.verdict for episode in episodes], np.int64)
    if not verdict.any():
        return None
    accepted = verdict > 0
    return {
        "confusion": {
            name: {
                "solved": int((right & (verdict == value)).sum()),
                "unsolved": int((~right & (verdict == value)).sum()),
            }
            for value, name in VERDICTS.items()
        },
        "accepted": _told(mean_of(accepted)),
        "accepted_solved": _told(mean_of(right[accepted])),
        "others_solved": _told(mean_of(right[~accepted])),
    }


def agreement(episodes: Sequence[Episode]) -> dict[str, Any] | None:
    """The search's judge against the audit judge: ``agreement``, the share of equal verdicts where both took
    a side, ``confusion`` of [search's][audit's] verdicts. None where the audit judge never spoke.
    """
    pairs = Counter((episode.verdict, episode.audit_verdict) for episode in episodes)
    if not any(audit for _, audit in pairs):
        return None
    sides = [first == second for (first, second), n in pairs.items() for _ in range(n) if first and second]
    return {
        "agreement": _told(mean_of(sides)),
        "confusion": {
            name: {other: pairs[value, second] for second, other in VERDICTS.items()}
            for value, name in VERDICTS.items()
        },
    }


def _told(mean: Mean | None) -> dict[str, Any] | None:
    return None if mean is None else asdict(mean)


def _parts(episodes: Sequence[Episode]) -> list[tuple[str, F64]]:
    """Parts of the reward with those of each answer, f64 [N], NaN where it has none of that name."""
    names = dict.fromkeys(name for episode in episodes for name in episode.rewards)
    return [
        (name, np.asarray([episode.rewards.get(name, np.nan) for episode in episodes], np.float64))
        for name in names
    ]


def _by_outcome(values: F64, right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    groups = {"all": values, "solved": values[right], "unsolved": values[~right]}
    return {name: _told(mean_of(group)) for name, group in groups.items()}


def _against_length(signal: F64, length: F64, right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    kept = ~np.isnan(signal) & (length > 0)
    signal, length, right = signal[kept], length[kept], right[kept]
    groups = [(spearman(length[g], signal[g]), int(g.sum())) for g in (right, ~right)]
    known = [(value, count) for value, count in groups if value is not None]
    counted = sum(count for _, count in known)
    return {
        "correlation": spearman(length, signal),
        "within": sum(value * count for value, count in known) / counted if counted else None,
        "within_count": counted,
        "slope": slope(length, signal),
        "count": len(signal),
    }


def _problem(episode: Episode) -> str:
    return episode.problem or episode.prompt


def _duplicates(episodes: Sequence[Episode], answers: Sequence[Sequence[int]]) -> float:
    distinct = {(_problem(e), tuple(answer)) for e, answer in zip(episodes, answers, strict=True)}
    return 1.0 - len(distinct) / len(episodes)


def _commonest(episodes: Sequence[Episode], answers: Sequence[Sequence[int]]) -> dict[str, Any]:
    given: dict[tuple[int, ...], set[str]] = defaultdict(set)
    for episode, answer in zip(episodes, answers, strict=True):
        given[tuple(answer)].add(_problem(episode))
    problems = len({_problem(episode) for episode in episodes})
    return {"share": max(map(len, given.values())) / problems, "problems": problems}


def _weighted(values: F64, weight: F64) -> float | None:
    total = float(weight.sum())
    return float(values @ weight) / total if total > 0 else None


def _effective(weight: F64) -> float:
    squares = float(weight @ weight)
    return float(weight.sum()) ** 2 / squares if squares > 0 else 0.0
