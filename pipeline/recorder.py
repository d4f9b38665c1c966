"""videos.parquet and failures.parquet kept current while a run goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import RunFolderError
from pipeline.shards.run_folder import write_records
from pipeline.store import Store

log = logging.getLogger(__name__)
EVERY_S = 30.0
SHARE = 0.05
"""Most of the time that goes into it: a run of a million videos takes longer to read."""


@contextmanager
def recording(store: Store, every_s: float = EVERY_S) -> Iterator[None]:
    """Write the records again and again, in a thread of their own; the caller writes them at the end."""
    ends = threading.Event()
    thread = threading.Thread(target=_record, args=(store, ends, every_s), name="records", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def _record(store: Store, ends: threading.Event, every_s: float) -> None:
    pause_s = every_s
    while not ends.wait(pause_s):
        began_s = time.monotonic()
        try:
            write_records(store)
        except (OSError, RunFolderError) as error:
            # The run itself fails where it matters; these tables can be made again.
            log.warning("the records cannot be brought up to date: %s", error)
        pause_s = max(every_s, (time.monotonic() - began_s) / SHARE)
