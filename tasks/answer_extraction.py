"""Final answers out of written solutions: where they are stated, and the number, letter or text stated there.

A final answer is stated by a mark. "#### 42" (to the end of the line) and ``\\boxed{42}`` are hard marks:
nothing else is meant by them, so one that cannot be read makes the answer unreadable. "The answer is 42" is a
soft mark: one that cannot be read is passed over as mere prose. The last statement counts, whatever stood
before it, and a text without any mark counts only if it is nothing but an answer. Prose is never searched for
something that looks like an answer: to name many numbers must not pay.

Numbers are exact fractions. This file compares no LaTeX (see ``math_equality``) and knows no task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple, TypeVar

T = TypeVar("T")

LONGEST_NUMBER = 100
"""Characters, so that no text makes a number that takes long to compute with."""
LONGEST_BOX = 400

PLAIN = "plain"
CLOSINGS = {"hashes": "#### {}", "boxed": "\\boxed{{{}}}", "sentence": "The answer is {}."}
ANSWER_FORMATS = (*CLOSINGS, PLAIN)
"""How the end of a solution states its answer; "plain" states it without a mark."""


class Statement(NamedTuple):
    """One place that states a final answer. text: what is stated, stripped. hard: by a mark that means
    nothing else. sentence: in a line that begins "The answer is". closed: the line has ended, so that no
    later character can change the statement.
    """

    text: str
    hard: bool
    sentence: bool
    closed: bool


_HARD = r"(?<!#)####(?!#)|\\f?boxed\s*\{"
_VALUE_MARK = re.compile(rf"{_HARD}|(?i:\banswer[*_]*\s*(?:\bis\b|[:=])[*_:\s]*)")
_LETTER_MARK = re.compile(
    rf"{_HARD}|(?i:\b(?:answer|correct\s+(?:option|choice))(?:\s+choice)?\b[*_]*\s*"
    r"(?:\bis\b|[:=\-\u2013])?[*_:\s]*(?:(?:option|choice)\b\s*:?\s*)?)(?=[(\[*$]*[A-Z]\b)"
)
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")


def closing(answer_format: str, answer: str) -> str:
    """The text with which a solution states ``answer``."""
    return answer if answer_format == PLAIN else CLOSINGS[answer_format].format(answer)


def concluded(steps: str, last_line: str) -> str:
    """A solution: the steps, and the line that states its answer, once."""
    steps = steps.strip().removesuffix(last_line).rstrip()
    return f"{steps}\n{last_line}" if steps else last_line


# ---- where an answer is stated


def _statements(text: str, mark: re.Pattern[str]) -> Iterator[Statement]:
    """The statements of a text, in order."""
    marks = list(mark.finditer(text))
    for index, found in enumerate(marks):
        start = found.end()
        if found[0].endswith("{"):
            end = _closing_brace(text, start)
            stated = text[start:end] if end >= 0 else ""
            closed = end >= 0 and text.find("\n", end) >= 0
        else:
            limit = marks[index + 1].start() if index + 1 < len(marks) else len(text)
            line_end = text.find("\n", start, limit)
            end = line_end if line_end >= 0 else limit
            stated, closed = text[start:end], line_end >= 0
        hard = found[0].endswith(("{", "#"))
        if not hard:
            stated = _SENTENCE_END.split(stated, maxsplit=1)[0].rstrip(" *")
        line = text.rfind("\n", 0, found.start()) + 1
        sentence = not hard and text[line : found.end()].strip().lower().startswith("the answer is")
        yield Statement(stated.strip(), hard, sentence, closed)


def _closing_brace(text: str, start: int) -> int:
    """The place of the brace that closes one opened just before ``start``; -1 where there is none near."""
    depth, place = 1, start
    while place < min(len(text), start + LONGEST_BOX):
        if text[place] == "\\":
            place += 1  # an escaped brace is no bracket
        elif text[place] in "{}":
            depth += 1 if text[place] == "{" else -1
            if depth == 0:
                return place
        place += 1
    return -1


def _last(text: str, mark: re.Pattern[str], read: Callable[[str], T | None]) -> T | None:
    """What the last statement says; without a statement what the text itself says; None if neither can be
    read.
    """
    for stated in reversed(list(_statements(text, mark))):
        value = read(stated.text)
        if value is not None or stated.hard:
            return value
    return read(text.strip())


def _states(text: str, mark: re.Pattern[str], read: Callable[[str], object], sentence: bool) -> bool:
    """Whether a closed and readable statement is there, by a hard mark or, with ``sentence``, a sentence."""
    told = "####" in text or "boxed" in text or (sentence and "he answer is" in text)
    if not told or "\n" not in text:
        return False  # nearly always; the rest is asked for a few tokens of an answer only
    return any(
        stated.closed and (stated.hard or (sentence and stated.sentence)) and read(stated.text) is not None
        for stated in _statements(text, mark)
    )


# ---- numbers

_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_WHOLE}(?:\.[0-9]+)?|\.[0-9]+)"
_NUMBER = re.compile(
    rf"""(?P<sign>[-+]?)\s*(?:[$€£¥₹]\s*(?P<inner>[-+]?))?
    (?: (?:(?P<whole>{_WHOLE})\s+)? (?P<over>{_WHOLE})\s*/\s*(?P<under>{_WHOLE})
      | (?P<latex_whole>{_WHOLE})?\s*
        \\frac\s*\{{(?P<latex_over>-?{_WHOLE})\}}\s*\{{(?P<latex_under>{_WHOLE})\}}
      | (?P<decimal>{_DECIMAL})
        (?: [eE](?P<e>[-+]?[0-9]{{1,3}})
          | \s*[\u00d7x*]\s*10\s*(?:\^|\*\*)\s*\{{?(?P<power>[-+]?[0-9]{{1,3}})\}}?)?
    )(?P<unit>.*)""",
    re.VERBOSE,
)
_NAMED = re.compile(r"[A-Za-z]\w{0,9}\s*=\s*(?=[^=])")
_UNIT_WORD = r"[A-Za-zµ]+(?:\^\{?[23]\}?|[²³])?"
_UNIT = re.compile(
    rf"\s*[%°$€£¢]?\s*(?:(?:{_UNIT_WORD})(?:\s*/\s*{_UNIT_WORD})?(?:[\s-]+{_UNIT_WORD}(?:\s*/\s*{_UNIT_WORD})?){{0,2}})?"
)
# Words after a number that make it another number, or leave open which one is meant.
_NO_UNITS = re.compile(
    r"(?i)\b(?:and|as|because|but|except|for|from|if|not|or|over|through|to|unless|when|divided|minus|plus|times"
    r"|squared|cubed|power|mod|pi|sqrt|root|dozens?|hundreds?|thousands?|[mbt]r?illions?|half|halves"
    r"|(?:third|quarter|fourth|fifth|tenth|hundredth)s?)\b"
)
_ONE_LETTER_UNITS = set("mghslLWV")  # any other letter may be a variable, or short for thousands
_REWRITTEN = (
    (re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s*([0-9])\s*([0-9])(?![0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,!;:]|\\(?:left|right)(?![A-Za-z])"), ""),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "\u00d7"),
    (re.compile(r"\^\s*\{?\\circ\}?"), "°"),
    (re.compile(r"[\u2212\u2013]"), "-"),
)
_WRAPPING = (("**", "**"), ("$$", "$$"), ("\\(", "\\)"), ("\\[", "\\]"), ("$", "$"), ("`", "`"), ('"', '"'))


def unwrapped(text: str) -> str:
    """The text without the marks around it: bold, dollars of mathematics, quotes, and a full stop."""
    text = text.strip().rstrip(".,;")
    for before, after in _WRAPPING:
        if len(text) > len(before) + len(after) and text.startswith(before) and text.endswith(after):
            text = text[len(before) : -len(after)].strip().rstrip(".,;")
    return text.strip()


def plain_latex(text: str) -> str:
    """The unwrapped text with LaTeX's ways to write plain numbers and words rewritten plainly."""
    text = unwrapped(text)
    for pattern, plain in _REWRITTEN:
        text = pattern.sub(plain, text)
    return text.strip().rstrip(".,;")


def read_number(text: str, units: bool = True) -> Fraction | None:
    """The number that is all a text says, exactly; None if it says anything else.

    Read are whole numbers with or without commas, decimals, scientific notation (1.5e3, 1.5 x 10^3),
    fractions and mixed numbers, plain or LaTeX; before them a sign, a currency, or "x ="; after them, with
    ``units``, a percent sign and up to three words. 50% is 50, not 1/2. "5 or 6", "5 million" and "1,23" are
    refused.
    """
    if len(text) > 3 * LONGEST_NUMBER:
        return None
    text = plain_latex(text)
    named = _NAMED.match(text)
    found = _NUMBER.fullmatch(text, named.end() if named else 0)
    if found is None or found.end() - found.start() > LONGEST_NUMBER or not _is_unit(found["unit"], units):
        return None
    if found["sign"] and found["inner"]:
        return None
    sign = -1 if "-" in (found["sign"], found["inner"]) else 1
    if found["decimal"]:
        scale = int(found["e"] or found["power"] or 0)
        return sign * Fraction(found["decimal"].replace(",", "")) * Fraction(10) ** scale
    over, under = (
        _whole(found["over"] or found["latex_over"]),
        _whole(found["under"] or found["latex_under"]),
    )
    whole = _whole(found["whole"] or found["latex_whole"] or "0")
    if under == 0 or (over < 0 and whole):
        return None
    return sign * (whole + Fraction(over, under))


def _whole(digits: str) -> int:
    return int(digits.replace(",", ""))


def _is_unit(text: str, allowed: bool) -> bool:
    if not text.strip():
        return True
    if not allowed:
        return False
    letters = set(re.findall(r"\b[A-Za-z]\b", text))
    return _UNIT.fullmatch(text) is not None and letters <= _ONE_LETTER_UNITS and not _NO_UNITS.search(text)


def final_number(text: str) -> Fraction | None:
    """The number a solution states as its final answer, or None."""
    return _last(text, _VALUE_MARK, read_number)


def states_number(text: str, sentence: bool = False) -> bool:
    """Whether a line that has ended states one by a hard mark or, with ``sentence``, by a sentence."""
    return _states(text, _VALUE_MARK, read_number, sentence)


# ---- letters

_LETTER = re.compile(r"[(\[{]?\s*([A-Za-z])\s*(?:[)\]}.:]+\s*(.*))?")


def read_letter(text: str, letters: str = "ABCDE") -> str | None:
    """The letter, one of ``letters``, that a text names: "B", "(B)", "B) 6000"; None for "B or C" and prose.

    Upper case is given back.
    """
    found = _LETTER.fullmatch(plain_latex(text).strip("* "))
    if found is None or found[1].upper() not in letters:
        return None
    rest = found[2] or ""
    return None if re.search(rf"\b[{letters}]\b", rest) else found[1].upper()


def final_letter(text: str, letters: str = "ABCDE") -> str | None:
    """The letter a solution states as its final answer, or None. Soft marks count before a capital only."""
    return _last(text, _LETTER_MARK, lambda stated: read_letter(stated, letters))


def states_letter(text: str, letters: str = "ABCDE", sentence: bool = False) -> bool:
    """Whether a line that has ended states one by a hard mark or, with ``sentence``, by a sentence."""
    return _states(text, _LETTER_MARK, lambda stated: read_letter(stated, letters), sentence)


# ---- any text


def final_text(text: str) -> str:
    """What a solution states as its final answer, as it is written; the whole text where no mark is."""
    return _last(text, _VALUE_MARK, lambda stated: stated or None) or ""


def states_text(text: str, sentence: bool = False) -> bool:
    """Whether a line that has ended states something by a hard mark or, with ``sentence``, by a sentence."""
    return _states(text, _VALUE_MARK, lambda stated: stated or None, sentence)
