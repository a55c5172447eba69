"""The shape of a LLaMA-2 model: defines dim, kv_dim, n_rep and their kin for every room."""
from dataclasses import dataclass
from enum import IntEnum


class KvFormat(IntEnum):
    """Widths of K's and V's elements in the cache."""
    K16V16 = 0
    K16V8  = 1  #: V in 8 bits
    K8V8   = 3

    @property
    def k_bits(self) -> int:
        return 8 if self & 2 else 16

    @property
    def v_bits(self) -> int:
        return 8 if self & 1 else 16


@dataclass(frozen=True)
class ModelConfig:
    """Shapes and constants of one checkpoint. Ref: Touvron et al. 2023, Llama 2."""
    dim: int             #: width of the residual stream
    hidden_dim: int      #: width of the feed-forward layer
    n_layers: int
    n_heads: int         #: query heads
    n_kv_heads: int      #: key/value heads; divides n_heads
    head_dim: int        #: elements per head; dim / n_heads where the checkpoint does not say
    vocab_size: int
    seq_len: int         #: longest context, in positions
    norm_epsilon: float = 1e-5
    rope_theta: float = 10000.0
    tied: bool = True    #: the classifier is the embedding
    rope_factors: tuple[float, ...] = ()    #: divides RoPE's frequencies, one factor per pair; empty: as rope_theta
                                            #: says
    kv: KvFormat = KvFormat.K16V16          #: how the cache is kept; nothing of the checkpoint
    true_dim: int = 0           #: dim of the checkpoint, where zeros were added to reach ``dim``; 0: the same
    true_head_dim: int = 0      #: likewise of head_dim

    @property
    def norm_dim(self) -> int:
        """Elements that RMSNorm averages over; added zeros do not count."""
        return self.true_dim or self.dim

    @property
    def score_dim(self) -> int:
        """Elements of a head that count for RoPE's frequencies and the scores' scale."""
        return self.true_head_dim or self.head_dim

    @property
    def q_dim(self) -> int:
        """Rows of wq and columns of wo."""
        return self.n_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Rows of wk and wv; elements of a K or V row in the cache."""
        return self.n_kv_heads * self.head_dim

    @property
    def n_rep(self) -> int:
        """Query heads that share one key/value head."""
        return self.n_heads // self.n_kv_heads
