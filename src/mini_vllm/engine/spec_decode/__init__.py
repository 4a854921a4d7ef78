"""Speculative decoding: several tokens guessed cheaply, verified by the model in one step.

A proposer guesses what comes after the tokens of a sequence: `ngram_proposer` from the sequence's
own text, `draft_model` with a smaller model. The scheduler treats the guesses as tokens that the
request lacks, the flat batch computes them like any others, and `rejection_sampler` keeps as many
as the model itself would have produced.

Invariant: what is generated follows the model's own distribution whatever is guessed; guesses
decide only how many tokens a step yields.

Source: Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding"
(arXiv 2211.17192); vLLM v0.22.1 `vllm/v1/spec_decode/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from mini_vllm.core.scheduler import SchedulerOutput
    from mini_vllm.engine.input_batch import StepInputs


class Proposer(Protocol):
    """Guesses tokens. Called in every step, with every request that the step computed.

    Attributes:
        probabilities: for the rows whose last drafts were drawn at random, the distributions they
            were drawn from, float32 [drafts, vocab]; rows that are not in it were guessed outright.
    """

    probabilities: dict[int, torch.Tensor]

    def propose(self, scheduled: SchedulerOutput, inputs: StepInputs) -> list[list[int]]:
        """Drafts for each request of the step, in batch order; none for one that did not sample.

        The rows hold the tokens sampled in this step; drafts may be written to the entries behind
        them.
        """
