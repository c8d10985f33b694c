"""The value head: neutral start, training that reaches the target, files that come back or are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tokenzero.mcts.errors import InputError
from tokenzero.value.head import CONFIG_FILE, WEIGHTS_FILE, ValueConfig, ValueHead
from tokenzero.value.hl_gauss import HLGauss

CONFIGS = [
    ValueConfig(),
    ValueConfig(hidden=7),
    ValueConfig(bins=21, sigma_ratio=0.5),
    ValueConfig("scalar"),
    ValueConfig("scalar", hidden=3),
]


def randomised(config: ValueConfig, seed: int = 0) -> ValueHead:
    head = ValueHead(6, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return head


@pytest.mark.parametrize("config", CONFIGS)
def test_an_untrained_head_says_zero_everywhere(config: ValueConfig) -> None:
    head = ValueHead(6, config)
    hidden = 100 * torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1))
    raw = head(hidden)
    assert raw.shape == (4, 5, config.bins if config.kind == "hl-gauss" else 1)
    assert head.value(raw).shape == (4, 5)
    assert head.value(raw).abs().max() < 1e-6


@pytest.mark.parametrize("config", CONFIGS)
def test_values_stay_in_range_for_extreme_inputs(config: ValueConfig) -> None:
    head = randomised(config)
    value = head.value(head(1e6 * torch.randn(50, 6, generator=torch.Generator().manual_seed(2))))
    assert bool((value.abs() <= 1).all())
    assert value.dtype == torch.float32


@pytest.mark.parametrize("config", CONFIGS)
def test_training_reaches_the_targets_edges_included(config: ValueConfig) -> None:
    head = ValueHead(6, config)
    hidden = torch.eye(6)[:5]
    target = torch.tensor([-1.0, -0.4, 0.0, 0.5, 1.0])
    optimiser = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(400):
        optimiser.zero_grad()
        head.loss(head(hidden), target).mean().backward()
        optimiser.step()
    # tanh only creeps up to its asymptote; the histogram gets there.
    limit = 0.02 if config.kind == "hl-gauss" else 0.06
    assert (head.value(head(hidden)) - target).abs().max() < limit


def test_histogram_loss_is_the_cross_entropy_of_the_projection() -> None:
    head = randomised(ValueConfig())
    raw = head(torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(3)))
    target = torch.linspace(-1, 1, 12).reshape(3, 4)
    masses = HLGauss().project(target.double())
    log_p = raw.double().log_softmax(-1)
    expected = -(masses * log_p).sum(-1)
    loss = head.loss(raw, target)
    assert loss.shape == (3, 4)
    assert torch.allclose(loss.double(), expected, rtol=1e-5)
    entropy = -(masses * masses.clamp_min(1e-300).log()).sum(-1)
    perfect = head.loss(masses.clamp_min(1e-30).log().float(), target)
    assert torch.allclose(perfect.double(), entropy, atol=1e-4)


def test_histogram_value_is_the_expected_centre() -> None:
    head = ValueHead(6, ValueConfig())
    raw = torch.full((51,), -1e9)
    raw[10] = 0.0
    assert float(head.value(raw)) == pytest.approx(float(HLGauss().centers(raw)[10]))
    raw[:] = -1e9
    raw[50] = 0.0  # a padding bin lies beyond 1
    assert float(head.value(raw)) == 1.0


def test_scalar_loss_is_the_squared_error_of_tanh() -> None:
    head = randomised(ValueConfig("scalar"))
    raw = torch.tensor([[0.5], [-2.0]])
    target = torch.tensor([1.0, 0.0])
    assert torch.allclose(head.loss(raw, target), (raw[:, 0].tanh() - target) ** 2)


def test_low_precision_hidden_states_are_widened() -> None:
    head = randomised(ValueConfig(hidden=4))
    hidden = torch.randn(3, 6, generator=torch.Generator().manual_seed(4)).bfloat16()
    assert torch.equal(head(hidden), head(hidden.float()))


def test_the_seed_decides_the_hidden_layer_and_the_global_generator_is_untouched() -> None:
    before = torch.get_rng_state()
    first, second = (
        ValueHead(6, ValueConfig(hidden=4), torch.Generator().manual_seed(seed)).body for seed in (1, 1)
    )
    other = ValueHead(6, ValueConfig(hidden=4), torch.Generator().manual_seed(2)).body
    ValueHead(6, ValueConfig(hidden=4))
    assert first is not None
    assert second is not None
    assert other is not None
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, other.weight)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_saved_head_comes_back_bit_for_bit(config: ValueConfig, tmp_path: Path) -> None:
    head = randomised(config)
    head.save(tmp_path / "deep" / "folder")
    head.save(tmp_path / "deep" / "folder")
    back = ValueHead.load(tmp_path / "deep" / "folder")
    hidden = torch.randn(9, 6, generator=torch.Generator().manual_seed(5))
    assert back.config == config
    assert torch.equal(back(hidden), head(hidden))
    assert all(parameter.requires_grad for parameter in back.parameters())
    assert sorted(path.name for path in (tmp_path / "deep" / "folder").iterdir()) == [
        CONFIG_FILE,
        WEIGHTS_FILE,
    ]


def test_the_same_head_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        randomised(ValueConfig(hidden=3)).save(tmp_path / name)
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("file", [WEIGHTS_FILE, CONFIG_FILE])
@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_a_truncated_file_is_named(file: str, keep: int, tmp_path: Path) -> None:
    randomised(ValueConfig()).save(tmp_path)
    path = tmp_path / file
    content = path.read_bytes().rstrip()
    path.write_bytes(content[:keep])
    with pytest.raises(InputError, match=file):
        ValueHead.load(tmp_path)


@pytest.mark.parametrize("file", [WEIGHTS_FILE, CONFIG_FILE])
def test_a_missing_file_is_named(file: str, tmp_path: Path) -> None:
    ValueHead(6).save(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(InputError, match=file):
        ValueHead.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "boolean"},
        {"bins": "51"},
        {"bins": 3},
        {"hidden": True},
        {"hidden_size": 0},
        {"format": 2},
        {"extra": 1},
    ],
)
def test_wrong_settings_are_refused_with_the_file_name(change: dict[str, object], tmp_path: Path) -> None:
    ValueHead(6).save(tmp_path)
    path = tmp_path / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=CONFIG_FILE):
        ValueHead.load(tmp_path)


def test_weights_of_another_head_or_not_finite_are_refused(tmp_path: Path) -> None:
    ValueHead(6).save(tmp_path / "six")
    ValueHead(7).save(tmp_path / "seven")
    (tmp_path / "six" / WEIGHTS_FILE).write_bytes((tmp_path / "seven" / WEIGHTS_FILE).read_bytes())
    with pytest.raises(InputError, match="pair"):
        ValueHead.load(tmp_path / "six")
    tensors = load_file(tmp_path / "seven" / WEIGHTS_FILE)
    tensors["last.weight"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "seven" / WEIGHTS_FILE)
    with pytest.raises(InputError, match="finite"):
        ValueHead.load(tmp_path / "seven")


def test_shapes_and_settings_that_do_not_fit_are_refused() -> None:
    head = ValueHead(6)
    with pytest.raises(InputError, match="5 wide"):
        head(torch.zeros(2, 5))
    with pytest.raises(InputError, match="do not fit"):
        head.loss(head(torch.zeros(2, 6)), torch.zeros(2, 1))
    with pytest.raises(InputError, match="outside"):
        head.loss(head(torch.zeros(2, 6)), torch.full((2,), 2.0))
    with pytest.raises(InputError, match="outside"):
        ValueHead(6, ValueConfig("scalar")).loss(torch.zeros(1, 1), torch.tensor([-1.5]))
    with pytest.raises(InputError, match="hidden_size"):
        ValueHead(0)
    with pytest.raises(InputError, match="kind"):
        ValueConfig("hlgauss")
    with pytest.raises(InputError, match="hidden"):
        ValueConfig(hidden=-1)
    with pytest.raises(InputError, match="bins"):
        ValueConfig(bins=4)
    assert ValueConfig("scalar", bins=1).bins == 1


@pytest.mark.parametrize("kind", ["hl-gauss", "scalar"])
@pytest.mark.parametrize("hidden", [0, 8])
def test_evaluation_without_a_gradient_gives_the_same_values(kind: str, hidden: int) -> None:
    head = ValueHead(16, ValueConfig(kind=kind, hidden=hidden))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(0, 2, generator=generator)
    states = torch.randn(9, 16, generator=generator)
    values = head.evaluate(states)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, head.value(head(states)).detach().numpy(), atol=2e-6)
    assert np.abs(values).max() <= 1
    states[3, 2] = torch.nan
    assert np.isnan(head.evaluate(states)).tolist() == [row == 3 for row in range(9)]


@pytest.mark.parametrize("kind", ["hl-gauss", "scalar"])
def test_a_value_does_not_depend_on_how_many_are_asked_for(kind: str) -> None:
    head = ValueHead(64, ValueConfig(kind=kind, hidden=48))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    states = torch.randn(70, 64, generator=generator)
    together = head.evaluate(states)
    for count in (1, 2, 3, 5, 17):
        assert head.evaluate(states[:count]).tobytes() == together[:count].tobytes()
