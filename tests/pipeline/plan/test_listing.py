"""What was named, as columns: each address once, the same list stored once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.failed_range import FailedRange
from pipeline.inputs.named import Input, Named
from pipeline.plan import inputs as inputs_module
from pipeline.plan.inputs import FOLDER, Listing, read_inputs, store_inputs
from pipeline.store import open_store


def named(uri: str, by: str = "list.csv", labels: str = "") -> Named:
    return Named(by, Input(uri=uri, size_bytes=7, stamp=f"stamp of {uri}"), labels)


def lost(uri: str, message: str = "it is not there") -> FailedRange:
    return FailedRange(video_id="0" * 32, uri=uri, start_ns=0, end_ns=0, failure="io", message=message, attempts=1)


ITEMS = [
    named("b.mp4", labels='{"label": "x"}'),
    lost("gone.mp4"),
    named("a.mp4"),
    named("b.mp4", labels='{"label": "y"}'),
    lost("gone.mp4", "and again"),
    lost("a.mp4"),
    named("c.mp4"),
]


def test_each_address_is_there_once_in_the_order_of_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs_module, "BATCH_ROWS", 2)
    listing = Listing(iter(ITEMS))
    assert len(listing) == 4
    assert list(listing.once()) == [named("b.mp4").input, named("a.mp4").input, named("c.mp4").input, lost("gone.mp4")]
    assert listing.naming(["a.mp4", "gone.mp4", "other"]) == {"a.mp4", "gone.mp4"}


def test_nothing_named_is_an_empty_listing(tmp_path: Path) -> None:
    listing = Listing()
    assert list(listing.once()) == []
    assert listing.naming(["a.mp4"]) == set()
    store_inputs(open_store(tmp_path), listing)
    assert read_inputs(open_store(tmp_path)) == ()


def test_the_same_list_is_stored_once_and_another_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    store_inputs(store, Listing(ITEMS))
    monkeypatch.setattr(inputs_module, "BATCH_ROWS", 3)
    store_inputs(store, Listing(ITEMS))
    assert len(list(store.list(FOLDER))) == 1
    assert read_inputs(store) == tuple(item for item in ITEMS if isinstance(item, Named))
    store_inputs(store, Listing([*ITEMS, named("d.mp4")]))
    store_inputs(store, Listing([named("b.mp4", labels='{"label": "z"}')]))
    assert len(list(store.list(FOLDER))) == 3
