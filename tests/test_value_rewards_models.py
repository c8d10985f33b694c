"""Rewards that ask a model, against one unpadded forward a text: embedding similarity and perplexity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_student, plain
from transformers import BertConfig, BertModel, T5Config, T5Model

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import character_tokenizer, encode_prompt
from tokenzero.value.continuation_log_probs import continuation_log_probs, continuation_tokens
from tokenzero.value.embedding_similarity import EmbeddingReward
from tokenzero.value.perplexity import PerplexityReward, fluency, fluency_edges
from tokenzero.value.reward_config import (
    EmbeddingRewardConfig,
    ExactRewardConfig,
    PerplexityRewardConfig,
    build_rewards,
)

TOKENIZER = character_tokenizer("abcdef ")
TEXTS = ["a", "abc", "fedcba", "a b c d e f", "cc"]


@pytest.fixture(scope="module")
def encoder() -> BertModel:
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
        initializer_range=0.5,
        pad_token_id=TOKENIZER.pad_token_id,
    )
    return BertModel(config).eval()


@torch.no_grad()
def lone_states(encoder: BertModel, ids: list[int]) -> np.ndarray:
    return encoder(input_ids=torch.tensor([ids])).last_hidden_state[0].double().numpy()


# ---- embeddings


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_embeddings_are_the_mean_over_a_texts_own_tokens_whatever_the_padding(
    encoder: BertModel, batch_size: int
) -> None:
    reward = EmbeddingReward(encoder, TOKENIZER, batch_size=batch_size)
    wanted = [lone_states(encoder, TOKENIZER(text)["input_ids"]).mean(0) for text in TEXTS]
    found = reward.embed(TEXTS)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    assert reward.forwarded_tokens == sum(len(TOKENIZER(text)["input_ids"]) for text in TEXTS)


def test_similarity_is_the_cosine_moved_to_the_unit_interval(encoder: BertModel) -> None:
    reward = EmbeddingReward(encoder, TOKENIZER)
    a, b = (lone_states(encoder, TOKENIZER(text)["input_ids"]).mean(0) for text in ("abc", "fedcba"))
    cosine = a @ b / np.sqrt((a @ a) * (b @ b))
    found = reward.score(["p"] * 3, ["abc", "fedcba", "abc"], ["fedcba", "abc", "abc"])
    np.testing.assert_allclose(found, [(1 + cosine) / 2, (1 + cosine) / 2, 1.0], atol=1e-6)
    assert abs(cosine) < 0.98
    assert ((found >= 0) & (found <= 1)).all()


def test_the_end_of_a_long_text_counts(encoder: BertModel) -> None:
    reward = EmbeddingReward(encoder, TOKENIZER, window=5)  # <bos> and four characters
    windows = ["abcd", "efab", "cd"]
    states = [lone_states(encoder, TOKENIZER(window)["input_ids"]) for window in windows]
    np.testing.assert_allclose(reward.embed(["abcdefabcd"])[0], np.concatenate(states).mean(0), atol=2e-6)
    long = "abc" * 20
    assert reward.score(["p"], [f"{long}ffff"], [long])[0] < 0.9999


def test_blank_texts_are_like_nothing_but_each_other(encoder: BertModel) -> None:
    reward = EmbeddingReward(encoder, TOKENIZER)
    found = reward.score(["p"] * 4, ["", "a", " ", "a"], ["a", "", "", "a"])
    assert found.tolist() == pytest.approx([0.0, 0.0, 1.0, 1.0])
    assert reward.score([], [], []).shape == (0,)


def test_of_a_model_that_also_decodes_the_reading_half_is_used() -> None:
    torch.manual_seed(5)
    config = T5Config(
        vocab_size=len(TOKENIZER),
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
    )
    whole = EmbeddingReward(T5Model(config), TOKENIZER, window=16)
    assert whole.score(["p"], ["abc"], ["abc"])[0] == pytest.approx(1.0)
    assert whole.score(["p"], ["abc"], ["ffff"])[0] < 0.999


def test_embedding_options_are_checked(encoder: BertModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="window 17; give at least 1, and 3 to 16"):
        EmbeddingReward(encoder, TOKENIZER, window=17)
    with pytest.raises(InputError, match="batch_size is 0"):
        EmbeddingReward(encoder, TOKENIZER, batch_size=0)
    with pytest.raises(InputError, match="'embedding' needs a reference"):
        EmbeddingReward(encoder, TOKENIZER).score(["p"], ["a"], [None])
    TOKENIZER.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot be opened"):
        EmbeddingReward.load(str(tmp_path))


# ---- log-probabilities and perplexity


def lone_log_probs(student: Student, context: list[int], continuation: list[int]) -> list[float]:
    """One forward of one prefix for each token."""
    found = []
    for place, token in enumerate(continuation):
        logits, _ = plain(student, [*context, *continuation[:place]])
        found.append(float(torch.log_softmax(logits.double(), -1)[token]))
    return found


PROMPTS = ["a", "abcdef", "fed", "bb"]
ANSWERS = ["bcd", "f", "", "abcdefabcdef"]


@pytest.mark.parametrize("family", ["llama-gqa", "gpt2", "opt"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_log_probs_are_those_of_each_prefix_forwarded_alone(family: str, batch_size: int) -> None:
    student = make_student(family)
    contexts = [encode_prompt(student.tokenizer, prompt) for prompt in PROMPTS]
    continuations = [continuation_tokens(student, answer) for answer in ANSWERS]
    found = continuation_log_probs(student, contexts, continuations, batch_size)
    assert [len(row) for row in found] == [3, 1, 0, 12]
    for row, context, continuation in zip(found, contexts, continuations, strict=True):
        np.testing.assert_allclose(row, lone_log_probs(student, context, continuation), atol=2e-5)


def test_perplexity_is_turned_into_the_mean_probability_of_a_token() -> None:
    student = make_student()
    reward = PerplexityReward(student)
    found = reward.score(PROMPTS, ANSWERS, [None] * 4)
    for score, prompt, answer in zip(found, PROMPTS, ANSWERS, strict=True):
        log_probs = lone_log_probs(
            student, encode_prompt(student.tokenizer, prompt), continuation_tokens(student, answer)
        )
        wanted = np.exp(np.mean(log_probs)) if answer else 0.0
        assert score == pytest.approx(wanted, rel=1e-4)
    spent = [len(prompt) + 1 + len(answer) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True) if answer]
    assert reward.forwarded_tokens == sum(spent)


def test_edge_rewards_sum_to_the_bounded_whole() -> None:
    student = make_student()
    reward = PerplexityReward(student, bound=0.25)
    prompt, answer = encode_prompt(student.tokenizer, "abc"), continuation_tokens(student, "defabc")
    edges = reward.edge_rewards([*prompt, *answer], len(prompt))
    assert edges.dtype == np.float32
    assert edges.shape == (6,)
    assert edges.sum() == pytest.approx(0.25 * reward.score(["abc"], ["defabc"], [None])[0], rel=1e-5)
    first = reward.edge_rewards([*prompt, *answer[:2]], len(prompt))
    np.testing.assert_allclose(first, edges[:2], atol=1e-6)  # a token's edge does not know what follows
    assert reward.edge_rewards(prompt, len(prompt)).shape == (0,)


@given(st.lists(st.floats(-60, 0), max_size=12), st.floats(0, 2))
def test_edges_telescope_and_stay_within_their_bound(log_probs: list[float], bound: float) -> None:
    edges = fluency_edges(log_probs, bound)
    sums = np.cumsum(edges.astype(np.float64))
    for length in range(1, len(log_probs) + 1):
        assert sums[length - 1] == pytest.approx(bound * fluency(log_probs[:length]), abs=1e-5)
    assert (np.abs(edges) <= bound * (1 + 1e-6)).all()


def test_fluency_by_hand() -> None:
    assert fluency(np.log([0.5, 0.125])) == pytest.approx(0.25)
    assert fluency([]) == 0.0
    np.testing.assert_allclose(fluency_edges(np.log([0.5, 0.125]), 1.0), [0.5, -0.25], atol=1e-7)


def test_perplexity_refuses_what_the_model_cannot_hold() -> None:
    student = make_student()  # 32 positions
    reward = PerplexityReward(student)
    with pytest.raises(InputError, match="'z' is not among"):
        reward.score(["a"], ["z"], [None])
    with pytest.raises(InputError, match="34 tokens, the scoring model holds 32"):
        reward.score(["abc"], ["a" * 30], [None])
    with pytest.raises(InputError, match="prompt_length is 0 of 3"):
        reward.edge_rewards([4, 5, 6], 0)
    with pytest.raises(InputError, match="context of at least one token"):
        continuation_log_probs(student, [[]], [[4]])
    with pytest.raises(InputError, match="bound -1"):
        PerplexityReward(student, bound=-1)
    with pytest.raises(InputError, match="bound is nan"):
        fluency_edges([-1.0], float("nan"))
    with pytest.raises(InputError, match="above 0 or not a number"):
        fluency_edges([float("nan")], 1.0)


def test_models_are_opened_by_name_from_the_configuration(encoder: BertModel, tmp_path: Path) -> None:
    student = make_student()
    student.save(tmp_path / "lm")
    encoder.save_pretrained(tmp_path / "encoder")
    TOKENIZER.save_pretrained(tmp_path / "encoder")
    mix = build_rewards(
        [
            ExactRewardConfig(weight=2),
            PerplexityRewardConfig(model=str(tmp_path / "lm"), weight=1),
            EmbeddingRewardConfig(model=str(tmp_path / "encoder"), weight=1, window=8),
        ]
    )
    prompts, answers, references = ["a", "b"], ["abc", "cz"], ["abc", "abc"]
    scores = mix.score(prompts, answers, references)
    wanted = PerplexityReward(student).score(["a"], ["abc"], [None])[0]
    assert scores.parts["exact"].tolist() == [1.0, 0.0]
    assert scores.parts["perplexity"] == pytest.approx([wanted, 0.0])  # the model has no z
    assert scores.parts["embedding"][0] == pytest.approx(1.0)
    assert dict(mix.failures_by_part) == {"exact": 0, "perplexity": 1, "embedding": 0}
    assert scores.total[0] == pytest.approx((2 + wanted + 1) / 4)
