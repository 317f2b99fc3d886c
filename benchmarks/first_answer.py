"""One process that loads a trained classifier and answers once: ``ours FOLDER TEXT`` or ``book FOLDER TEXT``.

Started and timed by :mod:`benchmarks.inference`. The last line of stdout is JSON with the answer or, for
``import``, with the seconds that ``import gptcls`` takes once torch is there.
"""

import json
import sys
import time
from pathlib import Path


def ours(folder: Path, text: str) -> str:
    """A folder that gptcls saved."""
    from gptcls import load_classifier

    return load_classifier(folder, device="cpu").predict(text)


def book(folder: Path, text: str) -> str:
    """The book's ``review_classifier.pth`` (section 6.8); sizes and length must be known to its reader."""
    import torch
    from llms_from_scratch.ch04 import GPTModel
    from llms_from_scratch.ch06 import classify_review

    from gptcls.core.tokenizer import gpt2_encoding

    known = json.loads((folder / "sizes.json").read_text(encoding="utf-8"))
    model = GPTModel(known["sizes"])
    model.out_head = torch.nn.Linear(known["sizes"]["emb_dim"], 2)
    model.load_state_dict(torch.load(folder / "review_classifier.pth", weights_only=True))
    return classify_review(text, model, gpt2_encoding(), torch.device("cpu"), known["max_length"])


def import_seconds() -> float:
    """What ``import gptcls`` adds to ``import torch``."""
    import torch  # noqa: F401

    start = time.perf_counter()

    return time.perf_counter() - start


if __name__ == "__main__":
    if sys.argv[1] == "import":
        print(json.dumps({"seconds": import_seconds()}))
    else:
        who, where, what = sys.argv[1:]
        print(json.dumps({"answer": {"ours": ours, "book": book}[who](Path(where), what)}))
