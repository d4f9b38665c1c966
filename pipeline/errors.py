"""The error tree of the pipeline.

    ExtractError
    ├── SettingsError (ValueError)   the user asked for something impossible       exit code 2
    ├── InputError (ValueError)      an input that names nothing usable            exit code 2
    ├── RunFolderError               the output folder cannot be used for this     exit code 2
    ├── DecodeError                  one video, or a range of it, cannot be read   recorded, exit code 3
    ├── EncodeError                  the encoder cannot take one clip              recorded, exit code 3
    ├── StoreError                   the run folder cannot be written               exit code 1
    └── EngineError                  the run cannot go on; what is committed stays  exit code 1

DecodeError and EncodeError are data: the engine records them as failed ranges and goes on.
"""

from __future__ import annotations

from typing import Literal, get_args

FailureClass = Literal["corrupt", "unsupported", "truncated", "timeout", "crash", "out_of_memory", "io", "encode"]
FAILURE_CLASSES: tuple[FailureClass, ...] = get_args(FailureClass)


class ExtractError(Exception):
    """Anything this package raises on purpose; its text is one line that a user can act on."""


class SettingsError(ExtractError, ValueError):
    """A setting, or a combination of settings, that cannot be carried out."""


class InputError(ExtractError, ValueError):
    """An input that names no video."""


class RunFolderError(ExtractError):
    """An output folder that holds something else than this run."""


class EncodeError(ExtractError):
    """The encoder failed on frames that were decoded well."""


class StoreError(ExtractError):
    """The run folder cannot be written, although it was tried for a while."""


class EngineError(ExtractError):
    """The run cannot go on: no worker starts, or nothing can be written. What is committed stays."""


class DecodeError(ExtractError):
    """A video, or a part of it, that cannot be decoded."""

    def __init__(self, failure: FailureClass, message: str) -> None:
        super().__init__(message)
        self.failure: FailureClass = failure

    def __reduce__(self) -> tuple[type[DecodeError], tuple[FailureClass, str]]:
        # Exceptions cross process borders by re-calling the class with its arguments.
        return type(self), (self.failure, str(self))
