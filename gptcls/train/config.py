"""The options of a training run: one definition for Python, the command line, its help and config.json.

:func:`gptcls.train.resolve.resolve` fills in what is None here, by recipe, model and what is trained.
"""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import tyro

from gptcls.common.help import ADVANCED
from gptcls.common.options import Options, own_first
from gptcls.core.classifier import POOLERS
from gptcls.core.errors import InputError
from gptcls.core.loop import FitSettings
from gptcls.data.augment import Augmentation, Operation
from gptcls.data.corpora import CORPORA, corpus_of
from gptcls.data.labels import KINDS, Layout
from gptcls.data.long_texts import Long
from gptcls.data.options import LabelOptions, data_help
from gptcls.data.repeats import Repeats
from gptcls.train.presets import Preset

# What a recipe sets where the user sets nothing.
DEFAULT: dict[str, Any] = {
    "balance": "none", "schedule": "cosine", "warmup": 0.1, "clip": 1.0, "precision": "auto",
    "decay_on": "matrices", "calibrate": "auto",
}  # fmt: skip
BOOK: dict[str, Any] = {  # chapter 6, settings of its sections 6.2 to 6.7
    "balance": "undersample", "train": "last_block", "pooling": "position-1", "epochs": 5, "batch_size": 8,
    "lr": 5e-5, "schedule": "constant", "warmup": 0.0, "clip": 0.0, "precision": "fp32", "decay_on": "all",
    "stack": "none", "calibrate": "none",
}  # fmt: skip
RECIPES = {"default": DEFAULT, "book": BOOK}
FROM_RANDOM = {"train": "all", "lr": 1e-3}  # random weights know nothing worth freezing
# Appendix E of the book. The head is left out: it is new and smaller than an adapter of it would be.
LORA = {
    "lora_kind": "lora", "lora_rank": 16, "lora_alpha": 16.0, "lora_dropout": 0.0, "lora_targets": ("*",),
    "lora_plus": 1.0, "lr": 8e-4,
}  # fmt: skip
Balance = Literal["none", "undersample", "oversample", "weights"]
Schedule = Literal["cosine", "constant"]
DecayOn = Literal["matrices", "all"]
Stack = Literal["none", "ngrams"]
Calibrate = Literal["auto", "none"]
Threshold = Literal["none", "auto", "cost"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
LoRAKind = Literal["lora", "rslora", "dora"]
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]


def by_recipe(name: str, values: Any) -> Any:
    """What --help shows of an option whose default depends on recipe, preset or model; ``values`` is a
    metavar or a Literal."""
    hint = f"default: {DEFAULT[name]}" if name in DEFAULT else "default: as --preset says"
    own = {"from random weights": FROM_RANDOM[name]} if name in FROM_RANDOM else {}
    own |= {"with lora": LORA[name]} if name in LORA else {}
    own |= {"book": BOOK[name]} if BOOK[name] != DEFAULT.get(name) else {}
    hint += "".join(f"; {where}: {value}" for where, value in own.items())
    metavar = values if isinstance(values, str) else f"{{{','.join(get_args(values))}}}"
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"({hint})")


def with_lora(default: str, metavar: str) -> Any:
    """The same of an option whose default --train lora brings."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


@own_first
@dataclass(frozen=True, kw_only=True)
class DataOptions(LabelOptions):
    """What is read, how it is split, and what becomes of the training rows."""

    data: Annotated[str, data_help(f"of {', '.join(CORPORA)}")] = "sms-sample"
    task: Literal["single", "multi", "regression"] = "single"
    """What is predicted of a text: one class of two or more, any number of labels, or one or more numbers."""
    validation: Path | None = None
    """File to validate on; otherwise a part of --data is split off."""
    test: Path | None = None
    """File to test on; otherwise a part of --data is split off."""
    positive: str | None = None
    """The label that precision, recall and F1 are about, of two; otherwise the second in sorted order."""
    validation_fraction: float = 0.1
    """Share of the rows split off for validation."""
    test_fraction: float = 0.2
    """Share of the rows split off for testing."""
    repeats: Repeats = "drop"
    """Of a text in several rows: one row, all of them, or one that is drawn as often as all would be. It has
    the label of most of its rows, without such a one it is dropped; it stands in one part. Files to
    validate and test on keep their repeats."""
    balance: Annotated[Balance | None, by_recipe("balance", Balance)] = None
    """Classes as they are; of the training rows, each cut to the smallest or repeated up to the largest; or
    weighted in the loss (of several labels, texts that have one against those that lack it)."""
    clean: Switch = False
    """Collapse white space and repeated punctuation and strip control characters, here and in use."""
    augment: tuple[Operation, ...] = ()
    """New training texts by replacing words with synonyms, inserting synonyms, deleting or swapping words; by
    translating there and back; or by a model that paraphrases, where a classifier still gives the label."""
    augment_copies: int = 1
    """New texts that each of these operations makes of a training text; by a model several are drawn."""
    augment_share: float = 0.1
    """Share of a text's words that an operation changes, at least one."""
    synonyms: Path | None = None
    """File with a line per word: it, a tab, its synonyms between commas; otherwise a small English table."""
    translate_there: str | None = None
    """Model of --augment back-translate, into another language: a folder, or owner/name on the Hugging Face
    hub, of transformers' sequence-to-sequence models (Helsinki-NLP/opus-mt-en-fr)."""
    translate_back: str | None = None
    """And the one from there back (Helsinki-NLP/opus-mt-fr-en)."""
    paraphrase_with: str | None = None
    """Model of --augment paraphrase, likewise, such as a T5 that was trained to."""
    paraphrase_prefix: str = "paraphrase: "
    """What it wants before each text."""
    augment_judge: str | None = None
    """Classifier that must give a text by a model its source's label, as --model of gptcls.classify;
    otherwise paraphrases are judged by TF-IDF trained on the originals, and translations not at all."""
    extra: Path | None = None
    """File of rows to add to the training rows, such as gptcls.pseudo_label writes: columns text and label,
    several labels as a JSON list. Baselines do without them, --balance and --augment."""

    @property
    def label_layout(self) -> Layout:
        """How the labels are written in the files."""
        return self.layout(KINDS[self.task])

    @property
    def cleaning(self) -> str:
        """What is done to every text first."""
        return "basic" if self.clean else "none"

    @property
    def augmentation(self) -> Augmentation:
        """What is made of each training text."""
        return Augmentation(self.augment, self.augment_copies, self.augment_share, self.synonyms)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The network, what of it is trained, and what it reads of a text."""

    model: str = "gpt2-nano"
    """Preset (gpt2-nano, -small, -medium, -large, -xl), name on the Hugging Face hub, or a local folder or
    file, with the weights of a GPT-2, Llama, Qwen, BERT or one of their kin; or a classifier, of transformers
    or a run of yours, whose head is trained on where its labels are those of the rows."""
    init: Literal["pretrained", "random"] = "pretrained"
    """Start from the model's pretrained weights, or a preset from random ones."""
    train: Annotated[str | None, by_recipe("train", "{head,last_block,last_2,…,blocks,all,lora}")] = None
    """The new head alone, or with the last blocks and final norm, all blocks, all and the table, or LoRA."""
    lora_kind: Annotated[LoRAKind | None, with_lora("lora", "{lora,rslora,dora}")] = None
    """What --train lora adds: plain LoRA; the same scaled by alpha / sqrt(rank); or with the length of each
    row of a matrix trained apart from where it points (DoRA)."""
    lora_rank: Annotated[int | None, with_lora("16", "INT")] = None
    """Rank of the matrices that --train lora adds."""
    lora_alpha: Annotated[float | None, with_lora("16", "FLOAT")] = None
    """What they add is scaled by alpha / rank."""
    lora_dropout: Annotated[float | None, with_lora("0", "FLOAT")] = None
    """Dropout on what they read, while training."""
    lora_targets: Annotated[tuple[str, ...] | None, with_lora("*", "PATTERN …")] = None
    """Linear layers of the blocks that get them, by name or the end of it: qkv, 'attn.*', 'blocks.11.*'; wte
    is the token table, which '*' leaves out."""
    lora_plus: Annotated[float | None, with_lora("1", "FLOAT")] = None
    """How many times as fast the second of two matrices learns, which starts at zero (LoRA+: 16)."""
    pooling: Annotated[str | None, by_recipe("pooling", f"{{auto,{','.join(POOLERS)}}}")] = None
    """What the head reads: last real token, first, mean of all, each channel's largest value, or the last
    position of a padded text (the book's). auto: last of a decoder, first of an encoder (BERT)."""
    no_causal_mask: Switch = False
    """Of a GPT-2: every token sees the whole text; padding stays unseen, except with position-1."""
    long: Long = "head"
    """What is read of a text of more than --max-length tokens: its start, its end, both, or all of it, in
    overlapping windows with the mean of their logits."""
    max_length: int | None = None
    """Tokens kept of each text; otherwise what the model can read (book: the longest training text)."""
    pad_to: int | None = None
    """Tokens to pad every text to; otherwise the longest of its batch (position-1: of the training texts)."""


@dataclass(frozen=True, kw_only=True)
class LanguageOptions:
    """Labels as words that the network itself puts behind a text."""

    head: Literal["linear", "lm"] = "linear"
    """What answers: a new linear head; or the network's own language-model head, by how likely it finds each
    label behind the text. With --epochs 0 it is asked as it is."""
    pattern: str | None = None
    r"""The words around text and label, of --head lm; otherwise '{text}\nThis message is {label}.' A file
    (.toml, .json) may also have words and descriptions for labels, and several patterns (file.toml:2)."""
    verbalizers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LABEL=WORDS …")] = ()
    """Words for labels, where these are not their names."""
    shots: int = 0
    """Training rows that stand with their labels above each text; the head is then asked as it is."""
    chat: Literal["auto", "none"] = "auto"
    """auto: the pattern is put into the words of the chat template that the tokenizer has, if it has one."""
    objective: Literal["labels", "tokens"] = "labels"
    """What is learnt: which of the labels is the likeliest, or as a language model to write the label, of all
    that could be written."""
    content_free: Literal["auto", "none"] = "auto"
    """auto: where the head is asked as it is, how likely each label is behind a text without content is
    divided out."""
    mix: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE=SHARE …")] = ()
    """More labelled files, each with labels of its own, and the share of the training rows that is drawn from
    each, beside all of --data: so the network learns to answer from the words. What is validated, tested and
    answered is --data's alone."""
    mix_patterns: tuple[str, ...] = ()
    """The words around text and label of each of these, as --pattern; otherwise those of --pattern itself,
    where labels are called by their names."""

    @property
    def mixed(self) -> tuple[tuple[str, float], ...]:
        """The files of --mix with their shares; InputError for what is none."""
        named = [re.fullmatch(r"(.+)=(0?\.\d*[1-9]\d*)", each) for each in self.mix]
        if None in named:
            given = self.mix[named.index(None)]
            raise InputError(f"--mix {given!r}: write FILE=SHARE, a share between 0 and 1: more.csv=0.3")
        found = tuple((each[1], float(each[2])) for each in named)
        if (whole := sum(share for _, share in found)) >= 1:
            raise InputError(f"--mix: shares of {whole:g} leave none to --data; lower them")
        return found


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How it is trained."""

    preset: Preset = "balanced"
    """What is trained, what the head reads, learning rate, batch size and epochs, where you do not say: they
    depend on the network's width and the number of rows. best also has --stack ngrams."""
    stack: Annotated[Stack | None, by_recipe("stack", Stack)] = None
    """ngrams: the answers are a mixture of the network's and of the n-gram baseline's, by a weight and a
    temperature that are fitted on the validation rows (of fewer than 200 the weight is one half)."""
    calibrate: Annotated[Calibrate | None, by_recipe("calibrate", Calibrate)] = None
    """auto: probabilities no surer than the validation rows say, by a temperature (of several labels one for
    all, or a line for a label with rows enough). It changes no answer but by --costs or --abstain."""
    threshold: Threshold = "none"
    """What is answered of two classes: the likelier; the second above the threshold with the best F1 on the
    validation rows; or, of any number of classes, the one that costs least by --costs. Of several labels the
    thresholds are always those with the best F1, or by --costs."""
    costs: Path | None = None
    """CSV file of what errors cost, which sets --threshold cost: a first line of answers, and below it for
    each true label a line of its cost under each answer; of several labels, lines of label, missed, false."""
    abstain: float | None = None
    """Answer unsure where the probability that the answer is right (of several labels, the least sure of its
    decisions) is below this, such as 0.9; the scores say how many texts are then answered, how many right."""
    seeds: tuple[int, ...] = ()
    """Seeds of an ensemble: a network is trained with each, on one split (that of --seed), and the classifier
    gives the mean of their probabilities. It takes as many times as long to answer."""
    epochs: Annotated[int | None, by_recipe("epochs", "INT")] = None
    """Passes over the training rows."""
    batch_size: Annotated[int | None, by_recipe("batch_size", "INT")] = None
    """Texts per batch."""
    accumulate: int = 1
    """Batches whose gradients are added up before a step."""
    lr: Annotated[float | None, by_recipe("lr", "FLOAT")] = None
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.1
    """AdamW's weight decay."""
    decay_on: Annotated[DecayOn | None, by_recipe("decay_on", DecayOn)] = None
    """What it falls on: matrices alone, or norms and biases as well."""
    schedule: Annotated[Schedule | None, by_recipe("schedule", Schedule)] = None
    """The learning rate after the warm-up."""
    warmup: Annotated[float | None, by_recipe("warmup", "FLOAT")] = None
    """Share of the steps in which the learning rate rises to its peak."""
    clip: Annotated[float | None, by_recipe("clip", "FLOAT")] = None
    """Largest norm of the gradient; 0 does not clip."""
    patience: int = 0
    """Epochs without a better validation loss before the run stops, back at the best; 0 trains to the end.
    A few dozen validation rows are a poor judge of when to stop."""
    label_smoothing: float = 0.0
    """Share of each target that the loss gives to all classes alike."""
    raw_targets: Switch = False
    """Regression: the head predicts the numbers as they are, not in standard deviations from the training
    rows' mean, where one learning rate serves all units (answers are in the data's)."""
    eval_freq: int = 50
    """Steps between two points of the loss curve."""
    eval_iter: int = 5
    """Batches of training rows that such a point looks at, and of validation rows all, up to half as many
    batches as steps lie between two points (book: as many as of training rows)."""

    @property
    def settings(self) -> FitSettings:
        """What of these the loop itself asks for."""
        names = (field.name for field in fields(FitSettings) if hasattr(self, field.name))
        return FitSettings(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where the run computes, and what it leaves."""

    seed: int = 123
    """Of the split, the head, random weights and the order: the same bits on one CPU with as many threads."""
    recipe: Literal["default", "book"] = "default"
    """default: every row, repeats settled before a stratified split. book: chapter 6 of "Build a Large
    Language Model From Scratch" step by step. Options given with it win."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Annotated[Precision | None, by_recipe("precision", Precision)] = None
    """Number format of the frozen blocks (of the Llama family also in memory), with bf16 also of the
    matrix products in training: of several blocks of a GPT-2 on a CPU, of everything on NVIDIA GPUs. auto
    takes the processor's fastest. What is trained is kept in fp32, and scored as it will answer."""
    no_cache: Switch = False
    """The plain loop, in fp32 on a CPU: the frozen blocks run in every step instead of once per text."""
    cache: Path | None = None
    """Folder that keeps the frozen blocks' output between runs, for sweeps. Texts that were computed in other
    batches may differ in their last bits."""
    cache_budget: float = 2.0
    """GiB of memory for the frozen blocks' output; what is larger goes to a file."""
    compile: Switch = False
    """Compile the network with torch.compile; pays for long runs on a GPU."""
    shard: Switch = False
    """Of several processes (torchrun) each holds a part of the network, for one that no card holds whole; in
    the plain loop."""
    save: Literal["auto", "trained", "full"] = "auto"
    """Tensors in the saved classifier: the trained ones, to be laid over the base weights (LoRA: the head and
    an adapter in PEFT's format); all (LoRA merged); auto: the trained ones of LoRA and over presets."""
    escape_formulas: Switch = False
    """In predictions.csv, write ' before what a spreadsheet would take for a formula (it begins with =, +, -
    or @)."""
    out: Path | None = None
    """The run's folder; otherwise a new one, runs/<model>-<data>."""
    resume: Switch = False
    """Continue the interrupted run in --out with the options it was started with."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Options):
    """Fine-tune a pretrained GPT, Llama, Qwen, BERT or one of their kin on labelled texts: to name one class
    of each, any number of labels, or numbers.

    Without options: a small GPT on a bundled sample of text messages, in under a minute.
    """

    FIRST_PAGE: ClassVar = (
        "data", "text_column", "label_column", "task", "balance", "model", "preset", "train", "epochs", "out",
    )  # fmt: skip
    GROUPS: ClassVar = {
        "data": "data", "model": "model", "language": "labels as language", "fit": "training",
        "run": "output", "seed": "training", "recipe": "training",
    } | dict.fromkeys((
        "augment", "augment_copies", "augment_share", "synonyms", "translate_there", "translate_back",
        "paraphrase_with", "paraphrase_prefix", "augment_judge", "extra", "clean", "label_names",
        "lora_kind", "lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "lora_plus",
        "no_causal_mask", "pad_to",
        "accumulate", "weight_decay", "decay_on", "schedule", "warmup", "clip", "label_smoothing",
        "raw_targets", "calibrate", "seeds", "eval_freq", "eval_iter", "device", "precision", "no_cache",
        "cache", "cache_budget", "compile", "shard", "escape_formulas",
    ), ADVANCED)  # fmt: skip

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    language: LanguageOptions = field(default_factory=LanguageOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    run: RunOptions = field(default_factory=RunOptions)

    @property
    def run_name(self) -> str:
        """What the run's folder is called where nothing else is said."""
        source = self.data.data
        data = source.split(":")[0] if corpus_of(source) else Path(source).stem
        name = f"{Path(self.model.model).name}-{data}"
        return name if self.run.recipe == "default" else f"{name}-{self.run.recipe}"
