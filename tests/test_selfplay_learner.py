"""The learner: its loss against plain arithmetic, and the same bits after saving and loading."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_selfplay_replay import EOS, make_episode
from tiny import Mirror, make_student, plain

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.policy.train_state import OptimizerConfig
from tokenzero.selfplay.episode import Episode
from tokenzero.selfplay.learner import Learner, LearnerConfig, Losses
from tokenzero.value import ValueConfig, ValueHead

EPISODES = [
    make_episode("abc", [6, 5, 4], 1.0),
    make_episode("fed", [7, 9], -1.0),
    make_episode("ab", [5, EOS], 1.0),
    make_episode("d", [4, 4, 4], -1.0, searched=1),
]
LOST = [episode for episode in EPISODES if episode.outcome < 0]
CONFIG = LearnerConfig(
    steps=4,
    augment=False,
    optimizer=OptimizerConfig(lr=5e-3, min_lr=1e-3, warmup_steps=2, batch_size=6),
)


def make_learner(
    config: LearnerConfig = CONFIG, *, family: str = "llama-gqa", seed: int = 1, **more: Any
) -> Learner:
    student = make_student(family)
    head = ValueHead(student.hidden_size, ValueConfig(bins=11))
    torch.nn.init.normal_(head.last.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    return Learner(student, head, Mirror(), config, total_steps=12, seed=[seed, 4], **more)


def weights(learner: Learner) -> torch.Tensor:
    both = [*learner.student.model.parameters(), *learner.value_head.parameters()]
    return torch.cat([parameter.detach().flatten() for parameter in both])


def one_step(config: LearnerConfig, batch_size: int) -> LearnerConfig:
    return replace(config, steps=1, optimizer=replace(config.optimizer, batch_size=batch_size))


def naive(
    learner: Learner,
    episodes: list[Episode],
    lost_weight: float,
    mix: float,
    reference: Student | None = None,
) -> dict[str, float]:
    """Every term of the loss, one plain forward per position and dictionaries for distributions."""
    policy, importance, value, kl, entropy = 0.0, 0.0, [], [], []
    for episode in episodes:
        targets: dict[int, dict[int, float]] = {}
        for position, actions, shares in zip(
            episode.positions, episode.actions, episode.weights, strict=True
        ):
            targets[position] = dict(zip(actions, shares, strict=True))
        won = episode.outcome > 0
        if won and episode.tokens[-1] != EOS:
            targets[len(episode.tokens) - 1] = {EOS: 1.0}
        weight = 1.0 if won else lost_weight
        for position in range(episode.prompt_len - 1, len(episode.tokens)):
            logits, hidden = plain(learner.student, episode.tokens[: position + 1])
            believed = episode.outcome
            if position in episode.positions:
                believed = episode.root_values[episode.positions.index(position)]
            target = torch.tensor((1 - mix) * episode.outcome + mix * believed)
            value.append(float(learner.value_head.loss(learner.value_head(hidden), target).detach()))
            if position in targets and weight > 0:
                logs = logits.log_softmax(-1).tolist()
                policy -= weight * sum(share * logs[action] for action, share in targets[position].items())
                importance += weight
                entropy.append(-sum(np.exp(log) * log for log in logs))
                if reference is not None:
                    anchor = plain(reference, episode.tokens[: position + 1])[0].log_softmax(-1).tolist()
                    kl.append(sum(np.exp(a) * (a - b) for a, b in zip(logs, anchor, strict=True)))
    return {
        "policy": policy / importance if importance else 0.0,
        "value": float(np.mean(value)),
        "kl": float(np.mean(kl)) if kl else 0.0,
        "entropy": float(np.mean(entropy)) if entropy else 0.0,
    }


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(("lost_weight", "mix"), [(1.0, 0.0), (0.25, 0.5), (0.0, 0.0)])
def test_the_reported_losses_are_those_of_a_plain_computation(
    lost_weight: float, mix: float, accumulate: int
) -> None:
    reference = make_student(seed=9)
    config = replace(CONFIG, lost_weight=lost_weight, root_value_mix=mix, kl_weight=0.5)
    config = one_step(config, 6)
    config = replace(config, optimizer=replace(config.optimizer, accumulate=accumulate))
    fresh = make_learner(config, reference=reference)
    chosen = np.random.default_rng([1, 4, 2, 0]).integers(0, len(EPISODES), size=6)
    assert len(set(chosen.tolist())) > 2
    expected = naive(fresh, [EPISODES[i] for i in chosen.tolist()], lost_weight, mix, reference)
    losses = fresh.learn(EPISODES, round_index=2)
    found = {name: getattr(losses, name) for name in expected}
    assert found == pytest.approx(expected, abs=2e-4)
    assert losses.gradient > 0


def test_each_weight_scales_its_own_term() -> None:
    """The first gradient is linear in the weights: what each adds does not depend on the others."""
    reference = make_student(seed=9)

    def norm(**changes: float) -> float:
        config = one_step(replace(CONFIG, **changes), 6)  # type: ignore[arg-type]
        return make_learner(config, reference=reference).learn(EPISODES, 1).gradient

    alone = norm(value_weight=0.0)
    assert norm(value_weight=1.0) != pytest.approx(alone)
    assert norm(value_weight=0.0, kl_weight=1.0) != pytest.approx(alone)
    assert norm(value_weight=0.0, entropy_weight=1.0) != pytest.approx(alone)
    assert norm(value_weight=8000.0) == pytest.approx(2 * norm(value_weight=4000.0), rel=1e-2)


def test_entropy_is_a_bonus_and_the_anchor_holds() -> None:
    def after(**changes: float) -> Learner:
        config = replace(CONFIG, steps=12, **changes)  # type: ignore[arg-type]
        learner = make_learner(config, reference=make_student())
        learner.learn(EPISODES, 1)
        return learner

    free = naive(after(), EPISODES, 1.0, 0.0, make_student())
    assert naive(after(entropy_weight=3.0), EPISODES, 1.0, 0.0)["entropy"] > free["entropy"] + 0.1
    assert naive(after(kl_weight=10.0), EPISODES, 1.0, 0.0, make_student())["kl"] < free["kl"] / 2


@pytest.mark.parametrize("extra", [{}, {"kl_weight": 1.0}, {"entropy_weight": 1.0}])
def test_lost_games_alone_with_no_weight_train_only_the_value(extra: dict[str, float]) -> None:
    config = replace(CONFIG, lost_weight=0.0, **extra)  # type: ignore[arg-type]
    learner = make_learner(config, reference=make_student(seed=9))
    losses = learner.learn(LOST, 1)
    assert (losses.policy, losses.kl, losses.entropy) == (0.0, 0.0, 0.0)
    assert np.isfinite([losses.value, losses.gradient]).all()
    assert torch.isfinite(weights(learner)).all()


def test_lost_games_with_no_weight_do_not_thin_out_the_others() -> None:
    won = [episode for episode in EPISODES if episode.outcome > 0]
    config = one_step(replace(CONFIG, lost_weight=0.0), 6)
    learner = make_learner(config)
    chosen = np.random.default_rng([1, 4, 1, 0]).integers(0, len(EPISODES), size=6)
    picked = [EPISODES[i] for i in chosen.tolist() if EPISODES[i] in won]
    expected = naive(learner, picked, 1.0, 0.0)["policy"]
    assert learner.learn(EPISODES, 1).policy == pytest.approx(expected, abs=2e-4)


def test_it_overfits_one_game() -> None:
    game = [replace(EPISODES[0], actions=[[6], [5], [4]], weights=[[1.0]] * 3)]
    config = replace(CONFIG, steps=80, optimizer=replace(CONFIG.optimizer, lr=1e-2, ema=0.9))
    learner = make_learner(config)
    before = naive(learner, game, 1.0, 0.0)
    steps: list[int] = []
    learner.learn(game, 1, steps.append)
    after = naive(learner, game, 1.0, 0.0)
    assert steps == list(range(1, 81))
    assert before["policy"] > 1.0
    assert after["policy"] < 0.05
    hidden = plain(learner.student, game[0].tokens[:4])[1]
    assert float(learner.value_head.value(learner.value_head(hidden)).detach()) > 0.8
    assert learner.student.version == 1
    sequence = game[0].tokens[:4]
    for _ in range(4):
        sequence = [*sequence, int(plain(learner.student, sequence)[0].argmax())]
    assert sequence[4:] == [6, 5, 4, EOS]


def test_parts_of_a_batch_make_the_step_of_the_whole() -> None:
    whole = make_learner(CONFIG)
    parts = make_learner(replace(CONFIG, optimizer=replace(CONFIG.optimizer, accumulate=2)))
    one, two = whole.learn(EPISODES, 1), parts.learn(EPISODES, 1)
    torch.testing.assert_close(weights(whole), weights(parts), atol=1e-5, rtol=0)
    assert in_nats(one) == pytest.approx(in_nats(two), abs=1e-4)


def in_nats(losses: Losses) -> dict[str, float]:
    """The losses without what the layout decides."""
    return {name: value for name, value in vars(losses).items() if name != "cells"}


MIXED = [
    make_episode("abcdef", [6, 5, 4, 7, 8], 1.0),
    make_episode("ab", [5], -1.0),
    make_episode("d", [4, EOS], 1.0),
]


# Not gpt2: its key biases have no gradient but rounding, which Adam scales to whole steps.
@pytest.mark.parametrize("family", ["llama-gqa", "mistral", "qwen3"])
def test_games_that_share_a_row_make_the_step_of_games_that_do_not(family: str) -> None:
    reference = make_student(family, seed=9)
    config = replace(one_step(replace(CONFIG, kl_weight=0.5, lost_weight=0.5), 8), steps=3)
    packed, padded = (make_learner(config, family=family, reference=reference) for _ in range(2))
    padded._forward.packs = False
    one, two = packed.learn(MIXED, 1), padded.learn(MIXED, 1)
    assert in_nats(one) == pytest.approx(in_nats(two), rel=1e-4, abs=1e-5)
    assert one.cells < two.cells
    torch.testing.assert_close(weights(packed), weights(padded), atol=1e-5, rtol=0)


def test_the_losses_of_games_that_share_a_row_are_those_of_a_plain_computation() -> None:
    reference = make_student(seed=9)
    config = one_step(replace(CONFIG, lost_weight=0.25, kl_weight=0.5), 6)
    fresh = make_learner(config, reference=reference)
    chosen = np.random.default_rng([1, 4, 2, 0]).integers(0, len(MIXED), size=6)
    expected = naive(fresh, [MIXED[i] for i in chosen.tolist()], 0.25, 0.0, reference)
    lengths = np.asarray([len(MIXED[i].tokens) for i in chosen.tolist()])
    assert fresh._forward.layout(lengths).packed
    losses = fresh.learn(MIXED, round_index=2)
    assert {name: getattr(losses, name) for name in expected} == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("family", ["llama-gqa", "gpt2"])  # gpt2 has dropout in its default config
def test_a_learner_saved_between_rounds_goes_on_with_the_same_bits(tmp_path: Path, family: str) -> None:
    torch.manual_seed(1)
    straight = make_learner(family=family)
    games = EPISODES + MIXED
    for round_index in (1, 2, 3):
        last = straight.learn(games, round_index)
    torch.manual_seed(2)
    first = make_learner(family=family)
    for round_index in (1, 2):
        first.learn(games, round_index)
    first.save(tmp_path)
    first.student.save(tmp_path)
    first.value_head.save(tmp_path)
    torch.manual_seed(3)
    again = Learner(
        Student.load(tmp_path), ValueHead.load(tmp_path), Mirror(), CONFIG, total_steps=12, seed=[1, 4]
    )
    again.load(tmp_path)
    assert again.learn(games, 3) == last
    assert torch.equal(weights(again), weights(straight))


def test_rounds_and_seeds_draw_different_batches() -> None:
    def after(seed: int, round_index: int) -> torch.Tensor:
        learner = make_learner(seed=seed)
        learner.learn(EPISODES, round_index)
        return weights(learner)

    base = after(1, 1)
    assert torch.equal(base, after(1, 1))
    assert not torch.equal(base, after(2, 1))
    assert not torch.equal(base, after(1, 2))


def test_an_anchor_needs_a_reference() -> None:
    with pytest.raises(InputError, match="no reference model"):
        make_learner(replace(CONFIG, kl_weight=0.1))


def test_a_missing_state_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train_state"):
        make_learner().load(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"window": 0},
        {"value_weight": -1.0},
        {"kl_weight": -1.0},
        {"entropy_weight": -1.0},
        {"lost_weight": -0.5},
        {"root_value_mix": 1.5},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        LearnerConfig(**wrong)
