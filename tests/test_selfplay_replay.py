"""Training batches against a plain construction from the episodes, one position at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import Mirror, make_student

from tokenzero.mcts.errors import InputError
from tokenzero.policy.sequence_packing import Layout, pack, pad
from tokenzero.selfplay.episode import Episode
from tokenzero.selfplay.replay import Batch, Replay
from tokenzero.tasks import CountdownConfig, CountdownTask

STUDENT = make_student()
EOS = 2


def make_episode(
    prompt: str = "abc", answer: list[int] | None = None, outcome: float = 1.0, **changes: Any
) -> Episode:
    head = STUDENT.tokenizer(prompt).input_ids
    answer = [6, 5, 4] if answer is None else answer
    searched = changes.pop("searched", len(answer))
    values: dict[str, Any] = {
        "problem": prompt,
        "prompt": prompt,
        "answer": "",
        "tokens": [*head, *answer],
        "prompt_len": len(head),
        "positions": [len(head) - 1 + index for index in range(searched)],
        "actions": [[token, 9] if token != 9 else [9] for token in answer[:searched]],
        "weights": [[0.75, 0.25] if token != 9 else [1.0] for token in answer[:searched]],
        "root_values": [0.125 * index for index in range(searched)],
        "attribution": [[1.0]] * searched,
        "outcome": outcome,
        "forwarded_tokens": 1,
        "simulations": 1,
        "policy_version": 0,
        "seed": 0,
    }
    return Episode(**{**values, **changes})


@st.composite
def episode_lists(draw: st.DrawFn) -> list[Episode]:
    made = []
    for _ in range(draw(st.integers(1, 5))):
        answer = draw(st.lists(st.integers(4, 9), min_size=0, max_size=4))
        if draw(st.booleans()):
            answer.append(EOS)
        prompt = draw(st.text("abcdef", min_size=1, max_size=4))
        searched = draw(st.integers(0, len(answer)))
        made.append(
            make_episode(prompt, answer, draw(st.sampled_from([-1.0, -0.5, 0.5, 1.0])), searched=searched)
        )
    return made


def located(batch: Batch, cells: torch.Tensor) -> list[tuple[int, int]]:
    """(episode, position in it) of each cell."""
    starts = batch.starts.numpy()
    order = np.argsort(starts)
    rows = order[np.searchsorted(starts[order], cells.numpy(), side="right") - 1]
    return list(zip(rows.tolist(), (cells.numpy() - starts[rows]).tolist(), strict=True))


def policy_targets(batch: Batch) -> set[tuple[int, int, tuple[tuple[int, float], ...], float]]:
    found = set()
    for i, (row, column) in enumerate(located(batch, batch.cells)):
        pairs = zip(batch.actions[i].tolist(), batch.weights[i].tolist(), strict=True)
        target = tuple(sorted((action, weight) for action, weight in pairs if weight > 0))
        found.add((row, column, target, float(batch.importance[i])))
    assert len(found) == len(batch.cells)
    return found


@given(
    episode_lists(),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 0.25]),
    st.sampled_from([pad, pack]),
    st.data(),
)
def test_a_batch_is_what_a_plain_loop_builds(
    episodes: list[Episode],
    lost_weight: float,
    mix: float,
    layout_of: Callable[[Any], Layout],
    data: st.DataObject,
) -> None:
    replay = Replay(episodes, STUDENT, lost_weight=lost_weight, root_value_mix=mix)
    assert len(replay) == len(episodes)
    picks = data.draw(st.lists(st.integers(0, len(episodes) - 1), min_size=1, max_size=6))
    batch = replay.batch(np.asarray(picks), None, np.random.default_rng(0), layout_of)
    covered = torch.zeros(batch.ids.numel(), dtype=torch.bool)
    policy, values = set(), {}
    for row, pick in enumerate(picks):
        episode = episodes[pick]
        own = slice(int(batch.starts[row]), int(batch.starts[row]) + len(episode.tokens))
        assert batch.ids.flatten()[own].tolist() == episode.tokens
        if batch.positions is not None:
            assert batch.positions.flatten()[own].tolist() == list(range(len(episode.tokens)))
        assert not covered[own].any()
        covered[own] = True
        won = episode.outcome > 0
        importance = 1.0 if won else lost_weight
        for position, actions, weights in zip(
            episode.positions, episode.actions, episode.weights, strict=True
        ):
            if importance > 0:
                target = tuple(sorted(zip(actions, weights, strict=True)))
                policy.add((row, position, target, importance))
        end = len(episode.tokens) - 1
        if won and episode.tokens[-1] != EOS:
            policy.add((row, end, ((EOS, 1.0),), 1.0))
        for position in range(episode.prompt_len - 1, len(episode.tokens)):
            believed = episode.outcome
            if position in episode.positions:
                believed = episode.root_values[episode.positions.index(position)]
            values[row, position] = (1 - mix) * episode.outcome + mix * believed
    assert set(batch.ids.flatten()[~covered].tolist()) <= {STUDENT.pad_id}
    assert policy_targets(batch) == policy
    found = {
        where: float(target)
        for where, target in zip(located(batch, batch.value_cells), batch.value_targets, strict=True)
    }
    assert found == pytest.approx(values)
    totals = replay.totals(np.asarray(picks))
    assert totals.importance == pytest.approx(sum(target[3] for target in policy))
    assert (totals.positions, totals.values) == (len(policy), len(values))


def test_won_games_teach_the_end_mark_and_lost_games_do_not() -> None:
    for outcome, expected in ((1.0, True), (-1.0, False)):
        replay = Replay([make_episode(outcome=outcome)], STUDENT, lost_weight=1.0, root_value_mix=0.0)
        batch = replay.batch(np.asarray([0]), None, np.random.default_rng(0))
        assert ((0, 6, ((EOS, 1.0),), 1.0) in policy_targets(batch)) == expected
    told = make_episode(answer=[6, EOS])
    replay = Replay([told], STUDENT, lost_weight=1.0, root_value_mix=0.0)
    batch = replay.batch(np.asarray([0]), None, np.random.default_rng(0))
    assert sorted(batch.cells.tolist()) == [3, 4], "an answer with its own end mark needs no second one"


def test_equivalent_prompts_keep_the_answers_and_the_targets() -> None:
    task = CountdownTask(
        CountdownConfig(numbers=3, low=1, high=6, target_low=5, target_high=12, bound=40, train=20)
    )
    student = make_student(spec=task.tokenizer_spec())
    tokenizer = student.tokenizer
    prompt, answer = "1 3 5 -> 9 :", "1 + 3 4 4 + 5 9"
    head, tail = tokenizer(prompt).input_ids, tokenizer.encode(answer, add_special_tokens=False)
    episode = make_episode(
        prompt=prompt,
        tokens=[*head, *tail],
        prompt_len=len(head),
        positions=[len(head) - 1],
        actions=[[tail[0]]],
        weights=[[1.0]],
        root_values=[0.0],
        attribution=[[1.0]],
    )
    replay = Replay([episode], student, lost_weight=1.0, root_value_mix=0.0)
    rng = np.random.default_rng(0)
    same = replay.batch(np.zeros(40, np.int64), None, rng)
    other = replay.batch(np.zeros(40, np.int64), task, rng)
    assert other.ids.shape == same.ids.shape
    assert (other.ids[:, len(head) :] == same.ids[:, len(head) :]).all()
    assert (other.ids[:, 0] == tokenizer.bos_token_id).all()
    prompts = {tokenizer.decode(row[1 : len(head)]) for row in other.ids.tolist()}
    assert len(prompts) == 6
    assert all(sorted(text.split()) == sorted(prompt.split()) and text.endswith("-> 9 :") for text in prompts)
    assert policy_targets(other) == policy_targets(same)
    again = replay.batch(np.zeros(40, np.int64), task, np.random.default_rng(5))
    repeat = replay.batch(np.zeros(40, np.int64), task, np.random.default_rng(5))
    assert (again.ids == repeat.ids).all()


def test_longer_equivalents_move_the_targets_along() -> None:
    class Longer(Mirror):
        def augment(self, prompt: str, rng: np.random.Generator) -> str:
            return prompt + "ff" if prompt == "abc" else prompt

    replay = Replay([make_episode(), make_episode("d")], STUDENT, lost_weight=1.0, root_value_mix=0.0)
    batch = replay.batch(np.asarray([0, 1]), Longer(), np.random.default_rng(0))
    assert batch.ids[0].tolist() == [1, 4, 5, 6, 9, 9, 6, 5, 4]
    assert batch.ids[1].tolist() == [1, 7, 6, 5, 4, 0, 0, 0, 0]
    both = [(0, 5), (0, 6), (0, 7), (0, 8), (1, 1), (1, 2), (1, 3), (1, 4)]
    assert located(batch, batch.cells) == both
    assert located(batch, batch.value_cells) == both


def test_no_episodes_are_refused() -> None:
    with pytest.raises(InputError, match="no episodes"):
        Replay([], STUDENT, lost_weight=1.0, root_value_mix=0.0)
