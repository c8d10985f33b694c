"""Every family lands in the tier that numbers say it belongs to, and the self-test sees what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny import FAMILIES, MORE_FAMILIES, make_student, plain

from tokenzero.mcts.errors import InputError
from tokenzero.policy import paged_attention
from tokenzero.policy.engine import RecomputeEngine
from tokenzero.policy.gather_attention import GatherWay
from tokenzero.policy.key_value_pool import Batch
from tokenzero.policy.lean_forward import LeanWay
from tokenzero.policy.state_store import StateStore
from tokenzero.policy.student import Output
from tokenzero.policy.tiers import (
    LIMIT,
    TIERS,
    EngineConfig,
    Probe,
    choose,
    is_batch_invariant,
    open_engine,
)
from tokenzero.policy.tree_attention import DenseAttention, PagedAttention, TreeAttentionWay
from tokenzero.policy.tree_engine import TreeEngine

FIRST = [*FAMILIES, "qwen2", "gpt-neox", "gemma3", "phi3", "opt"]
SECOND = ["gemma2", "gptj", "falcon", "mpt"]
THIRD = ["mamba"]


def test_every_family_of_the_tests_is_placed() -> None:
    assert sorted([*FIRST, *SECOND, *THIRD]) == sorted([*FAMILIES, *MORE_FAMILIES])


@pytest.mark.parametrize(
    ("family", "tier"),
    [(f, TIERS[0]) for f in FIRST] + [(f, TIERS[1]) for f in SECOND] + [(f, TIERS[2]) for f in THIRD],
)
def test_the_tier_of_a_family(family: str, tier: str) -> None:
    student = make_student(family)
    choice, way = choose(student)
    assert choice.tier == tier
    assert (way is None) == (tier == TIERS[2])
    assert choice.findings[-1].reason == ""
    assert all(finding.reason for finding in choice.findings[:-1])
    assert choice.way in choice.explain()


@pytest.mark.parametrize("family", [*FIRST, *SECOND, *THIRD])
def test_a_random_forest_in_the_chosen_way_equals_plain_forwards(family: str) -> None:
    from test_policy_engine import grow

    student = make_student(family)
    grow(open_engine(student, EngineConfig(lean=False)), student.vocab_size, seed=7).check(student)


@pytest.mark.parametrize("family", FIRST)
def test_dense_attention_is_right_wherever_the_kernels_are(family: str) -> None:
    student = make_student(family)
    probe = Probe(student)
    way = TreeAttentionWay(student, DenseAttention(), 8)
    assert probe.error(TreeEngine(student, way, slots=8)) <= probe.limit()


def corrupt(monkeypatch: pytest.MonkeyPatch, victim: int) -> None:
    """From now on every path of at least 5 tokens names a wrong slot for one ancestor."""
    right = StateStore.paths

    def wrong(self: StateStore, nodes: Any) -> Any:
        read, lengths = right(self, nodes)
        long = lengths >= 5
        read[long, victim] = read[long, victim + 1]
        return read, lengths

    monkeypatch.setattr(StateStore, "paths", wrong)


@pytest.mark.parametrize("victim", [1, 3])
def test_a_planted_wrong_ancestor_fails_every_fast_way(monkeypatch: pytest.MonkeyPatch, victim: int) -> None:
    corrupt(monkeypatch, victim)
    choice, way = choose(make_student())
    assert way is None
    assert choice.tier == TIERS[2]
    assert [finding.error > 100 * LIMIT for finding in choice.findings[:-1]] == [True, True, True]


def test_a_planted_wrong_ancestor_fails_even_where_weights_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    student = make_student()
    with torch.no_grad():
        for name, parameter in student.model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter.mul_(0.05)  # an ancestor moves the logits by about the limit for large ones
    assert choose(student)[0].tier == TIERS[0]
    corrupt(monkeypatch, 1)
    assert choose(student)[0].tier == TIERS[2]


def test_a_window_that_is_ignored_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    student = make_student("mistral")
    right = paged_attention.Attend.__call__

    def wide(self: Any, query: Any, keys: Any, values: Any, window: int, scale: Any, out: Any) -> None:
        right(self, query, keys, values, paged_attention.NO_WINDOW, scale, out)

    monkeypatch.setattr(paged_attention.Attend, "__call__", wide)
    assert choose(student)[0].tier == TIERS[1]


def test_an_argument_nobody_understands_is_refused() -> None:
    findings = choose(make_student("gemma2"))[0].findings
    assert "softcap" in findings[1].reason


@pytest.mark.parametrize("family", ["llama-gqa", "gemma2", "gptj"])
def test_shorter_types_take_the_dense_way_or_the_second_tier(family: str) -> None:
    student = make_student(family)
    student.model.to(torch.bfloat16)
    choice, way = choose(student)
    assert isinstance(way, TreeAttentionWay if family == "llama-gqa" else GatherWay)
    assert choice.findings[-1].limit > LIMIT


def test_a_family_that_padding_breaks_is_recomputed_without(monkeypatch: pytest.MonkeyPatch) -> None:
    student = make_student("mamba")
    forward = student.forward

    def fragile(ids: Any, **kwargs: Any) -> Any:
        output = forward(ids, **kwargs)
        mask = kwargs.get("attention_mask")
        return output if mask is None or bool(mask.all()) else output._replace(logits=output.logits + 1.0)

    monkeypatch.setattr(student, "forward", fragile)
    choice, _ = choose(student)
    assert choice.way == "recompute without padding"
    engine = open_engine(student)
    assert isinstance(engine, RecomputeEngine)
    roots = engine.prefill([[1, 5], [1, 5, 6], [1], [4, 4]])
    for row, tokens in enumerate([[1, 5], [1, 5, 6], [1], [4, 4]]):
        torch.testing.assert_close(roots.logits[row], plain(student, tokens)[0], atol=1e-4, rtol=0)
    child = engine.extend(roots.states[[1, 2]], np.asarray([7, 7]))
    torch.testing.assert_close(child.logits[1], plain(student, [1, 7])[0], atol=1e-4, rtol=0)


def test_models_with_hardly_any_positions_can_be_probed() -> None:
    student = make_student()
    student.model.config.max_position_embeddings = 3
    choice, _ = choose(student)
    assert choice.tier == TIERS[0]


def test_the_kernels_are_asked_for_on_the_processor_in_float32_only() -> None:
    assert isinstance(choose(make_student("gpt2"))[1], TreeAttentionWay)
    assert PagedAttention.name in choose(make_student("gpt2"))[0].way


def test_settings_reach_the_engine() -> None:
    student = make_student()
    engine = open_engine(student, EngineConfig(lean=False, memory_mb=0.01, keep_prompts=True))
    assert isinstance(engine, TreeEngine)
    assert engine.way.name == PagedAttention.name
    assert engine.slots * engine.way.bytes_per_slot <= 0.01 * 2**20
    engine.release(engine.prefill([[1, 5]]).states)
    assert engine.resident == 2
    with pytest.raises(InputError, match="memory_mb is 0"):
        EngineConfig(memory_mb=0)


@pytest.mark.parametrize("words", [40, 700])
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_that_share_a_forward_do_not_touch_each_others_bits(words: int, threads: int) -> None:
    student = make_student("llama-gqa", spec={"kind": "words", "words": [f"w{i}" for i in range(words)]})
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        engine = open_engine(student, EngineConfig(batch_invariant=True))
        assert isinstance(engine, TreeEngine)
        assert engine.way.name == LeanWay.name
        assert all(is_batch_invariant(engine, student, seed) for seed in range(3))
        assert engine.resident == 0
    finally:
        torch.set_num_threads(before)


def test_bits_that_depend_on_neighbours_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    student = make_student("llama-gqa")
    engine = open_engine(student)
    assert isinstance(engine, TreeEngine)
    forward = engine.way.forward

    def careless(batch: Batch) -> Output:
        found = forward(batch)
        nudge = 1e-6 * len(batch.tokens)  # as a matrix product that sums in another order for other sizes
        return Output(found.logits * (1 + nudge), found.hidden)

    monkeypatch.setattr(engine.way, "forward", careless)
    assert not is_batch_invariant(engine, student)
