"""Teachers as one voice: who is asked, what is mixed, and continuations that are followed without asking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tokenzero.mcts.errors import InputError
from tokenzero.teachers import (
    GLOBAL,
    Credit,
    Ensemble,
    EnsembleConfig,
    Inquiry,
    Path,
    Proposal,
    TeacherWeights,
    WeightConfig,
    followed,
    mix,
)
from tokenzero.teachers.base import Continuation

OWN = np.asarray([[0, 1, 2]])
PROBS = np.asarray([[0.5, 0.3, 0.2]], np.float32)


class Says:
    """Always proposes one token; counts what it was asked."""

    def __init__(self, name: str, token: int, continuations: tuple[Continuation, ...] = ()) -> None:
        self.name, self.token, self.asked = name, token, 0
        self.continuations = continuations

    def propose(
        self, sequences: Sequence[Sequence[int]], k: int, prompt_lens: Sequence[int] | None = None
    ) -> Proposal:
        assert prompt_lens is not None
        assert len(prompt_lens) == len(sequences)
        self.asked += len(sequences)
        actions = np.full((len(sequences), k), -1, np.int64)
        actions[:, 0] = self.token
        probs = np.zeros((len(sequences), k), np.float32)
        probs[:, 0] = 1.0
        told = (self.continuations,) * len(sequences) if self.continuations else ()
        return Proposal(actions, probs, 2 * len(sequences), told)


def ensemble(teachers: Sequence[Says], seed: int = 0, **options: Any) -> Ensemble:
    config = EnsembleConfig(**options)
    weights = TeacherWeights([teacher.name for teacher in teachers], config.weights)
    return Ensemble(teachers, weights, config, 1, seed)


def inquiries(count: int, **options: Any) -> list[Inquiry]:
    return [Inquiry([7, number, 8], 2, GLOBAL, **options) for number in range(count)]


def own(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(OWN, count, axis=0), np.repeat(PROBS, count, axis=0)


def test_all_are_asked_and_mixed_by_weight() -> None:
    teachers = [Says("a", 3), Says("b", 4)]
    voice = ensemble(teachers, beta=0.4)
    heard = voice.consult(inquiries(2), *own(2), 5)
    proposals = [teacher.propose([[7]] * 2, 5, [1, 1]) for teacher in teachers]
    wanted = mix(*own(2), proposals, [0.5, 0.5], 0.4, 5)
    np.testing.assert_array_equal(heard.mixture.actions, wanted.actions)
    np.testing.assert_array_equal(heard.mixture.logits, wanted.logits)
    np.testing.assert_array_equal(heard.mixture.responsibility, wanted.responsibility)
    assert heard.spoke.all()
    assert voice.consulted == {"a": 2, "b": 2}
    assert voice.tokens == {"a": 4, "b": 4}


def test_a_few_are_drawn_by_weight_whatever_the_batch() -> None:
    teachers = [Says("a", 3), Says("b", 4)]
    voice = ensemble(teachers, asked=1, weights=WeightConfig(temperature=0.5, epsilon=0.2))
    voice.weights.update({GLOBAL: Credit(np.asarray([0.5, -0.5]), np.asarray([1e3, 1e3]), 0.0)})
    share = float(voice.weights.of()[0])
    together = voice.consult(inquiries(4000), *own(4000), 5)
    assert teachers[0].asked + teachers[1].asked == 4000
    assert teachers[0].asked / 4000 == pytest.approx(share, abs=0.03)
    alone = [voice.consult([inquiry], *own(1), 5).mixture.actions[0] for inquiry in inquiries(50)]
    np.testing.assert_array_equal(together.mixture.actions[:50], np.stack(alone))
    deeper = [Inquiry([*one.sequence, 5], 2, GLOBAL) for one in inquiries(50)]
    again = voice.consult(deeper, *own(50), 5).mixture.actions
    np.testing.assert_array_equal(again, np.stack(alone), err_msg="a problem keeps its teachers")
    other = ensemble(teachers, seed=1, asked=1).consult(inquiries(50), *own(50), 5)
    assert (other.mixture.actions != np.stack(alone)).any()


def test_a_teacher_unheard_for_long_is_asked() -> None:
    teachers = [Says("a", 3), Says("b", 4)]
    voice = ensemble(teachers, asked=1, patience=100, weights=WeightConfig(temperature=0.001, epsilon=1e-9))
    voice.weights.update({GLOBAL: Credit(np.asarray([0.5, -0.5]), np.asarray([1e3, 1e3]), 0.0)})
    for _ in range(30):
        voice.consult(inquiries(10), *own(10), 5)
    assert teachers[1].asked == 3


def test_a_context_has_its_own_weights() -> None:
    voice = ensemble(
        [Says("a", 3), Says("b", 4)], stages=3, weights=WeightConfig(temperature=0.05, patience=1)
    )
    for context, worth in ((GLOBAL, [0.0, 0.0]), ("high/2", [-1.0, 1.0])):
        voice.weights.update({context: Credit(np.asarray(worth), np.asarray([1e3, 1e3]), 0.0)})
    assert voice.context("high", 11, 12) == "high/2"
    assert voice.context("high", 0, 12) == "high/0"
    assert voice.context("", 12, 12) == "/2"
    heard = voice.consult([Inquiry([1], 1, "high/2"), Inquiry([1], 1, "high/0")], *own(2), 5)
    mass = np.exp(heard.mixture.logits)
    share = [float(mass[row][heard.mixture.actions[row] == 4][0]) for row in range(2)]
    assert share[0] > 0.9 * 0.3
    assert share[1] == pytest.approx(0.15, abs=1e-3)


def test_continuations_are_followed_without_asking_again() -> None:
    told = (Continuation((3, 5, 6), 0.6), Continuation((3, 9), 0.2))
    teacher = Says("a", 3, told)
    voice = ensemble([teacher], beta=0.5)
    first = voice.consult(inquiries(1), *own(1), 5)
    assert first.paths == [(Path(0, (3, 5, 6), 0.6), Path(0, (3, 9), 0.2))]
    below = followed(first.paths[0], 3)
    assert below == (Path(0, (5, 6), pytest.approx(0.75)), Path(0, (9,), pytest.approx(0.25)))
    assert followed(first.paths[0], 1) == ()
    second = voice.consult([Inquiry([7, 8, 3], 2, GLOBAL, below, ask=False)], *own(1), 5)
    assert teacher.asked == 1
    mass = dict(
        zip(second.mixture.actions[0].tolist(), np.exp(second.mixture.logits[0]).tolist(), strict=True)
    )
    assert mass[5] == pytest.approx(0.5 * 0.75, abs=1e-6)
    assert mass[9] == pytest.approx(0.5 * 0.25, abs=1e-6)
    assert followed(second.paths[0], 5) == (Path(0, (6,), pytest.approx(1.0)),)


def test_without_anyone_speaking_the_student_is_alone() -> None:
    voice = ensemble([Says("a", 3)])
    heard = voice.consult(inquiries(1, ask=False), *own(1), 3)
    np.testing.assert_array_equal(heard.mixture.actions, OWN)
    np.testing.assert_allclose(np.exp(heard.mixture.logits), PROBS, rtol=1e-6)
    assert not heard.spoke.any()


def test_banned_tokens_are_never_proposed() -> None:
    heard = ensemble([Says("a", 3)]).consult(inquiries(1), *own(1), 5, banned={3})
    assert 3 not in heard.mixture.actions
    assert not heard.spoke.any()


def test_beta_anneals_in_a_straight_line() -> None:
    config = EnsembleConfig(beta=0.8, beta_end=0.2, anneal_rounds=3)
    assert [config.beta_in(r) for r in (1, 2, 3, 4, 9)] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.2])
    assert EnsembleConfig(beta=0.8).beta_in(9) == 0.8


@pytest.mark.parametrize("bad", [{"beta": 1.5}, {"visits": 0}, {"asked": -1}, {"stages": 0}, {"trace": -0.1}])
def test_bad_options_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        EnsembleConfig(**bad)


def test_weights_must_be_of_these_teachers() -> None:
    with pytest.raises(InputError, match="weights are of"):
        Ensemble([Says("a", 1)], TeacherWeights(["b"], WeightConfig()), EnsembleConfig())
