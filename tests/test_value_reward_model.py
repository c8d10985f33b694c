"""Scores of the reward model: batches against single rows, what is cut, what is saved, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_student
from tiny_reward import ARCHITECTURES, ENCODERS, WORDS, make_reward_model

from tokenzero.mcts.errors import InputError
from tokenzero.value.reward_model import SETTINGS_FILE, RewardModel, RewardSettings, tiny_reward_model

TEXTS = ["plum", "red cat", "sun sky sea red", "", "blue blue blue blue dog dog cat", "say plum sea"]
CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</>{% endfor %}"
CHAT_ONE = "{{ messages[0]['content'] }}"


def _pairs() -> tuple[list[str], list[str]]:
    prompts = [prompt for prompt in TEXTS for _ in TEXTS]
    return prompts, TEXTS * len(TEXTS)


# ---- scores


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_row_alone_scores_as_it_does_in_a_batch(family: str) -> None:
    model = make_reward_model(family)
    prompts, answers = _pairs()
    together = model.score(prompts, answers)
    alone = [model.score([prompt], [answer])[0] for prompt, answer in zip(prompts, answers, strict=True)]
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.ptp(together) > 0.05  # or the agreement would say nothing


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_scores_are_those_of_the_backbone_read_where_the_text_ends(family: str) -> None:
    model = make_reward_model(family)
    row = model.encode("red cat", "sun sky sea")
    inputs: dict[str, Any] = {"input_ids": torch.tensor([row.ids])}
    if row.types:
        inputs["token_type_ids"] = torch.tensor([row.types])
    classifier: Any = model.model
    with torch.no_grad():
        hidden = classifier.base_model(**inputs).last_hidden_state
        if family == "bert":
            expected = classifier.classifier(classifier.bert.pooler(hidden))
        elif family == "roberta":
            expected = classifier.classifier(hidden)
        else:
            expected = classifier.score(hidden[:, -1])
    other = ("blue blue blue blue dog", "dog dog dog plum plum plum plum")
    scores = model.score(["red cat", other[0]], ["sun sky sea", other[1]])
    assert scores[0] == pytest.approx(float(expected), abs=1e-5)


@given(st.permutations(range(8)), st.integers(1, 60))
@settings(max_examples=15)
def test_neither_order_nor_size_of_batches_moves_a_score(order: list[int], cells: int) -> None:
    model = make_reward_model("llama")
    rows = [model.encode("say", " ".join(WORDS[:count])) for count in range(8)]
    expected = model.score_rows(rows)
    found = model.score_rows([rows[index] for index in order], cells=cells)
    np.testing.assert_allclose(found, expected[order], atol=1e-5)


def test_the_same_lists_give_the_same_bits_and_count_their_tokens() -> None:
    model = make_reward_model("llama")
    prompts, answers = _pairs()
    first = model.score(prompts, answers)
    once = model.tokens
    assert once == sum(len(model.encode(*pair).ids) for pair in zip(prompts, answers, strict=True))
    assert model.score(prompts, answers).tobytes() == first.tobytes()
    assert model.tokens == 2 * once
    assert model.score([], []).shape == (0,)


def test_a_model_in_training_has_no_dropout() -> None:
    model = make_reward_model("bert")
    assert not model.model.training
    assert model.model.config.hidden_dropout_prob > 0


# ---- sequences


def test_a_plain_sequence_is_prompt_joiner_answer_after_the_opening_token() -> None:
    model = make_reward_model("llama", RewardSettings(joiner=" => "))
    ids = model.encode("red cat", "plum").ids
    assert model.settings.template == "plain"
    assert model.tokenizer.decode(ids) == "<bos>red cat => plum"


def test_a_long_sequence_keeps_the_end_of_the_answer() -> None:
    model = make_reward_model("llama", RewardSettings(max_tokens=12))
    full = make_reward_model("llama").encode("red " * 9, "blue sky").ids
    cut = model.encode("red " * 9, "blue sky").ids
    assert len(full) > 12
    assert cut == [full[0], *full[-11:]]


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        ("red green blue", "cat dog", "[CLS] red green blue [SEP] cat dog [SEP]"),
        ("red green blue sun sky", "cat dog", "[CLS] green blue sun sky [SEP] cat dog [SEP]"),
        ("red green", "cat dog sun sky sea plum", "[CLS] [SEP] cat dog sun sky sea plum [SEP]"),
        ("red green", "red cat dog sun sky sea plum", "[CLS] [SEP] cat dog sun sky sea plum [SEP]"),
    ],
)
def test_a_pair_loses_its_prompt_before_its_answer(prompt: str, answer: str, expected: str) -> None:
    model = make_reward_model("bert", RewardSettings(max_tokens=9))
    row = model.encode(prompt, answer)
    assert model.settings.template == "pair"
    assert model.tokenizer.decode(row.ids) == expected
    second = expected.split(" ").index("[SEP]") + 1
    assert row.types == [0] * second + [1] * (len(row.ids) - second)


def test_the_positions_of_the_model_bound_a_sequence() -> None:
    for family in ARCHITECTURES:
        model = make_reward_model(family)
        long = model.encode("red " * 200, "plum")
        # RoBERTa begins to count behind its padding row (id 0 here)
        assert len(long.ids) == (63 if family == "roberta" else 64)
        assert np.isfinite(model.score(["red " * 200], ["plum"])).all()


def test_a_chat_template_is_used_where_there_is_one() -> None:
    model = make_reward_model("llama")
    model.tokenizer.chat_template = CHAT
    chat = RewardModel(model.model, model.tokenizer)
    text = chat.tokenizer.decode(chat.encode("red", "plum").ids)
    assert chat.settings.template == "chat"
    assert text == "<user>red</><assistant>plum</>"
    plain = RewardModel(model.model, model.tokenizer, RewardSettings(template="plain"))
    assert plain.tokenizer.decode(plain.encode("red", "plum").ids) == "<bos>red\nplum"


@pytest.mark.parametrize("template", [CHAT_ONE, "{{ raise_exception('no system role') }}"])
def test_a_chat_template_that_cannot_hold_a_pair_is_refused(template: str) -> None:
    model = make_reward_model("llama")
    model.tokenizer.chat_template = template
    with pytest.raises(InputError, match="template 'plain'"):
        RewardModel(model.model, model.tokenizer)


def test_an_end_token_pads_where_there_is_no_other() -> None:
    model = make_reward_model("gpt2")
    model.tokenizer.pad_token = None
    again = RewardModel(model.model, model.tokenizer)
    assert again.model.config.pad_token_id == again.tokenizer.eos_token_id
    together = again.score(*_pairs())
    alone = [again.score([p], [a])[0] for p, a in zip(*_pairs(), strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_nothing_at_all_has_a_score() -> None:
    model = make_reward_model("llama", RewardSettings(joiner=""))
    model.tokenizer.backend_tokenizer.post_processor = None
    assert model.encode("", "").ids == [model.tokenizer.pad_token_id]
    assert np.isfinite(model.score(["", "red"], ["", "plum"])).all()


# ---- files


@pytest.mark.parametrize("family", [*ENCODERS, "llama"])
def test_a_saved_model_scores_the_same_bits(family: str, tmp_path: Path) -> None:
    model = make_reward_model(family, RewardSettings(joiner=" | ", max_tokens=20))
    scores = model.score(*_pairs())
    model.save(tmp_path)
    loaded = RewardModel.load(tmp_path)
    assert loaded.settings == model.settings
    assert loaded.score(*_pairs()).tobytes() == scores.tobytes()
    assert loaded.version == model.version
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]
    assert (tmp_path / "model.safetensors").is_file()


def test_the_version_follows_weights_and_settings() -> None:
    model = make_reward_model("llama")
    versions = {model.version, make_reward_model("llama", RewardSettings(joiner=" ")).version}
    with torch.no_grad():
        next(model.model.parameters())[0, 0] += 1.0
    model.weights_changed()
    versions.add(model.version)
    versions.add(make_reward_model("llama", RewardSettings(max_tokens=9)).version)
    assert len(versions) == 4
    assert make_reward_model("llama").version == make_reward_model("llama").version


def test_a_model_of_others_needs_no_settings(tmp_path: Path) -> None:
    model = make_reward_model("bert")
    model.save(tmp_path)
    (tmp_path / SETTINGS_FILE).unlink()
    np.testing.assert_array_equal(RewardModel.load(tmp_path).score(*_pairs()), model.score(*_pairs()))


def test_a_language_model_is_a_backbone_and_no_reward_model(tmp_path: Path) -> None:
    student = make_student()
    student.save(tmp_path)
    with pytest.raises(InputError, match=r"score\.weight: it is no reward model"):
        RewardModel.load(tmp_path)
    before = torch.random.get_rng_state()
    model = RewardModel.from_backbone(tmp_path, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    own: Any = student.model
    theirs: Any = model.model
    assert torch.equal(own.model.embed_tokens.weight, theirs.model.embed_tokens.weight)
    again = RewardModel.from_backbone(tmp_path, seed=5)
    assert again.version == model.version
    assert RewardModel.from_backbone(tmp_path, seed=6).version != model.version


def test_a_classifier_with_two_outputs_is_a_backbone_only(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 2 outputs"):
        make_reward_model("bert", labels=2)
    one = make_reward_model("bert")
    one.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="cannot load model"):  # weights of another shape
        RewardModel.load(tmp_path)


def test_a_head_with_two_outputs_is_drawn_anew_and_a_head_with_one_is_kept(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification as Classifier

    one = make_reward_model("bert")
    one.save(tmp_path / "one")
    assert RewardModel.from_backbone(tmp_path / "one", seed=9).version == one.version
    config = one.model.config
    config.num_labels = 2
    Classifier.from_config(config).save_pretrained(tmp_path / "two")
    one.tokenizer.save_pretrained(tmp_path / "two")
    model: Any = RewardModel.from_backbone(tmp_path / "two", seed=9).model
    assert model.classifier.weight.shape == (1, 32)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: _truncate(d / "model.safetensors"), "cannot load model"),
        (lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"), "cannot load model"),
        (lambda d: (d / "config.json").unlink(), "holds no config.json"),
        (lambda d: (d / "tokenizer.json").unlink(), "tokenizer"),
        (lambda d: (d / SETTINGS_FILE).write_text("{"), "cannot be read"),
        (lambda d: (d / SETTINGS_FILE).write_text('{"format": 2}'), "another format"),
        (lambda d: (d / SETTINGS_FILE).write_text('{"format": 1, "colour": 3}'), "cannot be read"),
        (lambda d: (d / SETTINGS_FILE).write_text('{"format": 1, "template": "x"}'), "template is 'x'"),
    ],
)
def test_a_damaged_directory_is_one_clear_error(damage: Any, message: str, tmp_path: Path) -> None:
    make_reward_model("llama").save(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        RewardModel.load(tmp_path)


def test_other_mistakes_are_named(tmp_path: Path) -> None:
    model = make_reward_model("llama")
    with pytest.raises(InputError, match="1 prompts and 2 answers"):
        model.score(["a"], ["b", "c"])
    with pytest.raises(InputError, match="Unicode"):
        model.score(["a"], ["\ud800"])
    with pytest.raises(InputError, match="does not exist"):
        RewardModel.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="max_tokens is 7"):
        RewardSettings(max_tokens=7)
    with torch.no_grad():
        next(model.model.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="not finite"):
        model.score(["a"], ["b"])


def test_tiny_models_of_a_seed_are_the_same() -> None:
    models = [tiny_reward_model(["red cat", "plum"], seed=seed) for seed in (1, 1, 2)]
    assert models[0].version == models[1].version != models[2].version
    assert np.isfinite(models[0].score(["any text \u00e9"], ["\u4e2d"])).all()
