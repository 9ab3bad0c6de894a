"""Weights that a deployment brings: their cards, their layouts, a bucket as where they are."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.encoder_inputs import TEXTS, images, mirror

from resources import encoders
from resources.encoders import cards, custom
from resources.errors import ConfigError, IntegrityError, ObjectRejected, StorageError
from resources.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", device="cpu", threads=1)


FIELDS: dict[str, Any] = {
    "name": "own",
    "version": 3,
    "dim": 4,
    "input_kind": "image",
    "license": "MIT",
    "medical": False,
}


def with_weights(settings: Settings, location: Path | str) -> Settings:
    return settings.model_copy(update={"weights": {"own@3": str(location)}})


def torchscript(folder: Path) -> Path:
    import torch

    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=8), torch.nn.ReLU())
    path = folder / "own.pt"
    torch.jit.trace(network.eval(), torch.zeros(1, 3, 224, 224)).save(str(path))  # type: ignore[no-untyped-call]
    return path


def densenet() -> Any:
    import torch
    from monai.networks.nets import DenseNet

    torch.manual_seed(2)
    return DenseNet(spatial_dims=2, in_channels=1, out_channels=4, init_features=4, growth_rate=2, block_config=(1, 1))


DENSENET = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": "@classes",
    "init_features": 4,
    "growth_rate": 2,
    "block_config": [1, 1],
}


def bundle(folder: Path, network_def: dict[str, Any] | None = None) -> Path:
    import torch

    for part in ("configs", "models"):
        (folder / part).mkdir(parents=True)
    config = {
        "imports": ["$import os"],
        "classes": 4,
        "network_def": network_def or {"_target_": "DenseNet", **DENSENET},
    }
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    torch.save(densenet().state_dict(), folder / "models" / "model.pt")
    return folder


def test_torchscript(settings: Settings, tmp_path: Path) -> None:
    path = torchscript(tmp_path)
    cards.write_card(path, **FIELDS)
    pointed = with_weights(settings, path)
    assert encoders.card("own@3", pointed).weights_digest == hashlib.sha256(path.read_bytes()).hexdigest()
    vectors = encoders.load("own@3", pointed).encode(images(3))
    assert vectors.shape == (3, 4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_safetensors_of_a_monai_network_with_a_named_feature(settings: Settings, tmp_path: Path) -> None:
    import safetensors.torch
    import torch

    path = tmp_path / "own.safetensors"
    safetensors.torch.save_file(densenet().state_dict(), path)
    args = DENSENET | {"out_channels": 4}
    layer = {"feature": "features.norm5", "channels": 1, "dim": 5}
    cards.write_card(path, architecture={"name": "DenseNet", "args": args}, **FIELDS | layer)
    found = encoders.load("own@3", with_weights(settings, path)).encode(images(2))
    grey = torch.tensor(np.stack(images(2))).float().mean(-1)[:, None] / 255
    with torch.inference_mode():
        expected = densenet().eval().features(grey).mean((2, 3))
    np.testing.assert_allclose(found, torch.nn.functional.normalize(expected).numpy(), atol=1e-4)


def test_monai_bundle(settings: Settings, tmp_path: Path) -> None:
    folder = bundle(tmp_path / "bundle")
    cards.write_card(folder, **FIELDS, channels=1)
    pointed = with_weights(settings, folder)
    listing = "".join(
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("configs/inference.json", "models/model.pt")
    )
    assert encoders.card("own@3", pointed).weights_digest == hashlib.sha256(listing.encode()).hexdigest()
    assert encoders.load("own@3", pointed).encode(images(2)).shape == (2, 4)


@pytest.mark.parametrize(
    "network_def",
    [
        {"_target_": "os.system", "command": "touch MARK"},
        {"_target_": "subprocess.run", "args": ["touch", "MARK"]},
        {"_target_": "DenseNet", **DENSENET, "out_channels": "$__import__('pathlib').Path('MARK').touch()"},
        {"_target_": "DenseNet", **DENSENET, "out_channels": "@network_def::out_channels"},
    ],
)
def test_a_bundle_runs_nothing(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network_def: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = bundle(tmp_path / "bundle", network_def)
    cards.write_card(folder, **FIELDS, channels=1)
    with pytest.raises(ConfigError, match="own@3 do not load as monai_bundle"):
        encoders.load("own@3", with_weights(settings, folder))
    assert not (tmp_path / "MARK").exists()


def test_text_weights_of_ones_own(settings: Settings, tmp_path: Path) -> None:
    folder = mirror(tmp_path / "mirror")
    cards.write_card(folder, **FIELDS | {"input_kind": "text", "dim": 384})
    own = encoders.load("own@3", with_weights(settings, folder)).encode(TEXTS[:2])
    np.testing.assert_allclose(own, encoders.load("minilm@1", settings).encode(TEXTS[:2]), atol=1e-6)


def test_wrong_dim_in_the_card_is_found_at_the_first_batch(settings: Settings, tmp_path: Path) -> None:
    path = torchscript(tmp_path)
    cards.write_card(path, **FIELDS | {"dim": 7})
    with pytest.raises(IntegrityError, match="promises float32"):
        encoders.load("own@3", with_weights(settings, path)).encode(images(1))


def test_weights_changed_after_their_card(settings: Settings, tmp_path: Path) -> None:
    path = torchscript(tmp_path)
    cards.write_card(path, **FIELDS)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(IntegrityError, match=r"own@3: own\.pt has SHA-256"):
        encoders.load("own@3", with_weights(settings, path))


def test_weights_that_never_were_a_model(settings: Settings, tmp_path: Path) -> None:
    for name in ("own.pt", "own.safetensors"):
        path = tmp_path / name
        path.write_bytes(b"not a model")
        cards.write_card(path, **FIELDS, architecture={"name": "efficientnet_lite0"} if name != "own.pt" else None)
        with pytest.raises(ConfigError, match="own@3 do not load as"):
            encoders.load("own@3", with_weights(settings, path))


def test_weights_need_a_card(settings: Settings, tmp_path: Path) -> None:
    pointed = with_weights(settings, torchscript(tmp_path))
    with pytest.raises(ConfigError, match=r"no card .*own\.pt\.medvec\.json.*write_card"):
        encoders.card("own@3", pointed)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"version": 4}, "is of own@4, not of own@3"),
        ({"dim": 0}, "dim"),
        ({"input_kind": "sound"}, "input_kind"),
        ({"license": ""}, "license"),
        ({"sha256": "abc"}, "sha256"),
        ({"sha256": None}, "sha256"),
        ({"extra": 1}, "extra"),
        ({"sha256": None, "files": {"../../etc/passwd": "0" * 64}}, "not inside"),
    ],
)
def test_invalid_cards_name_what_is_wrong(
    settings: Settings, tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    fields = FIELDS | {"sha256": "0" * 64} | change
    (tmp_path / "own.pt.medvec.json").write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))
    with pytest.raises(ConfigError, match=complaint):
        encoders.card("own@3", with_weights(settings, tmp_path / "own.pt"))


def test_layouts_that_do_not_exist_name_those_that_do(settings: Settings, tmp_path: Path) -> None:
    for name, fields, hint in (
        ("own.onnx", {}, "TorchScript"),
        ("own.safetensors", {}, "architecture"),
        ("own.pt", {"input_kind": "text"}, "tokenizer.json"),
        ("own.ts", {"feature": "layer"}, "returns the feature"),
    ):
        (tmp_path / name).write_bytes(b"x")
        cards.write_card(tmp_path / name, **FIELDS | fields)
        with pytest.raises(ConfigError, match=hint):
            encoders.load("own@3", with_weights(settings, tmp_path / name))


def test_tapped_features_do_not_mix_between_threads() -> None:
    import torch

    network = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten())
    card = cards.CustomCard(**FIELDS, sha256="0" * 64, feature="0")
    tap = custom._tap(card, network)
    failures: list[int] = []

    def use(value: int) -> None:
        for _ in range(200):
            if tap(torch.full((1, 2), value)).unique().tolist() != [value]:
                failures.append(value)

    threads = [threading.Thread(target=use, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# --- s3:// ------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for the object store: uri -> bytes, and what was asked for."""
    store = SimpleNamespace(objects={}, asked=[])

    def fetch(uri: str, max_bytes: int) -> bytes:
        store.asked.append(uri)
        if uri not in store.objects:
            raise ObjectRejected(f"{uri} is not there", remedy="refresh", code="object_missing")
        data: bytes = store.objects[uri]
        assert len(data) <= max_bytes
        return data

    monkeypatch.setattr("resources.object_store.read_uri", fetch)
    cards._read_remote_card.cache_clear()
    return store


def test_remote_weights_are_fetched_once_and_kept_by_digest(
    settings: Settings, tmp_path: Path, bucket: SimpleNamespace
) -> None:
    path = torchscript(tmp_path)
    card = cards.write_card(path, **FIELDS)
    bucket.objects = {"s3://b/w/own.pt": path.read_bytes(), "s3://b/w/own.pt.medvec.json": card.read_bytes()}
    pointed = with_weights(settings, "s3://b/w/own.pt")
    digest = encoders.card("own@3", pointed).weights_digest
    first = custom.load("own@3", "s3://b/w/own.pt", pointed).encode(images(1))
    kept = settings.home / "weights" / digest
    assert kept.read_bytes() == path.read_bytes()
    assert [entry.name for entry in kept.parent.iterdir()] == [digest]
    again = custom.load("own@3", "s3://b/w/own.pt", pointed).encode(images(1))
    np.testing.assert_array_equal(first, again)
    assert bucket.asked == ["s3://b/w/own.pt.medvec.json", "s3://b/w/own.pt"]
    kept.write_bytes(b"damaged")
    custom.load("own@3", "s3://b/w/own.pt", pointed)
    assert kept.read_bytes() == path.read_bytes()


def test_remote_weights_of_another_digest_are_not_kept(
    settings: Settings, tmp_path: Path, bucket: SimpleNamespace
) -> None:
    path = torchscript(tmp_path)
    card = cards.write_card(path, **FIELDS)
    bucket.objects = {"s3://b/own.pt": b"other", "s3://b/own.pt.medvec.json": card.read_bytes()}
    with pytest.raises(IntegrityError):
        encoders.load("own@3", with_weights(settings, "s3://b/own.pt"))
    assert not (settings.home / "weights").exists()


def test_remote_weights_that_are_not_there_are_a_wrong_setting(
    settings: Settings, tmp_path: Path, bucket: SimpleNamespace
) -> None:
    pointed = with_weights(settings, "s3://b/own.pt")
    with pytest.raises(ConfigError, match=r"no card s3://b/own\.pt\.medvec\.json"):
        encoders.card("own@3", pointed)
    bucket.objects = {"s3://b/own.pt.medvec.json": cards.write_card(torchscript(tmp_path), **FIELDS).read_bytes()}
    with pytest.raises(ConfigError, match=r"s3://b/own\.pt cannot be read \(object_missing\)"):
        encoders.load("own@3", pointed)


def test_a_cache_that_cannot_be_written_says_so(settings: Settings, tmp_path: Path, bucket: SimpleNamespace) -> None:
    path = torchscript(tmp_path)
    card = cards.write_card(path, **FIELDS)
    bucket.objects = {"s3://b/own.pt": path.read_bytes(), "s3://b/own.pt.medvec.json": card.read_bytes()}
    settings.home.mkdir()
    (settings.home / "weights").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="cannot be kept"):
        encoders.load("own@3", with_weights(settings, "s3://b/own.pt"))
