"""The arena: candidate and incumbent answer the same held-out problems; promotion only on evidence.

Both play batch by batch, with the same seeds, until the sequential test has seen enough or the problems run
out. Past checkpoints, the ladder, are met on a fixed number of problems, for their ratings and not for
promotion. The arena knows no checkpoints and no rounds: a run makes the two methods, and acts on the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tokenzero.mcts.errors import InputError
from tokenzero.policy.ledger import Ledger
from tokenzero.selfplay.methods import Method, OnGames
from tokenzero.selfplay.sequential_test import Decision, Pairs, SequentialTest, SequentialTestConfig
from tokenzero.tasks import Problem, Task


@dataclass(frozen=True)
class ArenaConfig:
    """Who is promoted. ``max_problems`` 0 turns the arena off: every round is promoted.

    ``batch``, ``margin``, ``alpha`` and ``beta`` are those of `SequentialTestConfig`. ``split`` is
    "validation": training problems are not held out, and the test split must not choose checkpoints. The raw
    policy always decides; with ``simulations`` above 0 policy and search decide as well, each in a match of
    its own.

    ``ladder`` past checkpoints are met as well, on ``ladder_problems`` problems. ``after_losses`` says what
    the learner does when its candidate is not promoted: "continue" from its own weights, or "reset" to the
    incumbent's after ``patience`` rounds without a promotion. Raises InputError.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    max_problems: int = 0
    batch: int = 25
    margin: float = 0.03
    alpha: float = 0.05
    beta: float = 0.2
    split: str = "validation"
    simulations: int = 0
    ladder: int = 0
    ladder_problems: int = 200
    after_losses: str = "continue"
    patience: int = 3

    def __post_init__(self) -> None:
        for name in ("max_problems", "simulations", "ladder"):
            if getattr(self, name) < 0:
                raise InputError(f"arena.{name} is {getattr(self, name)}; give a number of at least 0")
        for name in ("ladder_problems", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"arena.{name} is {getattr(self, name)}; give at least 1")
        if self.split != "validation":
            raise InputError(
                f"arena.split is {self.split!r}; use validation: training problems are not held out, and "
                "test problems must not choose checkpoints"
            )
        if self.after_losses not in ("continue", "reset"):
            raise InputError(f"arena.after_losses is {self.after_losses!r}; use continue or reset")
        self._test(self.max_problems or SequentialTestConfig.max_problems)

    @property
    def test(self) -> SequentialTestConfig:
        """The test of one match. Where two matches may each promote, each has half of ``alpha`` (Bonferroni),
        so that false promotions of a round stay below ``alpha``. Raises InputError when the arena is off.
        """
        if self.max_problems == 0:
            raise InputError("arena.max_problems is 0, so there are no matches; give at least 1 problem")
        return self._test(self.max_problems)

    def _test(self, max_problems: int) -> SequentialTestConfig:
        alpha = self.alpha / 2 if self.simulations else self.alpha
        return SequentialTestConfig(self.margin, alpha, self.beta, self.batch, max_problems)


@dataclass(frozen=True)
class Match:
    """What came of two methods on the same problems. ``decision`` is None where nothing was tested;
    ``ledger`` is what both spent in it together.
    """

    method: str
    pairs: Pairs
    candidate_solved: int
    incumbent_solved: int
    decision: Decision | None
    ledger: Ledger = field(compare=False)

    @property
    def evidence(self) -> bool:
        """Whether the test found the candidate better."""
        return self.decision is not None and self.decision.outcome == "promote"

    @property
    def harm(self) -> bool:
        """Whether the candidate is significantly worse: the 95 % interval of the difference is below 0."""
        return self.pairs.ci95[1] < 0

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; ``outcome``, ``reason`` and ``llr`` are None without a test."""
        tested: dict[str, Any] = {"outcome": None, "reason": None, "llr": None}
        if self.decision is not None:
            tested = {key: getattr(self.decision, key) for key in tested}
        return {
            "method": self.method,
            **tested,
            **self.pairs.as_dict(),
            "candidate_solved": self.candidate_solved,
            "incumbent_solved": self.incumbent_solved,
            "ledger": self.ledger.as_dict(),
        }


def meet(
    candidate: Method,
    incumbent: Method,
    task: Task,
    problems: Sequence[Problem],
    rng: np.random.Generator,
    config: ArenaConfig,
    on_games: OnGames | None = None,
) -> Match:
    """Play until the test decides, on ``problems`` in an order drawn from ``rng``, none of them twice.

    An answer counts as solved at a score of 1, read after its game is over. When the problems run out first,
    the incumbent stays. ``on_games`` hears of both methods' games. Raises InputError when the config turns
    the arena off, and when there are so few problems that nobody could be promoted.
    """
    test = SequentialTest(config.test)
    test.config.check_problems(len(problems))
    order = rng.permutation(len(problems))
    ledger, solved = Ledger(), np.zeros(2, np.int64)
    while size := min(test.next_batch, len(order) - test.pairs.problems):
        batch = [problems[i] for i in order[test.pairs.problems :][:size].tolist()]
        seed = int(rng.integers(2**63))
        results = [_solved(method, task, batch, seed, ledger, on_games) for method in (candidate, incumbent)]
        solved += [result.sum() for result in results]
        test.add(*results)
    return Match(candidate.name, test.pairs, int(solved[0]), int(solved[1]), test.finish(), ledger)


def meet_ladder(
    candidate: Method,
    past: Sequence[Method],
    task: Task,
    problems: Sequence[Problem],
    rng: np.random.Generator,
    on_games: OnGames | None = None,
) -> list[Match]:
    """The candidate against each of ``past`` on all of ``problems``, with the same seed for everyone.

    One match for each, in order, without a decision. The candidate plays once; what that cost is in the first
    match's ledger. Raises InputError when there are no problems.
    """
    if not problems:
        raise InputError("there are no problems to meet on; enlarge the task's validation split")
    if not past:
        return []
    seed, ledger = int(rng.integers(2**63)), Ledger()
    own = _solved(candidate, task, problems, seed, ledger, on_games)
    matches = []
    for method in past:
        other = _solved(method, task, problems, seed, ledger, on_games)
        pairs = Pairs.of(own, other)
        matches.append(Match(candidate.name, pairs, int(own.sum()), int(other.sum()), None, ledger))
        ledger = Ledger()
    return matches


def rungs(rounds: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the past ``rounds`` to meet, spread evenly from the first to the last, in order.

    With one rung that is the first: the warm start says how far the run has come.
    """
    ordered = sorted(set(rounds))
    if count >= len(ordered):
        return ordered
    return [ordered[i] for i in np.linspace(0, len(ordered) - 1, count).round().astype(int).tolist()]


def should_promote(raw: Match, searched: Match | None = None) -> bool:
    """Whether the candidate takes the incumbent's place, by the match of the raw policies and, where one was
    played, that of policy and search.

    It does when either match found evidence that it is better, unless a match shows significant harm: a raw
    policy that gained while the search it guides got worse, or the other way round, is no progress.
    """
    matches = [raw] if searched is None else [raw, searched]
    return any(match.evidence for match in matches) and not any(match.harm for match in matches)


def _solved(
    method: Method,
    task: Task,
    problems: Sequence[Problem],
    seed: int,
    ledger: Ledger,
    on_games: OnGames | None,
) -> npt.NDArray[np.bool_]:
    """Which problems the method solves, bool [n]; what it spent is added to ``ledger``."""
    before = method.ledger.copy()
    rng = np.random.default_rng(seed)
    games = method.play([problem.public for problem in problems], rng, on_games=on_games)
    ledger.add(method.ledger.since(before))
    return np.asarray(
        [task.score(problem, game.text) >= 1.0 for problem, game in zip(problems, games, strict=True)], bool
    )
