"""What is refused before anything connects: no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from resources.errors import ConfigError
from resources.settings import Settings
from resources.vector_index import open_index


def refusal(uri: str, ca: Path) -> ConfigError:
    with pytest.raises(ConfigError) as error, open_index(Settings(index_uri=uri, index_ca=ca)):
        pass
    assert "MEDVEC_INDEX_CA" in error.value.remedy
    return error.value


def test_an_authority_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    other = tmp_path / "server.key"
    other.write_text("-----BEGIN PRIVATE KEY-----")
    for path, said in ((tmp_path / "absent.pem", "cannot be read"), (tmp_path, "cannot be read"), (other, "holds no")):
        message = refusal("https://127.0.0.1:1", path).message
        assert str(path) in message and said in message


def test_an_authority_is_of_no_use_without_tls(tmp_path: Path) -> None:
    error = refusal("http://somebody:geheim@milvus:19530", tmp_path / "ca.pem")
    assert "http://milvus:19530 is not https://" in error.message
    assert "geheim" not in str(error)
