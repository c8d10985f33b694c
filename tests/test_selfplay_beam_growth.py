"""Beams against a plain beam search on lists, and against an exhaustive search."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.methods.answer_ends import Reading
from tokenzero.selfplay.methods.beam_growth import Beam, Beams, BeamShape

VOCAB = 4
END = 0
Tokens = tuple[int, ...]
Look = Callable[[Tokens], Reading]


@cache
def shares(seed: int, tokens: Tokens) -> torch.Tensor:
    """Log-probabilities of the next token, drawn from the sequence itself."""
    rng = np.random.default_rng([seed, *tokens])
    return torch.from_numpy(rng.normal(size=VOCAB) * 2.0).float().log_softmax(-1)


def ends_at_mark(limit: int) -> Look:
    def look(tokens: Tokens) -> Reading:
        if tokens[-1] == END:
            return Reading("", "ended", None)
        return Reading("", "length" if len(tokens) >= limit else None, None)

    return look


def grown(seed: int, shape: BeamShape, look: Look) -> tuple[Beams, int]:
    """Beams grown to their end, and how many were forwarded."""
    beams = Beams(shape, 0, lambda beam: look(tuple(beam.tokens)))
    forwarded, growing = 0, beams.live
    while growing:
        growing = beams.grow(torch.stack([shares(seed, tuple(beam.tokens)) for beam in growing]))
        forwarded += len(growing)
    return beams, forwarded


def naive(seed: int, shape: BeamShape, look: Look) -> tuple[list[tuple[Tokens, float]], int]:
    """The same search on plain lists: best answers first, and tokens forwarded."""
    size = shape.width // shape.groups
    live: list[list[tuple[Tokens, float]]] = [[((), 0.0)] for _ in range(shape.groups)]
    found: list[list[tuple[Tokens, float]]] = [[] for _ in range(shape.groups)]
    forwarded = 0
    while any(live):
        taken: Counter[int] = Counter()
        for group in range(shape.groups):
            options = []
            for tokens, total in live[group]:
                for token, share in enumerate(shares(seed, tokens).tolist()):
                    score = total + share - shape.diversity * taken[token]
                    options.append((score, (*tokens, token), total + share))
            options.sort(key=lambda option: -option[0])
            had, live[group] = bool(live[group]), []
            for _, tokens, total in options[: 2 * size]:
                if len(live[group]) == size:
                    break
                ended = look(tokens).end is not None
                (found if ended else live)[group].append((tokens, total))
            if had:
                taken.update(tokens[-1] for tokens, _ in live[group])
                taken.update(t[-1] for _, t, _ in options[: 2 * size] if (t in dict(found[group])))
            if len(found[group]) >= size:
                live[group] = []
        forwarded += sum(map(len, live))
    every = [option for group in found for option in group]
    return sorted(every, key=lambda option: -option[1] / len(option[0]) ** shape.length_penalty), forwarded


@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 4),
    groups=st.integers(1, 3),
    diversity=st.sampled_from([0.0, 0.4, 3.0]),
    length_penalty=st.sampled_from([0.0, 1.0, 2.0, -1.0]),
    limit=st.integers(1, 5),
)
def test_it_is_the_beam_search_on_plain_lists(
    seed: int, size: int, groups: int, diversity: float, length_penalty: float, limit: int
) -> None:
    shape = BeamShape(size * groups, length_penalty, groups, diversity if groups > 1 else 0.0)
    beams, forwarded = grown(seed, shape, ends_at_mark(limit))
    wanted, paid = naive(seed, shape, ends_at_mark(limit))
    found = beams.answers()
    assert sorted(tuple(b.tokens) for b in found) == sorted(tokens for tokens, _ in wanted)
    scores = [b.log_probability / len(b.tokens) ** length_penalty for b in found]
    np.testing.assert_allclose(
        scores, [t / len(k) ** length_penalty for k, t in wanted], rtol=1e-4, atol=1e-5
    )
    assert forwarded == paid


@given(seed=st.integers(0, 1000))
def test_a_beam_as_wide_as_the_tree_finds_the_best_answer_of_all(seed: int) -> None:
    limit = 3
    beams, _ = grown(seed, BeamShape(VOCAB**limit), ends_at_mark(limit))
    answers: dict[Tokens, float] = {}
    for tokens in itertools.product(range(VOCAB), repeat=limit):
        cut = tokens[: tokens.index(END) + 1] if END in tokens else tokens
        total = sum(float(shares(seed, cut[:i])[cut[i]]) for i in range(len(cut)))
        answers[cut] = total / len(cut)
    assert tuple(beams.answers()[0].tokens) == max(answers, key=lambda cut: answers[cut])


def test_groups_without_a_penalty_are_the_same_search_again() -> None:
    look = ends_at_mark(4)
    single, _ = grown(5, BeamShape(2), look)
    double, _ = grown(5, BeamShape(4, groups=2), look)
    assert Counter(tuple(b.tokens) for b in double.answers()) == Counter(
        {tuple(b.tokens): 2 for b in single.answers()}
    )


def test_a_large_penalty_makes_groups_begin_with_different_tokens() -> None:
    shape = BeamShape(3, groups=3, diversity=100.0)
    beams = Beams(shape, 0, lambda beam: Reading("", None, None))
    first = beams.grow(shares(1, ()).expand(3, -1))
    order = shares(1, ()).argsort(descending=True).tolist()
    assert [beam.tokens for beam in first] == [[token] for token in order[:3]]
    own = [float(shares(1, ())[token]) for token in order[:3]]
    assert [beam.log_probability for beam in first] == pytest.approx(own), "the penalty stays out of scores"


def test_the_length_penalty_decides_between_short_and_long() -> None:
    """Token 1 goes on for ever at a tenth of a nat each; the end mark costs two."""
    step = torch.tensor([-2.0, -0.1, -math.inf, -math.inf])

    def best(length_penalty: float) -> int:
        beams = Beams(BeamShape(4, length_penalty), 0, lambda beam: ends_at_mark(4)(tuple(beam.tokens)))
        growing = beams.live
        while growing:
            growing = beams.grow(torch.stack([step] * len(growing)))
        return len(beams.answers()[0].tokens)

    assert best(1.0) == 4
    assert best(0.0) == 4  # -0.4 in all beats -2
    assert best(-2.0) == 1  # lengths count against an answer: -2 against -0.4 * 16


def test_a_solution_ends_the_search_and_leads_whatever_its_probability() -> None:
    least = int(shares(0, ()).argmin())

    def look(tokens: Tokens) -> Reading:
        return Reading("", "ended", 1.0) if tokens == (least,) else Reading("", None, 0.0)

    beams, forwarded = grown(0, BeamShape(VOCAB), look)
    assert beams.answers()[0].tokens == [least]
    assert forwarded == 0


def test_refused_beams_make_room_and_are_given_only_where_nothing_else_is() -> None:
    best = int(shares(1, ()).argmax())

    def some(tokens: Tokens) -> Reading:
        return Reading("", "ended", 0.0 if tokens[0] == best else None)

    beams, _ = grown(1, BeamShape(2), some)
    assert all(b.tokens[0] != best for b in beams.answers())
    assert len(beams.answers()) == 3  # the likeliest 2 * width less the refused one
    beams, _ = grown(1, BeamShape(2), lambda tokens: Reading("", "ended", 0.0))
    assert [b.tokens for b in beams.answers()] == [[best]]


def test_what_is_impossible_is_never_taken() -> None:
    def masked(tokens: Tokens) -> torch.Tensor:
        return shares(2, tokens).index_fill(0, torch.tensor([1, 2]), -torch.inf)

    beams = Beams(BeamShape(3), 0, lambda beam: ends_at_mark(4)(tuple(beam.tokens)))
    growing = beams.live
    while growing:
        growing = beams.grow(torch.stack([masked(tuple(beam.tokens)) for beam in growing]))
    assert {token for b in beams.answers() for token in b.tokens} <= {0, 3}


def test_a_search_that_is_cut_short_goes_on_with_the_likeliest_and_gives_what_it_has() -> None:
    beams = Beams(BeamShape(4, groups=2, diversity=9.0), 0, lambda beam: Reading("", None, None))
    first = beams.grow(shares(3, ()).expand(2, -1))
    best = sorted(first, key=lambda beam: -beam.log_probability)
    beams.keep(3)
    assert sorted(map(id, beams.live)) == sorted(map(id, best[:3]))
    assert [beam.tokens for beam in beams.answers()] == [beam.tokens for beam in best[:3]]
    assert Beams(BeamShape(2), 0, lambda beam: Reading("", None, None)).answers() == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 0}, "n is 0"),
        ({"width": 4, "groups": 3}, "groups is 3"),
        ({"width": 4, "groups": 0}, "groups is 0"),
        ({"width": 4, "diversity": 0.5}, "there is one group"),
        ({"width": 4, "groups": 2, "diversity": -1.0}, "diversity is -1"),
        ({"width": 4, "length_penalty": float("nan")}, "length_penalty is nan"),
    ],
)
def test_shapes_out_of_range_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BeamShape(**wrong)  # type: ignore[arg-type]


def test_a_beam_ranks_by_its_verdict() -> None:
    ranks = [Beam([1], 0.0, reading).rank for reading in (
        Reading("", "ended", 1.0), Reading("", "ended", None), Reading("", "length", 0.0),
        Reading("", "ended", 0.0), Reading("", "stop", 0.5),
    )]  # fmt: skip
    assert ranks == [2, 1, 1, 0, 0]
