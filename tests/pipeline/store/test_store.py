"""A folder, memory and S3 behave alike; an S3 server that is busy, slow or breaks off is borne with."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import boto3
import fsspec
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from jobs.cli import main
from pipeline import TokenCache
from pipeline.inputs import sources
from pipeline.store import Store, TakenError, open_store
from pipeline.store.local_copies import LocalCopies
from pipeline.verify import verify
from tests.pipeline.runs import rows_of, run, tiny_recipe
from tests.synthetic import make_video

SECRET = "not-to-be-written-down"


class Proxy(ThreadingHTTPServer):
    """Stands before an S3 server; every so many requests it answers 503, 429, late, or not at all."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.behind, self.every, self.count, self.faults = behind, 0, 0, 0
        self.is_dead = False
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self) -> str:
        with self.lock:
            self.count += 1
            if not self.every or self.count % self.every:
                return ""
            self.faults += 1
            return ("503", "429", "reset", "slow")[self.faults % 4]


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *args: object) -> None:
        pass

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def do(self) -> None:
        body = self._body()
        fault = self.server.fault()
        if fault == "reset":
            self.close_connection = True
            self.connection.close()
            return
        if fault == "slow":
            time.sleep(0.3)
        if fault in ("503", "429"):
            code = {"503": "SlowDown", "429": "TooManyRequests"}[fault]
            self._answer(
                int(fault), {"Content-Type": "application/xml"}, f"<Error><Code>{code}</Code></Error>".encode()
            )
            return
        request = Request(self.server.behind + self.path, data=body or None, method=self.command)
        # Without one, urllib would say that the body is a form.
        request.add_header("Content-Type", "application/octet-stream")
        for name, value in self.headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "expect"):
                request.add_header(name, value)
        try:
            with urlopen(request, timeout=20) as answer:
                self._answer(answer.status, dict(answer.headers), answer.read())
        except HTTPError as error:
            self._answer(error.code, dict(error.headers), error.read())

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[Proxy, Any]]:
    """An S3 server behind a proxy, with a bucket `runs`."""
    served = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    served.start()
    host, port = served.get_host_and_port()
    proxy = Proxy(f"http://{host}:{port}")
    thread = threading.Thread(target=proxy.serve_forever, args=(0.02,))
    thread.start()
    names = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    names["AWS_ENDPOINT_URL"] = proxy.url
    # Bodies in AWS's own chunks are more than the proxy understands.
    names["AWS_REQUEST_CHECKSUM_CALCULATION"] = names["AWS_RESPONSE_CHECKSUM_VALIDATION"] = "when_required"
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket="runs")
        yield proxy, client
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        s3fs.S3FileSystem.clear_instance_cache()
        proxy.shutdown()
        thread.join()
        proxy.server_close()
        served.stop()


@pytest.fixture(params=["disk", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "disk":
        folder = open_store(tmp_path / "run")
        folder.make()
        yield folder
    elif request.param == "memory":
        yield open_store(f"memory://{tmp_path.name}/run")
        fsspec.filesystem("memory").store.clear()
    else:
        request.getfixturevalue("s3")
        yield open_store(f"s3://runs/{tmp_path.name}")


def test_four_verbs(store: Store) -> None:
    assert store.is_empty()
    assert list(store.list()) == []
    store.put("a/one", b"0123456789")
    store.put("two", b"2")
    assert [entry.name for entry in store.list()] in (["two", "a/one"], ["a/one", "two"])
    assert [(e.name, e.size_bytes) for e in store.list("a")] == [("a/one", 10)]
    assert store.get("a/one") == b"0123456789"
    assert store.get("a/one", 2, 5) == b"234"
    assert store.get("a/one", 7) == b"789"
    with store.open("a/one") as stream:
        stream.seek(-3, 2)
        assert stream.read(2) == b"78"
    stamp = store.entry("two")
    store.put("two", b"22")
    assert store.entry("two") != stamp
    store.delete("two")
    store.delete("two")
    assert store.entry("two") is None
    assert not store.is_empty()
    for read in (store.get, store.open):
        with pytest.raises(FileNotFoundError):
            read("two")


def test_only_one_of_two_puts_what_was_absent(store: Store) -> None:
    store.put("claim", b"mine", only_if_absent=True)
    with pytest.raises(TakenError):
        store.put("claim", b"yours", only_if_absent=True)
    assert store.get("claim") == b"mine"


def test_hashes_are_of_what_was_written(store: Store) -> None:
    with store.writer("shards/x.parquet") as stream:
        stream.write(b"abc")
        stream.write(memoryview(b"def"))
    assert (stream.size_bytes, stream.sha256) == (6, hashlib.sha256(b"abcdef").hexdigest())
    assert store.get("shards/x.parquet") == b"abcdef"


def test_a_writer_that_dies_leaves_nothing(store: Store) -> None:
    def die() -> None:
        with store.writer("shards/x.parquet") as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die()
    assert list(store.list()) == []


def test_an_upload_that_was_killed_is_removed_when_old(s3: tuple[Proxy, Any]) -> None:
    _, client = s3
    upload = client.create_multipart_upload(Bucket="runs", Key="killed/shards/x.parquet")
    client.upload_part(
        Bucket="runs", Key="killed/shards/x.parquet", UploadId=upload["UploadId"], PartNumber=1, Body=b"x"
    )
    other = client.create_multipart_upload(Bucket="runs", Key="killed-not/x")
    store = open_store("s3://runs/killed")
    # This server says of every upload that it was begun in 2010.
    store.sweep(older_than_s=1e9)
    assert len(client.list_multipart_uploads(Bucket="runs")["Uploads"]) == 2
    store.sweep()
    left = client.list_multipart_uploads(Bucket="runs")["Uploads"]
    assert [item["Key"] for item in left] == ["killed-not/x"]
    client.abort_multipart_upload(Bucket="runs", Key="killed-not/x", UploadId=other["UploadId"])


def test_a_large_object_goes_in_parts_which_are_aborted_when_given_up(
    s3: tuple[Proxy, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = s3
    store = open_store("s3://runs/large")

    async def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError("no more parts")

    real = s3fs.S3FileSystem._call_s3

    async def call(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        return await (refuse() if method == "upload_part" else real(self, method, *args, **kwargs))

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", call)

    def write() -> None:
        with store.writer("big") as stream:
            for _ in range(101):
                stream.write(bytes(1 << 20))

    with pytest.raises(OSError, match="no more parts"):
        write()
    assert not client.list_multipart_uploads(Bucket="runs").get("Uploads")
    assert store.entry("big") is None


def test_a_run_on_s3_equals_one_on_a_disk(
    s3: tuple[Proxy, Any],
    tiny_encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy, client = s3

    def keys() -> list[str]:
        return [item["Key"] for item in client.list_objects_v2(Bucket="runs", Prefix="out/")["Contents"]]

    video = make_video(tmp_path / "video.mp4", frames=251, gop=50, bframes=2)
    client.upload_file(str(video), "runs", "films/video.mp4")
    recipe = tiny_recipe(tiny_encoder)
    run([video], tmp_path / "local", recipe)
    proxy.every = 9
    try:
        summary = run(["s3://runs/films"], "s3://runs/out", recipe)
        assert (summary.exit_code, summary.clips) == (0, 7), summary.failures
        assert proxy.faults > 4
        verdict = verify("s3://runs/out")
        assert (verdict.problems, verdict.clips) == ((), 7)
        # Known by its etag, however it is named: not read again.
        monkeypatch.setattr(sources, "identify", lambda uri: pytest.fail(f"{uri} is read again"))
        (tmp_path / "list.txt").write_text("s3://runs/films/video.mp4")
        for named in ("s3://runs/films", str(tmp_path / "list.txt")):
            assert run([named], "s3://runs/out", recipe).exit_code == 0
        monkeypatch.undo()
        for command in (
            ["inspect", "s3://runs/out", "--json"],
            ["status", "s3://runs/out"],
            ["report", "s3://runs/out"],
        ):
            assert main(command) == 0
        shard = next(key for key in keys() if key.startswith("out/shards/"))
        client.delete_object(Bucket="runs", Key=shard)
        assert main(["repair", "s3://runs/out", "--engine", "inline", "--gpus", "0"]) == 0
        assert shard in keys()
    finally:
        proxy.every = 0
    # The address is a column, so the files differ in it alone.
    local, cache = TokenCache(tmp_path / "local"), TokenCache("s3://runs/out")
    assert cache.clip_ids == local.clip_ids
    for mine, theirs in zip(cache, local, strict=True):
        assert mine.tokens.numpy().tobytes() == theirs.tokens.numpy().tobytes()
    assert rows_of(tmp_path / "local").keys() == set(cache.clip_ids)
    assert not client.list_multipart_uploads(Bucket="runs").get("Uploads")
    assert "out/report.html" in keys()
    for key in keys():
        assert SECRET.encode() not in client.get_object(Bucket="runs", Key=key)["Body"].read()
    shown = capsys.readouterr()
    assert "7/7" in shown.out or '"clips_done": 7' in shown.out
    assert SECRET not in shown.out + shown.err + caplog.text


def test_files_on_s3_are_those_on_a_disk(s3: tuple[Proxy, Any], tiny_encoder: Path, tmp_path: Path) -> None:
    _, client = s3
    video = make_video(tmp_path / "video.mp4", frames=101, gop=50)
    recipe = tiny_recipe(tiny_encoder)
    for out in (tmp_path / "out", "s3://runs/same"):
        run([video], out, recipe, format=("parquet", "webdataset"))
    for path in (*(tmp_path / "out" / "shards").iterdir(), *(tmp_path / "out" / "webdataset").iterdir()):
        key = f"same/{path.parent.name}/{path.name}"
        assert client.get_object(Bucket="runs", Key=key)["Body"].read() == path.read_bytes()


def test_counting_and_listing_read_no_tokens(
    s3: tuple[Proxy, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.shards.manifest import write_shard
    from pipeline.store.objects import ObjectStore
    from tests.pipeline.clips_made import RUN, made_clip

    store = open_store("s3://runs/listed")
    store.put("run.json", json.dumps(RUN).encode())
    write_shard(store, "a" * 16, [made_clip(index) for index in range(3)], [], RUN, ("parquet",))
    names: list[str] = []
    real = ObjectStore.get
    monkeypatch.setattr(ObjectStore, "get", lambda self, name, *span: names.append(name) or real(self, name, *span))
    cache = TokenCache("s3://runs/listed")
    assert (len(cache), len(cache.clip_ids), cache.clip_ids[1] in cache) == (3, 3, True)
    assert not [name for name in names if name.startswith("shards/")]
    assert cache[1].clip_index == 1
    assert [name for name in names if name.startswith("shards/")]


def test_local_copies_are_read_once_and_follow_changes(store: Store, tmp_path: Path) -> None:
    store.put("shards/x", b"first")
    copies = LocalCopies(store, tmp_path / "copies")
    for _ in range(2):
        with copies.open("shards/x") as stream:
            assert stream.read() == b"first"
    store.put("shards/x", b"second")
    with copies.open("shards/x") as stream:
        assert stream.read() == b"second"
    assert len(list((tmp_path / "copies").iterdir())) == 2
