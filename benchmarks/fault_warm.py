"""What the server of warm commands imports before it forks the first: all that a run imports sooner or later.

It starts no thread, which a fork would lose.
"""

import importlib
import threading

import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import pandas  # noqa: F401
import pyarrow.parquet  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.calibration
import sklearn.feature_extraction.text
import sklearn.linear_model
import sklearn.model_selection
import sklearn.multiclass
import sklearn.pipeline
import sklearn.svm  # noqa: F401
import torch
import torch._dynamo  # which building an optimizer imports: seconds
import tyro._backends  # noqa: F401
from tqdm import tqdm

from benchmarks.fault_commands import VERBS
from gptcls.core.tokenizer import encode

torch.set_num_threads(1)
tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a kill leaves behind
for _module in VERBS.values():
    importlib.import_module(_module)
encode("the ranks are read once")
