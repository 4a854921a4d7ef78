"""Prompts on which guessing from the prompt pays: the answer repeats much of what was given.

Code that is to be edited, and text that is to be summarised in its own words. Each is one turn of a
chat, answered greedily; what an engine gains by speculation is the ratio of its output rate to its
own without.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from mini_vllm.core.sampling_params import SamplingParams
from mini_vllm.engine.stats import SpecDecodingStats, StepStats
from mini_vllm.errors import MiniVLLMError

if TYPE_CHECKING:
    from mini_vllm.engine.llm import LLM

NGRAM = {
    "method": "ngram",
    "num_speculative_tokens": 6,
    "prompt_lookup_min": 2,
    "prompt_lookup_max": 4,
}
"""The setting that is measured."""

_INVOICE = '''\
def invoice_total(lines, tax_rate, discount=0.0):
    """Sum of the lines after discount, with tax."""
    total = 0.0
    for line in lines:
        price = line["price"]
        quantity = line["quantity"]
        total += price * quantity
    if discount > 0:
        total = total * (1 - discount)
    total = total * (1 + tax_rate)
    return round(total, 2)
'''

_STACK = """\
class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        if not self.items:
            raise IndexError("the stack is empty")
        return self.items.pop()

    def peek(self):
        if not self.items:
            raise IndexError("the stack is empty")
        return self.items[-1]

    def __len__(self):
        return len(self.items)
"""

_CONFIG = """\
server:
  host: 127.0.0.1
  port: 8000
  workers: 4
  timeout_seconds: 30
database:
  host: 127.0.0.1
  port: 5432
  name: orders
  pool_size: 10
  timeout_seconds: 30
cache:
  host: 127.0.0.1
  port: 6379
  ttl_seconds: 600
"""

_HARBOUR = (
    "The harbour of Lind was built in 1871, when the railway reached the coast. For thirty "
    "years it shipped timber from the northern forests to the shipyards of the south. When "
    "the forests were exhausted, the harbour turned to fish, and by 1920 more than two "
    "hundred boats landed their catch there every morning. A storm in the winter of 1953 "
    "destroyed the eastern pier and forty boats. The town rebuilt the pier in concrete, but "
    "most of the fishermen had already moved to larger ports. Today the harbour of Lind is "
    "used by sailing boats in summer, and the old timber sheds have become a museum that "
    "thirty thousand people visit every year."
)

_CACHE = (
    "A key-value cache keeps the keys and values of tokens that a language model has already "
    "processed, so that each new token needs only one pass over the model. The cache grows "
    "with the length of the text and with the number of requests. If every request reserves "
    "memory for the longest possible text, most of that memory is never used. Paged attention"
    " divides the cache into blocks of a fixed number of tokens. A request takes a block when"
    " it needs one and gives all of its blocks back when it ends. Blocks with the same "
    "content can be shared between requests that begin with the same text. As a result, more "
    "requests fit into the same memory."
)

PROMPTS = {
    "code: rename": f"Repeat this function with the variable `total` renamed to `amount`. "
    f"Give only the code.\n\n```python\n{_INVOICE}```",
    "code: add types": f"Rewrite this function with type annotations on the parameters. "
    f"Give only the code.\n\n```python\n{_INVOICE}```",
    "code: add a method": f"Add a method `clear` to this class and give the whole class.\n\n"
    f"```python\n{_STACK}```",
    "code: change a value": f"Change the database port to 5433 and give the whole file.\n\n"
    f"```yaml\n{_CONFIG}```",
    "text: summary": f"Summarise this text in three sentences, quoting it where possible:\n\n"
    f'"{_HARBOUR}"',
    "text: key points": f'List the key points of this text, in its own words:\n\n"{_CACHE}"',
    "text: correct": f"Correct the spelling of this text and give all of it:\n\n"
    f'"{_HARBOUR.replace("harbour", "harbor").replace("exhausted", "exausted")}"',
}
"""What is asked, by what kind of task it is."""


@dataclass(frozen=True)
class Gain:
    """One prompt, answered several times with and without speculation.

    `ratio` is the median of the paired ratios of output rates; `rate` is that with speculation, in
    tokens/s, the first token's time included.
    """

    name: str
    output_tokens: int
    ratio: float
    rate: float
    drafts: SpecDecodingStats


class _Asked:
    """An engine that is asked one thing after the other."""

    def __init__(self, llm: LLM, max_tokens: int) -> None:
        self._llm = llm
        self._params = SamplingParams(temperature=0, max_tokens=max_tokens)
        self.drafts = SpecDecodingStats()
        llm.add_observer(self._observe)

    def __call__(self, prompt: str) -> tuple[float, list[int]]:
        """Seconds and tokens of the answer, from an empty prefix cache."""
        self._llm.reset_prefix_cache()
        self.drafts = SpecDecodingStats()
        began = perf_counter()
        [output] = self._llm.chat([{"role": "user", "content": prompt}], self._params)
        return perf_counter() - began, output.outputs[0].token_ids

    def _observe(self, stats: StepStats) -> None:
        if stats.spec_decoding is not None:
            self.drafts.add(stats.spec_decoding)


def measure_gain(
    plain: LLM, speculating: LLM, pairs: int, max_tokens: int = 200, exact: bool = False
) -> list[Gain]:
    """Answers each of `PROMPTS` by both engines in turn, `pairs` times after one that warms up.

    Args:
        exact: whether the answers must be equal, as they are in float32.

    Raises:
        MiniVLLMError: they are not.
    """
    without, with_drafts = _Asked(plain, max_tokens), _Asked(speculating, max_tokens)
    gains = []
    for name, prompt in PROMPTS.items():
        ratios, rates = [], []
        for pair in range(pairs + 1):
            seconds, tokens = without(prompt)
            their_seconds, their_tokens = with_drafts(prompt)
            if exact and tokens != their_tokens:
                raise MiniVLLMError(f"{name}: speculation changed the answer")
            if pair:
                rates.append(len(their_tokens) / their_seconds)
                ratios.append(rates[-1] / (len(tokens) / seconds))
        gains.append(
            Gain(name, len(their_tokens), median(ratios), median(rates), with_drafts.drafts)
        )
    return gains
