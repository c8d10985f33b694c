"""Several judges as one: a veto, a majority, or the first that speaks.

A judge speaks when its verdict is not 0. Combinations may be members of combinations. Nothing is remembered
here (value/cached_judge.py), and no judge is weighed by how often it was right (value/agreement.py measures
that).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tokenzero.mcts.errors import InputError
from tokenzero.value.judge import Judge, Verdicts, checked_verdicts, close, fingerprint, paired, tokens_of

WAYS = ("veto", "majority", "first_that_speaks")


class JudgeCombination:
    """One verdict of several judges.

    how: "veto": any -1 rejects, otherwise any +1 accepts. "majority": of those that speak; a tie is 0.
    "first_that_speaks": in the order of `members`; a member is asked only about rows on which all before it
    were silent.

    `verdicts_by_member[name]` counts each member's verdicts, {-1: n, 0: n, 1: n}. `failures` and `tokens` are
    sums over the members. Raises InputError for an unknown way, no members, and two members of one name.
    """

    def __init__(self, how: str, members: Sequence[Judge], *, name: str = "combination") -> None:
        check_way(how)
        if not members:
            raise InputError("a combination of judges needs at least one: leave the judge out instead")
        twice = [name for name, count in Counter(member.name for member in members).items() if count > 1]
        if twice:
            raise InputError(f"two judges are named {twice[0]!r}: give each member a name of its own")
        self.how = how
        self.members = tuple(members)
        self.name = name
        self.verdicts_by_member: dict[str, Counter[int]] = {member.name: Counter() for member in members}

    @property
    def version(self) -> str:
        """Hash of the way and the members' versions."""
        return fingerprint("combination", self.how, [member.version for member in self.members])

    @property
    def failures(self) -> int:
        """All members' failures."""
        return sum(member.failures for member in self.members)

    @property
    def tokens(self) -> int:
        """Tokens that all members forwarded."""
        return sum(tokens_of(member) for member in self.members)

    def close(self) -> None:
        """Close all members."""
        for member in self.members:
            close(member)

    def judge(self, prompts: Sequence[str], partials: Sequence[str]) -> Verdicts:
        """int8 [L]. Raises InputError when the two lists differ in length."""
        pairs = paired(prompts, partials)
        if not pairs:
            return np.zeros(0, np.int8)
        if self.how == "first_that_speaks":
            return self._first(pairs)
        said = np.stack([self._ask(member, pairs) for member in self.members])
        verdicts: Verdicts
        if self.how == "veto":
            verdicts = np.where((said < 0).any(axis=0), -1, said.max(axis=0)).astype(np.int8)
        else:
            verdicts = np.sign(said.sum(axis=0, dtype=np.int64)).astype(np.int8)
        return verdicts

    def _first(self, pairs: list[tuple[str, str]]) -> Verdicts:
        verdicts = np.zeros(len(pairs), np.int8)
        for member in self.members:
            silent = np.flatnonzero(verdicts == 0)
            if not silent.size:
                break
            verdicts[silent] = self._ask(member, [pairs[row] for row in silent.tolist()])
        return verdicts

    def _ask(self, member: Judge, pairs: list[tuple[str, str]]) -> Verdicts:
        raw = member.judge([prompt for prompt, _ in pairs], [partial for _, partial in pairs])
        verdicts = checked_verdicts(raw, len(pairs))
        self.verdicts_by_member[member.name].update(verdicts.tolist())
        return verdicts


def check_way(how: str) -> None:
    """Raises InputError for an unknown way of combining."""
    if how not in WAYS:
        raise InputError(f"judges are combined by {how!r}: choose one of {', '.join(WAYS)}")
