"""Joules from the processor's own counter (RAPL) or the graphics driver (NVML), where they can be read."""

from __future__ import annotations

from pathlib import Path

RAPL = Path("/sys/class/powercap")


class Meter:
    """start(), work, stop() -> joules, or None with the reason in `why`."""

    def __init__(self) -> None:
        self.why = "no RAPL package counter under /sys/class/powercap and no NVML device"
        self._packages = [path for path in sorted(RAPL.glob("*-rapl:[0-9]")) if self._readable(path)]
        self._device = None if self._packages else self._nvml()

    def _readable(self, package: Path) -> bool:
        try:
            int((package / "energy_uj").read_text())
            int((package / "max_energy_range_uj").read_text())
        except (OSError, ValueError) as error:
            self.why = f"{package / 'energy_uj'} cannot be read ({error.__class__.__name__})"
            return False
        return True

    @staticmethod
    def _nvml():
        try:
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except Exception:
            return None
        return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3

    def start(self) -> None:
        self._begin = [int((p / "energy_uj").read_text()) for p in self._packages]
        self._begin_device = self._device() if self._device else 0.0

    def stop(self) -> float | None:
        if self._device:
            return self._device() - self._begin_device
        if not self._packages:
            return None
        joules = 0.0
        for package, begin in zip(self._packages, self._begin, strict=True):
            spent = int((package / "energy_uj").read_text()) - begin
            joules += (spent if spent >= 0 else spent + int((package / "max_energy_range_uj").read_text())) / 1e6
        return joules
