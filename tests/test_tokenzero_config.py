"""Settings from presets, files and overrides: what they become, and how mistakes are told."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tokenzero.config import load_config, on_problems, preset_names
from tokenzero.config_text import parse
from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import encode_prompt, from_spec
from tokenzero.selfplay.text.config import TextGameConfig
from tokenzero.tasks import get_task
from tokenzero.value.judge_config import RulesJudgeConfig


def _message(preset: str | None = None, path: Path | None = None, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(InputError) as caught:
        load_config(preset, path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_presets_are_those_promised() -> None:
    assert preset_names() == [
        "arithmetic",
        "countdown",
        "countdown-quick",
        "countdown5",
        "game24",
        "maze",
        "maze8",
        "mini-sudoku",
        "shakespeare-char",
        "shakespeare-char-quick",
    ]


TEXT_PRESETS = [name for name in preset_names() if name.startswith("shakespeare")]


@pytest.mark.parametrize("name", TEXT_PRESETS)
def test_every_text_preset_loads_and_leaves_room_for_search_behind_its_context(name: str) -> None:
    config = load_config(name)
    assert isinstance(config, TextGameConfig)
    assert config.model.architecture["max_position_embeddings"] >= 4 * config.learner.context
    assert config.learner.optimizer.warmup_steps < config.rounds * config.learner.steps / 2
    with pytest.raises(InputError, match="the settings of a text game"):
        on_problems(config)


def test_the_text_preset_is_that_of_the_comparison() -> None:
    config = load_config("shakespeare-char")
    assert config.rounds * config.learner.steps == 2000
    assert (config.learner.context, config.learner.optimizer.batch_size) == (64, 12)
    assert on_problems(load_config("countdown")) == load_config("countdown")


def test_a_text_game_is_told_by_its_key_and_kept_with_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "game: text\nmodel: {architecture: {model_type: gpt2}}\nlearner: {objective: clipped, clip: 0.1}\n"
    )
    config = load_config(path=path, overrides=["corpus.tokenizer.kind=bpe"])
    assert isinstance(config, TextGameConfig)
    assert (config.learner.objective, config.learner.clip) == ("clipped", 0.1)
    assert config.corpus.tokenizer.kind == "bpe"
    path.write_text(json.dumps(asdict(config)))
    assert load_config(path=path) == config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("learner.objektive=visits", "learner.objektive is not an option; did you mean 'learner.objective'?"),
        ("task.name=countdown", "task is not an option"),
        ("objective=visits", "did you mean 'learner.objective'?"),
        ("game=chess", "game is 'chess'; give text, or leave it out to play on a task's problems"),
        ("learner.objective=guess", "learner.objective is 'guess'; choose one of cross-entropy"),
        ("corpus.validation_share=2", "corpus.validation_share is 2"),
        ("monitors.every=-1", "monitors.every is -1"),
        ("referee.order=7", "referee.order is 7"),
    ],
)
def test_mistakes_in_a_text_game_are_told_by_its_own_record(override: str, said: str) -> None:
    message = _message("shakespeare-char", overrides=(override,))
    assert said in message
    assert override in message


@pytest.mark.parametrize("name", sorted(set(preset_names()) - set(TEXT_PRESETS)))
def test_every_preset_loads_and_its_model_has_room_for_prompt_and_answer(name: str) -> None:
    config = load_config(name)
    task = get_task(config.task.name, **config.task.options)
    tokenizer = from_spec(task.tokenizer_spec())
    longest = max(len(encode_prompt(tokenizer, p.public.prompt)) for p in task.problems("train")[:300])
    room = config.model.architecture["max_position_embeddings"] - task.max_answer_tokens
    assert longest <= room


def test_the_default_is_the_countdown_preset() -> None:
    assert load_config() == load_config("countdown")
    assert load_config().play.search.value_scale == 0.15
    assert load_config().pretrain.optimizer.lr == 4e-3


def test_overrides_win_over_the_file_and_the_file_over_its_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("preset: countdown-quick\nrounds: 7\nseed: 5\nlearner:\n  steps: 11\n")
    config = load_config(path=path, overrides=["seed=9", "learner.optimizer.lr=2e-3", "learner.window=1"])
    quick = load_config("countdown-quick")
    assert (config.rounds, config.seed, config.learner.steps, config.learner.window) == (7, 9, 11, 1)
    assert config.learner.optimizer.lr == 2e-3
    assert config.learner.optimizer.ema == quick.learner.optimizer.ema
    assert config.task == quick.task


def test_a_file_may_stand_alone(tmp_path: Path) -> None:
    path = tmp_path / "alone.yaml"
    path.write_text("model: {architecture: {model_type: gpt2}}\n")
    assert load_config(path=path).model.architecture == {"model_type": "gpt2"}


def test_what_a_run_keeps_loads_to_the_same_settings(tmp_path: Path) -> None:
    config = load_config("game24", overrides=["learner.optimizer.min_lr=1e-7", "teachers=[{kind: ngram}]"])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(asdict(config)))
    assert load_config(path=path) == config


def test_values_are_yaml() -> None:
    config = load_config(
        "countdown-quick",
        overrides=[
            "judge={kind: rules, rules: {'contains:x': 1}}",
            "model.value.hidden=8",
            "pretrain.optimizer.betas=[0.8, 0.9]",
        ],
    )
    assert config.judge == RulesJudgeConfig(rules={"contains:x": 1})
    assert config.model.value.hidden == 8
    assert config.pretrain.optimizer.betas == (0.8, 0.9)


def test_another_task_drops_the_options_of_the_old_one() -> None:
    assert load_config("countdown-quick", overrides=["task.name=game24"]).task.options == {}
    assert load_config("countdown-quick", overrides=["task.options.seed=4"]).task.options["numbers"] == 3


def test_another_family_or_a_model_to_load_drops_the_old_architecture() -> None:
    family = load_config("countdown", overrides=["model.architecture={model_type: gpt2, n_layer: 1}"])
    assert family.model.architecture == {"model_type": "gpt2", "n_layer": 1}
    loaded = load_config("countdown", overrides=["model.load=some/model"])
    assert (loaded.model.load, loaded.model.architecture) == ("some/model", {})
    wider = load_config("countdown", overrides=["model.architecture.hidden_size=32"])
    assert wider.model.architecture["hidden_size"] == 32
    assert wider.model.architecture["model_type"] == "llama"


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("learnr.steps=3", ["learnr is not an option", "'learner'"]),
        ("learner.step=3", ["learner.step is not an option", "'learner.steps'"]),
        ("learner.optimizer.lrr=3", ["learner.optimizer.lrr", "'learner.optimizer.lr'"]),
        ("simulations=3", ["simulations is not", "'play.search.simulations'"]),
        ("zzz=3", ["zzz is not an option", "use one of model, task"]),
        ("teachers=[{knd: ngram}]", ["teachers.0.knd", "'teachers.0.kind'"]),
        ("teachers=[{order: 3}]", ["teachers.0.kind is missing", "ngram, checkpoint"]),
        ("teachers=[{kind: ngramm}]", ["teachers.0.kind is 'ngramm'", "'ngram'"]),
        ("teachers=[{kind: ngram, lag: 1}]", ["teachers.0.lag is not an option"]),
        ("teachers=[{kind: ngram, order: 9}]", ["order is 9"]),
        ("rewards=[{kind: bleu, weight: -1}]", ["weight is -1"]),
        ("judge={kind: rules}", ["judge", "rules is missing"]),
        ("terminal=[{kind: any, detectors: [{kind: stopp}]}]", ["terminal.0.detectors.0.kind is 'stopp'"]),
        ("learner.steps=many", ["learner.steps is 'many'", "whole number"]),
        ("learner.steps=true", ["learner.steps is True", "whole number"]),
        ("rounds=2.5", ["rounds is 2.5", "whole number"]),
        ("task.name=3", ["task.name is 3", "text"]),
        ("teachers=ngram", ["teachers is 'ngram'", "a list"]),
        ("judge=[1]", ["judge is [1]", "a mapping"]),
        ("play=3", ["play is 3", "a mapping with some of games"]),
        ("pretrain.optimizer.betas=[0.9]", ["pretrain.optimizer.betas.1 is missing"]),
        ("play.search.simulations=-3", ["play.search: search.simulations is -3", "at least 0"]),
        ("learner.optimizer.ema=1", ["learner.optimizer: optimizer.ema is 1"]),
        ("rounds=-1", ["rounds is -1", "rounds and seed >= 0"]),
        ("learner.steps", ["write it as a.b=value"]),
        ("learner..steps=1", ["write it as a.b=value"]),
        ("learner.steps=[", ["not valid YAML"]),
    ],
)
def test_a_wrong_override_is_one_line_that_names_it_and_the_way_out(override: str, parts: list[str]) -> None:
    message = _message("countdown", overrides=(override,))
    assert message.startswith(f"--set {override}")
    assert [part for part in parts if part not in message] == []


def test_a_mistake_is_blamed_on_the_layer_that_made_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("preset: countdown\nlearner:\n  steps: zero\n")
    assert _message(path=path, overrides=("learner.window=2",)).startswith(f"{path}: learner.steps is 'zero'")
    path.write_text("preset: countdown\nlearner:\n  stepz: 1\n")
    assert _message(path=path).startswith(f"{path}: learner.stepz is not an option")


def test_an_unknown_preset_is_told_with_the_nearest(tmp_path: Path) -> None:
    message = _message("countdwn")
    assert "preset 'countdwn' does not exist; did you mean 'countdown'?" in message
    assert "countdown-quick, countdown5, game24" in message
    path = tmp_path / "mine.yaml"
    path.write_text("preset: game25\n")
    assert "did you mean 'game24'" in _message(path=path)
    path.write_text("preset: 3\n")
    assert "preset is 3" in _message(path=path)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("rounds: 3\nrounds: 4\n", "line 2: not valid YAML ('rounds' occurs twice)"),
        ("rounds: [1\n", "not valid YAML"),
        ("- rounds\n", "holds list; give a mapping"),
        ("!!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("", "model needs exactly one of"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    message = _message(path=path)
    assert part in message or "model is missing" in message
    assert str(path) in message


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    assert "No such file" in _message(path=tmp_path / "none.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in _message(path=binary)


def test_preset_and_file_together_are_refused(tmp_path: Path) -> None:
    assert "not both" in _message("countdown", tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("text", "value"), [("4e-3", 4e-3), ("1E5", 1e5), ("-2.5e+2", -250.0), ("e3", "e3"), ("12", 12)]
)
def test_numbers_read_as_people_write_them(text: str, value: object) -> None:
    read = parse(text, "x")
    assert read == value
    assert type(read) is type(value)
