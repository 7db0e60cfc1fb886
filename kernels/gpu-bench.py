#!/usr/bin/env python3
"""PyTorch beside `make gpu-bench`: the same shapes and tokens, bf16, torch.compile, its flash attention and fused
AdamW; and transformers' decode loop is not tried, since it is no engine. Prints rows of the same table.

Skipped, and says so, where torch with CUDA is not installed.
"""

import statistics
import sys
import time

TOKENS = 4096
SHAPES = {
    "125 M": dict(v=32_000, c=768, f=2048, layers=12, heads=12, keys=12, d=64, tied=False),
    "1.5 B": dict(v=128_256, c=2048, f=8192, layers=20, heads=16, keys=8, d=128, tied=True),
    "Llama-3.1-8B": dict(v=128_256, c=4096, f=14_336, layers=32, heads=32, keys=8, d=128, tied=False),
}

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError as error:
    print(f"| PyTorch | NOT RUN | {error} | |")
    sys.exit(0)
if not torch.cuda.is_available():
    print("| PyTorch | NOT RUN | torch finds no CUDA device | |")
    sys.exit(0)


class Block(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        wide = (s["heads"] + 2 * s["keys"]) * s["d"]
        self.norm1, self.norm2 = nn.RMSNorm(s["c"], eps=1e-5), nn.RMSNorm(s["c"], eps=1e-5)
        self.qkv = nn.Linear(s["c"], wide, bias=False)
        self.out = nn.Linear(s["heads"] * s["d"], s["c"], bias=False)
        self.gate_up = nn.Linear(s["c"], 2 * s["f"], bias=False)
        self.down = nn.Linear(s["f"], s["c"], bias=False)

    def forward(self, x, cos, sin):
        s, t = self.s, x.shape[1]
        parts = [n * s["d"] for n in (s["heads"], s["keys"], s["keys"])]
        q, k, v = (y.view(1, t, -1, s["d"]).transpose(1, 2) for y in self.qkv(self.norm1(x)).split(parts, -1))
        q, k = (turn(y, cos, sin) for y in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=s["heads"] != s["keys"])
        x = x + self.out(y.transpose(1, 2).reshape(1, t, -1))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


def turn(x, cos, sin):
    low, high = x.chunk(2, -1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


class Llama(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.embedding = nn.Embedding(s["v"], s["c"])
        self.blocks = nn.ModuleList(Block(s) for _ in range(s["layers"]))
        self.norm = nn.RMSNorm(s["c"], eps=1e-5)
        self.head = nn.Linear(s["c"], s["v"], bias=False)
        if s["tied"]:
            self.head.weight = self.embedding.weight
        angle = torch.arange(TOKENS)[:, None] * 500_000.0 ** (-torch.arange(s["d"] // 2) / (s["d"] // 2))
        self.register_buffer("cos", angle.cos().bfloat16())
        self.register_buffer("sin", angle.sin().bfloat16())

    def forward(self, tokens):
        x = self.embedding(tokens[:, :-1])
        t = x.shape[1]
        for block in self.blocks:
            x = block(x, self.cos[:t], self.sin[:t])
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())


def train(name, shape):
    torch.manual_seed(1)
    with torch.device("cuda"):
        model = Llama(shape).bfloat16()
        tokens = torch.randint(shape["v"], (1, TOKENS))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.1, fused=True)
    loss_of = torch.compile(model)
    times = []
    for _ in range(9):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        loss = loss_of(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    rate = TOKENS / statistics.median(times[3:])
    # Weights and moments in bf16 without masters: less than what it stands beside keeps.
    print(f"| PyTorch {torch.__version__} training {name} | {rate:.0f} tokens/s | bf16, no masters | loss {loss.item():.3f} |")


for name, shape in SHAPES.items():
    try:
        train(name, shape)
    except torch.cuda.OutOfMemoryError as error:
        print(f"| PyTorch training {name} | NOT RUN | {str(error).splitlines()[0]} | |")
    sys.stdout.flush()
    torch._dynamo.reset()
    torch.cuda.empty_cache()
