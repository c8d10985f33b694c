"""The learner of the text game: losses against plain forwards, its play, and the same bits on resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiny import FAMILIES, TokenCounter, make_student, plain

from tokenzero.mcts.errors import InputError
from tokenzero.policy.corpora.windows import windows
from tokenzero.policy.ledger import Ledger
from tokenzero.policy.train_state import OptimizerConfig
from tokenzero.selfplay.arms import with_settings
from tokenzero.selfplay.config import ModelConfig
from tokenzero.selfplay.text.arms import ARMS, arm_config
from tokenzero.selfplay.text.config import OBJECTIVES, TextGameConfig
from tokenzero.selfplay.text.context_search import ContextSearch, ContextTargets
from tokenzero.selfplay.text.learner import TextLearner
from tokenzero.value import ValueConfig, ValueHead
from tokenzero.value.text_rewards import action_rewards, product_of_experts

SEED = [4, 0]
CONTEXT, ROWS = 6, 4
TEXT = np.random.default_rng(0).integers(4, 10, size=200).astype(np.uint16)
OPTIMIZER = OptimizerConfig(lr=5e-3, min_lr=1e-3, warmup_steps=2, batch_size=ROWS)
BASE = TextGameConfig(ModelConfig(architecture=FAMILIES["llama-gqa"]))
BASE = with_settings(
    BASE,
    {
        "learner.objective": "cross-entropy",
        "learner.steps": 4,
        "learner.refresh": 2,
        "learner.context": CONTEXT,
        "learner.samples": 3,
        "learner.optimizer": OPTIMIZER,
    },
)


class TableReferee:
    """What follows depends on the last token alone. It says that it forwards, and keeps what it was told."""

    name = "table"

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.forwarded = 0
        draw = torch.Generator().manual_seed(1)
        self.table = torch.randn(vocab_size, vocab_size, generator=draw).log_softmax(1).numpy()
        self.told: list[tuple[Any, Any]] = []

    def row_log_probs(self, ids: Any, truth: Any = None) -> npt.NDArray[np.float32]:
        self.forwarded += ids.size
        self.told.append((ids, truth))
        return np.asarray(self.table[ids])

    def next_log_probs(self, sequences: Any) -> npt.NDArray[np.float32]:
        raise NotImplementedError

    def token_log_probs(self, tokens: Any) -> npt.NDArray[np.float64]:
        raise NotImplementedError


class EveryOther:
    """A search of every second context: the target is the true token and the one after it in the vocabulary,
    .75 to .25. It keeps what it was asked, and the weights it was asked with.
    """

    def __init__(self, student: Any) -> None:
        self.ledger = Ledger()
        self.asked: list[Any] = []
        self.versions: list[int] = []
        self.weights: list[torch.Tensor] = []
        self._student = student

    def targets(self, ids: Any, rng: np.random.Generator) -> ContextTargets:
        self.asked.append(ids)
        self.versions.append(self._student.version)
        self.weights.append(flat(self._student.model))
        self.ledger.prefill_tokens += 100
        cells = np.arange(0, ids[:, 1:].size, 2)
        truth = ids[:, 1:].ravel()[cells]
        actions = np.stack([truth, (truth + 1) % 10, np.full(len(cells), -1)], axis=1)
        weights = np.tile(np.asarray([0.75, 0.25, 0.0], np.float32), (len(cells), 1))
        returns = np.linspace(-1, 1, len(cells), dtype=np.float32)
        return ContextTargets(cells, actions, weights, returns, returns)


def flat(*modules: torch.nn.Module) -> torch.Tensor:
    every = [parameter for module in modules for parameter in module.parameters()]
    return torch.cat([parameter.detach().flatten() for parameter in every])


def make_learner(config: TextGameConfig, *, head: bool = False, total_steps: int = 12) -> TextLearner:
    student = make_student()
    value_head = ValueHead(student.hidden_size, ValueConfig(bins=11)) if head else None
    search = EveryOther(student) if config.learner.objective == "visits" else None
    return TextLearner(
        student,
        value_head,
        TEXT,
        config,
        TableReferee(student.vocab_size),
        cast("ContextSearch | None", search),
        total_steps=total_steps,
        seed=SEED,
    )


def having(objective: str, **settings: Any) -> TextGameConfig:
    named = {name.replace("__", "."): value for name, value in settings.items()}
    return with_settings(BASE, {"learner.objective": objective, **named})


def batch(number: int) -> npt.NDArray[np.int64]:
    return windows(TEXT, ROWS, CONTEXT, np.random.default_rng([*SEED, number]))


def naive_policy(ids: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-policy f32 [P, V] and truth i64 [P] of the untrained student, one plain forward per context."""
    student = make_student()
    rows = [plain(student, row[: at + 1])[0].log_softmax(0) for row in ids.tolist() for at in range(CONTEXT)]
    return torch.stack(rows), torch.from_numpy(ids[:, 1:].reshape(-1))


def first_step(config: TextGameConfig, **more: Any) -> Any:
    one = with_settings(config, {"learner.steps": 1, "learner.refresh": 1})
    return make_learner(one, **more).learn(3)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_cross_entropy_is_that_of_plain_forwards(accumulate: int) -> None:
    losses = first_step(having("cross-entropy", learner__optimizer__accumulate=accumulate))
    log_policy, truth = naive_policy(batch(3))
    own = log_policy.gather(1, truth[:, None])
    assert losses.policy == pytest.approx(-own.mean().item(), abs=1e-4)
    assert losses.reward == pytest.approx(own.exp().mean().item(), abs=1e-5)
    assert losses.entropy == pytest.approx(-(log_policy.exp() * log_policy).sum(1).mean().item(), abs=1e-4)
    assert (losses.kl, losses.value, losses.taught) == (0.0, 0.0, 1.0)
    assert losses.cells == ROWS * CONTEXT
    assert losses.gradient > 0


@pytest.mark.parametrize("objective", ["expected-reward", "product-of-experts"])
def test_rewards_and_experts_are_asked_with_the_policy_as_it_is(objective: str) -> None:
    config = having(objective, rewards__soft=0.5, rewards__bonus=1.0, learner__kl_weight=0.1)
    losses = first_step(config)
    ids = batch(3)
    log_policy, truth = naive_policy(ids)
    opinion = torch.from_numpy(TableReferee(len(log_policy[0])).table)[
        torch.from_numpy(ids[:, :-1]).flatten()
    ]
    rewards = action_rewards(config.rewards, log_policy, opinion, truth, 0.0)
    expected = (log_policy.exp() * rewards).sum(1).mean().item()
    if objective == "product-of-experts":
        target = product_of_experts(config.rewards, log_policy, opinion, truth)
        assert losses.policy == pytest.approx(-(target * log_policy).sum(1).mean().item(), abs=1e-4)
    else:
        assert losses.policy == pytest.approx(-expected, abs=1e-4)
    assert losses.reward == pytest.approx(expected, abs=1e-4)
    divergence = (log_policy.exp() * (log_policy - opinion)).sum(1).mean().item()
    assert losses.kl == pytest.approx(divergence, abs=1e-4)


def test_visits_teach_the_contexts_that_were_searched() -> None:
    config = having("visits", learner__value_weight=0.5, learner__optimizer__accumulate=2)
    config = with_settings(config, {"learner.steps": 2})
    learner = make_learner(config, head=True)
    head = learner.value_head
    assert head is not None
    losses = learner.learn(0)
    (ids,) = cast("EveryOther", learner._search).asked
    np.testing.assert_array_equal(ids, np.concatenate([batch(0), batch(1)]))
    # the first step alone, by hand
    log_policy, truth = naive_policy(batch(0))
    every_other = torch.arange(0, len(truth), 2)
    mass = 0.75 * log_policy[every_other, truth[every_other]]
    mass = mass + 0.25 * log_policy[every_other, (truth[every_other] + 1) % 10]
    one = make_learner(with_settings(config, {"learner.steps": 1, "learner.refresh": 1}), head=True).learn(0)
    assert one.policy == pytest.approx(-mass.mean().item(), abs=1e-4)
    untrained = ValueHead(head.hidden_size, head.config)
    returns = torch.linspace(-1, 1, len(every_other))
    raw = untrained(torch.zeros(len(every_other), head.hidden_size))
    assert one.value == pytest.approx(untrained.loss(raw, returns).mean().item(), abs=1e-4)
    assert flat(head).abs().max() > 0
    assert losses.value > 0
    assert learner.ledger.prefill_tokens == 100


def test_each_search_sees_the_average_of_that_moment() -> None:
    learner = make_learner(having("visits"))
    learner.learn(0)
    search = cast("EveryOther", learner._search)
    assert len(search.asked) == 2
    assert search.versions[0] < search.versions[1] < learner.student.version
    assert not torch.equal(search.weights[0], search.weights[1])


def test_a_batch_that_search_passed_by_teaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make_learner(
        having("visits", learner__value_weight=1.0, learner__entropy_weight=0.1), head=True
    )
    targets = EveryOther.targets

    def first_rows(self: EveryOther, ids: Any, rng: np.random.Generator) -> ContextTargets:
        found = targets(self, ids, rng)
        return ContextTargets(*(part[found.cells < ROWS * CONTEXT] for part in found))

    monkeypatch.setattr(EveryOther, "targets", first_rows)
    lessons = learner._play(range(2))
    assert [len(lesson.cells) for lesson in lessons] == [ROWS * CONTEXT // 2, 0]
    assert learner._loss(lessons[1])[1] == [0.0] * 6
    losses = learner.learn(1)
    assert np.isfinite(list(vars(losses).values())).all()
    assert losses.taught == 0.5


@pytest.mark.parametrize("objective", ["clipped", "group-relative"])
def test_draws_come_from_the_policy_before_the_steps_that_use_them(objective: str) -> None:
    """On the first step of each refresh the ratio is 1: the loss is minus the mean advantage."""
    config = having(objective, learner__samples=400)
    learner = make_learner(config)
    lessons = learner._play(range(2))
    assert len(lessons) == 2
    log_policy, truth = naive_policy(batch(0))
    drawn = lessons[0].drawn
    assert drawn is not None
    torch.testing.assert_close(drawn.log_probs, log_policy.gather(1, drawn.actions), atol=1e-4, rtol=0)
    shares = torch.nn.functional.one_hot(drawn.actions, log_policy.shape[1]).float().mean(1)
    assert (shares - log_policy.exp()).abs().max() < 0.12
    right = (drawn.actions == truth[:, None]).float()
    if objective == "clipped":
        own = log_policy.gather(1, truth[:, None]).exp()
        torch.testing.assert_close(drawn.advantages, right - own, atol=1e-4, rtol=0)
    else:
        assert drawn.advantages.mean(1).abs().max() < 1e-4
        assert ((drawn.advantages > 0) == (right > 0)).all()
    loss = learner._loss(lessons[0])[1][0]
    assert loss == pytest.approx(-drawn.advantages.mean().item(), abs=1e-4)


def test_the_ledger_holds_what_play_and_the_referee_forwarded() -> None:
    config = having("clipped", learner__kl_weight=0.1)
    learner = make_learner(config)
    counter = TokenCounter(learner._forward._student)
    losses = learner.learn(0)
    assert losses.cells == 4 * ROWS * CONTEXT
    assert learner.ledger.prefill_tokens == 4 * ROWS * CONTEXT
    assert counter.tokens == losses.cells + learner.ledger.prefill_tokens
    referee = cast("TableReferee", learner._referee)
    assert learner.ledger.teacher_tokens == referee.forwarded == 4 * ROWS * CONTEXT
    for number, (ids, truth) in enumerate(referee.told):
        np.testing.assert_array_equal(ids, batch(number)[:, :-1])
        np.testing.assert_array_equal(truth, batch(number)[:, 1:])


def test_who_needs_no_referee_asks_none() -> None:
    learner = make_learner(having("cross-entropy", rewards__soft=1.0))
    learner.learn(0)
    assert learner.ledger == Ledger()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_batches_are_the_same_for_every_objective(
    objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    learner = make_learner(having(objective))
    forward = learner._loss

    def spy(lesson: Any) -> Any:
        seen.append(lesson.ids.numpy())
        return forward(lesson)

    monkeypatch.setattr(learner, "_loss", spy)
    learner.learn(2)
    np.testing.assert_array_equal(np.stack(seen), np.stack([batch(8 + step) for step in range(4)]))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_learner_that_was_saved_goes_on_to_the_same_bits(objective: str, tmp_path: Path) -> None:
    config = having(objective, rewards__bonus=1.0)
    if objective == "visits":
        config = with_settings(config, {"learner.value_weight": 1.0})
    whole = make_learner(config, head=True)
    whole.learn(0)
    whole.student.save(tmp_path)
    assert whole.value_head is not None
    whole.value_head.save(tmp_path)
    whole.save(tmp_path)
    ticks: list[int] = []
    expected = whole.learn(1, ticks.append)
    assert ticks == [1, 2, 3, 4]

    resumed = make_learner(config, head=True)
    resumed.student.model.load_state_dict(type(whole.student).load(tmp_path).model.state_dict())
    assert resumed.value_head is not None
    resumed.value_head.load_state_dict(ValueHead.load(tmp_path).state_dict())
    resumed.load(tmp_path)
    assert resumed.learn(1) == expected
    assert torch.equal(
        flat(whole.student.model, whole.value_head), flat(resumed.student.model, resumed.value_head)
    )


def test_parts_of_a_batch_make_the_step_of_the_whole() -> None:
    for objective in ("product-of-experts", "visits"):
        weights = []
        for parts in (1, 2):
            learner = make_learner(having(objective, learner__optimizer__accumulate=parts))
            learner.learn(0)
            weights.append(flat(learner.student.model))
        torch.testing.assert_close(*weights, atol=1e-5, rtol=0)


def test_entropy_and_divergence_pull_as_they_say() -> None:
    def after(**settings: Any) -> Any:
        learner = make_learner(having("expected-reward", learner__steps=40, **settings), total_steps=80)
        learner.learn(0)
        return learner.learn(1)

    free = after()
    assert after(learner__entropy_weight=1.0).entropy > free.entropy + 0.1
    assert after(learner__kl_weight=1.0).kl < after(learner__kl_weight=1e-4).kl / 2


def test_contexts_of_a_sure_student_are_not_taught() -> None:
    log_policy, truth = naive_policy(batch(3))
    entropy = -(log_policy.exp() * log_policy).sum(1)
    middle = entropy.median().item() + 1e-4
    losses = first_step(having("cross-entropy", rewards__min_entropy=middle))
    kept = entropy >= middle
    own = -log_policy.gather(1, truth[:, None]).squeeze(1)
    assert losses.taught == pytest.approx(kept.float().mean().item())
    assert losses.policy == pytest.approx(own[kept].mean().item(), abs=1e-4)
    assert losses.entropy == pytest.approx(entropy.mean().item(), abs=1e-4)
    nothing = first_step(having("cross-entropy", rewards__min_entropy=100.0))
    assert (nothing.taught, nothing.policy, nothing.gradient) == (0.0, 0.0, 0.0)


def test_it_learns_the_text_by_each_way_but_the_linear_one() -> None:
    """A text of one pair: every objective but the linear one brings the pair's cross-entropy down."""
    text = np.tile(np.asarray([4, 9], np.uint16), 50)
    for objective in ("cross-entropy", "clipped", "group-relative", "product-of-experts", "visits"):
        config = having(objective, learner__steps=60, learner__samples=16)
        learner = make_learner(config, total_steps=60)
        learner._tokens = text
        learner.learn(0)
        found = plain(learner.student, [4, 9, 4])[0].log_softmax(0)
        assert found[9].item() > -0.5, objective


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learner.objective": "visits"}, r"objective is visits but there is no search"),
        ({"learner.objective": "clipped", "learner.refresh": 3}, r"refresh is 3 and steps is 4"),
        ({"learner.context": 33}, r"learner\.context is 33, the model takes 32"),
        ({"learner.value_weight": 1.0}, r"only visits train a value head"),
        ({"learner.kl_weight": 1.0}, r"asks a referee and there is none"),
        ({"learner.objective": "product-of-experts"}, r"asks a referee and there is none"),
        ({"learner.objective": "clipped", "rewards.soft": 1.0}, r"asks a referee and there is none"),
    ],
)
def test_what_is_missing_is_said_in_one_line(settings: dict[str, Any], message: str) -> None:
    config = with_settings(BASE, settings)
    with pytest.raises(InputError, match=message) as caught:
        TextLearner(make_student(), None, TEXT, config, None, None, total_steps=4, seed=SEED)
    assert "\n" not in str(caught.value)


def test_every_objective_has_an_arm_and_every_arm_a_config() -> None:
    for name, arm in ARMS.items():
        config = arm_config(BASE, name)
        assert config.learner.objective in OBJECTIVES
        assert arm.name == name
        assert config.learner.steps == BASE.learner.steps
        assert config.learner.optimizer == BASE.learner.optimizer
    assert {arm_config(BASE, name).learner.objective for name in ARMS} == set(OBJECTIVES)
    assert arm_config(BASE, "clipped", {"learner.samples": 5}).learner.samples == 5
    with pytest.raises(InputError, match="did you mean 'visits'"):
        arm_config(BASE, "visit")
