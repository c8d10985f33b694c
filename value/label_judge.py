"""A local language model as judge: which label is likeliest after the filled template?

Nothing is generated and nothing is parsed. A label's score is the log-probability of its tokens, summed; of
labels with one meaning the probabilities add up. The model is forwarded through an engine of policy/, so that
what the prompts of one batch have in common is forwarded once. It does not remember verdicts
(value/cached_judge.py) and trains nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.value.judge import Verdicts, fingerprint, paired
from tokenzero.value.judge_template import JudgeTemplate, template_or_default

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from tokenzero.policy.engine import Engine
    from tokenzero.policy.student import Student

LABELS: Mapping[str, int] = {" good": 1, " bad": -1, " unsure": 0}
"""The default labels and what they mean. A leading space is part of the word for most tokenizers."""


class LabelJudge:
    """The verdict whose labels are likeliest, when they lead the next verdict's by `margin` nats; else 0.

    student: any causal LM and its tokenizer. template: None for the default of value/judge_template.py.
    labels: text -> -1, 0 or 1; at least two different verdicts. constitution: its text, "" for none. engine:
    None opens one. rows: pairs forwarded together.

    Texts of prompts and answers cannot spell control tokens: only the template's own words can. A pair that
    the tokenizer has no tokens for, that does not fit into the model, or on which the model fails, is 0 and
    counted in `failures`. `tokens` counts what was forwarded.

    Raises InputError for a bad template, bad labels or a negative margin.
    """

    def __init__(
        self,
        student: Student,
        *,
        template: str | JudgeTemplate | None = None,
        labels: Mapping[str, int] = LABELS,
        constitution: str = "",
        margin: float = 0.0,
        engine: Engine | None = None,
        rows: int = 64,
        name: str = "model",
    ) -> None:
        if isinstance(template, JudgeTemplate):
            template = template.text
        self.template = template_or_default(template, constitution)
        self.name = name
        self.labels = check_labels(labels)
        self.margin = check_margin(margin)
        if rows < 1:
            raise InputError(f"label judge rows is {rows}: use 1 or more")
        self.failures = 0
        self.tokens = 0
        self._student = student
        self._rows = rows
        if engine is None:
            from tokenzero.policy.tiers import open_engine

            engine = open_engine(student)
        self._engine = engine
        self._reader = _Reader(student.tokenizer, self.template)
        self._codes = [self._reader.label(label) for label in self.labels]
        _refuse_ambiguous(list(self.labels), self._codes)
        # Every beginning of a label with something after it, shorter ones first: what must be forwarded.
        self._stems = sorted({code[:n] for code in self._codes for n in range(1, len(code))}, key=_by_length)
        self._weights_version = -1
        self._weights_hash = ""

    @property
    def version(self) -> str:
        """Hash of the template, labels, margin, tokenizer and weights as they are now."""
        if self._weights_version != self._student.version:
            self._weights_version = self._student.version
            self._weights_hash = weights_fingerprint(self._student)
        settings = (self.template.text, self.template.constitution, list(self.labels.items()), self.margin)
        return fingerprint("model", *settings, self._weights_hash)

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> Verdicts:
        """int8 [L]. Raises InputError when the two lists differ in length."""
        scores = self.scores(prompts, partials)
        verdicts = np.array(sorted(set(self.labels.values())), dtype=np.int8)
        meaning = np.array(list(self.labels.values()))
        with np.errstate(invalid="ignore"):  # rows that failed are NaN, and NaN leads by no margin
            chances = [np.logaddexp.reduce(scores[:, meaning == verdict], axis=1) for verdict in verdicts]
            ranked = np.sort(np.stack(chances, axis=1), axis=1)
            lead = ranked[:, -1] - ranked[:, -2]
        best = verdicts[np.argmax(chances, axis=0)]
        return np.where((lead >= self.margin) & (lead > 0), best, 0).astype(np.int8)

    def scores(self, prompts: Sequence[str], partials: Sequence[str]) -> NDArray[np.float64]:
        """Log-probability of each label after each filled template, f64 [L, number of labels], nats.

        Rows that failed are NaN.
        """
        pairs = paired(prompts, partials)
        scores = np.full((len(pairs), len(self.labels)), np.nan)
        read: list[tuple[int, list[int]]] = []
        for row, (prompt, partial) in enumerate(pairs):
            ids = self._read(prompt, partial)
            if ids is not None:
                read.append((row, ids))
        for start in range(0, len(read), self._rows):
            part = read[start : start + self._rows]
            scores[[row for row, _ in part]] = self._safely([ids for _, ids in part])
        self.failures += int(np.isnan(scores).any(axis=1).sum())
        return scores

    def _read(self, prompt: str, partial: str) -> list[int] | None:
        """Token ids of a filled template; None when it cannot be encoded or does not fit."""
        try:
            ids = self._reader.encode(prompt, partial)
        # A tokenizer is other people's code: lone surrogates alone raise two kinds of error.
        except Exception:  # noqa: BLE001
            return None
        longest = max(1, max(len(code) for code in self._codes) - 1)
        return ids if ids and len(ids) + longest <= self._student.max_length else None

    def _safely(self, sequences: list[list[int]]) -> NDArray[np.float64]:
        """Scores of a batch; of a batch that fails, each sequence alone, so that one cannot fail the rest."""
        before = self._forwarded
        try:
            scores = self._forward(sequences)
        # Out of memory, a cap of the engine, a fault of the model: the run must go on without the verdict.
        except Exception:  # noqa: BLE001
            scores = np.full((len(sequences), len(self.labels)), np.nan)
            if len(sequences) > 1:
                self.tokens += self._forwarded - before
                return np.concatenate([self._safely([sequence]) for sequence in sequences])
        self.tokens += self._forwarded - before
        return scores

    @property
    def _forwarded(self) -> int:
        return self._engine.ledger.prefill_tokens + self._engine.ledger.decode_tokens

    def _forward(self, sequences: list[list[int]]) -> NDArray[np.float64]:
        """f64 [rows, labels]. Token i of a label is read after its first i tokens, which are forwarded once
        for all labels that share them.
        """
        engine, held = self._engine, []
        try:
            step = engine.prefill(sequences)
            held.append(step.states)
            states: dict[tuple[int, ...], NDArray[np.int64]] = {(): step.states}
            after: dict[tuple[int, ...], dict[int, NDArray[np.float64]]] = {
                (): self._log_probabilities(step.logits, ())
            }
            for stem in self._stems:
                last = np.full(len(sequences), stem[-1], np.int64)
                step = engine.extend(states[stem[:-1]], last)
                held.append(step.states)
                states[stem] = step.states
                after[stem] = self._log_probabilities(step.logits, stem)
        finally:
            for handles in held:
                engine.release(handles)
        scores = np.zeros((len(sequences), len(self._codes)))
        for column, code in enumerate(self._codes):
            for n, token in enumerate(code):
                scores[:, column] += after[code[:n]][token]
        return scores

    def _log_probabilities(
        self, logits: torch.Tensor, stem: tuple[int, ...]
    ) -> dict[int, NDArray[np.float64]]:
        """Of the tokens that follow `stem` in some label: f64 [rows] each."""
        here = {code[len(stem)] for code in self._codes if code[: len(stem)] == stem}
        total = torch.logsumexp(logits.double(), dim=-1)
        return {token: (logits[:, token].double() - total).cpu().numpy() for token in sorted(here)}


def check_labels(labels: Mapping[str, int]) -> dict[str, int]:
    """A copy of usable labels. Raises InputError for an empty text, another verdict than -1, 0 and 1, and
    labels that all mean the same.
    """
    for label, verdict in labels.items():
        if not label.strip():
            raise InputError(f"judge label {label!r} is empty; give a word")
        if verdict not in (-1, 0, 1):
            raise InputError(f"judge label {label!r} means {verdict}; use -1, 0 or 1")
    if len(set(labels.values())) < 2:
        raise InputError(f"judge labels {dict(labels)} leave no choice; give two that mean different things")
    return dict(labels)


def check_margin(margin: float) -> float:
    """`margin` itself. Raises InputError unless it is 0 or more, and finite."""
    if not 0.0 <= margin < float("inf"):
        raise InputError(f"judge margin is {margin}: give 0 or more nats")
    return margin


class _Reader:
    """Template, prompt and answer as token ids.

    The template's own control tokens cut it into stretches. A stretch is encoded in one go, as the model is
    used to, with control tokens switched off: what texts spell stays text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, template: JudgeTemplate) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._special = {str(t): i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        cut = re.compile("(" + "|".join(re.escape(t) for t in sorted(self._special, key=_longest)) + ")")
        self._pieces: list[tuple[str, str, int | None]] = []
        for text, field in template.pieces:
            for part in cut.split(text) if text and self._special else [text]:
                if part or field:
                    self._pieces.append((part, field, self._special.get(part)))
        opening = list(tokenizer("")["input_ids"])[:1]
        self._opening = opening if opening == [tokenizer.bos_token_id] else []

    def encode(self, prompt: str, answer: str) -> list[int]:
        """Raises InputError for a symbol outside the vocabulary."""
        values = {"prompt": prompt, "answer": answer, "constitution": self._template.constitution}
        ids: list[int] = []
        stretch = ""
        for text, field, special in self._pieces:
            if special is None:
                stretch += values[field] if field else text
            else:
                ids += [*self._plain(stretch), special]
                stretch = ""
        ids += self._plain(stretch)
        return ids if ids[:1] == self._opening else self._opening + ids

    def label(self, label: str) -> tuple[int, ...]:
        """What a label adds to the tokens of the template's ending; its own tokens where the two would
        merge. Raises InputError for a symbol outside the vocabulary.
        """
        before = self._pieces[-1][0] if self._pieces[-1][2] is None else ""
        head, whole = self._plain(before), self._plain(before + label)
        if whole[: len(head)] == head and len(whole) > len(head):
            return tuple(whole[len(head) :])
        return tuple(self._plain(label))

    def _plain(self, text: str) -> list[int]:
        if not text:
            return []
        encoded = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        ids: list[int] = list(encoded["input_ids"])
        if self._tokenizer.unk_token_id in ids:
            raise InputError(
                f"the judge's tokenizer has no token for a symbol of {text[:40]!r}; use another model or text"
            )
        return ids


def _refuse_ambiguous(labels: Sequence[str], codes: Sequence[tuple[int, ...]]) -> None:
    for first, code in zip(labels, codes, strict=True):
        for second, other in zip(labels, codes, strict=True):
            if first != second and other[: len(code)] == code:
                raise InputError(
                    f"judge label {second!r} begins with the tokens of {first!r}, so it could never win; "
                    "choose labels that differ from their first letter on"
                )


def weights_fingerprint(student: Student) -> str:
    """16 hexadecimal digits over a model's settings, tokenizer and weights, wherever they lie."""
    settings = student.model.config.to_dict()
    tokenizer = json.loads(student.tokenizer.backend_tokenizer.to_str())
    # Where it came from, what saving adds, and what the last call of the tokenizer asked for.
    for record in (settings, tokenizer):
        for passing in ("_name_or_path", "transformers_version", "architectures", "padding", "truncation"):
            record.pop(passing, None)
    parts = [type(student.model).__name__, settings, tokenizer]
    digest = hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=8)
    for name, weights in sorted(student.model.named_parameters()):
        digest.update(name.encode())
        data = weights.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(data.data)
    return digest.hexdigest()


def _by_length(code: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return len(code), code


def _longest(text: str) -> tuple[int, str]:
    return -len(text), text
