"""The options of a training run: one definition for Python, the command line, its help and config.json."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from gptcls.common.options import Options
from gptcls.data.augment import Augmentation, Operation
from gptcls.data.corpora import corpus_of
from gptcls.data.labels import KINDS, Layout
from gptcls.data.long_texts import Long
from gptcls.data.readers import Dialect
from gptcls.train.recipes import FOR_MODEL, FROM_RANDOM, LORA, RECIPES, by_recipe, with_lora
from gptcls.train.resolve import check_config


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Options):
    """Fine-tune a pretrained GPT, Llama, Mistral, Qwen2, BERT or RoBERTa on labelled texts: to name one class
    of each, any number of labels, or numbers.

    Without options: a small GPT on a bundled sample of text messages, in under a minute.
    """

    PATHS: ClassVar[tuple[str, ...]] = (
        "validation", "test", "label_names", "synonyms", "extra", "cache", "out",
    )  # fmt: skip

    model: str = "gpt2-nano"
    """Preset (gpt2-nano, gpt2-small, gpt2-medium, gpt2-large, gpt2-xl), name on the Hugging Face hub, or a
    local folder or file, with the weights of a GPT-2, Llama, Mistral, Qwen2, BERT or RoBERTa."""
    init: Literal["pretrained", "random"] = "pretrained"
    """Start from the model's pretrained weights, or a preset from random ones."""
    data: str = "sms-sample"
    """Data set (sms-sample, sms-spam), file (.csv, .tsv, .jsonl, .parquet, or UCI's SMSSpamCollection), or a
    public data set in a folder of yours: trec6:FOLDER, goemotions:FOLDER, thucnews:FOLDER,
    chnsenticorp:FOLDER, movie-reviews:FOLDER."""
    task: Literal["single", "multi", "regression"] = "single"
    """What is predicted of a text: one class of two or more, any number of labels, or one or more numbers."""
    validation: Path | None = None
    """File to validate on; otherwise a part of --data is split off."""
    test: Path | None = None
    """File to test on; otherwise a part of --data is split off."""
    text_column: str | None = None
    """Column with the text; guessed where only one can be meant."""
    label_column: str | None = None
    """Column with the label; guessed where only one can be meant."""
    label_columns: tuple[str, ...] = ()
    """Several columns of 0 and 1, each named like its label; of a regression, a column for each number."""
    label_separator: str | None = None
    """What stands between the labels of a row, such as ","; lists in .jsonl need none."""
    label_names: Path | None = None
    """File whose lines name the ids 0, 1, 2, … that stand in the label column."""
    separator: str | None = None
    """Character between the fields of --data, --validation and --test, such as ';', or tab; otherwise by the
    suffix."""
    encoding: str | None = None
    """Encoding of these files, such as cp1252 or gb18030; otherwise UTF-8."""
    columns: tuple[str, ...] = ()
    """Names of their columns, for .csv, .tsv or tab-separated .txt files without a header line."""
    positive: str | None = None
    """The label that precision, recall and F1 are about, of two; otherwise the second in sorted order."""
    validation_fraction: float = 0.1
    """Share of the rows split off for validation."""
    test_fraction: float = 0.2
    """Share of the rows split off for testing."""
    balance: Annotated[
        Literal["none", "undersample", "oversample", "weights"] | None,
        by_recipe("balance", "{none,undersample,oversample,weights}"),
    ] = None
    """Leave the classes as they are; in the training rows, cut each to the smallest or repeat rows of each up
    to the largest; or weigh them in the loss (of several labels, weigh the texts that have one against those
    that lack it)."""
    label_smoothing: float = 0.0
    """Share of each target that the loss gives to all classes alike."""
    raw_targets: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Regression: the head predicts the numbers as they are. Without it, in standard deviations from the mean
    of the training rows, so that one learning rate serves all units; answers and errors are in the data's."""
    clean: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Collapse white space and repeated punctuation and strip control characters, here and whenever the
    classifier is used."""
    augment: tuple[Operation, ...] = ()
    """Make new training texts by replacing words with synonyms, inserting synonyms, deleting or swapping
    words; needs words between spaces."""
    augment_copies: int = 1
    """New texts that each of these operations makes of a training text."""
    augment_share: float = 0.1
    """Share of a text's words that an operation changes, at least one."""
    synonyms: Path | None = None
    """File with a line a word: the word, a tab, its synonyms with commas between them; otherwise a small
    English table."""
    extra: Path | None = None
    """File of rows to add to the training rows, such as gptcls.pseudo_label writes: columns text and label,
    several labels as a JSON list. The baselines are fitted without them, as without what --balance and
    --augment make of the rows."""
    long: Long = "head"
    """What is read of a text of more than --max-length tokens: its start, its end, both, or all of it in
    overlapping windows whose logits are averaged."""
    train: Annotated[str | None, by_recipe("train", "{head,last_block,last_2,…,all,lora}")] = None
    """What is trained: the new head, the last blocks with the final norm, everything, or the head and small
    matrices beside the frozen ones (LoRA)."""
    lora_rank: Annotated[int | None, with_lora("16", "INT")] = None
    """Rank of the matrices that --train lora adds."""
    lora_alpha: Annotated[float | None, with_lora("16", "FLOAT")] = None
    """What they add is scaled by alpha / rank."""
    lora_dropout: Annotated[float | None, with_lora("0", "FLOAT")] = None
    """Dropout on what they read, while training."""
    lora_targets: Annotated[tuple[str, ...] | None, with_lora("*", "PATTERN …")] = None
    """Linear layers of the blocks that get them, by name or the end of it: qkv, 'attn.*', 'blocks.11.*'."""
    pooling: Annotated[
        Literal["auto", "last", "first", "mean", "max", "position-1"] | None,
        by_recipe("pooling", "{auto,last,first,mean,max,position-1}"),
    ] = None
    """What the head reads: the last real token, the first, the mean of all, each channel's largest value, or
    the last position of a text padded to a fixed length (the book's). auto is the last of a decoder, the
    first of an encoder (BERT)."""
    no_causal_mask: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Of a GPT-2: every token sees the whole text, also what follows it. Padding stays unseen, except with
    position-1, which reads it."""
    pad_to: int | None = None
    """Tokens to pad every text to; otherwise the longest of its batch. Needed by position-1, which otherwise
    takes the longest training text."""
    max_length: int | None = None
    """Tokens kept of each text; otherwise what the model can read (book: the longest training text)."""
    epochs: Annotated[int | None, by_recipe("epochs", "INT")] = None
    """Passes over the training rows."""
    batch_size: Annotated[int | None, by_recipe("batch_size", "INT")] = None
    """Texts a batch."""
    accumulate: int = 1
    """Batches whose gradients are added up before a step."""
    lr: Annotated[float | None, by_recipe("lr", "FLOAT")] = None
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.1
    """AdamW's weight decay."""
    schedule: Annotated[Literal["cosine", "constant"] | None, by_recipe("schedule", "{cosine,constant}")] = (
        None
    )
    """The learning rate after the warm-up."""
    warmup: Annotated[float | None, by_recipe("warmup", "FLOAT")] = None
    """Share of the steps in which the learning rate rises to its peak."""
    clip: Annotated[float | None, by_recipe("clip", "FLOAT")] = None
    """Largest norm of the gradient; 0 does not clip."""
    patience: Annotated[int | None, by_recipe("patience", "INT")] = None
    """Epochs without a better validation loss before the run stops; the weights of the best epoch are kept.
    0 trains to the end and keeps the last weights."""
    eval_freq: int = 50
    """Steps between two points of the loss curve."""
    eval_iter: int = 5
    """Batches that such a point looks at."""
    seed: int = 123
    """Seed of the split, the head, random weights and the shuffling. On one CPU with as many threads the same
    seed gives the same bits."""
    recipe: Literal["default", "book"] = "default"
    """default: every row, duplicates dropped before a stratified split. book: chapter 6 of "Build a Large
    Language Model From Scratch" step by step, for its numbers. Options given beside it win."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"] | None, by_recipe("precision", "{auto,fp32,bf16,fp16}")
    ] = None
    """Number format of the frozen blocks, on NVIDIA GPUs with bf16 of every matrix product; auto takes the
    fastest that the processor has. What is trained is kept in fp32. The frozen weights of a Llama, Mistral or
    Qwen2 are held in it."""
    no_cache: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The plain loop, in fp32 on a CPU: without it the frozen blocks run once a text, not once a step."""
    cache: Path | None = None
    """Folder that keeps the frozen blocks' output between runs, so that a sweep computes it once. Texts that
    were computed in other batches may differ in their last bits."""
    cache_budget: float = 2.0
    """GiB of memory for the frozen blocks' output; what is larger goes to a file."""
    compile: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Compile the network with torch.compile; pays for long runs on a GPU."""
    save: Literal["auto", "trained", "full"] = "auto"
    """Tensors in the saved classifier: the trained ones, to be laid over the base weights (of LoRA the head
    and an adapter in PEFT's format); all of them (LoRA merged into them); or the trained ones for LoRA and
    where the base is a preset that can be fetched again."""
    out: Path | None = None
    """The run's folder; otherwise a new one, runs/<model>-<data>."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Continue the interrupted run in --out with the options it was started with."""

    def resolved(self) -> "TrainConfig":
        """The same with every default that hangs on the recipe and the model filled in.

        Raises InputError for a value that no run can use.
        """
        defaults = dict(RECIPES[self.recipe])
        if self.recipe == "default":
            defaults |= FROM_RANDOM if self.init == "random" else FOR_MODEL.get(self.model, {})
        if self.train == "lora":
            defaults |= LORA
        given = {k: v for k, v in defaults.items() if getattr(self, k) is None}
        config = replace(self, **given)
        check_config(config)
        return config

    @property
    def layout(self) -> Layout:
        """How the labels stand in the files."""
        return Layout(KINDS[self.task], self.label_columns, self.label_separator, self.label_names)

    @property
    def dialect(self) -> Dialect:
        """How the files of labelled rows were written."""
        return Dialect(self.separator, self.encoding, self.columns)

    @property
    def cleaning(self) -> str:
        """What is done to every text first."""
        return "basic" if self.clean else "none"

    @property
    def augmentation(self) -> Augmentation:
        """What is made of each training text."""
        return Augmentation(self.augment, self.augment_copies, self.augment_share, self.synonyms)

    @property
    def run_name(self) -> str:
        """What the run's folder is called where nothing else is said."""
        data = self.data.split(":")[0] if corpus_of(self.data) else Path(self.data).stem
        name = f"{Path(self.model).name}-{data}"
        return name if self.recipe == "default" else f"{name}-{self.recipe}"
