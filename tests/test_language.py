"""Labels as language, against transformers' logits, Zhao's formula and brute force over all labels."""

import json
import shutil
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from helpers.random_gpt2 import TINY, transformers_gpt2
from helpers.random_llama import byte_level, oracle_of, save
from helpers.tiny import CPU, ROWS

import gptcls.train.run
from gptcls.classify.predict import load_classifier
from gptcls.classify.store import read_classifier, save_classifier
from gptcls.core.answer import dataset_logits
from gptcls.core.batches import TextDataset, pad
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, GPT2Config
from gptcls.core.task import SingleLabel
from gptcls.core.tokenizer import GPT2 as GPT2_TOKENIZER
from gptcls.core.weights import GPT2_NAMES
from gptcls.data.long_texts import windows
from gptcls.export.run import ExportConfig, export
from gptcls.fast.features import FeatureCache
from gptcls.fast.frozen import Frozen, Staged, Trained
from gptcls.language.head import LabelClassifier, LabelHead, content_free, require_language_model
from gptcls.language.pattern import Pattern, read_pattern
from gptcls.language.prompt import Prompt, Prompted
from gptcls.language.trie import Trie, ended
from gptcls.models.bert import BertConfig
from gptcls.models.families import FAMILIES
from gptcls.models.llama import Llama, LlamaConfig
from gptcls.models.lora import LoRAConfig, add_lora, freeze
from gptcls.models.pretrained import load_pretrained, load_tokenizer
from gptcls.models.tokenizer_file import FileTokenizer
from gptcls.train.config import TrainConfig
from gptcls.train.language import LabelTokens
from gptcls.train.resolve import resolve
from gptcls.train.run import fit

LABELS = ((5, 6), (5, 7, 8), (9,), (5, 7, 3, 2), (4, 4))  # three of them share a beginning
TEXTS = ([10, 11, 12], [13], [14, 15, 16, 17, 18, 19])
KINDS = ["qwen2", "qwen2 window", "llama3", "qwen3", "smollm3", "mistral"]
LLAMA = {
    "n_layer": 1, "n_embd": 64, "n_head": 2, "n_kv_head": 2, "head_dim": 32, "n_inner": 16, "n_positions": 64,
    "vocab_size": 300,
}  # fmt: skip
QUICK = {"epochs": 2, "batch_size": 8, "device": "cpu", "lr": 3e-3, "calibrate": "none"}


def our_gpt2(oracle):
    model = GPT2(GPT2Config(**TINY))
    state = {name: tensor for name, tensor in oracle.state_dict().items() if name != "lm_head.weight"}
    model.load_state_dict(GPT2_NAMES.to_ours(state))
    return model


def pair(kind, tmp_path):
    """The same network by transformers and by us."""
    if kind == "gpt2":
        oracle = transformers_gpt2()
        return oracle, our_gpt2(oracle)
    oracle = oracle_of(kind)
    save(oracle, tmp_path)
    return oracle, load_pretrained(tmp_path)


@torch.inference_mode()
def log_likelihood(oracle, prompt, label):
    """One token after the other, each behind all that stands before it."""
    total = 0.0
    for n, token in enumerate(label):
        logits = oracle(torch.tensor([[*prompt, *label[:n]]])).logits[0, -1]
        total += logits.log_softmax(dim=-1)[token].item()
    return total


def by_hand(oracle, prompt):
    rows = [[*prompt.prefix, *text, *prompt.suffix] for text in TEXTS]
    return torch.tensor([[log_likelihood(oracle, row, label) for label in prompt.labels] for row in rows])


def batch(prompt):
    rows = [[*prompt.prefix, *text, *prompt.suffix, *prompt.trie.tokens] for text in TEXTS]
    return pad(rows, pad_id=0)


# --- the head ---


@pytest.mark.parametrize("labels", [LABELS, ((5,), (6,), (7,))], ids=["tree", "one token each"])
@pytest.mark.parametrize("kind", ["gpt2", *KINDS])
def test_logits_are_transformers_log_likelihoods(kind, labels, tmp_path):
    oracle, ours = pair(kind, tmp_path)
    prompt = Prompt((1, 2), (3,), labels)
    expected = by_hand(oracle, prompt)  # before our blocks change
    model = LabelClassifier(ours, prompt).eval()
    ids, lengths = batch(prompt)
    with torch.inference_mode():
        found = model(ids, lengths)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        for depth in range(len(ours.blocks) + 1):  # frozen below, trained above
            staged = Staged(model, depth=depth)(ids, lengths)
            torch.testing.assert_close(staged, found, rtol=1e-4, atol=1e-4)


def test_the_largest_logit_is_the_likeliest_path_of_the_trie():
    """Brute force; of a trie whose first step misleads a greedy walk."""
    oracle = transformers_gpt2()
    labels = tuple(product(range(20, 26), range(30, 34)))
    model = LabelClassifier(our_gpt2(oracle), prompt := Prompt((), (3,), labels)).eval()
    ids, lengths = batch(prompt)
    expected = by_hand(oracle, prompt)
    assert model(ids, lengths).argmax(dim=-1).tolist() == expected.argmax(dim=-1).tolist()
    greedy = []
    for text in TEXTS:
        walked = ()
        for _ in range(2):
            known = {label[len(walked)] for label in labels if label[: len(walked)] == walked}
            likely = {step: log_likelihood(oracle, [*text, 3, *walked], [step]) for step in known}
            walked = (*walked, max(likely, key=likely.get))
        greedy.append(labels.index(walked))
    assert greedy != expected.argmax(dim=-1).tolist(), "so that the two ways can be told apart"


def test_cached_features_are_those_of_the_whole_network():
    model = LabelClassifier(our_gpt2(transformers_gpt2()), prompt := Prompt((1,), (3,), LABELS)).eval()
    data = TextDataset(["a", "b", "c"], torch.zeros(3), 32, tokenizer=GPT2_TOKENIZER)
    ids, lengths = batch(prompt)
    data.rows = [row[:n].tolist() for row, n in zip(ids, lengths, strict=True)]
    data.pad_id = 0
    for depth in (1, 2):
        found = FeatureCache().datasets(Frozen(model, depth), {"x": data}, CPU)["x"]
        logits = dataset_logits(Trained(model, depth), found, CPU)
        torch.testing.assert_close(logits, model(ids, lengths).detach(), rtol=1e-4, atol=1e-4)


def test_gradients_of_the_tree_are_those_of_rows_of_their_own():
    def gradient(labels):
        model = LabelClassifier(our_gpt2(transformers_gpt2()), prompt := Prompt((1,), (3,), labels))
        torch.nn.functional.nll_loss(model(*batch(prompt)), torch.zeros(3, dtype=torch.int64)).backward()
        return {name: p.grad for name, p in model.named_parameters()}

    for name, alone in gradient(((5, 7, 8), (9,))).items():  # the loss is of the first label alone
        torch.testing.assert_close(gradient(((5, 7, 8), (5, 6), (9, 4)))[name], alone, rtol=1e-3, atol=1e-5)


def test_content_free_probabilities_are_divided_out_as_zhao_does():
    prompt = Prompt.of(Pattern("{text} is {label}"), ("good", "bad", "neither"), GPT2_TOKENIZER)
    torch.manual_seed(1)
    model = LabelClassifier(GPT2(GPT2Config(n_layer=2, n_embd=32, n_head=2, n_positions=64)), prompt).eval()
    reader = Prompted(GPT2_TOKENIZER, prompt)

    def probabilities(texts):
        data = TextDataset(texts, torch.zeros(len(texts)), 64, tokenizer=reader)
        return dataset_logits(model, data, CPU).softmax(dim=-1).double().numpy()

    p, p_cf = probabilities(["a film"]), probabilities(["N/A", "[MASK]", ""]).mean(axis=0)
    weighed = np.diag(1 / p_cf) @ p[0]  # W = diag(p_cf)^-1, b = 0
    model.divide_out(content_free(model, reader, 64, CPU))
    np.testing.assert_allclose(probabilities(["a film"])[0], weighed / weighed.sum(), rtol=1e-5)


def test_the_loss_on_tokens_is_a_language_models():
    """Cross entropy over the vocabulary, of the label's tokens alone, as with labels of -100 elsewhere."""
    oracle = transformers_gpt2()
    model = LabelClassifier(our_gpt2(oracle), prompt := Prompt((1,), (3,), LABELS)).eval()
    names, targets = tuple("abcde"), torch.tensor([3, 0, 2])
    found = LabelTokens(SingleLabel(names)).loss(model(*batch(prompt)), targets)
    losses = []
    for text, target in zip(TEXTS, targets.tolist(), strict=True):
        before, label = [1, *text, 3], LABELS[target]
        ids = torch.tensor([[*before, *label]])
        wanted = torch.tensor([[-100] * len(before) + list(label)])
        losses.append(oracle(ids, labels=wanted).loss * len(label))  # theirs is the mean over tokens
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-4, atol=1e-4)
    weighted = LabelTokens(SingleLabel(names, class_weights=(1.0, 2.0, 3.0, 4.0, 5.0)))
    expected = (torch.stack(losses) * torch.tensor([4.0, 1.0, 3.0])).sum() / 8
    torch.testing.assert_close(weighted.loss(model(*batch(prompt)), targets), expected, rtol=1e-4, atol=1e-4)


def test_adapters_work_below_a_tree():
    model = LabelClassifier(our_gpt2(transformers_gpt2()), prompt := Prompt((1,), (3,), LABELS))
    before = model(*batch(prompt)).detach()
    add_lora(model.backbone.blocks, LoRAConfig(2), prefix="blocks")
    freeze(model, "lora")
    torch.testing.assert_close(model(*batch(prompt)), before)
    assert {name.rpartition(".lora_")[1] for name in model.trained_parameters()} == {".lora_"}
    model(*batch(prompt)).sum().backward()
    assert all(p.grad is not None for p in model.trained_parameters().values())


# --- the trie ---


def test_labels_of_which_one_begins_another_are_ended():
    assert ended([(1, 2), (1, 2, 3)], [9]) == ((1, 2, 9), (1, 2, 3, 9))
    assert ended([(1, 2), (1, 3)], [9]) == ((1, 2), (1, 3)), "else nothing more is read"
    with pytest.raises(InputError, match="same tokens"):
        ended([(1, 2), (1, 2)], [9])
    with pytest.raises(ValueError, match="begins another"):
        Trie.of([(1,), (1, 2)])
    prompt = Prompt.of(Pattern("{text}: {label}"), ("good", "good one"), GPT2_TOKENIZER)
    assert [GPT2_TOKENIZER.decode(ids) for ids in prompt.labels] == [" good\n", " good one\n"]


# --- the prompt ---


@pytest.mark.parametrize(
    "pattern", ["{text}\nThis is {label}.", "Q: {text}\nIt is about {label}", "{text} - {label}"]
)
def test_a_prompt_is_what_the_whole_string_is_encoded_to(pattern):
    prompt = Prompt.of(Pattern(pattern), ("good news", "bad"), GPT2_TOKENIZER)
    for text in ("Where is Oslo?", "it rained"):
        row = Prompted(GPT2_TOKENIZER, prompt).encode(text)
        row = row[: len(row) - len(prompt.trie.tokens)]
        for words, label in zip(("good news", "bad"), prompt.labels, strict=True):
            whole = pattern.format(text=text, label=words).removesuffix(".")
            assert [*row, *label] == GPT2_TOKENIZER.encode(whole)


def test_a_long_text_is_cut_and_never_the_pattern():
    prompt = Prompt.of(Pattern("Read: {text}\nThis is {label}."), ("good news", "bad"), GPT2_TOKENIZER)
    reader = Prompted(GPT2_TOKENIZER, prompt)
    rows = TextDataset(["word " * 200], torch.zeros(1), 24, tokenizer=reader).rows
    assert [len(row) for row in rows] == [24]
    assert tuple(rows[0][-len(reader.suffix) :]) == reader.suffix
    assert GPT2_TOKENIZER.decode(rows[0]).startswith("Read: word word")
    data = TextDataset(["word " * 60], torch.zeros(1), 24, tokenizer=reader, cut=windows)
    assert len(data.rows) > 1
    assert all(tuple(row[-len(reader.suffix) :]) == reader.suffix for row in data.rows)


def test_shots_stand_above_the_text_and_instructions_once():
    words = "Labels: {labels}.\n{descriptions}\nMessage: {text}\nIt is {label}."
    described = {"spam": "who sells", "ham": "a friend"}
    pattern = Pattern(words, {"spam": "an advert"}, described)
    shots = [("win a prize now and then", "spam"), ("see you", "ham")]
    prompt = Prompt.of(pattern, ("ham", "spam"), GPT2_TOKENIZER, shots, longest_shot=4)
    row = Prompted(GPT2_TOKENIZER, prompt).encode("hello")
    assert GPT2_TOKENIZER.decode(row).removesuffix(" an") == (
        "Labels: ham, an advert.\nham: a friend\nan advert: who sells\n"
        "Message: win a prize now\nIt is an advert.\n\nMessage: see you\nIt is ham.\n\nMessage: hello\nIt is"
    )


CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ '<|turn|>' + message['role'] + '\n' }}"
    "{{ message['content'] | trim }}{{ '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize("own_file", [True, False])
def test_a_chat_template_is_rendered_as_transformers_does(own_file, tmp_path):
    from transformers import PreTrainedTokenizerFast

    save(oracle_of("qwen2", vocab_size=330), tmp_path)
    byte_level([text for text, _ in ROWS], 320, ends=("<s>", "<|turn|>")).save(
        str(tmp_path / "tokenizer.json")
    )
    template = {} if own_file else {"chat_template": CHAT}
    if own_file:
        (tmp_path / "chat_template.jinja").write_text(CHAT)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "<s>"}} | template))
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), bos_token="<s>")
    ours, names = load_tokenizer(tmp_path), ("ham", "spam")
    shots = [("win a prize", "spam"), ("see you", "ham")]
    prompt = Prompt.of_chat(Pattern("Read this.\n{text}\nIt is {label}."), names, ours, shots)
    row = Prompted(ours, prompt).encode("call me <|turn|>")
    said = [(f"Read this.\n{text}\nIt is", label) for text, label in (*shots, ("call me", "ham"))]
    turns = [
        {"role": role, "content": content}
        for pair in said
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]
    whole = theirs.apply_chat_template(turns, chat_template=CHAT, tokenize=True, return_dict=False)
    before = Prompted(ours, prompt).encode("call me")
    before = before[: len(before) - len(prompt.trie.tokens)]
    end = ours.encode_template("<|end|>\n")
    assert [*before, *prompt.labels[0][: len(ours.encode("ham")) - 2], *end] == whole
    assert row.count(ours.encode_template("<|turn|>")[0]) == 6, "what a text holds is no turn"


# --- patterns ---


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("This is {label}", "lacks {text}"),
        ("{text}", "lacks {label}"),
        ("{text} {text} {label}", "has 2 times {text}"),
        ("{label}: {text}", "must stand behind {text}"),
        ("{text} is {label} news", "' news' stands behind"),
    ],
)
def test_a_pattern_that_cannot_be_used(pattern, said):
    with pytest.raises(InputError, match=said):
        Pattern(pattern)


def test_a_pattern_from_a_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        'patterns = ["{text}\\nIt is {label}.", "{text}: {label}"]\n[verbalizers]\nspam = "an advert"\n'
    )
    found = read_pattern(f"{file}:2", ["ham=a chat"])
    assert (found.pattern, found.verbalizers) == ("{text}: {label}", {"spam": "an advert", "ham": "a chat"})
    assert read_pattern("{text}\\nSo {label}").pattern == "{text}\nSo {label}"
    other = tmp_path / "mine.json"
    other.write_text(json.dumps({"pattern": "{text} {label}"}))
    assert read_pattern(str(other)).pattern == "{text} {label}"
    for given, said in (
        (str(file), "has 2 patterns"), (f"{file}:3", "is not there"), ("no.toml", "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            read_pattern(given)
    file.write_text('patern = "{text} {label}"')
    with pytest.raises(InputError, match="holds patern"):
        read_pattern(str(file))
    with pytest.raises(InputError, match="has no ="):
        read_pattern(None, ["spam"])
    with pytest.raises(InputError, match="both called"):
        Pattern(verbalizers={"a": "x", "b": "x"}).answers(("a", "b"))
    with pytest.raises(InputError, match="names 'c'"):
        Pattern(verbalizers={"c": "x"}).answers(("a", "b"))


# --- runs ---


@pytest.fixture(scope="module")
def frame():
    return pd.DataFrame(ROWS, columns=["text", "label"])


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    sizes = {"vocab_size": 320, "max_position_embeddings": 256, "eos_token_id": 0, "pad_token_id": None}
    save(oracle_of("qwen2", **sizes), folder)
    byte_level([text for text, _ in ROWS], 320).save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(
    "options", [{"objective": "tokens", "train": "all"}, {"train": "lora", "lora_rank": 2}]
)
def test_a_trained_one_is_saved_and_read_and_answers_the_same(options, base, tmp_path, frame):
    run = gptcls.train.run.train(
        data=frame, model=str(base), head="lm", out=tmp_path / "x", precision="fp32", **QUICK | options
    )
    losses = [row["full_val_loss"] for row in run.history if row.get("full_val_loss") is not None]
    assert losses[-1] < losses[0]
    texts = frame["text"].tolist()[::7]
    found = load_classifier(tmp_path / "x", "cpu", "fp32").predict_proba(texts)
    np.testing.assert_allclose(found, run.predict_proba(texts), atol=1e-5)
    assert load_classifier(tmp_path / "x", "cpu").explain(texts[0]).answer in ("ham", "spam")


@pytest.mark.parametrize("shots", [0, 3])
def test_asked_as_it_is_it_answers_as_transformers_would(shots, llama, tmp_path, frame):
    """From the words of the command line to probabilities; the classifier holds no weights of its own."""
    from transformers import AutoModelForCausalLM

    how = {"pattern": "Text: {text}\nIt is {label}.", "verbalizers": ("ham=a chat", "spam=an offer to you")}
    run = gptcls.train.run.train(
        data=frame, model=str(llama), head="lm", epochs=0, shots=shots, out=tmp_path / "x",
        content_free="none", calibrate="none", device="cpu", precision="fp32", **how,
    )  # fmt: skip
    assert (tmp_path / "x" / "classifier" / "model.safetensors").stat().st_size < 200
    saved = read_classifier(tmp_path / "x")
    tokenizer, oracle = load_tokenizer(llama), AutoModelForCausalLM.from_pretrained(llama).eval()
    prefix = tokenizer.decode(saved.tokenizer.prefix)
    assert prefix.count("Text:") == shots + 1
    assert prefix.count("It is") == shots
    text = "win a prize now"
    before = tokenizer.encode(f"{prefix} {text}\nIt is")
    words = {"ham": " a chat", "spam": " an offer to you"}
    scores = [log_likelihood(oracle, before, tokenizer.encode(words[x])) for x in saved.task.labels]
    expected = torch.tensor(scores).softmax(dim=-1)
    np.testing.assert_allclose(run.predict_proba(text), expected, rtol=1e-3)


def test_it_goes_on_as_another_classifier_and_back(base, tmp_path, frame):
    options = QUICK | {"data": frame}
    gptcls.train.run.train(
        head="lm", model=str(base), out=tmp_path / "x", verbalizers=("ham=a chat",), **options
    )
    linear = fit(frame, str(tmp_path / "x"), **QUICK)
    again = fit(frame, str(tmp_path / "x"), head="lm", **QUICK)
    assert type(linear.classifier.model.backbone.blocks[0]).__name__ == "Block"
    assert type(again.classifier.model) is LabelClassifier


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "multi"}, "one class of each text"),
        ({"recipe": "book"}, "--recipe book is not for --head lm"),
        ({"pooling": "max"}, "--pooling max is not for"),
        ({"shots": 4, "epochs": 2}, "leave out --epochs 2"),
        ({"train": "head"}, "trains a new head"),
        ({"head": "linear", "shots": 4}, "--shots goes with --head lm"),
        ({"head": "linear", "epochs": 0}, "--epochs 0 is too small"),
        ({"objective": "tokens", "epochs": 0}, "--objective is about training"),
        ({"objective": "tokens", "label_smoothing": 0.1}, "--label-smoothing is not for --objective tokens"),
        ({"seeds": (1, 2)}, "--seeds is not for"),
        ({"shots": -1}, "--shots -1 is too small"),
    ],
)
def test_what_does_not_go_with_it_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        resolve(TrainConfig.of(**{"head": "lm"} | options))


def test_prompts_that_leave_no_room(base, frame):
    for options, said in (
        ({"shots": 12, "max_length": 32}, "--shots 12 take"),
        ({"pattern": "{text} " + "so " * 60 + "{label}"}, "take 60 of 64 tokens"),
        ({"shots": 1000}, "there are 42 training rows"),
    ):
        with pytest.raises(InputError, match=said):
            fit(frame, str(base), head="lm", device="cpu", **options)


def test_networks_that_are_no_language_model(tmp_path):
    sizes = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_inner": 16, "n_positions": 8, "vocab_size": 50}
    bert = FAMILIES["bert"].network(BertConfig(**sizes, n_segments=2))
    for network, said in (
        (bert, "X is a Bert"),
        (GPT2(GPT2Config(**TINY)).drop_causal_mask(), "take one with the causal mask"),
    ):
        with pytest.raises(InputError, match=said):
            require_language_model(network, "X")
    headless = GPT2(GPT2Config(**TINY, tied=False))
    headless.lm_head = None
    with pytest.raises(InputError, match="no language-model head"):
        require_language_model(headless, "X")


@pytest.fixture(scope="module")
def asked(tmp_path_factory, frame, llama):
    """A classifier that was not trained."""
    folder = tmp_path_factory.mktemp("runs") / "x"
    gptcls.train.run.train(data=frame, model=str(llama), head="lm", epochs=0, out=folder, device="cpu")
    return folder


def test_a_text_is_never_cut_into_the_pattern(asked):
    classifier = load_classifier(asked, "cpu")
    with pytest.raises(InputError, match=r"take \d+ of 5 tokens"):
        classifier.predict(["see you"], max_length=5)


def test_likelihoods_in_bf16_tell_labels_apart():
    """Logits near 60, where bf16 numbers are 0.25 apart, and labels that differ by less."""
    torch.manual_seed(0)
    network = Llama(LlamaConfig(**LLAMA)).to(torch.bfloat16)
    with torch.no_grad():
        network.wte.weight.mul_(40)
    hidden = (network.wte.weight[5] / 2).to(torch.bfloat16)[None]
    head = LabelHead(network, Trie.of([(token,) for token in range(20)]))
    logits = F.linear(hidden.double(), network.wte.weight.double())
    expected = logits.log_softmax(dim=-1)[0, :20]
    found = head(hidden)[0].double()
    torch.testing.assert_close(found - found[0], expected - expected[0], atol=1e-3, rtol=1e-4)


def test_a_classifier_of_a_network_with_a_head_of_its_own_has_none(tmp_path, frame):
    config = LlamaConfig(**LLAMA, tied=False)
    network, tokenizer = Llama(config), byte_level(list(frame["text"]), 300)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    own = FileTokenizer(tmp_path / "tokenizer.json")
    run = fit(frame, network, tokenizer=own, train="all", **QUICK | {"epochs": 1})
    save_classifier(tmp_path / "x", run.classifier, full=True)
    with pytest.raises(InputError, match="have no language-model head"):
        require_language_model(read_classifier(tmp_path / "x").model.backbone, "x")


def test_forms_that_do_not_hold_it_refuse_it(asked, tmp_path):
    for form in ("onnx", "transformers"):
        with pytest.raises(InputError, match="language-model head"):
            export(ExportConfig(model=str(asked), to=form, out=tmp_path / form))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": [[1], [1, 2]]}, "prompt.labels"), ({"labels": [[1], [70000]]}, "prompt.labels"),
        ({"prefix": ["a"]}, "prompt.prefix"), ({"content_free": [1.0]}, "prompt.content_free"),
        ({"lead": 3}, "prompt.lead"), ({"more": 1}, "says prompt "),
    ],
)  # fmt: skip
def test_a_damaged_prompt_is_refused(change, said, asked, tmp_path):
    shutil.copytree(asked / "classifier", tmp_path / "x")
    path = tmp_path / "x" / "classifier.json"
    spec = json.loads(path.read_text())
    spec["prompt"] |= change
    path.write_text(json.dumps(spec))
    with pytest.raises(InputError, match=said):
        read_classifier(tmp_path / "x")
