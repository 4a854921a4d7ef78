"""`mini-vllm serve`: an OpenAI-compatible server around one model."""

from __future__ import annotations

import argparse
import asyncio
import os
import time

from mini_vllm.commands.engine_flags import add_engine_flags, engine_config
from mini_vllm.console import EXIT_NEGATIVE, EXIT_OK, byte_size, say

API_KEY_VARIABLE = "MINI_VLLM_API_KEY"
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "named_model", nargs="?", metavar="MODEL", help="the same as --model, for short"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 picks one")
    parser.add_argument(
        "--served-model-name", metavar="NAME", help="what clients call the model (None: its name)"
    )
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"key that clients must send; better set {API_KEY_VARIABLE}, which 'ps' does not show",
    )
    parser.add_argument(
        "--max-waiting",
        type=int,
        default=1024,
        help="sequences that may wait beyond --max-num-seqs; more are refused with 429",
    )
    parser.add_argument(
        "--max-body", type=byte_size, default="4MiB", help="largest request body, as 512KiB or 4MiB"
    )
    parser.add_argument(
        "--drain-seconds",
        type=float,
        default=30.0,
        help="how long running requests may go on after SIGTERM",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="web origin that browsers may call from, as https://example.org; may be repeated",
    )
    parser.add_argument(
        "--access-log", action="store_true", help="write a line to stderr for each request"
    )
    add_engine_flags(parser)


def run(args: argparse.Namespace) -> int:
    begun = time.monotonic()
    if args.named_model is not None:
        args.model = args.named_model
    engine_settings = engine_config(args)
    api_key = args.api_key
    if api_key is None:
        api_key = os.environ.get(API_KEY_VARIABLE) or None

    from mini_vllm.serve.config import ServerConfig, default_model_name
    from mini_vllm.serve.server import Server, is_loopback, listen, url_of

    listening = listen(args.host, args.port)
    local = is_loopback(listening)
    config = ServerConfig(
        served_model_name=args.served_model_name or default_model_name(args.model),
        api_key=api_key,
        max_waiting=args.max_waiting,
        max_body=args.max_body,
        drain_seconds=args.drain_seconds,
        allow_origins=tuple(args.allow_origin),
        hosts=LOOPBACK_HOSTS | {args.host.lower()} if local and not api_key else None,
        access_log=args.access_log,
    )
    if not local and not api_key:
        say(
            f"warning: anyone who reaches {args.host} can use this server; "
            f"set {API_KEY_VARIABLE} to ask for a key"
        )

    from mini_vllm import AsyncEngine

    engine = AsyncEngine(engine_settings)

    def ready() -> None:
        seconds = time.monotonic() - begun
        say(f"serving {config.served_model_name} at {url_of(listening)} (ready in {seconds:.1f} s)")

    server = Server(engine, config, ready)
    asyncio.run(server.serve(sockets=[listening]))
    if engine.errored:
        say("mini-vllm: the engine has failed; what went wrong is above")
        return EXIT_NEGATIVE
    return EXIT_OK
