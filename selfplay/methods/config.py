"""Which method answers, with all its options in one flat record: what the command line, a request's
``search`` object and a benchmark say alike.

It builds nothing (see ``build``). An option that the method does not know is an error, not a silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, ClassVar

from tokenzero.mcts.errors import InputError
from tokenzero.policy.sampling import Sampling

SEARCHES = ("puct", "gumbel", "frontier")
DRAWING = ("sample", "best-of-n", "self-consistency")
STEPWISE = ("step-beam", "dvts")
METHODS = ("greedy", "sample", "beam", "best-of-n", "self-consistency", *STEPWISE, *SEARCHES)
CHOOSERS = ("verifier", "value", "judge", "likelihood")
VOTES = ("count", "likelihood", "value")
GRANULARITIES = ("token", "step", "environment")
_RANGES = (
    ("length_penalty", -10.0, 10.0),
    ("diversity", 0.0, 1e6),
    ("min_kld_gain", 0.0, 1e6),
    ("stand_in", -1.0, 1.0),
)


@dataclass(frozen=True)
class MethodConfig:
    """A method of answering and its options; None stands for the method's own default.

    method: one of METHODS. simulations: per move (puct, gumbel) or play-outs per problem (frontier).
    n: samples (sample gives the first), beams (beam, step-beam), or first steps (dvts).
    choose: who picks among the answers of best-of-n: the public "verifier", the "value" of a finished answer,
        the "judge", or its "likelihood"; None takes the verifier where the task has a public one, else
        likelihood. vote: what a ballot of self-consistency weighs.
    length_penalty: a beam's score is its log-probability / length ** length_penalty (Wu et al.,
        arXiv:1609.08144, without the constant); None is 1, the mean per token.
    groups, diversity: diverse beam search (Vijayakumar et al., arXiv:1610.02424): groups of beams, and the
        penalty for each time that an earlier group took the same token at the same step.
    granularity: what an action of a search is: a "token", a "step" (sampled up to ``delimiter``, at most
        ``step_tokens`` tokens) or an "environment" action that the task names. proposals: steps sampled at
        a state, by step-beam, dvts and searches over steps.
    sampling: how tokens are drawn by methods that draw.
    smart_pruning, min_kld_gain: early stop of puct (see ``mcts.SearchConfig``).
    stand_in: where the task has no public verifier frontier search takes finished answers that the judge
        accepts for solutions; without a judge, those whose value is at least this, from -1 to 1. Without
        either it refuses such tasks.

    Raises InputError for an unknown method, a number out of its range, and an option of another method.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    method: str | None = None
    simulations: int | None = None
    n: int | None = None
    choose: str | None = None
    vote: str | None = None
    length_penalty: float | None = None
    groups: int | None = None
    diversity: float | None = None
    granularity: str = "token"
    delimiter: str | None = None
    step_tokens: int | None = None
    proposals: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    smart_pruning: bool | None = None
    min_kld_gain: float | None = None
    stand_in: float | None = None

    def __post_init__(self) -> None:
        if self.method is not None and self.method not in METHODS:
            raise InputError(unknown_method(self.method))
        for name, known in (("choose", CHOOSERS), ("vote", VOTES), ("granularity", GRANULARITIES)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise InputError(f"{name} is {value!r}; choose one of {', '.join(known)}")
        for name, low in (("simulations", 0), ("n", 1), ("groups", 1), ("step_tokens", 1), ("proposals", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise InputError(f"{name} is {value}; give a whole number of at least {low}")
        for name, least, most in _RANGES:
            value = getattr(self, name)
            if value is not None and not least <= value <= most:  # NaN is in no range
                raise InputError(f"{name} is {value}; give a number from {least:g} to {most:g}")
        self._only_known()

    def _only_known(self) -> None:
        if self.granularity != "step" and self.method not in STEPWISE:
            for name in ("delimiter", "step_tokens", "proposals"):
                if getattr(self, name) is not None:
                    raise InputError(
                        f"{name} means nothing at granularity {self.granularity}; leave it out or use "
                        "granularity step"
                    )
        for option in fields(self):
            if option.name == "method" or getattr(self, option.name) == _DEFAULTS[option.name]:
                continue
            users = USERS[option.name]
            if self.method is not None and self.method not in users:
                raise InputError(
                    f"{option.name} means nothing to method {self.method}; leave it out or use "
                    f"{', '.join(users)}"
                )


USERS: dict[str, tuple[str, ...]] = {
    "simulations": SEARCHES,
    "n": (*DRAWING, "beam", *STEPWISE),
    "choose": ("best-of-n",),
    "vote": ("self-consistency",),
    "length_penalty": ("beam",),
    "groups": ("beam",),
    "diversity": ("beam",),
    "granularity": SEARCHES,
    "delimiter": (*STEPWISE, *SEARCHES),
    "step_tokens": (*STEPWISE, *SEARCHES),
    "proposals": (*STEPWISE, *SEARCHES),
    "sampling": (*DRAWING, *STEPWISE, *SEARCHES),
    "smart_pruning": ("puct",),
    "min_kld_gain": ("puct",),
    "stand_in": ("frontier",),
}
"""Which methods read an option."""

_DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(MethodConfig)} | {"sampling": Sampling()}


def unknown_method(name: str) -> str:
    """What to say of a method that does not exist."""
    near = get_close_matches(name, METHODS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"method {name!r} does not exist; {hint}there are {', '.join(METHODS)}"
