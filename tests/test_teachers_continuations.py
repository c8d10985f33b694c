"""Continuations of a student: sampled shares against exact ones, the beam against all paths, costs, seeds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import make_student, plain, tree_engine

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import character_tokenizer
from tokenzero.teachers.base import Proposal, Teacher
from tokenzero.teachers.continuations import BeamConfig, BeamTeacher, SampleConfig, SampleTeacher
from tokenzero.teachers.distribution import ModelDistribution
from tokenzero.teachers.prefix_states import PrefixStates

AB = character_tokenizer("abc")
A, B, C, EOS = 4, 5, 6, 2


class Markov:
    """Next token given the last one, from a fixed random table."""

    max_length = 12
    vocab_size = 7

    def __init__(self, seed: int = 0) -> None:
        self.table = np.random.default_rng(seed).dirichlet(np.ones(7), size=7).astype(np.float32)
        self.forwarded = 0

    def __call__(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        self.forwarded += len(sequences)
        return self.table[[sequence[-1] for sequence in sequences]]

    def close(self) -> None: ...


def chain(table: NDArray[np.float32], start: int, length: int) -> dict[tuple[int, ...], float]:
    """Every continuation of at most `length` tokens, with its probability among the allowed tokens."""
    given = table.astype(np.float64)
    given[:, [0, 1, 3]] = 0
    given /= given.sum(axis=1, keepdims=True)
    paths: dict[tuple[int, ...], float] = {}
    for n in range(1, length + 1):
        for path in itertools.product((EOS, A, B, C), repeat=n):
            if EOS in path[:-1] or (n < length and path[-1] != EOS):
                continue
            paths[path] = float(np.prod([given[a, b] for a, b in itertools.pairwise((start, *path))]))
    return paths


def row_of(proposal: Proposal, row: int = 0) -> dict[int, float]:
    pairs = zip(proposal.actions[row].tolist(), proposal.probs[row].tolist(), strict=True)
    return {a: p for a, p in pairs if a >= 0}


def test_sampled_shares_come_to_the_probabilities() -> None:
    markov = Markov()
    teacher: Teacher = SampleTeacher("s", markov, AB, draws=20000, length=3, seed=1)
    proposal = teacher.propose([[1, A]], 4)
    exact = chain(markov.table, A, 3)
    told = {path.tokens: path.probability for path in proposal.continuations[0]}
    assert sum(exact.values()) == pytest.approx(1.0)
    assert sum(told.values()) == pytest.approx(1.0)
    assert told.keys() <= exact.keys()
    for path, p in exact.items():
        assert told.get(path, 0.0) == pytest.approx(p, abs=0.015)
    for token, share in row_of(proposal).items():
        assert share == pytest.approx(sum(p for path, p in told.items() if path[0] == token), abs=1e-6)
    assert proposal.tokens <= 1 + 3 + 9, "draws that agree share their tokens, and the last is not forwarded"


def test_what_is_drawn_depends_on_seed_and_sequence_alone() -> None:
    def teacher(seed: int) -> SampleTeacher:
        return SampleTeacher("s", Markov(), AB, draws=6, length=4, seed=seed)

    sequences = [[1, A], [1, B, A], [1, A]]
    together, again = teacher(3).propose(sequences, 4), teacher(3).propose([[1, B, A]], 4)
    np.testing.assert_array_equal(together.probs[1], again.probs[0])
    assert together.continuations[1] == again.continuations[0]
    assert together.continuations[0] == together.continuations[2]
    assert together.continuations[0] != together.continuations[1], "the same last token, another sequence"
    assert teacher(4).propose(sequences, 4).continuations != together.continuations


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_likeliest_of_all(seed: int) -> None:
    markov = Markov(seed)
    paths = chain(markov.table, B, 3)
    scale = markov.table[:, [EOS, A, B, C]].sum(axis=1)  # the beam compares unscaled probabilities
    raw = {p: m * float(np.prod([scale[t] for t in (B, *p)[:-1]])) for p, m in paths.items()}
    best = sorted(raw, key=lambda path: -raw[path])[:16]
    total = sum(raw[path] for path in best)
    proposal = BeamTeacher("b", markov, AB, width=16, length=3).propose([[1, B]], 4)
    told = {path.tokens: path.probability for path in proposal.continuations[0]}
    assert told == {path: pytest.approx(raw[path] / total) for path in best}
    assert row_of(proposal) == {
        t: pytest.approx(sum(p for path, p in told.items() if path[0] == t), abs=1e-6)
        for t in row_of(proposal)
    }
    narrow = BeamTeacher("b", markov, AB, width=1, length=3).propose([[1, B]], 4)
    assert len(narrow.continuations[0]) == 1
    assert row_of(narrow) == {narrow.continuations[0][0].tokens[0]: 1.0}


def test_ends_and_room() -> None:
    markov = Markov()
    for teacher in (
        SampleTeacher("s", markov, AB, draws=50, length=9),
        BeamTeacher("b", markov, AB, width=9, length=9),
    ):
        proposal = teacher.propose([[1] * 10, [], [1] * 12, [1, A]], 4)
        assert (proposal.actions[[1, 2]] == -1).all()
        assert all(len(path.tokens) <= 2 for path in proposal.continuations[0]), "the model has no more room"
        told = [path.tokens for row in proposal.continuations for path in row]
        assert any(path[-1] == EOS for path in told)
        assert not any(EOS in path[:-1] or {0, 1, 3}.intersection(path) for path in told)
        assert teacher.propose([], 3).actions.shape == (0, 3)


def test_nothing_may_follow() -> None:
    markov = Markov()
    markov.table[:] = 0
    markov.table[:, 0] = 1
    for teacher in (SampleTeacher("s", markov, AB), BeamTeacher("b", markov, AB)):
        assert (teacher.propose([[1, A]], 3).actions == -1).all()


def distribution_of(student: Student, temperature: float = 1.0) -> ModelDistribution:
    return ModelDistribution(student, PrefixStates(student, tree_engine(student)), temperature)


def test_a_real_student_pays_for_what_is_new() -> None:
    student = make_student()
    teacher = BeamTeacher("b", distribution_of(student), student.tokenizer, width=2, length=3)
    first = teacher.propose([[1, 5]], 2)
    assert first.tokens == 2 + 2 + 2
    best = first.continuations[0][0].tokens
    assert teacher.propose([[1, 5]], 2).tokens == 0, "all of it is remembered"
    assert teacher.propose([[1, 5, best[0]]], 2).tokens < 5
    teacher.close()
    assert teacher.propose([[1, 5]], 2).tokens == 6


def test_distributions_follow_the_weights_and_the_temperature() -> None:
    student = make_student(seed=6)
    warm, cold = distribution_of(student), distribution_of(student, 0.5)
    logits = plain(student, [1, 5])[0]
    np.testing.assert_allclose(warm([[1, 5]])[0], logits.softmax(-1).numpy(), atol=1e-5)
    np.testing.assert_allclose(cold([[1, 5], [1, 5]])[1], (logits / 0.5).softmax(-1).numpy(), atol=1e-5)
    assert warm.forwarded == cold.forwarded == 2
    student.model.get_output_embeddings().weight.data.mul_(2.0)
    student.weights_changed()
    np.testing.assert_allclose(warm([[1, 5]])[0], (logits * 2).softmax(-1).numpy(), atol=1e-5)
    student.model.get_output_embeddings().weight.data.fill_(float("nan"))
    student.weights_changed()
    with pytest.raises(InputError, match="not a number"):
        warm([[1, 5]])


def test_opening_on_a_student() -> None:
    student = make_student()
    sample = SampleTeacher.open(SampleConfig(lag=2, draws=3), student, seed=5)
    beam = BeamTeacher.open(BeamConfig(label="wide"), student)
    assert (sample.name, beam.name) == ("sample-lag2", "wide")
    for teacher in (sample, beam):
        assert (teacher.propose([[1, 4]], 2).actions[0, 0]) >= 0


@pytest.mark.parametrize(
    "wrong", [{"length": 0}, {"temperature": 0.0}, {"lag": -1}, {"memory_mb": -1.0}, {"states": 0}]
)
def test_options_out_of_range(wrong: dict[str, float]) -> None:
    for config in (SampleConfig, BeamConfig):
        with pytest.raises(InputError):
            config(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="draws 0"):
        SampleConfig(draws=0)
    with pytest.raises(InputError, match="width 0"):
        BeamConfig(width=0)
