"""Whole runs on remote inputs: the same videos, and so the same ids and bytes, as from a disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.verify import verify
from tests.pipeline.runs import rows_of, run, tiny_recipe
from tests.pipeline.video.test_remote import Server, status
from tests.synthetic import make_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("remote") / "video.mp4", frames=131, gop=20, bframes=2)


@pytest.fixture
def server(video: Path) -> Iterator[Server]:
    served = Server(video.read_bytes())
    thread = threading.Thread(target=served.serve_forever, args=(0.02,))
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def busy_now_and_then(handler: Any, number: int) -> bool:
    return status(503)(handler, number) if number % 3 == 1 else False


def test_http_with_a_busy_server(server: Server, video: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_encoder)
    run([video], tmp_path / "local", recipe)
    server.fault = busy_now_and_then
    assert run([server.uri], tmp_path / "remote", recipe).exit_code == 0
    assert rows_of(tmp_path / "remote") == rows_of(tmp_path / "local")


@pytest.mark.parametrize("code", [403, 404])
def test_http_that_refuses_beside_a_good_file(
    server: Server, video: Path, tiny_encoder: Path, tmp_path: Path, code: int
) -> None:
    server.fault = status(code)
    summary = run([server.uri, video], tmp_path / "out", tiny_recipe(tiny_encoder))
    assert summary.exit_code == 3
    assert [(failed.failure, failed.uri) for failed in summary.failures] == [("io", server.uri)]
    assert verify(tmp_path / "out").is_sound


def test_a_folder_on_s3(video: Path, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    names = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    served = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    served.start()
    try:
        host, port = served.get_host_and_port()
        names["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
        for name, value in names.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=names["AWS_ENDPOINT_URL"])
        client.create_bucket(Bucket="films")
        client.upload_file(str(video), "films", "deep/er/video.mp4")
        client.put_object(Bucket="films", Key="deep/note.txt", Body=b"no video")
        recipe = tiny_recipe(tiny_encoder)
        summary = run(["s3://films/deep"], tmp_path / "remote", recipe)
        assert (summary.exit_code, summary.videos) == (0, 1)
        run([video], tmp_path / "local", recipe)
        assert rows_of(tmp_path / "remote") == rows_of(tmp_path / "local")
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        served.stop()
