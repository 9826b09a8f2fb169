"""Times transformers' `generate`, greedy and sampled.

    benchmarks/.peers/torch/bin/python benchmarks/peers/transformers_generate.py \
        --model=DIR --save=greedy.npz

float32 on the CPU, or what --device=cuda --dtype=bfloat16 ask for; one padded batch,
every row decoded to its full length: no token ends a completion. Chosen in the peer's
favour:

- `scaled_dot_product_attention`, the fastest attention torch has for a CPU;
- the growing cache, which is the default (`--cache=static` to compare: it attends to
  all slots from the first step on, and its compiled form is for accelerators);
- prompts of one length, with an attention mask of ones, from which transformers takes
  the path without a mask;
- `torch.inference_mode`, which `generate`'s own `no_grad` does not reach.

"Sampled" draws from the whole distribution: temperature 1, no top-k, no top-p. --save
keeps the prompts and the greedy completions, to be compared with another engine's.
"""

import time

import numpy as np
import protocol
import torch
import transformers


def _generate(
    model: transformers.PreTrainedModel, prompts: torch.Tensor, **options
) -> np.ndarray:
    with torch.inference_mode():
        rows = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            eos_token_id=None,
            pad_token_id=protocol.PAD_ID,
            **options,
        )
    return rows[:, prompts.shape[1] :].cpu().numpy()


def main() -> None:
    """Generates, a few times greedily and a few times sampled."""
    flags = protocol.parser(__doc__)
    flags.add_argument("--batch", type=int, default=32)
    flags.add_argument("--max_new", type=int, default=256)
    flags.add_argument("--cache", choices=["dynamic", "static"], default="dynamic")
    flags.add_argument("--device", default="cpu")
    flags.add_argument("--dtype", default="float32")
    flags.add_argument("--save", help="npz file for `prompts` and `greedy`")
    args = flags.parse_args()
    torch.set_num_threads(protocol.limit_threads(args.threads))
    torch.manual_seed(args.seed)

    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.model, dtype=getattr(torch, args.dtype), attn_implementation="sdpa"
    )
    model = model.to(args.device).eval()
    # What the directory says of sampling and of its end is not asked for here.
    model.generation_config = transformers.GenerationConfig()
    shape = (args.batch, args.prompt_tokens)
    vocab_size = protocol.vocab_size(args.model)
    prompts = torch.from_numpy(protocol.prompts(args.seed, *shape, vocab_size))
    prompts = prompts.to(args.device)
    length = {"min_new_tokens": args.max_new, "max_new_tokens": args.max_new}
    cache = {"cache_implementation": args.cache}
    ways = {
        "greedy": {"do_sample": False},
        "sampled": {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0},
    }
    measured: dict = {
        "threads": torch.get_num_threads(),
        "attention": model.config._attn_implementation,
        "completion_tokens": args.batch * args.max_new,
        "seconds": {},
    }
    for way, options in ways.items():
        seconds = []
        for _ in range(args.warmups + args.repeats):
            start = time.perf_counter()
            tokens = _generate(model, prompts, **options, **length, **cache)
            seconds.append(time.perf_counter() - start)
        if tokens.shape != (args.batch, args.max_new):
            raise ValueError(f"{way}: {tokens.shape} tokens came back")
        measured["seconds"][way] = seconds[args.warmups :]
        if way == "greedy" and args.save:
            np.savez(args.save, prompts=prompts.cpu().numpy(), greedy=tokens)
    protocol.emit(args, ["torch", "transformers"], measured)


if __name__ == "__main__":
    main()
