"""Beam search as a method of answering.

The beams themselves grow in ``policy.decoding``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.policy.decoding import Beam, End, beam
from tokenzero.policy.engine import Step
from tokenzero.selfplay.evaluator import Parts
from tokenzero.selfplay.methods.samples import Answer, Decoder, SampledGame


class BeamSearch(Decoder):
    """The answer with the highest mean log-probability per token among ``width`` beams.

    A public verdict ends the search at a verified answer and drops beams that can no longer become legal.
    Raises InputError for ``width`` below 1.
    """

    def __init__(self, parts: Parts, width: int) -> None:
        super().__init__(parts, "beam")
        if width < 1:
            raise InputError(f"n is {width}; give at least 1 beam")
        self._width = width

    def _answer(self, games: Sequence[SampledGame], start: Step, rng: np.random.Generator) -> None:
        parts = self._parts
        verdicts: dict[tuple[int, tuple[int, ...]], float | None] = {}

        def judge(row: int, tokens: list[int]) -> End:
            ended, score = self._verdict(games[row].problem, parts.pieces.text(tokens), tokens[-1])
            verdicts[row, tuple(tokens)] = score
            if not ended:
                return "going"
            if score is None:
                return "ended"
            return "solved" if score == 1.0 else "refused"

        limit = parts.task.max_answer_tokens
        rows, forwarded = beam(
            parts.engine, start, self._width, judge, banned=self._banned, max_new_tokens=limit
        )
        for row, (game, beams) in enumerate(zip(games, rows, strict=True)):
            game.forwarded += forwarded[row]
            game.answers = [self._read(b, verdicts[row, tuple(b.tokens)]) for b in beams]
            game.depth = max(len(b.tokens) for b in beams)
            game.give(game.answers[0])

    def _read(self, found: Beam, verdict: float | None) -> Answer:
        return Answer(
            found.tokens, self._parts.pieces.text(found.tokens).strip(), found.log_probability, verdict
        )
