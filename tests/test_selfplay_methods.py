"""Methods without a tree: what they draw, what they pay, which answer they give."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import numpy as np
import pytest
from tiny import Mirror, Secret, TokenCounter, make_student, plain, tree_engine

from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.sampling import Sampling
from tokenzero.policy.tree_engine import TreeEngine
from tokenzero.selfplay.evaluator import Parts, banned_tokens
from tokenzero.selfplay.methods import BeamSearch, BestOfN, SampledGame, Search, SelfConsistency, greedy
from tokenzero.tasks import PublicProblem, Task, Verdict

PROBLEMS = [problem.public for problem in Mirror().problems("test")][:10]


class Coin(Mirror):
    """Two letters are an answer; right when the second is among the first half of the alphabet."""

    public_verifier: ClassVar[bool] = True

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        if len(answer) < 2:
            return Verdict(False, None)
        return Verdict(True, float(answer[1] in "abc"))


def make_parts(task: Task | None = None) -> Parts:
    student = make_student()
    return Parts(student=student, engine=tree_engine(student), task=task or Coin())


def played(method: Any, problems: list[PublicProblem] = PROBLEMS, seed: int = 0) -> list[SampledGame]:
    games = method.play(problems, np.random.default_rng(seed))
    assert all(isinstance(game, SampledGame) for game in games)
    return list(games)


def log_probability(parts: Parts, prompt: list[int], answer: list[int]) -> float:
    total, sequence = 0.0, list(prompt)
    for token in answer:
        logits = plain(parts.student, sequence)[0].detach().clone()
        logits[banned_tokens(parts.student)] = -float("inf")
        total += float(logits.log_softmax(-1)[token])
        sequence.append(token)
    return total


def test_sampling_stops_at_the_first_verified_answer() -> None:
    games = played(BestOfN(make_parts(), 5), PROBLEMS * 5)
    lengths = Counter(len(game.answers) for game in games)
    assert set(lengths) == {1, 2, 3, 4, 5}
    for game in games:
        verdicts = [answer.verdict for answer in game.answers]
        assert verdicts[:-1] == [0.0] * (len(verdicts) - 1)
        assert verdicts[-1] == 1.0 or len(verdicts) == 5
        assert game.verdict == verdicts[-1] if verdicts[-1] == 1.0 else game.verdict == 0.0
        if game.verdict == 1.0:
            assert game.text == game.answers[-1].text
            assert game.text[1] in "abc"


@pytest.mark.parametrize("task", [Coin(), Secret()])
@pytest.mark.parametrize("kind", ["best-of-n", "self-consistency"])
def test_every_sample_is_paid_and_the_prompt_once(kind: str, task: Task) -> None:
    parts = make_parts(task)
    counter = TokenCounter(parts.student)
    method: Any = BestOfN(parts, 4) if kind == "best-of-n" else SelfConsistency(parts, 4)
    games = played(method)
    ledger = method.ledger
    shared = ledger.cached_tokens  # of prompts that begin alike
    assert ledger.prefill_tokens + shared == sum(len(game.prompt) for game in games)
    assert ledger.decode_tokens == sum(len(a.tokens) - 1 for game in games for a in game.answers)
    assert ledger.forwarded_tokens == counter.tokens == sum(game.forwarded for game in games) - shared
    assert ledger.verifier_calls == sum(len(a.tokens) for game in games for a in game.answers)
    assert method.name == kind
    assert isinstance(parts.engine, TreeEngine)
    assert parts.engine.resident == 0


def test_without_a_public_verifier_the_likeliest_answer_is_given() -> None:
    parts = make_parts(Secret())
    for game in played(BestOfN(parts, 6)):
        assert len(game.answers) == 6
        scores = [log_probability(parts, game.prompt, answer.tokens) for answer in game.answers]
        assert [answer.log_probability for answer in game.answers] == pytest.approx(scores, abs=1e-4)
        assert game.tokens == game.answers[int(np.argmax(scores))].tokens
        assert game.verdict is None


def test_one_sample_is_a_plain_sample() -> None:
    parts = make_parts(Secret())
    games = played(BestOfN(parts, 1, Sampling(0.8, top_k=4)), seed=7)
    for game, stream in zip(games, np.random.default_rng(7).spawn(len(games)), strict=True):
        rng, sequence = stream.spawn(1)[0], list(game.prompt)
        for token in game.tokens:
            logits = plain(parts.student, sequence)[0].detach().clone()
            logits[banned_tokens(parts.student)] = -float("inf")
            logits[logits < logits.topk(4).values[-1]] = -float("inf")
            noise = rng.gumbel(size=len(logits))
            assert token == int((logits.numpy() / 0.8 + noise).argmax())
            sequence.append(token)
        assert len(game.tokens) == 4 or game.tokens[-1] == parts.student.eos_id


def test_the_same_seed_gives_the_same_answers() -> None:
    def texts(seed: int) -> list[list[str]]:
        return [
            [a.text for a in game.answers] for game in played(BestOfN(make_parts(Secret()), 3), seed=seed)
        ]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_self_consistency_gives_the_answer_seen_most_often() -> None:
    games = played(SelfConsistency(make_parts(Coin()), 9), PROBLEMS * 3)
    assert all(len(game.answers) == 9 for game in games), "a verified sample does not stop the vote"
    for game in games:
        votes = Counter(answer.text for answer in game.answers if answer.text)  # to say nothing is no vote
        assert votes[game.text] == max(votes.values())
        first = next(a.text for a in game.answers if a.text and votes[a.text] == max(votes.values()))
        assert game.text == first


def test_one_beam_is_greedy_decoding() -> None:
    beams = played(BeamSearch(make_parts(Secret()), 1))
    plain_games = greedy(make_parts(Secret())).play(PROBLEMS, np.random.default_rng(0))
    assert [game.tokens for game in beams] == [game.tokens for game in plain_games]


def test_wide_beams_find_the_likeliest_answer_per_token() -> None:
    parts = make_parts(Coin())
    method = BeamSearch(parts, 40)
    for game in played(method, PROBLEMS[:4]):
        pairs = [[a, b] for a in range(4, 10) for b in range(4, 7)]
        scores = [log_probability(parts, game.prompt, pair) for pair in pairs]
        assert game.verdict == 1.0
        assert game.tokens == pairs[int(np.argmax(scores))]
    assert method.ledger.forwarded_tokens == parts.engine.ledger.forwarded_tokens
    assert isinstance(parts.engine, TreeEngine)
    assert parts.engine.resident == 0


class Refuses(Mirror):
    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        raise InputError("this prompt is not mine")


def test_a_verifier_that_refuses_leaves_the_engine_clean() -> None:
    parts = make_parts(Refuses())
    methods: list[Any] = [BestOfN(parts, 2), SelfConsistency(parts, 2), BeamSearch(parts, 2), greedy(parts)]
    for method in methods:
        with pytest.raises(InputError, match="not mine"):
            method.play(PROBLEMS, np.random.default_rng(0))
        assert isinstance(parts.engine, TreeEngine)
        assert parts.engine.resident == 0


def test_names_tell_methods_apart() -> None:
    parts = make_parts()
    assert greedy(parts).name == "greedy"
    assert Search(parts, SearchConfig(method="puct", simulations=2)).name == "puct"
    assert Search(parts, SearchConfig(simulations=2)).name == "gumbel"
    assert BestOfN(parts, 2, name="sample").name == "sample"
    assert BeamSearch(parts, 2).name == "beam"


def test_less_than_one_sample_is_refused() -> None:
    for kind in (BestOfN, SelfConsistency, BeamSearch):
        with pytest.raises(InputError, match="n is 0"):
            kind(make_parts(), 0)


def test_progress_is_told() -> None:
    heard: list[int] = []
    BestOfN(make_parts(), 2).play(PROBLEMS, np.random.default_rng(0), on_games=heard.append)
    assert sum(heard) == len(PROBLEMS)
