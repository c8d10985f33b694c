"""Addition: problems that share no sum, verdicts with the last digit, tokens that say the same as texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_student

from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.tasks import (
    FAILED,
    ONGOING,
    SOLVED,
    SPLITS,
    ArithmeticConfig,
    ArithmeticTask,
    Problem,
    PublicProblem,
)
from tokenzero.tasks.arithmetic_problems import largest_sum, read_prompt, write_prompt

TERMS = st.lists(st.integers(0, 10**8 - 1), min_size=2, max_size=9).map(tuple)
FORWARD, REVERSE = ArithmeticTask(), ArithmeticTask(ArithmeticConfig(reverse=True))


def by_hand(terms: tuple[int, ...]) -> str:
    """The sum by adding columns, with as many digits as the nines of the longest term could need."""
    width = max(len(str(term)) for term in terms)
    digits, carry = "", 0
    for place in range(width):
        column = sum(term // 10**place % 10 for term in terms) + carry
        digits, carry = str(column % 10) + digits, column // 10
    room = len(terms) * (10**width - 1) // 10**width  # the largest carry
    return (str(carry).zfill(len(str(room))) if room else "") + digits


@given(terms=TERMS)
def test_the_sum_is_right_and_nothing_else_is(terms: tuple[int, ...]) -> None:
    problem, right = PublicProblem("p", write_prompt(terms)), by_hand(terms)
    assert read_prompt(problem.prompt) == terms
    assert len(right) == len(str(largest_sum(terms)))
    for task, answer in ((FORWARD, right), (REVERSE, right[::-1])):
        for text in (answer, " ".join(answer), f" {' '.join(answer)} \n"):
            assert task.verdict(problem, text) == SOLVED
            assert task.score(Problem(problem), text) == 1.0
        assert task.verdict(problem, answer + "0") == FAILED
        for place, digit in enumerate(answer):
            wrong = f"{answer[:place]}{(int(digit) + 1) % 10}{answer[place + 1 :]}"
            assert task.verdict(problem, wrong) == FAILED
            assert task.score(Problem(problem), answer[:place]) == 0.0


@given(terms=TERMS, digits=st.text(alphabet="0123456789", max_size=10))
def test_no_verdict_comes_before_the_last_digit(terms: tuple[int, ...], digits: str) -> None:
    problem, width = PublicProblem("p", write_prompt(terms)), len(by_hand(terms))
    for task in (FORWARD, REVERSE):
        for length in range(len(digits) + 1):
            assert (task.verdict(problem, digits[:length]) == ONGOING) == (length < width)


@given(data=st.data(), reverse=st.booleans())
def test_tokens_say_the_same_as_texts(data: st.DataObject, reverse: bool) -> None:
    task = REVERSE if reverse else FORWARD
    problems = [PublicProblem("p", write_prompt(terms)) for terms in data.draw(st.lists(TERMS, max_size=8))]
    pieces = ["", *(f"{word} " for word in task.tokenizer_spec()["words"]), " ", "12", "0 0", "3x", "²"]
    pieces += ["9" * 9, "9" * 10, "1" * 40]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    automaton = task.automaton(pieces)
    states, goals = automaton.begin(problems)
    rights = [by_hand(read_prompt(problem.prompt)) for problem in problems]
    rights, texts = [right[::-1] if reverse else right for right in rights], [""] * len(problems)
    while len(states):
        # mostly the next right digit, so that some answers are right
        tokens = [1 + int(right[len("".join(t.split()))]) for right, t in zip(rights, texts, strict=True)]
        odd = rng.random(len(states)) < 0.1
        tokens = np.where(odd, rng.integers(len(pieces), size=len(states)), tokens)
        states, found = automaton.advance(states, tokens, goals)
        texts = [text + pieces[token] for text, token in zip(texts, tokens.tolist(), strict=True)]
        expected = [task.verdict(problem, text) for problem, text in zip(problems, texts, strict=True)]
        np.testing.assert_array_equal(found.done, [verdict.done for verdict in expected])
        np.testing.assert_array_equal(found.score, np.asarray([v.score for v in expected], np.float64))
        on = np.flatnonzero(~found.done)
        states, goals = states[on], goals[on]
        texts, problems, rights = ([kept[i] for i in on] for kept in (texts, problems, rights))


@given(text=st.text(max_size=30))
def test_no_text_makes_verdict_or_score_raise(text: str) -> None:
    problem = FORWARD.problems("test")[0]
    assert FORWARD.verdict(problem.public, text).score in (None, 0.0, 1.0)
    assert FORWARD.score(problem, text + "x") == 0.0
    assert FORWARD.verdict(problem.public, "١٢") == FAILED  # digits, but not ours


@pytest.mark.parametrize(
    "prompt", ["", "1", "1 =", "1 + =", "1 + 2", "1 - 2 =", "² + 1 =", "1 + 123456789 =", "1 +" * 9 + "1 ="]
)
def test_a_prompt_that_is_not_an_addition_is_an_input_error(prompt: str) -> None:
    with pytest.raises(InputError, match="not an addition"):
        FORWARD.verdict(PublicProblem("p", prompt), "")
    with pytest.raises(InputError, match="not an addition"):
        FORWARD.automaton(["1"]).begin([PublicProblem("p", prompt)])


@pytest.mark.parametrize("digits", [2, 3, 6])
def test_held_out_sums_appear_nowhere_else_in_any_order(digits: int) -> None:
    task = ArithmeticTask(ArithmeticConfig(digits=digits))
    terms = {
        split: [tuple(sorted(read_prompt(p.public.prompt))) for p in task.problems(split)] for split in SPLITS
    }
    assert [len(terms[split]) for split in SPLITS] == [20000, 1000, 1500]
    for split in ("validation", "test"):
        assert len(set(terms[split])) == len(terms[split])
        assert {len(str(term)) for pair in terms[split] for term in pair} == {digits}
    assert not set(terms["test"]) & set(terms["validation"])
    assert not set(terms["train"]) & {*terms["test"], *terms["validation"]}
    lengths = np.bincount([max(len(str(term)) for term in pair) for pair in terms["train"]])
    assert (abs(lengths[1:] * digits / 20000 - 1) < 0.1).all()
    assert len({problem.public.id for split in SPLITS for problem in task.problems(split)}) == 22500
    fewer = ArithmeticTask(ArithmeticConfig(digits=digits, train=10))
    assert fewer.problems("test") == task.problems("test")


def test_without_the_ladder_training_has_all_its_digits_too() -> None:
    task = ArithmeticTask(ArithmeticConfig(ladder=False, terms=3, train=100, validation=10, test=10))
    terms = [read_prompt(problem.public.prompt) for problem in task.problems("train")]
    assert {(len(some), len(str(term))) for some in terms for term in some} == {(3, 3)}


def test_a_small_space_gives_up_with_a_way_out() -> None:
    with pytest.raises(InputError, match="arithmetic test is 60, but only 55 different sums were found"):
        ArithmeticTask(ArithmeticConfig(digits=1, test=60)).problems("train")


@pytest.mark.parametrize("task", [FORWARD, REVERSE])
def test_demonstrations_are_random_numbers_that_could_be_sums(task: ArithmeticTask) -> None:
    pairs = task.demonstrations(6000, np.random.default_rng(3))
    assert pairs == task.demonstrations(6000, np.random.default_rng(3))
    training = {problem.public.prompt for problem in task.problems("train")}
    assert {prompt for prompt, _ in pairs} <= training
    luck: dict[int, list[float]] = {1: [], 2: [], 3: []}
    for prompt, answer in pairs:
        terms, digits = read_prompt(prompt), answer.replace(" ", "")
        assert answer == " ".join(digits)
        assert int(digits[::-1] if task.config.reverse else digits) <= largest_sum(terms)
        verdict = task.verdict(PublicProblem("p", prompt), answer)
        assert verdict.done
        luck[max(len(str(term)) for term in terms)].append(verdict.score or 0.0)
        assert len(digits) < task.max_answer_tokens
    assert 0.03 < np.mean(luck[1]) < 0.08  # 1 / 19
    assert 0.001 < np.mean(luck[2]) < 0.011  # 1 / 199
    assert np.mean(luck[3]) < 0.003  # 1 / 1999


def test_no_training_problems_means_no_demonstrations() -> None:
    with pytest.raises(InputError, match="train is 0"):
        ArithmeticTask(ArithmeticConfig(train=0)).demonstrations(1, np.random.default_rng(0))


def test_augment_reorders_the_terms_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    assert {FORWARD.augment("1 2 + 3 =", rng) for _ in range(50)} == {"1 2 + 3 =", "3 + 1 2 ="}


def test_a_prompt_is_a_token_per_symbol() -> None:
    student = make_student(spec=FORWARD.tokenizer_spec())
    prompt, answer = "4 7 8 + 9 3 6 =", "1 4 1 4"
    assert len(encode_prompt(student.tokenizer, prompt)) == 8 + 1
    tokens = student.tokenizer(answer, add_special_tokens=False)["input_ids"]
    assert student.tokenizer.decode(tokens) == answer
    assert len(tokens) == FORWARD.max_answer_tokens - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"digits": 0}, "digits is 0; use 1 to 8"),
        ({"digits": 9}, "digits is 9; use 1 to 8"),
        ({"terms": 1}, "terms is 1; use 2 to 9"),
        ({"reverse": 1}, "reverse is 1; give a value of type bool"),
        ({"test": -1}, "test is -1; use 0 or more"),
    ],
)
def test_settings_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match="arithmetic " + message):
        ArithmeticConfig(**options)
