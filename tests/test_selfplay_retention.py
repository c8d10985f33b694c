"""What is kept suffices to go on from each of the last rounds, and what was deleted is never asked for
again.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.retention import (
    Reach,
    RetentionConfig,
    kept_checkpoints,
    kept_shards,
    milestones,
    window_start,
)


def promoted_always(accuracies: list[float | None]) -> list[dict[str, Any]]:
    return [
        {"round": r, "promoted": True, "incumbent": r, "learner": {"from": r}, "greedy_accuracy": accuracy}
        for r, accuracy in enumerate(accuracies)
    ]


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Records as rounds of promotions, refusals and roll-backs leave them."""
    records = promoted_always([draw(st.none() | st.sampled_from([0.1, 0.2, 0.3]))])
    for number in range(1, draw(st.integers(1, 14))):
        before = records[-1]
        promoted = draw(st.booleans())
        origin = draw(st.sampled_from([number, before["learner"]["from"], before["incumbent"]]))
        records.append(
            {
                "round": number,
                "promoted": promoted,
                "incumbent": number if promoted else before["incumbent"],
                "learner": {"from": number if promoted else origin},
                "greedy_accuracy": draw(st.none() | st.sampled_from([0.1, 0.2, 0.3])),
            }
        )
    return records


configs = st.builds(
    RetentionConfig,
    best=st.integers(0, 2),
    last=st.integers(1, 3),
    every=st.integers(0, 4),
    shards=st.sampled_from(["window", "all"]),
)
reaches = st.builds(Reach, window=st.integers(1, 4), lag=st.integers(0, 3))


@given(histories(), configs, reaches)
def test_any_of_the_last_rounds_can_be_gone_on_from(
    records: list[dict[str, Any]], config: RetentionConfig, reach: Reach
) -> None:
    done = len(records)
    checkpoints, shards = kept_checkpoints(records, config, reach), kept_shards(done, config, reach)
    for end in range(max(0, done - config.last), done):
        needed = {0, end, records[end]["incumbent"], records[end]["learner"]["from"]}
        if reach.lag:  # the round after `end` consults the student of `end - lag`, and later ones later ones
            needed |= {records[r]["incumbent"] for r in range(max(0, end - reach.lag), end + 1)}
        assert needed <= checkpoints
        window = range(window_start(end + 1, reach.window), end + 1)
        assert set(window) <= shards
        assert len(window) == min(end, reach.window - 1)


@given(histories(), configs, reaches)
def test_what_was_deleted_stays_deleted(
    records: list[dict[str, Any]], config: RetentionConfig, reach: Reach
) -> None:
    for done in range(1, len(records)):
        before, after = (kept_checkpoints(records[:n], config, reach) for n in (done, done + 1))
        assert after <= before | {done}
        assert kept_shards(done + 1, config, reach) <= kept_shards(done, config, reach) | {done}


@given(histories(), st.integers(1, 3), reaches)
def test_the_disk_is_bounded(records: list[dict[str, Any]], last: int, reach: Reach) -> None:
    kept = kept_checkpoints(records, RetentionConfig(best=2, last=last), reach)
    assert len(kept) <= 1 + 2 + 3 * last + (reach.lag + last if reach.lag else 0)
    assert len(kept_shards(len(records), RetentionConfig(last=last), reach)) <= reach.window + last


def test_best_last_and_every_by_hand() -> None:
    records = promoted_always([0.9, 0.1, 0.5, 0.3, 0.5, None, 0.2, 0.2, 0.2])
    assert kept_checkpoints(records, RetentionConfig(best=0, last=1), Reach(1)) == {0, 8}
    assert kept_checkpoints(records, RetentionConfig(best=2, last=1), Reach(1)) == {0, 2, 8}, "ties: first"
    assert kept_checkpoints(records, RetentionConfig(best=0, last=2, every=3), Reach(1)) == {0, 3, 6, 7, 8}
    assert kept_checkpoints(records, RetentionConfig(best=0, last=1), Reach(1, lag=2)) == {0, 6, 7, 8}
    assert kept_shards(9, RetentionConfig(last=1), Reach(1)) == frozenset()
    assert kept_shards(9, RetentionConfig(last=2), Reach(3)) == {6, 7, 8}
    assert kept_shards(9, RetentionConfig(shards="all"), Reach(1)) == set(range(1, 9))
    assert milestones(9, RetentionConfig()) == [0]
    assert milestones(9, RetentionConfig(every=4)) == [0, 4, 8]


@pytest.mark.parametrize("wrong", [{"last": 0}, {"best": -1}, {"every": -1}, {"shards": "some"}])
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        RetentionConfig(**wrong)


def test_rounds_that_later_ones_meet_stay() -> None:
    records = promoted_always([None] * 8)
    config = RetentionConfig(best=0, last=1)
    assert kept_checkpoints(records, config, Reach(window=0, rungs=3)) == {0, 3, 6, 7}
    assert kept_checkpoints(records, config, Reach(window=0)) == {0, 7}
    assert kept_shards(8, config, Reach(window=0)) == set()


def test_the_best_may_be_the_least_of_another_score() -> None:
    records = [
        {**record, "nats": nats}
        for record, nats in zip(promoted_always([None] * 4), [3.0, 1.0, 2.0, 2.5], strict=True)
    ]
    config = RetentionConfig(best=1, last=1)
    assert kept_checkpoints(records, config, Reach(window=0, score="nats", low=True)) == {0, 1, 3}
    assert kept_checkpoints(records, config, Reach(window=0, score="nats")) == {0, 3}
    assert kept_checkpoints(records, RetentionConfig(best=2, last=1), Reach(0, score="nats", low=True)) == {
        0,
        1,
        2,
        3,
    }
