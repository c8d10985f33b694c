"""Teachers as one voice: who is asked about which states, and the prior that comes of it.

Asking is what costs, so an ensemble can ask only about states that proved worth it (``visits``), and only
some of its teachers about each problem (``asked``, drawn by weight). It does not score proposals
(``credit``), does not keep weights (``weights``), and knows neither search nor model.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.teachers.base import Proposal, Teacher
from tokenzero.teachers.credit import CreditLedger
from tokenzero.teachers.mixture import Mixture, mix
from tokenzero.teachers.weights import TeacherWeights, WeightConfig

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class EnsembleConfig:
    """How teachers are heard.

    beta: their share of the prior in the first round, moving in a straight line to ``beta_end`` (None: it
    stays) over ``anneal_rounds`` rounds. visits: 1 asks about every state when it is first met; more asks
    about the prompt's state, and about others once so many simulations went through them. asked: how many
    teachers a state asks, drawn by weight; 0 is all. patience: a teacher that went unasked for so many
    consultations is asked. stages: parts of an answer, by length, that are contexts of their own. trace: what
    credit keeps per action on its way from the end of an answer to its beginning.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    beta: float = 0.3
    beta_end: float | None = None
    anneal_rounds: int = 8
    visits: int = 1
    asked: int = 0
    patience: int = 5000
    stages: int = 1
    trace: float = 0.9
    weights: WeightConfig = field(default_factory=WeightConfig)

    def __post_init__(self) -> None:
        for name in ("beta", "beta_end", "trace"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise InputError(f"ensemble.{name} is {share}; give a number from 0 to 1")
        for name, least in (
            ("visits", 1),
            ("asked", 0),
            ("patience", 1),
            ("stages", 1),
            ("anneal_rounds", 1),
        ):
            if getattr(self, name) < least:
                raise InputError(f"ensemble.{name} is {getattr(self, name)}; give at least {least}")

    def beta_in(self, round_index: int) -> float:
        """The teachers' share in a round, counted from 1."""
        if self.beta_end is None:
            return self.beta
        left = max(0.0, 1.0 - (round_index - 1) / self.anneal_rounds)
        return self.beta_end + left * (self.beta - self.beta_end)


@dataclass(frozen=True, slots=True)
class Path:
    """What is left of a teacher's continuation: its next ``tokens``, and the ``probability`` that the teacher
    gives them at this state."""

    teacher: int
    tokens: tuple[int, ...]
    probability: float


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A state to ask about: prompt and answer tokens, how many of them are the prompt, its context; the paths
    of earlier continuations that lead on from it; and whether teachers are to be asked, or the paths alone
    to be followed."""

    sequence: Sequence[int]
    prompt_len: int
    context: str
    paths: tuple[Path, ...] = ()
    ask: bool = True


@dataclass(frozen=True)
class Heard:
    """The mixture for L inquiries; ``spoke`` bool [L], where any teacher did; ``paths`` of each, to be
    followed from there on."""

    mixture: Mixture
    spoke: NDArray[np.bool_]
    paths: list[tuple[Path, ...]]


class Ensemble:
    """``teachers`` with the weights and share of one round.

    ``consulted``, ``spoke`` and ``tokens`` count rows, rows with a proposal and forwarded tokens by teacher
    name; ``credit`` takes what came of it. Which teachers a state asks depends on ``seed`` and its tokens
    alone, patience apart.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        weights: TeacherWeights,
        config: EnsembleConfig,
        round_index: int = 1,
        seed: int = 0,
    ) -> None:
        if [teacher.name for teacher in teachers] != weights.names:
            raise InputError(f"weights are of {weights.names}, teachers are {[t.name for t in teachers]}")
        self.teachers = list(teachers)
        self.weights = weights
        self.config = config
        self.beta = config.beta_in(round_index)
        self.consulted: Counter[str] = Counter()
        self.spoke: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.credit = CreditLedger(len(teachers))
        self._seed = seed.to_bytes(8, "little", signed=True)
        self._unasked = np.zeros(len(teachers), np.int64)
        self._failed = {teacher.name: _failures(teacher) for teacher in teachers}

    def failures(self, teacher: Teacher) -> dict[str, int]:
        """Proposals that a teacher failed to make since the ensemble was made, by reason."""
        return dict(_failures(teacher) - self._failed[teacher.name])

    def context(self, tag: str, length: int, longest: int) -> str:
        """The context of a state ``length`` tokens into an answer of at most ``longest``."""
        stages = self.config.stages
        if stages == 1:
            return tag
        return f"{tag}/{min(stages - 1, length * stages // max(1, longest))}"

    def consult(
        self, inquiries: Sequence[Inquiry], actions: Ids, probs: F32, k: int, banned: Collection[int] = ()
    ) -> Heard:
        """The prior over k actions for L inquiries, where the student's own is ``actions`` i64 [L, K] with
        ``probs`` f32 [L, K] (see `mix`); tokens in ``banned`` are no actions.
        """
        shares = self._shares(inquiries)
        leading = [row for row, inquiry in enumerate(inquiries) if inquiry.paths]
        proposals = []
        for index, teacher in enumerate(self.teachers):
            rows = np.flatnonzero(shares[:, index] > 0)
            proposal = _empty(len(inquiries), k)
            if rows.size:
                asked = teacher.propose(
                    [inquiries[row].sequence for row in rows.tolist()],
                    k,
                    [inquiries[row].prompt_len for row in rows.tolist()],
                )
                self.consulted[teacher.name] += len(rows)
                self.spoke[teacher.name] += int((asked.actions >= 0).any(axis=1).sum())
                self.tokens[teacher.name] += asked.tokens
                proposal = _scattered(asked, rows, len(inquiries), k)
            proposals.append(_without(_following(proposal, inquiries, leading, index, k), banned))
        spoke = np.stack([(proposal.actions >= 0).any(axis=1) for proposal in proposals], axis=1)
        weights = self._weights(inquiries, shares, spoke)
        mixture = mix(actions, probs, proposals, weights, self.beta, k)
        paths = [_paths(inquiry, proposals, row) for row, inquiry in enumerate(inquiries)]
        return Heard(mixture, np.asarray(spoke.any(axis=1)), paths)

    def weights_in(self, contexts: Sequence[str]) -> F64:
        """The weights in each of L contexts, f64 [L, n]."""
        known = {context: self.weights.of(context) for context in dict.fromkeys(contexts)}
        return np.stack([known[context] for context in contexts])

    def _shares(self, inquiries: Sequence[Inquiry]) -> F64:
        """How loudly each state asks each teacher, f64 [L, n]; 0 for those it does not ask."""
        shares = self.weights_in([inquiry.context for inquiry in inquiries])
        asking = np.asarray([inquiry.ask for inquiry in inquiries])
        count = self.config.asked
        if 0 < count < len(self.teachers):
            chances, shares = shares, np.zeros_like(shares)
            for row in np.flatnonzero(asking).tolist():
                prompt = inquiries[row].sequence[: inquiries[row].prompt_len]
                drawn = self._drawn(prompt, count)
                chosen = np.searchsorted(np.cumsum(chances[row])[:-1], drawn, side="right")
                np.add.at(shares[row], chosen, 1.0 / count)
        shares[~asking] = 0.0
        self._break_silence(shares, np.flatnonzero(asking))
        return shares

    def _drawn(self, prompt: Sequence[int], count: int) -> F64:
        """Uniform numbers f64 [count] that depend on the prompt and the seed alone: a teacher that was asked
        about a problem's first state has paid for its prompt, and is asked about the others too."""
        content = np.asarray(prompt, np.int64).tobytes()
        raw = hashlib.blake2b(content, digest_size=8 * count, key=self._seed).digest()
        return np.frombuffer(raw, "<u8").astype(np.float64) / 2.0**64

    def _break_silence(self, shares: F64, asking: NDArray[np.intp]) -> None:
        """Ask a teacher that nobody asked for too long about the batch's first state."""
        if not asking.size:
            return
        self._unasked = np.where((shares > 0).any(axis=0), 0, self._unasked + len(asking))
        for index in np.flatnonzero(self._unasked >= self.config.patience).tolist():
            shares[asking[0], index] = 1.0 / max(1, self.config.asked)
            self._unasked[index] = 0

    def _weights(self, inquiries: Sequence[Inquiry], shares: F64, spoke: NDArray[np.bool_]) -> F64:
        """Weights of those who speak on each row, f64 [L, n]: a path that is followed speaks with its
        teacher's weight."""
        weights = shares.copy()
        for row, inquiry in enumerate(inquiries):
            if inquiry.paths and not inquiry.ask:
                weights[row] = self.weights.of(inquiry.context)
        return np.where(spoke, weights, 0.0)


def _failures(teacher: Teacher) -> Counter[str]:
    """What a teacher that counts its failures counted so far."""
    told = Counter(getattr(teacher, "failures", Counter()))
    told["sat out"] += int(getattr(teacher, "sat_out", 0))
    return told


def _empty(rows: int, k: int) -> Proposal:
    return Proposal(np.full((rows, k), -1, np.int64), np.zeros((rows, k), np.float32), 0)


def _scattered(proposal: Proposal, rows: NDArray[np.intp], count: int, k: int) -> Proposal:
    """A proposal for some rows as one for all ``count``."""
    wide = _empty(count, k)
    width = proposal.actions.shape[1]
    wide.actions[rows, :width] = proposal.actions
    wide.probs[rows, :width] = proposal.probs
    continuations: list[Any] = [()] * count if proposal.continuations else []
    for row, told in zip(rows.tolist(), proposal.continuations, strict=False):
        continuations[row] = told
    return Proposal(wide.actions, wide.probs, proposal.tokens, tuple(continuations))


def _following(
    proposal: Proposal, inquiries: Sequence[Inquiry], leading: Sequence[int], teacher: int, k: int
) -> Proposal:
    """The proposal with what a teacher said further up, on those of the rows ``leading``, which have paths,
    where it says nothing now."""
    for row in leading:
        mine = [path for path in inquiries[row].paths if path.teacher == teacher]
        if not mine or proposal.actions[row, 0] >= 0:
            continue
        mass: dict[int, float] = {}
        for path in mine:
            mass[path.tokens[0]] = mass.get(path.tokens[0], 0.0) + path.probability
        best = sorted(mass.items(), key=lambda item: (-item[1], item[0]))[:k]
        proposal.actions[row, : len(best)] = [token for token, _ in best]
        proposal.probs[row, : len(best)] = [share for _, share in best]
    return proposal


def _without(proposal: Proposal, banned: Collection[int]) -> Proposal:
    """The proposal without tokens that are never an answer's next: a teacher does not know which they are."""
    if not banned:
        return proposal
    kept = (proposal.actions >= 0) & ~np.isin(proposal.actions, list(banned))
    order = np.argsort(~kept, axis=1, kind="stable")  # pads go to the end
    actions = np.take_along_axis(np.where(kept, proposal.actions, -1), order, 1)
    probs = np.take_along_axis(np.where(kept, proposal.probs, np.float32(0)), order, 1)
    return Proposal(actions, probs, proposal.tokens, proposal.continuations)


def _paths(inquiry: Inquiry, proposals: Sequence[Proposal], row: int) -> tuple[Path, ...]:
    """What may be followed from here: new continuations, and the old paths of teachers that said nothing
    new."""
    paths: list[Path] = []
    for index, proposal in enumerate(proposals):
        new = proposal.continuations[row] if proposal.continuations else ()
        if new:
            paths += [Path(index, tuple(told.tokens), float(told.probability)) for told in new]
        else:
            paths += [path for path in inquiry.paths if path.teacher == index]
    return tuple(paths)


def followed(paths: Sequence[Path], token: int) -> tuple[Path, ...]:
    """The paths that lead on after ``token``, their probabilities given that it came."""
    total: dict[int, float] = {}
    for path in paths:
        if path.tokens[0] == token:
            total[path.teacher] = total.get(path.teacher, 0.0) + path.probability
    return tuple(
        Path(path.teacher, path.tokens[1:], path.probability / total[path.teacher])
        for path in paths
        if path.tokens[0] == token and len(path.tokens) > 1 and total[path.teacher] > 0
    )
