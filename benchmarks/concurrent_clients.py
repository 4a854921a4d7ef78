"""Many streaming clients at once against the server: does any fail, starve, or leak a block?

The clients ask one after another, each as soon as the one before is admitted (its response
headers are there), and then all stream at the same time. So the order of admission is known, and
the order of first tokens can be compared with it. Standard library only.

    python benchmarks/concurrent_clients.py --clients 256

starts `mini-vllm serve` on a free port; `--url` measures a server that runs already. Exit code 1
says that a client failed, that blocks stayed in use, or that somebody was overtaken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

LEAK_SECONDS = 10.0
"""How long blocks may take to be free again after the last answer."""


@dataclass
class Client:
    """What one client saw. Times are seconds of `time.perf_counter()`."""

    number: int
    asked: float = 0.0
    times: list[float] = field(default_factory=list)
    tokens: int = 0
    failure: str | None = None

    @property
    def time_to_first_token(self) -> float:
        return self.times[0] - self.asked

    @property
    def time_per_output_token(self) -> float:
        return (self.times[-1] - self.times[0]) / max(self.tokens - 1, 1)


def address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80


async def stream(client: Client, url: str, body: bytes, admitted: asyncio.Event) -> None:
    """One request from its first byte to `[DONE]`; `admitted` is set once the headers are there."""
    try:
        await _stream(client, url, body, admitted)
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        client.failure = f"{type(error).__name__}: {error}"
    finally:
        admitted.set()


async def _stream(client: Client, url: str, body: bytes, admitted: asyncio.Event) -> None:
    host, port = address_of(url)
    reader, writer = await asyncio.open_connection(host, port)
    with contextlib.closing(writer):
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        client.asked = time.perf_counter()
        writer.write(head.encode() + body)
        status = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n", 1)[0]
        admitted.set()
        if b" 200 " not in status:
            raise ValueError(status.decode())
        async for event in events(reader):
            if event == "[DONE]":
                return
            chunk = json.loads(event)
            if "error" in chunk:
                raise ValueError(chunk["error"]["message"])
            if chunk["choices"]:
                client.times.append(time.perf_counter())
            else:
                client.tokens = chunk["usage"]["completion_tokens"]
        raise ValueError("the stream ended early")


async def events(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    """The data of each server-sent event of a chunked response."""
    pending = b""
    while size := int(await reader.readline(), 16):
        pending += await reader.readexactly(size)
        await reader.readexactly(2)
        *whole, pending = pending.split(b"\n\n")
        for event in whole:
            yield event.removeprefix(b"data: ").decode()


async def run_clients(url: str, args: argparse.Namespace) -> list[Client]:
    clients = [Client(number) for number in range(args.clients)]
    tasks = []
    for client in clients:
        body = {
            "prompt": [(client.number * 31 + i) % 200 + 1 for i in range(args.prompt_tokens)],
            "max_tokens": args.max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            # One event for each token, whether or not it completes a character.
            "return_token_ids": True,
            "stream_options": {"include_usage": True},
        }
        admitted = asyncio.Event()
        data = json.dumps(body).encode()
        tasks.append(asyncio.create_task(stream(client, url, data, admitted)))
        await admitted.wait()
    await asyncio.gather(*tasks)
    return clients


async def scrape(url: str, name: str) -> float:
    """The value of a metric of the server."""
    host, port = address_of(url)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    found = re.search(rf"^{name}\{{[^}}]*\}} (\S+)", text, re.MULTILINE)
    if found is None:
        raise SystemExit(f"{url}/metrics has no {name}")
    return float(found[1])


async def kv_cache_usage_afterwards(url: str) -> float:
    """The share of blocks still in use; more than 0 is a leak."""
    deadline = time.perf_counter() + LEAK_SECONDS
    while (usage := await scrape(url, "vllm:kv_cache_usage_perc")) > 0:
        if time.perf_counter() > deadline:
            break
        await asyncio.sleep(0.05)
    return usage


def overtaken(clients: list[Client]) -> int:
    """The most later clients that anybody saw served with a first token before themselves."""
    firsts = [client.times[0] for client in clients if client.times]
    return max(
        (sum(later < first for later in firsts[i + 1 :]) for i, first in enumerate(firsts)),
        default=0,
    )


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p90 and p99 in milliseconds."""
    ordered = sorted(values)
    return {
        f"p{p}": round(ordered[min(len(ordered) * p // 100, len(ordered) - 1)] * 1000, 2)
        for p in (50, 90, 99)
        if ordered
    }


async def measure(url: str, args: argparse.Namespace) -> dict[str, Any]:
    began = time.perf_counter()
    clients = await run_clients(url, args)
    seconds = time.perf_counter() - began
    served = [client for client in clients if client.failure is None]
    tokens = sum(client.tokens for client in served)
    return {
        "clients": len(clients),
        "failures": [f"client {c.number}: {c.failure}" for c in clients if c.failure is not None],
        "short_answers": sum(client.tokens != args.max_tokens for client in served),
        "most_overtaken": overtaken(clients),
        "kv_cache_usage_afterwards": await kv_cache_usage_afterwards(url),
        "seconds": round(seconds, 3),
        "output_tokens_per_second": round(tokens / seconds, 1),
        "time_to_first_token_ms": percentiles([c.time_to_first_token for c in served]),
        "time_per_output_token_ms": percentiles([c.time_per_output_token for c in served]),
    }


@contextlib.contextmanager
def server(args: argparse.Namespace) -> Iterator[str]:
    """A server of our own, on a free port; yields its URL."""
    command = [sys.executable, "-m", "mini_vllm.cli", "serve", args.model, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"at (http://\S+) \(ready", line):
                yield found[1]
                return
            print(line, end="", file=sys.stderr)
        raise SystemExit(2)
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--url", help="server to measure, as http://127.0.0.1:8000")
    parser.add_argument("--model", default="smollm2-135m", help="model of a server of our own")
    parser.add_argument("--clients", type=int, default=256)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()

    with contextlib.nullcontext(args.url) if args.url else server(args) as url:
        figures = asyncio.run(measure(url, args))
    if args.json:
        print(json.dumps(figures, indent=2))
    else:
        for name, value in figures.items():
            print(f"{name:28} {value}")
    # Tokens of one step are written one after another: arriving in another order is no overtaking
    # unless it goes beyond the batch, which max_num_seqs bounds.
    fair = figures["most_overtaken"] <= args.clients // 8
    well = not figures["failures"] and not figures["short_answers"]
    return 0 if well and fair and figures["kv_cache_usage_afterwards"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
