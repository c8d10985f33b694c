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
from tokenzero.policy.sequence_packing import Layout, cells_of, pack, pad, place
from tokenzero.policy.tree_packing import PackedTrees, forest
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


def laid_out(layout_of: Callable[[Any], Layout] = pad) -> Callable[..., PackedTrees]:
    """A `Pack` without a model: by ``layout_of``, and with no mask."""

    def lay(ids: Any, parents: Any) -> PackedTrees:
        trees = forest(parents)
        layout = layout_of(trees.sizes)
        tokens, positions = place(ids, layout, STUDENT.pad_id)
        cells = cells_of(layout, trees.sizes)
        positions.reshape(-1)[cells] = trees.depths
        return PackedTrees(torch.from_numpy(tokens), torch.from_numpy(positions), None, cells)

    return lay


def located(batch: Batch, cells: torch.Tensor) -> list[tuple[int, int]]:
    """(episode, position in it) of each cell."""
    assert batch.packed.positions is not None
    first = batch.packed.positions.flatten()[torch.from_numpy(batch.packed.cells)] == 0
    row = np.cumsum(first.numpy()) - 1
    place = np.arange(len(row)) - np.flatnonzero(first.numpy())[row]
    where = dict(
        zip(batch.packed.cells.tolist(), zip(row.tolist(), place.tolist(), strict=True), strict=True)
    )
    return [where[cell] for cell in cells.tolist()]


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
    batch = replay.batch(np.asarray(picks), None, np.random.default_rng(0), laid_out(layout_of))
    ids, covered, first = (
        batch.packed.ids.flatten(),
        torch.zeros(batch.packed.ids.numel(), dtype=torch.bool),
        0,
    )
    policy, values = set(), {}
    for row, pick in enumerate(picks):
        episode = episodes[pick]
        own = torch.from_numpy(batch.packed.cells[first : first + len(episode.tokens)])
        first += len(episode.tokens)
        assert ids[own].tolist() == episode.tokens
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
    assert set(ids[~covered].tolist()) <= {STUDENT.pad_id}
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
        batch = replay.batch(np.asarray([0]), None, np.random.default_rng(0), laid_out())
        assert ((0, 6, ((EOS, 1.0),), 1.0) in policy_targets(batch)) == expected
    told = make_episode(answer=[6, EOS])
    replay = Replay([told], STUDENT, lost_weight=1.0, root_value_mix=0.0)
    batch = replay.batch(np.asarray([0]), None, np.random.default_rng(0), laid_out())
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
    same = replay.batch(np.zeros(40, np.int64), None, rng, laid_out())
    other = replay.batch(np.zeros(40, np.int64), task, rng, laid_out())
    assert other.packed.ids.shape == same.packed.ids.shape
    assert (other.packed.ids[:, len(head) :] == same.packed.ids[:, len(head) :]).all()
    assert (other.packed.ids[:, 0] == tokenizer.bos_token_id).all()
    prompts = {tokenizer.decode(row[1 : len(head)]) for row in other.packed.ids.tolist()}
    assert len(prompts) == 6
    assert all(sorted(text.split()) == sorted(prompt.split()) and text.endswith("-> 9 :") for text in prompts)
    assert policy_targets(other) == policy_targets(same)
    again = replay.batch(np.zeros(40, np.int64), task, np.random.default_rng(5), laid_out())
    repeat = replay.batch(np.zeros(40, np.int64), task, np.random.default_rng(5), laid_out())
    assert (again.packed.ids == repeat.packed.ids).all()


def test_longer_equivalents_move_the_targets_along() -> None:
    class Longer(Mirror):
        def augment(self, prompt: str, rng: np.random.Generator) -> str:
            return prompt + "ff" if prompt == "abc" else prompt

    replay = Replay([make_episode(), make_episode("d")], STUDENT, lost_weight=1.0, root_value_mix=0.0)
    batch = replay.batch(np.asarray([0, 1]), Longer(), np.random.default_rng(0), laid_out())
    assert batch.packed.ids[0].tolist() == [1, 4, 5, 6, 9, 9, 6, 5, 4]
    assert batch.packed.ids[1].tolist() == [1, 7, 6, 5, 4, 0, 0, 0, 0]
    both = [(0, 5), (0, 6), (0, 7), (0, 8), (1, 1), (1, 2), (1, 3), (1, 4)]
    assert located(batch, batch.cells) == both
    assert located(batch, batch.value_cells) == both


def tree_episode(**changes: Any) -> Episode:
    """Prompt "abc"; below it 6 and 7; below 6 the ends 4 (won) and 5 (won); below 7 a dead 8 and a live 9.

    States: 0 prompt, 1 "6", 2 "7", 3 "64", 4 "65", 5 "78", 6 "79".
    """
    base = make_episode(
        answer=[6, 7, 4, 5, 8, 9],
        parents=[-1, -1, 0, 0, 1, 1],
        positions=[3, 4],
        actions=[[6], [4, 5]],
        weights=[[1.0], [0.5, 0.5]],
        importance=[2.0, 2.0],
        attribution=[[1.0]] * 2,
        root_values=[1.0, 1.0, 0.25, 1.0, 1.0, -1.0, 0.5],
    )
    return Episode(**{**vars(base), **changes})


def test_every_state_of_a_tree_is_trained_once() -> None:
    replay = Replay([tree_episode(), make_episode()], STUDENT)
    batch = replay.batch(np.asarray([0, 1]), None, np.random.default_rng(0), laid_out())
    assert batch.packed.positions is not None
    assert batch.packed.positions[0].tolist() == [0, 1, 2, 3, 4, 4, 5, 5, 5, 5]
    tree = {target for target in policy_targets(batch) if target[0] == 0}
    end = ((EOS, 1.0),)
    assert tree == {
        (0, 3, ((6, 1.0),), 2.0),
        (0, 4, ((4, 0.5), (5, 0.5)), 2.0),
        (0, 6, end, 1.0),
        (0, 7, end, 1.0),
    }
    values = dict(zip(located(batch, batch.value_cells), batch.value_targets.tolist(), strict=True))
    assert [values[0, place] for place in range(3, 10)] == [1.0, 1.0, 0.25, 1.0, 1.0, -1.0, 0.5]
    assert replay.states == 7 + 4


def test_a_tree_is_thinned_to_what_teaches_the_policy_and_a_few_more() -> None:
    for seed in range(8):
        replay = Replay([tree_episode()], STUDENT, value_states=1, rng=np.random.default_rng(seed))
        batch = replay.batch(np.zeros(1, np.int64), None, np.random.default_rng(0), laid_out())
        kept = batch.packed.ids[0].tolist()[4:]
        assert [token for token in kept if token in (6, 4, 5)] == [6, 4, 5]
        # One of "7", "78" and "79" is drawn, and "7" stands above the other two.
        assert sorted(set(kept) - {6, 4, 5}) in ([7], [7, 8], [7, 9])
        assert len(policy_targets(batch)) == 4
    lost = tree_episode(outcome=-1.0, positions=[], actions=[], weights=[], importance=[], attribution=[],
                        root_values=[-0.5, -0.5, 0.25, -1.0, -1.0, -1.0, 0.5])  # fmt: skip
    none = Replay([lost], STUDENT, value_states=0, rng=np.random.default_rng(0))
    assert none.states == 1
    assert none.taught.tolist() == []
    assert Replay([lost, tree_episode()], STUDENT).taught.tolist() == [1]


def test_sharpness_and_counts_change_the_targets_of_trees() -> None:
    skewed = tree_episode(weights=[[1.0], [0.8, 0.2]])
    replay = Replay([skewed], STUDENT, sharpness=2.0, count_exponent=0.0)
    batch = replay.batch(np.zeros(1, np.int64), None, np.random.default_rng(0), laid_out())
    assert batch.importance.tolist() == [1.0] * 4
    assert sorted(batch.weights[1].tolist()) == pytest.approx([0.04 / 0.68, 0.64 / 0.68])


def test_no_episodes_are_refused() -> None:
    with pytest.raises(InputError, match="no episodes"):
        Replay([], STUDENT, lost_weight=1.0, root_value_mix=0.0)
