"""What users of other libraries ran into (docs/known-pains.md), where no other test rules it out here."""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading

import pandas as pd
import pytest
import torch
from helpers.tiny import tiny_classifier, tiny_saved

from gptcls import fit, load_classifier
from gptcls.classify.predict import TextClassifier
from gptcls.core.batches import pad
from gptcls.core.gpt2 import GPT2

QUICK = {"epochs": 1, "max_length": 16, "device": "cpu"}


@pytest.mark.parametrize("pad_id", [0, 7, 50256])
def test_a_text_may_hold_and_end_in_the_padding_id(pad_id):
    """Where a text ends is said by its length, never found by an id."""
    model = tiny_classifier().eval()
    rows = [[5, pad_id, 9, pad_id], [pad_id], [4, 4, 4, 4, 4, 4]]
    with torch.no_grad():
        alone = torch.cat([model(torch.tensor([row]), torch.tensor([len(row)])) for row in rows])
        torch.testing.assert_close(model(*pad(rows, pad_id=pad_id)), alone, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_hundred_classes_cost_one_forward_pass(base, monkeypatch):
    names = [f"class {i:03}" for i in range(100)]
    rows = [(f"{name} number {i}", name) for name in names for i in range(4)]
    frame = pd.DataFrame(rows, columns=["text", "label"])
    run = fit(frame, base, **QUICK)
    assert run.predictor.labels == tuple(names)
    seen, whole = [], GPT2.embed
    monkeypatch.setattr(
        GPT2, "embed", lambda self, ids, *rest: seen.append(len(ids)) or whole(self, ids, *rest)
    )
    probabilities = run.predict_proba(frame["text"].tolist()[:10])
    assert probabilities.shape == (10, 100)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert sum(seen) == 10, "each text went through the network once"


def test_predicting_again_and_again_leaves_nothing_behind():
    classifier = TextClassifier(tiny_saved(), torch.device("cpu"), "fp32")

    def held(calls: int) -> tuple[int, int]:
        for i in range(calls):
            classifier.predict_proba([f"win a prize {i}", "see you"])
        gc.collect()
        return sum(
            issubclass(type(each), torch.Tensor) for each in gc.get_objects()
        ), threading.active_count()

    before = set(multiprocessing.active_children())  # of tests before this one
    assert held(3) == held(60)
    assert set(multiprocessing.active_children()) == before


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system starts no process by fork")
def test_a_forked_worker_with_one_thread_answers():
    """OpenMP's threads do not survive a fork: a worker that uses them waits for ever."""
    code = """
import os, torch
from gptcls import load_classifier
torch.set_num_threads(2)
classifier, texts = load_classifier(), [f"You won prize {i}" for i in range(64)]
expected = classifier.predict(texts)
if (worker := os.fork()) == 0:
    torch.set_num_threads(1)
    os._exit(classifier.predict(texts) != expected)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_a_loaded_classifier_answers_in_threads():
    classifier, answers = load_classifier(device="cpu", precision="fp32"), {}
    texts = ["You have won a prize, text WIN to 80000", "see you at lunch"]
    threads = [
        threading.Thread(target=lambda i=i: answers.update({i: classifier.predict(texts)})) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert answers == dict.fromkeys(range(4), classifier.predict(texts))
