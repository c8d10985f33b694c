"""BLEU and ROUGE between answers and references, one pair at a time and over many.

The numbers are those of the packages sacrebleu and rouge-score, digit for digit; nothing is computed here.
Corpus BLEU is not the mean of the pairs' BLEU: it counts the n-grams of all pairs together.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Literal, NamedTuple, get_args

from tokenzero.mcts.errors import InputError
from tokenzero.value.rewards import Measure

BleuTokenizer = Literal["13a", "intl", "char", "none"]
RougeKind = Literal["rouge1", "rouge2", "rougeL"]


class Overlap(NamedTuple):
    """Of answers with references: ``bleu`` from 0 to 100, ``rouge_l`` from 0 to 1, as the packages do."""

    bleu: float
    rouge_l: float


def corpus_overlap(answers: Sequence[str], references: Sequence[str]) -> Overlap:
    """Over L pairs of texts: sacrebleu.corpus_bleu(answers, [references]).score (Post 2018, arXiv
    1804.08771), and the mean F-measure of rouge-score's rougeL (Lin 2004).

    Raises InputError for no pairs, and for other lengths.
    """
    if not answers or len(answers) != len(references):
        raise InputError(
            f"there are {len(answers)} answers and {len(references)} references; give as many, at least one"
        )
    from sacrebleu import corpus_bleu

    rouge = rouge_measure("rougeL")
    mean = fmean(rouge(answer, reference) for answer, reference in zip(answers, references, strict=True))
    return Overlap(float(corpus_bleu(list(answers), [list(references)]).score), mean)


def bleu_measure(*, lowercase: bool = False, tokenize: BleuTokenizer = "13a") -> Measure:
    """measure(answer, reference) = sacrebleu.sentence_bleu(answer, [reference]).score / 100, at most 1.

    Sentence BLEU with effective order and exponential smoothing, sacrebleu's defaults (Post 2018, arXiv
    1804.08771; smoothing: Chen and Cherry 2014, method 3). sacrebleu gives a perfect match up to
    100.00000000000004, hence the cap. `tokenize`: "13a" for languages with spaces, "char" for those without.
    Raises InputError for another tokenizer.
    """
    if tokenize not in get_args(BleuTokenizer):
        raise InputError(f"bleu tokenize is {tokenize!r}; use one of {', '.join(get_args(BleuTokenizer))}")
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(lowercase=lowercase, tokenize=tokenize, effective_order=True)

    def measure(answer: str, reference: str) -> float:
        return min(1.0, float(scorer.sentence_score(answer, [reference]).score) / 100.0)

    return measure


def rouge_measure(kind: RougeKind, *, stem: bool = False) -> Measure:
    """measure(answer, reference) = the F-measure of rouge-score (Lin 2004); rougeL is its whole-text form.

    rouge-score reads a to z and 0 to 9 only, after lower-casing: texts in other scripts score 0. `stem`:
    Porter stems instead of words. Raises InputError for another kind.
    """
    if kind not in get_args(RougeKind):
        raise InputError(f"rouge kind is {kind!r}; use one of {', '.join(get_args(RougeKind))}")
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], use_stemmer=stem)
    return lambda answer, reference: float(scorer.score(reference, answer)[kind].fmeasure)
