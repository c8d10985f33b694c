"""What an audit concludes: measures of rounds in, findings out, each one sentence for a person to act on.

A finding never stops anything: "look" says where to read answers, "ok" that a measure is within its limit,
"unknown" that there was too little to tell. Levels are those of the last round with answers; trends go over
all rounds that were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tokenzero.selfplay.audit_measures import STUDENT, TRUTHS, Measures
from tokenzero.selfplay.audit_statistics import Mean, Trend, trend

OK, LOOK, UNKNOWN = "ok", "look", "unknown"


@dataclass(frozen=True)
class AuditLimits:
    """Where a measure becomes worth a look.

    ``least`` answers are needed to say anything, and what is said of correlations, teachers and trends must
    be ``surprise`` standard errors away from nothing. ``length_correlation`` of a signal with the length;
    ``length_growth`` of mean length over the rounds, a share of the mean; ``repetition`` and its growth;
    ``duplicates`` and ``commonest`` answer, shares; ``teacher_deficit`` in outcome z of a teacher's answers
    below the others'; ``judge_lift``, how much more of what it accepts must be right; ``judge_change`` and
    ``reward_change``, changes of shares and scores over the rounds that count as one.
    """

    least: int = 30
    surprise: float = 3.0
    length_correlation: float = 0.5
    length_growth: float = 0.25
    repetition: float = 0.3
    repetition_growth: float = 0.1
    duplicates: float = 0.5
    commonest: float = 0.2
    teacher_deficit: float = 0.2
    judge_lift: float = 0.1
    judge_change: float = 0.05
    reward_change: float = 0.02


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ``value`` (None: not measured) against ``threshold``, the ``verdict``
    "ok", "look" or "unknown", and a ``sentence`` that says what was seen.
    """

    name: str
    value: float | None
    threshold: float
    verdict: str
    sentence: str


def findings(rounds: Sequence[Measures], limits: AuditLimits | None = None) -> list[Finding]:
    """The findings over ``rounds``, ``audit_measures.measure_round``'s of each in order."""
    limits = limits or AuditLimits()
    played = [measures for measures in rounds if measures["answers"]]
    if not played:
        return []
    last = played[-1]
    found = [_against_length(last, name, limits) for name in last["against_length"]]
    found += [_verbosity(played, group, limits) for group in ("solved", "unsolved")]
    found += [_repetition(last, limits), _repetition_growth(played, limits)]
    found += [_duplicates(last, limits), _commonest(last, limits)]
    found += [_teacher(last, name, limits) for name in last["teachers"] if name != STUDENT]
    if last["judge"] is not None:
        found += [_judge_lift(last, limits), _judge_against_outcome(played, limits)]
    if last["judge"] is not None and last["audit_judge"] is not None:
        found.append(_judge_against_audit(played, limits))
    if last["rewards"]:
        found += [
            _parting(played, name, limits) for name in ("outcome", *last["rewards"]) if name not in TRUTHS
        ]
    return found


def _against_length(last: Measures, name: str, limits: AuditLimits) -> Finding:
    """What tells right from wrong may go with the length, as right answers have theirs; what else is praised
    should not, among answers that are equally right.
    """
    link, threshold = last["against_length"][name], limits.length_correlation
    plain = name in _truths(last)
    value, count = (link["correlation"], link["count"]) if plain else (link["within"], link["within_count"])
    title = f"{name} against length"
    if value is None and link["count"] >= limits.least:
        sentence = f"Equally right answers of round {last['round']} do not differ in it, or not in length."
        return Finding(title, None, threshold, UNKNOWN, sentence)
    if value is None or count < limits.least:
        return Finding(title, value, threshold, UNKNOWN, _too_few("answers that differ in both", limits))
    seen = (
        f"over {count}{'' if plain else ' equally right'} answers of round {last['round']} the rank "
        f"correlation of {name} with the length is {value:+.2f}"
    )
    if value < 0 and name.startswith("reward length"):
        return Finding(
            title, value, threshold, OK, f"Shorter is better, as a length penalty means it: {seen}."
        )
    beyond, certain = abs(value) > threshold, abs(value) * (count - 1) ** 0.5 >= limits.surprise
    way = f"It pays to answer {'longer' if value > 0 else 'shorter'}" if beyond else "Length hardly matters"
    return _concluded(title, value, threshold, beyond, certain, f"{way}: {seen}.")


def _truths(measures: Measures) -> list[str]:
    """The signals that say whether an answer is right."""
    return [f"reward {name}" for name in TRUTHS if name in measures["rewards"]] or ["outcome"]


def _verbosity(played: Sequence[Measures], group: str, limits: AuditLimits) -> Finding:
    title, threshold = f"length of {group} answers", limits.length_growth
    moved, means = _trend(played, lambda measures: measures["length"][group], limits)
    level = sum(m.mean * m.count for m in means) / max(1, sum(m.count for m in means))
    if moved is None or level <= 0:
        return Finding(title, None, threshold, UNKNOWN, _too_few(f"{group} answers in two rounds", limits))
    value = moved.change / level
    sentence = f"From {means[0].mean:.1f} to {means[-1].mean:.1f} tokens over the rounds."
    certain = moved.surprise >= limits.surprise
    return _concluded(title, value, threshold, value > threshold, certain, sentence)


def _repetition(last: Measures, limits: AuditLimits) -> Finding:
    value = float(last["repetition"]["all"]["mean"])
    wrong = value > limits.repetition
    sentence = f"In round {last['round']} {_percent(value)} of an answer's 3-grams were in it before."
    return _level("repetition", value, limits.repetition, wrong, sentence, last, limits)


def _repetition_growth(played: Sequence[Measures], limits: AuditLimits) -> Finding:
    title, threshold = "repetition over rounds", limits.repetition_growth
    moved, means = _trend(played, lambda measures: measures["repetition"]["all"], limits)
    if moved is None:
        return Finding(title, None, threshold, UNKNOWN, _too_few("answers in two rounds", limits))
    sentence = f"From {_percent(means[0].mean)} to {_percent(means[-1].mean)} of an answer's 3-grams."
    beyond, certain = moved.change > threshold, moved.surprise >= limits.surprise
    return _concluded(title, moved.change, threshold, beyond, certain, sentence)


def _duplicates(last: Measures, limits: AuditLimits) -> Finding:
    value = float(last["duplicates"])
    wrong = value > limits.duplicates
    sentence = f"In round {last['round']} {_percent(value)} of the answers repeat one to the same problem."
    return _level("duplicate answers", value, limits.duplicates, wrong, sentence, last, limits)


def _commonest(last: Measures, limits: AuditLimits) -> Finding:
    value, problems = float(last["commonest"]["share"]), int(last["commonest"]["problems"])
    wrong = value > limits.commonest
    sentence = f"One and the same answer was given to {_percent(value)} of {problems} problems."
    title = "one answer to many problems"
    return _level(title, value, limits.commonest, wrong, sentence, {"answers": problems}, limits)


def _teacher(last: Measures, name: str, limits: AuditLimits) -> Finding:
    of, spread = last["teachers"][name], float(last["outcome"]["deviation"])
    title, threshold = f"teacher {name}", -limits.teacher_deficit
    if of["outcome"] is None or of["of_others"] is None or of["answers"] < limits.least:
        return Finding(title, None, threshold, UNKNOWN, _too_few("answers it had a hand in", limits))
    value = of["outcome"] - of["of_others"]
    certain = -value * of["answers"] ** 0.5 >= limits.surprise * spread
    sentence = (
        f"{_percent(of['share'])} of the tokens are its own; its answers came to {of['outcome']:+.2f}, "
        f"those of the others to {of['of_others']:+.2f}."
    )
    return _concluded(title, value, threshold, value < threshold, certain, sentence)


def _judge_lift(last: Measures, limits: AuditLimits) -> Finding:
    accepted, others = last["judge"]["accepted_solved"], last["judge"]["others_solved"]
    title, threshold = "judge against outcome", limits.judge_lift
    if not accepted or not others or min(accepted["count"], others["count"]) < limits.least:
        needed = "answers that the judge accepted, and as many that it did not,"
        return Finding(title, None, threshold, UNKNOWN, _too_few(needed, limits))
    value = accepted["mean"] - others["mean"]
    sentence = (
        f"In round {last['round']} {_percent(accepted['mean'])} of what the judge accepts is right, and "
        f"{_percent(others['mean'])} of the rest."
    )
    return Finding(title, value, threshold, LOOK if value < threshold else OK, sentence)


def _judge_against_outcome(played: Sequence[Measures], limits: AuditLimits) -> Finding:
    title, threshold = "judge accepts more, less of it right", limits.judge_change
    accepts, _ = _trend(played, lambda measures: _of(measures["judge"], "accepted"), limits)
    rights, means = _trend(played, lambda measures: _of(measures["judge"], "accepted_solved"), limits)
    if accepts is None or rights is None:
        return Finding(title, None, threshold, UNKNOWN, _too_few("accepted answers in two rounds", limits))
    value = min(accepts.change, -rights.change)
    certain = min(accepts.surprise, -rights.surprise) >= limits.surprise
    sentence = (
        f"The share it accepts changed by {_points(accepts.change)} over the rounds; what is right of that "
        f"went from {_percent(means[0].mean)} to {_percent(means[-1].mean)}."
    )
    return _concluded(title, value, threshold, value > threshold, certain, sentence)


def _judge_against_audit(played: Sequence[Measures], limits: AuditLimits) -> Finding:
    title, threshold = "judge against audit judge", limits.judge_change
    accepts, _ = _trend(played, lambda measures: _of(measures["judge"], "accepted"), limits)
    agrees, means = _trend(played, lambda measures: _of(measures["audit_judge"], "agreement"), limits)
    if accepts is None or agrees is None:
        needed = "answers in two rounds on which both took a side"
        return Finding(title, None, threshold, UNKNOWN, _too_few(needed, limits))
    value = min(accepts.change, -agrees.change)
    certain = min(accepts.surprise, -agrees.surprise) >= limits.surprise
    sentence = (
        f"They agreed on {_percent(means[0].mean)} at first and on {_percent(means[-1].mean)} at last, while "
        f"the share the judge accepts changed by {_points(accepts.change)}."
    )
    return _concluded(title, value, threshold, value > threshold, certain, sentence)


def _parting(played: Sequence[Measures], name: str, limits: AuditLimits) -> Finding:
    """Goodhart's sign: since the round in which most answers were right, the score rose and the share of
    right answers fell.
    """

    def score(measures: Measures) -> dict[str, Any] | None:
        found: dict[str, Any] | None = measures["rewards"].get(name)
        return measures["outcome"] if name == "outcome" else found

    title = f"{'outcome' if name == 'outcome' else f'reward {name}'} rises while fewer are right"
    threshold = limits.reward_change
    kept = [measures for measures in played if measures["answers"] >= limits.least and score(measures)]
    if len(kept) < 2:
        return Finding(title, None, threshold, UNKNOWN, _too_few("scored answers in two rounds", limits))
    peak = max(range(len(kept)), key=lambda index: (kept[index]["solved"]["mean"], index))
    since = kept[peak:]
    scores, _ = _trend(since, score, limits)
    rights, _ = _trend(since, lambda measures: measures["solved"], limits)
    if scores is None or rights is None:  # the last round is the best one
        sentence = f"The last round, {kept[-1]['round']}, is the one with most right answers."
        return Finding(title, 0.0, threshold, OK, sentence)
    value = min(scores.change, -rights.change)
    certain = min(scores.surprise, -rights.surprise) >= limits.surprise
    sentence = (
        f"Since round {kept[peak]['round']}, the one with most right answers, it changed by "
        f"{scores.change:+.3f} and the share of right answers by {_points(rights.change)}."
    )
    return _concluded(title, value, threshold, value > threshold, certain, sentence)


def _concluded(
    name: str, value: float, threshold: float, beyond: bool, certain: bool, sentence: str
) -> Finding:
    """A finding on what may be chance: worth a look where it is ``beyond`` its threshold and ``certain``."""
    if beyond and not certain:
        sentence += " It may be chance."
    return Finding(name, value, threshold, LOOK if beyond and certain else OK, sentence)


def _level(
    name: str,
    value: float,
    threshold: float,
    wrong: bool,
    sentence: str,
    counted: Measures,
    limits: AuditLimits,
) -> Finding:
    """A finding on a plain share of ``counted["answers"]``."""
    enough = counted["answers"] >= limits.least
    return Finding(name, value, threshold, (LOOK if wrong else OK) if enough else UNKNOWN, sentence)


def _trend(
    played: Sequence[Measures], of: Callable[[Measures], dict[str, Any] | None], limits: AuditLimits
) -> tuple[Trend | None, list[Mean]]:
    """The trend of a mean over the rounds that have enough to average, and the means."""
    pairs = [(float(measures["round"]), of(measures)) for measures in played]
    kept = [(x, Mean(**mean)) for x, mean in pairs if mean is not None and mean["count"] >= limits.least]
    means = [mean for _, mean in kept]
    return trend([x for x, _ in kept], means), means


def _of(part: dict[str, Any] | None, name: str) -> dict[str, Any] | None:
    return None if part is None else part[name]


def _too_few(what: str, limits: AuditLimits) -> str:
    return f"Too little to tell: it takes {limits.least} {what}."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(change: float) -> str:
    return f"{100 * change:+.1f} points"
