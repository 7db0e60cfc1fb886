#!/usr/bin/env python3
"""Fixtures that hold this suite's models to transformers', and the check in the other direction.

    parity.py --write DIR       random tiny models, saved by transformers, with what it computes of them
    parity.py --verify DIR...   model directories written by this suite load in transformers and agree
    parity.py --verify-adapter BASE ADAPTER MERGED    PEFT makes of base and adapter what stands merged
    parity.py --verify-events DIR    TensorBoard reads the event files of a run

A fixture is a Hugging Face directory beside `expected.safetensors` (logits, gradients, weights after ten
steps of AdamW) and `run.json` (documents, settings, losses, gradient norms). All in single precision on the
CPU, each document by itself; that a packed batch under a block-diagonal mask gives the same is asserted here.

The fixtures are made to be able to fail: weights of deviation 0.25, norms and biases far from their start,
an epsilon that is felt, positions beyond the original context. Versions are pinned in `make parity-venv`.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, Qwen2Config

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
BASE = dict(
    vocab_size=61,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    rms_norm_eps=2e-2,
    max_position_embeddings=160,
    bos_token_id=1,
    eos_token_id=2,
)
# name: configuration class, its fields, how transformers saves it
FIXTURES = {
    "llama-3.1": (
        LlamaConfig,
        dict(
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=16,
            # One frequency above the ramp, one on it, the others below.
            rope_parameters={**LLAMA3, "original_max_position_embeddings": 64},
        ),
        dict(dtype=torch.bfloat16, max_shard_size="12KB"),
    ),
    "llama-3.2-tied": (
        LlamaConfig,
        dict(
            num_attention_heads=8,
            num_key_value_heads=1,
            head_dim=6,
            tie_word_embeddings=True,
            rope_parameters={**LLAMA3, "factor": 32.0, "rope_theta": 1000.0},
        ),
        dict(dtype=torch.float32),
    ),
    "llama-2": (
        LlamaConfig,
        dict(
            num_attention_heads=4,
            num_key_value_heads=4,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
        dict(dtype=torch.float16),
    ),
    "qwen2.5-tied": (
        Qwen2Config,
        dict(
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=6,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        ),
        dict(dtype=torch.bfloat16),
    ),
    "qwen2.5": (
        Qwen2Config,
        dict(
            num_attention_heads=8,
            num_key_value_heads=1,
            head_dim=4,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
        dict(dtype=torch.float32, max_shard_size="16KB"),
    ),
    "linear": (
        LlamaConfig,
        dict(
            num_attention_heads=4,
            num_key_value_heads=2,
            num_hidden_layers=1,
            rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        ),
        dict(dtype=torch.float32),
    ),
    # Dynamic NTK scaling sets in beyond max_position_embeddings; up to there it must change nothing.
    "dynamic-ntk": (
        LlamaConfig,
        dict(
            num_attention_heads=4,
            num_key_value_heads=2,
            num_hidden_layers=1,
            rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
        ),
        dict(dtype=torch.float32),
    ),
}
DOCUMENTS = [5, 1, 131, 23]
STEPS, LR, BETAS, ADAM_EPS, DECAY, CLIP = 10, 1e-3, (0.9, 0.95), 1e-8, 0.1, 1.0


def build(kind, fields, seed):
    config = kind(**{**BASE, **fields})
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if name.endswith("norm.weight"):
                weight.copy_(1.0 + 0.3 * noise)
            else:
                weight.copy_((0.5 if name.endswith("bias") else 0.25) * noise)
    return model


def batch(seed, vocabulary):
    generator = torch.Generator().manual_seed(1000 + seed)
    total = sum(DOCUMENTS)
    tokens = torch.randint(vocabulary, (total,), generator=generator)
    # A mask with holes and weights between: what nothing predicts weighs nothing.
    weights = torch.tensor([0.0, 1.0, 1.0, 0.5, 2.0])[torch.randint(5, (total,), generator=generator)]
    at = 0
    for length in DOCUMENTS:
        weights[at] = 0.0
        at += length
    return tokens, weights


def separate(model, tokens):
    """Logits of each document by itself, one after another."""
    return torch.cat([model(input_ids=part[None]).logits[0] for part in tokens.split(DOCUMENTS)])


def packed(model, tokens):
    """The same from one batch: positions that start again, and a mask that keeps documents apart."""
    document = torch.repeat_interleave(torch.arange(len(DOCUMENTS)), torch.tensor(DOCUMENTS))
    positions = torch.cat([torch.arange(n) for n in DOCUMENTS])
    n = len(tokens)
    seen = (document[:, None] == document[None]) & (torch.arange(n)[:, None] >= torch.arange(n)[None])
    mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
    return model(input_ids=tokens[None], position_ids=positions[None], attention_mask=mask).logits[0]


def loss_of(logits, tokens, weights, count):
    logp = torch.log_softmax(logits[:-1].float(), -1).gather(1, tokens[1:, None])[:, 0]
    return -(weights[1:] * logp).sum() / count


def distance(a, b):
    return float((a - b).norm() / b.norm())


def write_fixture(name, place):
    kind, fields, saving = FIXTURES[name]
    seed = list(FIXTURES).index(name) + 1
    shutil.rmtree(place, ignore_errors=True)
    saving = dict(saving)
    build(kind, fields, seed).to(saving.pop("dtype")).save_pretrained(place, **saving)
    # What is trained is what the file says, in single precision.
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, attn_implementation="eager")
    tokens, weights = batch(seed, model.config.vocab_size)
    count = float((weights != 0).sum())

    decay = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [dict(params=decay, weight_decay=DECAY), dict(params=vectors, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=ADAM_EPS, foreach=False)
    out, losses, norms = {}, [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        logits = separate(model, tokens)
        loss = loss_of(logits, tokens, weights, count)
        loss.backward()
        if step == 0:
            together = packed(model, tokens)
            apart = distance(together.detach(), logits.detach())
            assert apart < 1e-5, f"{name}: packed and separate differ by {apart}"
            out["logits"] = logits.detach().clone()
            for key, p in model.named_parameters():
                out[f"gradient.{key}"] = p.grad.clone()
        losses.append(loss.item())
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)))
        optimizer.step()
    for key, p in model.named_parameters():
        out[f"trained.{key}"] = p.detach().clone()
    save_file({k: v.contiguous() for k, v in out.items()}, place / "expected.safetensors")
    run = dict(
        made_with=f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}",
        tokens=tokens.tolist(),
        weights=weights.tolist(),
        documents=DOCUMENTS,
        count=count,
        lr=LR,
        beta1=BETAS[0],
        beta2=BETAS[1],
        adam_eps=ADAM_EPS,
        weight_decay=DECAY,
        clip=CLIP,
        losses=losses,
        gradient_norms=norms,
    )
    (place / "run.json").write_text(json.dumps(run) + "\n")
    for file in place.iterdir():
        file.chmod(0o644)
    print(f"{name}: loss {losses[0]:.4f} -> {losses[-1]:.4f}, gradient norm {norms[0]:.3f}, packed apart {apart:.1e}")


def verify(place):
    """`logits.safetensors` (tokens, starts, logits) is what this suite computed of the model beside it."""
    AutoConfig.from_pretrained(place)
    model, info = AutoModelForCausalLM.from_pretrained(
        place, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    problems = {k: v for k, v in info.items() if v and k != "error_msgs"}
    assert not problems, f"{place}: {problems}"
    ours = load_file(place / "logits.safetensors")
    bounds = ours["starts"].tolist()
    with torch.no_grad():
        tokens = ours["tokens"].long()
        theirs = torch.cat([model(input_ids=tokens[None, a:b]).logits[0] for a, b in zip(bounds, bounds[1:])])
    apart = distance(ours["logits"], theirs)
    said = ""
    if (place / "tokenizer.json").exists():
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
        said = f", tokenizer of {len(tokenizer)}" + (" with chat template" if tokenizer.chat_template else "")
    print(f"{place}: logits apart {apart:.1e}{said}")
    return apart < 1e-5


def verify_adapter(base, adapter, merged):
    from peft import PeftModel

    load = lambda place: AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    with torch.no_grad():
        alone, whole = load(base), load(merged)
        tokens = torch.arange(40)[None] % whole.config.vocab_size
        before = alone(input_ids=tokens).logits.clone()
        adapted = PeftModel.from_pretrained(alone, adapter)(input_ids=tokens).logits
        want = whole(input_ids=tokens).logits
    apart, moved = distance(adapted, want), distance(before, want)
    print(f"{adapter}: PEFT's logits apart {apart:.1e} from the merged model's; the base's {moved:.1e}")
    return apart < 1e-5 < 1e-3 < moved


def verify_events(place):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(place), size_guidance={"tensors": 0, "scalars": 0})
    events.Reload()
    series = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    for tag, points in series.items():
        print(f"{place}: {tag}: steps {points[0].step} to {points[-1].step}, last {points[-1].value:.6g}")
    return len(series) > 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="DIR")
    parser.add_argument("--verify", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--verify-adapter", type=Path, nargs=3, metavar=("BASE", "ADAPTER", "MERGED"))
    parser.add_argument("--verify-events", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if arguments.write:
        for name in FIXTURES:
            write_fixture(name, arguments.write / name)
    for place in arguments.verify or []:
        if not verify(place):
            sys.exit(f"{place}: transformers computes other logits")
    if arguments.verify_adapter and not verify_adapter(*arguments.verify_adapter):
        sys.exit("PEFT makes something else of the adapter")
    if arguments.verify_events and not verify_events(arguments.verify_events):
        sys.exit("TensorBoard sees nothing")


if __name__ == "__main__":
    main()
