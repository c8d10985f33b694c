"""Beam search against an exhaustive search and against a plain beam on lists."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.policy.decoding import Beam, End, beam
from tokenzero.policy.engine import Ids, Step
from tokenzero.policy.ledger import Ledger

VOCAB = 4
END = 0


class TableEngine:
    """Logits drawn from the sequence itself; remembers what was forwarded and released."""

    def __init__(self, seed: int) -> None:
        self.ledger = Ledger()
        self.sequences: dict[int, tuple[int, ...]] = {}
        self._seed = seed
        self._next = 0

    def logits(self, sequence: tuple[int, ...]) -> torch.Tensor:
        rng = np.random.default_rng([self._seed, *sequence])
        return torch.from_numpy(rng.normal(size=VOCAB) * 2.0).float()

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Step:
        return self._step([tuple(prompt) for prompt in prompts])

    def extend(self, states: Ids, tokens: Ids) -> Step:
        self.ledger.decode_tokens += len(states)
        return self._step(
            [(*self.sequences[s], t) for s, t in zip(states.tolist(), tokens.tolist(), strict=True)]
        )

    def release(self, states: Ids) -> None:
        for state in states.tolist():
            del self.sequences[state]

    def _step(self, sequences: list[tuple[int, ...]]) -> Step:
        states = np.arange(self._next, self._next + len(sequences), dtype=np.int64)
        self._next += len(sequences)
        self.sequences.update(zip(states.tolist(), sequences, strict=True))
        logits = torch.stack([self.logits(sequence) for sequence in sequences])
        return Step(states, logits, logits)


def _ends_at_mark(row: int, tokens: list[int]) -> End:
    return "ended" if tokens[-1] == END else "going"


def _naive(
    engine: TableEngine, prompt: tuple[int, ...], width: int, limit: int
) -> list[tuple[list[int], float]]:
    """The same search on plain lists: best answers first."""
    live: list[tuple[list[int], float]] = [([], 0.0)]
    found: list[tuple[list[int], float]] = []
    for length in range(1, limit + 1):
        options = []
        for tokens, total in live:
            shares = engine.logits((*prompt, *tokens)).double().log_softmax(-1).tolist()
            options += [([*tokens, token], total + shares[token]) for token in range(VOCAB)]
        options.sort(key=lambda option: -option[1])
        live = []
        for tokens, total in options[: 2 * width]:
            if len(live) == width:
                break
            if tokens[-1] == END or length == limit:
                found.append((tokens, total))
            else:
                live.append((tokens, total))
        if len(found) >= width or not live:
            break
    return sorted(found, key=lambda option: -option[1] / len(option[0]))


@given(seed=st.integers(0, 10_000), width=st.integers(1, 5), limit=st.integers(1, 5))
def test_it_is_the_beam_search_on_plain_lists(seed: int, width: int, limit: int) -> None:
    engine = TableEngine(seed)
    prompts = [(7,), (8, 9), (5,)]
    start = engine.prefill(prompts)
    rows, forwarded = beam(engine, start, width, _ends_at_mark, max_new_tokens=limit)
    for row, prompt in enumerate(prompts):
        wanted = _naive(engine, prompt, width, limit)
        assert [b.tokens for b in rows[row]] == [tokens for tokens, _ in wanted]
        np.testing.assert_allclose([b.log_probability for b in rows[row]], [t for _, t in wanted], rtol=1e-5)
    assert sum(forwarded) == engine.ledger.decode_tokens
    assert sorted(engine.sequences) == start.states.tolist()  # everything made on the way is released


@given(seed=st.integers(0, 1000))
def test_a_beam_as_wide_as_the_tree_finds_the_best_answer_of_all(seed: int) -> None:
    limit = 3
    engine = TableEngine(seed)
    start = engine.prefill([(3,)])
    rows, _ = beam(engine, start, VOCAB**limit, _ends_at_mark, max_new_tokens=limit)
    answers: dict[tuple[int, ...], float] = {}
    for tokens in itertools.product(range(VOCAB), repeat=limit):
        cut = tokens[: tokens.index(END) + 1] if END in tokens else tokens
        parts = [engine.logits((3, *cut[:i])).log_softmax(-1)[cut[i]].item() for i in range(len(cut))]
        answers[cut] = sum(parts) / len(cut)
    assert tuple(rows[0][0].tokens) == max(answers, key=lambda cut: answers[cut])


def test_a_solution_ends_its_row_and_leads_whatever_its_probability() -> None:
    engine = TableEngine(0)
    least = int(engine.logits((3,)).argmin())

    def judge(row: int, tokens: list[int]) -> End:
        return "solved" if row == 0 and tokens == [least] else "going"

    rows, forwarded = beam(engine, engine.prefill([(3,), (3,)]), VOCAB, judge, max_new_tokens=3)
    assert rows[0][0].tokens == [least]
    assert rows[0][0].end == "solved"
    assert forwarded[0] == 0 < forwarded[1]


def test_refused_beams_make_room_and_are_given_only_where_nothing_else_is() -> None:
    engine = TableEngine(1)
    best = int(engine.logits((3,)).argmax())

    def some(row: int, tokens: list[int]) -> End:
        return "refused" if tokens[0] == best else "ended"

    rows, _ = beam(engine, engine.prefill([(3,)]), 2, some, max_new_tokens=3)
    assert all(b.tokens[0] != best and b.end == "ended" for b in rows[0])
    assert len(rows[0]) == 2 or len(rows[0]) == 3  # the likeliest 2 * width less the refused one
    rows, _ = beam(engine, engine.prefill([(3,)]), 2, lambda row, tokens: "refused", max_new_tokens=3)
    assert rows[0] == [Beam([best], rows[0][0].log_probability, "refused", rows[0][0].state)]


def test_banned_tokens_never_appear() -> None:
    engine = TableEngine(2)
    rows, _ = beam(engine, engine.prefill([(3,)]), 3, _ends_at_mark, banned=[1, 2], max_new_tokens=4)
    assert {token for b in rows[0] for token in b.tokens} <= {0, 3}


def test_no_beams_are_refused() -> None:
    engine = TableEngine(3)
    with pytest.raises(InputError, match="beam width is 0"):
        beam(engine, engine.prefill([(3,)]), 0, _ends_at_mark, max_new_tokens=2)
