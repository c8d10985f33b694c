"""The leaf evaluator: what a state is worth, what it costs, and what it can never see."""

from __future__ import annotations

import gc
import typing
from collections.abc import Callable, Sequence
from dataclasses import fields
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tiny import FAMILIES, Mirror, Secret, make_student, plain, planted, tree_engine

from tokenzero.mcts import SearchConfig, search
from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Ids, Step
from tokenzero.policy.sampling import Sampling
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import from_spec
from tokenzero.policy.tree_attention import PagedAttention, TreeAttentionWay
from tokenzero.policy.tree_engine import TreeEngine
from tokenzero.selfplay.evaluator import LeafConfig, LeafEvaluator, Parts, banned_tokens
from tokenzero.selfplay.methods import BestOfN, Search
from tokenzero.selfplay.player import Player
from tokenzero.tasks import CountdownConfig, CountdownTask, Problem, PublicProblem, Task, Verdict
from tokenzero.teachers import (
    GLOBAL,
    Ensemble,
    EnsembleConfig,
    NgramTeacher,
    Proposal,
    TeacherWeights,
    WeightConfig,
    mix,
)
from tokenzero.value import RuleJudge, ValueHead

A, EOS = 4, 2  # the letter "a" and the end mark in the tiny vocabulary


class Watched(TreeEngine):
    """Remembers the sequence of every state it forwarded."""

    def __init__(self, student: Any) -> None:
        super().__init__(student, TreeAttentionWay(student, PagedAttention(), 64))
        self.sequences: dict[int, tuple[int, ...]] = {}
        self.forwarded: list[tuple[int, ...]] = []

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Step:
        return self._seen(super().prefill(prompts), [tuple(prompt) for prompt in prompts])

    def extend(self, states: Ids, tokens: Ids) -> Step:
        pairs = zip(states.tolist(), tokens.tolist(), strict=True)
        longer = [(*self.sequences.get(state, ()), token) for state, token in pairs]
        return self._seen(super().extend(states, tokens), longer)

    def _seen(self, step: Step, sequences: list[tuple[int, ...]]) -> Step:
        self.sequences.update(zip(step.states.tolist(), sequences, strict=True))
        self.forwarded += sequences
        return step


def make_parts(task: Task | None = None, **changes: Any) -> Parts:
    student = make_student()
    settings: dict[str, Any] = {"engine": Watched(student), **changes}
    return Parts(student=student, task=task or Mirror(), **settings)


def started(
    parts: Parts,
    prompts: Sequence[str] = ("abc", "fed"),
    config: LeafConfig | None = None,
    grader: Callable[[int, str], float] | None = None,
    candidates: int = 6,
) -> tuple[LeafEvaluator, Ids]:
    evaluator = LeafEvaluator(parts, config or LeafConfig(), candidates, len(prompts), grader)
    return evaluator, opened(evaluator, [PublicProblem(prompt, prompt) for prompt in prompts])


def opened(evaluator: LeafEvaluator, problems: Sequence[PublicProblem], seed: int = 0) -> Ids:
    """The roots of the problems, in places of the same number."""
    count = len(problems)
    return evaluator.open(
        np.arange(count), problems, np.random.default_rng(seed).spawn(count), list(range(count))
    )


def expand(evaluator: LeafEvaluator, state: int, token: int) -> int:
    return int(evaluator.expand(np.asarray([state]), np.asarray([token])).states[0])


def half(game: int, text: str) -> float:
    return 0.5


# ---- the prior


def test_the_prior_is_the_students_over_what_may_follow() -> None:
    parts = make_parts()
    evaluator, roots = started(parts, config=LeafConfig(prior_temperature=0.7))
    view = evaluator.view(roots)
    for row, prompt in enumerate(["abc", "fed"]):
        ids = parts.student.tokenizer(prompt).input_ids
        logits = plain(parts.student, ids)[0].detach().clone()
        logits[[0, 1, 3]] = -torch.inf  # <pad>, <bos>, <unk>
        expected = (logits / 0.7).log_softmax(-1)
        best = expected.argsort(descending=True)[:6].tolist()
        assert view.actions[row].tolist() == best
        np.testing.assert_allclose(view.logits[row], expected[best].numpy(), atol=1e-4)
    assert view.value.tolist() == [0.0, 0.0]
    assert not view.terminal.any()


def test_specials_and_rows_beyond_the_tokenizer_are_banned() -> None:
    student = make_student()
    assert banned_tokens(student) == [0, 1, 3]
    student.model.resize_token_embeddings(16)  # as models that pad their vocabulary to a round size
    student = Student(student.model, student.tokenizer)
    assert banned_tokens(student) == [0, 1, 3, *range(10, 16)]
    evaluator, roots = started(
        Parts(student=student, engine=tree_engine(student), task=Mirror()), candidates=99
    )
    actions = evaluator.view(roots).actions
    assert actions.shape[1] == 16
    assert {int(a) for a in actions.ravel()} == {-1, 2, *range(4, 10)}


# ---- what a state costs


@pytest.mark.parametrize("method", ["puct", "gumbel"])
@pytest.mark.parametrize("leaves", [1, 4])
def test_no_state_is_forwarded_twice_and_repeats_count_as_cached(method: str, leaves: int) -> None:
    parts = make_parts(Secret())
    engine = parts.engine
    assert isinstance(engine, Watched)
    evaluator, roots = started(parts, grader=half)
    shared = evaluator.ledger.cached_tokens  # of the prompts
    asked: list[tuple[int, int]] = []
    inner = evaluator.expand

    def spy(states: Ids, actions: Ids) -> Any:
        asked.extend(zip(states.tolist(), actions.tolist(), strict=True))
        return inner(states, actions)

    evaluator.expand = spy  # type: ignore[method-assign]
    config = SearchConfig(method=method, simulations=60, candidates=6, leaves=leaves)
    for seed in range(3):  # searching again from the same root walks known ground
        search(evaluator.view(roots), evaluator, config, np.random.default_rng(seed))
    assert len(set(engine.forwarded)) == len(engine.forwarded) > 40
    table = evaluator.table
    repeats = len(asked) - len(set(asked))
    at_ends = sum(
        len([pair for pair in asked if pair == key]) - 1
        for key in set(asked)
        if table.terminal[table.child[key[0], table.actions[key[0]].tolist().index(key[1])]]
    )
    assert evaluator.ledger.cached_tokens - shared == repeats - at_ends > 0


def test_what_the_games_spent_is_what_the_engine_forwarded() -> None:
    parts = make_parts(Secret())
    engine = parts.engine
    assert isinstance(engine, Watched)
    evaluator, roots = started(parts, config=LeafConfig(rollout_share=0.5), grader=half)
    config = SearchConfig(simulations=20, candidates=6, leaves=4)
    search(evaluator.view(roots), evaluator, config, np.random.default_rng(0))
    for game, prompt in enumerate(["abc", "fed"]):
        head = tuple(parts.student.tokenizer(prompt).input_ids)
        own = [sequence for sequence in engine.forwarded if sequence[: len(head)] == head]
        assert evaluator.spent[game] == len(head) + len(own) - 1
    ledger = evaluator.close()
    paid = ledger.prefill_tokens + ledger.decode_tokens + ledger.value_tokens
    assert int(evaluator.spent.sum()) == paid + 1, "the mark that both prompts begin with is forwarded once"
    assert ledger.forwarded_tokens == engine.ledger.forwarded_tokens
    assert ledger.value_tokens > 0
    assert engine.resident == 0
    assert evaluator.close() == ledger, "closing twice frees and counts nothing twice"


def test_a_released_state_is_forwarded_again_and_its_handle_is_void() -> None:
    parts = make_parts()
    evaluator, roots = started(parts, ["aba"])
    root = int(roots[0])
    child = expand(evaluator, root, A)
    evaluator.release(np.asarray([child, child]))
    with pytest.raises(InputError, match="released"):
        expand(evaluator, child, 5)
    before = parts.engine.ledger.decode_tokens
    expand(evaluator, root, A)
    assert parts.engine.ledger.decode_tokens == before + 1
    with pytest.raises(InputError, match="not all of this table"):
        evaluator.release(np.asarray([10**9]))


@pytest.mark.parametrize(("state", "token"), [(0, 0), (0, -1), (-1, A), (10**9, A), (1, A)])
def test_what_a_state_does_not_offer_is_refused_and_leaves_no_trace(state: int, token: int) -> None:
    parts = make_parts(Secret())
    evaluator, roots = started(parts, ["aba"])
    good = int(roots[0])
    assert good == 0
    with pytest.raises(InputError, match=f"state {state} was released or offers no action {token}"):
        evaluator.expand(np.asarray([good, state]), np.asarray([A, token]))
    assert evaluator.table.used == 1
    assert evaluator.ledger.verifier_calls == 0


def test_a_state_asked_for_twice_in_one_call_is_one_state() -> None:
    parts = make_parts(Secret())
    evaluator, roots = started(parts)
    one, other = (int(root) for root in roots)
    shared = evaluator.ledger.cached_tokens  # of the prompts
    states = np.asarray([one, other, one, one])
    rows = evaluator.expand(states, np.asarray([A, A, A, A + 1])).states
    assert rows[0] == rows[2]
    assert len(set(rows.tolist())) == 3
    assert parts.engine.ledger.decode_tokens == 3
    assert evaluator.ledger.cached_tokens == shared + 1
    assert evaluator.ledger.verifier_calls == 3
    assert evaluator.spent.tolist() == [len(evaluator.prompt(0)) + 2, len(evaluator.prompt(1)) + 1]


def test_a_committed_move_frees_its_siblings_and_keeps_what_is_below_it() -> None:
    parts = make_parts(Secret())
    engine = parts.engine
    assert isinstance(engine, Watched)
    evaluator, roots = started(parts, ["aba"], candidates=10)
    root = int(roots[0])
    kept, other = expand(evaluator, root, A), expand(evaluator, root, A + 1)
    below, beside = expand(evaluator, kept, A + 2), expand(evaluator, other, A)
    expand(evaluator, beside, A)
    forwarded, used = engine.ledger.decode_tokens, evaluator.table.used
    evaluator.keep(np.asarray([kept]))
    assert evaluator.table.used == used - 3
    assert engine.resident == len(evaluator.prompt(0)) + 2
    assert expand(evaluator, kept, A + 2) == below
    assert engine.ledger.decode_tokens == forwarded, "what was kept is not forwarded again"
    for gone in (other, beside):
        with pytest.raises(InputError, match="released"):
            expand(evaluator, gone, A)
    evaluator.shut(np.asarray([0]))
    assert (evaluator.table.used, engine.resident) == (0, 0)


def test_places_are_used_again_in_bounded_memory() -> None:
    parts = make_parts(Secret())
    evaluator, _ = started(parts, ["abc", "fed", "ace"], grader=half)
    room = len(evaluator.table.game)
    config = SearchConfig(simulations=20, candidates=6)
    again = np.asarray([1])
    with pytest.raises(InputError, match="shut it first"):
        evaluator.open(again, [PublicProblem("x", "bad")], np.random.default_rng(0).spawn(1), [7])
    for turn in range(30):
        evaluator.shut(again)
        roots = evaluator.open(again, [PublicProblem("x", "bad")], np.random.default_rng(0).spawn(1), [turn])
        search(evaluator.view(roots), evaluator, config, np.random.default_rng(turn))
        assert evaluator.sequence(int(roots[0])) == evaluator.prompt(1)
    assert len(evaluator.table.game) == room
    assert evaluator.spent[0] == len(evaluator.prompt(0))
    evaluator.close()
    assert evaluator.table.used == 0


# ---- what a state is worth


@pytest.mark.parametrize("spec", ["words", "characters"])
@pytest.mark.parametrize("rollouts", [0.0, 0.3])
def test_a_tasks_automaton_says_what_its_verdicts_say(spec: str, rollouts: float) -> None:
    sizes = {"train": 12, "validation": 1, "test": 1}
    rules = {"numbers": 2, "high": 4, "target_low": 2, "target_high": 9, "bound": 16}
    config = CountdownConfig(granularity=spec, **rules, **sizes)
    seen = []
    for with_automaton in (True, False):
        task = CountdownTask(config)
        if not with_automaton:
            task.automaton = lambda pieces: None  # type: ignore[method-assign]
        family = {**FAMILIES["llama-gqa"], "max_position_embeddings": 64}
        student = Student.from_config(family, from_spec(task.tokenizer_spec()), seed=3)
        parts = Parts(student=student, engine=tree_engine(student), task=task)
        parts.judge = RuleJudge.from_names({"contains:1": 1})
        leaf = LeafConfig(rollout_share=rollouts, judge_eta=0.2)
        player = Player(parts, SearchConfig(simulations=60, candidates=30), leaf)
        problems = [problem.public for problem in task.problems("train")]
        games = player.play(problems, np.random.default_rng(0))
        player.ledger.wall_s = 0.0
        moves = [[move.visits.tolist() for move in game.moves] for game in games]
        seen.append(([(game.text, game.verdict) for game in games], moves, player.ledger))
    assert seen[0] == seen[1]
    assert {verdict for _, verdict in seen[0][0]} == {0.0, 1.0}


def test_text_is_read_where_tokens_depend_on_their_neighbours() -> None:
    evaluator, roots = started(make_parts(), ["abc"])
    evaluator._parts.pieces.independent = False
    state = int(roots[0])
    for letter in "cb":
        state = expand(evaluator, state, A + "abcdef".index(letter))
    assert evaluator.text(state) == "cb"
    assert not evaluator.table.terminal[state]


@pytest.mark.parametrize(
    ("answer", "terminal", "value"),
    [
        ("c", False, 0.0),
        ("cba", True, 1.0),  # solved
        ("b", True, -1.0),  # already wrong
        ("c\n", True, -1.0),  # the end mark before the answer is complete
    ],
)
def test_public_verdicts_decide_the_ends(answer: str, terminal: bool, value: float) -> None:
    parts = make_parts()
    evaluator, roots = started(parts, ["abc"])
    state = int(roots[0])
    for letter in answer:
        state = expand(evaluator, state, EOS if letter == "\n" else A + "abcdef".index(letter))
    view = evaluator.view(np.asarray([state]))
    assert (bool(view.terminal[0]), float(view.value[0])) == (terminal, value)
    assert evaluator.text(state) == answer.strip()
    assert (evaluator.table.slot[state] < 0) == terminal, "an end with a verdict needs no forward"
    assert evaluator.ledger.verifier_calls == len(answer)


def test_the_length_limit_ends_an_answer() -> None:
    evaluator, roots = started(make_parts(Secret()), ["abc"], grader=lambda game, text: 0.25)
    state = int(roots[0])
    for _ in range(3):
        state = expand(evaluator, state, A)
        assert not evaluator.table.terminal[state]
    state = expand(evaluator, state, A)
    assert evaluator.table.terminal[state]
    assert evaluator.table.value[state] == -0.5


def test_a_grader_is_asked_about_finished_answers_of_its_game() -> None:
    asked: list[tuple[int, str]] = []

    def grader(game: int, text: str) -> float:
        asked.append((game, text))
        return 1.0

    evaluator, roots = started(make_parts(Secret()), grader=grader, candidates=7)
    state = expand(evaluator, int(roots[1]), A)
    end = expand(evaluator, state, EOS)
    expand(evaluator, state, EOS)
    assert asked == [(1, "a")]
    assert evaluator.table.value[end] == 1.0
    assert evaluator.ledger.verifier_calls == 3, "two verdicts and one grade"


def head_of(parts: Parts, scale: float = 1.0) -> ValueHead:
    head = ValueHead(parts.student.hidden_size)
    torch.nn.init.normal_(head.last.weight, std=scale, generator=torch.Generator().manual_seed(0))
    return head


def test_without_verdict_or_grader_the_head_prices_the_end_and_never_as_solved() -> None:
    parts = make_parts(Secret())
    parts.value_head = head_of(parts)
    evaluator, roots = started(parts, ["abc"])
    end = expand(evaluator, int(roots[0]), EOS)
    hidden = plain(parts.student, [*parts.student.tokenizer("abc").input_ids, EOS])[1]
    expected = float(parts.value_head.value(parts.value_head(hidden)).detach())
    assert evaluator.table.terminal[end]
    assert float(evaluator.table.value[end]) == pytest.approx(expected, abs=1e-4)
    assert abs(expected) > 0.01
    parts.judge = RuleJudge.from_names({"too_long:1": 1, "contains:a": 1})
    judged, roots = started(parts, ["abc"], LeafConfig(judge_eta=1.0))
    going = expand(judged, int(roots[0]), A)
    end = expand(judged, going, EOS)
    parts.value_head.last.bias.data[-1] = 50.0  # the head, too, is sure
    sure = expand(judged, expand(judged, going, A), EOS)
    for state in (end, sure):
        assert judged.table.terminal[state]
        assert 0 < judged.table.value[state] < 1.0, "only a verdict may say solved"


def test_the_head_prices_states_that_go_on() -> None:
    parts = make_parts()
    parts.value_head = head_of(parts)
    evaluator, roots = started(parts, ["aba"])
    child = expand(evaluator, int(roots[0]), A)
    for state in (int(roots[0]), child):
        hidden = plain(parts.student, evaluator.sequence(state))[1]
        expected = float(parts.value_head.value(parts.value_head(hidden)).detach())
        assert float(evaluator.table.value[state]) == pytest.approx(expected, abs=1e-4)


def test_the_judge_shifts_what_it_speaks_about() -> None:
    parts = make_parts(judge=RuleJudge.from_names({"contains:c": 1, "contains:cb": -1}))
    evaluator, roots = started(parts, ["abc"], LeafConfig(judge_eta=0.3))
    first = expand(evaluator, int(roots[0]), A + 2)
    second = expand(evaluator, first, A + 1)
    values = evaluator.table.value[[int(roots[0]), first, second]]
    np.testing.assert_allclose(values, [0.0, 0.3, -0.3], atol=1e-6)
    assert evaluator.ledger.judge_calls == 3
    silent, roots = started(parts, ["abc"], LeafConfig(judge_eta=0.0))
    expand(silent, int(roots[0]), A + 2)
    assert silent.ledger.judge_calls == 0


class TwoLetters(Mirror):
    """Any two letters are an answer; it is right when the second is the prompt's first."""

    def verdict(self, problem: PublicProblem, answer: str) -> Verdict:
        if len(answer) < 2:
            return Verdict(False, None)
        return Verdict(True, float(answer[1] == problem.prompt[0]))


def test_play_outs_estimate_the_chance_of_success() -> None:
    parts = make_parts(TwoLetters())
    evaluator, roots = started(parts, ["abc"] * 4000, LeafConfig(rollout_share=1.0))
    states = evaluator.expand(roots, np.full(4000, A)).states
    outcomes = evaluator.table.value[states]
    assert set(outcomes.tolist()) == {-1.0, 1.0}
    logits = plain(parts.student, [*parts.student.tokenizer("abc").input_ids, A])[0].detach().clone()
    logits[[0, 1, 3]] = -torch.inf
    share = float(logits.softmax(-1)[A])
    assert 0.02 < share < 0.98
    assert (outcomes > 0).mean() == pytest.approx(share, abs=0.03)
    assert parts.engine.ledger.decode_tokens == 4000, "the last token of a play-out is not forwarded"
    assert parts.engine.ledger.value_tokens > 0


def test_play_outs_are_blended_and_need_somebody_to_score_them() -> None:
    parts = make_parts(Secret())
    parts.value_head = head_of(parts)
    plain_values = started(parts)[0].table.value[:2].copy()
    graded, _ = started(parts, config=LeafConfig(rollout_share=0.25), grader=lambda game, text: 1.0)
    np.testing.assert_allclose(graded.table.value[:2], 0.75 * plain_values + 0.25, atol=1e-5)
    before = parts.engine.ledger.value_tokens
    alone, _ = started(parts, config=LeafConfig(rollout_share=0.25))
    np.testing.assert_allclose(alone.table.value[:2], plain_values, atol=1e-5)
    assert parts.engine.ledger.value_tokens == before


def test_play_outs_do_not_depend_on_what_is_played_beside_them() -> None:
    def values(prompts: Sequence[str], place: int) -> list[float]:
        evaluator, roots = started(make_parts(TwoLetters()), prompts, LeafConfig(rollout_share=1.0))
        asked = roots if place else roots[::-1]
        evaluator.expand(asked, np.full(len(asked), A))
        state = evaluator.expand(roots[:1], np.asarray([A + 1])).states
        first = evaluator.table.child[roots[0]]
        return [float(evaluator.table.value[row]) for row in (int(roots[0]), *state, *first[first >= 0])]

    together = [values(["abc", *others], 1) for others in ([], ["fed"], ["bad", "cab"], ["fed"] * 20)]
    assert all(found == together[0] for found in together)
    assert values(["abc", "fed", "bad"], 0) == together[0]


def test_a_play_out_ends_at_the_length_limit() -> None:
    parts = make_parts(Secret())
    lengths: list[int] = []

    def grader(game: int, text: str) -> float:
        lengths.append(len(text))
        return 0.0

    evaluator, roots = started(parts, ["abc"] * 50, LeafConfig(rollout_share=1.0), grader)
    evaluator.expand(roots, np.full(50, A))
    assert max(lengths) == 4
    assert len(lengths) == 100


# ---- teachers


class Echo:
    """Proposes the last token again, and a special token that no answer may hold."""

    def __init__(self, name: str = "echo") -> None:
        self.name = name
        self.asked: list[list[int]] = []

    def propose(
        self, sequences: Sequence[Sequence[int]], k: int, prompt_lens: Sequence[int] | None = None
    ) -> Proposal:
        self.asked += [list(sequence) for sequence in sequences]
        actions = np.asarray([[0, sequence[-1], 1][:k] for sequence in sequences], np.int64)
        probs = np.tile(np.asarray([0.5, 0.4, 0.1], np.float32)[:k], (len(sequences), 1))
        return Proposal(actions, probs, len(sequences))


def voice(teachers: Sequence[Any], scores: Sequence[float] | None = None, **options: Any) -> Ensemble:
    """An ensemble whose weights are the softmax of the scores."""
    config = EnsembleConfig(weights=WeightConfig(temperature=1.0, epsilon=1e-12), **options)
    weights = TeacherWeights([teacher.name for teacher in teachers], config.weights)
    if scores is not None:
        told = {t.name: {"score": s, "evidence": 1.0} for t, s in zip(teachers, scores, strict=True)}
        weights.load({GLOBAL: told})
    return Ensemble(teachers, weights, config)


def test_teachers_enter_the_prior_by_their_share() -> None:
    two = voice([Echo("one"), Echo("other")], [np.log(3.0), 0.0], beta=0.4)
    evaluator, roots = started(make_parts(ensemble=two))
    alone, same = started(make_parts())
    view, before = evaluator.view(roots), alone.view(same)
    last = [evaluator.sequence(int(root))[-1] for root in roots]
    proposal = Proposal(np.asarray([[t] for t in last]), np.full((2, 1), 0.4, np.float32), 2)
    expected = mix(before.actions, np.exp(before.logits), [proposal, proposal], [3.0, 1.0], 0.4, 6)
    np.testing.assert_array_equal(view.actions, expected.actions)
    np.testing.assert_allclose(view.logits, expected.logits, atol=1e-6)
    responsibility = evaluator.table.responsibility[roots]
    np.testing.assert_allclose(responsibility, expected.responsibility, atol=1e-6)
    np.testing.assert_allclose(responsibility.sum(axis=2)[view.actions >= 0], 1.0, atol=1e-6)
    assert {0, 1, 3}.isdisjoint(view.actions.ravel().tolist()), "a teacher cannot bring special tokens in"
    assert evaluator.ledger.teacher_tokens == 4


def test_teachers_are_asked_about_the_sequence_and_only_while_it_goes_on() -> None:
    echo = Echo()
    parts = make_parts(Secret(), ensemble=voice([echo], beta=0.5))
    evaluator, roots = started(parts, ["abc"])
    child = expand(evaluator, int(roots[0]), A)
    expand(evaluator, child, EOS)
    head = parts.student.tokenizer("abc").input_ids
    assert echo.asked == [head, [*head, A]]


def test_a_smoothed_ngram_table_gives_priors_without_special_tokens() -> None:
    table = NgramTeacher.fit([[1, 4, 5, 6, 2]], 3, 10)
    evaluator, roots = started(make_parts(ensemble=voice([table], beta=1.0)), candidates=10)
    view = evaluator.view(roots)
    assert {0, 1, 3}.isdisjoint(view.actions.ravel().tolist())
    assert (np.where(view.actions >= 0, np.exp(view.logits), 0).sum(axis=1)) == pytest.approx([1.0, 1.0])


# ---- what it can never see


def test_the_types_at_test_time_have_no_place_for_a_reference() -> None:
    for player in (Player, Search, BestOfN):
        hints = typing.get_type_hints(player.play)
        assert hints["problems"] == Sequence[PublicProblem]
    assert [f.name for f in fields(PublicProblem)] == ["id", "prompt", "tag", "limit", "stop", "ids"]
    assert typing.get_type_hints(LeafEvaluator.open)["problems"] == Sequence[PublicProblem]
    for method in (Search, BestOfN):
        names = set(typing.get_type_hints(method.__init__))
        assert "grader" not in names


def holds(root: Any, canary: str) -> bool:
    """Whether `canary` is in any string that can be reached from `root`, code and types apart."""
    seen: set[int] = set()
    pending: list[Any] = [root]
    while pending:
        thing = pending.pop()
        if id(thing) in seen or isinstance(thing, (ModuleType, type)):
            continue
        seen.add(id(thing))
        if isinstance(thing, str) and canary in thing:
            return True
        if isinstance(thing, FunctionType):  # what it closes over, not the module it lives in
            pending += [cell.cell_contents for cell in thing.__closure__ or ()]
            pending += list(thing.__defaults__ or ())
        elif isinstance(thing, MethodType):
            pending += [thing.__self__, thing.__func__]
        else:
            pending += gc.get_referents(thing)
    return False


class NeverScores(Secret):
    """Its references live outside, and asking it for problems or a score is an error."""

    def score(self, problem: Problem, answer: str) -> float:
        raise AssertionError("a score was asked for while answering")

    def problems(self, split: str) -> Sequence[Problem]:
        raise AssertionError("problems were asked for while answering")


def test_a_planted_reference_is_nowhere_in_reach() -> None:
    canary = "THE-SECRET-REFERENCE"
    problems = planted(Secret(), "test", canary)[:4]
    publics = [problem.public for problem in problems]
    parts = make_parts(NeverScores())
    evaluator = LeafEvaluator(parts, LeafConfig(rollout_share=0.3), 6, len(publics))
    roots = opened(evaluator, publics)
    search(
        evaluator.view(roots), evaluator, SearchConfig(simulations=30, candidates=6), np.random.default_rng(0)
    )
    assert not holds(evaluator, canary)
    rng = np.random.default_rng(0)
    for method in (Search(parts, SearchConfig(simulations=8)), BestOfN(parts, 3, Sampling())):
        games = method.play(publics, rng)
        assert not holds([method, games], canary)
        assert all(game.verdict is None for game in games)

    def grader(game: int, text: str) -> float:
        return float(text == problems[game].reference)

    with_gold = LeafEvaluator(parts, LeafConfig(), 6, len(publics), grader)
    opened(with_gold, publics)
    assert holds(with_gold, canary), "the walk does find what a grader brings along"


# ---- damage


@pytest.mark.parametrize("place", ["logits", "value"])
def test_nan_never_leaves(place: str) -> None:
    parts = make_parts()
    parts.value_head = head_of(parts)
    broken: Any = parts.value_head.last if place == "value" else parts.student.model.get_output_embeddings()
    with torch.no_grad():
        broken.weight[5] = float("nan")
    player = Player(parts, SearchConfig(simulations=4, candidates=6))
    with pytest.raises(InputError, match="not a number"):
        player.play([PublicProblem("x", "abc")], np.random.default_rng(0))
    engine = parts.engine
    assert isinstance(engine, Watched)
    assert engine.resident == 0


@pytest.mark.parametrize(
    ("prompt", "message"), [("", "empty"), ("xyz", "not among"), ("abcdef" * 5, "shorten")]
)
def test_prompts_that_cannot_be_played_are_refused(prompt: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        started(make_parts(), [prompt])


@pytest.mark.parametrize(
    "wrong",
    [{"prior_temperature": 0.0}, {"rollout_share": 1.5}, {"judge_eta": -0.1}],
)
def test_options_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        LeafConfig(**wrong)


def test_the_table_grows_and_keeps_its_rows() -> None:
    evaluator, roots = started(make_parts(Secret()), ["abc"], grader=lambda game, text: 0.0, candidates=7)
    states = [int(roots[0])]
    for _ in range(3):
        states = [expand(evaluator, s, A + letter) for s in states for letter in range(6)]
    table = evaluator.table
    assert table.used == 1 + 6 + 36 + 216 > 64
    for index, state in enumerate(states):
        wanted = [A + index // 36, A + index // 6 % 6, A + index % 6]
        assert table.answer(state) == wanted
        assert evaluator.text(state) == "".join("abcdef"[token - A] for token in wanted)
        assert table.length[state] == 3
        assert table.responsibility[state, :, 0].tolist() == [1.0] * 7
