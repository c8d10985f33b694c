"""A model behind an OpenAI-compatible server as a teacher.

The text of a state is sent, what the server thinks comes next is brought to the student's tokens: the most
probable next tokens where the server tells log-probabilities, shares of sampled continuations where it does
not. A row that fails proposes nothing; a server that keeps failing sits out for a while, so that the game
goes on at its own speed. Retries, rate limits and the cache are ``policy.completion_client``'s work.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tokenzero.mcts.errors import InputError
from tokenzero.policy.completion_client import (
    Choice,
    CompletionClient,
    CompletionRequest,
    CompletionResult,
    Failure,
    ServerConfig,
)
from tokenzero.teachers.base import Proposal, checked_k, silence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from tokenzero.teachers.text_proposals import TextContinuation

__all__ = ["Bench", "RemoteTeacher", "RemoteTeacherConfig"]

ENDPOINTS = ("completions", "chat")
INSTRUCTION = (
    "Continue the text of the user exactly where it stops. Write only the continuation, without repeating "
    "the text and without any comment."
)
END_TEXTS = (
    "",  # vLLM, SGLang and llama.cpp show the end token as no text
    "</s>",
    "<eos>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|end|>",
    "<end_of_turn>",
)
_LONGEST_BENCH = 1024  # calls, and times the first pause in seconds


@dataclass(frozen=True)
class RemoteTeacherConfig:
    """A teacher of kind "remote".

    ``endpoint``: "completions" continues the text; "chat" asks for a continuation with ``instruction``.
    ``samples`` 0 takes the ``candidates`` most probable next tokens (hosted servers tell 5 at most, vLLM
    and SGLang 20 unless started otherwise); above 0 draws so many continuations at ``temperature`` and
    takes their shares, for servers without log-probabilities. ``ahead``: most tokens of a continuation;
    null for 1 with log-probabilities and 8 with samples. ``end_texts``: how the server spells the end of an
    answer.

    After ``bench_after`` calls in a row in which no row got an answer the teacher sits out ``bench_calls``
    calls and at least ``bench_s`` seconds, twice as many of both each time it comes back in vain.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    server: ServerConfig
    kind: Literal["remote"] = "remote"
    label: str | None = None
    endpoint: str = "completions"
    candidates: int = 5
    samples: int = 0
    temperature: float = 1.0
    ahead: int | None = None
    instruction: str = INSTRUCTION
    end_texts: tuple[str, ...] = END_TEXTS
    bench_after: int = 3
    bench_calls: int = 8
    bench_s: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.endpoint not in ENDPOINTS:
            raise InputError(f"teacher endpoint is {self.endpoint!r}; use one of {', '.join(ENDPOINTS)}")
        for name in ("candidates", "bench_after", "bench_calls"):
            if getattr(self, name) < 1:
                raise InputError(f"teacher {name} is {getattr(self, name)}; give at least 1")
        if self.samples < 0 or self.bench_s < 0:
            raise InputError(
                f"teacher samples is {self.samples} and bench_s {self.bench_s}; give 0 or more of both"
            )
        if self.samples and not self.temperature > 0:
            raise InputError(f"teacher temperature is {self.temperature}; samples need a number above 0")
        if self.ahead is not None and self.ahead < 1:
            raise InputError(f"teacher ahead is {self.ahead}; give at least 1 token, or null")

    @property
    def name(self) -> str:
        """What the teacher is called in weights and records, the same in every round."""
        return self.label or f"remote:{self.server.model}"


class Bench:
    """Counts failed calls and says who sits out. ``benched``: whether it does now.

    ``after`` failed calls in a row bench; each further failed call after the return doubles ``calls`` and
    ``seconds``; one good call forgets everything. The bench ends when both have passed.
    """

    def __init__(self, after: int, calls: int, seconds: float, clock: Callable[[], float]) -> None:
        self._after, self._calls, self._seconds, self._clock = after, calls, seconds, clock
        self._in_a_row = 0
        self._factor = 1
        self._calls_left = 0
        self._until = -math.inf

    @property
    def benched(self) -> bool:
        """Whether the next call is to be left out."""
        return self._calls_left > 0 or self._clock() < self._until

    def sit_out(self) -> bool:
        """Whether this call is left out; it counts as one of those to sit out."""
        benched = self.benched
        self._calls_left = max(0, self._calls_left - 1)
        return benched

    def report(self, worked: bool) -> None:
        """How a call that was made went."""
        if worked:
            self._in_a_row, self._factor = 0, 1
            return
        self._in_a_row += 1
        if self._in_a_row >= self._after:
            self._calls_left = min(self._calls * self._factor, max(self._calls, _LONGEST_BENCH))
            self._until = self._clock() + self._seconds * self._factor
            self._factor = min(2 * self._factor, _LONGEST_BENCH)


class RemoteTeacher:
    """Asks the server of ``config``; the student's ``tokenizer`` turns states to texts and texts to tokens.

    Attributes, totals since it was made: ``failures`` rows without a proposal by reason (those of
    ``CompletionClient.complete``, "no log-probabilities", "no readable token"); ``sat_out`` rows that were
    not asked because the teacher was benched; ``tokens`` paid for, ``estimated_tokens`` of them guessed.
    Close it.

    ``client`` may be handed in, else one is made. Raises what ``CompletionClient`` raises.
    """

    def __init__(
        self,
        config: RemoteTeacherConfig,
        tokenizer: PreTrainedTokenizerFast,
        *,
        client: CompletionClient | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.client = CompletionClient(config.server) if client is None else client
        self.failures: Counter[str] = Counter()
        self.sat_out = 0
        self.tokens = 0
        self.estimated_tokens = 0
        self._tokenizer = tokenizer
        self._bench = Bench(config.bench_after, config.bench_calls, config.bench_s, clock)
        self._one_choice = False  # the server gives one choice whatever n says

    @property
    def name(self) -> str:
        """The config's."""
        return self.config.name

    @property
    def benched(self) -> bool:
        """Whether it sits out now."""
        return self._bench.benched

    @property
    def requests(self) -> int:
        """HTTP requests sent, retries included."""
        return self.client.requests

    def propose(
        self, sequences: Sequence[Sequence[int]], k: int, prompt_lens: Sequence[int] | None = None
    ) -> Proposal:
        """The server's candidates; pads where it failed. ``tokens`` is 0 for answers from the cache.

        The whole text is sent as one, so ``prompt_lens`` is not read.
        """
        from tokenzero.teachers.text_proposals import proposals_from_texts

        checked_k(k)
        if not sequences:
            return silence(0, k)
        if self._bench.sit_out():
            self.sat_out += len(sequences)
            return silence(len(sequences), k)
        texts = [self._text(sequence) for sequence in sequences]
        before = self.tokens
        rows = self._sampled(texts) if self.config.samples else self._most_probable(texts)
        self._bench.report(any(not isinstance(row, str) for row in rows))
        self.failures.update(row for row in rows if isinstance(row, str))
        continuations = [[] if isinstance(row, str) else row for row in rows]
        return proposals_from_texts(self._tokenizer, sequences, continuations, k, self.tokens - before)

    def close(self) -> None:
        """Close the client."""
        self.client.close()

    def _text(self, sequence: Sequence[int]) -> str:
        text = self._tokenizer.decode(
            list(sequence), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def _request(self, text: str, **options: Any) -> CompletionRequest:
        if self.config.endpoint == "chat":
            return CompletionRequest(
                messages=(("system", self.config.instruction), ("user", text)), **options
            )
        return CompletionRequest(prompt=text, **options)

    def _complete(self, requests: Sequence[CompletionRequest]) -> list[CompletionResult | Failure]:
        outcomes = self.client.complete(requests)
        results = [one for one in outcomes if isinstance(one, CompletionResult)]
        self.tokens += sum(one.spent for one in results)
        self.estimated_tokens += sum(one.spent for one in results if one.estimated)
        return outcomes

    # ---- a row is its continuations, or the reason why there are none

    def _most_probable(self, texts: Sequence[str]) -> list[list[TextContinuation] | str]:
        ahead = self.config.ahead or 1
        requests = [self._request(text, max_tokens=ahead, top=self.config.candidates) for text in texts]
        return [
            one.reason if isinstance(one, Failure) else self._read_top(one.choices[0])
            for one in self._complete(requests)
        ]

    def _read_top(self, choice: Choice) -> list[TextContinuation] | str:
        from tokenzero.teachers.text_proposals import TextContinuation

        if choice.alternatives is None:
            return "no log-probabilities"
        row: list[TextContinuation] = []
        for rank, (text, logprob) in enumerate(choice.alternatives):
            ends = text in self.config.end_texts
            whole = "" if ends else text
            if rank == 0 and not ends and choice.text.startswith(text):
                whole = choice.text  # greedy decoding took the most probable token and went on from it
            row.append(TextContinuation(whole, math.exp(min(0.0, logprob))))
        return _proper(row) or "no readable token"

    def _sampled(self, texts: Sequence[str]) -> list[list[TextContinuation] | str]:
        distinct = list(dict.fromkeys(texts))
        drawn, reasons = self._draw(distinct)
        rows = {
            text: self._shares(text, drawn[text]) or reasons.get(text, "no readable token")
            for text in distinct
        }
        return [rows[text] for text in texts]

    def _draw(self, texts: Sequence[str]) -> tuple[dict[str, list[Choice]], dict[str, str]]:
        """(choices of each text, why the last failed request of a text failed).

        A first request asks for all samples of a text at once; what is missing, because the server gives one
        choice at a time or refuses more, is asked for one by one, with seeds that follow.
        """
        wanted = self.config.samples
        drawn: dict[str, list[Choice]] = {text: [] for text in texts}
        reasons: dict[str, str] = {}
        alive = set(texts)
        if not self._one_choice and wanted > 1:
            outcomes = self._complete([self._sample(text, wanted, 0) for text in texts])
            for text, outcome in zip(texts, outcomes, strict=True):
                if isinstance(outcome, CompletionResult):
                    drawn[text] += outcome.choices
                    continue
                reasons[text] = outcome.reason
                if outcome.reason != "refused":
                    alive.discard(text)  # the server is at fault, not the number of choices
        missing = [(text, i) for text in texts if text in alive for i in range(len(drawn[text]), wanted)]
        if missing:
            outcomes = self._complete([self._sample(text, 1, i) for text, i in missing])
            for (text, _), outcome in zip(missing, outcomes, strict=True):
                if isinstance(outcome, CompletionResult):
                    drawn[text] += outcome.choices
                    self._one_choice = True
                else:
                    reasons[text] = outcome.reason
        return drawn, reasons

    def _sample(self, text: str, n: int, index: int) -> CompletionRequest:
        seed = hashlib.sha256(f"{self.config.seed} {index} {text!r}".encode()).digest()
        return self._request(
            text,
            max_tokens=self.config.ahead or 8,
            n=n,
            temperature=self.config.temperature,
            seed=int.from_bytes(seed[:4]) >> 1,
        )

    def _shares(self, context: str, choices: Iterable[Choice]) -> list[TextContinuation]:
        from tokenzero.teachers.text_proposals import TextContinuation

        counted: Counter[tuple[str, bool]] = Counter()
        for choice in choices:
            # chat models like to begin with what they were given
            text = choice.text.removeprefix(context) if self.config.endpoint == "chat" else choice.text
            ends = choice.finish == "stop" and "stop" not in self.config.server.extra
            if text or ends:  # no text and no end: the tokens went elsewhere, into reasoning for example
                counted[text, ends] += 1
        total = counted.total()
        return _proper([TextContinuation(text, n / total, ends) for (text, ends), n in counted.items()])


def _proper(row: list[TextContinuation]) -> list[TextContinuation]:
    """The row scaled down to sum 1 where rounding, or a server's own reckoning, took it above."""
    total = math.fsum(one.probability for one in row)
    return row if total <= 1.0 else [one._replace(probability=one.probability / total) for one in row]
