"""What the server of warm commands imports before it forks the first: all that a run imports sooner or later.

It starts no thread, which a fork would lose.
"""

import importlib

import matplotlib.backends.backend_agg  # noqa: F401
import matplotlib.figure  # noqa: F401
import pandas  # noqa: F401
import pyarrow.parquet  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.calibration  # noqa: F401
import sklearn.feature_extraction.text  # noqa: F401
import sklearn.linear_model  # noqa: F401
import sklearn.model_selection  # noqa: F401
import sklearn.multiclass  # noqa: F401
import sklearn.pipeline  # noqa: F401
import sklearn.svm  # noqa: F401
import torch
import torch._dynamo  # which building an optimizer imports: seconds
import tyro._backends  # noqa: F401

from benchmarks.fault_commands import VERBS
from gptcls.core.tokenizer import encode

torch.set_num_threads(1)
for _module in VERBS.values():
    importlib.import_module(_module)
encode("the ranks are read once")
