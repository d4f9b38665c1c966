"""Remote videos against real servers on loopback: an HTTP server with ranges and faults, and an S3-compatible one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import DecodeError
from pipeline.inputs.sources import identify
from pipeline.plan.clips import plan_clips
from pipeline.video import open_video, scan_video, timing_of
from pipeline.video.ranges import LEAST_BYTES, MOST_BYTES, RangeFile
from tests.pipeline.video.h264_fields import Picture, write
from tests.pipeline.video.reference import SMALL, decode_units, expect_equal, full_decode, source_of
from tests.synthetic import make_video


class Server(ThreadingHTTPServer):
    """Serves one body with ranges; `fault(handler, request number)` may answer in its place and then returns True."""

    daemon_threads = True

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body = body
        self.fault: Callable[[BaseHTTPRequestHandler, int], bool] = lambda handler, number: False
        self.has_ranges = True
        self.gets = 0
        self.sent_bytes = 0

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/video.mp4"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gives up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self.server.gets += 1
        if not self.server.fault(self, self.server.gets):
            self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        body = self.server.body
        wanted = self.headers.get("Range")
        first, last = 0, len(body) - 1
        if wanted:
            start, _, end = wanted.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end), last) if end else last
        self.send_response(206 if wanted else 200)
        if self.server.has_ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last + 1 - first))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
        self.end_headers()
        if with_body:
            self.wfile.write(body[first : last + 1])
            self.server.sent_bytes += last + 1 - first

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests count."""


def status(code: int) -> Callable[[BaseHTTPRequestHandler, int], bool]:
    def answer(handler: BaseHTTPRequestHandler, number: int) -> bool:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return answer


def drop(handler: BaseHTTPRequestHandler, number: int) -> bool:
    """Promise a megabyte, send a part, hang up."""
    if number % 2:
        handler.send_response(206)
        handler.send_header("Content-Length", str(1 << 20))
        handler.end_headers()
        handler.wfile.write(b"x" * 1000)
        handler.close_connection = True
        handler.connection.close()
    return bool(number % 2)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("remote") / "video.mp4", frames=80, gop=10, bframes=2)


@pytest.fixture
def server(video: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(RangeFile.__init__, "__kwdefaults__", {"timeout_s": 0.5, "waits_s": (0.01, 0.01, 0.01)})
    served = Server(video.read_bytes())
    thread = threading.Thread(target=served.serve_forever, args=(0.02,))
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def expect_same_clips(uri: str, video: Path) -> None:
    """The clips of a remote video are those of the file."""
    fps = Fraction(3)
    info = scan_video(source_of(uri))
    clips = decode_units(info, fps, clip_frames=4, unit_clips=2)
    expect_equal(info, clips, full_decode(scan_video(source_of(video))), fps)


def test_http_gives_what_the_file_gives(server: Server, video: Path) -> None:
    expect_same_clips(server.uri, video)


def test_a_window_of_a_long_file_is_read_by_range(video: Path, server: Server) -> None:
    server.body = video.read_bytes()
    with RangeFile(server.uri) as file:
        file.seek(-7, 2)
        assert file.read(100) == server.body[-7:]
        file.seek(13)
        assert (file.read(29), file.tell()) == (server.body[13:42], 42)
        assert file.read(29) == server.body[42:71]
    # The second request took in what the third read asked for.
    assert server.gets == 2


def test_busy_servers_and_dropped_connections_are_tried_again(server: Server, video: Path) -> None:
    server.fault = lambda handler, number: number % 3 != 0 and status(503)(handler, number)
    expect_same_clips(server.uri, video)
    server.fault = drop
    expect_same_clips(server.uri, video)


@pytest.mark.parametrize(("code", "requests"), [(404, 1), (403, 1), (503, 4), (500, 4)])
def test_errors_that_last_are_of_class_io(server: Server, code: int, requests: int) -> None:
    server.fault = status(code)
    with pytest.raises(DecodeError) as error:
        scan_video(source_of(server.uri))
    assert error.value.failure == "io"
    assert server.uri in str(error.value)
    assert "\n" not in str(error.value)
    assert server.gets == requests


def test_a_server_that_falls_silent_is_not_waited_for(server: Server) -> None:
    given_up = threading.Event()
    waited_out: list[int] = []

    def fall_silent(handler: BaseHTTPRequestHandler, number: int) -> bool:
        if not given_up.wait(100):
            waited_out.append(number)
        return False

    server.fault = fall_silent
    with pytest.raises(DecodeError) as error:
        scan_video(source_of(server.uri))
    given_up.set()
    assert error.value.failure == "io"
    assert not waited_out, "it waited until the server gave up"


def test_a_server_that_is_not_there_is_of_class_io(server: Server) -> None:
    with pytest.raises(DecodeError) as error:
        scan_video(source_of("http://127.0.0.1:9/video.mp4"))
    assert error.value.failure == "io"


def test_s3_gives_what_the_file_gives(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    served = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    served.start()
    try:
        host, port = served.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="films")
        client.upload_file(str(video), "films", "a folder/video.mp4")
        expect_same_clips("s3://films/a folder/video.mp4", video)
        with pytest.raises(DecodeError) as error:
            scan_video(source_of("s3://films/none.mp4"))
        assert error.value.failure == "io"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        served.stop()


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, so that a second of it takes 150 kB: 60 s in groups of 1 s."""
    noise = np.random.default_rng(1).integers(0, 255, (60, 96, 128, 3), dtype=np.uint8)
    pictures = [noise[i // 10] for i in range(600)]
    path = tmp_path_factory.mktemp("long") / "video.mp4"
    options = {"preset": "ultrafast", "qp": "4", "x264-params": "keyint=10:scenecut=0:bframes=2:b-adapt=0"}
    return make_video(path, frames=pictures, fps=10, gop=10, bframes=2, options=options)


def test_tables_tell_what_the_packets_tell(server: Server, long_video: Path) -> None:
    server.body = long_video.read_bytes()
    near, far = scan_video(source_of(long_video)), scan_video(source_of(server.uri))
    for name in ("frame_pts", "key_pts"):
        np.testing.assert_array_equal(getattr(far, name), getattr(near, name))
    for name in (
        "time_base",
        "start_pts",
        "last_pts",
        "frames_found",
        "picture",
        "codec",
        "missing_tail_ns",
        "warnings",
    ):
        assert getattr(far, name) == getattr(near, name), name
    assert server.sent_bytes < 16 * LEAST_BYTES


def test_fields_between_the_packets_that_are_looked_at(server: Server, tmp_path: Path) -> None:
    """Tables count samples, and two of them may be one picture: of such a stream every packet is read."""
    shown = [Picture(grey=20 + i, fields=i % 12 > 7, idr=i % 12 == 0) for i in range(120)]
    path = write(tmp_path / "video.mp4", shown, packet_per_field=True)
    server.body = path.read_bytes()
    near, far = scan_video(source_of(path)), scan_video(source_of(server.uri))
    assert (near.frames_found, far.frames_found) == (120, 120)
    np.testing.assert_array_equal(far.frame_pts, near.frame_pts)


def test_only_the_groups_that_are_wanted_are_read(server: Server, long_video: Path) -> None:
    """A unit of 6 s out of 60, and of a clip's key frames alone."""
    server.body = long_video.read_bytes()
    groups = len(server.body) * 6 / 60
    assert bytes_of_a_clip(server) < 1.1 * groups + 4 * LEAST_BYTES


def bytes_of_a_clip(server: Server) -> int:
    """What decoding 6 s of the 60 takes, without opening the file."""
    info = scan_video(source_of(server.uri))
    clips = plan_clips(info, fps=Fraction(2), clip_frames=12)
    server.sent_bytes = 0
    with open_video(timing_of(info)) as video:
        opened = server.sent_bytes
        (clip,) = video.decode(clips[4:5], SMALL)
    assert (len(clip.frames), clip.damaged_frames) == (12, 0)
    return server.sent_bytes - opened


@pytest.mark.parametrize("suffix", [".ts", ".flv", ".mkv"])
def test_containers_that_are_searched_are_read_once(
    server: Server, long_video: Path, tmp_path: Path, suffix: str
) -> None:
    """Found by search, TS and FLV took several times the bytes of their groups."""
    path = tmp_path / f"video{suffix}"
    with av.open(str(long_video)) as source, av.open(str(path), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    server.body = path.read_bytes()
    assert bytes_of_a_clip(server) < 1.25 * len(server.body) * 6 / 60 + 4 * LEAST_BYTES


def test_reading_in_a_row_is_ahead_and_exact(server: Server) -> None:
    server.body = np.random.default_rng(2).bytes(9 << 20)
    with RangeFile(server.uri) as file:
        parts = []
        while part := file.read(40_000):
            parts.append(part)
        assert b"".join(parts) == server.body
        file.seek(5 << 20)
        assert file.read(10) == server.body[5 << 20 : (5 << 20) + 10]
    assert server.sent_bytes < 1.02 * len(server.body) + MOST_BYTES
    assert server.gets < 160


class NoRanges:
    """Sends the whole object, whatever part was asked for."""

    def __init__(self, body: bytes) -> None:
        self.body, self.gets = body, 0

    def __call__(self, handler: BaseHTTPRequestHandler, number: int) -> bool:
        self.gets += 1
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(self.body)))
        handler.end_headers()
        handler.wfile.write(self.body)
        return True


def test_a_server_without_ranges_sends_a_small_object_once(
    server: Server, long_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.body = long_video.read_bytes()
    server.has_ranges = False
    server.fault = whole = NoRanges(server.body)
    with RangeFile(server.uri) as file:
        # One look at whether it has ranges, then the object.
        assert (file.read(), whole.gets) == (server.body, 2)
    monkeypatch.setattr("pipeline.video.ranges.WHOLE_MOST_BYTES", 1000)
    with pytest.raises(DecodeError, match="sends no ranges") as error:
        scan_video(source_of(server.uri))
    assert error.value.failure == "io"
    assert whole.gets == 3


def test_a_connection_that_breaks_for_good_is_no_end_of_the_file(server: Server, long_video: Path) -> None:
    server.body = long_video.read_bytes()
    info = scan_video(source_of(server.uri))
    with open_video(timing_of(info)) as video:
        clips = video.decode(plan_clips(info, fps=Fraction(1), clip_frames=5), SMALL)
        next(clips)
        server.fault = status(503)
        with pytest.raises(DecodeError) as error:
            list(clips)
    assert error.value.failure == "io"


def test_a_remote_video_is_known_by_the_same_id(server: Server, tmp_path: Path) -> None:
    server.body = np.random.default_rng(3).bytes(5 << 20)
    path = tmp_path / "video.mp4"
    path.write_bytes(server.body)
    near, far = identify(str(path)), identify(server.uri)
    assert (near.video_id, near.size_bytes) == (far.video_id, far.size_bytes)
    assert server.sent_bytes < 3 << 20
