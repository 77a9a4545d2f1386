"""What a number was made with."""

from __future__ import annotations

import platform
from importlib.metadata import version


def versions() -> dict[str, str]:
    """Python, the machine's processor type and the packages that numbers depend on."""
    packages = ("headfirst", "torch", "transformers", "numpy", "Pillow", "simplejpeg")
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **{name: version(name) for name in packages},
    }
