"""Scores shards in one plain loop: Pyarrow, our decoder, ONNX Runtime, nothing else.

What any engine adds is compared with this; it counts no attempts, and does not survive anything.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq

from convserve_imaging.errors import PictureError
from convserve_imaging.photos import decode

BATCH = 16


def main() -> None:
    """Scores all shards of a folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring.plain_loop")
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    options = parser.parse_args()
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = ort.InferenceSession(options.model, settings, providers=["CPUExecutionProvider"])
    _, height, width, _ = session.get_inputs()[0].shape
    options.rows.mkdir()
    for shard in sorted(options.shards.iterdir()):
        paths: list[str] = []
        errors: list[str | None] = []
        rows: list[np.ndarray | None] = []
        for batch in pq.ParquetFile(shard).iter_batches(BATCH, columns=["path", "bytes"]):
            paths += batch.column("path").to_pylist()
            images, found = [], len(rows)
            for file in batch.column("bytes").to_pylist():
                try:
                    images.append(decode(file, height=height, width=width))
                except PictureError as error:
                    errors.append(str(error))
                else:
                    errors.append(None)
            answers = iter(session.run(None, {"pixels": np.stack(images)})[0]) if images else None
            rows += [None if error or not answers else next(answers) for error in errors[found:]]
        table = {"path": paths, "probabilities": pa.array(rows, pa.list_(pa.float32()))}
        table["error"] = pa.array(errors, pa.string())
        pq.write_table(pa.table(table), options.rows / shard.name)


if __name__ == "__main__":
    main()
