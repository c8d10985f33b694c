"""Signs that a student of the text game collapses: what it promises of next tokens against what comes.

Three kinds, which ``selfplay.health`` compares with their thresholds: calibration (how often the likeliest
token is right, by how likely the student holds it), confidence (mean promise against share kept, entropy,
and how many different tokens are ever expected) and the stability of gradients. Those that need a forward
are cheap enough to be asked within a round, on a few windows of held-out text. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.student import Student
from tokenzero.selfplay.calibration import calibration_error
from tokenzero.selfplay.examiner import alarm_records, without_infinities
from tokenzero.selfplay.health import NOT_FINITE, Alarm, HealthConfig, check
from tokenzero.selfplay.listener import Record

TOKENS = 2_048
"""Tokens in one forward of a probe."""


def promises(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> dict[str, float]:
    """What the likeliest tokens were held for, ``confidence`` [T] in [0, 1], against whether they came,
    ``correct`` [T]:

    ``policy_calibration_error``, the expected calibration error in ten bins; ``confidence``, its mean;
    ``accuracy``; and ``overconfidence``, mean confidence less accuracy, in [-1, 1].

    The calibration error is left out when a confidence is no number, which the mean then says.
    """
    sure, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    measures = {
        "confidence": float(sure.mean()),
        "accuracy": float(right.mean()),
        "overconfidence": float(sure.mean() - right.mean()),
    }
    if np.isfinite(sure).all():
        # Rounding may leave a certain token above 1.
        measures["policy_calibration_error"] = calibration_error(np.minimum(sure, 1.0), right)
    return measures


class Monitor:
    """Asks a student about the same windows of held-out text again and again.

    ``tokens`` i64 or shorter [T]; ``windows`` of ``context`` + 1 of them are taken, evenly spread. Raises
    InputError when there are fewer than that.
    """

    def __init__(
        self, student: Student, tokens: npt.NDArray[np.integer[Any]], context: int, windows: int
    ) -> None:
        last = len(tokens) - context - 1
        if last < 0:
            raise InputError(
                f"the held-out text has {len(tokens)} tokens, a window of context {context} needs "
                f"{context + 1}; raise corpus.validation_share or lower learner.context"
            )
        starts = np.unique(np.linspace(0, last, windows).astype(np.int64))
        rows = starts[:, None] + np.arange(context + 1)
        self._ids = torch.from_numpy(np.asarray(tokens[rows.ravel()], np.int64).reshape(rows.shape))
        self._student = student
        self._rows = max(1, TOKENS // context)

    @torch.inference_mode()
    def __call__(self) -> dict[str, float]:
        """:func:`promises` on the windows, and ``entropy``, mean of the policy's in nats, and
        ``distinct_predictions``, how many different tokens are likeliest anywhere, as a share of the
        different tokens that come.
        """
        parts = [self._ask(ids.to(self._student.device)) for ids in self._ids.split(self._rows)]
        confidence, predicted, entropy = (
            torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)
        )
        truth = self._ids[:, 1:].reshape(-1).numpy()
        return {
            **promises(confidence, predicted == truth),
            "entropy": float(entropy.mean(dtype=np.float64)),
            "distinct_predictions": len(np.unique(predicted)) / len(np.unique(truth)),
        }

    def _ask(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Confidence, likeliest token and entropy after each token but the last of ``ids``, [P] each."""
        logs = self._student.forward(ids[:, :-1], use_cache=False).logits.flatten(0, 1).log_softmax(-1)
        policy = logs.exp()
        confidence, predicted = policy.max(1)
        return confidence, predicted, -torch.where(policy == 0, 0.0, policy * logs).sum(1)


class Watch:
    """One round's monitoring: probes within it, then the round's own measures, and every alarm once, with
    the step at which it was raised first.

    Before the step ``judged_from`` of the run nothing is judged but whether numbers are finite: every student
    begins by expecting the same few tokens. A probe is taken every ``every`` steps (0: never).
    """

    def __init__(
        self, monitor: Monitor, config: HealthConfig, every: int, judged_from: int, first_step: int
    ) -> None:
        self.probes: list[Record] = []
        self._monitor = monitor
        self._config = config
        self._every = every
        self._judged_from = judged_from
        self._first_step = first_step
        self._alarms: dict[str, tuple[Alarm, int]] = {}

    def step(self, step: int) -> None:
        """``step`` steps of the round are done."""
        at = self._first_step + step
        if not self._every or at % self._every:
            return
        measures = self._monitor()
        self.probes.append({"step": at, **without_infinities(measures)})
        self._raise(measures, (), at)

    def close(
        self, measures: Mapping[str, float], history: Sequence[Mapping[str, float | None]], step: int
    ) -> list[tuple[Alarm, int]]:
        """The alarms of the round, in order of their steps: those of its probes and those of ``measures``,
        given the measures of the rounds before.
        """
        finite = [{k: v for k, v in past.items() if v is not None} for past in history]
        self._raise(measures, finite, step)
        return sorted(self._alarms.values(), key=lambda raised: raised[1])

    def _raise(
        self, measures: Mapping[str, float], history: Sequence[Mapping[str, float]], step: int
    ) -> None:
        for alarm in check(measures, history, self._config):
            if step >= self._judged_from or alarm.name == NOT_FINITE:
                self._alarms.setdefault(alarm.name, (alarm, step))


def stepped_alarms(alarms: Sequence[tuple[Alarm, int]]) -> list[Record]:
    """Alarms with their steps, as they are written into a record."""
    records = alarm_records([alarm for alarm, _ in alarms])
    return [{**record, "step": step} for record, (_, step) in zip(records, alarms, strict=True)]
