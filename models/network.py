"""Gives the training script LLaMA-2 as a torch module; its parameters are named as llama2_host.checkpoint names
them."""
# Ref: Touvron et al. 2023, Llama 2: Open Foundation and Fine-Tuned Chat Models

import torch
import torch.nn.functional as F
from torch import nn

from llama2_spec.model import ModelConfig


def rope_angles(config: ModelConfig) -> torch.Tensor:
    """Angle of each position and pair, [seq_len, head_dim / 2]."""
    frequencies = config.rope_theta ** -(torch.arange(0, config.head_dim, 2).float() / config.head_dim)
    return torch.outer(torch.arange(config.seq_len).float(), frequencies)


def rotate(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Rotary embedding: neighbouring pairs of x [batch, time, heads, head_dim] times unit complex numbers."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2)


class Layer(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config, self.dropout = config, 0.0
        self.attention_norm = nn.Parameter(torch.ones(config.dim))
        self.wq = matrix(config.dim, config.dim)
        self.wk = matrix(config.kv_dim, config.dim)
        self.wv = matrix(config.kv_dim, config.dim)
        self.wo = matrix(config.dim, config.dim, scale=0.3)
        self.ffn_norm = nn.Parameter(torch.ones(config.dim))
        self.w1 = matrix(config.hidden_dim, config.dim)
        self.w2 = matrix(config.dim, config.hidden_dim, scale=0.3)
        self.w3 = matrix(config.hidden_dim, config.dim)

    def forward(self, x, turns):
        drop = lambda branch: F.dropout(branch, self.dropout, self.training)
        x = x + drop(self.attention(F.rms_norm(x, x.shape[-1:], self.attention_norm, self.config.norm_epsilon), turns))
        return x + drop(self.feed_forward(F.rms_norm(x, x.shape[-1:], self.ffn_norm, self.config.norm_epsilon)))

    def attention(self, x, turns):
        batch, time, _ = x.shape
        qkv = F.linear(x, torch.cat([self.wq, self.wk, self.wv]))
        q, k, v = (part.unflatten(-1, (-1, self.config.head_dim))
                   for part in qkv.split([self.config.q_dim, self.config.kv_dim, self.config.kv_dim], dim=-1))
        q, k = rotate(q, turns), rotate(k, turns)
        k, v = k.repeat_interleave(self.config.n_rep, dim=2), v.repeat_interleave(self.config.n_rep, dim=2)
        mixed = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
        return F.linear(mixed.transpose(1, 2).reshape(batch, time, -1), self.wo)

    def feed_forward(self, x):
        gate, up = F.linear(x, torch.cat([self.w1, self.w3])).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, self.w2)


def matrix(rows: int, columns: int, scale: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns) * scale * columns ** -0.5)


class Network(nn.Module):
    """LLaMA-2 with tied embedding and classifier; forward gives logits of every position."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.randn(config.vocab_size, config.dim) * 0.05)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.final_norm = nn.Parameter(torch.ones(config.dim))
        angles = rope_angles(config)[:, None, :]
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles), persistent=False)

    def set_dropout(self, share: float) -> None:
        """Share of every residual branch that training leaves out."""
        for layer in self.layers:
            layer.dropout = share

    def forward(self, tokens):
        time = tokens.shape[1]
        x = F.embedding(tokens, self.embedding)
        for layer in self.layers:
            x = layer(x, self.turns[:time])
        x = F.rms_norm(x, x.shape[-1:], self.final_norm, self.config.norm_epsilon)
        return F.linear(x, self.embedding)

