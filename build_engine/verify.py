"""Verification of a plan folder: the network of its manifest against the native engine.

A plan cannot be read back, so the network is written again from the checkpoint with the manifest's
options; `network_hash` says that it is the one that was built.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from build_engine.backend import load_package
from build_engine.build import Codec, Decoder, Workshop
from build_engine.checkpoint import checkpoint_hash, content_sha256
from build_engine.errors import BuildError
from build_engine.manifest import FILE, Entry, decoder_options, read_manifest, require
from build_engine.options import DecoderOptions
from build_engine.verify_decoder import SEED, Difference, compare, verify_decoder
from build_engine.verify_sequences import make_sequences

# Without rounding the network runs in fp64, so the difference is the native engine's own fp32
# arithmetic. Greatest error: absolute with its reference kernels, which round once for each number
# stored; relative to the greatest logit where that is above 1 with those for this machine, whose
# sums are fp32 too.
EXACT_BOUND = 1e-5
# With one rounding per layer: greatest and root mean square error, relative to the logits' root
# mean square. 8 bits of mantissa in bf16, 11 in fp16, 24 in fp32.
ROUNDED_BOUNDS = {"bf16": (0.5, 0.03), "fp16": (0.0625, 0.004), "fp32": (5e-5, 5e-6)}
# Arg-max agreement: all without rounding. Rounded logits may swap near ties.
ROUNDED_AGREEMENT = {"bf16": 0.85, "fp16": 0.97, "fp32": 1.0}
CODEC_BOUND = 1e-4
CODEC_FRAMES = (1, 9, 60)
# Below this many parameters threads wait for each other longer than they work, on a busy machine by
# a factor of ten.
ONE_THREAD_PARAMETERS = 100_000_000


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    what: str
    compared: str  # how many numbers of which kind
    measured: str
    bound: str
    passed: bool


@contextmanager
def _threads(parameters: int) -> Iterator[int]:
    """How many threads torch and the native engine use inside."""
    before = torch.get_num_threads()
    chosen = 1 if parameters < ONE_THREAD_PARAMETERS else before
    torch.set_num_threads(chosen)
    try:
        yield chosen
    finally:
        torch.set_num_threads(before)


def _exact_check(what: str, difference: Difference) -> Check:
    reference = difference.kernels == "reference"
    error = difference.max_error / (1.0 if reference else max(1.0, difference.max_logit))
    return Check(
        f"decoder, {what}, structure" + ("" if reference else ", fast kernels"),
        f"{difference.rows} rows",
        f"max {difference.max_error:.2g} of {difference.max_logit:.1f}, "
        f"arg-max {difference.agreement:.2%}",
        f"{EXACT_BOUND:g}{'' if reference else ' of the greatest logit'}, 100 %",
        error <= EXACT_BOUND and difference.agreement == 1.0,
    )


def _rounded_check(what: str, difference: Difference, precision: str) -> Check:
    most, rms = (bound * difference.rms_logit for bound in ROUNDED_BOUNDS[precision])
    agreement = ROUNDED_AGREEMENT[precision]
    return Check(
        f"decoder, {what}, {precision} per layer",
        f"{difference.rows} rows",
        f"max {difference.max_error:.2g}, rms {difference.rms_error:.2g}, "
        f"arg-max {difference.agreement:.2%}",
        f"{most:.2g}, {rms:.2g}, {agreement:.0%}",
        difference.max_error <= most
        and difference.rms_error <= rms
        and difference.agreement >= agreement,
    )


def decoder_differences(
    decoder: Decoder, options: DecoderOptions, *, rounding: bool
) -> list[Difference]:
    """Prefill and decode of one pass, and without rounding for both kinds of kernels."""
    with _threads(decoder.checkpoint.num_parameters) as threads:
        return verify_decoder(
            decoder.graph,
            decoder.definition,
            decoder.config,
            options,
            decoder.checkpoint.directory,
            rounding=rounding,
            threads=threads,
        )


def check_decoder(decoder: Decoder, options: DecoderOptions) -> list[Check]:
    """Both passes over prefill and decode."""
    exact = decoder_differences(decoder, options, rounding=False)
    rounded = decoder_differences(decoder, options, rounding=True)
    return [_exact_check(difference.what, difference) for difference in exact] + [
        _rounded_check(difference.what, difference, options.precision) for difference in rounded
    ]


def check_engine(
    plans: Path, decoder: Decoder, options: DecoderOptions, device: str
) -> list[Check]:
    """The plan itself, run by the C++ engine on `device`, under the bounds of its precision.

    Prompts in whole chunks, then the same sequences position by position, so that columns go
    through the decode profile. Raises what the runtime raises, for instance without TensorRT.
    """
    from higgs_rt import _higgs_rt as native

    directory = decoder.checkpoint.directory
    probe = native.Probe(
        native.RuntimeConfig(
            str(directory),
            device=device,
            backend="tensorrt",
            plan_dir=str(plans),
            max_batch=1,
            max_sequence=options.max_seq_len,
        )
    )
    rng = np.random.default_rng(SEED)
    with _threads(decoder.checkpoint.num_parameters) as threads:
        sequences = make_sequences(directory, decoder.config, options, rng, threads)
    checks = []
    for what, chunk_rows in (("chunks", 0), ("single positions", 1)):
        for sequence in sequences:
            logits = probe.logits(sequence.segments, sequence.columns, chunk_rows)
            sequence.logits = dict(enumerate(logits))
        for prefill in (True, False):
            difference = compare("prefill" if prefill else "decode", sequences, prefill)
            check = _rounded_check(f"{what}, {difference.what}", difference, options.precision)
            checks.append(replace(check, what=f"plan on {device}, {what}, {difference.what}"))
    return checks


def check_codec(codec: Codec, model_dir: Path) -> list[Check]:
    """Random codes through the network and through the native decoder, both cut to [-1, 1]."""
    from build_engine.interpreter import Interpreter
    from higgs_rt import _higgs_rt as native

    runtime = native.Runtime.load(
        native.RuntimeConfig(
            str(model_dir),
            codec_dir=str(codec.directory),
            max_batch=1,
            max_sequence=64,
            num_threads=1,
        )
    )
    interpreter = Interpreter(
        codec.graph, codec.definition.weights, codec.definition.stored, rounding=True
    )
    rng = np.random.default_rng(2026)
    shape = (codec.config.num_codebooks, max(CODEC_FRAMES))
    worst, greatest = 0.0, 0.0
    for frames in CODEC_FRAMES:
        codes = rng.integers(0, codec.config.codebook_size, (2, shape[0], frames), dtype=np.int32)
        with torch.inference_mode(), _threads(0):
            pcm = interpreter.run({"codes": torch.from_numpy(codes)})["pcm"].numpy()
        for row in range(2):
            expected = runtime.decode_frames(codes[row])
            if pcm[row].shape != expected.shape:
                raise BuildError(f"[pcm] expected {expected.shape}, got {pcm[row].shape}")
            error = np.abs(np.clip(pcm[row], -1, 1) - expected).max()
            worst = max(worst, float(error) if np.isfinite(error) else float("inf"))
            greatest = max(greatest, float(np.abs(expected).max()))
    runtime.shutdown()
    return [
        Check(
            "codec",
            f"{2 * sum(CODEC_FRAMES) * codec.config.hop} samples",
            f"max {worst:.2g} of {greatest:.2f}",
            f"{CODEC_BOUND:g}",
            worst <= CODEC_BOUND,
        )
    ]


def verify(
    plans: Path, model_dir: Path, codec_dir: Path, device: str | None = None
) -> tuple[Entry, list[Check]]:
    """Check the manifest against the files and the checkpoint, then every network in it; with a
    `device` also the decoder's plan there.

    Raises BuildError naming the field of the manifest that does not fit.
    """
    manifest = read_manifest(plans)
    path = plans / FILE
    if manifest.get("backend") not in ("tensorrt", "tensorrt_rtx"):
        require(path, manifest, "backend", "tensorrt or tensorrt_rtx")
    package = load_package(manifest["backend"])
    # Another version describes its layers differently, so that no hash would fit.
    require(path, manifest, "backend_version", package.version)
    workshop = Workshop(package)
    checks: list[Check] = []
    if "decoder" in manifest:
        entry = manifest["decoder"]
        require(path, entry, "checkpoint_hash", checkpoint_hash(model_dir))
        require(path, entry, "checkpoint_sha256", content_sha256(model_dir))
        require(path, entry, "attention", package.attention)
        options = decoder_options(path, entry)
        decoder = workshop.decoder(model_dir, options)
        require(path, entry, "network_hash", decoder.graph.hash())
        checks += check_decoder(decoder, options)
        if device is not None:
            checks += check_engine(plans, decoder, options, device)
    if "codec" in manifest:
        entry = manifest["codec"]
        require(path, entry, "checkpoint_hash", checkpoint_hash(codec_dir))
        require(path, entry, "checkpoint_sha256", content_sha256(codec_dir))
        codec = workshop.codec(codec_dir)
        require(path, entry, "network_hash", codec.graph.hash())
        checks += check_codec(codec, model_dir)
    return manifest, checks
