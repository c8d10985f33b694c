"""How a run goes on after promotions, refusals and alarms."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tokenzero.selfplay.course import Course
from tokenzero.selfplay.health import ACTIONS, HealthConfig

HEALTH = HealthConfig(entropy_bonus=0.25, lr_factor=0.5)


def test_a_promoted_candidate_plays_and_learns_on() -> None:
    assert Course().after(1, True, (), HEALTH, None) == Course(True, incumbent=1, learner_from=1)
    assert Course(False, 1, 3, refused=2).after(4, True, (), HEALTH, 3) == Course(True, 4, 4)


def test_the_incumbent_plays_on_and_the_learner_continues_or_is_reset() -> None:
    first = Course(True, 1, 1).after(2, False, (), HEALTH, 2)
    assert first == Course(False, incumbent=1, learner_from=2, refused=1)
    assert first.after(3, False, (), HEALTH, 2) == Course(False, incumbent=1, learner_from=1, refused=0)
    assert first.after(3, False, (), HEALTH, None) == Course(False, incumbent=1, learner_from=3, refused=2)


def test_alarms_have_their_consequences_once_each_and_for_good() -> None:
    course = Course(True, 1, 1).after(2, True, ("warn", "raise_entropy", "lower_lr"), HEALTH, None)
    assert course == Course(True, 2, 2, entropy_bonus=0.25, lr_factor=0.5)
    again = course.after(3, True, ("lower_lr",), HEALTH, None)
    assert again == Course(True, 3, 3, entropy_bonus=0.25, lr_factor=0.25)
    assert again.after(4, True, (), HEALTH, None).lr_factor == 0.25


def test_a_sick_candidate_is_rolled_back_to_the_last_healthy_one_whatever_it_won() -> None:
    healthy = Course(False, incumbent=1, learner_from=3, refused=1)
    sick = healthy.after(4, True, ("roll_back",), HEALTH, None)
    assert sick == Course(False, incumbent=1, learner_from=3, refused=2)
    assert sick.after(5, False, ("roll_back",), HEALTH, None).learner_from == 3
    stopped = healthy.after(4, True, ("stop",), HEALTH, None)
    assert stopped.stopped
    assert (stopped.incumbent, stopped.learner_from) == (1, 3)


@given(
    st.lists(
        st.tuples(st.booleans(), st.sets(st.sampled_from(ACTIONS[1:-1]), max_size=3)), min_size=1, max_size=12
    ),
    st.none() | st.integers(1, 3),
)
def test_the_course_survives_its_record_and_points_at_rounds_that_were(
    rounds: list[tuple[bool, set[str]]], patience: int | None
) -> None:
    course = Course()
    for number, (won, actions) in enumerate(rounds, 1):
        course = course.after(number, won, actions, HEALTH, patience)
        assert Course.of(json.loads(json.dumps(course.as_record()))) == course
        assert 0 <= course.incumbent <= number
        assert 0 <= course.learner_from <= number
        assert course.promoted == (course.incumbent == number)
