"""``/tokenize``, ``/detokenize`` and ``/tokenizer_info``, as vLLM's server has them and lm-evaluation-harness
asks for them.

Here a text outside the vocabulary is no mistake: the answer says how the tokenizer reads it.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from tokenzero.server.chat import prompt_of
from tokenzero.server.errors import refused
from tokenzero.server.protocol import DetokenizeBody, TokenizeBody
from tokenzero.server.service import Service


def routes(service: Service, documented: dict[int | str, dict[str, Any]]) -> APIRouter:
    """The three routes."""
    router = APIRouter()
    tokenizer = service.tokenizer

    @router.post("/tokenize", responses=documented)
    def tokenize(body: TokenizeBody) -> dict[str, Any]:
        """Token ids of a text or of the messages of a chat."""
        service.check_model(body.model)
        if (body.prompt is None) == (body.messages is None):
            raise refused("give either prompt or messages", "prompt")
        if body.messages is not None:
            ids = list(prompt_of(service, body.messages, begin_answer=body.add_generation_prompt).ids)
        else:
            ids = list(tokenizer(body.prompt, add_special_tokens=body.add_special_tokens)["input_ids"])
        found = {"count": len(ids), "max_model_len": service.room, "tokens": ids}
        names = tokenizer.convert_ids_to_tokens(ids) if body.return_token_strs else None
        return {**found, "token_strs": names}

    @router.post("/detokenize", responses=documented)
    def detokenize(body: DetokenizeBody) -> dict[str, str]:
        """The text of token ids, special tokens included."""
        service.check_model(body.model)
        known = service.student.vocab_size
        if body.tokens and max(body.tokens) >= known:
            raise refused(f"token id {max(body.tokens)} is none; there are {known}", "tokens")
        named = [token for token in body.tokens if token < len(tokenizer)]
        return {"prompt": str(tokenizer.decode(named))}

    @router.get("/tokenizer_info")
    def tokenizer_info() -> dict[str, Any]:
        """What kind of tokenizer it is, with its special tokens and its chat template."""
        return {
            "tokenizer_class": type(tokenizer).__name__,
            "vocab_size": len(tokenizer),
            "model_max_length": service.room,
            "bos_token": tokenizer.bos_token,
            "eos_token": tokenizer.eos_token,
            "pad_token": tokenizer.pad_token,
            "unk_token": tokenizer.unk_token,
            "chat_template": tokenizer.chat_template,
        }

    return router
