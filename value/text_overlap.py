"""BLEU and ROUGE between one answer and one reference, as fractions of 1.

The numbers are those of the packages sacrebleu and rouge-score, digit for digit; nothing is computed here. It
does not average over a corpus: the corpus BLEU of papers is not the mean of these.
"""

from __future__ import annotations

from typing import Literal, get_args

from tokenzero.mcts.errors import InputError
from tokenzero.value.rewards import Measure

BleuTokenizer = Literal["13a", "intl", "char", "none"]
RougeKind = Literal["rouge1", "rouge2", "rougeL"]


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
