"""A search over plain text: what edges and leaves are worth, and that it keeps out of loops at no cost."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from tiny import TokenCounter, make_student, plain, tree_engine

from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.evaluator import LeafConfig, LeafEvaluator
from tokenzero.selfplay.methods import MethodConfig, Search, build
from tokenzero.selfplay.parts import Parts
from tokenzero.selfplay.text.likelihood_evaluator import SCALE, LikelihoodConfig, LikelihoodEvaluator
from tokenzero.tasks import ContinuationConfig, ContinuationTask, PublicProblem
from tokenzero.teachers import Ensemble, EnsembleConfig, NgramTeacher, TeacherWeights
from tokenzero.teachers.weights import WeightConfig
from tokenzero.value.text_quality import repeated_units

PROBLEM = PublicProblem("0", "abcab")
TASK = ContinuationTask(ContinuationConfig(prompt_tokens=5, tokens=12))
CONFIG = LikelihoodConfig(level=1.5, repeat=3, penalty=4.0, ahead=0.5)


def _parts() -> Parts:
    student = make_student(seed=5)
    return Parts(student, tree_engine(student), TASK)


def _open(parts: Parts, config: LikelihoodConfig) -> tuple[LikelihoodEvaluator, int]:
    evaluator = LikelihoodEvaluator(config, parts, LeafConfig(), 6, 1)
    roots = evaluator.open(np.array([0]), [PROBLEM], [np.random.default_rng(0)], [0])
    return evaluator, int(roots[0])


def _allowed_log_probs(parts: Parts, tokens: list[int]) -> np.ndarray:
    logits, _ = plain(parts.student, tokens)
    for banned in parts.student.tokenizer.all_special_ids:
        if banned != parts.student.eos_id:
            logits[banned] = -np.inf
    return logits.log_softmax(-1).double().numpy()


@pytest.mark.parametrize("repeating", [True, False])
def test_edges_and_leaves_are_worth_their_nats(repeating: bool) -> None:
    parts = _parts()
    evaluator, root = _open(parts, CONFIG)
    tokens = evaluator.sequence(root)
    c = parts.student.tokenizer.convert_tokens_to_ids("c")
    actions = evaluator.view(np.array([root])).actions[0]
    token = c if repeating else int(next(a for a in actions if a not in (c, parts.student.eos_id)))
    # "abc" stood before: c ends a run of three that is there already, other letters do not
    found = evaluator.expand(np.array([root]), np.array([token]))
    before, after = _allowed_log_probs(parts, tokens), _allowed_log_probs(parts, [*tokens, token])
    worth = before[token] + 1.5 - (4.0 if repeating else 0.0)
    assert found.reward[0] * SCALE == pytest.approx(worth, abs=1e-4)
    assert found.value[0] * SCALE == pytest.approx(0.5 * (after.max() + 1.5), abs=1e-4)
    assert evaluator.view(np.array([root])).reward[0] == 0.0


def test_the_prior_of_edges_is_the_mixture_with_teachers() -> None:
    parts = _parts()
    table = NgramTeacher.fit([[4, 5, 6] * 20], 2, parts.student.vocab_size)
    weights = TeacherWeights([table.name], WeightConfig())
    parts.ensemble = Ensemble([table], weights, EnsembleConfig(beta=0.75))
    evaluator, root = _open(parts, replace(CONFIG, penalty=0.0))
    tokens = evaluator.sequence(root)
    own = np.exp(_allowed_log_probs(parts, tokens))
    token = int(evaluator.view(np.array([root])).actions[0, 0])
    mixed = 0.25 * own + 0.75 * table.distribution(tokens)
    mixed[[i for i in parts.student.tokenizer.all_special_ids if i != parts.student.eos_id]] = 0.0
    found = evaluator.expand(np.array([root]), np.array([token]))
    # Only candidates share the mass, so the prior is a little more than the mixture's.
    assert found.reward[0] * SCALE - 1.5 == pytest.approx(np.log(mixed[token] / mixed.sum()), abs=0.1)


def _written(config: LikelihoodConfig | None, parts: Parts) -> tuple[list[int], int]:
    factory = LeafEvaluator if config is None else partial(LikelihoodEvaluator, config)
    search = SearchConfig(method="gumbel", simulations=12, candidates=6)
    method = Search(parts, search, evaluator=factory)
    counter = TokenCounter(parts.student)
    (game,) = method.play([PROBLEM], np.random.default_rng(1))
    assert counter.tokens == method.ledger.forwarded_tokens  # likelihood costs no forward of its own
    return game.tokens, counter.tokens


def test_a_price_on_repeats_keeps_out_of_loops() -> None:
    prompt = [4, 5, 6, 4, 5]
    loop, _ = _written(replace(CONFIG, penalty=0.0), _parts())
    free, _ = _written(replace(CONFIG, penalty=8.0), _parts())
    assert repeated_units(loop, 3, prompt) > repeated_units(free, 3, prompt)


def test_search_finds_likelier_text_than_the_prior_alone() -> None:
    parts = _parts()

    def likelihood(tokens: list[int]) -> float:
        found = []
        whole = parts.student.tokenizer("abcab")["input_ids"]
        for token in tokens:
            found.append(_allowed_log_probs(parts, whole)[token])
            whole = [*whole, token]
        return float(np.mean(found))

    greedy = Search(parts, SearchConfig(simulations=0, candidates=1)).play(
        [PROBLEM], np.random.default_rng(1)
    )[0]
    searched, _ = _written(replace(CONFIG, penalty=0.0), parts)
    assert likelihood(searched) >= likelihood(greedy.tokens)


def test_searches_of_a_continuation_look_for_likelihood() -> None:
    parts = _parts()
    config = MethodConfig("puct", simulations=6)
    (game,) = build(parts, SearchConfig(candidates=6), config).play([PROBLEM], np.random.default_rng(0))
    plain_search = Search(parts, SearchConfig(method="puct", simulations=6, candidates=6))
    (blind,) = plain_search.play([PROBLEM], np.random.default_rng(0))
    assert any(move.q.any() for move in game.moves)
    assert not any(move.q.any() for move in blind.moves)  # nothing prices its leaves


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="repeat is 0"):
        LikelihoodConfig(repeat=0)
    with pytest.raises(InputError, match="penalty is -1"):
        LikelihoodConfig(penalty=-1.0)
