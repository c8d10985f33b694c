"""Search inside ``model.generate`` of transformers, against ``generate`` itself and our own engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import FAMILIES, make_student, plain, tree_engine
from transformers import (
    AutoModelForCausalLM,
    LogitsProcessor,
    MaxLengthCriteria,
    PreTrainedModel,
    StoppingCriteria,
    set_seed,
)
from transformers.utils import logging

import tokenzero
from tokenzero.hf_decoding import SearchOutput
from tokenzero.hf_states import Criteria, Paths, ProcessedEngine, id_tokenizer, read_ids, written
from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.selfplay.methods import MethodConfig
from tokenzero.value import FunctionJudge, ValueConfig, ValueHead

IDS = torch.tensor([[0, 0, 1, 5, 6], [1, 7, 8, 5, 4]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
PLAIN = {"pad_token_id": 0, "eos_token_id": [2, 9], "max_new_tokens": 8}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # generate tells what it thinks of unusual settings
    yield
    logging.set_verbosity(before)


def make_model(family: str = "llama-gqa", seed: int = 56) -> PreTrainedModel:
    """A model as a user has it: nobody's student."""
    model = make_student(family, seed=seed).model
    head: Any = model.get_output_embeddings()
    head._forward_pre_hooks.clear()
    return model


def generate(model: PreTrainedModel, ids: torch.Tensor = IDS[1:], **kwargs: Any) -> Any:
    return model.generate(
        input_ids=ids, **{"custom_generate": tokenzero.hf_generate, "simulations": 8, **PLAIN, **kwargs}
    )


def answers(sequences: torch.Tensor, width: int = 5) -> list[list[int]]:
    rows: list[list[int]] = sequences[:, width:].tolist()
    return rows


# ---- against generate


@pytest.mark.parametrize("family", [*FAMILIES, "gemma2", "mpt", "mamba"])
def test_without_simulations_it_is_greedy_decoding(family: str) -> None:
    model = make_model(family)
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    wanted = model.generate(**inputs, **PLAIN, do_sample=False)
    found = model.generate(**inputs, **PLAIN, custom_generate=tokenzero.hf_generate, simulations=0)
    assert found.tolist() == wanted.tolist()
    assert found.dtype == IDS.dtype
    assert len({tuple(row) for row in answers(wanted)}) == 2


class OddSums(LogitsProcessor):
    """Only tokens that make the sum of the ids odd: every state's ids matter, and where they begin too. It
    writes in place, as many do."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        self.shapes.append(tuple(input_ids.shape))
        sums = (input_ids.sum(dim=1, keepdim=True) + torch.arange(scores.shape[1])) % 2
        scores[sums == 0] = -torch.inf
        return scores


@pytest.mark.parametrize(
    "options",
    [
        {"logits_processor": [OddSums()]},
        {"repetition_penalty": 5.0},
        {"encoder_no_repeat_ngram_size": 1},
        {"encoder_repetition_penalty": 9.0},
        {"no_repeat_ngram_size": 1},
        {"min_new_tokens": 6},
        {"min_length": 12},
        {"max_length": 7, "max_new_tokens": None},
        {"bad_words_ids": [[7], [4, 8]]},
        {"suppress_tokens": [7, 4]},
        {"begin_suppress_tokens": [1, 8]},
        {"forced_eos_token_id": 2},
        {"exponential_decay_length_penalty": (2, 3.0)},
        {"do_sample": True, "top_k": 1},
    ],
    ids=lambda options: next(iter(options)),
)
def test_processors_and_lengths_act_as_in_generate(options: dict[str, Any]) -> None:
    model = make_model()
    inputs = {"input_ids": IDS, "attention_mask": MASK, **PLAIN, **options}
    wanted = model.generate(**inputs)
    found = model.generate(**inputs, custom_generate=tokenzero.hf_generate, simulations=0)
    assert found.tolist() == wanted.tolist()
    if "do_sample" not in options:
        assert wanted.tolist() != model.generate(input_ids=IDS, attention_mask=MASK, **PLAIN).tolist()


def test_allowed_tokens_are_those_of_the_row() -> None:
    allowed = {0: [4, 5, 2], 1: [7, 8, 2]}

    def after(row: int, ids: torch.Tensor) -> list[int]:
        assert ids[:5].tolist() == IDS[row].tolist()
        return allowed[row]

    model = make_model()
    inputs = {"input_ids": IDS, "attention_mask": MASK, **PLAIN, "prefix_allowed_tokens_fn": after}
    wanted = model.generate(**inputs)
    found = model.generate(**inputs, custom_generate=tokenzero.hf_generate, simulations=0)
    assert found.tolist() == wanted.tolist()
    searched = answers(model.generate(**inputs, custom_generate=tokenzero.hf_generate, simulations=16))
    for row, tokens in enumerate(searched):
        assert set(tokens) <= {*allowed[row], 0}
    with pytest.raises(ValueError, match="empty list"):
        generate(model, prefix_allowed_tokens_fn=lambda row, ids: [])


# ---- against our own engine


def saved(directory: Path) -> Path:
    """A checkpoint with a value head that has opinions."""
    student = make_student()
    student.save(directory)
    head = ValueHead(student.hidden_size, ValueConfig(), torch.Generator().manual_seed(1))
    with torch.no_grad():
        head.last.weight.normal_(generator=torch.Generator().manual_seed(2))
    head.save(directory)
    return directory


@pytest.mark.parametrize("method", ["gumbel", "puct", "best-of-n", "beam"])
def test_it_gives_what_the_engine_gives(method: str, tmp_path: Path) -> None:
    directory = saved(tmp_path)
    engine = tokenzero.load(directory, max_new_tokens=10)
    model = AutoModelForCausalLM.from_pretrained(directory)
    prompt = "fade"
    ids = torch.tensor([encode_prompt(engine.student.tokenizer, prompt)])
    options: dict[str, Any] = {"simulations": 24} if method in ("gumbel", "puct") else {"n": 4}
    if method in ("gumbel", "puct"):
        own = engine.generate(prompt, tokenzero.Search(method=method, **options), seed=7)
    else:
        own = engine.generate(prompt, method=method, **options, seed=7)
    # Our engine never gives special tokens but the end; here that is for the user to say.
    found = model.generate(
        input_ids=ids,
        max_new_tokens=10,
        suppress_tokens=[0, 1, 3],
        custom_generate=tokenzero.hf_generate,
        method=method,
        seed=7,
        return_dict_in_generate=True,
        **options,
    )
    assert answers(found.sequences, ids.shape[1]) == [own.tokens]
    assert isinstance(found, SearchOutput)
    assert found.games is not None
    assert found.ledger is not None
    if own.value is not None:
        assert found.games[0].value == pytest.approx(own.value, abs=1e-6)
    for name in ("prefill_tokens", "decode_tokens", "simulations"):
        assert getattr(found.ledger, name) == own.ledger[name]


def test_the_value_head_beside_the_model_is_heard(tmp_path: Path) -> None:
    directory = saved(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(directory)
    beside = generate(model, simulations=32, return_dict_in_generate=True)
    named = generate(model, simulations=32, value_head=directory, return_dict_in_generate=True)
    given = generate(
        model, simulations=32, value_head=ValueHead.load(directory), return_dict_in_generate=True
    )
    without = generate(make_model(), simulations=32, return_dict_in_generate=True)
    assert beside.games[0].value == named.games[0].value == given.games[0].value != 0
    assert without.games[0].value == 0
    with pytest.raises(InputError, match="reads width 8, the model has width 32"):
        generate(model, value_head=ValueHead(8))


# ---- states


def test_every_state_is_processed_with_its_whole_ids() -> None:
    student = make_student()
    processor = OddSums()
    prompts = [[1, 5, 6], [1, 7, 8, 5, 4]]
    paths = Paths(IDS, prompts)
    engine = ProcessedEngine(tree_engine(student), [processor], paths)
    with torch.no_grad():
        first = engine.prefill(prompts)
        second = engine.extend(first.states[[0, 1, 1]], np.array([4, 5, 6]))
        third = engine.extend(
            np.array([second.states[2], first.states[0], second.states[0]]), np.array([7, 8, 9])
        )
    whole = [[*IDS[0].tolist(), 4, 9], [*IDS[1].tolist(), 6, 7], [*IDS[0].tolist(), 8]]
    bare = [[1, 5, 6, 4, 9], [1, 7, 8, 5, 4, 6, 7], [1, 5, 6, 8]]
    for row, (ids, tokens) in zip([2, 0, 1], zip(whole, bare, strict=True), strict=True):
        wanted = OddSums()(torch.tensor([ids]), plain(student, tokens)[0][None].clone())[0]
        assert torch.allclose(third.logits[row], wanted, atol=1e-4)
    # rows are the batch's: two answers to its second prompt take two calls
    assert processor.shapes == [(2, 5), (2, 6), (2, 6), (2, 6), (2, 7)]


def test_ended_states_are_not_shown_to_processors() -> None:
    seen: list[list[int]] = []

    class Recorder(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            seen.extend(input_ids.tolist())
            return scores

    out = generate(make_model(), simulations=32, logits_processor=[Recorder()], eos_token_id=[2, 4, 5])
    assert len(seen) > 20
    assert not any({2, 4, 5} & set(ids[5:]) for ids in seen)
    assert all(len(ids) < 5 + 8 for ids in seen)  # no room for more is an end too
    assert len(out[0]) <= 13


class EndsAfter(StoppingCriteria):
    """Ends a row whose answer holds ``token``; with ``single`` it looks at the first row alone, as old ones
    do."""

    def __init__(self, token: int, single: bool) -> None:
        self.token, self.single = token, single

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> Any:
        if self.single:
            return self.token in input_ids[0, 5:].tolist()
        return (input_ids[:, 5:] == self.token).any(dim=1)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("method", ["gumbel", "puct", "beam", "best-of-n", "self-consistency", "sample"])
def test_criteria_end_states_wherever_a_method_meets_them(method: str, single: bool) -> None:
    model = make_model()
    options: dict[str, Any] = {"simulations": 16} if method in ("gumbel", "puct") else {"n": 3}
    if method == "sample":
        options = {}
    rows = []
    for token in range(4, 10):
        found = generate(
            model,
            IDS,
            attention_mask=MASK,
            stopping_criteria=[EndsAfter(token, single)],
            eos_token_id=None,
            method=MethodConfig(method, **options),
            simulations=None,
            seed=1,
        )
        for tokens in answers(found):
            kept = tokens[: tokens.index(token) + 1] if token in tokens else tokens
            assert tokens == kept + [0] * (len(tokens) - len(kept))
            rows.append(len(kept))
    assert min(rows) < 8  # or nothing was shown


def test_a_shorter_length_of_the_user_holds() -> None:
    found = generate(make_model(), stopping_criteria=[MaxLengthCriteria(8)], eos_token_id=None)
    assert found.shape == (1, 8)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=40))
def test_paths_know_every_sequence(steps: list[tuple[int, int]]) -> None:
    prompts = [[1, 5, 6], [1, 7, 8, 5, 4]]
    paths = Paths(IDS, prompts)
    truth = {0: IDS[0].tolist(), 1: IDS[1].tolist()}
    nodes = [0, 1]
    for which, token in steps:
        parent = nodes[which % len(nodes)]
        (child,) = paths.children(np.array([parent]), np.array([token])).tolist()
        whole = [*truth[parent], token]
        assert truth.setdefault(child, whole) == whole
        nodes.append(child)
    assert len({tuple(ids) for ids in truth.values()}) == len(truth)
    asked = np.array(nodes)
    shown = np.zeros(len(asked), bool)
    for index, ids in paths.by_length(asked):
        assert ids.tolist() == [truth[node] for node in asked[index].tolist()]
        shown[index] = True
    assert shown.all()
    found = [0] * len(asked)
    for index, rows, ids in paths.batches(asked):
        assert ids.shape[0] == 2
        assert ids[rows].tolist() == [truth[node] for node in asked[index].tolist()]
        assert ids[:, :5].tolist() == IDS.tolist()
        assert len(set(rows.tolist())) == len(rows)
        for which in index.tolist():
            found[which] += 1
    assert found == [1] * len(asked)


def test_paths_grow_and_equal_prompts_share() -> None:
    paths = Paths(torch.tensor([[1, 2], [1, 2], [1, 3]]), [[1, 2], [1, 2], [1, 3]])
    assert [paths.root([1, 2]), paths.root([1, 3])] == [0, 2]
    both = paths.children(np.array([0, 0, 0]), np.array([4, 5, 6]))
    batches = [(rows.tolist(), ids.tolist()) for _, rows, ids in paths.batches(both)]
    assert batches == [
        ([0, 1], [[1, 2, 4], [1, 2, 5], [1, 3, 0]]),
        ([0], [[1, 2, 6], [1, 2, 0], [1, 3, 0]]),
    ]
    node = np.array([2])
    for token in range(1500):
        node = paths.children(node, np.array([token]))
    ((_, ids),) = paths.by_length(node)
    assert ids.tolist() == [[1, 3, *range(1500)]]


def test_criteria_answer_for_mixed_lengths() -> None:
    paths = Paths(IDS, [[1, 5, 6], [1, 7, 8, 5, 4]])
    short = paths.children(np.array([0, 1]), np.array([4, 6]))
    long = paths.children(short, np.array([6, 4]))
    asked = np.concatenate([long, short])
    done = Criteria([EndsAfter(4, True), MaxLengthCriteria(9)], paths).end(asked)
    assert done.tolist() == [True, True, True, False]
    assert paths.ended == {int(long[0]), int(long[1]), int(short[0])}


def test_ids_are_written_and_read() -> None:
    tokenizer = id_tokenizer(300)
    ids = [299, 0, 17, 17]
    assert read_ids(written(ids)) == ids
    assert encode_prompt(tokenizer, written(ids)) == ids
    assert len(tokenizer) == 300
    assert tokenizer.all_special_ids == []


# ---- parts and options


def test_a_judge_reads_text_and_shifts_the_search(tmp_path: Path) -> None:
    directory = saved(tmp_path)
    (directory / "value_head.json").unlink()
    model = AutoModelForCausalLM.from_pretrained(directory)
    told: set[str] = set()

    def likes_b(prompt: str, partial: str) -> int:
        told.add(prompt)
        assert set(partial) <= set("abcdef")
        return 1 if "b" in partial else -1

    plain_text = generate(model, simulations=48, suppress_tokens=[5])
    for judge in (likes_b, FunctionJudge("b", likes_b, "1")):
        found = generate(model, simulations=48, judge=judge, judge_eta=1.0, eos_token_id=2)
        assert 5 in answers(found)[0]
    assert told == {"deba"}
    assert 5 not in answers(plain_text)[0]
    with pytest.raises(InputError, match="give judge_tokenizer"):
        generate(make_model(), judge=likes_b)
    tokenizer = make_student().tokenizer
    generate(make_model(), judge=likes_b, judge_tokenizer=tokenizer)


def test_samples_are_drawn_anew_for_each_row_and_again_for_the_same_seed() -> None:
    model = make_model()
    options: dict[str, Any] = {"simulations": None, "method": "sample", "eos_token_id": None}
    many = {**options, "do_sample": True, "num_return_sequences": 12}
    found = generate(model, **many, seed=5)
    assert found.shape == (12, 13)
    assert len({tuple(row) for row in found.tolist()}) > 6
    assert generate(model, **many, seed=5).tolist() == found.tolist()
    assert generate(model, **many, seed=6).tolist() != found.tolist()
    set_seed(3)
    first = generate(model, **options).tolist()
    second = generate(model, **options).tolist()
    set_seed(3)
    assert [generate(model, **options).tolist(), generate(model, **options).tolist()] == [first, second]
    assert first != second


def test_warpers_shape_what_is_drawn() -> None:
    model = make_model()
    inputs = {"eos_token_id": None, "simulations": None, "method": "sample", "do_sample": True}
    best = {int(token) for token in model(IDS[1:]).logits[0, -1].topk(2).indices}
    first = {row[0] for seed in range(20) for row in answers(generate(model, **inputs, top_k=2, seed=seed))}
    assert first == best


@pytest.mark.parametrize("method", ["greedy", "gumbel", "puct", "beam", "best-of-n", "self-consistency"])
def test_the_same_seed_gives_the_same_answer(method: str) -> None:
    config = MethodConfig(method, **({} if method == "greedy" else {"n": 3} if "u" not in method else {}))
    first, second = (
        generate(make_model(), IDS, attention_mask=MASK, method=method, simulations=None, n=config.n, seed=2)
        for _ in range(2)
    )
    assert first.tolist() == second.tolist()


def test_search_options_reach_the_search() -> None:
    found = generate(
        make_model(), search=SearchConfig(candidates=3, method="puct"), return_dict_in_generate=True
    )
    assert all(len(move.actions) == 3 for move in found.games[0].moves)
    assert [move.visits.sum() >= 8 for move in found.games[0].moves]


class Received:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.parts: list[list[int]] = []
        self.ended = 0

    def put(self, value: torch.Tensor) -> None:
        assert not self.ended
        self.parts.append(value.flatten().tolist())

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("method", ["greedy", "gumbel", "puct", "sample", "best-of-n"])
def test_a_streamer_gets_what_is_certain(method: str) -> None:
    model, received = make_model(), Received()
    options: dict[str, Any] = {"method": method, "simulations": None, "seed": 4}
    wanted = generate(model, **options)
    assert generate(model, **options, stream_to=received).tolist() == wanted.tolist()
    assert received.ended == 1
    assert received.parts[0] == IDS[1].tolist()
    assert [token for part in received.parts[1:] for token in part] == answers(wanted)[0]
    if method in ("greedy", "gumbel", "puct"):
        assert len(received.parts) > 2  # as it goes, not all at the end
    with pytest.raises(InputError, match="2 rows and one streamer"):
        generate(model, IDS, attention_mask=MASK, stream_to=Received())


def test_a_streamer_is_told_of_the_end_when_something_fails() -> None:
    received = Received()

    class Failing(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        generate(make_model(), stream_to=received, logits_processor=[Failing()])
    assert received.ended == 1


def test_budgets_of_tokens_and_seconds_end_early_with_an_answer() -> None:
    model = make_model()
    free = generate(model, IDS, attention_mask=MASK, return_dict_in_generate=True, eos_token_id=None)
    for tokens in (8, 20):
        few = generate(
            model, IDS, attention_mask=MASK, return_dict_in_generate=True, eos_token_id=None, tokens=tokens
        )
        assert max(game.forwarded for game in few.games) <= tokens < min(g.forwarded for g in free.games)
        assert [game.end == "budget" for game in few.games] == [tokens == 8] * 2
        assert all(len(game.tokens) > 1 for game in few.games)
    late = generate(model, return_dict_in_generate=True, eos_token_id=None, max_time=1e-9)
    assert late.games[0].end == "budget"
    assert late.games[0].forwarded <= 6


# ---- the model stays as it was


def test_the_model_is_left_as_it_was_found() -> None:
    model = make_model("mistral")
    model.set_attn_implementation("eager")
    model.train()
    inner: Any = model.model
    inner.layers[0].eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    modes = [module.training for module in model.modules()]

    class Failing(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            if input_ids.shape[1] > 6:
                raise RuntimeError("no more")
            return scores

    def check() -> None:
        assert [module.training for module in model.modules()] == modes
        assert model.config._attn_implementation == "eager"
        assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
        assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
        assert all(weight.requires_grad for weight in model.parameters())

    generate(model)
    check()
    with pytest.raises(RuntimeError, match="no more"):
        generate(model, logits_processor=[Failing()])
    check()
    model(IDS[1:]).logits.sum().backward()  # nothing here is an inference tensor


def test_changed_weights_are_seen() -> None:
    model, other = make_model(seed=3), make_model(seed=4)
    first = generate(model, simulations=0)
    wanted = generate(other, simulations=0)
    assert first.tolist() != wanted.tolist()
    model.load_state_dict(other.state_dict())
    assert generate(model, simulations=0).tolist() == wanted.tolist()


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 4}, 'use method="beam", n=4'),
        ({"do_sample": True, "num_return_sequences": 2}, "gives the same each time"),
        ({"return_dict_in_generate": True, "output_scores": True}, "output_scores is on"),
        ({"attention_mask": torch.tensor([[1, 1, 0, 1, 1]])}, "padding_side='left'"),
        ({"attention_mask": torch.tensor([[1, 1, 1, 1, 0]])}, "padding_side='left'"),
        ({"attention_mask": torch.zeros(1, 5, dtype=torch.long)}, "nothing of a row"),
        ({"position_ids": torch.tensor([[0, 1, 2, 3, 5]])}, "position_ids"),
        ({"guidance_scale": 2.0}, "ClassifierFreeGuidance"),
        ({"max_new_tokens": 28}, "the model takes 32 tokens, a prompt has 5"),
        ({"method": "step-beam", "simulations": None}, "read from text"),
        ({"method": MethodConfig("puct", granularity="step")}, "read from text"),
        ({"method": "pukt"}, "did you mean 'puct'"),
        ({"method": "beam"}, "simulations means nothing to method beam"),
        ({"method": "frontier"}, "verifier"),
        ({"value_head": "nowhere"}, "nowhere"),
        ({"inputs_embeds": torch.zeros(1, 5, 32)}, "inputs_embeds is given"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_would_be_ignored_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        generate(make_model(), **options)


def test_rows_of_different_length_need_a_token_to_fill_up() -> None:
    options: dict[str, Any] = {"eos_token_id": None, "attention_mask": MASK, "simulations": 0}
    greedy = answers(generate(make_model(), IDS, **options))
    token = next(token for token in greedy[0] if token not in greedy[1])
    criterion = EndsAfter(token, False)
    assert generate(make_model(), IDS, stopping_criteria=[criterion], **options).shape == (2, 13)
    with pytest.raises(InputError, match="no pad_token_id"):
        generate(make_model(), IDS, stopping_criteria=[criterion], **options, pad_token_id=None)
