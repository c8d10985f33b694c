"""Sampled continuations of states to their end, a cheap second opinion on what a state is worth.

Many continuations grow in one batch, each with noise of its own, so that what is sampled for one does not
depend on the others. It does not verify answers and keeps no texts: callbacks do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from tokenzero.policy.engine import Engine, Ids, Step

Draw = Callable[[Ids], npt.NDArray[np.float32]]
"""Continuations i64 [L] -> standard Gumbel noise f32 [L, V] for their next token."""

Stop = Callable[[Ids, Ids], npt.NDArray[np.bool_]]
"""(continuations i64 [L], next token of each i64 [L]) -> bool [L], whether the token ended it."""


def play_out(engine: Engine, start: Step, mask: torch.Tensor, draw: Draw, stop: Stop) -> Ids:
    """Sample one continuation of each state of ``start`` by the Gumbel-max trick until ``stop`` ends it.

    ``mask`` f32 [V] is added to the logits. Returns how many tokens were forwarded for each, i64 [L]: all but
    the one that ended it. States made here are released.
    """
    live = np.arange(len(start.states))
    states, logits = start.states, start.logits
    forwarded = np.zeros(len(live), np.int64)
    made: list[Ids] = []
    try:
        while live.size:
            scores = (logits + mask).cpu().numpy() + draw(live)
            chosen = np.asarray(scores.argmax(axis=-1), np.int64)
            going = ~stop(live, chosen)
            live = live[going]
            if live.size:
                step = engine.extend(states[going], chosen[going])
                states, logits = step.states, step.logits
                made.append(states)
                forwarded[live] += 1
    finally:
        for created in reversed(made):
            engine.release(created)
    return forwarded
