"""Workers that do nothing, as fast as it goes: what is left of a run's time is the engine's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.engine.decode_worker import Decoded, DecodeWorker
from pipeline.engine.encode_worker import Encoded, EncodeWorker
from pipeline.engine.job import ClipDone, ShardCommitted, StageTime
from pipeline.engine.worker_types import WorkerTypes
from pipeline.engine.write_worker import WriteWorker
from pipeline.failed_range import FailedRange
from pipeline.inputs.named import Input, VideoSource
from pipeline.plan.planned_video import PlannedVideo
from pipeline.plan.units import Clip, Unit
from pipeline.shards.commit_record import ShardManifest
from pipeline.values import ClipSpec, DecodedClip, TokenSet

SECOND_NS = 1_000_000_000


class NullDecodeWorker(DecodeWorker):
    """Videos of as many clips as their address says; black frames."""

    def start(self) -> None:
        """Nothing to load."""

    def scan(self, source: Input) -> PlannedVideo:
        """The address ends in the number of clips."""
        clips = int(source.uri.rsplit("-", 1)[1])
        return PlannedVideo(
            source=VideoSource(video_id=source.unread_id, uri=source.uri, size_bytes=1),
            num_clips=clips,
            num_instants=clips * self._job.recipe.clip_frames,
            end_ns=clips * SECOND_NS,
        )

    def decode(self, clip: Clip, uri: str, unit: Unit) -> Decoded:
        """Black frames of the encoder's size."""
        picture, count = self._job.picture, self._job.recipe.clip_frames
        spec = ClipSpec(
            video_id=clip.video_id,
            index=clip.index,
            start_ns=clip.index * SECOND_NS,
            end_ns=(clip.index + 1) * SECOND_NS,
            frame_pts=tuple(range(count)),
            frame_instants=(1,) * count,
        )
        frames = np.zeros((count, picture.crop_height_px, picture.crop_width_px, 3), dtype=np.uint8)
        times = np.arange(count, dtype=np.int64)
        return Decoded(DecodedClip(spec=spec, frames=frames, frame_time_ns=times, damaged_frames=0), StageTime())


class NullEncodeWorker(EncodeWorker):
    """One token a clip."""

    def start(self) -> None:
        """Nothing to load."""

    def encode(self, decoded: Decoded, uri: str) -> tuple[ClipDone, Encoded]:
        """A token of zeros."""
        spec = decoded.clip.spec
        nothing = np.zeros((1, 8), dtype=np.float32)
        tokens = TokenSet(
            clip_id=spec.clip_id,
            video_id=spec.video_id,
            uri=uri,
            clip_index=spec.index,
            start_ns=spec.start_ns,
            end_ns=spec.end_ns,
            frame_time_ns=decoded.clip.frame_time_ns,
            grid_thw=(1, 1, 1),
            tokens=nothing,
            tokens_dtype="float32",
            tokens_scale=None,
            sizes=np.ones(1, dtype=np.int32),
            centers=np.zeros((1, 3), dtype=np.float32),
            group=np.zeros(1, dtype=np.uint16),
            pooled=nothing[0],
            fidelity=1.0,
            motion_source="none",
            damaged_frames=0,
        )
        done = ClipDone(
            video_id=spec.video_id,
            clip_index=spec.index,
            video_ns=SECOND_NS,
            damaged_frames=0,
            decode=StageTime(),
            encode=StageTime(),
        )
        return done, Encoded(tokens)


class NullWriteWorker(WriteWorker):
    """Writes nothing."""

    def start(self) -> None:
        """Nothing to load."""

    def write(self, shard_id: str, clips: Sequence[Encoded], failures: Sequence[FailedRange]) -> ShardCommitted:
        """A manifest without files."""
        manifest = ShardManifest(
            shard_id=shard_id, fingerprint="", num_clips=len(clips), files=(), failures=(), damaged_frames={}
        )
        return ShardCommitted(manifest, StageTime())


NULL = WorkerTypes(NullDecodeWorker, NullEncodeWorker, NullWriteWorker)
