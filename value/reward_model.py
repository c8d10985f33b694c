"""The reward model: a Hugging Face encoder or causal backbone with one scalar output, as a scorer of answers.

It is transformers' own sequence classifier with one label, so that its directory opens with
``AutoModelForSequenceClassification`` and models of others open here. It does not train
(value/reward_training.py), says nothing of how good it is (value/reward_metrics.py) and draws no line between
good and bad answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tokenzero.mcts.errors import InputError
from tokenzero.policy.tokenizers import load_tokenizer, train_bpe

SETTINGS_FILE = "reward_model.json"
TEMPLATES = ("chat", "pair", "plain")
_SMALLEST = 8
_FORMAT = 1


@dataclass(frozen=True)
class RewardSettings:
    """How a prompt and an answer become one sequence; saved with the model, which is nothing without it.

    ``template``: "chat" is the tokenizer's chat template, the prompt as the user's turn and the answer as the
    assistant's; "pair" its form for two texts ([CLS] prompt [SEP] answer [SEP]); "plain" the prompt,
    ``joiner`` and the answer as one text. None takes the first of these that the tokenizer has.
    ``max_tokens``: longer sequences lose their beginning, so that the answer's end is what stays.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    template: str | None = None
    joiner: str = "\n"
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        if self.template is not None and self.template not in TEMPLATES:
            raise InputError(
                f"reward model: template is {self.template!r}; choose one of {', '.join(TEMPLATES)}"
            )
        if not isinstance(self.joiner, str):
            raise InputError(f"reward model: joiner is {self.joiner!r}; give a text, it may be empty")
        if not isinstance(self.max_tokens, int) or self.max_tokens < _SMALLEST:
            raise InputError(
                f"reward model: max_tokens is {self.max_tokens}; give a whole number of at least {_SMALLEST}"
            )


class Row(NamedTuple):
    """Token ``ids`` of a sequence, and ``types`` that tell its texts apart (empty where a model has none)."""

    ids: list[int]
    types: list[int]


class RewardModel:
    """A sequence classifier with one output, and its tokenizer; both are owned here.

    ``tokens`` counts those that were forwarded to score, padding left out. ``model`` is always in evaluation
    mode, in training too: dropout would make the difference of two rewards noise. Who changes its weights
    calls `weights_changed`.

    Raises InputError for a model with more than one output, or a tokenizer without any token to pad with.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        settings: RewardSettings | None = None,
    ) -> None:
        if model.config.num_labels != 1:
            raise InputError(
                f"reward model: {type(model).__name__} has {model.config.num_labels} outputs; "
                "give a classifier with one, or train one from this model"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.tokens = 0
        self._version: str | None = None
        tokenizer.truncation_side = "left"
        tokenizer.padding_side = "right"
        self._pad = _padding(tokenizer)
        model.config.get_text_config().pad_token_id = (
            self._pad
        )  # causal classifiers read the last token before
        if getattr(model.config, "use_cache", False):
            model.config.use_cache = False
        settings = RewardSettings() if settings is None else settings
        self.settings = replace(settings, template=settings.template or _first_template(tokenizer))
        self._limit = min(self.settings.max_tokens, _positions(model), tokenizer.model_max_length)
        self._check_template()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def version(self) -> str:
        """Changes whenever a score may: a hash of the weights, the tokenizer and the settings."""
        if self._version is None:
            digest = hashlib.sha256(json.dumps(asdict(self.settings), sort_keys=True).encode())
            digest.update(f"{self._limit}\0{self.tokenizer.chat_template}".encode())
            digest.update(self.tokenizer.backend_tokenizer.to_str().encode())
            for name, tensor in self.model.state_dict().items():
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
            self._version = digest.hexdigest()[:16]
        return self._version

    def weights_changed(self) -> None:
        """Say that the weights are not what they were."""
        self._version = None

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.float32]:
        """Rewards of L answers, f32 [L], any real numbers: only their differences mean something.

        Same model, same lists, same bits; a row's score does not depend on the rows beside it by more than
        rounding. Raises InputError when the lists differ in length, a text is not valid Unicode, or a reward
        is not finite.
        """
        if len(prompts) != len(answers):
            raise InputError(f"reward model got {len(prompts)} prompts and {len(answers)} answers: one each")
        return self.score_rows([self.encode(*pair) for pair in zip(prompts, answers, strict=True)])

    @torch.inference_mode()
    def score_rows(self, rows: Sequence[Row], cells: int = 16_384) -> NDArray[np.float32]:
        """`score` of sequences already encoded, in batches of about ``cells`` tokens, padding included."""
        scores = np.zeros(len(rows), np.float32)
        order = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))  # little to pad
        while order:
            size = max(1, cells // len(rows[order[-1]].ids))
            order, part = order[:-size], order[-size:]
            batch = [rows[index] for index in part]
            scores[part] = self.rewards(batch).float().cpu().numpy()
            self.tokens += sum(len(row.ids) for row in batch)
        if not np.isfinite(scores).all():
            raise InputError("the reward model gives rewards that are not finite; its weights are damaged")
        return scores

    def rewards(self, rows: Sequence[Row]) -> Tensor:
        """Rewards [B] of one batch, with their gradient where one is asked for."""
        logits: Tensor = self.model(**self.batch(rows)).logits
        return logits[:, 0]

    def batch(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """What the model reads: ``input_ids`` and ``attention_mask`` i64 [B, T], padded on the right, and
        ``token_type_ids`` where it has them.
        """
        width = max(len(row.ids) for row in rows)
        inputs = {
            "input_ids": [row.ids + [self._pad] * (width - len(row.ids)) for row in rows],
            "attention_mask": [[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows],
        }
        if rows[0].types:
            inputs["token_type_ids"] = [row.types + [0] * (width - len(row.types)) for row in rows]
        return {name: torch.tensor(table, device=self.device) for name, table in inputs.items()}

    def encode(self, prompt: str, answer: str) -> Row:
        """The sequence of a prompt and an answer, its beginning cut off where it is too long. Raises
        InputError for text that is not valid Unicode.
        """
        try:
            encoding = self._encoded(prompt, answer)
        except (TypeError, UnicodeEncodeError) as error:  # lone surrogates, which JSON lets through
            raise InputError(f"reward model: not valid Unicode text ({error})") from error
        row = Row(list(encoding["input_ids"]), list(encoding.get("token_type_ids", ())))
        return row if row.ids else Row([self._pad], [0] * ("token_type_ids" in encoding))  # no text at all

    def _encoded(self, prompt: str, answer: str) -> Mapping[str, list[int]]:
        cut: dict[str, Any] = {"truncation": True, "max_length": self._limit}
        encoding: Mapping[str, list[int]]
        if self.settings.template == "chat":
            text = self._chat(prompt, answer)  # it has its special tokens already
            encoding = self.tokenizer(text, add_special_tokens=False, **cut)
        elif self.settings.template == "plain":
            encoding = self.tokenizer(prompt + self.settings.joiner + answer, **cut)
        else:
            room = self._limit - self.tokenizer.num_special_tokens_to_add(pair=True)
            if len(self.tokenizer(answer, add_special_tokens=False)["input_ids"]) < room:
                encoding = self.tokenizer(prompt, answer, truncation="only_first", max_length=self._limit)
            else:  # no room for the prompt at all
                encoding = self.tokenizer("", answer, truncation="only_second", max_length=self._limit)
        return encoding

    def _chat(self, prompt: str, answer: str) -> str:
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False)
        assert isinstance(text, str)
        return text

    def _check_template(self) -> None:
        if self.settings.template != "chat":
            return
        try:
            text = self._chat("one", "two")
        # A template is code of the model's author and may raise anything.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"reward model: the chat template fails ({reason}); use template 'plain'"
            ) from error
        if "one" not in text or "two" not in text:
            raise InputError(
                "reward model: the chat template leaves out the prompt or the answer; use template 'plain'"
            )

    def save(self, directory: Path) -> None:
        """Write weights (safetensors), config, tokenizer and settings. The caller makes it atomic."""
        self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        settings = {"format": _FORMAT, **asdict(self.settings)}
        text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        (directory / SETTINGS_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, name: str | PathLike[str], *, device: str = "cpu") -> RewardModel:
        """A trained reward model: a directory written here, or any classifier with one output by directory
        or hub name. Only safetensors are read, and code from a hub is never run.

        Raises InputError when it cannot be opened, has no trained head, or has more than one output.
        """
        model, missing = _open(fspath(name))
        if missing:
            raise InputError(
                f"{fspath(name)} has no weights for {', '.join(sorted(missing)[:3])}: it is no reward model; "
                "train one from it with tokenzero reward-model train"
            )
        return cls(_placed(model, device), _own_tokenizer(name), _read_settings(Path(name) / SETTINGS_FILE))

    @classmethod
    def from_backbone(
        cls,
        name: str | PathLike[str],
        *,
        seed: int,
        settings: RewardSettings | None = None,
        device: str = "cpu",
    ) -> RewardModel:
        """A reward model to be trained, of any language model, encoder or classifier by directory or hub
        name. What it lacks of a head with one output is drawn with ``seed``; a head it has is kept.

        Raises InputError when it cannot be opened or lacks weights below the head.
        """
        model, missing = _open(fspath(name), seed)
        below = [key for key in missing if key.startswith(f"{model.base_model_prefix}.")]
        below = [key for key in below if ".pooler." not in key]  # a layer of the head's in all but name
        if below:
            raise InputError(
                f"model {fspath(name)} has no weights for {', '.join(sorted(below)[:3])}; copy it again"
            )
        return cls(_placed(model, device), _own_tokenizer(name), settings)


def tiny_reward_model(
    texts: Sequence[str], *, seed: int, settings: RewardSettings | None = None
) -> RewardModel:
    """A small causal model with random weights and a byte-level tokenizer learnt from ``texts``, to be
    trained from nothing on a CPU. Raises InputError without any text.
    """
    tokenizer = train_bpe(texts, vocab_size=512)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    return RewardModel(model, tokenizer, settings)


def _open(name: str, seed: int | None = None) -> tuple[PreTrainedModel, set[str]]:
    """The classifier and the names of the weights it lacks; with a seed those are drawn, for one output."""
    path = Path(name)
    if path.exists() and not (path / "config.json").is_file():
        raise InputError(f"model directory {path} holds no config.json; give a checkpoint or a hub name")
    if not path.exists() and (path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise InputError(f"model directory {path} does not exist; give a checkpoint or a hub name")
    made: dict[str, Any] = {} if seed is None else {"num_labels": 1, "ignore_mismatched_sizes": True}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed or 0)
            model, info = AutoModelForSequenceClassification.from_pretrained(
                name,
                dtype="auto",
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **made,
            )
    except (StrictDataclassError, OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()
        raise InputError(
            f"cannot load model {name}: {reason[0] if reason else type(error).__name__}"
        ) from error
    return model, {*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])}


def _placed(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """On ``device``, in memory of torch's own (see `policy.student`); float32 on the CPU."""
    model = model.float() if device == "cpu" else model
    for parameter in model.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    module: nn.Module = model  # transformers' own ``to`` has lost its types
    module.to(device)
    return model


def _own_tokenizer(name: str | PathLike[str]) -> PreTrainedTokenizerFast:
    tokenizer = load_tokenizer(name)
    for origin in ("is_local", "local_files_only"):  # a copy saved later must not tell where it came from
        tokenizer.init_kwargs.pop(origin, None)
    return tokenizer


def _read_settings(path: Path) -> RewardSettings | None:
    if not path.is_file():  # a model of others
        return None
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.pop("format", None) != _FORMAT:
            raise InputError(f"{path} was written in another format: this version reads format {_FORMAT}")
        return RewardSettings(**values)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}): copy it again") from error


def _first_template(tokenizer: PreTrainedTokenizerFast) -> str:
    if tokenizer.chat_template:
        return "chat"
    return "pair" if tokenizer.cls_token is not None and tokenizer.sep_token is not None else "plain"


def _padding(tokenizer: PreTrainedTokenizerFast) -> int:
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise InputError("reward model: the tokenizer has no pad, end or unknown token; give it a pad token")
    return int(tokenizer.pad_token_id)


def _positions(model: PreTrainedModel) -> int:
    """Longest sequence the position table allows."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return 1 << 20
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa's table begins behind its row for padding
            positions -= 0 if module.padding_idx is None else module.padding_idx + 1
    return positions
