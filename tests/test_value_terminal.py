"""Terminal detection: every detector alone, combinations, failures, and the records they are built from."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from tiny import make_student, plain

from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import encode_prompt
from tokenzero.value.terminal import CombinedDetector, Detector, Mode, ModelDetector, TextDetector
from tokenzero.value.terminal_config import (
    CombinationConfig,
    CompletenessConfig,
    EndTokenConfig,
    LengthLimitConfig,
    PublicOverlapConfig,
    SentenceEndConfig,
    StopStringsConfig,
    TerminalConfig,
    TerminalParts,
    build_terminal,
)
from tokenzero.value.terminal_model import LabelProbability
from tokenzero.value.terminal_text import (
    end_token,
    ends_sentence,
    length_reached,
    resembles,
    sentence_end,
    stop_strings,
)
from tokenzero.value.text_overlap import bleu_measure, rouge_measure

# ---- end token, stop strings, length


def test_the_end_token_finishes_wherever_it_stands() -> None:
    detector = end_token("<eos>")
    texts = ["", "42", "<eos", "42<eos>", "<eos> and more"]
    assert detector.finished_batch(["<eos>"] * 5, texts).tolist() == [False, False, False, True, True]
    with pytest.raises(InputError, match="empty end token"):
        end_token("")


def test_stop_strings_count_whole_in_the_answer_only_and_with_their_case() -> None:
    detector = stop_strings(["\n\nQ:", "END"])
    assert not detector.finished("END", "the en")
    assert not detector.finished("p", "the EN")
    assert not detector.finished("p", "the end\n\nQ")
    assert detector.finished("p", "the END of it")
    assert detector.finished("p", "yes\n\nQ:")
    for wrong in ([], [""], ["a", ""]):
        with pytest.raises(InputError, match="give at least one, none empty"):
            stop_strings(wrong)


_text = st.text(alphabet="abE ", max_size=10)


@given(_text, st.lists(_text.filter(bool), min_size=1, max_size=3))
def test_an_answer_stops_with_the_first_character_that_completes_a_stop_string(
    answer: str, stops: list[str]
) -> None:
    detector = stop_strings(stops)
    ends = [answer.find(stop) + len(stop) for stop in stops if stop in answer]
    first = min(ends, default=len(answer) + 1)
    found = [detector.finished("p", answer[:length]) for length in range(len(answer) + 1)]
    assert found == [length >= first for length in range(len(answer) + 1)]


@given(_text.filter(bool), _text, _text)
def test_a_stop_string_that_begins_another_makes_it_superfluous(stop: str, rest: str, answer: str) -> None:
    both, short = stop_strings([stop + rest, stop]), stop_strings([stop])
    assert both.finished("p", answer) == short.finished("p", answer)


def test_length_finishes_at_its_limit() -> None:
    detector = length_reached(3, len)
    assert [detector.finished("long prompt", text) for text in ("", "ab", "abc", "abcd")] == [
        *(False, False, True, True)
    ]
    with pytest.raises(InputError, match="limit 0; give at least 1"):
        length_reached(0, len)


# ---- the end of a sentence


@pytest.mark.parametrize(
    "text",
    [
        "It is done.",
        "Done!",
        "Really?",
        "What?!",
        "He said \u201cyes.\u201d",
        'He said "yes."  ',
        "(It is so.)",
        "**Done.**",
        "The answer is B.",
        "It costs 3. ",
        "It costs 3.\n",
        "It costs 3.50.)",
        "First:\n42.\n",
        "It weighs 3 kg.",
        "\u5b8c\u4e86\u3002",
        "\u672c\u5f53\uff1f\u300d",
        "Use e.g. this one.",
        "No.",
    ],
)
def test_finished_sentences(text: str) -> None:
    assert ends_sentence(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ".", "?!", '"."', "Done", "Done,", "a b: ", "It is 3.14", "He said. And"),
        *("It is 3.", "It is 10,000.", "x = 0."),
        *("as in e.g.", "as in E.G. ", "(e.g.", "see i.e.", "Dr.", "Mr. ", "cf.", "Smith et al."),
        *("in the U.S.", "at 3 a.m."),
        *("Well...", "Well..", "1. ", "First\n2. ", "10.)"),
        *('He said. "', "Done. ("),
    ],
)
def test_unfinished_sentences(text: str) -> None:
    assert not ends_sentence(text)


@given(st.integers(0, 999), st.integers(0, 999))
def test_no_prefix_of_a_sentence_with_a_decimal_number_is_finished(whole: int, part: int) -> None:
    sentence = f"It costs {whole}.{part} euros."
    found = [ends_sentence(sentence[:length]) for length in range(len(sentence) + 1)]
    assert found == [False] * len(sentence) + [True]


@given(st.text(alphabet='ab1.!?) "\n', max_size=12))
def test_a_finished_sentence_has_a_mark_after_a_word_and_nothing_but_closers_behind(text: str) -> None:
    if ends_sentence(text):
        rest = text.rstrip().rstrip(')"')
        assert rest[-1] in ".!?"
        assert any(letter.isalnum() for letter in rest)


def test_abbreviations_can_be_chosen() -> None:
    assert sentence_end(["No."]).finished("p", "No.") is False
    assert sentence_end(["No."]).finished("p", "Dr.") is True


def test_a_long_run_of_marks_takes_linear_time() -> None:
    text = "word " + "." * 200_000 + '"' * 200_000 + "x"  # minutes if it were quadratic
    assert not ends_sentence(text)


# ---- likeness to a public text


@pytest.mark.parametrize("measure", [bleu_measure(), rouge_measure("rougeL")])
def test_likeness_to_the_public_text_finishes(measure: object) -> None:
    shown = {"copy: the cat sat on the mat": "the cat sat on the mat"}
    detector = resembles(measure, shown.get, 0.9, "copied")  # type: ignore[arg-type]
    (prompt,) = shown
    assert detector.finished(prompt, "the cat sat on the mat")
    assert not detector.finished(prompt, "the cat sat")
    assert not detector.finished("other", "the cat sat on the mat")  # nothing public there: silent
    with pytest.raises(InputError, match="threshold of detector 'copied' is 0"):
        resembles(measure, shown.get, 0, "copied")  # type: ignore[arg-type]


def test_the_threshold_is_reached_not_passed() -> None:
    detector = resembles(lambda answer, reference: 0.5, lambda prompt: "r", 0.5, "half")
    assert detector.finished("p", "a")


def test_no_detector_has_a_place_for_a_reference() -> None:
    for kind in (TextDetector, ModelDetector, CombinedDetector):
        for method in (kind.finished, kind.finished_batch):
            names = [*inspect.signature(method).parameters]
            assert names in (["self", "prompt", "partial"], ["self", "prompts", "partials"])


# ---- a small model


def test_the_labels_probability_is_that_of_the_two_continuations() -> None:
    student = make_student()
    found = LabelProbability(student, template="{prompt}{answer}", labels=("ab", "c"))
    prompts, partials = ["a", "ab", "f"], ["b", "", "ccc"]
    probabilities = found(prompts, partials)
    for probability, prompt, partial in zip(probabilities, prompts, partials, strict=True):
        context = encode_prompt(student.tokenizer, prompt + partial)
        a, b, c = student.tokenizer("abc", add_special_tokens=False)["input_ids"]
        first = torch.softmax(plain(student, context)[0].double(), -1)
        second = torch.softmax(plain(student, [*context, a])[0].double(), -1)
        yes, no = float(first[a] * second[b]), float(first[c])
        assert probability == pytest.approx(yes / (yes + no), rel=1e-4)
    contexts = {prompt + partial for prompt, partial in zip(prompts, partials, strict=True)}
    assert found.forwarded_tokens <= sum(len(context) + 1 for context in contexts) + len(prompts) * 2


def test_placeholders_in_the_texts_stay_as_they_are() -> None:
    student = make_student(spec={"kind": "characters", "alphabet": "abcdefilmoprtnysw{} "})
    found = LabelProbability(student, template="{prompt} {answer}", labels=("a", "b"))
    (probability,) = found(["{answer}"], ["{prompt}"])
    context = encode_prompt(student.tokenizer, "{answer} {prompt}")
    a, b = student.tokenizer("ab", add_special_tokens=False)["input_ids"]
    chances = torch.softmax(plain(student, context)[0].double(), -1)
    assert probability == pytest.approx(float(chances[a] / (chances[a] + chances[b])), rel=1e-4)


def test_templates_and_labels_are_checked() -> None:
    student = make_student()
    for template in ("{prompt}", "{answer}", "{prompt}{partial}"):
        with pytest.raises(InputError):
            LabelProbability(student, template=template, labels=("a", "b"))
    for labels in (("a", "a"), ("", "a")):
        with pytest.raises(InputError):
            LabelProbability(student, template="{prompt}{answer}", labels=labels)


def test_a_model_speaks_from_its_threshold_on() -> None:
    detector = ModelDetector("m", lambda prompts, partials: np.array([0.2, 0.7, 0.71]), 0.7)
    assert detector.finished_batch(["p"] * 3, ["a"] * 3).tolist() == [False, True, True]
    with pytest.raises(InputError, match=r"threshold of detector 'm' is 1\.5"):
        ModelDetector("m", lambda prompts, partials: np.zeros(1), 1.5)
    for wrong in ([np.nan], [1.5], [0.5, 0.5]):
        odd = ModelDetector("m", lambda prompts, partials, wrong=wrong: np.array(wrong))  # type: ignore[misc]
        with pytest.raises(InputError, match="must give one probability"):
            odd.finished("p", "a")


# ---- combinations

LETTERS = "abc"
DETECTORS = [TextDetector(letter, lambda prompt, partial, x=letter: x in partial) for letter in LETTERS]  # type: ignore[misc]
_partials = st.lists(st.text(alphabet="abcd", max_size=5), max_size=6)


@given(_partials, st.lists(st.sampled_from(DETECTORS), min_size=1, max_size=3, unique_by=lambda d: d.name))
def test_any_is_the_or_of_its_parts_and_all_the_and(partials: list[str], parts: list[Detector]) -> None:
    prompts = ["p"] * len(partials)
    single = [[part.finished("p", partial) for part in parts] for partial in partials]
    for mode, fold in (("any", any), ("all", all)):
        combined = CombinedDetector(parts, mode)  # type: ignore[arg-type]
        found = combined.detect(prompts, partials)
        assert found.finished.dtype == np.bool_
        assert found.finished.tolist() == [fold(row) for row in single]
        assert found.finished.tolist() == combined.finished_batch(prompts, partials).tolist()
        assert found.finished.tolist() == [combined.finished("p", partial) for partial in partials]
        for row, words in enumerate(single):
            spoke = tuple(part.name for part, word in zip(parts, words, strict=True) if word)
            assert found.spoke(row) == spoke


@given(_partials)
def test_combinations_nest(partials: list[str]) -> None:
    a, b, c = DETECTORS
    nested = CombinedDetector([a, CombinedDetector([b, c], "all", "both")], "any")
    found = nested.detect(["p"] * len(partials), partials)
    assert found.finished.tolist() == ["a" in x or ("b" in x and "c" in x) for x in partials]
    assert [*found.parts] == ["a", "both"]


class Counted:
    """Holds texts with a "y" finished, raises on those with an "x", and remembers what it was shown."""

    name = "counted"

    def __init__(self) -> None:
        self.shown: list[str] = []

    def finished(self, prompt: str, partial: str) -> bool:
        return bool(self.finished_batch([prompt], [partial])[0])

    def finished_batch(self, prompts: Sequence[str], partials: Sequence[str]) -> NDArray[np.bool_]:
        if any("x" in partial for partial in partials):
            raise RuntimeError("no")
        self.shown += partials
        return np.array(["y" in partial for partial in partials])


@pytest.mark.parametrize(("mode", "shown"), [("any", ["b", "y"]), ("all", ["a", "ay"])])
def test_what_earlier_detectors_settle_is_not_shown_to_later_ones(mode: Mode, shown: list[str]) -> None:
    counted = Counted()
    combined = CombinedDetector([DETECTORS[0], counted], mode)
    combined.finished_batch(["p"] * 4, ["a", "b", "y", "ay"])
    assert counted.shown == shown


def test_a_detector_that_raises_is_silent_there_and_counted() -> None:
    combined = CombinedDetector([Counted(), DETECTORS[0]], "any")
    partials = ["x", "ax", "y", "b", "a"]
    found = combined.detect(["p"] * 5, partials)
    assert found.finished.tolist() == [False, True, True, False, True]
    assert found.parts["counted"].tolist() == [False, False, True, False, False]
    assert found.spoke(1) == ("a",)
    assert dict(combined.failures_by_detector) == {"counted": 2}
    assert combined.failures == 2
    assert not CombinedDetector([Counted(), DETECTORS[0]], "all").finished("p", "ax")


def test_combinations_are_checked() -> None:
    with pytest.raises(InputError, match="combined by 'most'"):
        CombinedDetector(DETECTORS, "most")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs at least one detector"):
        CombinedDetector([])
    with pytest.raises(InputError, match="'a' is given twice"):
        CombinedDetector([DETECTORS[0], DETECTORS[0]])
    for detector in (DETECTORS[0], CombinedDetector(DETECTORS)):
        with pytest.raises(InputError, match="1 prompts and 2 partials"):
            detector.finished_batch(["p"], ["a", "b"])
    assert CombinedDetector(DETECTORS).detect([], []).finished.shape == (0,)


# ---- records


def test_the_detectors_are_built_from_their_records() -> None:
    combined = build_terminal(
        [
            EndTokenConfig(),
            StopStringsConfig(stops=["STOP"]),
            LengthLimitConfig(limit=9),
            PublicOverlapConfig(kind="rouge1", threshold=1.0),
            PublicOverlapConfig(kind="bleu", threshold=1.0, name="copied"),
            CompletenessConfig(threshold=0.75),
            CombinationConfig(
                kind="all",
                name="long sentence",
                detectors=[SentenceEndConfig(), LengthLimitConfig(limit=4, unit="words")],
            ),
        ],
        TerminalParts(
            end_token="</s>",
            count_tokens=lambda text: len(text.split()),
            public_reference=lambda prompt: prompt or None,
            probability=lambda prompts, partials: np.array([0.8 * ("sure" in text) for text in partials]),
        ),
    )
    spoken = {
        "1 2": (),
        "1 2</s>": ("end_token",),
        "1 STOP": ("stop_strings",),
        "a b c d e f g h i": ("length",),
        "q p": ("rouge1",),
        "p q": ("rouge1", "copied"),
        "sure": ("model",),
        "It is done.": (),
        "It is now done.": ("long sentence",),
    }
    found = combined.detect(["p q"] * len(spoken), [*spoken])
    assert [found.spoke(row) for row in range(len(spoken))] == [*spoken.values()]
    assert combined.failures == 0
    assert build_terminal(
        [EndTokenConfig(token="a"), EndTokenConfig(token="b", name="b")], mode="all"
    ).finished("p", "ab")


def test_a_small_model_is_opened_by_name(tmp_path: Path) -> None:
    student = make_student()
    student.save(tmp_path)
    config = CompletenessConfig(
        model=str(tmp_path), template="{prompt}{answer}", labels=["a", "b"], threshold=1e-6
    )
    combined = build_terminal([config])
    assert combined.finished_batch(["a", "a"], ["b", "z"]).tolist() == [True, False]  # z is not a symbol
    assert combined.failures == 1


def test_what_a_record_needs_and_the_run_lacks_is_named() -> None:
    for config, lack in (
        (EndTokenConfig(), "empty end token"),
        (LengthLimitConfig(limit=3), "nothing counts them"),
        (PublicOverlapConfig(), "this task has none"),
        (CompletenessConfig(), "names no model"),
    ):
        with pytest.raises(InputError, match=lack):
            build_terminal([config])
    with pytest.raises(InputError, match="at least one detector"):
        build_terminal([])


def test_records_are_checked_when_they_are_made() -> None:
    with pytest.raises(InputError, match="none empty"):
        StopStringsConfig(stops=[])
    with pytest.raises(InputError, match="limit 0"):
        LengthLimitConfig(limit=0)
    with pytest.raises(InputError, match="rougeL threshold is 0"):
        PublicOverlapConfig(threshold=0)
    with pytest.raises(InputError, match="model threshold is 2"):
        CompletenessConfig(threshold=2)
    with pytest.raises(InputError, match="two labels"):
        CompletenessConfig(labels=["yes"])


def test_pydantic_reads_nested_records_and_refuses_unknown_keys() -> None:
    adapter: TypeAdapter[list[TerminalConfig]] = TypeAdapter(
        list[Annotated[TerminalConfig, Field(discriminator="kind")]]
    )
    read = adapter.validate_python(
        [
            {"kind": "rouge2", "threshold": 0.5},
            {"kind": "any", "detectors": [{"kind": "sentence_end"}, {"kind": "length", "limit": 4}]},
        ]
    )
    assert read == [
        PublicOverlapConfig(kind="rouge2", threshold=0.5),
        CombinationConfig(kind="any", detectors=[SentenceEndConfig(), LengthLimitConfig(limit=4)]),
    ]
    for wrong in (
        {"kind": "length", "limit": 4, "untis": "words"},
        {"kind": "any", "detectors": [{"kind": "lenght", "limit": 4}]},
        {"kind": "length", "limit": 0},
    ):
        with pytest.raises(ValidationError):
            adapter.validate_python([wrong])
