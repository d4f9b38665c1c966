"""What encoders compute on: found out where they run, agreed before the first clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from pipeline.errors import SettingsError

DeviceKind = Literal["cuda", "cpu"]


class BrokenDeviceError(Exception):
    """The device does not answer any more; a process that used it can only end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One encoder's device."""

    kind: DeviceKind
    name: str = ""
    capability: str = ""
    """Of a GPU, such as 9.0."""
    libraries: str = ""
    """Of a GPU, such as CUDA 12.9, cuDNN 91002."""
    native_dtype: str = "float32"
    """The fastest that it computes in natively: bfloat16, float16 or float32."""

    @property
    def record(self) -> str:
        """All that is known of it, in a line."""
        parts = (self.name, self.capability and f"compute capability {self.capability}", self.libraries)
        return ", ".join(part for part in parts if part)


def this_device(name: str) -> Device:
    """The device of this name, such as cpu, cuda or cuda:1, in this process.

    Raises:
        SettingsError: there is none.
    """
    if name == "cpu":
        # Older releases of torch cannot say.
        capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
        return Device(kind="cpu", name="cpu", native_dtype="bfloat16" if native else "float32")
    if not torch.cuda.is_available():
        raise SettingsError("there is no GPU that torch can use: leave out --device cuda, or give --device cpu")
    major, minor = torch.cuda.get_device_capability(name)
    return Device(
        kind="cuda",
        name=torch.cuda.get_device_name(name),
        capability=f"{major}.{minor}",
        libraries=f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}",  # type: ignore[no-untyped-call]
        native_dtype="bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16",
    )


def agree(devices: Sequence[Device]) -> Device:
    """What all of these can be counted on for: the least of their arithmetics.

    Raises:
        SettingsError: they are of two kinds.
    """
    kinds = sorted({device.kind for device in devices})
    if len(kinds) != 1:
        raise SettingsError(f"encoders would run on {' and '.join(kinds)} in one run: choose one with --device")
    dtypes = {device.native_dtype for device in devices}
    least = "float32" if kinds == ["cpu"] else "float16"
    agreed = dtypes.pop() if len(dtypes) == 1 else least
    names = ", ".join(sorted({device.name for device in devices}))
    capabilities = ", ".join(sorted({device.capability for device in devices}))
    libraries = "; ".join(sorted({device.libraries for device in devices}))
    return Device(kind=devices[0].kind, name=names, capability=capabilities, libraries=libraries, native_dtype=agreed)


def fix_arithmetic() -> None:
    """Make float32 exact and the choice of kernels the same in every process, whatever the environment says.

    TF32 would round differently by device and by setting; a library that times its kernels would choose by luck.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


def resolve_compute_dtype(asked: str, device: Device) -> str:
    """The arithmetic's dtype: what was asked, or what the device computes in natively."""
    return device.native_dtype if asked == "auto" else asked


def check_device(kind: DeviceKind, asked_dtype: str, compute_dtype: str) -> None:
    """Refuse to compute otherwise than the run.

    Raises:
        SettingsError: this process has no such device, or one without the arithmetic that was agreed.
    """
    device = this_device(kind)
    if asked_dtype == "auto" and compute_dtype == "bfloat16" and device.native_dtype != "bfloat16":
        raise SettingsError(
            f"{device.name} has no bfloat16 arithmetic, in which this run computes: give --compute-dtype float32, or "
            "leave this node out"
        )


def require_device(kind: DeviceKind) -> None:
    """Make sure that the device still answers.

    Raises:
        BrokenDeviceError: it does not: an error of CUDA stays with the process.
    """
    if kind != "cuda":
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        raise BrokenDeviceError(f"the GPU is lost to this process, start the run again: {error}") from error
