"""The text tower in torch, two ways: as the released code runs it, and with the context shared.

    ordinary   every class is a row of all positions (77 in CLIP), as open_clip's encode_text computes it
    shared     the context's rows once for all classes; names end at the longest one's end token

Both take candidate contexts and answer unit class features, as the device side's TextTower does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


class TorchText:
    """A CLIP's text tower over fixed class names: name, ".", end token behind m context vectors."""

    def __init__(self, clip: Any, names: list[str], context_words: str):
        """clip: a LoadedClip of type open_clip.model.CLIP."""
        self._model = clip.model
        start, *words, end = _trimmed(clip.tokenizer([context_words])[0])
        self._n_shared = 1 + len(words)
        prompts = [_trimmed(row) for row in clip.tokenizer([f"{context_words} {name}." for name in names])]
        assert all(row[: self._n_shared] == [start, *words] and row[-1] == end for row in prompts)
        self._lengths = torch.tensor([len(row) - self._n_shared for row in prompts])
        n_positions = self._model.positional_embedding.shape[0]
        self._ids = torch.tensor([row + [0] * (n_positions - len(row)) for row in prompts])

    @property
    def n_names(self) -> int:
        return len(self._ids)

    @property
    def n_context(self) -> int:
        return self._n_shared - 1

    @property
    def ordinary_positions(self) -> int:
        """Token positions that a candidate costs."""
        return int(self._ids.numel())

    @property
    def shared_positions(self) -> int:
        return self._n_shared + self.n_names * int(self._lengths.max())

    def ordinary(self, contexts: torch.Tensor) -> torch.Tensor:
        """(B, m, D) -> unit class features (B, K, E), without gradients."""
        with torch.inference_mode():
            return self._ordinary(contexts)

    def shared(self, contexts: torch.Tensor) -> torch.Tensor:
        """(B, m, D) -> unit class features (B, K, E), without gradients."""
        with torch.inference_mode():
            return self._shared(contexts)

    def _ordinary(self, contexts: torch.Tensor) -> torch.Tensor:
        model, n_candidates = self._model, len(contexts)
        rows = model.token_embedding(self._ids).repeat(n_candidates, 1, 1, 1)
        rows[:, :, 1 : self._n_shared] = contexts[:, None]
        rows = (rows + model.positional_embedding).flatten(0, 1)
        rows = model.ln_final(model.transformer(rows, attn_mask=model.attn_mask))
        ends = (self._n_shared + self._lengths - 1).repeat(n_candidates)
        return self._features(rows[torch.arange(len(rows)), ends], n_candidates)

    def _shared(self, contexts: torch.Tensor) -> torch.Tensor:
        model, n_candidates = self._model, len(contexts)
        n_shared, longest = self._n_shared, int(self._lengths.max())
        positions = model.positional_embedding
        start = model.token_embedding(self._ids[:1, :1]).expand(n_candidates, 1, -1)
        shared = torch.cat([start, contexts], 1) + positions[:n_shared]
        own_ids = self._ids[:, n_shared : n_shared + longest]
        own = model.token_embedding(own_ids) + positions[n_shared : n_shared + longest]
        rows = torch.cat([shared, own.flatten(0, 1).expand(n_candidates, -1, -1)], 1)
        sees = torch.ones(longest, n_shared + longest, dtype=torch.bool).tril(n_shared)
        for block in model.transformer.resblocks:
            rows = rows + block.ls_1(self._attention(block.attn, block.ln_1(rows), sees))
            rows = rows + block.ls_2(block.mlp(block.ln_2(rows)))
        ends = n_shared + torch.arange(self.n_names) * longest + self._lengths - 1
        return self._features(model.ln_final(rows[:, ends]), n_candidates)

    def _attention(self, attention: Any, rows: torch.Tensor, sees: torch.Tensor) -> torch.Tensor:
        n_candidates, n_rows, width = rows.shape
        n_shared, longest = self._n_shared, sees.shape[0]
        rows = functional.linear(rows, attention.in_proj_weight, attention.in_proj_bias)
        by_head = rows.view(n_candidates, n_rows, 3, attention.num_heads, -1)
        shared = [x.transpose(1, 2) for x in by_head[:, :n_shared].unbind(2)]  # (B, heads, P, d)
        own = by_head[:, n_shared:].unflatten(1, (self.n_names, longest)).unbind(3)  # (B, K, L, heads, d)
        own = [x.transpose(2, 3).flatten(0, 1) for x in own]  # (B K, heads, L, d)
        keys, values = (
            torch.cat([s.repeat_interleave(self.n_names, 0), o], 2)
            for s, o in zip(shared[1:], own[1:], strict=True)
        )
        of_shared = functional.scaled_dot_product_attention(*shared, is_causal=True)
        of_own = functional.scaled_dot_product_attention(own[0], keys, values, attn_mask=sees)
        mixed = torch.cat(
            [
                of_shared.transpose(1, 2).flatten(2),
                of_own.transpose(1, 2).reshape(n_candidates, n_rows - n_shared, width),
            ],
            1,
        )
        return attention.out_proj(mixed)

    def _features(self, ends: torch.Tensor, n_candidates: int) -> torch.Tensor:
        features = functional.normalize(ends @ self._model.text_projection, dim=-1)
        return features.view(n_candidates, self.n_names, -1)


def _trimmed(ids: torch.Tensor) -> list[int]:
    """Token ids up to the end token, the largest of all."""
    return [int(i) for i in ids[: int(ids.argmax()) + 1]]
