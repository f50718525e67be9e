"""Weights come complete from the place that the user named, or the run does not start."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest
import torch
from torchvision.models import ResNet18_Weights, resnet18
from torchvision.models.resnet import BasicBlock, ResNet

from bdlf.networks.backbone import Backbone
from bdlf.system.errors import InputError


@pytest.fixture
def plain() -> ResNet:
    """A ResNet-10 whose every tensor, running statistics too, differs from a fresh one's."""
    torch.manual_seed(7)
    net = ResNet(BasicBlock, [1, 1, 1, 1])
    for value in net.state_dict().values():
        value.copy_(torch.rand(value.shape) * 9 + 1)
    return net


def refused(file: Path | str, name: str = "resnet10") -> str:
    with pytest.raises(InputError) as refusal:
        Backbone(name, weights=file)
    message = str(refusal.value)
    assert "\n" not in message and str(file) in message
    return message


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_of_torchvisions_names_is_loaded_whole_without_fc(tmp_path, plain, wrapped):
    state = plain.state_dict()
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "weights.pth")
    loaded = Backbone("resnet10", weights=tmp_path / "weights.pth").resnet.state_dict()
    assert loaded.keys() == {key for key in state if not key.startswith("fc.")}
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())


def test_an_old_file_without_batch_counters_is_loaded(tmp_path, plain):
    state = {key: value for key, value in plain.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    loaded = Backbone("resnet10", weights=str(tmp_path / "old.pth")).resnet.state_dict()
    assert torch.equal(loaded["layer4.0.bn2.running_var"], state["layer4.0.bn2.running_var"])


def test_misfitting_tensors_are_counted_and_named(tmp_path, plain):
    state = plain.state_dict()
    del state["layer2.0.bn1.weight"]
    state["layer9.weight"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save(state, tmp_path / "wrong.pth")
    message = refused(tmp_path / "wrong.pth")
    assert "1 missing, first layer2.0.bn1.weight" in message
    assert "1 unexpected, first layer9.weight" in message
    assert "1 of another shape, first conv1.weight" in message


def test_weights_of_another_resnet_are_refused(tmp_path, plain):
    torch.save(plain.state_dict(), tmp_path / "ten.pth")
    assert "does not fit resnet18" in refused(tmp_path / "ten.pth", "resnet18")


class Payload:
    """Unpickled, it writes a file: what `weights_only` must prevent."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_unreadable_files_are_refused_and_code_in_them_is_not_run(tmp_path, plain):
    torch.save(plain.state_dict(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:100_000])
    (tmp_path / "empty.pth").touch()
    (tmp_path / "page.pth").write_text("<html>404</html>")
    torch.save({"conv1.weight": Payload(tmp_path / "ran")}, tmp_path / "code.pth")
    for name in ("cut", "empty", "page", "code"):
        assert "cannot be read" in refused(tmp_path / f"{name}.pth")
    assert not (tmp_path / "ran").exists()
    assert "is not a file" in refused(tmp_path / "absent.pth")
    assert "is not a file" in refused(tmp_path)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"epoch": 3}, {"state_dict": None}])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    assert "holds no state dict" in refused(tmp_path / "other.pth")


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def test_without_network_the_message_says_what_to_download_and_where_to_put_it(hub, monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no\nnetwork")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(InputError) as refusal:
        Backbone("resnet18", weights="imagenet")
    message = str(refusal.value)
    assert ResNet18_Weights.IMAGENET1K_V1.url in message
    assert "backbone.weights=FILE" in message and "no network" in message and "\n" not in message


def test_a_download_is_checked_against_the_published_hash(hub, monkeypatch):
    def corrupt(url, dst, hash_prefix=None, progress=True):
        assert hash_prefix == "f37072fd" and dst == str(hub / "resnet18-f37072fd.pth")
        raise RuntimeError("invalid hash value")

    monkeypatch.setattr(torch.hub, "download_url_to_file", corrupt)
    with pytest.raises(InputError, match="invalid hash value"):
        Backbone("resnet18", weights="imagenet")


def test_imagenet_weights_are_downloaded_once(hub, monkeypatch):
    torch.manual_seed(3)
    published, downloads = resnet18(), []

    def download(url, dst, hash_prefix=None, progress=True):
        downloads.append(url)
        torch.save(published.state_dict(), dst)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        loaded = Backbone("resnet18", weights="imagenet").resnet.state_dict()
        assert all(torch.equal(value, published.state_dict()[key]) for key, value in loaded.items())
    assert downloads == [ResNet18_Weights.IMAGENET1K_V1.url]


def test_resnet10_has_no_imagenet_weights():
    with pytest.raises(InputError, match="resnet10 has no ImageNet weights"):
        Backbone("resnet10", weights="imagenet")
