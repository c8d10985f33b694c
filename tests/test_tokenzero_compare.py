"""What is compared with what: arms from words, runs from arms, directories that hold another comparison."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_run import small_config

from tokenzero.compare import (
    OWN_DEFAULTS,
    Comparison,
    Variant,
    finished,
    kept_base,
    quick_overrides,
    read_kept,
    variants,
)
from tokenzero.config import load_config
from tokenzero.mcts.errors import InputError
from tokenzero.selfplay.arms import ARMS
from tokenzero.selfplay.config import SelfPlayConfig
from tokenzero.teachers.ngram import NgramConfig
from tokenzero.value.judge_config import RulesJudgeConfig


def _comparison(directory: Path, words: str = "gumbel,sampling", **changes: Any) -> Comparison:
    base = changes.pop("base", small_config())
    given = {"seeds": [1, 2], "against": words.split(",")[0], **changes}
    return Comparison(directory, base, variants(words, base), **given)


# ---- arms


def test_an_arm_is_the_base_with_its_settings_and_no_warm_start_of_its_own() -> None:
    base = small_config()
    gumbel, sampling = variants("gumbel, sampling", base)
    assert (gumbel.label, gumbel.title) == ("gumbel", ARMS["gumbel"].title)
    assert (sampling.config.play.player, sampling.config.play.targets) == ("sample", "solutions")
    for variant in (gumbel, sampling):
        assert (variant.config.pretrain.steps, variant.config.pretrain.demonstrations) == (0, 0)
        weight = variant.config.learner.value_weight  # imitation of right answers teaches no values
        assert weight == (0.0 if variant.label == "sampling" else base.learner.value_weight)
        assert variant.config.learner == replace(base.learner, value_warmup=0, value_weight=weight)
        assert variant.config.evaluation == base.evaluation


def test_an_arm_may_be_tuned_on_the_spot() -> None:
    word = "sampling:play.samples=16:learner.optimizer.lr=4e-3"
    (variant,) = variants(word, small_config())
    assert (variant.config.play.samples, variant.config.learner.optimizer.lr) == (16, 4e-3)
    assert variant.config.play.player == "sample"
    assert variant.label == word
    assert variant.title == "rejection sampling, play.samples=16, learner.optimizer.lr=4e-3"
    (variant,) = variants("gumbel:task.options.train=50", small_config())
    assert variant.config.task.options == {**small_config().task.options, "train": 50}
    word = "gumbel:judge={kind: rules, rules: {'contains:a': 1, 'contains:b': -1}}"
    two = variants(f"{word},sampling", small_config())
    assert [variant.label for variant in two] == [word, "sampling"]
    assert two[0].config.judge == RulesJudgeConfig(rules={"contains:a": 1, "contains:b": -1})


def test_arms_that_need_demonstrations_keep_them() -> None:
    (tuned,) = variants("gumbel:pretrain.steps=9:pretrain.demonstrations=50", small_config())
    assert (tuned.config.pretrain.steps, tuned.config.pretrain.demonstrations) == (9, 50)
    counting = replace(small_config(), teachers=[NgramConfig()])
    (gumbel,) = variants("gumbel", counting)
    assert gumbel.config.pretrain == replace(counting.pretrain, steps=0)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("gumble", "arm 'gumble' does not exist; did you mean 'gumbel'"),
        ("xyz", "use some of frontier, "),
        ("gumbel:play.gamess=3", "--arms gumbel:play.gamess=3: play.gamess is not an option"),
        ("gumbel:pley.games=3", "pley is not an option"),
        ("gumbel:play.games.x=3", "play.games"),
        ("gumbel:play.games=many", "play.games is 'many'; give a whole number"),
        ("gumbel:play.games=0", "play.games is 0"),
        ("gumbel:play.targets=rewards", "play.targets is 'rewards'"),
    ],
)
def test_arms_and_settings_that_do_not_exist_are_named(words: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        variants(words, small_config())


def test_folders_are_plain_and_differ_as_labels_do() -> None:
    words = (
        "few",
        "few:a.b=16",
        "few:a.b=1/6",
        "few:a.b=1 6",
        "few:a.b=1_6",
        "few+a.b=16",
        "few" + "x" * 300,
    )
    labels = [Variant(word, "", small_config()).folder for word in words]
    assert labels[:2] == ["few", "few+a.b=16"]
    assert len(set(labels)) == len(words)
    assert all("/" not in label and " " not in label and len(label) < 120 for label in labels)


# ---- runs


def test_every_arm_of_a_seed_begins_at_its_warm_start(tmp_path: Path) -> None:
    jobs = _comparison(tmp_path, test_problems=5).jobs()
    assert [job.run for job in jobs] == [
        f"seed-{seed}/{name}" for seed in (1, 2) for name in ("warm-start", "gumbel", "sampling")
    ]
    start, *arms = jobs[3:]
    assert start.config == replace(small_config(), rounds=0, seed=2)
    assert (start.needs, start.reads_test, start.steps) == (None, False, 1)
    for job in arms:
        assert job.needs == start.run
        assert (job.config.model.load, job.config.model.architecture) == (
            "seed-2/warm-start/checkpoints/round-0000",
            {},
        )
        assert (job.config.seed, job.config.rounds) == (2, 2)
        assert (job.reads_test, job.test_problems, job.steps) == (True, 5, 4)
    assert not _comparison(tmp_path, reads_test=False).jobs()[1].reads_test


def test_a_run_is_finished_when_its_last_round_and_the_test_split_are(tmp_path: Path) -> None:
    job = _comparison(tmp_path).jobs()[1]
    run = tmp_path / job.run
    run.mkdir(parents=True)
    assert not finished(tmp_path, job)
    (run / "metrics.jsonl").write_text('{"round": 0}\n{"round": 1}\n')
    assert not finished(tmp_path, job)
    (run / "metrics.jsonl").write_text('{"round": 0}\n{"round": 1}\n{"round": 2}\n')
    assert not finished(tmp_path, job)
    assert finished(tmp_path, _comparison(tmp_path, reads_test=False).jobs()[1])
    (run / "test.json").write_text("{}")
    assert finished(tmp_path, job)


def test_quick_halves_the_work_and_keeps_the_warm_start() -> None:
    base = load_config("countdown")
    quick = load_config("countdown", overrides=quick_overrides(base))
    assert (quick.rounds, quick.learner.steps) == (base.rounds // 2, base.learner.steps // 2)
    assert (quick.pretrain, quick.model, quick.task) == (base.pretrain, base.model, base.task)
    assert quick.play.search == base.play.search
    assert quick.play != base.play
    assert quick.evaluation.problems == 500
    assert load_config("countdown", overrides=OWN_DEFAULTS).threads == 1


# ---- directories


def _refused(comparison: Comparison) -> str:
    with pytest.raises(InputError) as caught:
        comparison.keep()
    return str(caught.value)


def test_a_directory_remembers_what_it_compares(tmp_path: Path) -> None:
    assert read_kept(tmp_path) is None
    comparison = _comparison(tmp_path / "out", test_problems=3)
    comparison.keep()
    kept = read_kept(tmp_path / "out")
    assert kept is not None
    assert kept_base(kept) == comparison.base
    assert (kept["compared"], kept["seeds"], kept["against"], kept["test_problems"]) == (
        ["gumbel", "sampling"],
        [1, 2],
        "gumbel",
        3,
    )
    comparison.keep()


def test_further_arms_and_seeds_may_join(tmp_path: Path) -> None:
    _comparison(tmp_path).keep()
    _comparison(tmp_path, "gumbel:play.games=3", seeds=[3]).keep()
    kept = read_kept(tmp_path)
    assert kept is not None
    assert sorted(kept["arms"]) == ["gumbel", "gumbel:play.games=3", "sampling"]
    assert kept["compared"] == ["gumbel", "sampling", "gumbel:play.games=3"]
    assert kept["seeds"] == [1, 2, 3]


def test_another_base_config_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    _comparison(tmp_path).keep()
    base = small_config()
    other = replace(base, learner=replace(base.learner, steps=7), play=replace(base.play, games=25))
    message = _refused(_comparison(tmp_path, base=other))
    assert "another base config (learner.steps was 6, now 7; also play.games)" in message
    assert "rounds was 2, now 3" in _refused(_comparison(tmp_path, base=replace(small_config(), rounds=3)))
    _comparison(
        tmp_path, base=replace(base, seed=99, tracking=["wandb"])
    ).keep()  # nothing is learnt from them


def test_an_arm_that_means_something_else_by_now_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _comparison(tmp_path).keep()
    settings = {**ARMS["sampling"].settings, "play.temperature": 0.5}
    monkeypatch.setitem(ARMS, "sampling", replace(ARMS["sampling"], settings=settings))
    message = _refused(_comparison(tmp_path))
    assert "another arm 'sampling' (play.temperature was 1.0, now 0.5)" in message
    _comparison(tmp_path, "gumbel").keep()


def test_the_test_split_is_not_read_on_other_problems_later(tmp_path: Path) -> None:
    _comparison(tmp_path).keep()
    path = tmp_path / "seed-2" / "sampling" / "test.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"asked": 5, "problems": 5}))
    assert "was read on 5 problems" in _refused(_comparison(tmp_path, test_problems=6))
    assert "--test-problems 5" in _refused(_comparison(tmp_path))
    _comparison(tmp_path, test_problems=5).keep()
    _comparison(tmp_path, reads_test=False).keep()


def test_directories_of_something_else_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "is not empty and holds no comparison" in _refused(_comparison(tmp_path))
    (tmp_path / "comparison.json").write_text("{")
    assert "cannot be read" in _refused(_comparison(tmp_path))
    (tmp_path / "comparison.json").write_text('{"format": 99}')
    assert "has format 99" in _refused(_comparison(tmp_path))


def _evaluating(**changes: Any) -> SelfPlayConfig:
    base = small_config()
    return replace(base, evaluation=replace(base.evaluation, **changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"words": "gumbel,gumbel"}, "'gumbel' is listed twice"),
        ({"against": "puct"}, "--against is 'puct'"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [-1]}, "seeds"),
        ({"test_problems": 0}, "--test-problems is 0"),
        ({"base": _evaluating(problems=0)}, "evaluation.problems is 0"),
        ({"base": _evaluating(split="test")}, "read once"),
    ],
)
def test_what_makes_no_comparison_is_refused(changes: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=complaint):
        _comparison(tmp_path, **changes)
