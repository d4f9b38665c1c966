"""Which classes the workers of a run are, in any executor. Each loads what it needs when it starts."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.engine.decode_worker import DecodeWorker
from pipeline.engine.encode_worker import EncodeWorker
from pipeline.engine.write_worker import WriteWorker


class WorkerTypes(NamedTuple):
    """What each kind of worker is made of."""

    decode: type[DecodeWorker] = DecodeWorker
    encode: type[EncodeWorker] = EncodeWorker
    write: type[WriteWorker] = WriteWorker


REAL = WorkerTypes()
"""What a run is made by; a benchmark may have others."""
