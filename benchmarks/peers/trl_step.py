"""Times whole GRPO steps of TRL's GRPOTrainer with transformers' generation.

    benchmarks/.peers/torch/bin/python benchmarks/peers/trl_step.py --model=DIR
    benchmarks/.peers/torch/bin/python benchmarks/peers/trl_step.py --model=DIR \
        --eos_ids=26 --max_new=512

A step is all of it: sampling, reward, the reference's log-probs, the loss, one update
of AdamW; from the end of one step to the end of the next. float32 on the CPU. Chosen in
the peer's favour:

- no gradient checkpointing (TRL's default is on), as everything fits;
- one update of all completions (`num_iterations=1`), for which TRL computes no old
  log-probs, its gradient summed over pieces of 8 completions: they fit the processor's
  caches better than all 64 at once (25 s of processor time a step against 34 s);
  `--micro_batch=64` is one piece;
- `scaled_dot_product_attention`, the fused AdamW, no logging, no checkpoints, no
  progress bar;
- TRL's own fused head, which scores completion positions only, tile by tile;
- `loss_type="grpo"`: all loss types cost the same.

The end of a completion: TRL 1.16 takes the tokens of the model's generation config and
the tokenizer's own for the end, stops a row at any of them, and masks what comes after
the first one (it counts as a token of the completion). With --eos_ids all of them are
in the generation config and the tokenizer's is the first. Without, the tokenizer's end
token is one behind the vocabulary, which is never drawn.
"""

import argparse
import tempfile

import datasets
import protocol
import torch
import transformers
import trl


class _Clock(transformers.TrainerCallback):
    """Tells the stopwatch where steps end."""

    def __init__(self, stopwatch: protocol.Stopwatch):
        self.stopwatch = stopwatch

    def on_train_begin(self, args, state, control, **kwargs):
        self.stopwatch.start()

    def on_step_end(self, args, state, control, **kwargs):
        self.stopwatch.step()


def _trainer(
    args: argparse.Namespace, stopwatch: protocol.Stopwatch, output: str
) -> trl.GRPOTrainer:
    steps = args.warmups + args.repeats
    rows = args.num_prompts * args.group_size
    micro_batch = min(args.micro_batch, rows)
    vocab_size = protocol.vocab_size(args.model)
    ends = protocol.eos_ids(args.eos_ids, vocab_size)

    def reward(completions, completion_ids, **kwargs):
        stopwatch.rewards([len(ids) for ids in completion_ids])
        return [protocol.reward(text) for text in completions]

    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=protocol.tokenizer(vocab_size), padding_side="left"
    )
    # By `add_special_tokens`, as a new word where the end is behind the vocabulary.
    words.add_special_tokens({"pad_token": protocol.word(protocol.PAD_ID)})
    words.add_special_tokens({"eos_token": protocol.word(ends[0])})
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float32, attn_implementation="sdpa"
    )
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=ends, pad_token_id=protocol.PAD_ID
    )
    drawn = protocol.prompts(
        args.seed, steps * args.num_prompts, args.prompt_tokens, vocab_size
    )
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=reward,
        train_dataset=datasets.Dataset.from_dict(
            {"prompt": [protocol.to_text(prompt) for prompt in drawn]}
        ),
        processing_class=words,
        callbacks=[_Clock(stopwatch)],
        args=trl.GRPOConfig(
            output_dir=output,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=rows // micro_batch,
            num_generations=args.group_size,
            num_iterations=1,
            max_completion_length=args.max_new,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            cache_implementation=args.cache,
            beta=args.kl_coef,
            loss_type="grpo",
            learning_rate=args.learning_rate,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            max_steps=steps,
            shuffle_dataset=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=args.seed,
        ),
    )
    # It prints to standard output, where the JSON goes.
    trainer.remove_callback(transformers.PrinterCallback)
    if set(trainer.eos_token_ids) != set(ends):
        raise ValueError(f"TRL ends completions at {trainer.eos_token_ids}, not {ends}")
    if trainer.ref_model is None and args.kl_coef:
        raise ValueError("TRL made no reference model")
    return trainer


def main() -> None:
    """Trains for a few steps."""
    flags = protocol.step_parser(__doc__)
    flags.add_argument("--micro_batch", type=int, default=8, help="completions")
    flags.add_argument("--cache", help="TRL's cache_implementation; default its own")
    args = flags.parse_args()
    torch.set_num_threads(protocol.limit_threads(args.threads))
    stopwatch = protocol.Stopwatch()
    with tempfile.TemporaryDirectory() as output:
        _trainer(args, stopwatch, output).train()
    measured = {"threads": torch.get_num_threads(), **stopwatch.record(args.warmups)}
    protocol.emit(args, ["torch", "transformers", "trl"], measured)


if __name__ == "__main__":
    main()
