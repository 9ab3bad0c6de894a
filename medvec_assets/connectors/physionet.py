"""PhysioNet projects: which files a release holds, by their published SHA256, and each of them fetched and verified.

Belongs here: the two places that a release is read from, its checksums and licence, downloads that go on after a kill.
Does not belong here: what stands in the files (mimic_tables and other connectors over this).

    https://physionet.org/files/mimiciv/3.1/      with MEDVEC_CREDENTIALS='{"physionet": "user:password"}'
    /data/physionet.org/files/mimiciv/3.1         as `wget -r` leaves it; a folder above it will do if it holds no other

A file is named by its path in the release (`hosp/admissions.csv.gz`) and known by its checksum in SHA256SUMS.txt: what a
connector makes of one is landed under that checksum, so that a release that did not change it reads nothing again.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from medvec_assets.connectors import sample_folder
from medvec_assets.connectors.landing import Landing
from resources.errors import ConfigError, ObjectRejected, SourceError
from resources.http_source import HttpSource
from resources.settings import Settings

SUMS, LICENSE = "SHA256SUMS.txt", "LICENSE.txt"
CREDENTIAL = "physionet"
REQUESTS_PER_SECOND = 4.0  # PhysioNet publishes no limit; its own instructions fetch one file after another
MAX_TEXT_BYTES = 16 << 20  # of SHA256SUMS.txt: the largest projects list a hundred thousand files
UNSPECIFIED = "unspecified"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MIRROR_DEPTH = 4  # physionet.org/files/<project>/<release>
_RELEASE = re.compile(r"\d+(\.\d+)*")
_SUM = re.compile(r"([0-9a-f]{64}) [ *]?(?:\./)?(\S.*)")
_LICENSE = re.compile(r"(PhysioNet [A-Za-z ]*License)\s+(?:Version )?(\d+(?:\.\d+)+)")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Published:
    """One release: `files` are its paths and their SHA256 in hex."""

    release: str
    digest: str
    files: Mapping[str, str]

    @property
    def version(self) -> str:
        return f"{self.release} sha256sums:{self.digest[:32]}"

    def sha256(self, path: str) -> str:
        """The published checksum of a file. SourceError `file_not_published` if the release lists none."""
        if path not in self.files:
            remedy = "compare the release's contents with the connector; name another release in MEDVEC_SOURCES"
            raise SourceError(f"release {self.release} lists no {path}", code="file_not_published", remedy=remedy)
        return self.files[path]


def open_project(settings: Settings, dataset_id: str) -> PhysioNetProject:
    """The project of MEDVEC_SOURCES' entry for this dataset, or the sample bundle. Opens nothing yet."""
    landing = Landing(settings, dataset_id)
    source = settings.sources.get(dataset_id) or str(sample_folder(dataset_id))
    if "://" not in source or source.startswith("file://"):
        return _Mirror(Path(source.removeprefix("file://")).expanduser().absolute())
    parts = urlsplit(source)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        remedy = "write https://physionet.org/files/<project>/<release>/, or the folder of a mirror"
        raise ConfigError("a PhysioNet project is read over https, which keeps the password secret", remedy=remedy)
    secret = settings.credentials.get(CREDENTIAL)
    given = secret.get_secret_value() if secret else ""
    if ":" not in given:
        remedy = f'give them: MEDVEC_CREDENTIALS=\'{{"{CREDENTIAL}": "user:password"}}\''
        raise ConfigError("PhysioNet is read with a user name and a password", remedy=remedy)
    basic = base64.b64encode(given.encode()).decode()
    http = HttpSource(
        source,
        requests_per_second=REQUESTS_PER_SECOND,
        credential=CREDENTIAL,
        headers={"Authorization": f"Basic {basic}"},
    )
    return _Service(http, landing)


class PhysioNetProject:
    """One release of a project. `is_remote` as of a Connector."""

    is_remote: bool

    def __init__(self, name: str, release: str) -> None:
        self.name = name if re.fullmatch(r"[a-z0-9-]+", name) else "project"
        self._release = release if _RELEASE.fullmatch(release) else "unnumbered"

    def published(self) -> Published:
        """What the release holds now: one small request, or one small file read. SourceError `schema_drift` if
        SHA256SUMS.txt is no list of checksums."""
        data = self._text(SUMS)
        lines = [line for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
        found = [_SUM.fullmatch(line) for line in lines]
        files = {match[2]: match[1] for match in found if match}
        if not files or len(files) != len(lines):
            raise SourceError(
                f"{SUMS} is no list of checksums and paths",
                code="schema_drift",
                remedy="fetch it again; a page of HTML there means that the session or the address is wrong",
            )
        return Published(self._release, hashlib.sha256(data).hexdigest(), files)

    def confirm(self, published: Published) -> None:
        """SourceError `release_changed` if the release is not the one that `published` was read from any more."""
        if self.published().digest != published.digest:
            raise SourceError(
                "the release was changed while it was read",
                code="release_changed",
                remedy="run again: what did not change is kept and not read again",
            )

    def license(self, published: Published) -> str:
        """The licence that LICENSE.txt names, with its version; `unspecified` if there is none, which no spec allows."""
        if LICENSE not in published.files:
            return UNSPECIFIED
        stated = _LICENSE.search(self.fetch(published, LICENSE).read_text("utf-8", "replace")[:1_000])
        return f"{' '.join(stated[1].split())} {stated[2]}" if stated else UNSPECIFIED

    def fetch(self, published: Published, path: str) -> Path:
        """A file of the release here, its bytes verified. SourceError `checksum_mismatch` if they are others."""
        raise NotImplementedError

    def _text(self, path: str) -> bytes:
        raise NotImplementedError


class _Mirror(PhysioNetProject):
    is_remote = False

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._folder = _release_folder(folder)
        super().__init__(self._folder.parent.name, self._folder.name)

    def fetch(self, published: Published, path: str) -> Path:
        wanted, file = published.sha256(path), self._folder / path
        if not file.resolve().is_relative_to(self._folder.resolve()):
            raise _missing(path)
        try:
            found = _sha256(file)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise _missing(path) from None
        if found != wanted:
            raise _mismatch(path)
        return file

    def _text(self, path: str) -> bytes:
        file = self._folder / path
        if not file.is_file():
            raise SourceError(
                f"there is no {SUMS} below {self._root}",
                code="source_missing",
                remedy="mount the mirror, or correct MEDVEC_SOURCES; `wget -r -N -c -np` of the release leaves one",
            )
        return file.read_bytes()


class _Service(PhysioNetProject):
    is_remote = True

    def __init__(self, http: HttpSource, landing: Landing) -> None:
        self._http, self._landing = http, landing
        *_, name, release = ["", "", *urlsplit(http.base_url).path.split("/")]
        super().__init__(name, release)

    def fetch(self, published: Published, path: str) -> Path:
        """See PhysioNetProject; a file is asked for once and then kept (landing)."""
        wanted = published.sha256(path)
        return self._landing.made(f"sha256-{wanted}", lambda draft: self._download(path, wanted, draft))

    def _download(self, path: str, wanted: str, draft: Path) -> None:
        partial = draft.with_name(f"{wanted[:40]}.part")  # stays where a process is killed, and the next goes on
        continued = partial.exists()
        try:
            _asked(lambda: self._http.download(path, partial))
        except ObjectRejected:
            raise _missing(path) from None
        if _sha256(partial) != wanted:
            partial.unlink()
            if not continued:
                raise _mismatch(path)
            return self._download(path, wanted, draft)  # its beginning was of another release
        partial.rename(draft)

    def _text(self, path: str) -> bytes:
        try:
            return _asked(lambda: self._http.bytes(path, max_bytes=MAX_TEXT_BYTES))
        except ObjectRejected:
            remedy = "correct the project and the release in MEDVEC_SOURCES"
            raise SourceError(f"PhysioNet has no {SUMS} there", code="source_missing", remedy=remedy) from None


def _asked(request: Callable[[], _T]) -> _T:
    """What `request` gives; a refusal says what PhysioNet wants of an account."""
    try:
        return request()
    except SourceError as refusal:
        if refusal.code != "credentials_refused":
            raise
        remedy = (
            "check user and password; the account must be credentialed, its training current, and the data use agreement "
            "of this very project signed on its page"
        )
        raise SourceError(refusal.message, code=refusal.code, remedy=remedy) from None


def _release_folder(folder: Path) -> Path:
    """`folder`, or the one folder below it that holds SHA256SUMS.txt."""
    found = [folder]
    for _ in range(_MIRROR_DEPTH + 1):
        releases = [one for one in found if (one / SUMS).is_file()]
        if len(releases) == 1:
            return releases[0]
        if releases:
            remedy = "name the folder of one of them in MEDVEC_SOURCES"
            raise ConfigError(f"{folder} holds {len(releases)} releases", remedy=remedy)
        found = sorted(entry for one in found if one.is_dir() for entry in one.iterdir() if entry.is_dir())
    return folder


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _missing(path: str) -> SourceError:
    remedy = "fetch the release again (`wget -r -N -c -np`): it lists a file that is not there"
    return SourceError(f"the release lists {path} and does not hold it", code="release_incomplete", remedy=remedy)


def _mismatch(path: str) -> SourceError:
    remedy = "fetch the file again; if its checksum still differs, tell PhysioNet, and do not use it"
    return SourceError(
        f"{path} is not the file whose checksum the release publishes", code="checksum_mismatch", remedy=remedy
    )
