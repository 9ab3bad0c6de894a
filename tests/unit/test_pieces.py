"""Pieces side by side: cut between records, in order whatever runs beside what, ended with whoever asked, and without secrets."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medvec_assets.catalog import dataset
from medvec_assets.deid.pseudonyms import Pseudonyms
from medvec_assets.modalities import Rejected, modality
from medvec_assets.stages import encoding, manifest, pieces, processes, records
from medvec_assets.stages.context import Context
from resources import errors, tables
from resources.errors import ObjectRejected, SourceError, SourceUnavailable, StorageError
from resources.lakehouse import Lakehouse
from resources.settings import Settings

KEYS = Pseudonyms(b"k" * 32, "test")
SECRET = "5ec2" * 16


def pictures(count: int) -> tuple[pl.DataFrame, dict[str, bytes]]:
    """Manifest rows of PNG files, some of one record_ref, some broken, and the bytes of those that are there."""
    chance, rows, contents = random.Random(7), [], {}
    for number in range(count):
        fate = chance.choice(["good", "good", "good", "broken", "missing"])
        out = BytesIO()
        grey = np.random.default_rng(number).integers(0, 255, (40, 30), np.uint8)
        Image.fromarray(grey).save(out, "PNG")
        if fate != "missing":
            contents[f"m://{number}"] = out.getvalue()[: 60 if fate == "broken" else None]
        rows.append(
            {
                "object_id": f"o{number:03d}",
                "record_ref": f"r{number - number % chance.choice([1, 1, 3]):03d}",
                "subject_ref": f"s{number // 4}",
                "uri": f"m://{number}",
                "cohort": "c",
                "license": "l",
                "access_tier": chance.choice(["open", "agreement"]),
                "attributes": "{}",
            }
        )
    return pl.DataFrame(rows).sort("record_ref", "object_id"), contents


def reader(contents: dict[str, bytes]) -> Callable[[str], bytes]:
    def read(uri: str) -> bytes:
        if uri not in contents:
            raise ObjectRejected("not there", code="object_missing", remedy="none", disposition="skipped")
        return contents[uri]

    return read


def no_landing(data: bytes) -> str:
    raise AssertionError("nothing is landed")


@given(st.lists(st.integers(1, 5), max_size=12), st.integers(1, 6))
def test_a_record_is_never_cut_and_nothing_is_lost(sizes: list[int], size: int) -> None:
    refs = [f"r{number:02d}" for number, rows in enumerate(sizes) for _ in range(rows)]
    objects = pl.DataFrame({"record_ref": refs, "row": range(len(refs))}, {"record_ref": pl.String, "row": pl.Int64})
    found = list(pieces.cut(objects, size))
    assert [row for piece in found for row in piece["row"]] == objects["row"].to_list()
    owners = [ref for piece in found for ref in piece["record_ref"].unique()]
    assert len(owners) == len(set(owners)) == len(sizes)
    assert all(piece.height >= size for piece in found[:-1])


def test_processes_make_what_this_one_makes_in_its_order() -> None:
    size, count = 3, 2
    objects, contents = pictures(40)
    read, landed = reader(contents), dict[int, list[bytes]]()

    def lands(which: int) -> Callable[[bytes], str]:
        landed[which] = []
        return lambda data: landed[which].append(data) or f"payload/{hash(data)}"  # type: ignore[func-returns-value]

    form: Any = modality("raster")
    wanted = [form.records(piece, read, KEYS, lands(0)) for piece in pieces.cut(objects, size)]
    whole, refused = form.records(objects, read, KEYS, lands(1))
    cut = pieces.cut(objects, size)
    found = [made for _, made in pieces.side_by_side("raster", cut, read, KEYS, lands(2), count)]
    assert [(frame.to_dicts(), rejected) for frame, rejected in found] == [
        (frame.to_dicts(), rejected) for frame, rejected in wanted
    ]
    assert pl.concat([frame for frame, _ in found]).equals(whole)
    assert [one for _, rejected in found for one in rejected] == refused
    assert {one.code for one in refused} >= {"object_missing", "duplicate_record"} and len(refused) > 5
    assert sorted(landed[1]) == sorted(landed[2]) and landed[1]


def test_processes_make_the_model_inputs_that_threads_make(children: list[subprocess.Popen[bytes]]) -> None:
    objects, contents = pictures(24)
    form: Any = modality("raster")
    silver, _ = form.records(objects, reader(contents), KEYS)
    uris = dict(objects.select("object_id", "uri").rows())
    objects_of = [[uris[one] for one in ids] for ids in silver["object_ids"]]
    silver = silver.with_columns(pl.Series("object_uris", objects_of))
    first, second = objects_of[0][0], objects_of[1][0]
    contents[first] = contents[second]
    read, spec = reader(contents), dataset("aimi_chest_xray")

    def inputs(total: int, kind: str = "image") -> list[Any]:
        aim: Any = SimpleNamespace(spec=spec, space="image", card=SimpleNamespace(input_kind=kind))
        with encoding._preparing(aim, read, total, 2) as (pool, _, prepare):
            assert all(os.getpriority(os.PRIO_PROCESS, one.pid) == encoding.LEAST_PRIORITY for one in children)
            return [item for part in pool.map(prepare, silver.iter_slices(5)) for item in part]

    enough = 2 * encoding.PIECES_EACH * form.piece_objects
    by_threads = inputs(enough - 1)
    assert len(inputs(enough, "text")) == len(by_threads) and not children, "a text is made where its record is"
    by_processes = inputs(enough)
    assert len(children) == 2 and all(child.returncode == -signal.SIGKILL for child in children)
    assert by_threads[0] == by_processes[0] and by_processes[0].code == "payload_changed"
    np.testing.assert_array_equal(by_processes[1:], by_threads[1:])
    assert len(by_threads) == silver.height >= 10


class Threaded:
    """In the place of a process: slow by chance, and fails at the row that is told."""

    fails_at = -1

    def __init__(self, name: str, pseudonyms: Pseudonyms | None, niceness: int) -> None:
        self.has_ended = False

    def asked(self, task: tuple[str, pl.DataFrame], read: Any, land: Any) -> processes.Made:
        assert not self.has_ended
        _, piece = task
        time.sleep(random.Random(piece["row"][0]).random() / 500)
        if self.fails_at in piece["row"]:
            raise SourceError(f"row {self.fails_at}", remedy="none")
        return piece.select("row"), [Rejected(str(piece["row"][0]), "code", "remedy")]

    def end(self) -> None:
        self.has_ended = True


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 30), st.integers(1, 4), st.integers(-1, 35))
def test_order_and_the_first_failure_do_not_depend_on_the_number(rows: int, count: int, fails_at: int) -> None:
    objects = pl.DataFrame({"record_ref": [f"{row:02d}" for row in range(rows)], "row": range(rows)})
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "_Process", type("Failing", (Threaded,), {"fails_at": fails_at}))
        made = pieces.side_by_side("-", pieces.cut(objects, 2), reader({}), KEYS, no_landing, count)
        if 0 <= fails_at < rows:
            with pytest.raises(SourceError, match=f"row {fails_at}"):
                seen += (row for _, (frame, _) in made for row in frame["row"])
        else:
            seen += (row for _, (frame, _) in made for row in frame["row"])
    assert seen == list(range(rows if not 0 <= fails_at < rows else fails_at - fails_at % 2))


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_Process", Threaded)
    taken: list[int] = []

    def given_out() -> Iterator[pl.DataFrame]:
        for row in range(100):
            taken.append(row)
            yield pl.DataFrame({"row": [row]})

    with closing(pieces.side_by_side("-", given_out(), reader({}), KEYS, no_landing, 3)) as made:
        for number, _ in enumerate(made):
            assert len(taken) <= number + pieces.AHEAD * 3 + 1
            if number == 20:
                break


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Every process that is started."""
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def starting(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start(*args, **options))
        return started[-1]

    monkeypatch.setattr(processes.subprocess, "Popen", starting)
    return started


def made_with(read: Callable[[str], bytes], count: int = 1) -> list[Any]:
    return list(pieces.side_by_side("raster", pieces.cut(pictures(4)[0], 1), read, KEYS, no_landing, count))


def test_a_source_that_fails_ends_the_processes_and_comes_through_as_it_was(
    children: list[subprocess.Popen[bytes]],
) -> None:
    error = SourceUnavailable("the source is away", remedy="wait")

    def read(uri: str) -> bytes:
        raise error

    with pytest.raises(SourceUnavailable) as caught:
        made_with(read, 2)
    assert caught.value is error
    assert len(children) == 2 and all(child.returncode == -signal.SIGKILL for child in children)


def test_a_process_that_is_killed_is_told_of_and_may_be_tried_again(children: list[subprocess.Popen[bytes]]) -> None:
    def read(uri: str) -> bytes:
        for child in children:
            child.kill()
        return b""

    with pytest.raises(
        StorageError, match=r"modality raster ended with exit status -9.*MEDVEC_DECODE_WORKERS"
    ) as caught:
        made_with(read)
    assert caught.value.retryable and caught.value.code == "process_ended"


def test_a_process_is_given_no_secret_but_through_its_pipe_and_can_write_no_file(
    children: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MEDVEC_PSEUDONYM_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, SECRET)
    told: list[bytes] = []

    def read(uri: str) -> bytes:
        for child in children:
            for name in ("cmdline", "environ", "limits"):
                told.append(Path(f"/proc/{child.pid}/{name}").read_bytes())
        raise ObjectRejected("enough", code="object_missing", remedy="none")

    made_with(read)
    assert not any(SECRET.encode() in one or (b"k" * 32) in one for one in told)
    assert children[0].returncode == -signal.SIGKILL, "it had to be ended, and was"
    sizes = [line.split()[3:5] for one in told for line in one.splitlines() if line.startswith(b"Max file size")]
    assert sizes and all(limits == [b"0", b"0"] for limits in sizes)


def test_a_failure_inside_a_process_is_raised_as_it_was() -> None:
    objects, contents = pictures(4)
    with pytest.raises(pl.exceptions.ColumnNotFoundError) as caught:
        list(pieces.side_by_side("raster", iter([objects.drop("record_ref")]), reader(contents), KEYS, no_landing, 1))
    assert "raster" in caught.value.__notes__[0] or "one_object" in caught.value.__notes__[0]


PARENT = """
import sys, time
sys.path.insert(0, {tests!r})
from test_pieces import KEYS, no_landing, pictures
from medvec_assets.stages import pieces, processes

def read(uri):
    print(*[process._process.pid for process in STARTED], flush=True)
    time.sleep(600)

STARTED = []
class Noted(processes._Process):
    def __init__(self, *args):
        super().__init__(*args)
        STARTED.append(self)

processes._Process = Noted
list(pieces.side_by_side("raster", pieces.cut(pictures(4)[0], 1), read, KEYS, no_landing, 2))
"""


def test_processes_end_with_the_run_that_is_killed() -> None:
    code = PARENT.format(tests=str(Path(__file__).parent))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    deadline = time.monotonic() + 60
    while any(is_at_work(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_at_work(pid: int) -> bool:
    """A process that ended may stay as a zombie where nobody waits for orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_stage_gives_the_same_with_one_worker_and_with_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: list[subprocess.Popen[bytes]]
) -> None:
    spec = dataset("geo_expression")
    monkeypatch.setattr(modality(spec.modality), "piece_objects", 3)  # of a modality without pieces: light to start
    monkeypatch.setattr(pieces, "PIECES_EACH", 1)
    found = []
    for workers in (1, 2):
        chosen = Settings(home=tmp_path / str(workers), pseudonym_key=SECRET, decode_workers=workers)
        ctx = Context(chosen, Lakehouse.open(chosen), "run")
        outcomes = [records.build(ctx, spec, one) for one in sorted(manifest.refresh(ctx, spec).plan["partition"])]
        silver, aside = ctx.lake.snapshot(tables.records(spec.id)), ctx.lake.snapshot(tables.quarantine(spec.id))
        assert silver is not None
        refused = aside.read(["object_id", "code", "disposition", "remedy"]).rows() if aside else []
        found.append((outcomes, silver.read().rows(), refused))
    assert len(children) >= 2
    assert found[0] == found[1] and len(found[0][1]) > 20


def test_every_error_of_ours_comes_through_a_pipe_whole() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MedvecError)]
    assert len(kinds) > 15
    for kind in kinds:
        needed = {"code": "c"} if kind is ObjectRejected else {"rule": "r"} if kind is errors.PolicyRefused else {}
        error = kind("what", remedy="how", **needed)
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))
