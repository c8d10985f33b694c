"""Mazes: problems that can be solved, verdicts of a plain reading, tokens that say the same as texts."""

from __future__ import annotations

import pickle
import re
from typing import Any

import maze_truth as truth
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_student

from tokenzero.mcts.errors import InputError
from tokenzero.policy.pieces import Pieces
from tokenzero.policy.tokenizers import encode_prompt, from_spec
from tokenzero.tasks import (
    FAILED,
    ONGOING,
    SOLVED,
    SPLITS,
    MazeConfig,
    MazeTask,
    Problem,
    PublicProblem,
    Verdict,
)
from tokenzero.tasks.maze_problems import GOAL, cell_names, distances, read_prompt, write_prompt

SMALL = {"train": 60, "validation": 20, "test": 20}
TASKS = [
    MazeTask(MazeConfig(size=size, walls=walls, max_moves=moves, **SMALL))
    for size, walls, moves in ((3, 0.2, 7), (4, 0.1, 12), (6, 0.3, 0), (8, 0.3, 20), (12, 0.3, 31))
]
CORRIDOR = PublicProblem("p", "Aa Ab Ac\n# # Bc\nCa Cb Cc\nAa -> Ca :")
FORK = PublicProblem("p", "Aa Ab Ac\nBa # Bc\nCa # Cc\nAb -> Cc :")


def verdict_of(score: float | None) -> Verdict:
    """The verdict with this score."""
    return ONGOING if score is None else SOLVED if score else FAILED


def random_grid(size: int, rng: np.random.Generator) -> str:
    """Any grid with a start and a goal, solvable or not."""
    names = np.asarray(cell_names(size))
    start, goal = rng.choice(size * size, 2, replace=False)
    wall = rng.random(size * size) < 0.4
    wall[[start, goal]] = False
    rows = np.where(wall, "#", names).reshape(size, size).tolist()
    return "\n".join([*map(" ".join, rows), f"{names[start]} -> {names[goal]} :"])


@pytest.mark.parametrize("task", TASKS)
def test_every_problem_can_be_solved_within_the_limits(task: MazeTask) -> None:
    low, high = task.config.shortest
    for split in SPLITS:
        assert len(task.problems(split)) == SMALL[split]
        for problem in task.problems(split):
            ways = truth.shortest(problem.public.prompt)
            assert ways is not None
            assert low <= ways <= high <= task.config.moves
            assert problem.reference is None


def test_no_maze_comes_twice_and_the_same_seed_gives_the_same_mazes() -> None:
    task = MazeTask()
    prompts = {split: [problem.public.prompt for problem in task.problems(split)] for split in SPLITS}
    assert [len(prompts[split]) for split in SPLITS] == [20000, 1000, 1500]
    assert len(set().union(*prompts.values())) == 22500
    ids = {problem.public.id for split in SPLITS for problem in task.problems(split)}
    assert len(ids) == 22500
    fewer = MazeTask(MazeConfig(train=500, validation=1000, test=1500))
    assert fewer.problems("test") == task.problems("test")
    assert fewer.problems("train") == task.problems("train")[:500]
    other = MazeTask(MazeConfig(seed=1))
    assert not {problem.public.prompt for problem in other.problems("test")} & set(prompts["test"])


def test_a_small_space_gives_up_with_a_way_out() -> None:
    config = MazeConfig(size=3, walls=0.0, shortest_low=4, shortest_high=4, max_moves=8, **SMALL)
    with pytest.raises(InputError, match=r"maze test is 20, but only 4 mazes like these were found"):
        MazeTask(config).problems("train")


@given(seed=st.integers(0, 2**32), size=st.integers(3, 8))
def test_prompts_survive_a_round_trip_and_distances_are_those_of_a_queue(seed: int, size: int) -> None:
    prompt = random_grid(size, np.random.default_rng(seed))
    grid = read_prompt(prompt, size)
    assert write_prompt(grid) == prompt
    assert (read_prompt(prompt.replace("\n", "  "), size) == grid).all()
    found = distances(grid[np.newaxis], 40)[0][grid == GOAL].item()
    assert found == (truth.shortest(prompt) or 41)


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=30)
@given(data=st.data())
def test_verdicts_are_those_of_a_plain_reading(task: MazeTask, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    made = data.draw(st.booleans())
    prompt = task.problems("train")[7].public.prompt if made else random_grid(task.config.size, rng)
    problem, limit, route = PublicProblem("p", prompt), task.config.moves, list[str]()
    while truth.score(prompt, route, limit) is None:
        assert task.verdict(problem, " ".join(route)) == ONGOING
        assert task.verdict(problem, " ".join([*route, "A"])) == ONGOING
        assert task.verdict(problem, " ".join([*route, "a"])) == FAILED
        beside = truth.legal(prompt, route)
        for name in {*beside, *rng.choice(cell_names(task.config.size), 4).tolist(), "Zz", "aA", "#", "->"}:
            expected = verdict_of(truth.score(prompt, [*route, name], limit))
            assert task.verdict(problem, " ".join([*route, name])) == expected, name
        route.append(str(rng.choice(beside)))
    end = verdict_of(truth.score(prompt, route, limit))
    for text in ("".join(route), " ".join(route), " " + " ".join(route) + " \n"):
        assert task.verdict(problem, text) == end
        assert task.score(Problem(problem), text) == end.score
    for more in (*cell_names(task.config.size), "A", "x", ":"):
        assert task.verdict(problem, " ".join([*route, more])) == FAILED


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=30)
@given(data=st.data())
def test_tokens_say_the_same_as_texts(task: MazeTask, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    pieces = ["", *(f"{word} " for word in task.tokenizer_spec()["words"]), " ", "Zz", "A!", "\u00e9", "Aa"]
    problems = [PublicProblem("p", random_grid(task.config.size, rng)) for _ in range(6)]
    problems += [problem.public for problem in task.problems("test")[:14]]
    automaton = task.automaton(pieces)
    assert automaton is not None
    automaton.begin(problems[::-1])
    states, goals = automaton.begin(problems)
    texts = [""] * len(problems)
    while len(states):
        odd = rng.random(len(states)) < 0.1
        # mostly legal moves, so that some answers are long
        routes = [re.findall("..", text.replace(" ", "")) for text in texts]
        moves = [truth.legal(p.prompt, route) for p, route in zip(problems, routes, strict=True)]
        usual = [pieces.index(f"{rng.choice(some)} " if some else "# ") for some in moves]
        tokens = np.where(odd, rng.integers(len(pieces), size=len(states)), usual)
        states, found = automaton.advance(states, tokens, goals)
        texts = [text + pieces[token] for text, token in zip(texts, tokens.tolist(), strict=True)]
        expected = [task.verdict(problem, text) for problem, text in zip(problems, texts, strict=True)]
        np.testing.assert_array_equal(found.done, [verdict.done for verdict in expected])
        np.testing.assert_array_equal(found.score, np.asarray([v.score for v in expected], np.float64))
        on = np.flatnonzero(~found.done)
        states, goals = states[on], goals[on]
        texts, problems = [texts[i] for i in on], [problems[i] for i in on]


def test_tokens_that_are_parts_of_cells_or_several_are_read_as_texts() -> None:
    for piece in ("A", "AaA", "AaAb", "a A", " b"):
        assert TASKS[0].automaton(["Aa ", piece]) is None
    assert TASKS[0].automaton(["Aa ", " Ab", "Da", "->"]) is not None  # 3 x 3 cells have no row D


def test_many_mazes_in_one_automaton_do_not_get_mixed_up() -> None:
    task = MazeTask(MazeConfig(train=300, validation=1, test=1))
    names = cell_names(6)
    automaton = task.automaton(names)
    assert automaton is not None
    goals = np.concatenate([automaton.begin([problem.public])[1] for problem in task.problems("train")])
    assert len(set(goals.tolist())) == 300
    for number, name in enumerate(names):
        _, found = automaton.advance(np.ones(300, np.int64), np.full(300, number), goals)
        expected = [task.verdict(problem.public, name).done for problem in task.problems("train")]
        assert found.done.tolist() == expected


def test_a_way_that_is_cut_off_goes_on_until_it_is_stuck() -> None:
    task = MazeTask(MazeConfig(size=3, shortest_low=1, shortest_high=6))
    verdicts = {
        "Aa": ONGOING,
        "Aa Ba": ONGOING,
        "Aa Ba Ca": FAILED,
        "Ac Bc": ONGOING,
        "Ac Bc Cc": SOLVED,
        "Ac Bc Cc Cb": FAILED,
        "Bb": FAILED,  # a wall
        "Bc": FAILED,  # across a corner
        "Aa Ab": FAILED,  # back to the start
    }
    assert {text: task.verdict(FORK, text) for text in verdicts} == verdicts
    assert task.verdict(PublicProblem("p", "Aa # Ac\n# # Bc\nCa Cb Cc\nAa -> Cc :"), "") == FAILED


def test_a_step_does_not_lead_around_the_edge() -> None:
    problem = PublicProblem("p", "Aa Ab Ac\nBa Bb Bc\nCa Cb Cc\nAc -> Ca :")
    task = MazeTask(MazeConfig(size=3, shortest_low=1, shortest_high=6))
    assert task.verdict(problem, "Ba") == task.verdict(problem, "Cc") == FAILED


def test_the_last_move_may_solve_but_not_go_on() -> None:
    def task(moves: int) -> MazeTask:
        return MazeTask(MazeConfig(size=3, shortest_low=1, shortest_high=4, max_moves=moves))

    assert task(6).verdict(CORRIDOR, "Ab Ac Bc Cc Cb Ca") == SOLVED
    assert task(5).verdict(CORRIDOR, "Ab Ac Bc Cc Cb") == FAILED
    assert task(6).verdict(CORRIDOR, "Ab Ac Bc Cc Cb") == ONGOING
    assert task(6).max_answer_tokens == 7


@given(text=st.text(max_size=60) | st.text(alphabet="ABCabc ", max_size=40))
def test_no_text_makes_verdict_or_score_raise(text: str) -> None:
    task = TASKS[2]
    problem = task.problems("test")[0]
    assert task.verdict(problem.public, text).score in (None, 0.0, 1.0)
    assert task.score(problem, text + "!") == 0.0


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "hello",
        "Aa Ab Ac Ba Bb Bc Ca Cb Cc Aa -> Cc",
        "Aa Ab Ac Ba Bb Bc Ca Cb Cc Aa -> Aa :",
        "Aa Ab Ac Ba Bb Bc Ca Cb # Aa -> Cc :",
        "Aa Ab Ac Ba Bb Bc Ca Cb # Aa -> # :",
        "Aa Ab Ac Ba Bb Bc Ca Cb Cb Aa -> Cb :",
        "Aa Ab Ac Ba Bb Bc Ca Cb Aa -> Cb :",
        "Aa Ab Ac Ba Bb Bc Ca Cb Cc Aa Cb :",
    ],
)
def test_a_prompt_that_is_not_such_a_maze_is_an_input_error(prompt: str) -> None:
    task = TASKS[0]
    with pytest.raises(InputError, match="not a maze of 3 x 3 cells"):
        task.verdict(PublicProblem("p", prompt), "")
    automaton = task.automaton(["Aa"])
    assert automaton is not None
    with pytest.raises(InputError, match="not a maze of 3 x 3 cells"):
        automaton.begin([PublicProblem("p", prompt)])


@pytest.mark.parametrize("task", TASKS)
def test_demonstrations_are_legal_play_to_the_end_on_training_prompts(task: MazeTask) -> None:
    pairs = task.demonstrations(200, np.random.default_rng(3))
    assert pairs == task.demonstrations(200, np.random.default_rng(3))
    assert pairs != task.demonstrations(200, np.random.default_rng(4))
    assert {prompt for prompt, _ in pairs} <= {problem.public.prompt for problem in task.problems("train")}
    for prompt, answer in pairs:
        route = answer.split(" ")
        assert truth.score(prompt, route, task.config.moves) is not None
        assert all(name in truth.legal(prompt, route[:place]) for place, name in enumerate(route))


def test_demonstrations_draw_each_move_equally_often_and_rarely_solve() -> None:
    config = MazeConfig(size=3, walls=0.0, shortest_low=4, shortest_high=4, train=1, validation=0, test=0)
    first = [answer[:2] for _, answer in MazeTask(config).demonstrations(2000, np.random.default_rng(0))]
    assert len(set(first)) == 2
    assert abs(first.count(first[0]) - 1000) < 120
    for size, low, high in ((6, 0.12, 0.17), (8, 0.03, 0.06)):
        task = MazeTask(MazeConfig(size=size, train=3000, validation=1, test=1))
        pairs = task.demonstrations(3000, np.random.default_rng(0))
        luck = np.mean([task.score(Problem(PublicProblem("p", prompt)), answer) for prompt, answer in pairs])
        assert low < luck < high


def test_no_training_problems_means_no_demonstrations() -> None:
    with pytest.raises(InputError, match="train is 0"):
        MazeTask(MazeConfig(train=0)).demonstrations(1, np.random.default_rng(0))


def test_a_prompt_is_a_token_per_cell_and_four_more_and_the_vocabulary_is_complete() -> None:
    task = TASKS[2]
    student = make_student(spec=task.tokenizer_spec())
    pieces = Pieces(student.tokenizer)
    for prompt, answer in task.demonstrations(50, np.random.default_rng(0)):
        assert len(encode_prompt(student.tokenizer, prompt)) == 36 + 4 + 1
        tokens = student.tokenizer(answer, add_special_tokens=False)["input_ids"]
        assert pieces.text(tokens).strip() == answer
        assert len(tokens) < task.max_answer_tokens
    assert from_spec(task.tokenizer_spec()).vocab_size == 4 + 36 + 3
    assert task.augment(prompt, np.random.default_rng(0)) == prompt


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 2}, "size is 2; use 3 to 12"),
        ({"size": 13}, "size is 13"),
        ({"size": 6.0}, "size is 6.0; give a value of type int"),
        ({"walls": 1.0}, r"walls is 1.0; use 0 or more, below 1"),
        ({"shortest_low": 9, "shortest_high": 8}, r"shortest_low is 9; use 1 to shortest_high \(8\)"),
        ({"shortest_high": 21}, r"shortest_high is 21; use at most max_moves \(20\)"),
        ({"max_moves": 32}, "max_moves is 32; use 0 to 31"),
        ({"max_moves": -1}, "max_moves is -1"),
        ({"train": -1}, "train is -1; use 0 or more"),
    ],
)
def test_settings_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match="maze " + message):
        MazeConfig(**options)


def test_a_task_survives_a_trip_to_another_process() -> None:
    copy = pickle.loads(pickle.dumps(TASKS[0]))  # noqa: S301  (our own bytes, as multiprocessing sends them)
    assert copy.problems("test") == TASKS[0].problems("test")
