"""The label judge against a plain loop that forwards each label whole, and against things that go wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tiny import FAMILIES, TokenCounter, make_student, plain, tree_engine

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import RecomputeEngine
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import train_bpe
from tokenzero.value.label_judge import LabelJudge, weights_fingerprint

TEMPLATE = "ab{prompt}f{answer}c"
LABELS = {"ab": 1, "acd": 1, "b": -1, "cd": 0}
PROMPTS = ["abc", "f", "", "deafdeaf", "abc"]
ANSWERS = ["", "fed", "a", "ab", "fed"]


def long_student(family: str = "llama-gqa", **options: Any) -> Student:
    config = dict(FAMILIES[family]) | {"max_position_embeddings": 256}
    small = make_student(**options)
    return Student.from_config(config, small.tokenizer, seed=5)


def naive_scores(
    student: Student, template: str, labels: Sequence[str], prompt: str, answer: str
) -> list[float]:
    """Each label's tokens one by one, each after a forward of everything before it."""
    text = template.replace("{prompt}", prompt).replace("{answer}", answer)
    context = student.tokenizer(text)["input_ids"]
    scores = []
    for label in labels:
        tokens = student.tokenizer(label, add_special_tokens=False)["input_ids"]
        score = 0.0
        for index, token in enumerate(tokens):
            logits, _ = plain(student, [*context, *tokens[:index]])
            score += float(torch.log_softmax(logits.double(), dim=-1)[token])
        scores.append(score)
    return scores


def naive_verdict(scores: Sequence[float], labels: Mapping[str, int], margin: float) -> int:
    chances: dict[int, float] = {}
    for score, verdict in zip(scores, labels.values(), strict=True):
        chances[verdict] = chances.get(verdict, 0.0) + math.exp(score)
    (first, best), (second, _) = sorted(((chance, verdict) for verdict, chance in chances.items()))[:-3:-1]
    return best if math.log(first) - math.log(second) >= margin else 0


@pytest.mark.parametrize("way", ["tree", "recompute", "chosen"])
@pytest.mark.parametrize("rows", [1, 2, 64])
def test_scores_and_verdicts_are_those_of_a_plain_loop(way: str, rows: int) -> None:
    student = long_student()
    engine = {"tree": tree_engine, "recompute": RecomputeEngine, "chosen": lambda _: None}[way](student)
    judge = LabelJudge(student, template=TEMPLATE, labels=LABELS, engine=engine, rows=rows)
    wanted = [
        naive_scores(student, TEMPLATE, list(LABELS), prompt, answer)
        for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
    ]
    np.testing.assert_allclose(judge.scores(PROMPTS, ANSWERS), wanted, atol=1e-4)
    margins = [0.0, 0.5, 2.0, 50.0]
    seen = set()
    for margin in margins:
        judge.margin = margin
        verdicts = judge.judge(PROMPTS, ANSWERS)
        assert verdicts.dtype == np.int8
        assert verdicts.tolist() == [naive_verdict(scores, LABELS, margin) for scores in wanted]
        seen |= set(verdicts.tolist())
    assert len(seen) > 1
    assert judge.judge(PROMPTS, ANSWERS).tolist() == [0] * 5, "the largest margin silences"
    assert judge.failures == 0


def test_every_forwarded_token_is_counted_and_shared_ones_once() -> None:
    student = long_student()
    counter = TokenCounter(student)
    plain_judge = LabelJudge(student, template=TEMPLATE, labels=LABELS, engine=RecomputeEngine(student))
    plain_judge.judge(PROMPTS, ANSWERS)
    assert plain_judge.tokens == counter.tokens > 0
    engine = tree_engine(student)
    judge = LabelJudge(student, template=TEMPLATE, labels=LABELS, engine=engine)
    counter.tokens = 0
    judge.judge(PROMPTS, ANSWERS)
    assert judge.tokens == counter.tokens
    contexts = [
        student.tokenizer(TEMPLATE.replace("{prompt}", p).replace("{answer}", a))["input_ids"]
        for p, a in zip(PROMPTS, ANSWERS, strict=True)
    ]
    beginnings = {tuple(ids[:n]) for ids in contexts for n in range(1, len(ids) + 1)}
    stems = 3  # of "ab", "acd" and "cd": a, ac, c
    assert judge.tokens == len(beginnings) + stems * len(PROMPTS)
    assert engine.known == 0, "every state was given back"


def test_no_pairs_cost_nothing() -> None:
    judge = LabelJudge(long_student(), template=TEMPLATE, labels=LABELS)
    assert judge.judge([], []).shape == (0,)
    assert judge.tokens == 0
    with pytest.raises(InputError, match="1 prompts and 0"):
        judge.judge(["a"], [])


def test_labels_of_one_meaning_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = LabelJudge(long_student(), template=TEMPLATE, labels={"a": 1, "b": -1, "c": -1})
    chances = np.array([[0.40, 0.35, 0.20], [0.60, 0.35, 0.05]])
    monkeypatch.setattr(judge, "scores", lambda prompts, partials: np.log(chances))
    assert judge.judge(["a", "a"], ["b", "b"]).tolist() == [-1, 1]


def test_a_tie_is_neutral() -> None:
    student = long_student()
    head = student.model.get_output_embeddings()
    with torch.no_grad():
        head.weight.zero_()
    judge = LabelJudge(student, template=TEMPLATE, labels={"a": 1, "b": -1})
    assert judge.judge(PROMPTS, ANSWERS).tolist() == [0] * 5
    assert judge.failures == 0


def test_what_cannot_be_read_or_does_not_fit_is_neutral_counted_and_harms_no_other_row() -> None:
    student = make_student()  # 32 positions
    judge = LabelJudge(student, template="{prompt}{answer}", labels={"ab": 1, "b": -1})
    fits = judge.judge(["a", "b"], ["b", "c"])
    wrong = ["aé", "\ud800", "", "a" * 31]
    assert judge.failures == 0
    verdicts = judge.judge(["a", *wrong, "b"], ["b", "", "", "", "", "c"])
    assert verdicts[[0, -1]].tolist() == fits.tolist()
    assert verdicts[[1, 2, 4]].tolist() == [0, 0, 0]
    assert judge.failures == 3, "the empty text is read: it has an opening token"


def test_the_longest_sequence_that_fits_is_judged() -> None:
    student = make_student()
    judge = LabelJudge(student, template="{prompt}{answer}", labels={"abc": 1, "bcd": -1})
    room = student.max_length - 1 - 2  # the opening token, and two of a label
    assert np.isfinite(judge.scores(["a" * room], [""])).all()
    assert judge.failures == 0
    assert np.isnan(judge.scores(["a" * (room + 1)], [""])).all()
    assert judge.failures == 1


def test_a_model_that_fails_on_one_row_is_asked_about_the_others() -> None:
    student = long_student()
    bad = student.tokenizer("e", add_special_tokens=False)["input_ids"][0]
    engine = RecomputeEngine(student)
    prefill = engine.prefill

    def fragile(prompts: Sequence[Sequence[int]]) -> Any:
        if any(bad in prompt for prompt in prompts):
            raise RuntimeError("out of memory")
        return prefill(prompts)

    engine.prefill = fragile  # type: ignore[method-assign]
    judge = LabelJudge(student, template=TEMPLATE, labels=LABELS, engine=engine)
    whole = LabelJudge(student, template=TEMPLATE, labels=LABELS).judge(PROMPTS, ANSWERS)
    broken = np.array(["e" in p + a for p, a in zip(PROMPTS, ANSWERS, strict=True)])
    assert 0 < broken.sum() < len(broken)
    assert judge.judge(PROMPTS, ANSWERS).tolist() == np.where(broken, 0, whole).tolist()
    assert judge.failures == broken.sum()


def test_a_model_whose_output_is_no_number_has_no_verdict() -> None:
    student = long_student()
    head = student.model.get_output_embeddings()
    judge = LabelJudge(student, template=TEMPLATE, labels=LABELS, engine=RecomputeEngine(student))
    with torch.no_grad():
        head.weight.fill_(float("nan"))
    assert judge.judge(PROMPTS, ANSWERS).tolist() == [0] * 5
    assert judge.failures == 5


def test_states_are_given_back_when_the_model_fails_half_way() -> None:
    student = long_student()
    engine = tree_engine(student)
    judge = LabelJudge(student, template=TEMPLATE, labels=LABELS, engine=engine)

    def broken(states: Any, tokens: Any) -> Any:
        raise RuntimeError("no")

    engine.extend = broken  # type: ignore[method-assign]
    assert judge.judge(PROMPTS, ANSWERS).tolist() == [0] * 5
    assert judge.failures == 5
    assert engine.known == 0
    assert judge.tokens == engine.ledger.prefill_tokens > 0


def test_texts_cannot_spell_control_tokens_but_the_template_can() -> None:
    tokenizer = train_bpe(["yes no <eos> problem answer"] * 3, 280)
    student = Student.from_config(FAMILIES["llama-gqa"] | {"max_position_embeddings": 256}, tokenizer, seed=1)
    eos, bos = student.eos_id, tokenizer.bos_token_id
    asked: list[list[int]] = []
    engine = RecomputeEngine(student)
    prefill = engine.prefill

    def listening(prompts: Sequence[Sequence[int]]) -> Any:
        asked.extend(list(prompt) for prompt in prompts)
        return prefill(prompts)

    engine.prefill = listening  # type: ignore[method-assign]
    judge = LabelJudge(
        student, template="{prompt}<eos> {answer}:", labels={" yes": 1, " no": -1}, engine=engine
    )
    judge.judge(["problem <eos>"], ["<bos>answer <eos>"])
    (ids,) = asked
    assert ids.count(eos) == 1
    assert ids.count(bos) == 1
    assert ids[0] == bos
    left, right = ids[1 : ids.index(eos)], ids[ids.index(eos) + 1 :]
    assert tokenizer.decode(left) == "problem <eos>"
    assert tokenizer.decode(right) == " <bos>answer <eos>:"
    assert judge.failures == 0


def test_a_stretch_of_text_is_tokenised_as_the_model_is_used_to() -> None:
    """Template, prompt and answer are encoded together: merges go across their borders."""
    tokenizer = train_bpe(["problem answer yes no"] * 5, 320)
    student = Student.from_config(FAMILIES["llama-gqa"], tokenizer, seed=1)
    judge = LabelJudge(student, template="prob{prompt} ans{answer}", labels={" yes": 1, " no": -1})
    assert judge._read("lem", "wer") == tokenizer("problem answer")["input_ids"]


def test_the_version_follows_settings_and_weights() -> None:
    student = long_student()

    def version(**options: Any) -> str:
        return LabelJudge(student, **({"template": TEMPLATE, "labels": LABELS} | options)).version

    first = version()
    assert first == version(rows=1, name="other")
    assert version(template=TEMPLATE + "d") != first
    assert version(labels=LABELS | {"e": 1}) != first
    assert version(labels=LABELS | {"b": 0}) != first
    assert version(margin=0.5) != first
    assert version(template="{constitution}" + TEMPLATE, constitution="a") != version(
        template="{constitution}" + TEMPLATE, constitution="b"
    )
    judge = LabelJudge(student, template=TEMPLATE, labels=LABELS)
    assert judge.version == first
    with torch.no_grad():
        next(iter(student.model.parameters())).add_(1.0)
    assert judge.version == first, "nobody has said that the weights changed"
    student.weights_changed()
    assert judge.version != first


def test_weights_are_known_again_wherever_they_were_loaded_from(tmp_path: Any) -> None:
    student = long_student()
    first = weights_fingerprint(student)
    student.tokenizer(["ab", "a"], padding=True)  # leaves a trace in the tokenizer
    assert weights_fingerprint(student) == first
    student.save(tmp_path)
    assert weights_fingerprint(Student.load(tmp_path)) == first
    assert weights_fingerprint(long_student("gpt2")) != weights_fingerprint(student)
    half = long_student()
    half.model.bfloat16()
    assert weights_fingerprint(half) != weights_fingerprint(student)


def test_a_judge_that_shares_the_student_sees_new_weights() -> None:
    student = long_student()
    judge = LabelJudge(student, template=TEMPLATE, labels=LABELS, engine=tree_engine(student))
    other = tree_engine(student)
    held = other.prefill([[1, 4, 5]])
    before = judge.scores(PROMPTS, ANSWERS)
    with torch.no_grad():
        for weights in student.model.parameters():
            weights.mul_(0.9)
    student.weights_changed()
    after = judge.scores(PROMPTS, ANSWERS)
    fresh = LabelJudge(student, template=TEMPLATE, labels=LABELS, engine=RecomputeEngine(student))
    assert np.abs(before - after).max() > 1e-3
    np.testing.assert_allclose(after, fresh.scores(PROMPTS, ANSWERS), atol=1e-4)
    assert judge.failures == 0
    other.release(held.states)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": {"a": 1}}, "leave no choice"),
        ({"labels": {"a": 1, "b": 1}}, "leave no choice"),
        ({"labels": {"a": 1, "b": 2}}, "means 2"),
        ({"labels": {"a": 1, " ": -1}}, "is empty"),
        ({"labels": {"a": 1, "ab": -1}}, "could never win"),
        ({"labels": {"a": 1, "é": -1}}, "no token for a symbol"),
        ({"margin": -0.1}, "margin is -0.1"),
        ({"margin": math.nan}, "margin is nan"),
        ({"rows": 0}, "rows is 0"),
        ({"template": "{prompt}"}, "no {answer}"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LabelJudge(make_student(), **({"template": TEMPLATE, "labels": LABELS} | options))


def test_a_label_takes_the_tokens_that_it_has_after_the_ending() -> None:
    """Where ending and label would become one token, the label's own tokens count."""
    tokenizer = train_bpe(["verdict good", "verdict bad", "ab ab ab ab ab"], 300)
    student = Student.from_config(FAMILIES["llama-gqa"], tokenizer, seed=1)
    after_space = LabelJudge(student, template="{prompt}{answer} verdict", labels={" good": 1, " bad": -1})
    assert tokenizer.decode(list(after_space._codes[0])) == " good"
    merged = LabelJudge(student, template="{prompt}{answer} a", labels={"b": 1, "x": -1})
    alone = tokenizer("b", add_special_tokens=False)["input_ids"]
    assert len(tokenizer(" ab", add_special_tokens=False)["input_ids"]) == 1
    assert merged._codes[0] == tuple(alone)
