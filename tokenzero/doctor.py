"""Is this installation sound? Versions, threads, devices, and a self-check on a tiny random model.

It changes nothing except compiled kernels in numba's cache, and measures no speed.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokenzero.mcts import SearchConfig
from tokenzero.policy.engine import Engine, GatherEngine, RecomputeEngine
from tokenzero.policy.student import Student
from tokenzero.policy.tokenizers import from_spec
from tokenzero.selfplay.evaluator import Parts
from tokenzero.selfplay.methods import Search
from tokenzero.tasks import get_task

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "numba", "pyarrow", "pydantic", "safetensors")
EXTRAS = {"bench": "mctx", "tasks": "reasoning_gym", "dev": "pytest"}
TOLERANCE = 1e-4
"""Largest difference of logits between cached and recomputed keys and values, in nats."""

_LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
_TASK = {
    "numbers": 3,
    "high": 6,
    "target_low": 1,
    "target_high": 30,
    "bound": 36,
    "train": 8,
    "validation": 4,
    "test": 4,
}


def examine() -> dict[str, Any]:
    """Everything about the installation, and ``checks`` {name: {ok, detail}}; ``ok`` is true when all checks
    passed.
    """
    checks = {name: _checked(check) for name, check in CHECKS.items()}
    return {
        "ok": all(check["ok"] for check in checks.values()),
        "versions": {"tokenzero": _version("tokenzero"), "python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": {"model": _cpu(), "cores": os.cpu_count() or 1, "torch_threads": torch.get_num_threads()},
        "cuda": _cuda(),
        "extras": {name: importlib.util.find_spec(module) is not None for name, module in EXTRAS.items()},
        "checks": checks,
    }


def _checked(check: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"ok": True, "detail": check()}
    except (OSError, ValueError, RuntimeError, ArithmeticError) as error:
        return {"ok": False, "detail": " ".join(str(error).split())}


def _engines_agree() -> str:
    student = _student()
    worst = compare_engines(GatherEngine(student), RecomputeEngine(student), student.vocab_size)
    if not worst <= TOLERANCE:
        raise ArithmeticError(
            f"cached and recomputed logits differ by {worst:.1e}, more than {TOLERANCE:.0e}"
        )
    return f"largest difference {worst:.1e}"


def compare_engines(fast: Engine, plain: Engine, vocab_size: int) -> float:
    """Grow the same small random tree with both; the largest difference of logits anywhere in it."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(4, vocab_size, size=length).tolist() for length in (3, 7, 5)]
    left, right = fast.prefill(prompts), plain.prefill(prompts)
    worst = float((left.logits - right.logits).abs().max())
    for _ in range(4):
        parents = rng.integers(0, len(left.states), size=6)
        tokens = rng.integers(4, vocab_size, size=6)
        left = fast.extend(left.states[parents], tokens)
        right = plain.extend(right.states[parents], tokens)
        worst = max(worst, float((left.logits - right.logits).abs().max()))
    return worst


def _search_runs() -> str:
    student = _student()
    parts = Parts(student=student, engine=GatherEngine(student), task=get_task("countdown", **_TASK))
    problems = [problem.public for problem in parts.task.problems("test")]
    answers = []
    for method in ("gumbel", "puct"):
        search = Search(parts, SearchConfig(method=method, simulations=8, candidates=8))
        games = search.play(problems, np.random.default_rng(0))
        if any(int(game.moves[0].visits.sum()) > 8 for game in games):
            raise ArithmeticError(f"{method} visited more than it simulated")
        answers += [game.text for game in games]
    return f"{len(answers)} problems searched"


def _numba_cache() -> str:
    """Kernels are compiled once and kept beside their source, or where NUMBA_CACHE_DIR says, or in the user's
    cache.
    """
    from tokenzero.mcts import kernels

    places = [Path(kernels.__file__).parent / "__pycache__", Path.home() / ".cache"]
    if os.environ.get("NUMBA_CACHE_DIR"):
        places = [Path(os.environ["NUMBA_CACHE_DIR"])]
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                return str(place)
        except OSError:
            continue
    raise OSError("numba has nowhere to keep compiled kernels, each start compiles anew; set NUMBA_CACHE_DIR")


CHECKS: dict[str, Callable[[], str]] = {
    "engines agree": _engines_agree,
    "search runs": _search_runs,
    "numba cache": _numba_cache,
}


def _student() -> Student:
    return Student.from_config(_LLAMA, from_spec(get_task("countdown", **_TASK).tokenizer_spec()), seed=0)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cuda() -> dict[str, Any]:
    available = torch.cuda.is_available()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if available else []
    return {"available": available, "devices": names}
