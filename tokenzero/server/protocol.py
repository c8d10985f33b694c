"""The bodies of requests: every field that clients may send, with its range.

A field that is not here is refused, so that nobody believes in an option that does nothing; a few that
OpenAI's clients send and that change no answer are taken and ignored. Answers are plain dictionaries, made
in ``completions`` and ``chat``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from tokenzero.selfplay.methods import MethodConfig
from tokenzero.server.errors import nearest

LONGEST_STOP = 1000
MOST_STOPS = 16
MOST_TOKENS = 1 << 24
_METHOD = TypeAdapter(MethodConfig)
_OWN = ("deadline_ms", "tokens", "return_tree")


@dataclass(frozen=True)
class SearchRequest:
    """The ``search`` object: a method with its options, ``deadline_ms`` after which the best answer so far is
    given, ``tokens`` that may be forwarded for it, and whether its tree is wanted.
    """

    method: MethodConfig
    deadline_ms: float | None = None
    tokens: int | None = None
    return_tree: bool = False


def _read_search(value: Any) -> SearchRequest | None:
    """Raises ValueError with one line for what cannot be understood."""
    if value is None or isinstance(value, SearchRequest):
        return value
    if not isinstance(value, dict):
        raise ValueError('give an object, such as {"method": "gumbel", "simulations": 32}')
    options = [f.name for f in fields(MethodConfig)]
    for name in value:
        if name not in options and name not in _OWN:
            raise ValueError(f"search has no option {name!r}; {nearest(str(name), [*options, *_OWN])}")
    own = {name: value[name] for name in _OWN if value.get(name) is not None}
    try:
        budget = _Budget.model_validate(own)
        given = {name: option for name, option in value.items() if name not in _OWN and option is not None}
        method = _METHOD.validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{where}: {message}" if where else message) from error
    return SearchRequest(method, budget.deadline_ms, budget.tokens, budget.return_tree)


def _search_schema() -> dict[str, Any]:
    """What the documentation says of the ``search`` object."""
    schema = _METHOD.json_schema()
    definitions = schema.pop("$defs", {})
    properties = {**schema["properties"], **_Budget.model_json_schema()["properties"]}
    text = json.dumps({"type": "object", "additionalProperties": False, "properties": properties})
    for name, definition in definitions.items():  # a definition of its own would be out of reach there
        text = text.replace(json.dumps({"$ref": f"#/$defs/{name}"})[1:-1], json.dumps(definition)[1:-1])
    described: dict[str, Any] = json.loads(text)
    return {"anyOf": [described, {"type": "null"}], "title": "Search"}


def _valid_unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("not valid Unicode text; send UTF-8") from error
    return text


Text = Annotated[str, AfterValidator(_valid_unicode)]
StopText = Annotated[Text, Field(min_length=1, max_length=LONGEST_STOP)]
Stops = StopText | Annotated[list[StopText], Field(max_length=MOST_STOPS)] | None
TokenId = Annotated[int, Field(ge=0, le=1 << 31)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
BiasedToken = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Budget(_Strict):
    deadline_ms: float | None = Field(None, gt=0, le=86_400_000, allow_inf_nan=False)
    tokens: int | None = Field(None, ge=1, le=1 << 40)
    return_tree: bool = False


class StreamOptions(_Strict):
    """``include_usage``: one more piece at the end with the usage. ``include_obfuscation`` is ignored."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class Sampled(_Strict):
    """What completions and chat have alike."""

    model: Text | None = Field(None, max_length=1000)
    n: int | None = Field(None, ge=1, le=4096)
    max_tokens: int | None = Field(None, ge=0, le=MOST_TOKENS)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=0, le=1 << 31)
    min_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    repetition_penalty: float | None = Field(None, gt=0, le=100, allow_inf_nan=False)
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[BiasedToken, Bias], Field(max_length=1024)] | None = None
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stop: Stops = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    search: Annotated[
        SearchRequest | None, BeforeValidator(_read_search), WithJsonSchema(_search_schema())
    ] = None
    user: Any = Field(None, description="taken and ignored")

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def choices(self) -> int:
        """Answers to each prompt."""
        return 1 if self.n is None else self.n

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionBody(Sampled):
    """Body of ``/v1/completions``. ``prompt``: text, token ids, or a list of either."""

    prompt: (
        Text
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[Text], Field(min_length=1)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1)]
    )
    best_of: int | None = Field(None, ge=1, le=4096)
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=20)
    suffix: Annotated[Text, Field(max_length=0)] | None = Field(None, description="not supported")


class ContentPart(_Strict):
    """A piece of a message; only text is understood."""

    type: Literal["text"]
    text: Text


class Message(BaseModel):
    """One message of a chat. Fields that are empty in a message with nothing but text are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[ContentPart]
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = Field(None, description="not supported")

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ResponseFormat(_Strict):
    """Only text is written."""

    type: Literal["text"]


class ChatBody(Sampled):
    """Body of ``/v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1, max_length=4096)
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = Field(None, description="not supported")
    tool_choice: Literal["none", "auto"] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = Field(None, description="not supported")
    modalities: list[Literal["text"]] | None = None
    metadata: Any = Field(None, description="taken and ignored")
    parallel_tool_calls: Any = Field(None, description="taken and ignored")
    prompt_cache_key: Any = Field(None, description="taken and ignored")
    safety_identifier: Any = Field(None, description="taken and ignored")
    service_tier: Any = Field(None, description="taken and ignored")
    store: Any = Field(None, description="taken and ignored")


class TokenizeBody(_Strict):
    """Body of ``/tokenize``: a ``prompt``, or the ``messages`` of a chat."""

    model: Text | None = Field(None, max_length=1000)
    prompt: Text | None = None
    messages: list[Message] | None = Field(None, min_length=1, max_length=4096)
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    return_token_strs: bool | None = None


class DetokenizeBody(_Strict):
    """Body of ``/detokenize``."""

    model: Text | None = Field(None, max_length=1000)
    tokens: list[TokenId]
