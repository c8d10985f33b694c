"""The official ``openai`` client, unmodified, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest
from served import NAME, PROBLEM, Served, greedy_tokens, log_probabilities, prompt_ids, serving

from tokenzero.server import ServeConfig

TEXT = "the quick brown"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving() as served:
        yield served


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[openai.OpenAI]:
    with _client(server) as made:
        yield made


def _client(server: Served, key: str = "any") -> openai.OpenAI:
    return openai.OpenAI(base_url=server.v1, api_key=key, max_retries=0)


def _somewhere_in(text: str) -> str:
    """Two characters of ``text``, not at its beginning."""
    return next(text[i : i + 2] for i in range(4, len(text) - 2) if text[i : i + 2].isascii())


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).object == "model"


# ---- completions


def test_a_greedy_completion_is_the_models_likeliest_text(client: openai.OpenAI, server: Served) -> None:
    made = client.completions.create(model=NAME, prompt=TEXT, max_tokens=12, temperature=0)
    prompt = prompt_ids(server.student, TEXT)
    wanted = greedy_tokens(server.student, prompt, 12)
    ended = wanted[-1] == server.student.eos_id
    assert made.choices[0].text == server.student.tokenizer.decode(wanted, skip_special_tokens=True)
    assert made.choices[0].finish_reason == ("stop" if ended else "length")
    assert made.usage.prompt_tokens == len(prompt)
    assert made.usage.completion_tokens == len(wanted)
    assert made.usage.total_tokens == len(prompt) + len(wanted)


def test_a_seed_gives_the_same_answer_again_and_another_seed_another(client: openai.OpenAI) -> None:
    def text(seed: int) -> str:
        return client.completions.create(model=NAME, prompt=TEXT, max_tokens=24, seed=seed).choices[0].text

    assert text(3) == text(3)
    assert len({text(seed) for seed in range(5)}) > 1


def test_a_stream_says_what_a_plain_answer_says(client: openai.OpenAI) -> None:
    for seed in range(6):  # some of these answers hold bytes that are no characters by themselves
        plain = client.completions.create(model=NAME, prompt=TEXT, max_tokens=24, seed=seed)
        chunks = list(
            client.completions.create(
                model=NAME,
                prompt=TEXT,
                max_tokens=24,
                seed=seed,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
        ends = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
        assert "".join(c.choices[0].text for c in chunks if c.choices) == plain.choices[0].text
        assert ends == [plain.choices[0].finish_reason]
        assert [u.completion_tokens for u in usages] == [plain.usage.completion_tokens]
        assert len(chunks) > 2, "a stream in one piece is no stream"


def test_prompts_and_choices_are_numbered_prompt_by_prompt(client: openai.OpenAI) -> None:
    prompts = [TEXT, "lazy dog", "fox"]
    made = client.completions.create(model=NAME, prompt=prompts, n=3, max_tokens=8, seed=1)
    assert [choice.index for choice in made.choices] == list(range(9))
    alone = client.completions.create(model=NAME, prompt=prompts[0], n=3, max_tokens=8, seed=1)
    assert [c.text for c in made.choices[:3]] == [c.text for c in alone.choices]
    assert len({choice.text for choice in alone.choices}) > 1, "choices have random streams of their own"


def test_token_ids_are_prompts_too(client: openai.OpenAI, server: Served) -> None:
    ids = prompt_ids(server.student, TEXT)
    text = client.completions.create(model=NAME, prompt=TEXT, max_tokens=10, temperature=0).choices[0].text
    alone = client.completions.create(model=NAME, prompt=ids, max_tokens=10, temperature=0)
    several = client.completions.create(model=NAME, prompt=[ids, ids], max_tokens=10, temperature=0)
    assert [alone.choices[0].text, *(c.text for c in several.choices)] == [text] * 3


def test_an_answer_ends_before_a_stop_string(client: openai.OpenAI) -> None:
    whole = client.completions.create(model=NAME, prompt=TEXT, max_tokens=40, seed=2).choices[0].text
    stop = _somewhere_in(whole)
    cut = client.completions.create(model=NAME, prompt=TEXT, max_tokens=40, seed=2, stop=[stop, "never so"])
    assert cut.choices[0].text == whole.split(stop)[0]
    assert cut.choices[0].finish_reason == "stop"
    pieces = client.completions.create(model=NAME, prompt=TEXT, max_tokens=40, seed=2, stop=stop, stream=True)
    assert "".join(chunk.choices[0].text for chunk in pieces if chunk.choices) == whole.split(stop)[0]


def test_log_probabilities_of_the_prompt_are_the_models_own(client: openai.OpenAI, server: Served) -> None:
    ids = prompt_ids(server.student, "the lazy dog jumps")
    made = client.completions.create(model=NAME, prompt=ids, max_tokens=0, echo=True, logprobs=2)
    found = made.choices[0].logprobs
    assert found.token_logprobs[0] is None
    assert found.top_logprobs[0] is None
    assert found.token_logprobs[1:] == pytest.approx(log_probabilities(server.student, ids), abs=1e-4)
    assert [len(top) for top in found.top_logprobs[1:]] == pytest.approx([2.5] * (len(ids) - 1), abs=0.5)
    assert len(found.tokens) == len(found.text_offset) == len(ids)
    assert made.usage.completion_tokens == 0


def test_log_probabilities_of_an_answer_are_the_models_own(client: openai.OpenAI, server: Served) -> None:
    prompt = prompt_ids(server.student, TEXT)
    answer = greedy_tokens(server.student, prompt, 10)
    wanted = log_probabilities(server.student, prompt + answer)
    for echo, first in ((False, len(prompt)), (True, 1)):
        made = client.completions.create(
            model=NAME, prompt=TEXT, max_tokens=10, temperature=0, logprobs=1, echo=echo
        )
        found = made.choices[0].logprobs
        assert found.token_logprobs[first if echo else 0 :] == pytest.approx(wanted[first - 1 :], abs=1e-4)
        assert sorted(found.text_offset) == found.text_offset


# ---- chat


def test_chat_plain_and_streamed_agree(client: openai.OpenAI) -> None:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": TEXT}]
    made = client.chat.completions.create(model=NAME, messages=messages, max_completion_tokens=16, seed=4)
    assert made.choices[0].message.role == "assistant"
    chunks = list(
        client.chat.completions.create(
            model=NAME, messages=messages, max_completion_tokens=16, seed=4, stream=True
        )
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == made.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == made.choices[0].finish_reason
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_stream_helper_of_the_client_understands_a_stream(client: openai.OpenAI) -> None:
    asked = {"model": NAME, "messages": [{"role": "user", "content": TEXT}], "max_tokens": 40, "seed": 4}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    stop = _somewhere_in(whole)  # the helper calls an answer that ends by its length an error
    with client.chat.completions.stream(**asked, stop=stop) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == whole.split(stop)[0]


def test_chat_gives_log_probabilities_with_alternatives(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(
        model=NAME,
        messages=[{"role": "user", "content": [{"type": "text", "text": TEXT}]}],
        max_tokens=6,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
        n=2,
    )
    for choice in made.choices:
        assert choice.logprobs.content
        for entry in choice.logprobs.content:
            assert len(entry.top_logprobs) == 3
            assert (
                max(top.logprob for top in entry.top_logprobs) == entry.logprob
            )  # greedy took the likeliest
            assert entry.logprob <= 0
            assert bytes(entry.bytes)


# ---- search


def test_a_search_is_asked_for_in_the_body(client: openai.OpenAI) -> None:
    made = client.completions.create(
        model=NAME,
        prompt=PROBLEM,
        max_tokens=20,
        seed=0,
        extra_body={"search": {"method": "frontier", "simulations": 8}},
    )
    ledger = made.usage.to_dict()["ledger"]
    assert isinstance(ledger, dict)
    assert ledger["simulations"] >= 1
    assert ledger["verifier_calls"] >= 1
    about = made.choices[0].to_dict()["search"]
    assert isinstance(about, dict)
    assert about["simulations"] == ledger["simulations"]


@pytest.mark.parametrize("method", ["gumbel", "puct", "best-of-n", "beam", "self-consistency", "greedy"])
def test_every_method_answers_and_repeats_itself(client: openai.OpenAI, method: str) -> None:
    budget = {"simulations": 4} if method in ("gumbel", "puct") else {"n": 3} if method != "greedy" else {}

    def text() -> str:
        made = client.chat.completions.create(
            model=NAME,
            messages=[{"role": "user", "content": TEXT}],
            max_tokens=6,
            seed=7,
            extra_body={"search": {"method": method, **budget}},
        )
        return made.choices[0].message.content or ""

    assert text() == text()


# ---- refusals


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": -1},
        {"temperature": -0.5},
        {"n": 0},
        {"n": 10**9},
        {"top_p": 2.0},
        {"prompt": [10**9]},
        {"prompt": ""},
        {"prompt": "fox " * 200},
        {"max_tokens": 10**12},
        {"extra_body": {"search": {"method": "gumble"}}},
        {"extra_body": {"search": {"simulation": 4}}},
    ],
    ids=lambda wrong: str(wrong)[:40],
)
def test_wrong_parameters_are_bad_requests(client: openai.OpenAI, wrong: dict[str, object]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{"model": NAME, "prompt": TEXT, "max_tokens": 4, **wrong})
    assert caught.value.body["message"]


def test_another_models_name_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="gpt-5", prompt=TEXT)


def test_a_missing_or_wrong_key_is_an_authentication_error() -> None:
    with serving(ServeConfig(name=NAME, api_keys=("right", "also right"))) as server:
        for key in ("right", "also right"):
            with _client(server, key) as client:
                assert client.completions.create(model=NAME, prompt=TEXT, max_tokens=1).choices
        for key in ("wrong", "righ", "rightt"):
            with _client(server, key) as client, pytest.raises(openai.AuthenticationError):
                client.completions.create(model=NAME, prompt=TEXT, max_tokens=1)


def test_a_full_queue_is_a_rate_limit_and_says_when_to_return() -> None:
    async def crowd(server: Served) -> list[object]:
        async with openai.AsyncOpenAI(base_url=server.v1, api_key="any", max_retries=0) as client:
            asked = [
                client.completions.create(model=NAME, prompt=TEXT, max_tokens=100, seed=seed)
                for seed in range(40)
            ]
            return await asyncio.gather(*asked, return_exceptions=True)

    with serving(ServeConfig(name=NAME, places=1, waiting=1)) as server:
        answers = asyncio.run(crowd(server))
        refused = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
        served = [answer for answer in answers if isinstance(answer, openai.types.Completion)]
        assert refused
        assert served
        assert len(refused) + len(served) == len(answers), "nothing else may happen"
        assert all(int(error.response.headers["retry-after"]) >= 1 for error in refused)
        with _client(server) as client:
            assert client.completions.create(model=NAME, prompt=TEXT, max_tokens=1).choices


# ---- many at once


def test_answers_do_not_depend_on_who_else_asks(server: Served, client: openai.OpenAI) -> None:
    def body(seed: int) -> dict[str, object]:
        search = [None, {"method": "gumbel", "simulations": 4}, {"method": "best-of-n", "n": 2}][seed % 3]
        extra = {} if search is None else {"extra_body": {"search": search}}
        return {"model": NAME, "prompt": TEXT[: 4 + seed], "max_tokens": 8, "seed": seed, **extra}

    async def together() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.v1, api_key="any", max_retries=0) as crowd:
            made = await asyncio.gather(*(crowd.completions.create(**body(seed)) for seed in range(24)))
            return [answer.choices[0].text for answer in made]

    alone = [client.completions.create(**body(seed)).choices[0].text for seed in range(24)]
    assert asyncio.run(together()) == alone
