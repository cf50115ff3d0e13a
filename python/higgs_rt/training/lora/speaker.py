"""The speaker-consistency term: whether predicted columns stay with the speaker of the target.

A speaker embedding by statistics pooling, as x-vectors pool frames (Snyder et al. 2018, "X-Vectors:
Robust DNN Embeddings for Speaker Recognition"), compared by cosine, as the speaker-consistency loss
of YourTTS (Casanova et al. 2022) does. Their networks are replaced by the codec's fixed codebooks,
so that no further model is needed and all is differentiable:

    z_k(v)   vector of code v in codebook k, each channel with mean 0 and deviation 1 over the codes
    p_k(t,v) probability of code v at label t of a clip, among codes (BOS and EOS left out);
             for the target: 1 for the label, else 0
    mean_k   = mean over t of sum over v of p_k(t,v) z_k(v)
    dev_k    = sqrt(mean over t of sum over v of p_k(t,v) z_k(v)^2 - mean_k^2 + 1e-4)
    s        = all mean_k and all dev_k - 1, one after another
    term     = 1 - cos(s predicted, s target), the mean over the trained clips of a step

So the moments are those that speech drawn from the prediction has: a calibrated model that is
unsure of each sound, but has the speaker's distribution over a clip, costs nothing.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from higgs_rt.codec.config import CodecConfig
from higgs_rt.codec.tensor_store import TensorStore, load_tensors
from higgs_rt.errors import CheckpointError

_FLOOR = 1e-4  # of a variance, where the slope of the root has no bound


class SpeakerTerm(nn.Module):
    """The term for given codebooks."""

    codes: Tensor  # float32 [K, V, D], z above

    def __init__(self, codebooks: Tensor) -> None:
        """codebooks [K, V, D]: what the codes of each codebook stand for."""
        super().__init__()
        codebooks = codebooks.float()
        spread = codebooks.std(1, correction=0, keepdim=True).clamp(min=1e-6)
        codes = (codebooks - codebooks.mean(1, keepdim=True)) / spread
        self.register_buffer("codes", codes, persistent=False)

    @staticmethod
    def load(codec_dir: Path, num_codebooks: int, num_codes: int) -> SpeakerTerm:
        """With the codebooks of a codec; CheckpointError if they are not the model's."""
        store = TensorStore.open(codec_dir)
        config = CodecConfig.read(codec_dir / "config.json", store.shapes)
        if (config.num_codebooks, config.codebook_size) != (num_codebooks, num_codes):
            raise CheckpointError(
                f"[{codec_dir}] expected {num_codebooks} codebooks of {num_codes} codes as the "
                f"model has, got {config.num_codebooks} of {config.codebook_size}"
            )
        shape = (config.codebook_size, config.codebook_dim)
        names = {f"quantizer.quantizers.{k}.codebook.embed": shape for k in range(num_codebooks)}
        tensors = load_tensors(store, config, names)
        return SpeakerTerm(torch.stack([tensors[name] for name in names]))

    def forward(self, logits: Tensor, labels: Tensor, clips: Tensor) -> Tensor:
        """Sum over clips of 1 - cos, a scalar.

        logits [N, K, V or more], of which the first V are codes; labels int64 [N, K], where only
        0..V-1 count; clips int64 [N]: the clip of a row, any numbers.
        """
        with torch.autocast(logits.device.type, enabled=False):
            count = self.codes.shape[1]
            valid = ((labels >= 0) & (labels < count)).float()
            names, clip = torch.unique(clips, return_inverse=True)
            member = F.one_hot(clip, len(names)).float().t()  # [clips, N]; a product keeps order
            weight = (member @ valid).clamp(min=1.0)
            predicted = logits[..., :count].float().softmax(-1)
            wanted = torch.zeros_like(predicted)
            wanted.scatter_(-1, labels.clamp(0, count - 1)[..., None], 1.0)
            ours, theirs = (
                self._embedding(p * valid[..., None], member, weight) for p in (predicted, wanted)
            )
            return (1.0 - F.cosine_similarity(ours, theirs, dim=1)).sum()

    def _embedding(self, shares: Tensor, member: Tensor, weight: Tensor) -> Tensor:
        """s of each clip, [clips, K * 2 * D]; shares [N, K, V], weight [clips, K] labels."""
        total = (member @ shares.flatten(1)).reshape(-1, *shares.shape[1:])
        shares = total / weight[..., None]
        mean = torch.einsum("ckv,kvd->ckd", shares, self.codes)
        square = torch.einsum("ckv,kvd->ckd", shares, self.codes.square())
        deviation = ((square - mean.square()).clamp(min=0.0) + _FLOOR).sqrt()
        return torch.cat([mean, deviation - 1.0], dim=2).flatten(1)
