"""What is asked of a completion server and what its answer means.

Servers agree on the outline and differ in the details: log-probabilities of /v1/completions come in the old
shape (``tokens``, ``token_logprobs``, ``top_logprobs`` as one mapping per position: OpenAI, vLLM, SGLang) or
in that of chat (``content`` with a list per position: llama.cpp), tokens as text, bytes or ids. Reading is
lenient about what may be missing and strict about what is there: anything that cannot be read is one
``AnswerError``. This file sends nothing and knows no tokenizer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

__all__ = ["AnswerError", "Choice", "CompletionRequest", "CompletionResult", "Failure", "read_answer"]

_CHARACTERS_PER_TOKEN = 4  # the usual rule of thumb for English; used only where the server does not count
_BROKEN = "\ufffd"  # what part of a UTF-8 sequence becomes on its way through JSON


@dataclass(frozen=True)
class CompletionRequest:
    """Ask for what follows ``prompt`` (/v1/completions), or, with ``messages``, for a reply to a chat.

    ``messages``: (role, content) pairs. ``n`` choices of at most ``max_tokens`` tokens each; ``top`` above 0
    asks for that many most probable tokens at each position. ``seed`` makes sampling repeatable where the
    server can.
    """

    prompt: str = ""
    messages: tuple[tuple[str, str], ...] = ()
    max_tokens: int = 1
    n: int = 1
    temperature: float = 0.0
    top: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None

    @property
    def endpoint(self) -> str:
        """The path behind the server's base address."""
        return "/chat/completions" if self.messages else "/completions"

    def body(self, model: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        """The request's JSON. Fields that say nothing are left out: some servers refuse what they do not
        know.
        """
        body: dict[str, Any] = {
            "model": model,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        if self.messages:
            body["messages"] = [{"role": role, "content": content} for role, content in self.messages]
        else:
            body["prompt"] = self.prompt
        if self.n != 1:
            body["n"] = self.n
        if self.top:
            body.update(
                {"logprobs": True, "top_logprobs": self.top} if self.messages else {"logprobs": self.top}
            )
        if self.stop:
            body["stop"] = list(self.stop)
        if self.seed is not None:
            body["seed"] = self.seed
        return {name: value for name, value in {**body, **extra}.items() if value is not None}

    @property
    def estimated_prompt_tokens(self) -> int:
        """A guess from the number of characters, at least 1."""
        text = sum(len(content) for _, content in self.messages) + len(self.prompt)
        return max(1, math.ceil(text / _CHARACTERS_PER_TOKEN))


class Alternative(NamedTuple):
    """A token the first position might have had; ``logprob`` in nats."""

    text: str
    logprob: float


@dataclass(frozen=True)
class Choice:
    """One answer. ``alternatives``: the first position's most probable tokens, best first, texts distinct;
    None when the server gave none. ``unreadable``: how many of them had no text of their own (ids, parts of
    a letter). ``finish``: the server's word for why it ended, "" for none.
    """

    text: str
    finish: str = ""
    alternatives: tuple[Alternative, ...] | None = None
    unreadable: int = 0


@dataclass(frozen=True)
class CompletionResult:
    """The choices of one request, in the server's order, and what they cost.

    ``estimated``: the server did not count, so the token numbers are guesses. ``cached``: the answer was
    known or another request of the same call paid for it.
    """

    choices: tuple[Choice, ...]
    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False
    cached: bool = False

    @property
    def spent(self) -> int:
        """Tokens paid for this result now: 0 when it was cached."""
        return 0 if self.cached else self.prompt_tokens + self.completion_tokens

    def as_json(self) -> dict[str, Any]:
        """What the cache keeps; ``from_json`` turns it back."""
        record = asdict(self)
        del record["cached"]
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> CompletionResult:
        """A cached result. Raises AnswerError when ``record`` is not what ``as_json`` gives."""
        try:
            choices = tuple(
                Choice(
                    str(one["text"]),
                    str(one["finish"]),
                    None
                    if one["alternatives"] is None
                    else tuple(Alternative(str(text), float(value)) for text, value in one["alternatives"]),
                    int(one["unreadable"]),
                )
                for one in record["choices"]
            )
            counts = int(record["prompt_tokens"]), int(record["completion_tokens"])
            return cls(choices, *counts, estimated=bool(record["estimated"]), cached=True)
        except (KeyError, TypeError, ValueError) as error:
            raise AnswerError("the cached record is not one of ours") from error


@dataclass(frozen=True)
class Failure:
    """A request without an answer. ``reason``: one of a few fixed words, for counting; ``detail``: one line
    for people, without the key. ``attempts``: requests sent for it.
    """

    reason: str
    detail: str = ""
    attempts: int = 0


class AnswerError(ValueError):
    """The server's answer cannot be read. The message says what is wrong with it."""


def read_answer(payload: Any, requests: Sequence[CompletionRequest]) -> list[CompletionResult]:
    """The results of ``requests`` that were put into one HTTP request (one, or several prompts with the
    same n).

    Choices may come in any order when they carry an index; choice j of prompt i has index i * n + j. A
    single request may get fewer choices than it asked for, never none. Usage of several prompts is shared
    out evenly, the first ones taking what is left over, so that the sum is right. Raises AnswerError.
    """
    if not isinstance(payload, dict):
        raise AnswerError(f"the answer is a JSON {type(payload).__name__}, not an object")
    raw = payload.get("choices")
    if not isinstance(raw, list) or not raw:
        raise AnswerError("the answer has no choices")
    choices = [_choice(one) for one in _in_order(raw)]
    each = requests[0].n
    if len(requests) > 1 and len(choices) != each * len(requests):
        raise AnswerError(f"{len(choices)} choices for {len(requests)} prompts with {each} each")
    if len(requests) == 1:
        parts = [choices[:each]]
    else:
        parts = [choices[start : start + each] for start in range(0, len(choices), each)]
    usage = _usage(payload.get("usage"))
    results = []
    for row, (request, part) in enumerate(zip(requests, parts, strict=True)):
        if usage is None:
            prompt, completion = request.estimated_prompt_tokens, sum(map(_estimated_tokens, part))
        else:
            prompt, completion = (_share(total, len(requests), row) for total in usage)
        results.append(CompletionResult(tuple(part), prompt, completion, estimated=usage is None))
    return results


def _in_order(raw: list[Any]) -> list[Any]:
    """By index when every choice has its own, else as they came."""
    by_index: dict[int, Any] = {}
    for one in raw:
        index = one.get("index") if isinstance(one, dict) else None
        if isinstance(index, int) and not isinstance(index, bool):
            by_index[index] = one
    return [by_index[index] for index in sorted(by_index)] if len(by_index) == len(raw) else raw


def _choice(raw: Any) -> Choice:
    if not isinstance(raw, dict):
        raise AnswerError("a choice is not a JSON object")
    if "text" in raw:
        text = raw["text"]
    else:
        message = raw.get("message")
        if not isinstance(message, dict):
            raise AnswerError("a choice has neither text nor message")
        text = _message_text(message.get("content"))
    if not isinstance(text, str):
        raise AnswerError("the text of a choice is not a string")
    finish = raw.get("finish_reason")
    alternatives, unreadable = _alternatives(raw.get("logprobs"), text)
    return Choice(text, finish if isinstance(finish, str) else "", alternatives, unreadable)


def _message_text(content: Any) -> Any:
    """The text of a chat message: null (a refusal, or reasoning that used up the tokens) is none, parts
    join.
    """
    if content is None:
        return ""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content


def _alternatives(logprobs: Any, text: str) -> tuple[tuple[Alternative, ...] | None, int]:
    """(most probable tokens of the first position or None, how many of them could not be read)."""
    if not isinstance(logprobs, dict):
        return None, 0
    content, top = logprobs.get("content"), logprobs.get("top_logprobs")
    sampled: Any = None
    positions = 0
    if isinstance(content, list) and content and isinstance(content[0], dict):
        top, sampled, positions = content[0].get("top_logprobs"), content[0].get("token"), len(content)
    elif isinstance(top, list) and top:
        tokens = logprobs.get("tokens")
        if isinstance(tokens, list) and tokens:
            sampled, positions = tokens[0], len(tokens)
        # one mapping or list for each position, or, from servers that give one position only, the list itself
        top = top if _is_entry(top[0]) else top[0]
    pairs = _pairs(top)
    if not pairs:
        return None, 0
    mass: dict[str, float] = {}
    unreadable = 0
    for token, raw_bytes, value in pairs:
        piece = _text(token, raw_bytes)
        if piece is None and token == sampled and positions == 1 and text and _BROKEN not in text:
            piece = text  # one token was generated, so its text is known whatever the server calls it
        if piece is None:
            unreadable += 1
        else:
            mass[piece] = mass.get(piece, 0.0) + math.exp(min(value, 0.0))
    found = [Alternative(piece, math.log(share)) for piece, share in mass.items() if share > 0]
    return tuple(sorted(found, key=lambda one: (-one.logprob, one.text))), unreadable


def _is_entry(value: Any) -> bool:
    return isinstance(value, dict) and "token" in value and "logprob" in value


def _pairs(top: Any) -> list[tuple[str, Any, float]]:
    """(token as spelt, its bytes or None, log-probability) of one position; what is not finite is left
    out.
    """
    if isinstance(top, dict):
        entries = [(token, None, value) for token, value in top.items()]
    elif isinstance(top, list):
        entries = [(one["token"], one.get("bytes"), one["logprob"]) for one in top if _is_entry(one)]
    else:
        return []
    # vLLM writes an object with the number and a rank where others write the number
    entries = [(t, b, v.get("logprob") if isinstance(v, dict) else v) for t, b, v in entries]
    return [
        (token, raw, float(value))
        for token, raw, value in entries
        if isinstance(token, str)
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    ]


def _text(token: str, raw_bytes: Any) -> str | None:
    """What a spelt token adds to a text; None for an id without text and for part of a letter."""
    if re.fullmatch(r"token_id:\d+", token):
        return None
    if token.startswith("bytes:"):
        return _decoded(_escaped_bytes(token.removeprefix("bytes:")))
    if isinstance(raw_bytes, list) and raw_bytes:
        try:
            return _decoded(bytes(raw_bytes))
        except (TypeError, ValueError):  # no list of bytes: the spelling has to do
            pass
    return None if _BROKEN in token else token


def _escaped_bytes(spelling: str) -> bytes:
    r"""Bytes of ``\xe2\x80``, letters between them standing for themselves."""
    parts = re.split(r"\\x([0-9a-fA-F]{2})", spelling)
    return b"".join(
        bytes([int(part, 16)]) if odd % 2 else part.encode("utf-8", "replace")
        for odd, part in enumerate(parts)
    )


def _decoded(raw: bytes) -> str | None:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if _BROKEN in text else text


def _usage(raw: Any) -> tuple[int, int] | None:
    if not isinstance(raw, dict):
        return None
    prompt, completion = raw.get("prompt_tokens"), raw.get("completion_tokens", 0)
    counts = prompt, 0 if completion is None else completion
    if not all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts):
        return None
    return counts  # type: ignore[return-value]  # both were checked to be whole numbers


def _share(total: int, parts: int, row: int) -> int:
    return total // parts + (row < total % parts)


def _estimated_tokens(choice: Choice) -> int:
    return max(1, math.ceil(len(choice.text) / _CHARACTERS_PER_TOKEN))
