"""What the cache holds, and emptying it: decoded pixels, extracted features, images out of shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headfirst.data import cache_dir

_FOLDERS = ("pixels", "features", "images")
_FINISHED = (".npy", ".image")
# Only what Headfirst writes is ever counted or removed.
_ENDINGS = (*_FINISHED, ".partial", ".progress", ".lock", ".tmp", ".unreadable", ".threads")


@dataclass(frozen=True, kw_only=True)
class CacheInfo:
    """What a cache folder holds.

    Attributes:
        directory: the folder.
        files, sizes: number of finished files and bytes (everything included), by kind: pixels, features and, where
            shards were read, images.
        unfinished: arrays that a stopped run left half-made and the same command would continue.
    """

    directory: Path
    files: dict[str, int]
    sizes: dict[str, int]
    unfinished: int

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(self.sizes.values())


def cache_info(cache: Path | None = None) -> CacheInfo:
    """What `cache` (`cache_dir()` if None) holds."""
    directory = cache or cache_dir()
    found = {folder: _files(directory / folder) for folder in _FOLDERS}
    if not found["images"]:
        del found["images"]
    every = [path for paths in found.values() for path in paths]
    return CacheInfo(
        directory=directory,
        files={folder: sum(path.suffix in _FINISHED for path in paths) for folder, paths in found.items()},
        sizes={folder: sum(path.lstat().st_size for path in paths) for folder, paths in found.items()},
        unfinished=sum(path.suffix == ".partial" for path in every),
    )


def clear_cache(cache: Path | None = None) -> CacheInfo:
    """Removes what Headfirst put into `cache` (`cache_dir()` if None), and nothing else; says what went."""
    info = cache_info(cache)
    for folder in _FOLDERS:
        for path in _files(info.directory / folder):
            path.unlink(missing_ok=True)
    return info


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix in _ENDINGS and not path.is_dir())
