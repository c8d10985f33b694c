"""The Game of 24: Countdown with four numbers from 1 to 13, the target 24 and fractions along the way.

Of the 1,820 multisets exactly 1,362 are solvable, and those are the problems. The bound of 312 = 24 * 13
excludes none of them: a value that one more operation with a number up to 13 turns into 24 is never larger,
and neither zero nor negative values are needed. This file holds settings only; the rules are Countdown's.
"""

from __future__ import annotations

from tokenzero.tasks.countdown_problems import CountdownConfig

GAME24 = CountdownConfig(
    numbers=4,
    low=1,
    high=13,
    target_low=24,
    target_high=24,
    bound=312,
    equals=True,
    granularity="characters",
    fractions=True,
    draw="uniform",
    train=1062,
    validation=100,
    test=200,
)
