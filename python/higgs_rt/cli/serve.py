"""`higgs-rt serve`: the HTTP server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from higgs_rt.cli.console import (
    AdapterOption,
    AdaptersOption,
    CodecOption,
    DeviceOption,
    ModelOption,
    ThreadsOption,
    console,
    named_adapters,
    reports_errors,
    say,
)
from higgs_rt.errors import HiggsError, InvalidRequestError, VoiceError

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
KEYS_VARIABLE = "HIGGS_RT_API_KEYS"


@reports_errors
def serve(
    host: Annotated[str, typer.Option("--host", help="0.0.0.0 is every address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 8000,
    model: ModelOption = None,
    codec: CodecOption = None,
    adapter: AdapterOption = None,
    adapters: AdaptersOption = None,
    device: DeviceOption = "cpu",
    devices: Annotated[
        str | None,
        typer.Option("--devices", help="A process for each, e.g. 0,1 or cpu,cpu; not --device."),
    ] = None,
    threads: ThreadsOption = 0,
    backend: Annotated[str, typer.Option("--backend", help="native or tensorrt.")] = "native",
    max_batch: Annotated[int, typer.Option("--max-batch", help="Requests that run.")] = 32,
    max_queue: Annotated[int, typer.Option("--max-queue", help="Requests that wait.")] = 256,
    model_name: Annotated[str, typer.Option("--model-name", help="In /v1/models.")] = (
        "higgs-audio-v2"
    ),
    api_key_file: Annotated[
        Path | None,
        typer.Option("--api-key-file", help=f"A key on each line; also ${KEYS_VARIABLE}."),
    ] = None,
    rate_limit: Annotated[
        int, typer.Option("--rate-limit", help="Requests a minute of a client; 0: no limit.")
    ] = 0,
    max_body_mb: Annotated[int, typer.Option("--max-body-mb", min=1)] = 16,
    max_input_chars: Annotated[int, typer.Option("--max-input-chars", min=1)] = 20_000,
    cors_origin: Annotated[
        list[str] | None, typer.Option("--cors-origin", help="A page that may call; repeat it.")
    ] = None,
    fixed_voices: Annotated[
        bool, typer.Option("--fixed-voices", help="No voices are added or removed by HTTP.")
    ] = False,
    recording_cache: Annotated[
        Path | None, typer.Option("--recording-cache", help="Folder of codes; see the docs.")
    ] = None,
    recording_cache_mb: Annotated[
        int, typer.Option("--recording-cache-mb", min=0, help="0: kept in memory only.")
    ] = 64,
    prefix_cache: Annotated[
        float, typer.Option("--prefix-cache", min=0, max=1, help="Share of the KV blocks; 0: off.")
    ] = 0.25,
    playground: Annotated[bool, typer.Option(help="The page at /.")] = True,
    log_level: Annotated[str, typer.Option("--log-level")] = "info",
    drain_seconds: Annotated[
        float, typer.Option("--drain-seconds", min=0, help="To end what runs when stopped.")
    ] = 10.0,
    uds: Annotated[Path | None, typer.Option("--uds", hidden=True)] = None,
    replica: Annotated[int | None, typer.Option("--replica", hidden=True)] = None,
) -> None:
    """Serve the OpenAI-compatible API, and a page to try it at /."""
    try:
        import uvicorn

        from higgs_rt.server import ServerSettings, create_app
        from higgs_rt.server.run import make_config
    except ImportError as error:
        raise HiggsError(
            f"[serve] expected the server's packages (pip install 'higgs-rt[serve]'), got: {error}"
        ) from None
    settings = ServerSettings(
        model_name=model_name,
        api_keys=_keys(api_key_file),
        requests_per_minute=rate_limit,
        max_body_bytes=max_body_mb << 20,
        max_input_chars=max_input_chars,
        cors_origins=tuple(cors_origin or ()),
        # A page cannot reach a server of this machine by another name for its address.
        allowed_hosts=_LOOPBACK if host in _LOOPBACK and uds is None else (),
        allow_voice_changes=not fixed_voices,
        playground=playground,
        recordings=_recordings(recording_cache) if recording_cache_mb else None,
        max_recordings_bytes=recording_cache_mb << 20,
        drain_seconds=drain_seconds,
        replica=replica,
    )
    folders = named_adapters(adapters)
    address: dict[str, Any] = {"uds": str(uds)} if uds else {"host": host, "port": port}
    where = str(uds or f"http://{host}:{port}") + (
        "" if settings.api_keys else ", open: no API keys"
    )
    if devices is not None:
        if device != "cpu":
            raise InvalidRequestError("[devices] expected either --device or --devices, got both")
        from higgs_rt.server.front import create_front
        from higgs_rt.server.replicas import Fleet, parse_devices

        names = parse_devices(devices)
        options: dict[str, object] = {
            "--model": model,
            "--codec": codec,
            "--adapter": adapter,
            "--backend": backend,
            "--max-batch": max_batch,
            "--max-queue": max_queue,
            "--prefix-cache": prefix_cache,
            "--recording-cache": recording_cache,
            "--recording-cache-mb": recording_cache_mb,
            "--model-name": model_name,
            "--max-body-mb": max_body_mb,
            "--max-input-chars": max_input_chars,
            "--drain-seconds": drain_seconds,
            "--log-level": log_level,
            # Replicas on the CPU share its cores.
            "--threads": threads or (os.cpu_count() or 1) // max(1, names.count("cpu")) or 1,
        }
        arguments = [str(part) for pair in options.items() if pair[1] is not None for part in pair]
        for name, folder in folders.items():
            arguments += ["--adapters", f"{name}={folder}"]
        arguments += ["--no-playground", *(["--fixed-voices"] if fixed_voices else [])]
        fleet = Fleet(names, arguments, places=max_batch + max_queue, max_batch=max_batch)
        config = make_config(
            create_front(fleet, settings), settings, log_level=log_level, **address
        )
        say(f"{where}, replicas: {', '.join(names)}")
        uvicorn.Server(config).run()
        return
    from higgs_rt.runtime import Runtime

    with console().status("loading"):
        runtime = Runtime.load(
            model,
            codec,
            device,
            backend=backend,
            threads=threads,
            max_batch=max_batch,
            max_queue=max_queue,
            prefix_cache=prefix_cache,
            adapter=adapter,
            adapters=folders,
        )
    with runtime:
        config = make_config(
            create_app(runtime, settings), settings, log_level=log_level, **address
        )
        if replica is None:
            say(where)
        else:
            from higgs_rt.server.replicas import stop_with_parent

            stop_with_parent()
        uvicorn.Server(config).run()


def _recordings(chosen: Path | None) -> Path | None:
    """The folder for encoded recordings. One that was not asked for may be missing."""
    from higgs_rt.voices.recordings import default_directory, private_directory

    if chosen is not None:
        return private_directory(chosen)
    try:
        return private_directory(default_directory())
    except VoiceError as error:
        say(f"encoded recordings are kept in memory only: {error}")
        return None


def _keys(path: Path | None) -> tuple[str, ...]:
    keys = os.environ.get(KEYS_VARIABLE, "").replace(",", " ").split()
    if path is not None:
        try:
            keys += path.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequestError(f"[{path}] expected a file of keys, got: {error}") from None
        if not keys:
            raise InvalidRequestError(f"[{path}] expected at least one key, got none")
    return tuple(keys)
