"""Every closed choice a configuration can name, one enum each.

These sit below both `config` and the kernels, so that the kernels need not know the
configuration. A member's value is what a user writes: `--config.objective.loss=dapo`.
"""

import enum


class Dtype(enum.Enum):
    """Number format of activations and of the rollout's weights."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Remat(enum.Enum):
    """What the backward pass recomputes instead of storing."""

    NONE = "none"  # store everything: fastest, most memory
    DOTS = "dots"  # store products with weights, and attention; recompute the rest
    ATTENTION = "attention"  # store what goes into attention and comes out
    FULL = "full"  # store the input of every block and recompute the rest


class Loss(enum.Enum):
    """A published policy-gradient loss: a surrogate with an aggregation."""

    GRPO = "grpo"
    BNPO = "bnpo"
    DR_GRPO = "dr_grpo"
    DAPO = "dapo"
    GSPO = "gspo"
    CISPO = "cispo"
    SAPO = "sapo"
    LUSPO = "luspo"


class Aggregation(enum.Enum):
    """How per-token losses become one number."""

    PUBLISHED = "published"  # the one that belongs to the chosen loss
    SEQUENCE_MEAN = "sequence_mean"  # mean over tokens, then over completions
    TOKEN_MEAN = "token_mean"  # mean over all tokens of the batch
    CONSTANT = "constant"  # sum / (completions * max_completion_tokens)
    SEQUENCE_SUM = "sequence_sum"  # sum over tokens, then mean over completions
    GROUP_TOKEN_MEAN = "group_token_mean"  # mean over a group's tokens, then groups


class Advantage(enum.Enum):
    """What a reward is measured against."""

    GROUP_STD = "group_std"  # (reward - group mean) / group std
    GROUP_MEAN = "group_mean"  # reward - group mean
    BATCH_STD = "batch_std"  # (reward - group mean) / batch std
    LEAVE_ONE_OUT = "leave_one_out"  # reward - mean of the group's others


class Divergence(enum.Enum):
    """Estimator of KL(policy || reference) from one sampled token."""

    K1 = "k1"
    K2 = "k2"
    K3 = "k3"


class Schedule(enum.Enum):
    """Learning rate after the warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class Answer(enum.Enum):
    """What the answer to a problem of the built-in task states."""

    LAST = "last"  # the last result: a guess is right once in `modulus` times
    ALL = "all"  # every running result: there is nothing to guess


class Order(enum.Enum):
    """In which order training prompts come."""

    SHUFFLED = "shuffled"  # a new permutation in each epoch
    FILE = "file"  # as they are in the file, the same in each epoch
    TIERS = "tiers"  # from the easiest tier to the hardest, the same in each epoch
    # The same, with tiers that are measured: how often the starting policy is right.
    PASS_RATE = "pass_rate"


class ZeroVariance(enum.Enum):
    """What becomes of a group whose completions are all as right as each other."""

    KEEP = "keep"  # it is trained on; other rewards may still differ within it
    DROP = "drop"  # it has no part in the loss, nor in what the loss is divided by
    REFILL = "refill"  # the same, and groups of other prompts are made in its place


class Best(enum.Enum):
    """Which checkpoint of those that were validated is the best."""

    HIGHEST = "highest"  # of the metric
    # The first within one standard error of the highest: what the data cannot tell
    # apart is decided for less training.
    ONE_STANDARD_ERROR = "one_standard_error"


class Overlong(enum.Enum):
    """What happens to a prompt longer than `max_prompt_tokens`."""

    DROP = "drop"  # leave it out and count it
    ERROR = "error"  # stop and name it


class Attention(enum.Enum):
    """Implementation of attention over whole rows, in training and scoring."""

    AUTO = "auto"  # the fused kernel of the hardware, else xla_chunked
    XLA = "xla"  # scores of [B, H, T, T]: the reference
    XLA_CHUNKED = "xla_chunked"  # blocks of scores: memory grows with T; anywhere
    CUDNN = "cudnn"  # NVIDIA GPUs, bfloat16
    SPLASH = "splash"  # TPUs


class GuidanceLength(enum.Enum):
    """What moves the number of tokens that guided completions start from."""

    FIXED = "fixed"
    LINEAR = "linear"  # a straight line to the final length
    CONCAVE = "concave"  # slowly at first
    STEPWISE = "stepwise"  # times a factor, every so many steps
    COSINE = "cosine"  # half a cosine wave
    ADDITIVE = "additive"  # one delta down where the reward rises, else one up
    MULTIPLICATIVE = "multiplicative"  # times recent reward over the latest
    CYCLE = "cycle"  # the same, at every third step only


class SignalRows(enum.Enum):
    """The completions whose reward moves the guidance length."""

    UNGUIDED = "unguided"  # what the policy can do alone
    ALL = "all"


class OnZero(enum.Enum):
    """What a reward of 0 does to a guidance length that follows a ratio of rewards."""

    HOLD = "hold"
    INCREASE = "increase"  # as the smallest positive reward would


class Tie(enum.Enum):
    """What a reward that equals the recent ones does to the additive length."""

    INCREASE = "increase"
    HOLD = "hold"
    DECREASE = "decrease"


class GuidanceLoss(enum.Enum):
    """What the loss does with guidance tokens; the policy always attends to them."""

    MASK = "mask"  # leave them out
    INCLUDE = "include"  # as if the policy had drawn them
    OFF_POLICY = "off_policy"  # imitate them, most where they are unlikely


class Script(enum.Enum):
    """The letters of a language, by the word that begins their names in Unicode."""

    LATIN = "latin"
    CYRILLIC = "cyrillic"
    ARABIC = "arabic"
    DEVANAGARI = "devanagari"
    HANGUL = "hangul"
    CJK = "cjk"  # Chinese characters; kana are another script


class Retriever(enum.Enum):
    """Where the documents of a query come from."""

    BM25 = "bm25"  # an index in this process, by words
    DENSE = "dense"  # vectors on the devices, by an encoder
    HTTP = "http"  # a server


class RequestShape(enum.Enum):
    """What a retrieval server is asked, and how it answers."""

    SEARCH_R1 = "search_r1"  # {"queries", "topk"} -> {"result": [[{"document"}]]}
    DAVID_GRPO = "david_grpo"  # {"query", "tok_k"} -> {"documents", "scores"}


class Similarity(enum.Enum):
    """How near the vectors of a query and of a document are."""

    COSINE = "cosine"
    DOT = "dot"


class ExpertLoss(enum.Enum):
    """What the loss does with tokens that an expert wrote in the policy's place."""

    # As if the policy had written them; with one update a rollout their ratio is 1.
    ON_POLICY = "on_policy"
    OFF_POLICY = "off_policy"  # -p / (p + shaping_gamma) A, without a ratio
    # Their ratio is to the log-probs of the expert, which its file must bring.
    IMPORTANCE = "importance"


class Tags(enum.Enum):
    """How a search agent marks its thoughts, queries and answer: `rewards/tags.py`."""

    SEARCH = "search"  # <search>, <information>, <answer>
    COMPACT = "compact"  # the same, with documents as short as can be
    DAVID = "david"  # <begin_search>, <search_result>, a box; as in David-GRPO


class AnswerScore(enum.Enum):
    """How an answer is compared with those that are right."""

    EXACT = "exact"  # 1 where it is one of them, after normalisation
    F1 = "f1"  # overlap of words with the nearest of them


class CostPenalty(enum.Enum):
    """What a right completion pays for costs that are not free, from 0 to 1."""

    COST = "cost"  # their share of `max_cost`, at most 1
    RANK = "rank"  # the share of its group's other right ones that were cheaper
