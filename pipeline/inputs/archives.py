"""Videos inside tar and zip archives, as addresses that fsspec opens: nothing is unpacked."""

from __future__ import annotations

from collections.abc import Iterator

import fsspec

from pipeline.errors import InputError
from pipeline.inputs.addresses import is_video, suffix_of

ARCHIVE_SUFFIXES = {".tar": "tar", ".zip": "zip"}


def is_archive(name: str) -> bool:
    """Whether a file is an archive, by its name."""
    return suffix_of(name) in ARCHIVE_SUFFIXES and "::" not in name


def members(uri: str) -> Iterator[tuple[str, int]]:
    """Address and size of each video of an archive, in order of their names.

    Raises:
        InputError: it cannot be read, or holds none.
    """
    protocol = ARCHIVE_SUFFIXES[suffix_of(uri)]
    try:
        found = fsspec.url_to_fs(f"{protocol}://::{uri}", skip_instance_cache=True)[0].find("", detail=True)
    # Archives, file systems and their networks have errors of their own, without a common class below Exception.
    except Exception as error:
        raise InputError(f"{uri}: cannot be read as a {protocol} archive: {error}") from error
    names = sorted(name for name in found if is_video(name))
    if not names:
        raise InputError(f"{uri}: the archive holds no video")
    for name in names:
        yield f"{protocol}://{name.lstrip('/')}::{uri}", int(found[name]["size"])
