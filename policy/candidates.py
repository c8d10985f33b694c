"""The likeliest next tokens of a batch of states with their log-probabilities.

On the CPU in float32 a compiled kernel finds them in one pass over the logits; elsewhere torch does.
Nothing is sampled here.
"""

from __future__ import annotations

import numpy as np
import torch

from tokenzero.policy import kernels
from tokenzero.policy.kernels import Floats, Ids


def likeliest(
    logits: torch.Tensor, mask: torch.Tensor, count: int, temperature: float = 1.0
) -> tuple[Ids, Floats]:
    """The ``count`` likeliest tokens i64 [L, count] of softmax(logits / temperature + mask), likeliest
    first, and their log-probabilities f32 [L, count].

    ``logits`` f32 [L, V]; ``mask`` f32 [V], 0 or -inf for tokens that are never chosen. A row that holds
    NaN gives NaN. Of equal tokens the kernel takes the lower first.
    """
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        rows = logits.contiguous().numpy()
        values = np.empty((len(rows), count), np.float32)
        ids = np.empty((len(rows), count), np.int64)
        row = np.empty(rows.shape[1], np.float32)
        tops = np.empty(-(-len(row) // kernels.BLOCK), np.float32)
        kernels.likeliest(rows, mask.numpy(), np.float32(1.0 / temperature), row, tops, values, ids)
        return ids, values
    scaled = torch.add(mask, logits.float(), alpha=1.0 / temperature)
    best, tokens = scaled.topk(count, dim=-1)
    shares = best - scaled.logsumexp(dim=-1, keepdim=True)
    return tokens.cpu().numpy(), shares.cpu().numpy()
