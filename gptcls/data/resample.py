"""Balance the classes of the training rows."""

import numpy as np

from gptcls.common.lazy import pd
from gptcls.data.split import log, rows_by_group


def undersample(frame: "pd.DataFrame", seed: int) -> "pd.DataFrame":
    """Cut each class to the size of the smallest by a random draw; the order of the rows stays."""
    random = np.random.RandomState(seed)
    size = int(frame.label.value_counts().min()) if len(frame) else 0
    kept = [random.permutation(rows)[:size] for rows in rows_by_group(frame.label.tolist()).values()]
    kept = np.sort(np.concatenate(kept)) if kept else []
    if dropped := len(frame) - len(kept):
        log.info("undersampled: %d rows of each class, %d dropped", size, dropped)
    return frame.iloc[kept].reset_index(drop=True)


def oversample(frame: "pd.DataFrame", seed: int) -> "pd.DataFrame":
    """Repeat rows until each class is as large as the largest; repeats follow their row.

    Every row of a class stands as often as any other of it or once more; a random draw says which.
    """
    random = np.random.RandomState(seed)
    size = int(frame.label.value_counts().max()) if len(frame) else 0
    classes = rows_by_group(frame.label.tolist()).values()
    kept = [np.resize(random.permutation(rows), size) for rows in classes]
    kept = np.sort(np.concatenate(kept)) if kept else []
    if added := len(kept) - len(frame):
        log.info("oversampled: %d rows of each class, %d of them repeats", size, added)
    return frame.iloc[kept].reset_index(drop=True)
