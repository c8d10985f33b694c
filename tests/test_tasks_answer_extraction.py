"""Final answers out of text, and which mathematics counts as equal."""

from __future__ import annotations

import sys
import threading
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzero.mcts.errors import InputError
from tokenzero.tasks.answer_extraction import (
    ANSWER_FORMATS,
    closing,
    concluded,
    final_letter,
    final_number,
    final_text,
    read_letter,
    read_number,
    states_letter,
    states_number,
    states_text,
)
from tokenzero.tasks.math_equality import math_equal

# ---- numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("+7", 7),
        ("-42", -42),
        ("\u221242", -42),
        ("1,234,567", 1234567),
        ("$1,234.50", Fraction(2469, 2)),
        ("-$5", -5),
        ("$-5", -5),
        ("\\$42", 42),
        ("$42$", 42),
        ("\u20ac5", 5),
        ("5 \u20ac", 5),
        ("50%", 50),
        ("50\\%", 50),
        ("18.", 18),
        (".5", Fraction(1, 2)),
        ("0.1", Fraction(1, 10)),
        ("1.5e3", 1500),
        ("2E-2", Fraction(1, 50)),
        ("1.5 \\times 10^{3}", 1500),
        ("3 x 10^-2", Fraction(3, 100)),
        ("1/2", Fraction(1, 2)),
        ("-3/4", Fraction(-3, 4)),
        ("1 1/2", Fraction(3, 2)),
        ("-1 1/2", Fraction(-3, 2)),
        ("\\frac{1}{2}", Fraction(1, 2)),
        ("\\frac12", Fraction(1, 2)),
        ("2\\frac{1}{2}", Fraction(5, 2)),
        ("-\\dfrac{3}{4}", Fraction(-3, 4)),
        ("\\frac{-3}{4}", Fraction(-3, 4)),
        ("10{,}000", 10000),
        ("10\\,000", 10000),
        ("\\text{42 dollars}", 42),
        ("**42**", 42),
        ("x = 42", 42),
        ("5 apples", 5),
        ("5kg", 5),
        ("5 miles per hour", 5),
        ("42 km/h", 42),
        ("5 m^2", 5),
        ("5 3/4 cups", Fraction(23, 4)),
    ],
)
def test_numbers_are_read_exactly(text: str, value: int | Fraction) -> None:
    assert read_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "abc",
            "five",
            "NaN",
            "inf",
            "0x10",
            "1_000",
            "1,23",
            "1,2345",
            "12,34,567",
            "4 2",
            "1.2.3",
            "--5",
        ),
        *(
            "-$-5",
            "1/0",
            "2/-3",
            "2 -1/2",
            "5-3",
            "5 - 3",
            "2+3",
            "= 42",
            "42 = 42",
            "5 or 6",
            "5 to 6",
            "5, 6",
        ),
        *("5 or so", "5 million", "5 dozen", "5k", "5x", "3 pi", "5 squared", "about 5", "not 5", "1e9999"),
        *("\u0664\u0662", "9" * 101, "42 but I am not sure", "\\frac{1}{0}", "\\sqrt{4}", "(5)(6)"),
    ],
)
def test_what_is_not_one_number_is_refused(text: str) -> None:
    assert read_number(text) is None


@given(st.integers(-(10**12), 10**12))
def test_whole_numbers_survive_commas_and_marks(number: int) -> None:
    for answer_format in ANSWER_FORMATS:
        assert final_number(concluded("2 + 3 = 5.", closing(answer_format, f"{number:,}"))) == (
            None if answer_format == "plain" else number
        )
    assert read_number(f"{number:,}") == read_number(str(number)) == number


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9))
def test_decimals_are_exact(number: object) -> None:
    assert read_number(f"{number:f}") == Fraction(str(number))


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
def test_mixed_numbers_plain_and_latex(whole: int, over: int, under: int) -> None:
    value = whole + Fraction(over, under)
    assert read_number(f"{whole} {over}/{under}") == value
    assert read_number(f"-{whole}\\frac{{{over}}}{{{under}}}") == -value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6 * 7 = 42\n#### 42", 42),
        ("#### 42\n", 42),
        ("#### $1,200", 1200),
        ("so it is #### 42", 42),
        ("The answer is 42.", 42),
        ("The final answer is: **42**. I hope it helps.", 42),
        ("Answer: 42 dollars", 42),
        ("**Answer:** 42", 42),
        ("The answer is:\n42", 42),
        ("answer = 42", 42),
        ("Thus \\boxed{42}.", 42),
        ("$\\boxed{\\frac{1}{2}}$", Fraction(1, 2)),
        ("\\boxed{\\text{42 cm}}", 42),
        ("\\boxed{\\boxed{42}}", 42),
        ("The answer is \\boxed{42}", 42),
        ("#### \\boxed{42}", 42),
        ("42", 42),
        (" 42\n", 42),
        # the last statement counts
        ("#### 41\n#### 42", 42),
        ("The answer is 41. No, the answer is 42.", 42),
        ("\\boxed{41}\n#### 42", 42),
        ("#### 41\nThe answer is 42", 42),
        # an unreadable soft mark is prose
        ("#### 42\nThe answer is correct.", 42),
        ("The answer is 42. The answer is clear.", 42),
        # an unreadable hard mark is not
        ("#### 42\n#### I do not know", None),
        ("The answer is 42\n\\boxed{}", None),
        ("\\boxed{42", None),
        ("#### 5 or 6", None),
        ("####42#", None),
        ("##### 42", None),
        ("#### \n42", None),
        # nothing is stated
        ("", None),
        ("He has 42 apples.", None),
        ("6 * 7 = 42", None),
        ("The answer is not 42", None),
        ("The answer is between 41 and 43", None),
        ("answering 42", None),
    ],
)
def test_final_numbers(text: str, value: int | Fraction | None) -> None:
    assert final_number(text) == value


# ---- letters


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("#### B", "B"),
        ("#### b", "B"),
        ("#### (B)", "B"),
        ("#### B) 6000", "B"),
        ("\\boxed{B}", "B"),
        ("\\boxed{\\text{B}}", "B"),
        ("\\boxed{\\textbf{(B)}}", "B"),
        ("The answer is B.", "B"),
        ("The answer is (B).", "B"),
        ("The answer is **B**", "B"),
        ("The answer is B) 6000.", "B"),
        ("Answer: B", "B"),
        ("Answer - B", "B"),
        ("ANSWER:E", "E"),
        ("Answer D", "D"),
        ("Answer: Option C", "C"),
        ("CORRECT OPTION:OPTION E", "E"),
        ("The correct option is C.", "C"),
        ("The correct answer choice is C.", "C"),
        ("Final Answer:\nA", "A"),
        ("B", "B"),
        ("(B)", "B"),
        ("The answer is A. Wait, the answer is B.", "B"),
        ("Answer: A\n#### B", "B"),
        ("#### B\n#### F", None),
        ("#### B or C", None),
        ("#### B) and C)", None),
        ("#### BC", None),
        ("#### 6000", None),
        ("The answer is a number", None),
        ("The answer is Beth", None),
        ("Answer A is wrong", None),
        ("A man walks", None),
        ("I would guess B", None),
        ("B C", None),
        ("F", None),
        ("", None),
    ],
)
def test_final_letters(text: str, letter: str | None) -> None:
    assert final_letter(text) == letter


def test_letters_are_those_on_offer() -> None:
    assert read_letter("F") is None
    assert read_letter("F", "ABCDEF") == "F"
    assert final_letter("#### D", "ABC") is None


# ---- any text, and the stop rule


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("Paris", "Paris"),
        ("It is the capital.\n#### Paris\n", "Paris"),
        ("The answer is Paris.", "Paris"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{x \\} y}", "x \\} y"),
        ("#### ", ""),
        ("", ""),
    ],
)
def test_final_text(text: str, stated: str) -> None:
    assert final_text(text) == stated


def test_an_answer_is_stated_once_its_line_has_ended() -> None:
    assert not states_number("#### 4")
    assert states_number("#### 42\n")
    assert not states_number("#### Step 1\n")
    assert not states_number("\\boxed{42}")
    assert states_number("so \\boxed{42}.\n")
    assert states_letter("#### B\n")
    assert not states_letter("#### 42\n")
    assert states_text("#### Paris\n")
    sentence = "Add them.\nThe answer is 42.\n"
    assert not states_number(sentence)
    assert states_number(sentence, sentence=True)
    assert not states_number("Answer: 42\n", sentence=True)
    assert not states_number("As the answer is 42\n", sentence=True)


@given(st.text(alphabet="#4 \n\\boxed{}.Ttheanswri", max_size=60), st.text(max_size=10))
def test_what_has_been_stated_stays_stated(text: str, more: str) -> None:
    for ended in (states_number(text, sentence=True), states_text(text)):
        assert not ended or states_number(text + more, sentence=True) or states_text(text + more)
    if states_number(text):
        assert states_number(text + more)


@given(st.text(alphabet="#0123456789 \n\\boxed{}.,$%/-eABC:isanwer", max_size=200))
def test_no_text_is_too_odd(text: str) -> None:
    final_number(text)
    final_letter(text)
    final_text(text)


def test_a_last_line_is_written_once() -> None:
    assert concluded("One.\nThe answer is B.", "The answer is B.") == "One.\nThe answer is B."
    assert concluded("One.", "#### 1") == "One.\n#### 1"
    assert concluded("", "#### 1") == "#### 1"


# ---- mathematics


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("42", "42.0", True),
        ("\\frac{1}{2}", "0.5", True),
        ("1\\frac{1}{2}", "\\frac32", True),
        ("1/3", "0.333333", False),
        ("1000000007", "1000000006.9999999", False),
        ("Paris", "Paris", True),
        ("Paris", "pairs", False),
        ("\\text{Paris}", "\\text{London}", False),
        ("9^{9^{9^9}}", "9^{9^{9^9}}", True),
        ("", "", False),
        ("42", "", False),
    ],
)
def test_numbers_and_words_need_no_package(
    monkeypatch: pytest.MonkeyPatch, gold: str, answer: str, equal: bool
) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    assert math_equal(gold, answer) is equal


EQUALITIES = [
    ("x^2+2x+1", "(x+1)^2", True),
    ("2\\sqrt{3}", "$\\sqrt{12}$", True),
    ("\\sqrt{2}", "1.414214", False),
    ("\\sqrt{4}", "2", True),
    ("5!", "120", True),
    ("5", "5!", False),
    ("2^{10}", "1024", True),
    ("30^\\circ", "30", True),
    ("3\\text{ cm}", "3", True),
    ("\\{1,2\\}", "\\{2,1\\}", True),
    ("(1,2)", "(2,1)", False),
    ("5", "\\{5,6\\}", False),
    ("[0,1)", "[0,1]", False),
    ("5", "x=5", True),
    ("1<x<2", "(1,2)", True),  # this way round only
    ("(1,2)", "1<x<2", False),
    ("2x", "$x$; $2x$", False),
    ("2x", "$2x$; $x$", False),
    ("2x", "x \\boxed{2x}", False),
    ("\\frac{1}{3}", "33.3333333\\%", False),
    ("x+1", "}{", False),
    ("x+1", "\\frac{1}{", False),
]


@pytest.mark.parametrize(("gold", "answer", "equal"), EQUALITIES)
def test_equal_mathematics(gold: str, answer: str, equal: bool) -> None:
    pytest.importorskip("math_verify")
    assert math_equal(gold, answer) is equal


@pytest.mark.parametrize(
    "answer",
    [
        "9^{9^{9^9}}",
        "((x+1)^{99}-1)(x+2)^{9}",
        "10^{999999}",
        "2**3**4**5",
        "((5!)!)!",
        "99999!",
        "\\sum_{n=1}^{9} n",
        "\\int_0^1 x",
        "x+" * 120 + "1",
        "__import__('os')",
    ],
)
def test_what_could_take_for_ever_is_refused_unseen(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)  # asking it would raise
    assert math_equal("x+7", answer) is False


def test_mathematics_off_the_main_thread() -> None:
    pytest.importorskip("math_verify")
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(math_equal("y^2-1", "(y-1)(y+1)")))
    thread.start()
    thread.join()
    assert found == [True]


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(InputError, match="pip install math-verify"):
        math_equal("z^2", "zz")
