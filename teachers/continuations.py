"""The student (or a past one) as a teacher that thinks ahead: sampled continuations, or a beam of them.

Next to its own prior such a teacher brings the tokens that good whole continuations begin with, and the
continuations themselves. Nothing here judges where a continuation leads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.teachers.base import Proposal, checked_k, from_paths
from tokenzero.teachers.distribution import Distribution, ModelDistribution, check_options
from tokenzero.teachers.prefix_states import DEFAULT_STATES

_NUMBERS = 1 << 25  # probabilities in memory at once
Path = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """``draws`` continuations of at most ``length`` tokens, drawn at ``temperature`` by the student of
    ``lag`` rounds ago (0: of this round). label: its name. memory_mb and states: as for kind "model".
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    kind: Literal["sample"] = "sample"
    draws: int = 8
    length: int = 8
    temperature: float = 1.0
    lag: int = 0
    label: str | None = None
    memory_mb: float | None = None
    states: int = DEFAULT_STATES

    def __post_init__(self) -> None:
        _check("sample", {"draws": self.draws, "length": self.length}, self.lag)
        check_options("sample teacher", self.temperature, self.memory_mb, self.states)

    @property
    def name(self) -> str:
        """What the teacher is called in weights and records, the same in every round."""
        return self.label or _name("sample", self.lag)


@dataclass(frozen=True, kw_only=True)
class BeamConfig:
    """A beam of ``width`` continuations of at most ``length`` tokens; the rest as for `SampleConfig`."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    kind: Literal["beam"] = "beam"
    width: int = 4
    length: int = 8
    temperature: float = 1.0
    lag: int = 0
    label: str | None = None
    memory_mb: float | None = None
    states: int = DEFAULT_STATES

    def __post_init__(self) -> None:
        _check("beam", {"width": self.width, "length": self.length}, self.lag)
        check_options("beam teacher", self.temperature, self.memory_mb, self.states)

    @property
    def name(self) -> str:
        """What the teacher is called in weights and records, the same in every round."""
        return self.label or _name("beam", self.lag)


class _Growing(NamedTuple):
    """A continuation that may still grow: of which ``row``, its tokens, the ``draws`` that came this way."""

    row: int
    path: Path
    draws: NDArray[np.int64]


class _Thinker:
    """What sampling and the beam share. Continuations end with the student's end token, at ``length`` tokens
    or where the model has no room; other special tokens are never chosen. Rows that are empty or leave no
    room get no proposal.
    """

    def __init__(
        self,
        name: str,
        distribution: Distribution,
        tokenizer: PreTrainedTokenizerFast,
        breadth: int,
        length: int,
    ) -> None:
        self.name = name
        self._distribution = distribution
        self._breadth, self._length = breadth, length
        self._end = tokenizer.eos_token_id
        banned = {i for i in tokenizer.all_special_ids if i is not None and i != self._end}
        self._banned = sorted(banned | set(range(len(tokenizer), distribution.vocab_size)))

    def propose(
        self, sequences: Sequence[Sequence[int]], k: int, prompt_lens: Sequence[int] | None = None
    ) -> Proposal:
        """The ``k`` best first tokens by the share of continuations that begin with them, and the
        continuations with their shares; ``tokens`` is what the model forwarded.
        """
        checked_k(k)
        before = self._distribution.forwarded
        room = self._distribution.max_length
        paths: list[dict[Path, float]] = [{} for _ in sequences]
        possible = [row for row, sequence in enumerate(sequences) if 0 < len(sequence) < room]
        most = max(1, _NUMBERS // (self._breadth * self._distribution.vocab_size))
        for start in range(0, len(possible), most):
            rows = possible[start : start + most]
            for row, found in zip(rows, self._think([tuple(sequences[row]) for row in rows]), strict=True):
                paths[row] = found
        return from_paths(paths, k, self._distribution.forwarded - before)

    def close(self) -> None:
        """Let go of every state the engine holds."""
        self._distribution.close()

    def _think(self, sequences: Sequence[Path]) -> list[dict[Path, float]]:
        """Continuations of each sequence with their shares."""
        raise NotImplementedError

    def _probs(self, sequences: Sequence[Path]) -> NDArray[np.float64]:
        """Probabilities f64 [L, V], 0 for what is never chosen, not brought to sum 1."""
        probs = self._distribution(sequences).astype(np.float64)
        probs[:, self._banned] = 0.0
        return probs

    def _over(self, sequence: Path, path: Path) -> bool:
        return (
            path[-1] == self._end
            or len(path) == self._length
            or len(sequence) + len(path) >= self._distribution.max_length
        )


class SampleTeacher(_Thinker):
    """Proposes by drawing ``draws`` continuations; a share is that of the draws.

    What is drawn depends on ``seed``, the sequence and the model alone. Draws that agree so far share the
    tokens forwarded for them.
    """

    def __init__(
        self,
        name: str,
        distribution: Distribution,
        tokenizer: PreTrainedTokenizerFast,
        *,
        draws: int = 8,
        length: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__(name, distribution, tokenizer, draws, length)
        self._seed = seed

    @classmethod
    def open(cls, config: SampleConfig, model: Student, seed: int) -> SampleTeacher:
        """The teacher on ``model``, through an engine of its own."""
        distribution = ModelDistribution.open(model, config.temperature, config.memory_mb, config.states)
        return cls(
            config.name, distribution, model.tokenizer, draws=config.draws, length=config.length, seed=seed
        )

    def _think(self, sequences: Sequence[Path]) -> list[dict[Path, float]]:
        chance = [
            np.random.default_rng([self._seed, *sequence]).random((self._length, self._breadth))
            for sequence in sequences
        ]
        found: list[dict[Path, float]] = [{} for _ in sequences]
        growing = [_Growing(row, (), np.arange(self._breadth)) for row in range(len(sequences))]
        while growing:
            probs = self._probs([sequences[one.row] + one.path for one in growing])
            longer: list[_Growing] = []
            for one, given in zip(growing, probs, strict=True):
                if not given.any():  # nothing may follow: these draws are lost
                    continue
                drawn = _draw(given, chance[one.row][len(one.path), one.draws])
                for token in np.unique(drawn).tolist():
                    path, draws = (*one.path, token), one.draws[drawn == token]
                    if self._over(sequences[one.row], path):
                        found[one.row][path] = len(draws) / self._breadth
                    else:
                        longer.append(_Growing(one.row, path, draws))
            growing = longer
        return found


class BeamTeacher(_Thinker):
    """Proposes by a beam of ``width`` continuations, kept by probability at every length; a share is a
    continuation's part of the probability of all that are left in the end.
    """

    def __init__(
        self,
        name: str,
        distribution: Distribution,
        tokenizer: PreTrainedTokenizerFast,
        *,
        width: int = 4,
        length: int = 8,
    ) -> None:
        super().__init__(name, distribution, tokenizer, width, length)

    @classmethod
    def open(cls, config: BeamConfig, model: Student) -> BeamTeacher:
        """The teacher on ``model``, through an engine of its own."""
        distribution = ModelDistribution.open(model, config.temperature, config.memory_mb, config.states)
        return cls(config.name, distribution, model.tokenizer, width=config.width, length=config.length)

    def _think(self, sequences: Sequence[Path]) -> list[dict[Path, float]]:
        beams: list[dict[Path, float]] = [{(): 1.0} for _ in sequences]
        for _ in range(self._length):
            growing = [
                (row, path)
                for row, beam in enumerate(beams)
                for path in beam
                if not path or not self._over(sequences[row], path)
            ]
            if not growing:
                break
            probs = self._probs([sequences[row] + path for row, path in growing])
            options = [dict(beam) for beam in beams]
            for (row, path), given in zip(growing, probs, strict=True):
                mass = options[row].pop(path)
                for token in np.argsort(-given, kind="stable")[: self._breadth].tolist():
                    if given[token] > 0:
                        options[row][*path, token] = mass * float(given[token])
            for row, option in enumerate(options):
                ranked = sorted(option.items(), key=lambda item: (-item[1], item[0]))
                beams[row] = dict(ranked[: self._breadth])
        totals = [sum(beam.values()) for beam in beams]
        return [
            {path: mass / total for path, mass in beam.items()} if total > 0 else {}
            for beam, total in zip(beams, totals, strict=True)
        ]


def _draw(weights: NDArray[np.float64], chance: NDArray[np.float64]) -> NDArray[np.int64]:
    """One token for each uniform number of ``chance``, by inverting the cumulative ``weights`` [V]."""
    steps = weights.cumsum()
    last = int(np.flatnonzero(weights)[-1])
    drawn: NDArray[np.int64] = np.minimum(np.searchsorted(steps, chance * steps[-1], side="right"), last)
    return drawn


def _name(kind: str, lag: int) -> str:
    return f"{kind}-lag{lag}" if lag else kind


def _check(kind: str, counts: Mapping[str, int], lag: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{kind} teacher has {name} {count}; give at least 1")
    if lag < 0:
        raise InputError(f"{kind} teacher has lag {lag}; give 0 (the student itself) or more rounds")
