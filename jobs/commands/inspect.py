"""`vtm inspect`: what a run folder holds."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from jobs.table import print_table
from pipeline.counted import counted
from pipeline.store import Where


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder."""
    parser.add_argument("out", metavar="RUN", help="run folder, or its address")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print the summary and the table of videos."""
    facts = inspect(options.out)
    if options.json:
        print(json.dumps(facts, indent=1))
        return 0
    run_facts, totals = facts["run"], facts["totals"]
    settings = run_facts["settings"]
    print(f"{options.out}: fingerprint {run_facts['fingerprint']}")
    print(
        f"encoder {run_facts['encoder']['name']} (weights {run_facts['encoder']['weights_sha256'][:12]}), "
        f"block {settings['layer']}, {run_facts['encoder']['compute_dtype']}{_architecture_text(run_facts['encoder'])}"
    )
    print(
        f"{settings['strategy']}, {_size_text(run_facts)}, {settings['fps']} fps, "
        f"{counted(settings['clip_frames'], 'frame')} a clip, {settings['dtype']}"
    )
    print(
        f"{counted(totals['videos'], 'video')}, {totals['duration_s'] / 3600:.2f} h, "
        f"{totals['clips_done']} of {counted(totals['clips'], 'clip')} in {counted(totals['shards'], 'shard')}, "
        f"{totals['size_bytes'] / 1e6:.1f} MB, {counted(totals['failures'], 'failure')}"
    )
    print_table(
        ["video", "id", "codec", "size", "length s", "clips", "damaged", "status"],
        [
            [
                v["uri"],
                v["video_id"][:12],
                v["codec"],
                f"{v['width_px']}x{v['height_px']}",
                f"{v['duration_found_s']:.1f}",
                f"{v['clips_done']}/{v['clips']}",
                v["damaged_frames"],
                v["status"],
            ]
            for v in facts["videos"]
        ],
    )
    for failed in facts["failures"]:
        print(f"failed: {failed['uri']} [{failed['failure']}] {failed['message']}")
    for video in facts["videos"]:
        for warning in video["warnings"]:
            print(f"warning: {video['uri']}: {warning}")
    return 0


def _architecture_text(encoder: dict[str, Any]) -> str:
    """Who runs the encoder, where it is not our own."""
    if encoder.get("architecture") is None:
        return ""
    text = f", run by transformers ({encoder['architecture']}, {counted(encoder['tubelet_frames'], 'frame')} a token)"
    about = encoder.get("video_llm")
    if about is None:
        return text
    height_px, width_px = about["size_px"]
    return (
        f"{text}, {about['stage']} tokens of {about['merge_size']} x {about['merge_size']} patches, "
        f"{about['source_tokens_per_s']:g} a second before merging at {height_px}x{width_px} px ({about['size_from']})"
    )


def _size_text(run_facts: dict[str, Any]) -> str:
    settings = run_facts["settings"]
    if run_facts["encoder"].get("vtm_decides_count"):
        return "merged as far as the network was trained to"
    if settings["tokens_per_clip"]:
        return f"{counted(settings['tokens_per_clip'], 'token')} a clip"
    if settings.get("fidelity"):
        return f"fidelity {settings['fidelity']:g} in every clip"
    if settings["partition_factor"]:
        return f"partition factor {settings['partition_factor']}, merge share {settings['merge_share']}"
    return f"{run_facts['fingerprinted']['keep']:g} of the tokens kept"


def inspect(out: Where) -> dict[str, Any]:
    """Everything the command shows, as data.

    Raises:
        RunFolderError: the folder holds no run.
    """
    from pipeline.shards.run_folder import read_state, video_rows

    state = read_state(out)
    videos, manifests, failures = list(video_rows(state)), state.manifests, state.settled.failures
    return {
        "run": state.run,
        "totals": {
            "videos": len(videos),
            "duration_s": sum(video["duration_found_s"] for video in videos),
            "clips": sum(video["clips"] for video in videos),
            "clips_done": sum(video["clips_done"] for video in videos),
            "shards": len(manifests),
            "size_bytes": sum(file.size_bytes for manifest in manifests.values() for file in manifest.files),
            "failures": len(failures),
        },
        "videos": videos,
        "failures": [asdict(failed) for failed in failures],
    }
