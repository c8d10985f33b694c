"""The value head: from a hidden state of the policy's trunk to the expected outcome in [-1, 1].

It maps, it scores and it saves itself beside a Hugging Face checkpoint as `value_head.safetensors` and
`value_head.json`. It does not run the trunk (policy/), does not mix targets (value/targets.py), never sees
the judge (value/judge.py) and owns no optimiser.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from tokenzero.mcts.errors import InputError
from tokenzero.policy import kernels
from tokenzero.value.hl_gauss import HLGauss, checked_target

WEIGHTS_FILE = "value_head.safetensors"
CONFIG_FILE = "value_head.json"
_KINDS = ("hl-gauss", "scalar")
_SETTING_TYPES: dict[str, tuple[type, ...]] = {
    "format": (int,),
    "hidden_size": (int,),
    "kind": (str,),
    "bins": (int,),
    "sigma_ratio": (int, float),
    "hidden": (int,),
}


@dataclass(frozen=True)
class ValueConfig:
    """Shape of the head.

    kind: "hl-gauss" (a histogram over `bins`, trained by cross-entropy) or "scalar" (tanh, squared error).
    bins, sigma_ratio: the histogram, see value/hl_gauss.py; ignored by "scalar".
    hidden: width of one hidden layer (GELU); 0 is a linear head.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    kind: str = "hl-gauss"
    bins: int = 51
    sigma_ratio: float = 0.75
    hidden: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise InputError(f"value.kind is {self.kind!r}: choose one of {', '.join(_KINDS)}")
        if self.hidden < 0:
            raise InputError(f"value.hidden is {self.hidden}: use 0 for a linear head or a positive width")
        if self.kind == "hl-gauss":
            HLGauss(self.bins, self.sigma_ratio)


_ROWS = 16


class ValueHead(nn.Module):
    """hidden [..., hidden_size] -> raw [..., bins] (or [..., 1]) -> value [...] in [-1, 1].

    The last layer starts at zero, so an untrained head says 0 everywhere and the search starts without
    opinion. `generator` seeds the hidden layer when there is one; the global torch generator is never
    touched.
    """

    def __init__(
        self, hidden_size: int, config: ValueConfig | None = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if hidden_size < 1:
            raise InputError(f"value head: hidden_size is {hidden_size}, give the trunk's width")
        self.hidden_size = hidden_size
        self.config = config if config is not None else ValueConfig()
        self.histogram = (
            HLGauss(self.config.bins, self.config.sigma_ratio) if self.config.kind == "hl-gauss" else None
        )
        outputs = self.config.bins if self.histogram is not None else 1
        self.body: nn.Linear | None = None
        width = hidden_size
        if self.config.hidden > 0:
            width = self.config.hidden
            self.body = _seeded_linear(hidden_size, width, generator)
        self.last = _zero_linear(width, outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        """Raw outputs of hidden states [..., hidden_size] of any float type, computed in the head's own type.

        Raises InputError when the last axis is not hidden_size.
        """
        if hidden.shape[-1] != self.hidden_size:
            raise InputError(
                f"value head: hidden states are {hidden.shape[-1]} wide, the head expects {self.hidden_size}"
            )
        features = hidden.to(self.last.weight.dtype)
        if self.body is not None:
            features = nn.functional.gelu(self.body(features))
        raw: Tensor = self.last(features)
        return raw

    def value(self, raw: Tensor) -> Tensor:
        """Expected outcome [...] in [-1, 1], float32, of raw outputs [..., bins] (or [..., 1])."""
        if self.histogram is not None:
            return self.histogram.expectation(raw.float().softmax(-1))
        return raw.float().squeeze(-1).tanh()

    @torch.inference_mode()
    def evaluate(self, hidden: Tensor) -> NDArray[np.float32]:
        """`value` of hidden states [L, hidden_size], f32 [L], without a gradient; compiled on the CPU."""
        # Whole blocks of rows: matrix products take another routine, and other last bits, for a few rows.
        count = len(hidden)
        raw = self(nn.functional.pad(hidden, (0, 0, 0, -count % _ROWS)))[:count]
        if self.histogram is None or raw.device.type != "cpu" or raw.dtype != torch.float32:
            return np.asarray(self.value(raw).cpu().numpy(), np.float32)
        worth = self.histogram.centers(raw).numpy()
        out, scratch = np.empty(len(raw), np.float32), np.empty(len(worth), np.float32)
        kernels.softmax_mean(raw.numpy(), worth, scratch, out)
        return out

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """Loss per position [...] of raw outputs [..., bins] (or [..., 1]) against targets [...] in [-1, 1].

        hl-gauss: cross-entropy against the projected histogram (Farebrother et al. 2024), in
        nats; its floor is that histogram's entropy, not 0. scalar: squared error of tanh(raw). Nothing is
        averaged or masked: put any legal target (0) at positions to be ignored and drop them after. Raises
        InputError for a target outside [-1, 1] or of another shape than raw's leading axes.
        """
        if target.shape != raw.shape[:-1]:
            raise InputError(f"value loss: targets {tuple(target.shape)} do not fit raw {tuple(raw.shape)}")
        if self.histogram is not None:
            masses = self.histogram.project(target).float()
            return -(masses * raw.float().log_softmax(-1)).sum(-1)
        return (self.value(raw) - checked_target(target).float()).square()

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write both files into `directory` (made when missing); each appears whole or not at all."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        settings = {"format": 1, "hidden_size": self.hidden_size, **asdict(self.config)}
        _write_whole(folder / WEIGHTS_FILE, save_tensors(tensors))
        _write_whole(folder / CONFIG_FILE, (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode())

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> ValueHead:
        """The head saved in `directory`, on the CPU. Raises InputError naming a missing or broken file."""
        folder = Path(directory)
        head = _head_from_settings(cls, folder / CONFIG_FILE)
        path = folder / WEIGHTS_FILE
        try:
            tensors = load_tensors(_read(path))
        except SafetensorError as error:
            raise InputError(f"{path} is not a whole safetensors file ({error}): copy it again") from error
        expected = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if expected != found:
            raise InputError(f"{path} holds {found}, {CONFIG_FILE} says {expected}: they are not a pair")
        for name, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise InputError(f"{path}: tensor {name} is not finite, the checkpoint is damaged")
            head.get_parameter(name).data = tensor.clone()  # aligned, as a fresh head's: see `policy.student`
        return head


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _seeded_linear(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """A linear layer with torch's usual initial range, drawn from `generator` (a fixed seed when None)."""
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    bound = 1.0 / math.sqrt(inputs)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def _head_from_settings(cls: type[ValueHead], path: Path) -> ValueHead:
    try:
        settings: Any = json.loads(_read(path).decode("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not whole JSON ({error}): copy it again") from error
    if not isinstance(settings, dict) or set(settings) != set(_SETTING_TYPES):
        raise InputError(f"{path} must hold exactly the keys {', '.join(sorted(_SETTING_TYPES))}")
    for key, kind in _SETTING_TYPES.items():
        if not isinstance(settings[key], kind) or isinstance(settings[key], bool):
            raise InputError(f"{path}: {key} is {settings[key]!r}, which has the wrong type")
    if settings.pop("format") != 1:
        raise InputError(f"{path} was written in another format: this version reads format 1")
    try:
        return cls(settings.pop("hidden_size"), ValueConfig(**settings))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        both = f"a value head is {WEIGHTS_FILE} and {CONFIG_FILE}"
        raise InputError(f"{path} cannot be read ({error.strerror}): {both}") from error


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)
