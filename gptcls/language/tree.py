"""Several continuations of a text in one row: the text runs once, and behind it stand the nodes of the trie,
each of which sees the text and its own ancestors, and nothing of other labels. What a node computes is what
it would compute if it alone followed the text (tree attention; Miao et al. 2024, "SpecInfer").
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptcls.core.gpt2 import GPT2
from gptcls.language.trie import Trie
from gptcls.models.llama import Llama


@dataclass(frozen=True)
class Tree:
    """The M nodes that stand at the end of each row, depth first; of each its parent, from 1, and 0 for the
    text."""

    trie: Trie

    def places(self, lengths: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """For rows of these lengths (B,), nodes included, which positions see which, (B, T, T), and how many
        tokens stand before each on its own path, (B, T)."""
        device, n_nodes = lengths.device, len(self.trie.tokens)
        at = torch.arange(width, device=device)
        node = at - (lengths[:, None] - n_nodes)  # (B, T)
        is_node = (node >= 0) & (node < n_nodes)
        node = node.clamp(0, n_nodes - 1)
        above = torch.tensor(self.trie.ancestors, device=device)  # (M, M)
        others = is_node[:, :, None] & is_node[:, None] & ~above[node[:, :, None], node[:, None]]
        depths = torch.tensor(self.trie.depths, device=device)
        place = torch.where(is_node, lengths[:, None] - n_nodes + depths[node] - 1, at)
        return (at <= at[:, None]) & ~others, place


class TreeBlock(nn.Module):
    """A block, whose layers it shares under their own names, that reads rows with a tree at their end."""

    def __init__(self, block: nn.Module, tree: Tree) -> None:
        super().__init__()
        for name, layer in block.named_children():
            self.add_module(name, layer)
        self.tree, self._plain = tree, (block,)  # whose layers are these already

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:  # (B, T, C), (B,) -> (B, T, C)
        seen, place = self.tree.places(lengths, x.shape[1])
        x = x + self._attend(self.norm1(x), seen[:, None], place)
        return x + self.mlp(self.norm2(x))


class GPT2TreeBlock(TreeBlock):
    """Of a GPT-2. The first one is given the table of positions: the embeddings below it took the nodes for
    tokens that follow one another."""

    def __init__(self, block: nn.Module, tree: Tree, positions: nn.Embedding | None) -> None:
        super().__init__(block, tree)
        self._positions = () if positions is None else (positions,)  # not a layer of its own

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        seen, place = self.tree.places(lengths, x.shape[1])
        for table in self._positions:
            x = x + (table(place) - table.weight[: x.shape[1]]).to(x.dtype)
        x = x + self.drop(self._attend(self.norm1(x), seen[:, None], place))
        return x + self.drop(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, seen: Tensor, place: Tensor) -> Tensor:
        B, T, C = x.shape
        heads = self.attn.qkv(x).view(B, T, 3, self.attn.n_head, C // self.attn.n_head)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        dropout = self.attn.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout)
        return self.attn.proj(mixed.transpose(1, 2).reshape(B, T, C))


class LlamaTreeBlock(TreeBlock):
    """Of the Llama family."""

    def _attend(self, x: Tensor, seen: Tensor, place: Tensor) -> Tensor:
        attn = self.attn
        angles = attn._angles(x)
        own = angles and tuple(table[place][:, None] for table in angles)  # (B, 1, T, D)
        q, (k, v) = attn._turned(attn._queries(x), own), attn._keys_and_values(x, own)
        if attn.window is not None:
            seen = seen & (place[:, :, None] - place[:, None] < attn.window)[:, None]
        out = F.scaled_dot_product_attention(q, k, v, seen, enable_gqa=True)  # (B, H, T, D)
        return attn.proj(out.transpose(1, 2).flatten(2))


def without_trees(backbone: nn.Module) -> None:
    """Put the blocks back that :func:`read_trees` replaced."""
    plain = (block._plain[0] if isinstance(block, TreeBlock) else block for block in backbone.blocks)
    backbone.blocks = nn.ModuleList(plain)


def read_trees(backbone: nn.Module, trie: Trie) -> None:
    """Put blocks that read the trie in the place of the backbone's. Nothing where the trie has no node but
    the first: then the labels are read off the text's last token."""
    if not trie.tokens:
        return
    tree, blocks = Tree(trie), list(backbone.blocks)
    if isinstance(backbone, GPT2):
        made = [GPT2TreeBlock(b, tree, None if i else backbone.wpe) for i, b in enumerate(blocks)]
    elif isinstance(backbone, Llama):
        made = [LlamaTreeBlock(block, tree) for block in blocks]
    else:
        raise TypeError(f"{type(backbone).__name__} has no blocks that read a tree")
    backbone.blocks = nn.ModuleList(made)
