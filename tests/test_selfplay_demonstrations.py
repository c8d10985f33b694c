"""Demonstrations become sequences for the warm start and episodes for the value head."""

from __future__ import annotations

import numpy as np
from tiny import make_student

from tokenzero.selfplay.demonstrations import demonstrate, examples
from tokenzero.tasks import CountdownConfig, CountdownTask, PublicProblem

TASK = CountdownTask(CountdownConfig(train=50, validation=5, test=5))
STUDENT = make_student(spec=TASK.tokenizer_spec())


def test_an_episode_tells_what_was_written_and_what_it_came_to() -> None:
    made = demonstrate(TASK, STUDENT, 300, np.random.default_rng(0))
    pairs = TASK.demonstrations(300, np.random.default_rng(0))
    assert [(episode.prompt, episode.answer) for episode in made] == pairs
    assert {episode.outcome for episode in made} == {-1.0, 1.0}
    for episode in made:
        answer = episode.tokens[episode.prompt_len :]
        assert STUDENT.tokenizer.decode(answer) == episode.answer
        assert [actions for [actions] in episode.actions] == answer
        assert episode.positions == list(range(episode.prompt_len - 1, len(episode.tokens) - 1))
        won = TASK.verdict(PublicProblem("", episode.prompt), episode.answer).score == 1.0
        assert (episode.outcome > 0) == won


def test_sequences_for_the_warm_start_end_with_the_end_mark() -> None:
    made = demonstrate(TASK, STUDENT, 5, np.random.default_rng(1))
    for episode, example in zip(made, examples(made, STUDENT), strict=True):
        assert example.tokens == [*episode.tokens, STUDENT.eos_id]
        assert example.prompt_length == episode.prompt_len
    assert demonstrate(TASK, STUDENT, 0, np.random.default_rng(1)) == []
