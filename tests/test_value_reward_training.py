"""Training of reward models: the loss, what is learnt by both trainers, early stop, and what is written."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_reward import make_reward_model, plum_preferences
from transformers import AutoModelForSequenceClassification as Classifier

from tokenzero.mcts.errors import InputError
from tokenzero.value.preferences import Preference, split_by_prompt
from tokenzero.value.reward_metrics import reward_report
from tokenzero.value.reward_model import RewardModel
from tokenzero.value.reward_training import (
    REPORT_FILE,
    Epoch,
    RewardTrainingConfig,
    bradley_terry_loss,
    check_target,
    save_trained,
    train_reward_model,
)

CONFIG = RewardTrainingConfig(epochs=4, lr=3e-3, held_out=0.25)
QUICK = replace(CONFIG, epochs=2)
PAIRS = plum_preferences(160)


def longer_is_better(count: int) -> list[Preference]:
    words = np.random.default_rng(0).integers(1, 7, size=count)
    return [
        Preference(f"say {i}", "red " * (n + 1 + i % 2) + "sun", "red " * n + "sun")
        for i, n in enumerate(words.tolist())
    ]


def test_the_loss_is_minus_log_sigmoid() -> None:
    chosen, rejected = torch.tensor([1.0, -2.0, 50.0]), torch.tensor([0.5, 3.0, -50.0])
    margin = torch.tensor([0.25, 0.0, 1.0])
    plain = [math.log1p(math.exp(-d)) for d in (0.5, -5.0, 100.0)]
    moved = [math.log1p(math.exp(-d)) for d in (0.25, -5.0, 99.0)]
    assert float(bradley_terry_loss(chosen, rejected)) == pytest.approx(sum(plain) / 3)
    assert float(bradley_terry_loss(chosen, rejected, margin)) == pytest.approx(sum(moved) / 3)
    assert float(bradley_terry_loss(-1e6 * chosen[:1], rejected[:1])) == pytest.approx(1e6, rel=1e-5)


@pytest.mark.parametrize("trainer", ["own", "trl"])
@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_word_that_makes_answers_better_is_learnt(family: str, trainer: str, tmp_path: Path) -> None:
    if trainer == "trl":
        pytest.importorskip("trl")
    model = make_reward_model(family, spread=0.05)
    report = train_reward_model(model, PAIRS, replace(CONFIG, trainer=trainer))
    assert report.held_out is not None
    assert report.epochs[0].held_out_accuracy is not None
    assert report.epochs[0].held_out_accuracy < 0.8
    assert report.held_out.accuracy > 0.9
    train, held_out = split_by_prompt(PAIRS, CONFIG.held_out, CONFIG.seed)
    assert (report.train_pairs, report.held_out_pairs) == (len(train), len(held_out))
    assert report.steps == math.ceil(len(train) / CONFIG.batch_size) * (len(report.epochs) - 1)
    save_trained(model, report, tmp_path / "out")
    loaded = RewardModel.load(tmp_path / "out")
    prompts = [one.prompt for one in held_out]
    chosen = loaded.score(prompts, [one.chosen for one in held_out])
    rejected = loaded.score(prompts, [one.rejected for one in held_out])
    assert reward_report(held_out, chosen, rejected).loss == pytest.approx(report.held_out.loss, abs=1e-5)
    written = json.loads((tmp_path / "out" / REPORT_FILE).read_text())
    assert written["held_out"]["accuracy"] == report.held_out.accuracy
    opened, info = Classifier.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert opened.config.num_labels == 1
    assert not info["missing_keys"]


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_longer_is_better_is_learnt_and_reported_as_such(family: str) -> None:
    model = make_reward_model(family, spread=0.05)
    report = train_reward_model(model, longer_is_better(160), CONFIG)
    assert report.held_out is not None
    assert report.held_out.accuracy > 0.9
    assert report.held_out.length.correlation is not None
    assert report.held_out.length.correlation > 0.9
    assert report.held_out.length.chosen_longer == 1.0


@pytest.mark.parametrize("trainer", ["own", "trl"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_same_seed_gives_the_same_weights(trainer: str) -> None:
    if trainer == "trl":
        pytest.importorskip("trl")
    state = torch.random.get_rng_state()
    versions = []
    for seed in (1, 1, 2):
        model = make_reward_model("llama", spread=0.05)
        before = model.version
        config = replace(QUICK, trainer=trainer, seed=seed, held_out=0.0)
        report = train_reward_model(model, PAIRS[:48], config)
        versions.append(model.version)
        assert model.version != before
        assert (report.held_out, report.best_epoch) == (None, 2)
    assert versions[0] == versions[1] != versions[2]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_both_trainers_take_the_same_first_step() -> None:
    """One step on one pair leaves no choice: the same loss with the same margin, hence the same weights."""
    pytest.importorskip("trl")
    pair = [replace(PAIRS[0], margin=0.7)]
    weights = []
    for trainer in ("own", "trl"):
        model = make_reward_model("bert", spread=0.05)
        config = RewardTrainingConfig(trainer, epochs=1, held_out=0.0, warmup_share=0.0, weight_decay=0.0)
        report = train_reward_model(model, pair, config)
        chosen, rejected = make_reward_model("bert", spread=0.05).score(
            [pair[0].prompt] * 2, [pair[0].chosen, pair[0].rejected]
        )
        assert report.epochs[1].train_loss == pytest.approx(
            math.log1p(math.exp(rejected - chosen + 0.7)), abs=1e-4
        )
        weights.append(model.model.state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=1e-6, rtol=0)


def test_the_best_epoch_is_kept_and_patience_ends_the_training() -> None:
    pairs = plum_preferences(40)
    noise = [Preference(p.prompt, p.rejected, p.chosen) if i % 2 else p for i, p in enumerate(pairs)]
    model = make_reward_model("llama", spread=0.05)
    heard: list[Epoch] = []
    steps: list[int] = []
    config = replace(CONFIG, epochs=30, patience=2, lr=1e-2)
    report = train_reward_model(model, noise, config, on_epoch=heard.append, on_step=steps.append)
    losses = [epoch.held_out_loss for epoch in report.epochs]
    assert heard == report.epochs
    assert len(report.epochs) < 31  # nothing to learn: it stops
    assert report.best_epoch == losses.index(min(losses)) == len(report.epochs) - 3
    assert sum(steps) == report.train_pairs * (len(report.epochs) - 1)
    _, held_out = split_by_prompt(noise, config.held_out, config.seed)
    prompts = [one.prompt for one in held_out]
    kept = reward_report(
        held_out,
        model.score(prompts, [one.chosen for one in held_out]),
        model.score(prompts, [one.rejected for one in held_out]),
    )
    assert kept.loss == pytest.approx(min(losses), abs=1e-6)


def test_a_margin_drives_the_rewards_further_apart() -> None:
    margins = []
    for margin in (None, 6.0):
        model = make_reward_model("llama", spread=0.05)
        pairs = [replace(pair, margin=margin) for pair in PAIRS]
        report = train_reward_model(model, pairs, replace(CONFIG, epochs=6))
        assert report.held_out is not None
        margins.append(report.held_out.mean_margin)
    assert margins[1] > margins[0] + 1


def test_every_forwarded_token_is_counted() -> None:
    model = make_reward_model("llama", spread=0.05)
    report = train_reward_model(model, PAIRS, replace(CONFIG, epochs=1))
    train, held_out = split_by_prompt(PAIRS, CONFIG.held_out, CONFIG.seed)
    length = {
        pair: sum(len(model.encode(pair.prompt, answer).ids) for answer in (pair.chosen, pair.rejected))
        for pair in PAIRS
    }
    assert report.tokens == sum(length[pair] for pair in train) + 2 * sum(length[pair] for pair in held_out)


def test_a_training_that_diverges_says_so() -> None:
    with pytest.raises(InputError, match=r"diverged|not finite"):
        train_reward_model(make_reward_model("llama"), PAIRS[:32], replace(QUICK, lr=1e30))


def test_what_is_no_reward_model_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    model = make_reward_model("llama", spread=0.05)
    report = train_reward_model(model, PAIRS[:32], replace(QUICK, held_out=0.0))
    for target in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(InputError, match="is no reward model"):
            save_trained(model, report, target)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    for _ in range(2):  # an empty directory is filled, a reward model replaced
        save_trained(model, report, tmp_path / "out")
    check_target(tmp_path / "new")


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_reward_model("llama", spread=0.05)
    report = train_reward_model(model, PAIRS[:32], replace(QUICK, held_out=0.0))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model.tokenizer, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        save_trained(model, report, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_trl_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl.trainer.reward_config", None)
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(InputError, match=r"pip install 'tokenzero\[trl\]', or use trainer 'own'"):
        train_reward_model(make_reward_model("llama"), PAIRS[:32], replace(QUICK, trainer="trl"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"trainer": "x"}, "trainer is 'x'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"lr": 0.0}, "lr is 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"held_out": 1.0}, "held_out is 1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_settings_are_named(setting: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RewardTrainingConfig(**setting)  # type: ignore[arg-type]


def test_one_prompt_cannot_be_on_both_sides() -> None:
    pairs = [Preference("p", "a", "b"), Preference("p", "c", "d")]
    with pytest.raises(InputError, match=r"no prompt is left to hold out \(2 pairs in all\)"):
        train_reward_model(make_reward_model("llama"), pairs, replace(CONFIG, held_out=0.01))
