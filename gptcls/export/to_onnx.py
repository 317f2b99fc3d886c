"""A classifier as a folder for ONNX Runtime: ids go in and answers come out, of any batch and any length.

``model.onnx`` holds all that stands between the two, the networks of an ensemble, the calibration and the
decision included; ``tokenizer.json``, as the ``tokenizers`` library reads it, also cuts long texts and pads
short ones; ``example.py`` shows how little it takes to use them, without torch and without gptcls.
"""

import json
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from gptcls.classify.predict import networks_of
from gptcls.classify.store import SavedClassifier
from gptcls.common.extras import needed
from gptcls.common.files import atomic_folder
from gptcls.common.log import log
from gptcls.common.memory import ran_out
from gptcls.core.batches import pad
from gptcls.core.errors import InputError
from gptcls.core.tasks import MultiLabel
from gptcls.data.clean import CONTROL, REPEATED, SPACE
from gptcls.export.forms import CUT_FROM, tokenizer_of
from gptcls.fast.frozen import Trained
from gptcls.language.head import LabelClassifier

LARGEST = 2**31 - 2**20  # bytes in a file of protocol buffers, names and graph left aside
TOLERANCE = 1e-4  # of what ONNX Runtime computes
LEAST_LOG, MOST_LOGIT = math.log(1e-38), -math.log(1e-16)  # of the probabilities that are calibrated


class Answers(nn.Module):
    """What a classifier says of a batch, as one function that can be traced.

    ``forward(ids (B, T), lengths (B,))`` gives a regression's numbers (B, K); of other tasks the
    probabilities (B, K), which labels the answer has (B, K), and whether there is one (B,), since a
    classifier may abstain. A text without a token counts as one token of padding.
    """

    def __init__(self, saved: SavedClassifier) -> None:
        super().__init__()
        self.task, self.calibration, self.decision = saved.task, saved.calibration, saved.decision
        networks = networks_of(saved, torch.device("cpu"))
        first = networks[0]
        # What the networks of an ensemble share runs once; of the last block one position is often enough.
        depth = len(first.backbone.blocks) - 1
        depth = min(depth, first.frozen_blocks) if saved.members else depth
        self.network, self.shared = first, first.backbone.blocks[:depth]
        self.own = nn.ModuleList(Trained(network, depth) for network in networks)
        self.float().eval()

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        lengths = lengths.clamp(min=1)
        seen = self.network.seen(lengths, ids.shape[1])
        x = self.network.backbone.embed(ids)
        for block in self.shared:
            x = block(x, seen)
        # Below no shared block an ensemble's networks may differ in their embeddings as well.
        below = [x if self.shared else own.classifier.backbone.embed(ids) for own in self.own]
        logits = torch.stack([own(x, lengths) for own, x in zip(self.own, below, strict=True)])  # (M, B, K)
        if not self.task.has_probabilities:
            return self.task.outputs(logits).mean(dim=0)
        probabilities = self.task.outputs(self._calibrated(logits))
        given = self._given(probabilities)
        if isinstance(self.task, MultiLabel):  # the least sure of its decisions
            confidence = torch.where(given, probabilities, 1 - probabilities).amin(dim=1)
        else:
            confidence = (probabilities * given).sum(dim=1)
        return probabilities, given, confidence >= self.decision.abstain

    def _calibrated(self, logits: Tensor) -> Tensor:  # (M, B, K) -> (B, K)
        """The logits of the mean of M networks' probabilities, calibrated: the formulas of
        :class:`gptcls.classify.store.SavedClassifier`, in logarithms, as they need no double precision."""
        several = isinstance(self.task, MultiLabel)
        if several:
            yes, no = (nn.functional.logsigmoid(each).logsumexp(dim=0) for each in (logits, -logits))
            joined = yes - no if len(self.own) > 1 else logits[0]
        else:
            joined = logits.log_softmax(dim=-1).logsumexp(dim=0) if len(self.own) > 1 else logits[0]
        if self.calibration is None:
            return joined
        by = self.calibration
        temperatures, shifts = joined.new_tensor(by.temperatures), joined.new_tensor(by.shifts)
        if several:
            return joined.clamp(LEAST_LOG, MOST_LOGIT) / temperatures + shifts
        return joined.log_softmax(dim=-1).clamp(min=LEAST_LOG) / temperatures

    def _given(self, probabilities: Tensor) -> Tensor:  # (B, K) -> (B, K)
        """Which labels are the answer, see :meth:`gptcls.evaluation.decision.Decision.given`."""
        if isinstance(self.task, MultiLabel):
            return probabilities >= probabilities.new_tensor(self.task.thresholds)
        if self.decision.threshold is not None:
            chosen = (probabilities[:, 1] > self.decision.threshold).long()
        elif self.decision.costs is not None:
            chosen = (probabilities @ probabilities.new_tensor(self.decision.costs)).argmin(dim=1)
        else:
            chosen = probabilities.argmax(dim=1)
        return chosen[:, None] == torch.arange(self.task.n_outputs, device=chosen.device)


def to_onnx(classifier: SavedClassifier, folder: Path, int8: bool = False) -> None:
    """Write it to ``folder``, whole or not at all, replacing what stands there; with ``int8`` linear layers
    and tables have 8 bits, and layers meet inputs rounded to 8 bits as they come.

    ONNX Runtime has computed its answers to a batch of another size than the one traced, and they were within
    :data:`TOLERANCE` of ours. InputError where they are not or there are none, as may happen with a network
    of your own; for what is no network, n-grams and texts read in several rows; and without the libraries.
    """
    with needed("onnx", "--to onnx"):
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    tokenizer, answers = _tokenizer(classifier), Answers(classifier)
    sizes = {each.data_ptr(): each.numel() for each in answers.parameters()}
    beside = 4 * sum(sizes.values()) > LARGEST
    with atomic_folder(folder) as temporary, TemporaryDirectory(dir=temporary) as other, _quiet():
        path = (Path(other) if int8 else temporary) / "model.onnx"
        _write(answers, classifier, path, beside)
        difference = _difference(answers, classifier, path)
        if not difference <= TOLERANCE:
            differ = f"answers in ONNX Runtime differ by {difference:.1g} from this network's"
            raise InputError(f"{differ}: what it computes depends on the batch in a way that no trace holds")
        if int8:
            _quantize(path, temporary / path.name, beside)
        tokenizer.save(str(temporary / "tokenizer.json"))
        (temporary / "example.py").write_text(_example(classifier), encoding="utf-8")
    log.info(f"ONNX Runtime's answers differ by {difference:.1g} at most" + ", before the 8 bits" * int8)
    if beside:
        log.info("more than 2 GB do not fit into model.onnx: keep model.onnx.data beside it")


def _tokenizer(saved: SavedClassifier) -> Any:
    """The ``tokenizers.Tokenizer`` that gives this classifier's rows, cut and padded. InputError for what it
    cannot do, and what no network does."""
    import tokenizers

    if isinstance(saved.model, LabelClassifier):
        raise InputError("a classifier by its language-model head (--head lm) has no ONNX form: distill it")
    if saved.mixture is not None:
        mixed = "this classifier's answers are mixed with those of n-grams, which are no network"
        raise InputError(f"{mixed}: train it without --stack ngrams")
    if saved.long not in CUT_FROM:
        said = f"this classifier reads long texts by --long {saved.long}, which tokenizer.json cannot say"
        raise InputError(f"{said}: train it with --long {' or '.join(CUT_FROM)}")
    tokenizer = tokenizers.Tokenizer.from_str(tokenizer_of(saved))
    tokenizer.enable_truncation(saved.max_length, direction=CUT_FROM[saved.long])
    pad_id = saved.tokenizer.pad_id
    whole = saved.pad_to if saved.model.pool.sees_padding else None
    tokenizer.enable_padding(pad_id=pad_id, pad_token=tokenizer.id_to_token(pad_id) or "", length=whole)
    return tokenizer


def _write(answers: Answers, saved: SavedClassifier, path: Path, beside: bool) -> None:
    """The graph and, in it or ``beside`` it, the weights."""
    width = min(5, n := saved.model.backbone.config.n_positions)
    ids, lengths = torch.zeros(3, width, dtype=torch.int64), torch.tensor([width, 1, 1])
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=n)
    outputs = ["probabilities", "given", "sure"] if answers.task.has_probabilities else ["numbers"]
    try:
        with torch.no_grad():
            shapes = {0: batch, 1: length}, {0: batch}
            traced = torch.export.export(answers, (ids, lengths), dynamic_shapes=shapes)
            program = torch.onnx.export(
                traced, dynamo=True, input_names=["ids", "lengths"], output_names=outputs,
                dynamic_shapes=({0: "batch", 1: "length"}, {0: "batch"}), verbose=False,
            )  # fmt: skip
    except Exception as error:
        if ran_out(error):
            raise
        kind, said = type(saved.model.backbone).__name__, str(error).strip().partition("\n")[0]
        raise InputError(f"torch cannot trace this {kind}: {said:.200}") from error
    described = {
        "labels": list(answers.task.labels),
        "task": answers.task.kind,
        "max_length": saved.max_length,
        "cleaning": saved.cleaning,
    }
    for name, value in described.items():
        program.model.metadata_props[name] = json.dumps(value, ensure_ascii=False)
    program.save(path, external_data=beside)


def _difference(answers: Answers, saved: SavedClassifier, path: Path) -> float:
    """The largest difference between what ONNX Runtime and torch compute of some random rows; of numbers in
    their standard deviations."""
    import onnxruntime

    config, generator = saved.model.backbone.config, torch.Generator().manual_seed(0)
    widths = [min(width, config.n_positions) for width in (17, 1, 3, 9)]
    rows = [torch.randint(saved.tokenizer.vocab_size, (n,), generator=generator).tolist() for n in widths]
    ids, lengths = pad(rows, saved.pad_to, saved.tokenizer.pad_id)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found, *_ = session.run(None, {"ids": ids.numpy(), "lengths": lengths.numpy()})
    with torch.no_grad():
        exact = answers(ids, lengths)
    exact = exact[0] if isinstance(exact, tuple) else exact
    unit = torch.tensor(getattr(answers.task, "scales", 1.0))  # of numbers: prices in thousands are alike
    return float(((torch.from_numpy(found) - exact) / unit).abs().max())


def _quantize(exact: Path, path: Path, beside: bool) -> None:
    """The same graph with matrices and token table in 8 bits; each column of a matrix has its own scale."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    model = onnx.load(exact)
    del model.graph.value_info[:]  # shapes of matrices that quantization turns around
    add_pre_process_metadata(model)  # the exporter has done that
    # Processors without VNNI add products of 8 by 8 bits in 16, which overflow: 7 bits do not.
    quantize_dynamic(
        model, path, op_types_to_quantize=["MatMul", "Gather"], per_channel=True, reduce_range=True,
        weight_type=QuantType.QInt8, use_external_data_format=beside,
    )  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of exporters about their own parts."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _example(saved: SavedClassifier) -> str:
    """The program that answers the texts it is given."""
    said = ANSWERS if saved.task.has_probabilities else NUMBERS
    modules, cleaning = CLEANING[saved.cleaning]
    pairs = PAIRS if saved.fields > 1 else ""
    return EXAMPLE.format(modules=modules, cleaning=cleaning + pairs, said=said)


EXAMPLE = """\
import {modules}
import numpy as np, onnxruntime, tokenizers

tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")  # it cuts long texts and pads short ones
tokenizer.encode_special_tokens = True  # the name of a special token inside a text is text
session = onnxruntime.InferenceSession("model.onnx")
labels = np.array(json.loads(session.get_modelmeta().custom_metadata_map["labels"]))
texts = sys.argv[1:] or ["see you at lunch", "You have won a prize, text WIN to 80000"]
{cleaning}rows = tokenizer.encode_batch(texts)
inputs = {{"ids": [row.ids for row in rows], "lengths": [sum(row.attention_mask) for row in rows]}}
outputs = session.run(None, {{name: np.array(values, np.int64) for name, values in inputs.items()}})
{said}"""
PAIRS = "texts = list(zip(texts[::2], texts[1::2]))  # the first of each row, the second\n"
ANSWERS = """\
for text, probabilities, given, sure in zip(texts, *outputs):
    print(text, ", ".join(labels[given]) if sure else "unsure", probabilities.round(4), sep="\\t")
"""
NUMBERS = """\
for text, numbers in zip(texts, *outputs):
    print(text, dict(zip(labels.tolist(), numbers.tolist())), sep="\\t")
"""
CLEANING = {  # modules, and :data:`gptcls.data.clean.CLEANERS` where there is no gptcls
    "none": ("json, sys", ""),
    "basic": (
        "json, re, sys",
        f"""\
texts = [re.sub({SPACE.pattern!r}, " ", re.sub({CONTROL.pattern!r}, "", text)).strip() for text in texts]
texts = [re.sub({REPEATED.pattern!r}, r"\\1", text) for text in texts]
""",
    ),
}
