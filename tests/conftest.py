"""What several tests share: real data, a real trained network, and a quiet torch."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")  # a claim is not wrong because the machine was busy


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """The CIFAR-10 arrays, where the environment names them."""
    path = os.environ.get("COMPRESS_CIFAR10")
    if not path:
        pytest.skip("COMPRESS_CIFAR10 does not name a cifar10.npz")
    return Path(path)


@pytest.fixture(scope="session")
def resnet20_weights() -> Path:
    """Trained ResNet-20 weights for CIFAR-10, where the environment names their folder."""
    folder = os.environ.get("COMPRESS_WEIGHTS")
    if not folder:
        pytest.skip("COMPRESS_WEIGHTS does not name a folder with resnet20_cifar10.safetensors")
    return Path(folder) / "resnet20_cifar10.safetensors"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every download of this test is refused at once, whether the machine is online or not."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr("urllib.request._opener", None)  # it remembers the proxies of the first download
