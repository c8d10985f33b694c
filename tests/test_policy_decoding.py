"""Sampling: filters in closed form, sequences against plain forwards, and nothing left behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_student, plain, tree_engine

from tokenzero.mcts.errors import InputError
from tokenzero.policy.decoding import Sampling, sample

PROMPTS = [[1, 5, 6], [1, 7], [1, 4, 4, 9]]


def never(row: int, tokens: list[int]) -> bool:
    return False


def frequencies(sampling: Sampling, logits: list[float], draws: int = 20_000) -> np.ndarray:
    chosen = sampling.choose(torch.tensor([logits]).repeat(draws, 1), np.random.default_rng(0))
    return np.bincount(chosen, minlength=len(logits)) / draws


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_at_the_temperature(temperature: float) -> None:
    logits = [1.0, 0.0, -1.0, 0.5]
    expected = torch.tensor(logits).div(temperature).softmax(-1).numpy()
    np.testing.assert_allclose(frequencies(Sampling(temperature), logits), expected, atol=0.015)


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.1, 3.0, 2.9], [5.0, 5.0, 1.0]])
    assert Sampling(0.0).choose(logits, np.random.default_rng(0)).tolist() == [1, 0]


@given(
    st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=8, unique=True),
    st.integers(0, 9),
    st.floats(0.05, 1.0),
)
def test_the_filters_keep_what_a_plain_loop_keeps(logits: list[float], top_k: int, top_p: float) -> None:
    filtered = Sampling(1.0, top_k, top_p)._filtered(torch.tensor([logits]))[0]
    order = sorted(range(len(logits)), key=lambda i: -logits[i])
    kept = order[:top_k] if top_k else order
    shares = torch.tensor([logits[i] for i in kept]).softmax(-1).tolist()
    mass, nucleus = 0.0, []
    for index, share in zip(kept, shares, strict=True):
        if mass >= top_p - 1e-6 and nucleus:
            break
        nucleus.append(index)
        mass += share
    found = {i for i in range(len(logits)) if filtered[i] > -torch.inf}
    edge = kept[: len(nucleus) + 1] if abs(mass - top_p) < 1e-5 else nucleus  # rounding may go either way
    assert set(nucleus) <= found <= set(edge)
    assert all(float(filtered[i]) == pytest.approx(logits[i]) for i in found)


def test_filters_act_on_the_draws() -> None:
    logits = [2.0, 1.9, 0.0, -1.0]
    assert (frequencies(Sampling(top_k=2), logits) > 0).tolist() == [True, True, False, False]
    assert (frequencies(Sampling(top_p=0.3), logits) > 0).tolist() == [True, False, False, False]


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_options_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]


def test_greedy_continuations_are_those_of_the_plain_model() -> None:
    student = make_student()
    engine = tree_engine(student)
    start = engine.prefill(PROMPTS)
    tokens, scores = sample(
        engine, start, Sampling(0.0), np.random.default_rng(0), never, banned=[0, 1], max_new_tokens=5
    )
    for prompt, answer, score in zip(PROMPTS, tokens, scores, strict=True):
        sequence, total = list(prompt), 0.0
        for token in answer:
            logits = plain(student, sequence)[0].detach().clone()
            logits[[0, 1]] = -torch.inf
            assert token == int(logits.argmax())
            total += float(logits.log_softmax(-1)[token])
            sequence.append(token)
        assert score == pytest.approx(total, abs=1e-4)
        assert len(answer) == 5


def test_each_row_stops_by_itself_and_its_last_token_is_not_paid() -> None:
    student = make_student()
    engine = tree_engine(student)
    start = engine.prefill(PROMPTS)
    asked: list[tuple[int, int]] = []

    def stop(row: int, tokens: list[int]) -> bool:
        asked.append((row, len(tokens)))
        return len(tokens) > row

    tokens, _ = sample(engine, start, Sampling(), np.random.default_rng(1), stop, max_new_tokens=3)
    assert [len(answer) for answer in tokens] == [1, 2, 3]
    assert engine.ledger.decode_tokens == 0 + 1 + 2
    assert sorted(asked) == [(0, 1), (1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
    assert engine.resident == sum(map(len, PROMPTS)) - 2, (
        "only the prompts stay, and their common beginning once"
    )


def test_banned_tokens_never_appear() -> None:
    student = make_student()
    engine = tree_engine(student)
    start = engine.prefill(PROMPTS * 30)
    kept = [4, 5]
    banned = [t for t in range(student.vocab_size) if t not in kept]
    tokens, scores = sample(
        engine, start, Sampling(), np.random.default_rng(1), never, banned=banned, max_new_tokens=4
    )
    assert {token for answer in tokens for token in answer} == set(kept)
    assert np.isfinite(scores).all()


def test_the_same_seed_gives_the_same_tokens() -> None:
    def once(seed: int) -> list[list[int]]:
        engine = tree_engine(make_student())
        start = engine.prefill(PROMPTS)
        return sample(engine, start, Sampling(), np.random.default_rng(seed), never, max_new_tokens=6)[0]

    assert once(3) == once(3)
    assert once(3) != once(4)


def test_a_stop_that_fails_leaves_no_state_behind() -> None:
    engine = tree_engine(make_student())
    start = engine.prefill(PROMPTS)

    def broken(row: int, tokens: list[int]) -> bool:
        if len(tokens) == 3:
            raise InputError("the verifier refuses this prompt")
        return False

    with pytest.raises(InputError, match="verifier"):
        sample(engine, start, Sampling(), np.random.default_rng(0), broken, max_new_tokens=9)
    assert engine.resident == sum(map(len, PROMPTS)) - 2
