"""A tiny checkpoint, and real HTTP servers of it on free ports of this machine, for tests with real clients.

The weights are random: what is tested is what goes over the wire, not how good an answer is. The tokenizer is
a byte-level one, so any text is a prompt, and answers hold bytes that are no UTF-8 by themselves.
"""

from __future__ import annotations

import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import torch
import uvicorn
from tiny import plain

from tokenzero.checkpoint import Opened, open_model
from tokenzero.policy.student import Student
from tokenzero.policy.tiers import EngineConfig
from tokenzero.policy.tokenizers import encode_prompt, train_bpe
from tokenzero.server import ServeConfig, create_app

MODEL = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 160,
    "initializer_range": 0.2,
}
NAME = "tiny"
TEXTS = ["10 9 1 1 -> 20 : 10 + 9 19 1 / 1 1 19 + 1 20", "the quick brown fox jumps over the lazy dog"]
PROBLEM = "10 9 1 1 -> 20 :"
"""A prompt of the checkpoint's task."""
ENDS_S = 30.0


class Served(NamedTuple):
    """A server that runs in a thread of this process: its address, and the model inside it."""

    url: str
    opened: Opened

    @property
    def v1(self) -> str:
        """What OpenAI clients call the base URL."""
        return f"{self.url}/v1"

    @property
    def student(self) -> Student:
        """The model itself; reading its weights from another thread is safe, nothing trains them."""
        return self.opened.parts.student

    def metrics(self) -> dict[str, float]:
        """The Prometheus page: each sample by its name and labels, as they are written there."""
        page = httpx.get(f"{self.url}/metrics").text
        lines = [line.rsplit(" ", 1) for line in page.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in lines}


@cache
def _saved() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    owner = tempfile.TemporaryDirectory()
    directory = Path(owner.name) / NAME
    student = Student.from_config(MODEL, train_bpe(TEXTS, 300), seed=5)
    student.save(directory)
    (directory / "tokenzero.json").write_text(json.dumps({"task": {"name": "countdown"}}))
    return owner, directory


def checkpoint() -> Path:
    """The directory of the tiny checkpoint, made once a process. Its task is Countdown."""
    return _saved()[1]


def opened() -> Opened:
    """The tiny checkpoint in an engine of its own, as the server opens one: answers do not depend on load."""
    return open_model(checkpoint(), engine=EngineConfig(batch_invariant=True))


@contextmanager
def serving(config: ServeConfig | None = None) -> Iterator[Served]:
    """A real server of the tiny checkpoint, until the block ends."""
    model = opened()
    app = create_app(model, config or ServeConfig(name=NAME))
    listener = socket.create_server(
        ("127.0.0.1", 0)
    )  # clients may connect from now on: they wait in its queue
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", model)
    finally:
        server.should_exit = True
        thread.join(ENDS_S)
        listener.close()
        assert not thread.is_alive(), "the server did not end"


def prompt_ids(student: Student, text: str) -> list[int]:
    """What the server makes of a prompt."""
    return encode_prompt(student.tokenizer, text)


def log_probabilities(student: Student, tokens: list[int]) -> list[float]:
    """log P(tokens[i] | tokens[:i]) in nats for i = 1, 2, ..., by one plain transformers forward."""
    with torch.no_grad():
        logits: Any = student.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].double()
    chosen = torch.log_softmax(logits, -1)[:-1].gather(-1, torch.tensor(tokens[1:])[:, None])
    return [float(value) for value in chosen[:, 0]]


def greedy_tokens(student: Student, prompt: list[int], count: int) -> list[int]:
    """The likeliest tokens one by one, without a cache; they end with the end mark. The other special tokens
    are no text and never drawn.
    """
    tokens = list(prompt)
    never = [token for token in student.tokenizer.all_special_ids if token != student.eos_id]
    while len(tokens) < len(prompt) + count and (len(tokens) == len(prompt) or tokens[-1] != student.eos_id):
        logits, _ = plain(student, tokens)
        logits[never] = -torch.inf
        tokens.append(int(logits.argmax()))
    return tokens[len(prompt) :]
