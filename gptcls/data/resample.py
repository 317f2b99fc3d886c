"""Balance the classes of the training rows."""

import numpy as np

from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.data.split import rows_by_group


def undersample(frame: "pd.DataFrame", seed: int) -> "pd.DataFrame":
    """Cut each class to the size of the smallest by a random draw; the order of the rows stays."""
    return _resample(frame, seed, min, "undersampled", "dropped")


def oversample(frame: "pd.DataFrame", seed: int) -> "pd.DataFrame":
    """Repeat rows until each class is as large as the largest; repeats follow their row. Every row of a class
    stands as often as any other of it or once more; a random draw says which."""
    return _resample(frame, seed, max, "oversampled", "of them repeats")


def _resample(frame, seed: int, size_of, done: str, changed: str) -> "pd.DataFrame":
    random = np.random.RandomState(seed)
    classes = list(rows_by_group(frame.label.tolist()).values())
    size = size_of(map(len, classes), default=0)
    kept = [np.resize(random.permutation(rows), size) for rows in classes]
    kept = np.sort(np.concatenate(kept)) if kept else []
    if difference := abs(len(frame) - len(kept)):
        log.info(f"{done}: {size} rows of each class, {difference} {changed}")
    return frame.iloc[kept].reset_index(drop=True)
