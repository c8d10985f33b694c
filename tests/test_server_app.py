"""The routes of a tiny model, called in this process: shapes, seeds, stops, costs, refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from served import NAME, PROBLEM, log_probabilities, opened, prompt_ids

from tokenzero.policy.student import Student
from tokenzero.selfplay.methods import SampledGame
from tokenzero.server import ServeConfig, create_app
from tokenzero.server.answers import chosen
from tokenzero.server.asking import Order
from tokenzero.server.protocol import CompletionBody
from tokenzero.server.service import Service
from tokenzero.tasks import PublicProblem

TEXT = "the quick brown"
CONFIG = ServeConfig(name=NAME, choices=16, simulations=64, body_mb=0.05, trees=2)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(opened(), CONFIG)) as made:
        yield made


@pytest.fixture(scope="module")
def service(client: TestClient) -> Service:
    app: Any = client.app
    found: Service = app.state.service
    return found


@pytest.fixture(scope="module")
def student(service: Service) -> Student:
    return service.student


def post(client: TestClient, path: str = "/v1/completions", status: int = 200, **body: Any) -> Any:
    answered = client.post(path, json=body)
    assert answered.status_code == status, answered.text
    return answered.json()


def complete(client: TestClient, **body: Any) -> Any:
    return post(client, **{"prompt": TEXT, "seed": 1, "max_tokens": 8, **body})


def texts(made: Any) -> list[str]:
    assert [choice["index"] for choice in made["choices"]] == list(range(len(made["choices"])))
    return [choice["text"] for choice in made["choices"]]


def events(client: TestClient, path: str = "/v1/completions", **body: Any) -> list[Any]:
    """The events of a stream, without the last line that says it is over."""
    answered = client.post(path, json={"seed": 1, "max_tokens": 8, "stream": True, **body})
    assert answered.status_code == 200, answered.text
    assert answered.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answered.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


# ---- plain completions


def test_a_completion_is_a_seeded_sample_of_the_model(client: TestClient, student: Student) -> None:
    made = complete(client)
    assert made["object"] == "text_completion"
    assert (made["model"], made["seed"]) == (NAME, 1)
    assert made == {**complete(client), "id": made["id"], "created": made["created"], "usage": made["usage"]}
    assert texts(complete(client, seed=2)) != texts(made)
    ids = prompt_ids(student, TEXT)
    usage = made["usage"]
    tokens = usage["completion_tokens"]
    assert usage["prompt_tokens"] == len(ids)
    assert usage["total_tokens"] == len(ids) + tokens
    assert usage["ledger"]["prefill_tokens"] == len(ids)
    assert usage["ledger"]["decode_tokens"] == tokens - 1


def test_without_a_seed_one_is_drawn_and_told(client: TestClient) -> None:
    made = complete(client, seed=None)
    assert texts(complete(client, seed=made["seed"])) == texts(made)
    assert complete(client, seed=-1)["seed"] == -1


def test_choices_and_batches_are_the_same_as_alone(client: TestClient) -> None:
    both = complete(client, prompt=[TEXT, "fox"], n=3)
    assert len(set(texts(both))) > 3
    assert texts(both)[:3] == texts(complete(client, n=3))
    assert texts(both)[3:] == texts(complete(client, prompt="fox", n=3))
    assert texts(both)[:1] == texts(complete(client))


def test_prompts_of_ids_are_taken_as_they_are(client: TestClient, student: Student) -> None:
    ids = prompt_ids(student, TEXT)
    assert texts(complete(client, prompt=ids)) == texts(complete(client))
    bare = complete(client, prompt=[ids[1:], ids], temperature=0, n=1)
    assert bare["usage"]["prompt_tokens"] == 2 * len(ids) - 1
    assert texts(bare)[1] == texts(complete(client, temperature=0))[0]


def test_temperature_zero_is_greedy(client: TestClient, student: Student) -> None:
    made = complete(client, temperature=0, logprobs=1)["choices"][0]["logprobs"]
    assert made["token_logprobs"] == [max(top.values()) for top in made["top_logprobs"]]


def test_a_stop_string_ends_the_text_before_it(client: TestClient) -> None:
    whole = texts(complete(client, max_tokens=20))[0]
    stop = whole[5:7]
    made = complete(client, max_tokens=20, stop=["never there", stop])["choices"][0]
    assert made["text"] == whole[: whole.index(stop)]
    assert made["finish_reason"] == "stop"


def test_an_answer_as_long_as_it_may_be(client: TestClient) -> None:
    assert complete(client, max_tokens=1)["choices"][0]["finish_reason"] == "length"
    assert post(client, prompt=TEXT, seed=1)["usage"]["completion_tokens"] <= 16


def test_a_bias_forces_a_token(client: TestClient, student: Student) -> None:
    token = student.tokenizer(" fox", add_special_tokens=False)["input_ids"][0]
    assert texts(complete(client, logit_bias={str(token): 100}, max_tokens=3)) == [" fox" * 3]
    assert post(client, prompt="a", status=400, logit_bias={"99999": 1})["error"]["param"] == "logit_bias"


def test_best_of_draws_more_than_it_gives(client: TestClient) -> None:
    drawn = complete(client, n=6)
    made = complete(client, n=2, best_of=6)
    assert len(made["choices"]) == 2
    assert set(texts(made)) < set(texts(drawn))
    assert made["usage"]["completion_tokens"] == drawn["usage"]["completion_tokens"]


def test_the_likeliest_per_token_are_given() -> None:
    problem = PublicProblem("1", "a")
    games = [
        SampledGame(problem, [1], tokens=[4] * length, value=value)
        for length, value in ((2, -2.0), (1, -3.0), (4, -3.0), (1, -2.5), (1, -2.0), (2, -9.0))
    ]
    body = CompletionBody(prompt=["a", "b"], n=2)
    found = Order(body, [], 3, 1, [], None, 0.0)
    assert [games.index(game) for game in chosen(found, games)] == [0, 2, 3, 4]


# ---- log-probabilities


def test_echo_and_logprobs_are_the_models_own(client: TestClient, student: Student) -> None:
    made = complete(client, echo=True, logprobs=3)
    choice = made["choices"][0]
    logs = choice["logprobs"]
    ids = prompt_ids(student, TEXT)
    assert choice["text"].startswith(TEXT)
    assert logs["token_logprobs"][0] is None
    assert logs["top_logprobs"][0] is None
    assert len(logs["tokens"]) == len(logs["text_offset"]) == len(logs["token_logprobs"])
    assert logs["token_logprobs"][1 : len(ids)] == pytest.approx(log_probabilities(student, ids), abs=1e-4)
    for top in logs["top_logprobs"][1:]:
        assert len(top) == 3
        assert sum(math.exp(value) for value in top.values()) < 1
    alone = complete(client, logprobs=3)["choices"][0]["logprobs"]
    assert alone["token_logprobs"] == pytest.approx(logs["token_logprobs"][len(ids) :])
    assert made["usage"]["ledger"]["prefill_tokens"] == 2 * len(ids) + made["usage"]["completion_tokens"]


def test_no_tokens_are_only_scored(client: TestClient, student: Student) -> None:
    ids = prompt_ids(student, TEXT)[1:]
    made = complete(client, prompt=[ids], max_tokens=0, echo=True, logprobs=1)
    assert texts(made) == [TEXT]
    assert made["choices"][0]["logprobs"]["token_logprobs"][1:] == pytest.approx(
        log_probabilities(student, ids), abs=1e-4
    )
    assert made["usage"]["completion_tokens"] == made["usage"]["ledger"]["decode_tokens"] == 0
    assert made["usage"]["ledger"]["prefill_tokens"] == len(ids)


# ---- chat


def chat(client: TestClient, content: Any = TEXT, **body: Any) -> Any:
    messages = [{"role": "user", "content": content}]
    return post(client, "/v1/chat/completions", **{"messages": messages, "seed": 1, "max_tokens": 8, **body})


def test_a_chat_of_one_message_is_a_completion_of_its_text(client: TestClient) -> None:
    made = chat(client)
    assert made["object"] == "chat.completion"
    message = made["choices"][0]["message"]
    assert message == {"role": "assistant", "content": texts(complete(client))[0], "refusal": None}
    parts = [{"type": "text", "text": "the quick"}, {"type": "text", "text": " brown"}]
    assert chat(client, parts)["choices"] == made["choices"]
    two = [{"role": "system", "content": "the quick"}, {"role": "user", "content": "fox"}]
    joined = complete(client, prompt="the quick\nfox")
    assert chat(client, messages=two)["choices"][0]["message"]["content"] == texts(joined)[0]
    assert chat(client, max_tokens=None, max_completion_tokens=1)["usage"]["completion_tokens"] == 1


def test_a_chat_template_is_used_where_there_is_one(client: TestClient, service: Service) -> None:
    template = (
        "{% for m in messages %}{{ m.content }} {% endfor %}"
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "{% if add_generation_prompt %}fox{% endif %}"
    )
    service.tokenizer.chat_template = template
    try:
        assert chat(client)["usage"]["prompt_tokens"] == len(
            service.tokenizer(f"{TEXT} fox", add_special_tokens=False)["input_ids"]
        )
        refused = post(client, "/v1/chat/completions", 400, messages=[{"role": "system", "content": "a"}])
        assert refused["error"]["param"] == "messages"
        made = post(client, "/tokenize", messages=[{"role": "user", "content": "a"}])
        assert service.tokenizer.decode(made["tokens"]) == "a fox"
    finally:
        service.tokenizer.chat_template = None


def test_chat_log_probabilities(client: TestClient) -> None:
    made = chat(client, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]["content"]
    logs = complete(client, logprobs=2)["choices"][0]["logprobs"]
    assert [entry["logprob"] for entry in made] == pytest.approx(logs["token_logprobs"])
    for entry, name in zip(made, logs["tokens"], strict=True):
        assert entry["token"] == name
        assert len(entry["top_logprobs"]) == 2
        assert name.startswith("bytes:") or bytes(entry["bytes"]).decode() == name
    assert (
        "top_logprobs"
        in post(
            client, "/v1/chat/completions", 400, messages=[{"role": "user", "content": "a"}], top_logprobs=2
        )["error"]["message"]
    )


# ---- streams


def test_a_stream_is_the_answer_in_pieces(client: TestClient) -> None:
    made = complete(client, n=2)
    stream = events(client, prompt=TEXT, n=2)
    for index in (0, 1):
        pieces = [event["choices"][0] for event in stream if event["choices"][0]["index"] == index]
        assert "".join(piece["text"] for piece in pieces) == texts(made)[index]
        reasons = [piece["finish_reason"] for piece in pieces]
        assert reasons == [None] * (len(pieces) - 1) + [made["choices"][index]["finish_reason"]]
    assert len({event["id"] for event in stream}) == 1


def test_a_stream_tells_its_usage_when_asked(client: TestClient) -> None:
    *pieces, last = events(client, prompt=TEXT, stream_options={"include_usage": True})
    assert all(piece["usage"] is None for piece in pieces)
    assert last["choices"] == []
    wanted = complete(client)["usage"]
    for usage in (last["usage"], wanted):
        usage["ledger"].pop("wall_s")
    assert last["usage"] == wanted
    assert all("usage" not in piece for piece in events(client, prompt=TEXT))


def test_a_stream_echoes_and_scores(client: TestClient) -> None:
    made = complete(client, echo=True, logprobs=1)["choices"][0]
    stream = events(client, prompt=TEXT, echo=True, logprobs=1)
    assert "".join(event["choices"][0]["text"] for event in stream) == made["text"]
    logs = stream[-1]["choices"][0]["logprobs"]
    assert logs["tokens"] == made["logprobs"]["tokens"]
    assert logs["token_logprobs"][1:] == pytest.approx(made["logprobs"]["token_logprobs"][1:])


def test_a_stream_stops_before_a_stop_string(client: TestClient) -> None:
    whole = texts(complete(client, max_tokens=20))[0]
    stream = events(client, prompt=TEXT, max_tokens=20, stop=whole[5:7])
    assert "".join(event["choices"][0]["text"] for event in stream) == whole[: whole.index(whole[5:7])]


def test_a_chat_stream_begins_with_the_role(client: TestClient) -> None:
    messages = [{"role": "user", "content": TEXT}]
    stream = events(
        client,
        "/v1/chat/completions",
        messages=messages,
        logprobs=True,
        top_logprobs=1,
        stream_options={"include_usage": True},
    )
    first, *pieces, last, usage = stream
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    content = "".join(piece["choices"][0]["delta"]["content"] for piece in pieces)
    assert content == texts(complete(client))[0]
    assert last["choices"][0]["finish_reason"] in ("stop", "length")
    assert last["choices"][0]["delta"] == {}
    assert usage["usage"]["completion_tokens"] == sum(
        len(piece["choices"][0]["logprobs"]["content"]) for piece in pieces
    )


# ---- search


def test_a_search_object_chooses_the_method(client: TestClient) -> None:
    made = complete(client, prompt=PROBLEM, max_tokens=None, search={"method": "best-of-n", "n": 4})
    choice = made["choices"][0]
    assert choice["search"]["end"] in ("ended", "length")
    assert choice["search"]["value"] in (-1.0, 1.0)
    accepted = choice["search"]["value"] == 1.0
    assert choice["search"]["verified_by"] == ("public" if accepted else None)
    free = complete(client, search={"method": "sample"})
    assert texts(free) == texts(complete(client))
    assert free["choices"][0]["search"]["verified_by"] is None


def test_the_newest_trees_are_kept(client: TestClient) -> None:
    search = {"method": "gumbel", "simulations": 2, "return_tree": True}
    made = [complete(client, prompt=PROBLEM, max_tokens=4, search=search) for _ in range(3)]
    oldest, *kept = [one["choices"][0]["search"]["tree"]["url"] for one in made]
    assert client.get(oldest).status_code == 404
    for url in kept:
        assert client.get(url).text.lstrip().lower().startswith("<!doctype html>")
        assert client.get(f"{url}/json").json()["format"] == "tokenzero-tree"
    assert "tree" not in complete(client, prompt=PROBLEM, search={"simulations": 2})["choices"][0]["search"]


def test_a_budget_of_tokens_is_kept(client: TestClient, student: Student) -> None:
    ids = prompt_ids(student, TEXT)
    made = complete(client, search={"method": "sample", "tokens": len(ids) + 3}, max_tokens=50)
    assert made["choices"][0]["finish_reason"] == "length"
    assert made["choices"][0]["search"]["end"] == "budget"
    assert made["usage"]["ledger"]["decode_tokens"] == 3


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"method": "gumble"}, "'gumbel'"),
        ({"simulation": 3}, "'simulations'"),
        ({"simulations": 65}, "at most 64"),
        ({"simulations": -1}, "simulations"),
        ({"simulations": 1.5}, "simulations"),
        ({"n": 10**30}, "n"),
        ({"method": "beam", "simulations": 3}, "means nothing"),
        ({"deadline_ms": -1}, "deadline_ms"),
        ({"tokens": 0}, "tokens"),
        ({"sampling": {"temperature": -1}}, "temperature"),
        ({"method": "dvts", "delimiter": "x" * 101}, "delimiter"),
        ({"method": "frontier", "granularity": "word"}, "granularity"),
        ([], "object"),
        ("puct", "object"),
    ],
)
def test_a_search_that_cannot_be_is_refused(client: TestClient, search: Any, words: str) -> None:
    error = post(client, prompt=PROBLEM, status=400, search=search)["error"]
    assert words in error["message"]
    assert error["param"] is None or error["param"].startswith("search")


# ---- refusals


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, None),
        ({"prompt": []}, None),
        ({"prompt": [[]]}, None),
        ({"prompt": [1, "a"]}, None),
        ({"prompt": [-1]}, None),
        ({"prompt": [300]}, "prompt"),
        ({"prompt": [10**30]}, None),
        ({"prompt": None}, None),
        ({"prompt": [4] * 161}, "prompt"),
        ({"prompt": [4] * 160}, "prompt"),
        ({"prompt": "a", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 10**12}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 159}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 1.5}, "max_tokens"),
        ({"prompt": "a", "max_tokens": True}, "max_tokens"),
        ({"prompt": "a", "temperature": -0.1}, "temperature"),
        ({"prompt": "a", "temperature": "1"}, "temperature"),
        ({"prompt": "a", "top_p": 0}, "top_p"),
        ({"prompt": "a", "top_k": -1}, "top_k"),
        ({"prompt": "a", "n": 0}, "n"),
        ({"prompt": "a", "n": 17}, "n"),
        ({"prompt": ["a"] * 9, "n": 2}, "n"),
        ({"prompt": "a", "n": 3, "best_of": 2}, "best_of"),
        ({"prompt": "a", "best_of": 2, "stream": True}, "best_of"),
        ({"prompt": "a", "seed": 1 << 63}, "seed"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "stop": ["a"] * 17}, None),
        ({"prompt": "a", "stop": ""}, None),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "logit_bias": {"x": 1}}, None),
        ({"prompt": "a", "logit_bias": {"4": 101}}, None),
        ({"prompt": "a", "tool": 1}, "tool"),
        ({"prompt": "a", "stream_options": {}}, "stream_options"),
        ({"prompt": "a", "stream": True, "max_tokens": 0}, "max_tokens"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    client: TestClient, body: dict[str, Any], param: str | None
) -> None:
    error = post(client, status=400, **body)["error"]
    assert error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]
    assert param is None or error["param"] == param


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"",
        b"[]",
        b"null",
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "a", "model": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"prompt": "a", "": 1}',
        b'{"prompt": "a", "Not A Name": 1}',
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "temperature": 1e999}',
        b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": ' + b"[" * 5000,
        b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"prompt": "a", "search": {"\\ud800": 1}}',
        b'{"prompt": "a", "search": {"delimiter": "\\ud800"}}',
    ],
)
def test_bodies_that_are_no_request(client: TestClient, content: bytes) -> None:
    for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
        answered = client.post(path, content=content, headers={"Content-Type": "application/json"})
        assert answered.status_code == 400, (path, answered.text)
        assert answered.json()["error"]["message"]


def test_bodies_that_are_too_large(client: TestClient) -> None:
    large = {"prompt": "a" * 60_000}
    assert post(client, status=413, **large)["error"]["code"] == "body_too_large"
    pieces = (b" " * 10_000 for _ in range(100))  # sent in chunks, without a length
    assert client.post("/v1/completions", content=pieces).status_code == 413


def test_another_model_a_wrong_path_and_a_wrong_verb(client: TestClient) -> None:
    assert complete(client, model=NAME)["model"] == NAME
    error = post(client, status=404, prompt="a", model="gpt-4")["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert client.get("/v1/models/gpt-4").status_code == 404
    assert client.get("/nothing").json()["error"]["type"] == "invalid_request_error"
    assert client.get("/v1/completions").status_code == 405
    assert client.get("/trees/none").status_code == 404


# ---- the other routes


def test_models_health_and_documentation(client: TestClient) -> None:
    assert client.get("/v1/models").json()["data"][0]["id"] == NAME
    assert client.get(f"/v1/models/{NAME}").json()["max_model_len"] == 160
    assert client.get("/health").json() == {"status": "ok"}
    schema = client.get("/openapi.json").json()
    assert "422" not in schema["paths"]["/v1/completions"]["post"]["responses"]
    search = json.dumps(schema["components"]["schemas"]["CompletionBody"]["properties"]["search"])
    assert "deadline_ms" in search
    assert "simulations" in search
    assert "$ref" not in search
    assert client.get("/docs").status_code == 200


def test_tokenizer_routes(client: TestClient, student: Student) -> None:
    made = post(client, "/tokenize", prompt=TEXT, return_token_strs=True)
    assert made["tokens"] == student.tokenizer(TEXT)["input_ids"]
    assert made["count"] == len(made["tokens"]) == len(made["token_strs"])
    bare = post(client, "/tokenize", prompt="<eos>", add_special_tokens=False)
    assert bare["tokens"] == [student.eos_id]
    ids = student.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert post(client, "/detokenize", tokens=ids) == {"prompt": TEXT}
    assert post(client, "/detokenize", tokens=[]) == {"prompt": ""}
    assert post(client, "/detokenize", status=400, tokens=[300])["error"]["param"] == "tokens"
    assert post(client, "/tokenize", status=400)["error"]["param"] == "prompt"
    info = client.get("/tokenizer_info").json()
    assert (info["eos_token"], info["bos_token"], info["chat_template"]) == ("<eos>", "<bos>", None)


def metric(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_metrics_count_what_was_done(client: TestClient, student: Student) -> None:
    names = {
        "requests": 'tokenzero_requests_total{code="200",route="/v1/completions"}',
        "refused": 'tokenzero_requests_total{code="400",route="/v1/completions"}',
        "prefill": 'tokenzero_spent_total{field="prefill_tokens"}',
        "decode": 'tokenzero_spent_total{field="decode_tokens"}',
        "rows": "tokenzero_forward_rows_sum",
        "answers": "tokenzero_answers_total",
    }
    before = {key: metric(client, name) for key, name in names.items()}
    usage = complete(client, n=2)["usage"]
    post(client, status=400, prompt="")
    after = {key: metric(client, name) - before[key] for key, name in names.items()}
    ledger = usage["ledger"]
    assert after == {
        "requests": 1,
        "refused": 1,
        "prefill": ledger["prefill_tokens"],
        "decode": ledger["decode_tokens"],
        "rows": 2 + ledger["decode_tokens"],
        "answers": 2,
    }
    assert metric(client, "tokenzero_requests_in_flight") == 1  # the one for the page itself
    assert metric(client, "tokenzero_answers_in_play") == 0
