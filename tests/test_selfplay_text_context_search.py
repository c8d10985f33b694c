"""Search at contexts of a corpus, against closed forms and against a tree worked out in plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.naive import NaiveTree
from tests.tiny import TokenCounter, make_student, plain, tree_engine
from tokenzero.mcts import SearchConfig
from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Engine, RecomputeEngine
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import EngineConfig, open_engine
from tokenzero.policy.tree_attention import PagedAttention, TreeAttentionWay
from tokenzero.policy.tree_engine import TreeEngine
from tokenzero.selfplay.text import context_search
from tokenzero.selfplay.text.config import ContextSearchConfig
from tokenzero.selfplay.text.context_search import ContextSearch, ContextTargets
from tokenzero.selfplay.text.horizon import Horizon
from tokenzero.teachers.referee import ModelReferee
from tokenzero.value import ValueConfig, ValueHead
from tokenzero.value.text_rewards import TextRewardConfig, action_rewards

LIKELY = TextRewardConfig(hard=1.0, soft=0.5, scale="log-probability", floor=-6.0)
RNG = np.random.default_rng(0)


class Pairs:
    """A referee that knows the last two tokens."""

    name = "pairs"
    forwarded = 0

    def __init__(self, vocab_size: int, seed: int = 0) -> None:
        self.vocab_size = vocab_size
        shape = (vocab_size + 1, vocab_size + 1)
        shares = np.random.default_rng(seed).dirichlet(np.full(vocab_size, 0.3), shape) + 1e-9
        self.table = np.log(shares / shares.sum(-1, keepdims=True)).astype(np.float32)

    def next_log_probs(self, sequences: Sequence[Sequence[int]]) -> np.ndarray:
        padded = [[-1, -1, *sequence] for sequence in sequences]
        return np.stack([self.table[row[-2], row[-1]] for row in padded])

    def row_log_probs(self, ids: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
        return np.stack(
            [self.next_log_probs([row[: t + 1] for t in range(len(row))]) for row in ids.tolist()]
        )

    def token_log_probs(self, tokens: np.ndarray) -> np.ndarray:
        raise NotImplementedError


@pytest.fixture(scope="module")
def student() -> Student:
    return make_student()


@pytest.fixture(scope="module")
def referee(student: Student) -> Pairs:
    return Pairs(student.vocab_size)


@pytest.fixture(scope="module")
def head(student: Student) -> ValueHead:
    made = ValueHead(student.hidden_size, ValueConfig(kind="scalar"))
    with torch.no_grad():
        made.last.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    return made


def windows(student: Student, rows: int = 3, width: int = 5, seed: int = 0) -> np.ndarray:
    first = student.pad_id + 1  # padding has no embedding, and all tokens are as likely after it
    return np.random.default_rng(seed).integers(first, student.vocab_size, (rows, width + 1))


def searched(
    student: Student,
    referee: Any,
    ids: np.ndarray,
    rewards: TextRewardConfig = LIKELY,
    head: ValueHead | None = None,
    engine: Engine | None = None,
    **options: Any,
) -> ContextTargets:
    engine = engine or tree_engine(student)
    search = ContextSearch(student, engine, referee, head, rewards, ContextSearchConfig(**options))
    return search.targets(ids, np.random.default_rng(0))


@dataclass
class Plainly:
    """What search should see of one context, worked out from the text with one unshared forward a state; an
    ``mcts.Evaluator`` for `NaiveTree`, whose states are sequences.
    """

    student: Student
    referee: Any
    head: ValueHead | None
    rewards: TextRewardConfig
    config: ContextSearchConfig
    row: list[int]
    shared: int
    sequences: list[tuple[int, ...]] = field(default_factory=list)
    forwards: int = 0

    def truth(self, sequence: tuple[int, ...]) -> int:
        on = list(sequence) == self.row[: len(sequence)] and len(sequence) < len(self.row)
        return self.row[len(sequence)] if on else -1

    def reward(self, sequence: tuple[int, ...], action: int) -> float:
        log_prob = float(self.referee.next_log_probs([sequence])[0, action])
        worth = math.exp(log_prob)
        if self.rewards.scale == "log-probability":
            worth = max(log_prob, self.rewards.floor) + math.log(self.student.vocab_size)
        return self.rewards.soft * worth + self.rewards.hard * (action == self.truth(sequence))

    def candidates(self, sequence: tuple[int, ...]) -> tuple[list[int], np.ndarray]:
        own = plain(self.student, sequence)[0].double().softmax(-1).numpy()
        other = np.exp(self.referee.next_log_probs([sequence])[0].astype(np.float64))
        mixed = (1 - self.config.beta) * own + self.config.beta * other
        best = np.argsort(-mixed, kind="stable")[: self.config.candidates].tolist()
        if self.rewards.hard > 0 and self.truth(sequence) not in [-1, *best]:
            best[-1] = self.truth(sequence)
        return best, np.log(np.maximum(mixed[best], 1e-30))

    def mean(self, sequence: tuple[int, ...]) -> float:
        assert self.head is not None
        low, high = 0.0, self.rewards.hard + self.rewards.soft
        if self.rewards.scale == "log-probability":
            top = math.log(self.student.vocab_size)
            low, high = (
                self.rewards.soft * (self.rewards.floor + top),
                self.rewards.hard + self.rewards.soft * top,
            )
        value = float(self.head.evaluate(plain(self.student, sequence)[1][None])[0])
        return low + (value + 1) / 2 * (high - low)

    def value(self, sequence: tuple[int, ...]) -> float:
        """Rewards that lie ahead: one expected, the rest guessed."""
        left = self.shared + self.config.depth - len(sequence)
        fade = self.config.discount
        expected = 0.0
        if left > 0:
            actions, logits = self.candidates(sequence)
            prior = np.exp(logits) / np.exp(logits).sum()
            expected = sum(p * self.reward(sequence, a) for p, a in zip(prior, actions, strict=True))
        if self.head is None or self.config.value_share == 0:
            return float(expected * sum(fade**i for i in range(left)))
        rest = sum(fade**i for i in range(1, left))
        rest += fade**left * self.config.value_share / (1 - fade)
        return float(expected + rest * self.mean(sequence))

    def state(self, sequence: tuple[int, ...], reward: float) -> SimpleNamespace:
        self.sequences.append(sequence)
        left = self.shared + self.config.depth - len(sequence)
        actions, logits = self.candidates(sequence) if left else ([-1], np.zeros(1))
        return SimpleNamespace(
            actions=np.array([actions]),
            logits=np.array([logits], np.float32),
            value=np.array([self.value(sequence)], np.float32),
            reward=np.array([reward], np.float32),
            terminal=np.array([False]),
            states=np.array([len(self.sequences) - 1]),
        )

    def expand(self, states: np.ndarray, actions: np.ndarray) -> SimpleNamespace:
        above, action = self.sequences[int(states[0])], int(actions[0])
        return self.state((*above, action), self.reward(above, action))

    def release(self, states: np.ndarray) -> None:
        pass

    def tree(self) -> NaiveTree:
        c = self.config
        if c.target == "visits":
            rules = SearchConfig(method="puct", simulations=c.simulations, candidates=c.candidates,
                                 max_depth=c.depth, discount=c.discount)  # fmt: skip
        else:
            rules = SearchConfig(method="gumbel", simulations=c.simulations, candidates=c.candidates,
                                 considered=c.candidates, max_depth=c.depth, discount=c.discount,
                                 q_rescale="none", value_scale=c.strength * 2.0**-40,
                                 maxvisit_init=2.0**40)  # fmt: skip
        root = self.state(tuple(self.row[: self.shared]), 0.0)
        tree = NaiveTree(root, 0, rules, set(), np.zeros(c.candidates, np.float32))
        return tree.run(self)


def dense(targets: ContextTargets, vocab_size: int) -> np.ndarray:
    """Weights [P, V]; no action may come twice."""
    found = np.zeros((len(targets.cells), vocab_size))
    for row, actions in enumerate(targets.actions):
        real = actions[actions >= 0]
        assert len(set(real.tolist())) == len(real)
        found[row, real] = targets.weights[row, actions >= 0]
    return found


def check_against_plain(
    student: Student, referee: Any, head: ValueHead | None, rewards: TextRewardConfig, **options: Any
) -> None:
    ids = windows(student, rows=2, width=4)
    config = ContextSearchConfig(**options)
    found = searched(student, referee, ids, rewards, head, **options)
    assert found.cells.tolist() == list(range(8))
    np.testing.assert_allclose(found.weights.sum(axis=1), 1.0, atol=1e-5)
    for at, cell in enumerate(found.cells.tolist()):
        row, position = divmod(cell, 4)
        naive = Plainly(student, referee, head, rewards, config, ids[row].tolist(), position + 1)
        tree = naive.tree()
        weights = tree.weights()
        actions = tree.root.actions
        assert found.actions[at].tolist() == [actions[k] for k in sorted(actions)]
        np.testing.assert_allclose(found.weights[at], [weights[k] for k in sorted(actions)], atol=2e-4)
        completed = completed_of(tree)
        worth = sum(weights[k] * completed[k] for k in actions)
        assert found.values[at] == pytest.approx(worth, abs=2e-3)
        assert -1 <= found.returns[at] <= 1


def completed_of(tree: NaiveTree) -> dict[int, float]:
    """Completed Q of the root, unscaled."""
    scale = tree.config.value_scale * tree.config.maxvisit_init
    if tree.config.method == "gumbel":
        return {k: float(q) / scale for k, q in tree.completed(tree.root).items()}
    return {k: float(tree.q(tree.root, k)) if k in tree.root.children else 0.0 for k in tree.root.actions}


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    strength=st.floats(0, 4),
    beta=st.sampled_from([0.0, 0.3, 1.0]),
    hard=st.sampled_from([0.0, 1.0, 2.5]),
    soft=st.sampled_from([0.1, 1.0]),
    scale=st.sampled_from(["probability", "log-probability"]),
    whole=st.booleans(),
)
def test_a_whole_look_at_the_next_token_is_the_prior_times_exp_of_rewards(
    student: Student, referee: Pairs, seed: int, strength: float, beta: float, hard: float, soft: float,
    scale: Any, whole: bool,
) -> None:  # fmt: skip
    rewards = TextRewardConfig(hard=hard, soft=soft, scale=scale, floor=-4.0)
    ids = windows(student, rows=2, width=4, seed=seed)
    size = student.vocab_size if whole else 4
    options: dict[str, Any] = {
        "depth": 1,
        "candidates": size,
        "simulations": size,
        "strength": strength,
        "beta": beta,
    }
    found = searched(student, referee, ids, rewards, **options)

    contexts = [ids[r, : t + 1].tolist() for r in range(2) for t in range(4)]
    own = torch.stack([plain(student, context)[0] for context in contexts]).double().softmax(-1)
    other = torch.from_numpy(referee.next_log_probs(contexts))
    mixed = (1 - beta) * own + beta * other.double().exp()
    truth = torch.from_numpy(ids[:, 1:].reshape(-1).copy())
    reward = action_rewards(rewards, own.log().float(), other, truth, 1.0).double()
    kept = torch.full(mixed.shape, -math.inf).double()
    actions = torch.from_numpy(found.actions)
    kept.scatter_(1, actions, mixed.clamp(min=1e-30).log().gather(1, actions))
    expected = (kept + strength * reward).softmax(1)
    np.testing.assert_allclose(dense(found, student.vocab_size), expected, atol=2e-5)
    best = mixed.topk(size - 1, dim=1).indices
    assert all(set(b.tolist()) <= set(a.tolist()) for a, b in zip(actions, best, strict=True))


@pytest.mark.parametrize("simulations", [6, 11])
def test_the_tree_agrees_with_the_closed_form_it_is_passed_over_for(
    student: Student, referee: Pairs, simulations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = windows(student)
    options: dict[str, Any] = {"depth": 1, "candidates": 6, "simulations": simulations}
    direct = searched(student, referee, ids, **options)
    monkeypatch.setattr(ContextSearch, "_exhaustive", lambda self: False)
    grown = searched(student, referee, ids, **options)
    assert direct.actions.tolist() == grown.actions.tolist()
    for name in ("weights", "values", "returns"):
        np.testing.assert_allclose(getattr(direct, name), getattr(grown, name), atol=1e-5)


@pytest.mark.parametrize("simulations", [1, 3, 4, 13])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("target", ["completed-q", "visits"])
def test_trees_agree_with_plain_python(
    student: Student, referee: Pairs, simulations: int, depth: int, target: str
) -> None:
    options: dict[str, Any] = {"simulations": simulations, "depth": depth, "candidates": 4, "target": target}
    check_against_plain(student, referee, None, LIKELY, strength=1.7, discount=0.6, **options)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_trees_with_a_learned_value_agree_with_plain_python(
    student: Student, referee: Pairs, head: ValueHead, depth: int
) -> None:
    options: dict[str, Any] = {"simulations": 9, "depth": depth, "candidates": 3, "discount": 0.7}
    check_against_plain(student, referee, head, LIKELY, value_share=0.4, **options)
    chance = TextRewardConfig(hard=0.5, soft=1.0)
    check_against_plain(student, referee, head, chance, value_share=1.0, **options)


def test_two_tokens_ahead_without_a_second_visit_is_a_sum_over_candidates(
    student: Student, referee: Pairs
) -> None:
    """Every child of the root once: Q = r + discount * the reward to expect behind it."""
    ids = windows(student, rows=1, width=3)
    config = ContextSearchConfig(simulations=4, candidates=4, depth=2, discount=0.5, strength=2.0)
    found = searched(student, referee, ids, simulations=4, candidates=4, depth=2, discount=0.5, strength=2.0)
    for at in range(3):
        naive = Plainly(student, referee, None, LIKELY, config, ids[0].tolist(), at + 1)
        root = tuple(ids[0, : at + 1].tolist())
        actions, logits = naive.candidates(root)
        q = np.array([naive.reward(root, a) + 0.5 * naive.value((*root, a)) for a in actions])
        share = np.exp(logits + 2.0 * q)
        np.testing.assert_allclose(found.weights[at], share / share.sum(), atol=2e-5)
        assert found.values[at] == pytest.approx(float((share / share.sum()) @ q), abs=1e-4)


@pytest.mark.parametrize("learned", [False, True])
def test_what_is_searched_beside_a_context_does_not_change_its_target(
    referee: Pairs, head: ValueHead, learned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = make_student("llama-mha")
    engine = open_engine(student, EngineConfig(batch_invariant=True))
    options: dict[str, Any] = {"simulations": 7, "candidates": 4, "depth": 3, "engine": engine}
    options["head"] = head if learned else None
    ids = windows(student, rows=4, width=6)
    together = searched(student, referee, ids, **options)
    order = np.array([2, 0, 3, 1])
    mixed = searched(student, referee, ids[order], **options)
    for name in ("actions", "weights", "values", "returns"):
        rows = getattr(together, name).reshape(4, 6, -1)
        assert np.array_equal(rows[order], getattr(mixed, name).reshape(4, 6, -1)), name
    few = searched(student, referee, ids, contexts=5, **options)
    assert np.array_equal(few.weights, together.weights[few.cells])
    monkeypatch.setattr(context_search, "PLACES", 7)
    chunked = searched(student, referee, ids, **options)
    assert all(np.array_equal(a, b) for a, b in zip(together, chunked, strict=True))
    alone = searched(student, referee, ids[1:2], **options)
    assert np.array_equal(alone.weights, together.weights[6:12])


def test_where_the_corpus_is_not_rewarded_what_it_says_next_changes_nothing(
    student: Student, referee: Pairs
) -> None:
    rewards = TextRewardConfig(hard=0.0, soft=1.0, scale="log-probability")
    ids = windows(student, rows=1, width=6)
    other = ids.copy()
    other[:, 4:] = (other[:, 4:] + 1) % student.vocab_size
    options: dict[str, Any] = {"simulations": 9, "candidates": 5, "depth": 2}
    first = searched(student, referee, ids, rewards, **options)
    second = searched(student, referee, other, rewards, **options)
    np.testing.assert_allclose(first.weights[:4], second.weights[:4], atol=1e-6)
    assert not np.allclose(first.weights[4:], second.weights[4:])


def test_the_corpus_is_offered_where_it_is_rewarded_and_only_there(student: Student, referee: Pairs) -> None:
    ids = windows(student, rows=6)
    truth = ids[:, 1:].reshape(-1)
    for hard, all_there in ((1.0, True), (0.0, False)):
        rewards = TextRewardConfig(hard=hard, soft=1.0)
        found = searched(student, referee, ids, rewards, simulations=4, candidates=2, depth=2)
        offered = (found.actions == truth[:, None]).any(axis=1)
        assert offered.all() == all_there


def test_the_corpus_rewards_its_own_path_alone(student: Student, referee: Pairs) -> None:
    """With nothing but the corpus to please, only its tokens are worth anything, and two of them more."""
    rewards = TextRewardConfig(hard=1.0, soft=0.0)
    ids = windows(student, rows=3)
    found = searched(student, referee, ids, rewards, simulations=200, candidates=10, depth=2, strength=50.0)
    truth = ids[:, 1:].reshape(-1)
    best = found.actions[np.arange(15), found.weights.argmax(axis=1)]
    assert np.array_equal(best, truth)
    last = np.arange(15) % 5 == 4
    np.testing.assert_allclose(found.values[last], 1.0, atol=1e-3)  # what follows the row is not known
    assert (found.values[~last] > 1.1).all()
    assert (found.values[~last] <= 1.5).all()


@pytest.mark.parametrize("make", [tree_engine, RecomputeEngine])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("contexts", [None, 4])
def test_the_ledger_counts_every_forwarded_token(
    head: ValueHead, make: Any, learned: bool, contexts: int | None
) -> None:
    student, other = make_student(), make_student("gpt2", seed=5)
    engine = make(student)
    asked = ModelReferee(other)
    counter, counted = TokenCounter(student), TokenCounter(other)
    config = ContextSearchConfig(simulations=6, candidates=4, depth=2, contexts=contexts)
    search = ContextSearch(student, engine, asked, head if learned else None, LIKELY, config)
    found = search.targets(windows(student), np.random.default_rng(0))
    ledger = search.ledger
    own = ledger.prefill_tokens + ledger.decode_tokens + ledger.value_tokens
    assert own == counter.tokens
    assert ledger.teacher_tokens == counted.tokens > 0
    assert ledger.forwarded_tokens == counter.tokens + counted.tokens
    assert (ledger.value_tokens > 0) == learned
    assert ledger.simulations == 6 * len(found.cells) == 6 * (contexts or 15)
    assert ledger.cached_tokens > 0
    if make is tree_engine:
        assert engine.known == 0
        # Rows once, and none of them longer than asked.
        assert ledger.prefill_tokens <= 15
    first = ledger.copy()
    search.targets(windows(student), np.random.default_rng(0))
    assert ledger.forwarded_tokens == 2 * first.forwarded_tokens


def test_rows_that_follow_the_corpus_are_not_forwarded_twice(student: Student, referee: Pairs) -> None:
    """A candidate that is the corpus's own leads to a context that is open already."""
    config = ContextSearchConfig(simulations=9, candidates=9, depth=2)
    search = ContextSearch(student, tree_engine(student), referee, None, LIKELY, config)
    search.targets(windows(student, rows=1, width=8), RNG)
    assert search.ledger.prefill_tokens == 8
    assert search.ledger.decode_tokens == 8 * 9 - 7  # the last context has none after it


def test_rows_are_forwarded_once_however_many_trees_there_is_room_for(
    student: Student, referee: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_search, "PLACES", 11)
    ids = windows(student, rows=4, width=5)
    ids[:, 0] = [1, 2, 3, 4]  # nothing for rows to share
    search = ContextSearch(student, tree_engine(student), referee, None, LIKELY, ContextSearchConfig(depth=2))
    search.targets(ids, RNG)
    assert search.ledger.prefill_tokens == 20


def test_exhaustive_looks_cost_the_rows_alone(student: Student, referee: Pairs) -> None:
    config = ContextSearchConfig(simulations=1000, candidates=1000, depth=1)
    search = ContextSearch(student, tree_engine(student), referee, None, LIKELY, config)
    found = search.targets(windows(student, rows=1), RNG)
    assert found.actions.shape == (5, student.vocab_size)
    assert search.ledger.forwarded_tokens == 5
    assert search.ledger.simulations == 5 * student.vocab_size


def test_states_are_given_back_when_the_referee_fails(student: Student, referee: Pairs) -> None:
    class Broken(Pairs):
        def next_log_probs(self, sequences: Sequence[Sequence[int]]) -> np.ndarray:
            raise RuntimeError("gone")

        def row_log_probs(self, ids: np.ndarray, truth: np.ndarray | None = None) -> np.ndarray:
            return referee.row_log_probs(ids)

    engine = tree_engine(student)
    search = ContextSearch(
        student, engine, Broken(student.vocab_size), None, LIKELY, ContextSearchConfig(depth=2)
    )
    with pytest.raises(RuntimeError, match="gone"):
        search.targets(windows(student), RNG)
    assert engine.known == 0
    assert search.ledger.prefill_tokens > 0
    assert search.ledger.decode_tokens > 0


def test_a_small_cache_changes_the_cost_and_not_the_targets(student: Student, referee: Pairs) -> None:
    ids = windows(student)
    plenty = searched(student, referee, ids, simulations=9, depth=3)
    way = TreeAttentionWay(student, PagedAttention(), 16)
    tight = TreeEngine(student, way, slots=16, memory=16 * 2 * 2 * 2 * 8 * 4)
    few = searched(student, referee, ids, engine=tight, simulations=9, depth=3)
    assert tight.slots <= 16
    np.testing.assert_allclose(few.weights, plenty.weights, atol=1e-4)


def test_weights_of_the_moment_are_used(referee: Pairs) -> None:
    student = make_student()
    config = ContextSearchConfig(depth=2)
    search = ContextSearch(student, tree_engine(student), referee, None, LIKELY, config)
    ids = windows(student)
    before = search.targets(ids, RNG)
    with torch.no_grad():
        student.model.get_output_embeddings().weight.mul_(-1)
    student.weights_changed()
    after = search.targets(ids, RNG)
    assert not np.allclose(before.weights, after.weights)
    np.testing.assert_allclose(after.weights, searched(student, referee, ids, depth=2).weights, atol=1e-6)


def test_contexts_are_drawn_by_the_generator_alone(student: Student, referee: Pairs) -> None:
    config = ContextSearchConfig(contexts=7, simulations=2)
    search = ContextSearch(student, tree_engine(student), referee, None, LIKELY, config)
    ids = windows(student)
    first, again, other = (search.targets(ids, np.random.default_rng(seed)).cells for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() == sorted(set(first.tolist()))
    assert len(first) == 7
    assert first.tolist() != other.tolist()
    draws = np.random.default_rng(3)
    ContextSearch(
        student, tree_engine(student), referee, None, LIKELY, ContextSearchConfig(simulations=2)
    ).targets(ids, draws)
    assert draws.random() == np.random.default_rng(3).random()


@given(
    depth=st.integers(1, 4),
    discount=st.floats(0, 0.95),
    share=st.floats(0.01, 1),
    learned=st.booleans(),
    scale=st.sampled_from(["probability", "log-probability"]),
    level=st.floats(0, 1),
)
def test_a_steady_reward_is_its_own_mean(
    depth: int, discount: float, share: float, learned: bool, scale: Any, level: float
) -> None:
    """Where each token brings the same reward, any number of tokens ahead says the same value."""
    rewards = TextRewardConfig(hard=1.0, soft=0.5, scale=scale)
    config = ContextSearchConfig(depth=depth, discount=discount, value_share=share)
    horizon = Horizon(rewards, config, 10, learned=learned)
    steady = np.array([horizon.low + level * (horizon.high - horizon.low)], np.float32)
    value = 2 * level - 1
    np.testing.assert_allclose(horizon.mean(np.array([value], np.float32)), steady, atol=1e-5)
    for left in range(depth + 1):
        worth = horizon.worth(steady, steady, np.array([left]))
        np.testing.assert_allclose(worth, horizon.spans[left] * steady, rtol=1e-4, atol=1e-4)
        if left == depth:
            np.testing.assert_allclose(horizon.squashed(worth), [value], atol=1e-4)
    extremes = np.array([[0.0, math.log(1e-9)]], np.float32)
    found = horizon.rewards(extremes, np.array([[1, 2]]), np.array([1]))
    assert found[0, 0] == pytest.approx(horizon.high)
    assert found[0, 1] == pytest.approx(horizon.low, abs=1e-6)


def test_bad_settings_are_refused_in_one_line(student: Student, referee: Pairs, head: ValueHead) -> None:
    def build(rewards: TextRewardConfig = LIKELY, other: Any = None, **options: Any) -> ContextSearch:
        config = ContextSearchConfig(**options)
        return ContextSearch(student, tree_engine(student), other or referee, head, rewards, config)

    with pytest.raises(InputError, match="nothing to look for"):
        build(TextRewardConfig(hard=0.0, soft=0.0))
    with pytest.raises(InputError, match=r"search\.discount is 1"):
        build(discount=1.0)
    build(discount=1.0, value_share=0.0)
    with pytest.raises(InputError, match="pairs knows 3 tokens"):
        build(other=Pairs(3))
    for ids, words in (
        (np.zeros((2, 1), np.int64), r"give whole numbers \[rows, context \+ 1\]"),
        (np.zeros((0, 4), np.int64), "give whole numbers"),
        (np.zeros((2, 4), np.float32), "float32"),
        (np.full((2, 4), 99), "token 99 is outside"),
        (np.full((2, 4), -1), "token -1 is outside"),
        (np.zeros((1, 33), np.int64), "needs 34 positions .* has 32"),
    ):
        with pytest.raises(InputError, match=words):
            build().targets(ids, RNG)
    build(depth=1).targets(np.zeros((1, 32), np.int64), RNG)


@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_windows_of_any_whole_numbers_are_read(student: Student, referee: Pairs, kind: Any) -> None:
    ids = windows(student)
    assert np.array_equal(
        searched(student, referee, ids.astype(kind)).weights, searched(student, referee, ids).weights
    )
