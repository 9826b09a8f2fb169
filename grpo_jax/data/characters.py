"""The built-in tokenizers, as real `tokenizers` objects in memory."""

import string

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from grpo_jax.data.world_words import WORDS

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
SEARCH_TAGS = (*TAGS, "<search>", "</search>", "<information>", "</information>")
# Name of a tokenizer to what is one token in it besides the characters. An agent's are
# apart: more ids would be another model.
TOKENS_OF = {
    "characters": TAGS,
    "search-characters": SEARCH_TAGS,
    "search-words": (*SEARCH_TAGS, *WORDS),
}
# Newline, then the printable ASCII characters in the order of their codes.
ALPHABET = "\n" + "".join(
    sorted(set(string.printable) - set(string.whitespace) | {" "})
)

# What `tokenizer_config.json` says of it. Special tokens are split like any text, so
# that "<eos>" in a question stays the five characters it is.
SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": PAD,
    "eos_token": EOS,
    "unk_token": UNKNOWN,
    "split_special_tokens": True,
    "clean_up_tokenization_spaces": False,
}


def build(name: str = "characters") -> tokenizers.Tokenizer:
    """Returns a tokenizer of `TOKENS_OF`: the longest that fits, else one a character.

    Tags and words are ordinary added tokens, not special ones: decoding keeps them.
    """
    added = TOKENS_OF[name]
    tokens = (PAD, EOS, UNKNOWN, *added, *ALPHABET)
    vocabulary = {token: id for id, token in enumerate(tokens)}
    model = models.WordLevel(vocabulary, unk_token=UNKNOWN)
    tokenizer = tokenizers.Tokenizer(model)
    every_character = tokenizers.Regex(r"[\s\S]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(every_character, "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([PAD, EOS, UNKNOWN])
    tokenizer.add_tokens(
        [tokenizers.AddedToken(each, normalized=False, special=False) for each in added]
    )
    return tokenizer
