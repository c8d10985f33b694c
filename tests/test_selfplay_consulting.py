"""Teachers beside the student: asked when a state proved worth it, and credited for what came of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from test_selfplay_evaluator import EOS, A, Echo, expand, make_parts, started, voice
from tiny import Secret

from tokenzero.mcts import SearchConfig
from tokenzero.selfplay.listener import Silence
from tokenzero.selfplay.play_config import PlayConfig
from tokenzero.selfplay.play_stage import play_round
from tokenzero.teachers import GLOBAL, Proposal


def test_lazy_teachers_are_asked_at_the_prompt_and_when_a_state_proved_worth_it() -> None:
    echo = Echo()
    parts = make_parts(Secret(), ensemble=voice([echo], beta=0.5, visits=3))
    evaluator, roots = started(parts, ["abc"], candidates=4)
    child = expand(evaluator, int(roots[0]), A)
    head = parts.student.tokenizer("abc").input_ids
    assert echo.asked == [head]
    assert (evaluator.table.responsibility[child, :, 0] == 1.0).all()
    before = evaluator.table.actions[child].copy()
    grandchild = expand(evaluator, child, int(before[1]))
    told = evaluator.revise(np.asarray([child]))
    assert echo.asked == [head, [*head, A]]
    assert told.actions[0, 1] == before[1], "an expanded child keeps its slot"
    assert evaluator.table.token[grandchild] == before[1]
    assert A in told.actions[0], "what the teacher proposes is there"
    slot = told.actions[0].tolist().index(A)
    assert evaluator.table.responsibility[child, slot, 1] > 0
    evaluator.revise(np.asarray([child]))
    assert len(echo.asked) == 2, "a state is asked about once"


@pytest.mark.parametrize("method", ["puct", "frontier"])
def test_a_round_credits_what_proposals_led_to(method: str) -> None:
    class Knows:
        """Mirror's right answers, or their opposite."""

        def __init__(self, name: str, right: bool) -> None:
            self.name, self.right = name, right

        def propose(
            self, sequences: Sequence[Sequence[int]], k: int, prompt_lens: Sequence[int] | None = None
        ) -> Proposal:
            actions = np.full((len(sequences), k), -1, np.int64)
            for row, (sequence, length) in enumerate(zip(sequences, prompt_lens or [], strict=True)):
                prompt, answer = list(sequence)[:length], list(sequence)[length:]
                wanted = prompt[-1 - len(answer)] if len(answer) < 3 else EOS
                actions[row, 0] = wanted if self.right else (wanted + 1 if wanted < 9 else 4)
            return Proposal(actions, (actions >= 0).astype(np.float32), 0)

    both = voice([Knows("good", True), Knows("bad", False)], beta=0.6, stages=3)
    parts = make_parts(ensemble=both)
    config = SearchConfig(method=method, simulations=30, candidates=6)
    play = PlayConfig(games=40, search=config, targets="tree" if method == "frontier" else "path")
    train = parts.task.problems("train")
    played = play_round(parts, parts.task, play, train, np.random.default_rng(0), 1, 7, 0, Silence())
    shares = np.asarray([share for e in played.episodes for share in e.attribution])
    assert shares.shape[1] == 3
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-5)
    won = [share for e in played.episodes if e.outcome > 0 for share in e.attribution]
    assert np.mean(won, axis=0)[1] > 2 * np.mean(won, axis=0)[2], "right answers came from the good one"
    credits = both.credit.credits()
    assert {"/0", "/1", "/2"} >= set(credits) - {GLOBAL}
    for context, credit in credits.items():
        good, bad = credit.worth.tolist()
        assert good > credit.mean > bad, context
