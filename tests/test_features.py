import itertools
import json

import pytest
import torch
from safetensors import safe_open

from lab import data, features
from lab.diffusion import from_uint8
from lab.features import FeatureNet, TokenNet

# Every stored metric names these files: another net under the same name would make old figures wrong.
FROZEN = {
    ("digits", "metric"): "f5e7817d2bbb6f477b88b55af879aa9b63f69aae75ab7e6ebee47b9c434bda0b",
    ("digits", "perceptual"): "ad09ce5413025f69d7cb50fea4026bbb7a7d2360e2c8f95d5cb70a757a159c57",
    ("digits", "second"): "482d4ae4585799ce74e23bed55fb6fdc0e975392c22c06669942654aa90e84ab",
    ("fashion-mnist", "metric"): "fb14117513c6ae171792a498e1891eb0ddac9c9c8a06d28a5d585f71cdb0b872",
    ("fashion-mnist", "perceptual"): "13c5de133566ee86c4e0f947774e8af36e43f9f355e893ae55e6168a4799d892",
    ("fashion-mnist", "second"): "dc364fd9d7e028211d625dbd0f1f7ce7e59af699a83a28c57acbd40c577ec520",
}
PURPOSES = {data: [purpose for name, purpose in FROZEN if name == data] for data, _ in FROZEN}


@pytest.mark.parametrize(("name", "purpose"), FROZEN)
def test_the_nets_are_the_frozen_ones(name: str, purpose: str) -> None:
    assert features.facts(name, purpose)["sha256"] == FROZEN[name, purpose]
    features.load(name, purpose)


def test_the_fashion_nets_are_as_good_and_as_small_as_promised() -> None:
    assert features.facts("fashion-mnist")["test_accuracy"] >= 0.92
    assert features.facts("fashion-mnist", "second")["test_accuracy"] >= 0.87
    for purpose in PURPOSES["fashion-mnist"]:
        assert (features.ASSETS / f"fashion-mnist-{purpose}.safetensors").stat().st_size < 1e6


@pytest.mark.parametrize("purpose", PURPOSES["digits"])
def test_the_recorded_accuracy_of_the_digit_nets_is_what_they_reach(purpose: str) -> None:
    net, test = features.load("digits", purpose), data.load("digits", "test")
    right = net(from_uint8(test.images)).argmax(1) == test.labels
    assert right.double().mean().item() == pytest.approx(features.facts("digits", purpose)["test_accuracy"], abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("purpose", PURPOSES["fashion-mnist"])
def test_the_recorded_accuracy_of_the_fashion_nets_is_what_they_reach(purpose: str) -> None:
    try:
        test = data.load("fashion-mnist", "test")
    except data.MissingData as error:
        pytest.skip(str(error))
    net = features.load("fashion-mnist", purpose)
    right = [net(from_uint8(x)).argmax(1) == y for x, y in zip(test.images.split(500), test.labels.split(500))]
    accuracy = torch.cat(right).double().mean().item()
    assert accuracy == pytest.approx(features.facts("fashion-mnist", purpose)["test_accuracy"], abs=0.002)


def test_no_two_nets_of_a_data_set_share_shape_or_seed() -> None:
    assert sorted(PURPOSES) == features.known()
    for name, purposes in PURPOSES.items():
        for one, other in itertools.combinations([features.facts(name, purpose) for purpose in purposes], 2):
            assert one["seed"] != other["seed"] and one["architecture"] != other["architecture"]
    assert isinstance(features.load("digits"), FeatureNet)
    assert isinstance(features.load("digits", "second"), TokenNet)


def test_what_measures_is_not_what_a_loss_looks_through() -> None:
    names = {features.name(name, "perceptual") for name in features.known()}
    assert not names & set(features.measuring())
    assert features.measuring()[features.name("digits", "second")] == ("digits", "second")


def test_the_second_net_looks_at_all_tokens_at_once() -> None:
    """A change in one corner moves the features of the other, which no convolution of its own reaches."""
    net, x = features.load("digits", "second"), torch.zeros(1, 1, 8, 8)
    y = x.clone()
    y[..., 0, 0] = 1.0
    seen: list[torch.Tensor] = []
    handle = net.blocks[0].register_forward_hook(lambda block, given, out: seen.append(out[0, -1]))
    net(x), net(y)
    handle.remove()
    assert (seen[0] - seen[1]).abs().max() > 1e-4


def test_a_metric_net_gives_128_features_and_a_name_with_its_hash() -> None:
    net = features.load("digits")
    assert net.features(torch.zeros(3, 1, 8, 8)).shape == (3, 128)
    assert features.name("digits") == f"digits-cnn-{FROZEN['digits', 'metric'][:8]}"


def test_a_loaded_net_is_frozen_and_in_eval_mode() -> None:
    net = features.load("digits")
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())


def test_the_weights_are_stored_in_half_precision() -> None:
    with safe_open(features.ASSETS / "digits-metric.safetensors", "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}


def test_data_without_a_net_is_named_with_those_that_have_one() -> None:
    with pytest.raises(LookupError, match=r"'cifar10'.*digits, fashion-mnist"):
        features.load("cifar10")


def test_a_changed_file_is_refused(tmp_path, monkeypatch) -> None:
    for suffix in ("json", "safetensors"):
        (tmp_path / f"digits-metric.{suffix}").write_bytes((features.ASSETS / f"digits-metric.{suffix}").read_bytes())
    facts = json.loads((tmp_path / "digits-metric.json").read_text()) | {"sha256": "0" * 64}
    (tmp_path / "digits-metric.json").write_text(json.dumps(facts))
    monkeypatch.setattr(features, "ASSETS", tmp_path)
    with pytest.raises(ValueError, match=r"digits-metric\.safetensors does not have the sha256"):
        features.load("digits")
