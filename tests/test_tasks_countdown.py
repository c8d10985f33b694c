"""The early verdict of Countdown, against every legal answer written out by a plain reference."""

from __future__ import annotations

import pickle
from fractions import Fraction
from itertools import accumulate

import countdown_truth as truth
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.tasks import FAILED, ONGOING, SOLVED, CountdownConfig, CountdownTask, Problem, PublicProblem
from tokenzero.tasks.countdown_problems import write_prompt

VARIANTS = {
    "plain": {},
    "zero": {"zero": True},
    "equals": {"equals": True},
    "fractions": {"fractions": True, "granularity": "characters", "target_low": 24, "target_high": 24},
    "all": {"zero": True, "equals": True, "fractions": True, "granularity": "characters", "target_low": 30},
    "tight": {"bound": 12, "target_low": 1, "target_high": 12},
}
RULES = ("bound", "zero", "fractions", "equals")


def _task(variant: str) -> CountdownTask:
    return CountdownTask(CountdownConfig(**VARIANTS[variant]))


def _rules(task: CountdownTask) -> dict[str, int]:
    return {name: getattr(task.config, name) for name in RULES}


def _problem(numbers: tuple[int, ...], target: int) -> PublicProblem:
    return PublicProblem("p", write_prompt(numbers, target))


def _play(numbers: tuple[int, ...], task: CountdownTask, rng: np.random.Generator) -> list[str]:
    """Words of a random legal answer, drawn by the reference."""
    values, words = [Fraction(n) for n in numbers], []
    rules = _rules(task)
    while len(values) > 1:
        options = list(truth.moves(values, rules["bound"], rules["zero"], rules["fractions"]))
        a, op, b, c, values = options[rng.integers(len(options))]
        words += [str(a), op, str(b), *(["="] if rules["equals"] else []), str(c)]
    return words


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("numbers", [(1, 10, 10), (2, 3, 6), (5, 5, 5), (1, 1, 2), (3, 8)])
def test_a_text_is_ongoing_exactly_when_some_legal_answer_begins_with_it(
    variant: str, numbers: tuple[int, ...]
) -> None:
    task = _task(variant)
    answers = truth.all_answers(numbers, **_rules(task))
    assert answers
    target = int(max(answers.values()))
    problem = _problem(numbers, target)
    prefixes = {answer[:n] for answer in answers for n in range(len(answer) + 1)}
    texts = set(prefixes)
    for prefix in prefixes:
        texts.update(prefix + symbol for symbol in "0123456789+-*/= x")
    texts.discard(" ")  # the one leading space that is allowed; two are not
    assert task.verdict(problem, "  ") == FAILED
    for text in texts:
        if text.rstrip() in answers:
            expected = SOLVED if answers[text.rstrip()] == target else FAILED
        else:
            expected = ONGOING if text in prefixes else FAILED
        assert task.verdict(problem, text) == expected, text
        assert task.verdict(problem, " " + text) == expected, text


@pytest.mark.parametrize("variant", VARIANTS)
@given(data=st.data())
def test_random_play_is_accepted_at_each_prefix_and_no_corruption_passes(
    variant: str, data: st.DataObject
) -> None:
    task = _task(variant)
    rules = _rules(task)
    numbers = tuple(data.draw(st.lists(st.integers(1, 10), min_size=2, max_size=5)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    words = _play(numbers, task, rng)
    value = truth.final_value(words, numbers, **rules)
    assert value is not None
    target = int(value) if value.denominator == 1 and value > 0 and data.draw(st.booleans()) else 997
    problem = _problem(numbers, target)
    end = SOLVED if value == target else FAILED

    pieces = [word + " " for word in words]
    *partial, whole = accumulate(pieces)
    assert [task.verdict(problem, text) for text in ["", *partial]] == [ONGOING] * len(words)
    text = " ".join(words)
    assert all(task.verdict(problem, text[:n]) == ONGOING for n in range(len(text)))
    for finished in (text, whole, text + "\n"):
        assert task.verdict(problem, finished) == end
        assert task.score(Problem(problem), finished) == end.score
    assert task.verdict(problem, whole + "1") == FAILED

    place = data.draw(st.integers(0, len(words) - 1))
    other = data.draw(st.sampled_from([*map(str, range(30)), *"+-*/=", "x", "", "07", "-1", "2/4", words[0]]))
    corrupt = [*words[:place], other, *words[place + 1 :]]
    legal = truth.final_value(corrupt, numbers, **rules)
    expected = FAILED if legal is None or legal != target else SOLVED
    assert task.verdict(problem, " ".join(corrupt) + " ") == expected
    assert task.score(Problem(problem), " ".join(corrupt)) == expected.score


def test_a_wrong_word_is_caught_as_soon_as_it_is_written() -> None:
    task = CountdownTask()
    problem = _problem((4, 7, 8, 10), 24)
    for bad in (
        "3",
        "4 7",
        "4 %",
        "4 * 4",
        "7 - 8",
        "8 / 7",
        "4 * 7 27",
        "4 * 7 2 ",
        "4 * 7 28 4",
        "44",
        ".",
    ):
        assert task.verdict(problem, bad) == FAILED, bad
        assert task.verdict(problem, bad[:-1]) == ONGOING, bad
    for good in ("1", "4 ", "4 * 7 2", "8 / 4", "4 * 7 28 2"):
        assert task.verdict(problem, good) == ONGOING, good


def test_zero_and_the_bound() -> None:
    problem = _problem((6, 6, 10, 10), 40)
    assert CountdownTask().verdict(problem, "6 - 6") == FAILED
    assert CountdownTask(CountdownConfig(zero=True)).verdict(problem, "6 - 6 0 0 * 10 0 ") == ONGOING
    assert CountdownTask().verdict(problem, "10 * 10 100 ") == ONGOING
    assert CountdownTask(CountdownConfig(bound=99)).verdict(problem, "10 * 10") == FAILED


def test_the_last_result_ends_the_answer_without_waiting_for_a_space() -> None:
    task = CountdownTask()
    problem = _problem((2, 12), 24)
    assert task.verdict(problem, "2 * 12 2") == ONGOING
    assert task.verdict(problem, "2 * 12 24") == SOLVED
    assert task.verdict(problem, "2 * 12 24 \n") == SOLVED
    assert task.verdict(problem, "2 + 12 14") == FAILED
    assert task.verdict(problem, "2 * 12 240") == FAILED
    assert task.score(Problem(problem), "2 * 12 2") == 0.0


@given(text=st.text(max_size=60))
def test_no_text_makes_verdict_or_score_raise(text: str) -> None:
    task = _task("all")
    problem = _problem((1, 2, 3, 4), 24)
    assert task.verdict(problem, text).score in (None, 0.0)
    assert task.score(Problem(problem), text) == 0.0


def test_a_prompt_that_is_not_countdown_is_an_input_error() -> None:
    for prompt in (
        "hello",
        "4 7 -> :",
        "4 -> 24 :",
        "4 7 -> 24",
        "4  7 -> 24 :",
        " ".join("1" * 9) + " -> 9 :",
    ):
        with pytest.raises(InputError, match="not a Countdown problem"):
            CountdownTask().verdict(PublicProblem("p", prompt), "")


@pytest.mark.parametrize("variant", VARIANTS)
def test_demonstrations_are_legal_play_on_training_prompts(variant: str) -> None:
    task = CountdownTask(CountdownConfig(**VARIANTS[variant], train=50, validation=5, test=5))
    pairs = task.demonstrations(200, np.random.default_rng(3))
    assert pairs == task.demonstrations(200, np.random.default_rng(3))
    assert pairs != task.demonstrations(200, np.random.default_rng(4))
    training = {problem.public.prompt for problem in task.problems("train")}
    assert {prompt for prompt, _ in pairs} <= training
    for prompt, answer in pairs:
        numbers = tuple(map(int, prompt.split(" -> ")[0].split()))
        assert truth.final_value(answer.split(" "), numbers, **_rules(task)) is not None


def test_demonstrations_draw_each_first_step_equally_often_and_rarely_solve() -> None:
    task = CountdownTask(
        CountdownConfig(numbers=2, low=4, high=4, target_low=1, target_high=20, train=1, test=0, validation=0)
    )
    counts: dict[str, int] = {}
    for _, answer in task.demonstrations(3000, np.random.default_rng(0)):
        counts[answer] = counts.get(answer, 0) + 1
    assert set(counts) == {"4 + 4 8", "4 * 4 16", "4 / 4 1"}
    assert all(abs(count - 1000) < 120 for count in counts.values())
    default = CountdownTask()
    pairs = default.demonstrations(3000, np.random.default_rng(0))
    luck = np.mean([default.score(Problem(PublicProblem("p", prompt)), answer) for prompt, answer in pairs])
    assert 0.04 < luck < 0.07


def test_no_training_problems_means_no_demonstrations() -> None:
    with pytest.raises(InputError, match="train is 0"):
        CountdownTask(CountdownConfig(train=0)).demonstrations(1, np.random.default_rng(0))


def test_augment_reorders_the_numbers_and_nothing_else() -> None:
    task = CountdownTask()
    rng = np.random.default_rng(0)
    seen = {task.augment("1 2 2 3 -> 12 :", rng) for _ in range(300)}
    assert len(seen) == 12  # 4! / 2!
    assert all(sorted(prompt.split(" -> ")[0].split()) == ["1", "2", "2", "3"] for prompt in seen)
    assert all(prompt.endswith(" -> 12 :") for prompt in seen)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_vocabulary_and_length_limit_hold_for_prompts_and_random_play(variant: str) -> None:
    task = CountdownTask(CountdownConfig(**VARIANTS[variant], train=300, validation=5, test=5))
    spec = task.tokenizer_spec()
    limit = task.max_answer_tokens
    if spec["kind"] == "words":
        known = set(spec["words"])
        assert len(known) == len(spec["words"])
        assert limit == 3 * (5 if task.config.equals else 4) + 1
    else:
        known = set(spec["alphabet"])
        assert len(known) == len(spec["alphabet"])
    for prompt, answer in task.demonstrations(500, np.random.default_rng(0)):
        tokens = answer.split(" ") if spec["kind"] == "words" else list(answer)
        assert len(tokens) < limit
        assert set(tokens) <= known
        assert set(prompt.split(" ") if spec["kind"] == "words" else prompt) <= known


@pytest.mark.parametrize("variant", ["fractions", "all"])
def test_the_character_limit_holds_for_every_answer_to_small_problems(variant: str) -> None:
    for high in (3, 9, 10, 13):
        config = CountdownConfig(**VARIANTS[variant], numbers=3, high=high)
        for numbers in (
            (high, high, high),
            (1, high, high),
            (high - 1, high, high),
            (high - 2, high - 1, high),
        ):
            longest = max(map(len, truth.all_answers(numbers, **_rules(CountdownTask(config)))))
            assert longest < CountdownTask(config).max_answer_tokens


def test_a_task_survives_a_trip_to_another_process() -> None:
    task = CountdownTask(CountdownConfig(train=20, validation=2, test=2))
    copy = pickle.loads(pickle.dumps(task))  # noqa: S301  (our own bytes, as multiprocessing sends them)
    assert copy.problems("test") == task.problems("test")
