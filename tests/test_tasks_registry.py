"""Tasks by name."""

from __future__ import annotations

import pytest
from tiny import Mirror

from tokenzero.mcts.errors import InputError
from tokenzero.tasks import (
    GAME24,
    ArithmeticConfig,
    ArithmeticTask,
    CountdownConfig,
    CountdownTask,
    MazeConfig,
    MazeTask,
    get_task,
)


def test_presets_and_options() -> None:
    default = get_task("countdown")
    assert isinstance(default, CountdownTask)
    assert default.config == CountdownConfig()
    assert default.name == "countdown"
    assert default.public_verifier is True
    changed = get_task("game24", seed=3, test=10)
    assert isinstance(changed, CountdownTask)
    assert changed.config == CountdownConfig(**{**vars(GAME24), "seed": 3, "test": 10})
    assert changed.name == changed.problems("test")[0].public.tag == "game24"


def test_mazes() -> None:
    task = get_task("maze", size=8)
    assert isinstance(task, MazeTask)
    assert task.config == MazeConfig(size=8)
    assert task.name == "maze"
    with pytest.raises(InputError, match="task maze has no option 'sise'; did you mean 'size'"):
        get_task("maze", sise=8)


def test_arithmetic() -> None:
    task = get_task("arithmetic", digits=2, reverse=True)
    assert isinstance(task, ArithmeticTask)
    assert task.config == ArithmeticConfig(digits=2, reverse=True)
    with pytest.raises(InputError, match="task arithmetic has no option 'digit'; did you mean 'digits'"):
        get_task("arithmetic", digit=2)


def test_unknown_names_get_the_nearest_known_one() -> None:
    with pytest.raises(InputError, match="'countdwn' does not exist; did you mean 'countdown'"):
        get_task("countdwn")
    with pytest.raises(InputError, match="use one of countdown, game24, maze, arithmetic, gsm8k, aqua"):
        get_task("zzz")
    with pytest.raises(InputError, match="no option 'number'; did you mean 'numbers'"):
        get_task("countdown", number=3)
    with pytest.raises(InputError, match="no option 'parttial'; did you mean 'partial'"):
        get_task("reasoning-gym:chain_sum", parttial=True)


@pytest.mark.parametrize("name", ["gsm8k", "aqua", "question-answer"])
def test_tasks_on_text(name: str) -> None:
    task = get_task(name, seed=3)
    assert task.name == name
    assert task.public_verifier is False
    with pytest.raises(
        InputError, match=f"task {name} has no option 'train_file'; did you mean 'train_files'"
    ):
        get_task(name, train_file="a.jsonl")


def test_a_class_of_ones_own_is_a_task_with_its_options() -> None:
    assert isinstance(get_task("tiny:Mirror"), Mirror)
    assert get_task("tokenzero.answer_limits:FreeText", max_answer_tokens=7).max_answer_tokens == 7
    with pytest.raises(InputError, match=r"'tiny:Nobody'.* has no function 'Nobody'"):
        get_task("tiny:Nobody")
    with pytest.raises(InputError, match="'nowhere:Task' cannot be imported"):
        get_task("nowhere:Task")
    with pytest.raises(InputError, match="makes a int; name a subclass"):
        get_task("builtins:int")
