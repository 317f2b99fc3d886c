"""What a run chooses on its validation rows once the weights are trained: thresholds, calibration, and the
rule that makes answers of probabilities."""

from dataclasses import replace

import numpy as np
from torch import Tensor

from gptcls.classify.store import SavedClassifier
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.core.task import Task
from gptcls.core.tasks import MultiLabel
from gptcls.data.split import Split
from gptcls.evaluation.calibration import fit_calibration
from gptcls.evaluation.decision import (
    PLAIN,
    Decision,
    abstaining,
    best_threshold,
    read_costs,
    read_label_costs,
)
from gptcls.evaluation.judge import judge_of
from gptcls.train.config import FitOptions


def first_decision(options: FitOptions, task: Task) -> tuple[Task, Decision]:
    """The task and the decision as far as options alone say, before anything is trained; InputError for costs
    and thresholds that do not fit the labels."""
    decision = PLAIN
    if options.threshold == "cost" and isinstance(task, MultiLabel):
        task = replace(task, thresholds=read_label_costs(options.costs, task.labels))
    elif options.threshold == "cost":
        decision = Decision(read_costs(options.costs, task.labels))
    elif options.threshold == "auto" and not isinstance(task, MultiLabel) and task.n_outputs > 2:
        found = f"these rows have {task.n_outputs} classes"
        raise InputError(f"--threshold auto is for two classes, {found}; leave it out, or give --costs")
    if options.abstain is not None:
        decision = abstaining(decision, task, options.abstain)
    return task, decision


def choose_answers(
    saved: SavedClassifier, options: FitOptions, split: Split, logits: dict[str, Tensor],
    targets: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:  # fmt: skip
    """Give ``saved`` what validation rows say, and return the outputs (N, K) of each part; ``logits`` (N, K)
    are the network's, of an ensemble (M, N, K). Without such rows nothing is chosen."""
    held, texts = targets["validation"], {part: getattr(split, part)["text"].tolist() for part in logits}
    plain = {part: saved.uncalibrated(values, texts[part]) for part, values in logits.items()}
    if not len(held):
        return plain
    by_cost = options.threshold == "cost"
    if not (by_cost and saved.several):
        saved.task = judge_of(saved.task).tuned(held, plain["validation"])
    if not saved.task.has_probabilities:
        return plain
    if options.calibrate == "auto":
        saved.calibration = fit_calibration(held, plain["validation"])
    outputs = plain
    if saved.calibration is not None:
        outputs = {part: saved.outputs(values, texts[part]) for part, values in logits.items()}
        if saved.several and not by_cost:  # each text keeps its labels
            saved.task = replace(saved.task, thresholds=saved.calibration.moved(saved.task.thresholds))
    if options.threshold == "auto" and not saved.several:
        saved.decision = replace(saved.decision, threshold=best_threshold(held, outputs["validation"]))
        positive, threshold = saved.task.labels[1], saved.decision.threshold
        log.info(f"{positive!r} is answered above {threshold:.3f}, tuned on {len(held):,} validation rows")
    return outputs
