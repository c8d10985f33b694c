"""The remote teacher against a real server: what it proposes, what it costs, and how it fails."""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from completion_server import (
    Asked,
    CompletionServer,
    Reply,
    chat,
    chat_logprobs,
    completion,
    error,
    ok,
    old_logprobs,
    prompts_of,
    serving,
)
from pydantic import TypeAdapter, ValidationError

from tokenzero.mcts.errors import InputError
from tokenzero.policy.completion_client import CompletionClient, ServerConfig
from tokenzero.policy.tokenizers import character_tokenizer
from tokenzero.teachers.base import Proposal, Teacher
from tokenzero.teachers.remote import Bench, RemoteTeacher, RemoteTeacherConfig

LETTERS = character_tokenizer("abcdef ")
EOS = LETTERS.eos_token_id


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now


@contextmanager
def teaching(
    answer: Callable[[Asked], Reply], server: dict[str, Any] | None = None, **settings: Any
) -> Iterator[tuple[RemoteTeacher, CompletionServer, Time]]:
    time = Time()
    with serving(answer) as http:
        options = {"retries": 0, "breaker_failures": 10_000, "timeout_s": 5.0, **(server or {})}
        config = RemoteTeacherConfig(ServerConfig(url=http.url, model="m", **options), **settings)
        client = CompletionClient(config.server, clock=time.clock, sleep=lambda seconds: None)
        teacher = RemoteTeacher(config, LETTERS, client=client, clock=time.clock)
        try:
            yield teacher, http, time
        finally:
            teacher.close()


def ids(*texts: str) -> list[list[int]]:
    return [list(LETTERS(text, add_special_tokens=False)["input_ids"]) for text in texts]


def row(proposal: Proposal, index: int = 0) -> dict[str, float]:
    """Text of each proposed token with its probability."""
    pairs = zip(proposal.actions[index].tolist(), proposal.probs[index].tolist(), strict=True)
    return {LETTERS.decode([token]): round(p, 5) for token, p in pairs if token >= 0}


def whole(proposal: Proposal, index: int = 0) -> dict[str, float]:
    return {
        LETTERS.decode(list(one.tokens)): round(one.probability, 5) for one in proposal.continuations[index]
    }


def top(**probabilities: float) -> dict[str, Any]:
    return old_logprobs({text: math.log(p) for text, p in probabilities.items()})


def always(text: str, logprobs: dict[str, Any] | None) -> Callable[[Asked], Reply]:
    return lambda asked: completion(asked, lambda prompt: text, lambda prompt: logprobs)


def test_next_tokens_with_their_probabilities_come_from_log_probabilities() -> None:
    answers = {"ab": {"c": 0.5, "cd": 0.2, "d": 0.2}, "": {"a": 1.0}}

    def answer(asked: Asked) -> Reply:
        return completion(
            asked,
            lambda prompt: max(answers[prompt], key=lambda t: answers[prompt][t]),
            lambda prompt: old_logprobs({t: math.log(p) for t, p in answers[prompt].items()}),
        )

    with teaching(answer, candidates=7) as (teacher, server, _):
        as_protocol: Teacher = teacher
        proposal = as_protocol.propose([*ids("ab"), [LETTERS.bos_token_id], *ids("ab")], 3, [0, 1, 0])
    assert sorted(prompts_of(server.asked[0])) == ["", "ab"]
    assert (server.asked[0].body["logprobs"], server.asked[0].body["max_tokens"]) == (7, 1)
    assert row(proposal) == row(proposal, 2) == {"c": 0.7, "d": 0.2}
    assert row(proposal, 1) == {"a": 1.0}
    assert whole(proposal) == {"c": 0.5, "cd": 0.2, "d": 0.2}
    assert proposal.actions.shape == proposal.probs.shape == (3, 3)
    assert proposal.tokens == teacher.tokens == 2 * 6
    assert teacher.requests == 1
    assert teacher.estimated_tokens == 0


def test_the_greedy_answer_is_the_continuation_of_the_likeliest_token() -> None:
    with teaching(always("cdd", top(c=0.6, d=0.3)), ahead=3) as (teacher, server, _):
        proposal = teacher.propose(ids("ab"), 4)
    assert server.asked[0].body["max_tokens"] == 3
    assert row(proposal) == {"c": 0.6, "d": 0.3}
    assert whole(proposal) == {"cdd": 0.6, "d": 0.3}


@pytest.mark.parametrize("end", ["", "</s>", "<|im_end|>"])
def test_the_servers_end_is_the_students_end(end: str) -> None:
    with teaching(always("", old_logprobs({end: -0.1, "c": -3.0}))) as (teacher, _, _):
        proposal = teacher.propose(ids("ab"), 3)
    assert proposal.actions[0].tolist() == [EOS, *ids("c")[0], -1]
    assert proposal.probs[0, 0] == pytest.approx(math.exp(-0.1))


def test_probabilities_that_add_up_to_more_than_one_are_scaled() -> None:
    with teaching(always("c", top(c=0.9, d=0.6))) as (teacher, _, _):
        assert row(teacher.propose(ids("ab"), 3)) == {"c": 0.6, "d": 0.4}


def test_chat_can_tell_log_probabilities_too() -> None:
    logprobs = chat_logprobs({"c": math.log(0.75), "d": math.log(0.25)})
    with teaching(
        lambda asked: chat("c", logprobs=logprobs), endpoint="chat", candidates=2, instruction="Go on."
    ) as (teacher, server, _):
        assert row(teacher.propose(ids("ab"), 3)) == {"c": 0.75, "d": 0.25}
    body = server.asked[0].body
    assert body["messages"] == [{"role": "system", "content": "Go on."}, {"role": "user", "content": "ab"}]
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)


# ---- samples


def test_samples_become_shares_and_an_end_counts_as_one() -> None:
    def answer(asked: Asked) -> Reply:
        drawn = [
            ("c d", "length"),
            ("c", "stop"),
            ("abd", "length"),
            ("", "stop"),
            ("", "length"),
            ("c", "stop"),
        ]
        choices = [
            {"index": i, "message": {"content": text}, "finish_reason": finish}
            for i, (text, finish) in enumerate(drawn)
        ]
        return ok({"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 6}})

    with teaching(answer, endpoint="chat", samples=6, temperature=0.7, ahead=3) as (teacher, server, _):
        proposal = teacher.propose(ids("ab"), 5)
    body = server.asked[0].body
    assert (body["n"], body["temperature"], body["max_tokens"]) == (6, 0.7, 3)
    assert "logprobs" not in body
    # "abd" repeats the text it was given; the choice without text that did not end says nothing
    eos = LETTERS.eos_token
    assert row(proposal) == {"c": 0.6, "d": 0.2, eos: 0.2}
    assert whole(proposal) == {"c" + eos: 0.4, "c d": 0.2, "d": 0.2, eos: 0.2}
    assert proposal.tokens == 15


@pytest.mark.parametrize("refuses", [False, True])
def test_servers_that_give_one_choice_at_a_time_are_asked_again(refuses: bool) -> None:
    def answer(asked: Asked) -> Reply:
        if asked.body.get("n", 1) > 1 and refuses:
            return error(400, "only n = 1")
        return chat("cdef"[asked.body["seed"] % 4])

    with teaching(answer, endpoint="chat", samples=8) as (teacher, server, _):
        first = teacher.propose(ids("ab"), 5)
        assert len(server.asked) == (9 if refuses else 8)
        again = teacher.propose(ids("ab"), 5)
        assert len(server.asked) == (17 if refuses else 16)
        assert all("n" not in asked.body for asked in server.asked[-8:])
    seeds = [int.from_bytes(hashlib.sha256(f"0 {i} 'ab'".encode()).digest()[:4]) >> 1 for i in range(8)]
    shares = Counter("cdef"[seed % 4] for seed in seeds)
    assert row(first) == row(again) == {letter: n / 8 for letter, n in shares.items()}
    assert not teacher.failures


def test_samples_of_a_state_are_the_same_whoever_stands_beside_it() -> None:
    def answer(asked: Asked) -> Reply:
        chance = random.Random(f"{asked.body['seed']} {asked.body['prompt']}")
        return completion(asked, lambda prompt: chance.choice("cdef"), lambda prompt: None)

    with teaching(answer, samples=3) as (teacher, _, _):
        together = teacher.propose(ids("ab", "b", "ab"), 4)
        alone = teacher.propose(ids("b"), 4)
    assert row(together, 1) == row(alone)
    assert row(together, 0) == row(together, 2)


# ---- faults


def test_a_row_that_fails_proposes_nothing_and_the_others_stand() -> None:
    def answer(asked: Asked) -> Reply:
        (prompt,) = prompts_of(asked)
        if prompt == "b":
            return error(500)
        tops = {"c": None, "d": {"top_logprobs": [{"token_id:4": -1.0}]}}
        logprobs = tops[prompt] if prompt in tops else top(c=0.5)
        return always("cc", logprobs)(asked)

    with teaching(answer, {"prompts_per_request": 1}) as (teacher, _, _):
        proposal = teacher.propose(ids("a", "b", "c", "d", "b"), 2)
    assert row(proposal) == {"c": 0.5}
    assert proposal.actions[1:].tolist() == [[-1, -1]] * 4
    assert proposal.probs[1:].tolist() == [[0.0, 0.0]] * 4
    assert proposal.continuations[1:] == ((),) * 4
    assert teacher.failures == {"server error": 2, "no log-probabilities": 1, "no readable token": 1}
    assert proposal.tokens == 3 * 6
    assert not teacher.benched


def test_half_of_all_calls_failing_loses_no_row() -> None:
    faults = [error(500), error(429), Reply(b"{"), Reply(b"{}" * 99, cut=3), ok({"choices": 1}), ok({})]

    def answer(asked: Asked) -> Reply:
        chance = random.Random(asked.body["prompt"])
        fault = chance.choice(faults)
        return fault if chance.random() < 0.5 else always("c", top(c=0.5, d=0.25))(asked)

    names = [f"{a}{b}{c}" for a in "abcdef" for b in "abcdef" for c in "abcdef"][:200]
    with teaching(answer, {"prompts_per_request": 1}) as (teacher, server, _):
        proposal = teacher.propose(ids(*names), 4)
    spoke = proposal.actions[:, 0] >= 0
    assert proposal.actions.shape == (200, 4)
    assert int(spoke.sum()) + teacher.failures.total() == 200 == len(server.asked)
    assert 60 <= teacher.failures.total() <= 140
    assert set(teacher.failures) == {
        "server error",
        "rate limit",
        "malformed JSON",
        "connection",
        "wrong schema",
    }
    assert all(row(proposal, i) == {"c": 0.5, "d": 0.25} for i in np.flatnonzero(spoke))
    assert proposal.tokens == 6 * int(spoke.sum())


def test_a_teacher_that_keeps_failing_sits_out_longer_and_longer_and_comes_back() -> None:
    down = True

    def answer(asked: Asked) -> Reply:
        return error(500) if down else always("c", top(c=0.5))(asked)

    with teaching(answer, bench_after=2, bench_calls=3, bench_s=10.0) as (teacher, server, time):
        for _ in range(2):
            assert not teacher.benched
            teacher.propose(ids("a", "b"), 2)
        assert teacher.benched
        asked = len(server.asked)
        time.now += 100.0
        for _ in range(3):
            assert teacher.propose(ids("a", "b"), 2).tokens == 0
        assert teacher.sat_out == 6
        assert not teacher.benched
        assert len(server.asked) == asked
        teacher.propose(ids("a"), 2)  # in vain: twice as long
        assert len(server.asked) == asked + 1
        for _ in range(6):
            time.now += 4.0
            proposal = teacher.propose(ids("a"), 2)
            assert proposal.actions.tolist() == [[-1, -1]]
        assert len(server.asked) == asked + 1
        assert not teacher.benched
        down = False
        assert row(teacher.propose(ids("a"), 2)) == {"c": 0.5}
        assert teacher.failures == {"server error": 5}


def test_the_bench_lasts_until_calls_and_seconds_have_passed() -> None:
    time = Time()
    bench = Bench(1, 2, 10.0, time.clock)
    assert not bench.sit_out()
    bench.report(False)
    assert [bench.sit_out() for _ in range(4)] == [True] * 4  # the calls have passed, the seconds have not
    time.now = 10.0
    assert not bench.sit_out()
    bench.report(True)
    bench.report(False)
    time.now = 20.0
    assert [bench.sit_out() for _ in range(3)] == [True, True, False]


def test_tokens_are_estimated_where_the_server_does_not_count_and_free_from_the_cache(tmp_path: Any) -> None:
    def answer(asked: Asked) -> Reply:
        return ok({"choices": [{"text": "c", "logprobs": top(c=0.5)}]})

    with teaching(answer, {"cache_dir": str(tmp_path)}) as (teacher, server, _):
        assert teacher.propose(ids("abcde"), 2).tokens == 2 + 1
        assert teacher.estimated_tokens == 3
        again = teacher.propose(ids("abcde"), 2)
        assert (again.tokens, row(again)) == (0, {"c": 0.5})
        assert len(server.asked) == 1


def test_no_sequences_ask_nobody() -> None:
    with teaching(lambda asked: error(500)) as (teacher, server, _):
        assert teacher.propose([], 3).actions.shape == (0, 3)
        assert teacher.propose([], 3).tokens == 0
        with pytest.raises(InputError, match="k=0"):
            teacher.propose(ids("a"), 0)
    assert server.asked == []


# ---- settings

SERVER = {"url": "http://127.0.0.1:1", "model": "m"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"endpoint": "embeddings"}, "endpoint is 'embeddings'"),
        ({"candidates": 0}, "candidates is 0"),
        ({"samples": -1}, "samples is -1"),
        ({"samples": 2, "temperature": 0.0}, "temperature is 0"),
        ({"ahead": 0}, "ahead is 0"),
        ({"bench_after": 0}, "bench_after"),
        ({"bench_calls": 0}, "bench_calls"),
        ({"bench_s": -1.0}, "bench_s"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RemoteTeacherConfig(ServerConfig(**SERVER), **settings)


def test_settings_are_read_as_records_and_unknown_keys_refused() -> None:
    read = TypeAdapter(RemoteTeacherConfig).validate_python
    config = read({"kind": "remote", "server": {**SERVER, "extra": {"top_k": 1}}, "end_texts": ["<end>"]})
    assert config == RemoteTeacherConfig(ServerConfig(**SERVER, extra={"top_k": 1}), end_texts=("<end>",))
    for wrong in (
        {"server": {**SERVER, "key": "sk-1"}},
        {"server": SERVER, "tokn": 1},
        {"kind": "x", "server": SERVER},
    ):
        with pytest.raises(ValidationError):
            read(wrong)


def test_names_are_stable() -> None:
    with teaching(lambda asked: error(500)) as (teacher, _, _):
        assert teacher.name == "remote:m"
    with teaching(lambda asked: error(500), label="big") as (teacher, _, _):
        assert teacher.name == "big"
