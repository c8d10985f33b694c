"""Which way of forwarding is right for a model: found out by numbers when an engine is opened, never by
names.

A small random tree is grown in the fastest way the model and its device allow; all its logits are compared
with plain forwards of whole sequences, without cache and padding. A way that fails, by numbers or by an
exception, is passed over for the next: tree attention, then gathered keys and values, then forwarding
every prefix again. The limit is set from what changing one ancestor does to the plain forward, so that the
test could have seen a wrong tree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from tokenzero.mcts.errors import InputError
from tokenzero.policy.engine import Engine, Ids, RecomputeEngine
from tokenzero.policy.gather_attention import GatherWay
from tokenzero.policy.key_value_pool import Way
from tokenzero.policy.lean_forward import LeanWay
from tokenzero.policy.student import Student
from tokenzero.policy.tree_attention import DenseAttention, PagedAttention, TreeAttentionWay
from tokenzero.policy.tree_engine import TreeEngine

TIERS = ("tree attention", "gathered keys and values", "recompute")
LIMIT = 1e-4
"""Largest difference of logits allowed in float32, in nats."""
_COARSE = 0.05  # the same for shorter types, as a share of the spread of the logits
_SLOTS = 64


@dataclass(frozen=True)
class EngineConfig:
    """How a model is forwarded.

    lean: allow the lean forward where it is right. memory_mb: most MiB of keys and values, None for as
    many as are asked for. keep_prompts: keep released prompts for later ones that begin alike, while
    nothing needs their room. batch_invariant: have a state's logits come out in the same bits whatever is
    forwarded beside it, where the way that is taken can (see ``is_batch_invariant``); small batches cost a
    little more.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    lean: bool = True
    memory_mb: float | None = None
    keep_prompts: bool = False
    batch_invariant: bool = False

    def __post_init__(self) -> None:
        if self.memory_mb is not None and not self.memory_mb > 0:
            raise InputError(
                f"engine.memory_mb is {self.memory_mb}; give a number above 0, or null for no cap"
            )


@dataclass(frozen=True)
class Finding:
    """What the self-test said of one way: ``error`` is the largest difference of logits, ``limit`` what is
    allowed; ``reason`` why it was passed over, empty if it passed.
    """

    tier: str
    way: str
    error: float
    limit: float
    reason: str


@dataclass(frozen=True)
class Choice:
    """The tier and way chosen for a model, and the findings that led to it, fastest way first."""

    tier: str
    way: str
    findings: tuple[Finding, ...]

    def explain(self) -> str:
        """One line: what was chosen, and why nothing faster was."""
        passed_over = "; ".join(f"not {f.way}: {f.reason}" for f in self.findings if f.reason)
        last = self.findings[-1]
        measured = "" if last.reason else f" (largest difference {last.error:.1e}, limit {last.limit:.1e})"
        return f"{self.way}{measured}" + (f"; {passed_over}" if passed_over else "")


class Probe:
    """A random tree and its plain logits.

    Two prompts with a common beginning are forwarded, then six times three children under random known
    states, so that paths grow to about 14 tokens, or to what the model has positions for.
    """

    def __init__(self, student: Student, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        length = max(1, min(6, student.max_length // 3))
        self._student = student
        self._prompts = rng.integers(0, student.vocab_size, size=(2, length)).tolist()
        self._prompts[1][: length // 2] = self._prompts[0][: length // 2]
        self._steps: list[tuple[Ids, Ids]] = []
        self.sequences = [list(prompt) for prompt in self._prompts]
        for _ in range(6):
            room = [i for i, s in enumerate(self.sequences) if len(s) < student.max_length]
            if not room:
                break
            parents = rng.choice(room[-4:], size=3).astype(np.int64)
            tokens = rng.integers(0, student.vocab_size, size=3)
            self._steps.append((parents, tokens))
            self.sequences += [[*self.sequences[p], int(t)] for p, t in zip(parents, tokens, strict=True)]
        self.logits = torch.stack([self._plain(sequence) for sequence in self.sequences])

    @torch.inference_mode()
    def _plain(self, sequence: list[int]) -> torch.Tensor:
        ids = torch.tensor([sequence], device=self._student.device)
        return self._student.forward(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, -1]

    def limit(self) -> float:
        """Largest difference of logits that can pass: `LIMIT` in float32, less where an ancestor hardly
        matters.
        """
        longest = max(self.sequences, key=len)
        wrong = list(longest)
        wrong[-2] = (wrong[-2] + 1) % self._student.vocab_size
        felt = float((self._plain(longest) - self._plain(wrong)).abs().max())
        spread = float((self.logits - self.logits.mean(dim=1, keepdim=True)).abs().max())
        if next(self._student.model.parameters()).dtype != torch.float32:
            return _COARSE * spread
        return max(min(LIMIT, felt / 20), 2e-6 * spread)  # never below the rounding of float32

    def error(self, engine: Engine) -> float:
        """Largest difference of logits anywhere in the tree."""
        first = engine.prefill(self._prompts)
        states, logits = first.states, [first.logits]
        try:
            for parents, tokens in self._steps:
                step = engine.extend(states[parents], tokens)
                states = np.concatenate([states, step.states])
                logits.append(step.logits)
        finally:
            engine.release(states)
        difference = (torch.cat(logits).float() - self.logits).abs()
        return float(difference.max()) if bool(torch.isfinite(difference).all()) else float("inf")


def choose(
    student: Student, *, lean: bool = True, batch_invariant: bool = False
) -> tuple[Choice, Way | None]:
    """The fastest way that is right for ``student``; None for recomputing. ``lean`` allows the lean
    forward, and ``batch_invariant`` has it keep rows apart to the last bit.
    """
    probe = Probe(student)
    limit = probe.limit()
    findings: list[Finding] = []
    for tier, name, build in _ways(student, lean, batch_invariant):
        try:
            way = build()
            error = probe.error(TreeEngine(student, way, slots=_SLOTS))
            reason = "" if error <= limit else f"logits differ by {error:.1e}, more than {limit:.1e}"
        except Exception as failure:  # noqa: BLE001  a model that was never meant for this may fail in any way
            way, error, reason = None, float("inf"), _first_line(failure)
        findings.append(Finding(tier, name, error, limit, reason))
        if not reason:
            return Choice(tier, name, tuple(findings)), way
    name, padded = "recompute", _padding_is_right(student, probe, limit)
    findings.append(Finding(TIERS[2], name if padded else "recompute without padding", 0.0, limit, ""))
    return Choice(TIERS[2], findings[-1].way, tuple(findings)), None


def _ways(student: Student, lean: bool, invariant: bool) -> list[tuple[str, str, Callable[[], Way]]]:
    """Tier, name and constructor of what this model's type and device allow, fastest first."""
    plain = student.device.type == "cpu" and next(student.model.parameters()).dtype == torch.float32
    attention: Any = PagedAttention if plain else DenseAttention
    ways: list[tuple[str, str, Callable[[], Way]]] = []
    if lean and plain:
        ways.append((TIERS[0], LeanWay.name, lambda: LeanWay(student, _SLOTS, batch_invariant=invariant)))
    ways.append((TIERS[0], attention.name, lambda: TreeAttentionWay(student, attention(), _SLOTS)))
    ways.append((TIERS[1], GatherWay.name, lambda: GatherWay(student, _SLOTS)))
    return ways


def _padding_is_right(student: Student, probe: Probe, limit: float) -> bool:
    try:
        return probe.error(RecomputeEngine(student)) <= limit
    except Exception:  # noqa: BLE001  as above
        return False


def _first_line(failure: Exception) -> str:
    lines = str(failure).strip().splitlines()
    return lines[0] if isinstance(failure, InputError) else f"{type(failure).__name__}: {(lines or [''])[0]}"


def open_engine(student: Student, config: EngineConfig | None = None) -> Engine:
    """An engine for ``student`` in the fastest way that is right for it."""
    config = config or EngineConfig()
    choice, way = choose(student, lean=config.lean, batch_invariant=config.batch_invariant)
    if way is None:
        return RecomputeEngine(student, pad=not choice.way.endswith("without padding"))
    memory = None if config.memory_mb is None else int(config.memory_mb * 2**20)
    return TreeEngine(student, way, memory=memory, keep_prompts=config.keep_prompts)


def is_batch_invariant(engine: Engine, student: Student, seed: int = 0) -> bool:
    """Whether a state's logits and hidden state come out of ``engine`` in the same bits alone and among
    others, tried on batches of 1, 2, 5, 17 and 64 states.
    """
    rng = np.random.default_rng(seed)
    length = max(1, min(5, student.max_length - 1))
    prompts = rng.integers(0, student.vocab_size, size=(64, length)).tolist()
    tokens = rng.integers(0, student.vocab_size, size=64)
    together = engine.prefill(prompts)
    below = engine.extend(together.states, tokens)
    engine.release(np.concatenate([below.states, together.states]))
    for count in (1, 2, 5, 17):
        alone = engine.prefill(prompts[:count])
        after = engine.extend(alone.states, tokens[:count])
        engine.release(np.concatenate([after.states, alone.states]))
        for few, many in ((alone, together), (after, below)):
            same = torch.equal(few.logits, many.logits[:count])
            if not same or not torch.equal(few.hidden, many.hidden[:count]):
                return False
    return True
