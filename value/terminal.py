"""When is a partial answer finished? Detectors that say so from the texts alone, one by one and combined.

No detector sees the gold reference: `finished` takes the prompt and the partial answer, because search asks
it at test time too. Where an answer ends by its likeness to a text, that text is a public reference, a
function of the prompt (`terminal_text`). A detector says that an answer is over, not that it is right; what a
task's own rules finish stays with `Task.verdict`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from tokenzero.mcts.errors import InputError
from tokenzero.value.row_failures import ask_apart

Flags = NDArray[np.bool_]
Probability = Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]]
Mode = Literal["any", "all"]


class Detector(Protocol):
    """finished(prompt, partial) -> bool, and finished_batch, the same for L rows at once."""

    @property
    def name(self) -> str: ...

    def finished(self, prompt: str, partial: str) -> bool: ...

    def finished_batch(self, prompts: Sequence[str], partials: Sequence[str]) -> Flags: ...


@dataclass(frozen=True)
class TextDetector:
    """A detector that is a function of one row: predicate(prompt, partial) -> bool."""

    name: str
    predicate: Callable[[str, str], bool]

    def finished(self, prompt: str, partial: str) -> bool:
        """What the predicate says."""
        return bool(self.predicate(prompt, partial))

    def finished_batch(self, prompts: Sequence[str], partials: Sequence[str]) -> Flags:
        """bool [L]. Raises InputError when the two lists differ in length."""
        _check_lengths(prompts, partials)
        rows = zip(prompts, partials, strict=True)
        return np.array([self.finished(*row) for row in rows], dtype=np.bool_)


@dataclass(frozen=True)
class ModelDetector:
    """Finished where a model finds that likely enough: probability(prompts, partials) >= threshold.

    probability: f64 [L] in [0, 1], that the answer is complete; see `terminal_model.LabelProbability`.
    Raises InputError for a threshold outside (0, 1].
    """

    name: str
    probability: Probability
    threshold: float = 0.5

    def __post_init__(self) -> None:
        check_threshold(self.name, self.threshold)

    def finished(self, prompt: str, partial: str) -> bool:
        """`finished_batch` of one row."""
        return bool(self.finished_batch([prompt], [partial])[0])

    def finished_batch(self, prompts: Sequence[str], partials: Sequence[str]) -> Flags:
        """bool [L]. Raises InputError unless the model gives one probability for each row."""
        _check_lengths(prompts, partials)
        found = np.asarray(self.probability(prompts, partials), dtype=np.float64)
        inside = (found >= 0.0) & (found <= 1.0)  # False for NaN
        if found.shape != (len(partials),) or not inside.all():
            raise InputError(
                f"detector {self.name!r} got {found.tolist()} for {len(partials)} rows; "
                "the model must give one probability in [0, 1] each"
            )
        flags: Flags = found >= self.threshold
        return flags


@dataclass(frozen=True)
class Detections:
    """finished bool [L], and by name what each detector said, bool [L]."""

    finished: Flags
    parts: dict[str, Flags]

    def spoke(self, row: int) -> tuple[str, ...]:
        """Names of the detectors that hold the answer of that row finished, in their order."""
        return tuple(name for name, flags in self.parts.items() if flags[row])


class CombinedDetector:
    """Finished when any, or when all, of its detectors say so; itself a detector, so combinations nest.

    A detector that raises on a row says "not finished" there and is counted in `failures_by_detector`; the
    others still speak. Raises InputError for an empty or doubly named set of detectors and another mode.
    """

    def __init__(self, detectors: Sequence[Detector], mode: Mode = "any", name: str = "") -> None:
        if mode not in get_args(Mode):
            raise InputError(f"detectors are combined by {mode!r}; use any or all")
        if not detectors:
            raise InputError("a combination needs at least one detector; leave it out instead")
        names = [detector.name for detector in detectors]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise InputError(f"detector {twice[0]!r} is given twice; name each detector once")
        self.detectors = tuple(detectors)
        self.mode = mode
        self.name = name or mode
        self.failures_by_detector: Counter[str] = Counter()

    @property
    def failures(self) -> int:
        """Rows on which a detector raised, over all detectors of this combination."""
        return self.failures_by_detector.total()

    def finished(self, prompt: str, partial: str) -> bool:
        """`finished_batch` of one row."""
        return bool(self.finished_batch([prompt], [partial])[0])

    def finished_batch(self, prompts: Sequence[str], partials: Sequence[str]) -> Flags:
        """bool [L], as `detect` finds; rows that earlier detectors have settled are not shown to later ones.

        So put the cheap ones first. Raises InputError when the two lists differ in length.
        """
        _check_lengths(prompts, partials)
        settling = self.mode == "any"  # the answer that settles a row
        flags = np.full(len(partials), not settling)
        for detector in self.detectors:
            open_rows = np.flatnonzero(flags != settling).tolist()
            if not open_rows:
                break
            flags[open_rows] = self._ask(detector, prompts, partials, open_rows)
        return flags

    def detect(self, prompts: Sequence[str], partials: Sequence[str]) -> Detections:
        """Every detector's word on all L rows. Raises InputError when the two lists differ in length."""
        _check_lengths(prompts, partials)
        rows = range(len(partials))
        parts = {detector.name: self._ask(detector, prompts, partials, rows) for detector in self.detectors}
        stacked = np.stack(list(parts.values()))
        combine = np.logical_or if self.mode == "any" else np.logical_and
        flags: Flags = combine.reduce(stacked, axis=0)
        return Detections(flags, parts)

    def _ask(
        self, detector: Detector, prompts: Sequence[str], partials: Sequence[str], rows: Sequence[int]
    ) -> Flags:
        def ask(some: Sequence[int]) -> Flags:
            return detector.finished_batch([prompts[row] for row in some], [partials[row] for row in some])

        def failed(row: int) -> bool:
            self.failures_by_detector[detector.name] += 1
            return False

        return ask_apart(ask, rows, failed) if rows else np.zeros(0, dtype=np.bool_)


def check_threshold(name: str, threshold: float) -> None:
    """Raise InputError unless the threshold of detector `name` is above 0 and at most 1."""
    if not 0.0 < threshold <= 1.0:
        raise InputError(
            f"the threshold of detector {name!r} is {threshold}; give a number above 0, at most 1"
        )


def _check_lengths(prompts: Sequence[str], partials: Sequence[str]) -> None:
    if len(prompts) != len(partials):
        raise InputError(f"a detector got {len(prompts)} prompts and {len(partials)} partials: give one each")
