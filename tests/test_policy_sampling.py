"""Sampling: the same filters and penalties as transformers, draws in closed form, and rows that do not know
each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tokenzero.mcts.errors import InputError
from tokenzero.policy.sampling import Row, Sampling, choose, filtered, penalised

OPTIONS = {
    "top_k": st.integers(0, 9),
    "top_p": st.floats(0.01, 1.0),
    "min_p": st.floats(0.0, 1.0),
    "temperature": st.floats(0.05, 5.0),
    "repetition_penalty": st.sampled_from([0.5, 1.0, 1.3, 4.0]),
}


def processors(sampling: Sampling) -> LogitsProcessorList:
    """What transformers' ``generate`` makes of the same options, in its order."""
    chain: list[Any] = []
    if sampling.logit_bias:
        chain.append(SequenceBiasLogitsProcessor([[[t], b] for t, b in sampling.logit_bias]))
    if sampling.repetition_penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    chain.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        chain.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chain.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p > 0:
        chain.append(MinPLogitsWarper(sampling.min_p))
    return LogitsProcessorList(chain)


def ours(sampling: Sampling, logits: torch.Tensor, rows: list[Row]) -> torch.Tensor:
    scores = penalised(logits, sampling, rows)
    divisor = torch.full((len(rows), 1), sampling.temperature, dtype=torch.float32)
    return filtered(scores / divisor, sampling)


@settings(max_examples=300, deadline=None)
@given(st.fixed_dictionaries({}, optional=OPTIONS), st.integers(0, 10_000), st.booleans())
def test_penalties_and_filters_are_those_of_transformers(
    options: dict[str, Any], seed: int, coarse: bool
) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(4, 7)) * 3
    logits = torch.from_numpy(np.round(raw) if coarse else raw).float()  # coarse ones hold many ties
    logits[rng.random(logits.shape) < 0.1] = -torch.inf  # as for tokens that are never an answer
    logits[:, 0] = 0.0
    bias = {"logit_bias": ((2, 1.5), (5, -3.0))} if seed % 2 else {}
    sampling = Sampling(**options, **bias)
    seen = rng.integers(0, 7, size=(4, 6))
    rows = [Row(sampling, rng, row[:4].tolist(), row[4:].tolist()) for row in seen]
    wanted = processors(sampling)(torch.from_numpy(seen), logits.clone())
    assert torch.equal(ours(sampling, logits, rows), wanted)


def test_presence_and_frequency_are_taken_off_what_the_answer_holds() -> None:
    """The OpenAI API's formula: logit - count * frequency - (count > 0) * presence; the prompt is no part."""
    sampling = Sampling(presence_penalty=0.5, frequency_penalty=-0.25)
    row = Row(sampling, np.random.default_rng(0), prompt=[1, 1, 1], answer=[2, 3, 2, 99])
    found = penalised(torch.zeros(1, 4), sampling, [row])[0].tolist()
    assert found == [0.0, 0.0, 0.5 - 0.5, 0.25 - 0.5]


def test_the_callers_logits_stay_as_they_are() -> None:
    sampling = Sampling(presence_penalty=1.0, repetition_penalty=2.0, logit_bias=((0, 3.0),), top_k=1)
    logits = torch.randn(3, 5)
    before = logits.clone()
    choose(logits, [Row(sampling, np.random.default_rng(0), [1], [2]) for _ in range(3)])
    assert torch.equal(logits, before)


def frequencies(sampling: Sampling, logits: list[float], draws: int = 20_000) -> np.ndarray:
    rng = np.random.default_rng(0)
    chosen = choose(torch.tensor([logits]).repeat(draws, 1), [Row(sampling, rng) for _ in range(draws)])
    return np.bincount(chosen, minlength=len(logits)) / draws


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_at_the_temperature(temperature: float) -> None:
    logits = [1.0, 0.0, -1.0, 0.5]
    expected = torch.tensor(logits).div(temperature).softmax(-1).numpy()
    np.testing.assert_allclose(frequencies(Sampling(temperature), logits), expected, atol=0.015)


def test_filters_act_on_the_draws() -> None:
    logits = [2.0, 1.9, 0.0, -1.0]
    assert (frequencies(Sampling(top_k=2), logits) > 0).tolist() == [True, True, False, False]
    assert (frequencies(Sampling(top_p=0.3), logits) > 0).tolist() == [True, False, False, False]
    assert (frequencies(Sampling(min_p=0.5), logits) > 0).tolist() == [True, True, False, False]
    assert (frequencies(Sampling(min_p=1.0), [2.0, 2.0, 1.9]) > 0).tolist() == [True, True, False]


def test_temperature_zero_takes_the_likeliest_and_no_random_numbers() -> None:
    logits = torch.tensor([[0.1, 3.0, 2.9], [5.0, 5.0, 1.0]])
    rng = np.random.default_rng(0)
    assert choose(logits, [Row(Sampling(0.0), rng) for _ in range(2)]).tolist() == [1, 0]
    assert rng.random() == np.random.default_rng(0).random()


def test_the_temperature_moves_in_a_straight_line_and_stays() -> None:
    falling = Sampling(2.0, temperature_end=0.0, temperature_tokens=4)
    assert [falling.temperature_at(length) for length in range(7)] == [2.0, 1.5, 1.0, 0.5, 0.0, 0.0, 0.0]
    assert Sampling(0.7).temperature_at(100) == 0.7
    logits = torch.tensor([[0.0, 1.0]] * 400)
    rng = np.random.default_rng(0)
    early = choose(logits, [Row(falling, rng) for _ in range(400)])
    late = choose(logits, [Row(falling, rng, (), [0] * 5) for _ in range(400)])
    assert 0.3 < early.mean() < 0.75  # softmax([0, 0.5]) gives .62
    assert late.tolist() == [1] * 400


MIXED = [
    Sampling(),
    Sampling(0.0),
    Sampling(0.7, top_k=3),
    Sampling(1.5, top_p=0.8, presence_penalty=1.0),
    Sampling(1.0, temperature_end=0.2, temperature_tokens=3, repetition_penalty=1.4),
    Sampling(logit_bias=((1, 50.0),)),
]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(0, 1000))
def test_a_row_draws_what_it_draws_alone(kinds: list[int], seed: int) -> None:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(len(kinds), 9))).float()

    def rows() -> list[Row]:
        return [
            Row(MIXED[kind], np.random.default_rng([seed, index]), [1, 2], [index % 9] * (index % 4))
            for index, kind in enumerate(kinds)
        ]

    together = choose(logits, rows()).tolist()
    alone = [int(choose(logits[index : index + 1], [row])[0]) for index, row in enumerate(rows())]
    assert together == alone


def test_equal_streams_draw_equal_tokens_whatever_the_filter_keeps() -> None:
    """Each token takes the same numbers from the stream, so that filters do not shift what comes later."""
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    streams = [np.random.default_rng(3) for _ in range(2)]
    choose(logits, [Row(Sampling(), streams[0])])
    choose(logits, [Row(Sampling(top_k=2, min_p=0.1), streams[1])])
    assert streams[0].random() == streams[1].random()


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"presence_penalty": 2.5},
        {"frequency_penalty": float("nan")},
        {"temperature_end": 0.5},
        {"temperature_tokens": 3},
        {"temperature_end": -0.5, "temperature_tokens": 3},
        {"logit_bias": ((3, 101.0),)},
        {"logit_bias": ((-1, 1.0),)},
        {"logit_bias": ((3, 1.0), (3, 2.0))},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_a_bias_outside_the_vocabulary_is_refused() -> None:
    sampling = Sampling(logit_bias=((9, 1.0),))
    sampling.check_vocabulary(10)
    with pytest.raises(InputError, match="token 9; the vocabulary ends at 8"):
        sampling.check_vocabulary(9)


def test_pydantic_reads_it_and_refuses_what_it_does_not_know() -> None:
    from pydantic import TypeAdapter, ValidationError

    read = TypeAdapter(Sampling).validate_python
    assert read({"top_p": 0.9, "logit_bias": [[3, 1]]}) == Sampling(top_p=0.9, logit_bias=((3, 1.0),))
    with pytest.raises(ValidationError):
        read({"topp": 0.9})
