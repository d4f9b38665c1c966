"""The version of this package, as it was installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("vtm-pipeline")
except PackageNotFoundError:
    # A checkout on PYTHONPATH that was never installed.
    __version__ = "0+unknown"
