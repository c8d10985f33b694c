"""The remote judge against a real server: one word is a verdict, everything else is 0 and counted."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from completion_server import Asked, CompletionServer, Json, Reply, chat, chat_logprobs, error, ok, serving
from pydantic import TypeAdapter, ValidationError

from tokenzero.mcts.errors import InputError
from tokenzero.policy.completion_client import CompletionClient, ServerConfig
from tokenzero.value.cached_judge import CachedJudge
from tokenzero.value.judge import Judge
from tokenzero.value.remote_judge import RemoteJudge, RemoteJudgeConfig, build_remote_judge

SERVER: dict[str, Any] = {"url": "http://127.0.0.1:1", "model": "m"}


@contextmanager
def judging(
    answer: Callable[[Asked], Reply], constitution: str = "", **settings: Any
) -> Iterator[tuple[RemoteJudge, CompletionServer]]:
    with serving(answer) as http:
        server = ServerConfig(url=http.url, model="m", retries=0, breaker_failures=10_000, timeout_s=5.0)
        config = RemoteJudgeConfig(server, **settings)
        client = CompletionClient(server, sleep=lambda seconds: None)
        judge = RemoteJudge(config, constitution=constitution, client=client)
        try:
            yield judge, http
        finally:
            judge.close()


def echo(asked: Asked) -> Reply:
    """Says what the answer says."""
    user = asked.body["messages"][-1]["content"]
    return chat(user.split("Answer so far:\n")[1].split("\n\nIs the")[0])


def test_the_word_decides_and_anything_else_is_neutral_and_counted() -> None:
    answers = {
        "good": 1,
        " Good.\n": 1,
        "**BAD**": -1,
        '"bad"': -1,
        "unsure": 0,
        "": None,
        "good, I think": None,
        "not good": None,
        "goodbad": None,
        "goo": None,
        "1": None,
    }
    with judging(echo) as (judge, server):
        as_protocol: Judge = judge
        verdicts = as_protocol.judge(["p"] * len(answers), list(answers))
        assert verdicts.dtype == np.int8
        assert verdicts.tolist() == [verdict or 0 for verdict in answers.values()]
        assert judge.failures == 6
        assert dict(judge.failures_by_reason) == {"unreadable word": 6}
        assert judge.tokens == 8 * len(answers)
        assert judge.requests == len(server.asked) == len(answers)


def test_the_chat_asks_for_one_of_the_words() -> None:
    labels = {"Yes": 1, "No": -1}
    template = "{prompt}? {answer} {answer} {}"
    with judging(lambda asked: chat("yes"), labels=labels, template=template, max_tokens=3) as (
        judge,
        server,
    ):
        assert judge.judge(["Is {answer} it"], ["{prompt}"]).tolist() == [1]
    body = server.asked[0].body
    assert body["messages"][0]["role"] == "system"
    assert body["messages"][0]["content"].endswith("exactly one of these words and nothing else: Yes, No.")
    assert body["messages"][1]["content"] == "Is {answer} it? {prompt} {prompt} {}"
    assert (body["max_tokens"], body["temperature"]) == (3, 0.0)
    assert "logprobs" not in body


@pytest.mark.parametrize(
    ("top", "margin", "verdict"),
    [
        ({"good": 0.6, "bad": 0.3}, 0.0, 1),
        ({"good": 0.3, "bad": 0.6}, 0.0, -1),
        ({"good": 0.6, "bad": 0.3}, 0.69, 1),
        ({"good": 0.6, "bad": 0.3}, 0.70, 0),
        ({"good": 0.4, "bad": 0.4}, 0.0, 0),
        ({"good": 0.3, " Good": 0.2, "bad": 0.4}, 0.0, 1),
        ({"g": 0.2, "b": 0.1, "The": 0.7}, 0.0, 1),
        ({"unsure": 0.5, "bad": 0.4}, 0.0, 0),
        ({"bad": 0.01, "Well": 0.9}, 5.0, -1),  # the other verdicts were not even listed
    ],
)
def test_log_probabilities_decide_where_they_are_asked_for(
    top: dict[str, float], margin: float, verdict: int
) -> None:
    logprobs = chat_logprobs({text: math.log(p) for text, p in top.items()})
    with judging(lambda asked: chat("whatever", logprobs=logprobs), top=5, margin=margin) as (judge, server):
        assert judge.judge(["p"], ["a"]).tolist() == [verdict]
        assert judge.failures == 0
    assert server.asked[0].body["top_logprobs"] == 5


@pytest.mark.parametrize("logprobs", [None, chat_logprobs({"The": -0.1}), chat_logprobs({"": -0.1})])
def test_without_usable_log_probabilities_the_word_decides(logprobs: Json | None) -> None:
    with judging(lambda asked: chat("bad", logprobs=logprobs), top=5) as (judge, _):
        assert judge.judge(["p"], ["a"]).tolist() == [-1]
    with judging(lambda asked: chat("The", logprobs=logprobs), top=5) as (judge, _):
        assert judge.judge(["p"], ["a"]).tolist() == [0]
        assert judge.failures == 1


def test_a_beginning_that_labels_share_speaks_for_neither() -> None:
    top = chat_logprobs({"un": math.log(0.8), "good": math.log(0.1), "unw": math.log(0.05)})
    labels = {"good": 1, "unsound": -1, "unwell": 0}
    with judging(lambda asked: chat("x", logprobs=top), top=5, labels=labels) as (judge, _):
        assert judge.judge(["p"], ["a"]).tolist() == [1]
    shared = {"good": 1, "unsound": -1, "unwell": -1}
    with judging(lambda asked: chat("x", logprobs=top), top=5, labels=shared) as (judge, _):
        assert judge.judge(["p"], ["a"]).tolist() == [-1]


def test_half_of_all_calls_failing_leaves_a_verdict_for_every_pair() -> None:
    faults = [error(500), error(429), error(404), Reply(b"{"), Reply(b"{}" * 99, cut=3), ok({"choices": 1})]

    def answer(asked: Asked) -> Reply:
        chance = random.Random(asked.body["messages"][-1]["content"])
        fault = chance.choice(faults)
        return fault if chance.random() < 0.5 else chat("good")

    with judging(answer) as (judge, _):
        verdicts = judge.judge([f"p{i}" for i in range(200)], ["a"] * 200)
        assert verdicts.shape == (200,)
        assert int((verdicts == 1).sum()) + judge.failures == 200
        assert 60 <= judge.failures <= 140
        assert len(judge.failures_by_reason) == 6


def test_a_failed_verdict_is_asked_for_again_behind_a_cache() -> None:
    replies = [error(500), chat("bad")]
    with judging(lambda asked: replies[min(asked.number, 1)]) as (judge, server):
        cached = CachedJudge(judge)
        assert [cached.judge(["p"], ["a"]).tolist() for _ in range(3)] == [[0], [-1], [-1]]
        assert len(server.asked) == 2
        assert cached.failures == 1


def test_the_version_follows_everything_that_may_change_a_verdict() -> None:
    base = RemoteJudgeConfig(ServerConfig(**SERVER))
    others = [
        replace(base, server=ServerConfig(**{**SERVER, "model": "n"})),
        replace(base, server=ServerConfig(**{**SERVER, "url": "http://127.0.0.1:2"})),
        replace(base, server=ServerConfig(**SERVER, extra={"top_k": 1})),
        replace(base, template="{prompt} {answer}"),
        replace(base, labels={"good": 1, "bad": -1}),
        replace(base, labels={"good": 1, "bad": -1, "unsure": -1}),
        replace(base, top=3),
        replace(base, margin=0.5),
        replace(base, max_tokens=9),
    ]
    versions = []
    for config in [base, *others]:
        judge = RemoteJudge(config)
        versions.append(judge.version)
        judge.close()
    with_articles = RemoteJudge(base, constitution="Be brief.")
    versions.append(with_articles.version)
    with_articles.close()
    assert len(set(versions)) == len(versions)
    same = replace(base, server=ServerConfig(**{**SERVER, "url": "http://127.0.0.1:1/v1/", "timeout_s": 3.0}))
    judge = RemoteJudge(same)
    assert judge.version == versions[0]
    judge.close()


def test_a_constitution_reaches_the_server(tmp_path: Path) -> None:
    path = tmp_path / "articles.yaml"
    path.write_text("articles: [{name: brief, rule: 'too_long:400', verdict: reject, text: Be brief.}]")
    with serving(lambda asked: chat("good")) as http:
        config = RemoteJudgeConfig(ServerConfig(url=http.url, model="m"), constitution=str(path))
        judge = build_remote_judge(config)
        assert judge.judge(["p"], ["a"]).tolist() == [1]
        judge.close()
        assert "Be brief." in http.asked[0].body["messages"][1]["content"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": "{prompt}"}, "no {answer}"),
        ({"template": "{prompt} {answer} {gold}"}, "{gold}"),
        ({"labels": {}}, "no choice"),
        ({"labels": {"good": 1, "Good.": -1}}, "given twice"),
        ({"labels": {"good": 1, " ": -1}}, "empty"),
        ({"labels": {"good": 2, "bad": -1}}, "means 2"),
        ({"labels": {"good": 1, "fine": 1}}, "no choice"),
        ({"top": -1}, "top is -1"),
        ({"margin": float("nan")}, "margin nan"),
        ({"max_tokens": 0}, "max_tokens 0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RemoteJudgeConfig(ServerConfig(**SERVER), **settings)


def test_settings_are_read_as_records() -> None:
    read = TypeAdapter(RemoteJudgeConfig).validate_python
    config = read({"kind": "remote", "server": SERVER, "labels": {"yes": 1, "no": -1}})
    assert config == RemoteJudgeConfig(ServerConfig(**SERVER), labels={"yes": 1, "no": -1})
    with pytest.raises(ValidationError):
        read({"server": SERVER, "lables": {}})


def test_lists_of_different_length_are_refused() -> None:
    with judging(echo) as (judge, server):
        with pytest.raises(InputError, match="1 prompts and 2 partials"):
            judge.judge(["p"], ["a", "b"])
        assert judge.judge([], []).tolist() == []
    assert server.asked == []
