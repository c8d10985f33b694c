"""Methods by name and what ``generate`` says of an answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from small_run import finished_run

from tokenzero.answer_limits import FreeText
from tokenzero.answering import WARM_UP_TOKENS, answer, build_method, warm_up
from tokenzero.checkpoint import Opened, open_model
from tokenzero.mcts.errors import InputError
from tokenzero.policy.sampling import Sampling
from tokenzero.selfplay.evaluator import Parts
from tokenzero.selfplay.methods import (
    METHODS,
    BeamSearch,
    BestOfN,
    Budget,
    MethodConfig,
    SampledGame,
    SelfConsistency,
)
from tokenzero.selfplay.methods.config import USERS
from tokenzero.tasks import PublicProblem

PROMPT = "2 3 4 -> 10 :"


@pytest.fixture(scope="module")
def opened() -> Opened:
    return open_model(finished_run())


def _free(opened: Opened) -> Opened:
    """The same model for free text, which no verdict ends; nothing values a leaf."""
    parts = Parts(student=opened.parts.student, engine=opened.parts.engine, task=FreeText(8))
    return Opened(parts, opened.search, "free")


def _asked(name: str, simulations: int, n: int) -> MethodConfig:
    """A method with its own kind of budget."""
    given = {"simulations": simulations, "n": n}
    return MethodConfig(name, **{k: v for k, v in given.items() if name in USERS[k]})


@pytest.mark.parametrize("name", METHODS)
def test_every_method_answers_and_counts(opened: Opened, name: str) -> None:
    found = answer(opened, build_method(opened, _asked(name, 4, 3)), PROMPT, 3)
    again = answer(opened, build_method(opened, _asked(name, 4, 3)), PROMPT, 3)
    assert found.method == name
    assert found.tokens
    pieces = opened.parts.pieces
    assert pieces.text(found.tokens).strip() == found.text
    assert found.ledger["prefill_tokens"] == 7  # <bos> and six words
    assert found.ledger["decode_tokens"] >= len(found.tokens) - 1
    assert found.value is not None
    assert -1.0 <= found.value <= 1.0
    first, second = found.as_dict(), again.as_dict()
    first["ledger"].pop("wall_s")
    second["ledger"].pop("wall_s")
    assert first == second


def test_candidates_of_a_search_are_its_root_moves(opened: Opened) -> None:
    method = build_method(opened, MethodConfig("puct", simulations=8))
    found = answer(opened, method, PROMPT, 1)
    game = build_method(opened, MethodConfig("puct", simulations=8)).play(
        [p.public for p in opened.parts.task.problems("test")][:1], np.random.default_rng(1)
    )[0]
    assert sum(c.visits for c in found.candidates) <= 8
    assert len(found.candidates) == len([a for a in game.moves[0].actions if a >= 0])
    visits = [c.visits for c in found.candidates]
    assert visits == sorted(visits, reverse=True)
    assert all((c.q is None) == (c.visits == 0) for c in found.candidates)
    assert 0.0 < sum(c.prior for c in found.candidates) <= 1.0 + 1e-5


def test_candidates_of_sampling_are_the_distinct_answers(opened: Opened) -> None:
    found = answer(opened, build_method(opened, MethodConfig("self-consistency", n=12)), PROMPT, 1)
    assert sum(c.visits for c in found.candidates) == 12
    assert len({c.text for c in found.candidates}) == len(found.candidates)
    own = next(c for c in found.candidates if c.text == found.text)
    assert own.visits == found.candidates[0].visits
    assert all(c.q in (-1.0, 1.0) for c in found.candidates)
    for name in ("greedy", "sample"):
        assert answer(opened, build_method(opened, MethodConfig(name)), PROMPT, 1).candidates == []


def test_self_consistency_gives_the_commonest_answer_and_the_first_of_equals(opened: Opened) -> None:
    problems = [p.public for p in opened.parts.task.problems("test")]
    # At a low temperature answers repeat, so there is a majority to find.
    method = SelfConsistency(opened.parts, 9, Sampling(temperature=0.5))
    repeated = False
    for game in method.play(problems, np.random.default_rng(0)):
        assert isinstance(game, SampledGame)
        texts = [opened.parts.task.final_answer(a.text) for a in game.answers]
        assert len(texts) == 9
        counts = Counter(texts)
        repeated = repeated or max(counts.values()) > 1
        stated = [text for text in texts if text] or texts
        most = max(counts[text] for text in stated)
        first = next(i for i, text in enumerate(texts) if text in stated and counts[text] == most)
        assert game.text == game.answers[first].text
    assert repeated


def test_self_consistency_draws_what_best_of_n_draws(opened: Opened) -> None:
    problems = [p.public for p in opened.parts.task.problems("test")]
    one = SelfConsistency(opened.parts, 1).play(problems, np.random.default_rng(5))
    other = BestOfN(opened.parts, 1).play(problems, np.random.default_rng(5))
    assert [g.tokens for g in one] == [g.tokens for g in other]


def test_best_of_n_gives_a_verified_answer_or_the_likeliest(opened: Opened) -> None:
    problems = [p.public for p in opened.parts.task.problems("test")]
    games = BestOfN(opened.parts, 96).play(problems, np.random.default_rng(0))
    solved = 0
    for game in games:
        assert isinstance(game, SampledGame)
        verified = [a for a in game.answers if a.verdict == 1.0]
        if verified:
            solved += 1
            assert game.text == verified[0].text == game.answers[-1].text  # it stopped there
        else:
            assert len(game.answers) == 96
            assert game.value == max(a.log_probability for a in game.answers)
        assert game.forwarded == len(game.prompt) + sum(len(a.tokens) - 1 for a in game.answers)
    assert 0 < solved < len(games)


def test_a_beam_of_one_is_greedy_until_the_verdict_refuses(opened: Opened) -> None:
    """Greedy tokens that the public verifier lets stand are those of a beam of width one."""
    problems = [p.public for p in opened.parts.task.problems("test")]
    greedy = build_method(opened, MethodConfig("greedy")).play(problems, np.random.default_rng(0))
    beams = BeamSearch(opened.parts, 1).play(problems, np.random.default_rng(0))
    for one, other in zip(greedy, beams, strict=True):
        shared = min(len(one.tokens), len(other.tokens)) - 1
        assert one.tokens[:shared] == other.tokens[:shared]
    method = BeamSearch(opened.parts, 4)
    games = method.play(problems, np.random.default_rng(0))
    ledger = method.ledger
    assert sum(g.forwarded for g in games) == ledger.forwarded_tokens + ledger.cached_tokens


def test_no_samples_and_no_beams_are_refused(opened: Opened) -> None:
    for name in ("best-of-n", "self-consistency", "beam"):
        with pytest.raises(InputError, match="n is 0"):
            build_method(opened, MethodConfig(name, n=0))


def test_simulations_and_method_change_only_themselves(opened: Opened) -> None:
    method = build_method(opened)
    assert method.name == opened.search.method == "gumbel"
    assert build_method(opened, MethodConfig("puct", simulations=0)).name == "greedy"


def test_without_a_public_verdict_the_value_is_the_searchs_or_unknown(opened: Opened) -> None:
    free = _free(opened)
    searched = answer(free, build_method(free, MethodConfig("gumbel", simulations=4)), PROMPT, 1)
    assert searched.value == 0.0  # nothing here values a leaf, and that is what the search says
    sampled = answer(free, build_method(free, MethodConfig("best-of-n", n=3)), PROMPT, 1)
    assert sampled.value is None
    assert [c.q for c in sampled.candidates] == [None] * len(sampled.candidates)
    assert len(sampled.tokens) <= 8


def test_free_text_has_no_problems() -> None:
    with pytest.raises(InputError, match="give --task"):
        FreeText(4).problems("test")
    with pytest.raises(InputError, match="max_new_tokens is 0"):
        FreeText(0)


def test_a_shorter_answer_limit_leaves_the_task_as_it_was(opened: Opened) -> None:
    short = open_model(finished_run(), max_new_tokens=3)
    assert short.parts.task.max_answer_tokens == 3
    assert short.parts.task.public_verifier
    assert len(answer(short, build_method(short, MethodConfig("greedy")), PROMPT, 1).tokens) <= 3
    task = opened.parts.task
    assert [p.public for p in short.parts.task.problems("test")] == [p.public for p in task.problems("test")]


def test_what_is_said_of_an_answer_is_the_verdict(opened: Opened) -> None:
    """An answer that the public verifier takes is solved by it; one that nobody can check is neither."""
    for simulations in (1, 64):
        found = answer(
            opened, build_method(opened, MethodConfig("frontier", simulations=simulations)), PROMPT, 1
        )
        problem = PublicProblem("prompt", PROMPT, "countdown")
        right = opened.parts.task.verdict(problem, found.text).score == 1.0
        assert (found.solved, found.verified_by) == (right, "public" if right else None)
        assert found.value == (1.0 if right else -1.0)


def test_a_budget_of_tokens_is_kept(opened: Opened) -> None:
    method = build_method(opened, MethodConfig("best-of-n", n=64))
    found = answer(opened, method, PROMPT, 1, Budget(tokens=30))
    assert found.ledger["prefill_tokens"] + found.ledger["decode_tokens"] <= 30
    assert found.end in ("budget", "ended")


@pytest.mark.parametrize("name", METHODS)
def test_a_warm_up_is_small_whatever_the_method_may_do(opened: Opened, name: str) -> None:
    free = _free(opened)
    free = replace(free, parts=replace(free.parts, value_head=opened.parts.value_head))
    config = _asked(name, 20_000, 200)
    method = build_method(free, replace(config, stand_in=0.0) if name == "frontier" else config)
    warm_up(free, method, PROMPT)
    spent = method.ledger
    assert spent.prefill_tokens == 7  # <bos> and six words
    assert 0 < spent.forwarded_tokens - 7 <= WARM_UP_TOKENS
    assert spent.simulations <= 2 * WARM_UP_TOKENS  # two moves, a token for each simulation at most


def test_an_answer_ends_before_a_stop_string(opened: Opened) -> None:
    whole = answer(opened, build_method(opened, MethodConfig("greedy")), PROMPT, 1).text
    word = whole.split()[2]
    cut = answer(opened, build_method(opened, MethodConfig("greedy")), PROMPT, 1, stop=[word])
    assert cut.text == whole[: whole.index(word)].strip()
    assert cut.end == "stop"


def test_the_useful_budget_is_the_default_of_its_method(opened: Opened) -> None:
    useful = replace(opened, useful={"puct": 3, "best-of-n": 2})
    asked = answer(useful, build_method(useful, MethodConfig("puct")), PROMPT, 1)
    assert asked == replace(
        answer(opened, build_method(opened, MethodConfig("puct", simulations=3)), PROMPT, 1),
        ledger=asked.ledger,
    )
    own = answer(useful, build_method(useful, MethodConfig("puct", simulations=8)), PROMPT, 1)
    assert own.ledger["simulations"] > asked.ledger["simulations"]
    drawn = build_method(useful, MethodConfig("best-of-n")).play(
        [PublicProblem("p", PROMPT)], np.random.default_rng(0)
    )[0]
    assert isinstance(drawn, SampledGame)
    assert len(drawn.answers) <= 2
