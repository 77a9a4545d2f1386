"""Features for other programs: a table that databases read, and an archive that NumPy reads.

    embeddings.parquet   id, label (null where unlabelled), and embedding, a list of D float32
    embeddings.npz       ids (N,), values (N, D), labels (N,), classes (K,), split, source

The numbers are the same in both, bit for bit; the archive holds no pickles. To go on with them here, `save_features`.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from headfirst.data.rows import write_atomically
from headfirst.errors import InputError
from headfirst.types import Features


def save_embeddings(features: Features, directory: str | Path, *, parquet: bool = True) -> Path:
    """Write embeddings.npz and embeddings.parquet into `directory`, made if need be; each whole or not at all.

    Args:
        parquet: False writes the archive alone, which needs no pyarrow.

    Returns:
        The directory.

    Raises:
        InputError: the table is wanted and pyarrow is missing; said before anything is written.
    """
    table = _parquet(features) if parquet else None
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / "embeddings.npz", _npz(features))
    if table is not None:
        write_atomically(directory / "embeddings.parquet", table)
    return directory


def _npz(features: Features) -> bytes:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        ids=np.array(features.ids, dtype=np.str_),
        values=_values(features),
        labels=features.labels.cpu().numpy(),
        classes=np.array(features.classes, dtype=np.str_),
        split=np.array(features.split),
        source=np.array(features.source),
    )
    return buffer.getvalue()


def _parquet(features: Features) -> bytes:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("writing embeddings.parquet needs pyarrow: pip install 'headfirst[parquet]'") from error
    values = _values(features)
    flat = pyarrow.array(values.ravel())
    names = [features.classes[label] if label >= 0 else None for label in features.labels.tolist()]
    table = pyarrow.table(
        {
            "id": pyarrow.array(features.ids, type=pyarrow.string()),
            "label": pyarrow.array(names, type=pyarrow.string()),
            "embedding": pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1]),
        },
        metadata={"split": features.split, "source": features.source},
    )
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _values(features: Features) -> np.ndarray:
    return np.ascontiguousarray(features.values.detach().cpu().float().numpy())
