"""The classifier whose head is the network's own language-model head: the logit of a label is its
log-likelihood behind the text, the sum over its tokens of log p(token | what stands before it).

So the label with the largest logit is the likeliest of all answers that the trie allows, which a greedy walk
from its root need not find; and softmax over the logits divides the likelihood among the labels.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from gptcls.core.answer import dataset_logits
from gptcls.core.batches import TextDataset
from gptcls.core.classifier import Classifier, Pooler
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2
from gptcls.core.tokenizer import Tokenizer
from gptcls.language.prompt import Prompt, Prompted
from gptcls.language.tree import read_trees
from gptcls.language.trie import Trie
from gptcls.models.llama import Llama

AT_ONCE = 1024  # vectors whose logits over the vocabulary are in memory together, but in training, all
CONTENT_FREE = ("N/A", "[MASK]", "")  # Zhao et al. 2021, "Calibrate Before Use", whose mean they take


class LabelNodes(Pooler):
    """The vectors (B, N * C) of the text's last token and of the other N - 1 nodes of the labels' trie."""

    def __init__(self, width: int, n_nodes: int) -> None:
        super().__init__(width)
        self.n_nodes = n_nodes  # N

    def positions(self, lengths: Tensor, width: int) -> Tensor | None:
        return lengths - 1 if self.n_nodes == 1 else None

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:  # (B, T, C), (B,) -> (B, N * C)
        rows = torch.arange(hidden.shape[0], device=hidden.device)[:, None]
        nodes = torch.arange(-self.n_nodes, 0, device=hidden.device)
        return hidden[rows, lengths[:, None] + nodes].flatten(1)


class LabelHead(nn.Module):
    """Vectors (B, N * C) of the trie's nodes -> the labels' log-likelihoods (B, K), minus what
    ``content_free`` (K,) says of each. It has no parameters: the vocabulary is the backbone's."""

    def __init__(self, backbone: nn.Module, trie: Trie, content_free: Sequence[float] | None = None) -> None:
        super().__init__()
        self._backbone = (backbone,)  # not a part of the head
        self.out_features, self.n_nodes = len(trie.paths), 1 + len(trie.tokens)
        paths = torch.zeros(len(trie.edges), len(trie.paths), device="cpu")
        for label, path in enumerate(trie.paths):
            paths[list(path), label] = 1
        # On a device of their own choice: the network may be built without memory.
        nodes, tokens = torch.tensor(trie.edges, device="cpu").T.contiguous()
        offsets = torch.tensor(content_free or [0.0] * len(trie.paths), device="cpu")
        for name, values in (("nodes", nodes), ("tokens", tokens), ("paths", paths), ("offsets", offsets)):
            self.register_buffer(name, values, persistent=False)

    def forward(self, pooled: Tensor) -> Tensor:  # (B, N * C) -> (B, K)
        hidden = pooled.unflatten(-1, (self.n_nodes, -1))  # (B, N, C)
        parts = hidden.split(max(1, AT_ONCE // self.n_nodes))
        return torch.cat([self._steps(part) for part in parts]) @ self.paths - self.offsets

    def _steps(self, hidden: Tensor) -> Tensor:  # (B, N, C) -> (B, E), log p of each edge of the trie
        backbone = self._backbone[0]
        total = backbone.lm_logits(hidden).float().logsumexp(dim=-1)  # (B, N), over the vocabulary
        # In bf16 logits of 32 and more are 0.25 apart: those of the labels are computed in fp32.
        table = backbone.wte if backbone.lm_head is None else backbone.lm_head
        with torch.autocast(hidden.device.type, enabled=False):
            own = (hidden[:, self.nodes].float() * table.weight[self.tokens].float()).sum(dim=-1)  # (B, E)
        return own - total[:, self.nodes]


class LabelClassifier(Classifier):
    """A :class:`Classifier` for the rows of a :class:`Prompted` tokenizer: logits (B, K) are the labels'
    log-likelihoods. The backbone is a GPT-2 or of the Llama family; it keeps its language-model head, and
    blocks of its own that read the trie take the place of its blocks where labels have several tokens.
    """

    def __init__(self, backbone: nn.Module, prompt: Prompt) -> None:
        lm_head = backbone.lm_head
        super().__init__(backbone, len(prompt.labels), head_bias=False)
        backbone.lm_head = lm_head
        self.prompt, trie = prompt, prompt.trie
        self.pool = LabelNodes(backbone.config.n_embd, 1 + len(trie.tokens))
        self.head = LabelHead(backbone, trie, prompt.content_free)
        read_trees(backbone, trie)

    def divide_out(self, content_free: Sequence[float]) -> None:
        """Subtract these (K,) from the logits from now on."""
        self.prompt = replace(self.prompt, content_free=tuple(content_free))
        self.head.offsets.copy_(torch.tensor(content_free))


def require_language_model(backbone: nn.Module, name: str) -> None:
    """InputError unless the network called ``name`` can say how likely a token is."""
    if not isinstance(backbone, GPT2 | Llama):
        kind = type(backbone).__name__
        raise InputError(f"--head lm needs a language model, a GPT-2 or Llama; {name} is a {kind}")
    if not getattr(backbone.config, "causal", True):
        raise InputError(f"--head lm: {name} sees what follows a token; take one with the causal mask")
    if backbone.lm_head is None and not backbone.config.tied:
        raise InputError(f"--head lm: the weights of {name} have no language-model head; take others")


def content_free(
    model: LabelClassifier, tokenizer: Prompted, max_length: int, device: torch.device,
    texts: Sequence[str] = CONTENT_FREE,
) -> list[float]:  # fmt: skip
    """Logarithms (K,) of the mean probabilities of the labels behind texts without content. Divided out
    (Zhao et al. 2021, the diagonal of W = diag(p)⁻¹), they leave an empty question without a bias."""
    dataset = TextDataset(texts, torch.zeros(len(texts)), max_length, tokenizer=tokenizer)
    logits = dataset_logits(model, dataset, device).double()
    return logits.softmax(dim=-1).mean(dim=0).log().tolist()


def read_by(tokenizer: Tokenizer, prompt: Prompt | None) -> Tokenizer:
    """The tokenizer, around each text the prompt if there is one."""
    return tokenizer if prompt is None else Prompted(tokenizer, prompt)
