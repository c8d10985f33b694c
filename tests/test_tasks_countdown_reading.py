"""Reading answers: texts and tokens get the scores of a plain reading, whatever was read before."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Iterator

import countdown_truth as truth
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.tasks import (
    FAILED,
    ONGOING,
    SOLVED,
    CountdownTask,
    PublicProblem,
    Verdicts,
    countdown,
    countdown_reading,
)
from tokenzero.tasks.countdown_problems import write_prompt
from tokenzero.tasks.countdown_reading import CountdownAutomaton, Reader
from tokenzero.tasks.countdown_rules import Rules, legal_steps

VARIANTS = {
    "plain": Rules(),
    "zero": Rules(zero=True),
    "equals": Rules(equals=True),
    "fractions": Rules(fractions=True),
    "all": Rules(bound=40, zero=True, fractions=True, equals=True),
}


def plain(rules: Rules, numbers: tuple[int, ...], target: int, answer: str) -> float:
    """The score of one answer, read from its beginning, step by step."""
    position, words = rules.position(numbers), answer.removeprefix(" ").split(" ")
    while True:
        last = len(position) == 2
        written = " ".join(words if last else words[: rules.step_words])
        steps = legal_steps(rules, position)
        if last and written.rstrip() in steps:
            return float(steps[written.rstrip()] == (str(target),))
        if last or len(words) <= rules.step_words:
            return math.nan if any(step.startswith(written) for step in steps) else 0.0
        if written not in steps:
            return 0.0
        position, words = steps[written], words[rules.step_words :]


def beginnings(rules: Rules, numbers: tuple[int, ...], draw: random.Random) -> Iterator[str]:
    """Beginnings of a random legal answer, some of them damaged."""
    position, written = rules.position(numbers), ""
    while len(position) > 1:
        step, position = draw.choice(list(legal_steps(rules, position).items()))
        written += step + " "
    for _ in range(8):
        text = written[: draw.randrange(len(written) + 1)]
        if draw.random() < 0.4:
            place = draw.randrange(len(text) + 1)
            text = (
                text[:place] + draw.choice(["", " ", "1", "0", "+", "-", "=", "/", "x"]) + text[place + 1 :]
            )
        yield draw.choice(["", "", " "]) + text


def same(found: Verdicts, expected: list[float]) -> None:
    """The verdicts are those scores, and done where there is one."""
    np.testing.assert_array_equal(found.score, expected)
    np.testing.assert_array_equal(found.done, ~np.isnan(expected))


@pytest.mark.parametrize("name", VARIANTS)
@given(data=st.data())
def test_reading_is_that_of_the_rules_whatever_was_read_before(name: str, data: st.DataObject) -> None:
    rules, draw = VARIANTS[name], random.Random(data.draw(st.integers(0, 2**32)))
    reader = Reader(rules)
    with pytest.MonkeyPatch.context() as patch:
        if data.draw(st.booleans()):  # forgets all the time
            patch.setattr(countdown_reading, "PLACES", 1)
            patch.setattr(countdown_reading, "STARTS", 1)
        for _ in range(data.draw(st.integers(1, 6))):
            numbers = tuple(draw.randint(1, 10) for _ in range(draw.randint(2, 4)))
            for text in beginnings(rules, numbers, draw):
                target = draw.choice([12, 24, draw.randint(1, 30)])
                score = plain(rules, numbers, target, text)
                expected = ONGOING if math.isnan(score) else SOLVED if score else FAILED
                assert reader.verdict(write_prompt(numbers, target), text) == expected


@pytest.mark.parametrize("name", VARIANTS)
@given(data=st.data())
def test_the_automaton_says_what_reading_the_whole_text_says(name: str, data: st.DataObject) -> None:
    rules, draw = VARIANTS[name], random.Random(data.draw(st.integers(0, 2**32)))
    pieces = ["", " ", *"0123456789+-*/= ", "x", "1 ", " 2", "3 *", "+ ", "- ", "12 ", " 1 2 3 ", "= "]
    automaton = CountdownAutomaton(Reader(rules), pieces)
    games = [
        (tuple(draw.randint(1, 10) for _ in range(draw.randint(2, 4))), draw.choice([12, 24, 5]))
        for _ in range(6)
    ]
    problems = [PublicProblem("p", write_prompt(numbers, target)) for numbers, target in games * 3]
    states, goals = automaton.begin(problems)
    texts, live = [""] * len(problems), np.arange(len(problems))
    while live.size:
        tokens = [helpful(rules, games[row % 6][0], texts[row], pieces, draw) for row in live.tolist()]
        after, found = automaton.advance(states[live], np.asarray(tokens), goals[live])
        for row, token in zip(live.tolist(), tokens, strict=True):
            texts[row] += pieces[token]
        same(found, [plain(rules, *games[row % 6], texts[row]) for row in live.tolist()])
        again, repeated = automaton.advance(states[live], np.asarray(tokens), goals[live])
        assert again.tolist() == after.tolist()
        same(repeated, found.score.tolist())
        states[live] = after
        live = live[~found.done & (np.asarray([len(texts[row]) for row in live.tolist()]) < 60)]
    assert automaton.size > 0


def helpful(rules: Rules, numbers: tuple[int, ...], text: str, pieces: list[str], draw: random.Random) -> int:
    """A token that mostly lets the answer go on, and now and then any."""
    legal = [
        token
        for token, piece in enumerate(pieces)
        if piece.strip() and plain(rules, numbers, 0, text + piece) != 0.0
    ]
    legal += [1] * (plain(rules, numbers, 0, text + " ") != 0.0)
    return draw.choice(legal) if legal and draw.random() < 0.9 else draw.randrange(len(pieces))


def test_games_with_the_same_numbers_left_share_what_is_remembered() -> None:
    pieces = ["2 ", "3 ", "+ ", "5 ", "* ", "6 "]
    automaton = CountdownAutomaton(Reader(Rules()), pieces)
    states, goals = automaton.begin([PublicProblem("p", "2 3 -> 5 :"), PublicProblem("q", "3 2 -> 6 :")])
    assert states[0] == states[1]
    assert goals[0] != goals[1]
    for token in (0, 2, 1):
        states, found = automaton.advance(states, np.full(2, token), goals)
        assert not found.done.any()
    assert automaton.size == 3
    _, found = automaton.advance(states, np.full(2, 3), goals)
    assert found.score.tolist() == [1.0, 0.0]


def test_every_answer_to_a_small_problem_is_read_right() -> None:
    answers = truth.all_answers((2, 3, 6), bound=100, zero=False, fractions=False, equals=False)
    task = CountdownTask()
    problem = PublicProblem("p", write_prompt((6, 2, 3), 12))
    pieces = [str(number) + " " for number in range(101)] + [f"{operator} " for operator in "+-*/"]
    automaton = task.automaton(pieces)
    for answer, value in answers.items():
        states, goals = automaton.begin([problem])
        for word in answer.split(" "):
            token = pieces.index(word + " ")
            states, found = automaton.advance(states, np.asarray([token]), goals)
        assert found.score.tolist() == [float(value == 12)]


def test_a_task_shares_its_automaton_until_it_is_large_or_the_tokens_are_others() -> None:
    task = CountdownTask()
    one = task.automaton(["1 ", "2 "])
    assert task.automaton(["1 ", "2 "]) is one
    assert task.automaton(["2 ", "1 "]) is not one
    one = task.automaton(["1 ", "2 "])
    states, goals = one.begin([PublicProblem("p", "1 2 -> 3 :")])
    one.advance(states, np.asarray([0]), goals)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(countdown, "MOVES", 0)
        assert task.automaton(["1 ", "2 "]) is not one
    copy = pickle.loads(pickle.dumps(task))  # noqa: S301  (our own bytes, as multiprocessing sends them)
    assert copy.automaton(["1 ", "2 "]).size == 0


def test_a_reader_remembers_no_more_than_it_may() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(countdown_reading, "PLACES", 20)
        patch.setattr(countdown_reading, "STARTS", 5)
        reader = Reader(Rules())
        for a in range(1, 11):
            for b in range(1, 11):
                reader.verdict(write_prompt((a, b, 7), 9), f"{a} + {b} {a + b} ")
                assert len(reader._starts) <= 5
                assert len(reader._places) <= 20


def test_a_prompt_that_is_not_countdown_is_refused() -> None:
    with pytest.raises(InputError, match="not a Countdown problem"):
        CountdownTask().automaton(["1 "]).begin([PublicProblem("p", "hello")])
