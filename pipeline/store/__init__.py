"""Where a run lives: a folder, or a prefix of an object store. Four verbs, and what follows from them."""

from pipeline.store.open_store import Where, open_store
from pipeline.store.store import Entry, HashingFile, Store, TakenError

__all__ = ["Entry", "HashingFile", "Store", "TakenError", "Where", "open_store"]
