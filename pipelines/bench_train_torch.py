"""One contender of `make bench-train`: the same Llama in PyTorch, eager or compiled.

Reads a number of steps from each line of stdin, takes them, and prints {"wall", "cpu", "loss"} of each
request; see bench-train.py, which drives it. The model is written as transformers writes it (fused
scaled-dot-product attention, rotary embedding by halves), with what makes it quicker on a CPU: one
product for queries, keys and values, one for gate and up, fused AdamW.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class Norm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(c))

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, 1e-5)


def rotate(x, cos, sin):
    lo, hi = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-hi, lo), dim=-1) * sin


class Layer(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.h, self.g, self.d = s["heads"], s["key_heads"], s["head_dim"]
        c, f = s["hidden"], s["feed_forward"]
        linear = lambda i, o: nn.Linear(i, o, bias=False)
        self.norm1, self.norm2 = Norm(c), Norm(c)
        self.qkv, self.out = linear(c, (self.h + 2 * self.g) * self.d), linear(self.h * self.d, c)
        self.gate_up, self.down = linear(c, 2 * f), linear(f, c)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, t, -1, self.d).transpose(1, 2)
        q, k, v = qkv.split((self.h, self.g, self.g), dim=1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if self.g < self.h:
            k, v = (z.repeat_interleave(self.h // self.g, dim=1) for z in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, -1))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Llama(nn.Module):
    def __init__(self, s):
        super().__init__()
        c, v = s["hidden"], s["vocabulary"]
        self.embedding = nn.Embedding(v, c)
        self.layers = nn.ModuleList(Layer(s) for _ in range(s["layers"]))
        self.norm, self.head = Norm(c), nn.Linear(c, v, bias=False)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)
        if s["tied"]:
            self.head.weight = self.embedding.weight
        angle = torch.outer(
            torch.arange(s["length"]).float(),
            1000.0 ** -(torch.arange(0, s["head_dim"], 2).float() / s["head_dim"]),
        )
        self.register_buffer("cos", torch.cat((angle, angle), dim=-1).cos())
        self.register_buffer("sin", torch.cat((angle, angle), dim=-1).sin())

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        # Nothing predicts the first token of a sequence: T - 1 predictions, as the other contender.
        logits = self.head(self.norm(x)[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def main():
    shape, mode, threads = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    model = Llama(shape)
    decay = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    loss_of = model
    if mode != "eager":
        options = {"compile": None, "compile-autotune": "max-autotune"}[mode]
        loss_of = torch.compile(model, mode=options, dynamic=False, fullgraph=True)
    n = shape["batch"] * shape["length"]
    tokens = (torch.arange(n) * 7919 % shape["vocabulary"]).view(shape["batch"], shape["length"])
    parameters = list(model.parameters())

    def step():
        loss = loss_of(tokens, tokens[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    for _ in range(3):
        step()
    print(json.dumps({"parameters": sum(p.numel() for p in parameters), "version": torch.__version__}), flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            loss = step()
        loss = loss.item()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps({"wall": wall, "cpu": cpu, "loss": loss}), flush=True)


main()
