"""From a model directory to a plan folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from build_engine.backend import Package, load_package
from build_engine.checkpoint import MappedCheckpoint
from build_engine.codec import CodecNetwork, read_codec
from build_engine.decoder import DecoderNetwork
from build_engine.definition import Definition
from build_engine.errors import BuildError
from build_engine.manifest import (
    FILE,
    Entry,
    codec_entry,
    decoder_entry,
    header,
    write_manifest,
)
from build_engine.model_config import ModelConfig, check_with_runtime, read_model_config
from build_engine.options import (
    CODEC_MAX_BATCH,
    CODEC_MAX_FRAMES,
    CODEC_USUAL_FRAMES,
    BuildOptions,
    DecoderOptions,
)
from build_engine.plan import (
    BuildLog,
    BuiltPlan,
    Profile,
    build_plan,
    check_memory,
    constant_bytes,
    memory_need,
    resolve_targets,
)
from build_engine.walk import Graph, read_graph
from higgs_rt.codec.config import CodecConfig


class Report(Protocol):
    """Where progress goes; see `build_engine.console`."""

    def plan_of(self, component: str, constants: int, need: int) -> None:
        """Before a build: bytes of constants and of memory that it will take."""

    def progress(self, step: str, share: float) -> None:
        """A step of TensorRT's, and how much of it is done."""

    def built(self, component: str, plan: BuiltPlan) -> None:
        """After a build."""


@dataclass
class Decoder:
    """A decoder network and what it was written from."""

    config: ModelConfig
    checkpoint: MappedCheckpoint
    definition: Definition
    graph: Graph


@dataclass
class Codec:
    """A codec network and what it was written from."""

    config: CodecConfig
    directory: Path
    definition: Definition
    graph: Graph


@dataclass
class Workshop:
    """TensorRT's builder and its messages; networks live no longer than it."""

    package: Package
    log: BuildLog = field(init=False)
    builder: Any = field(init=False)

    def __post_init__(self) -> None:
        """Make the builder; raises BuildError when TensorRT cannot."""
        self.log = BuildLog(self.package.trt)
        try:
            self.builder = self.package.trt.Builder(self.log.logger)
        except Exception as error:  # pybind11 reports a null builder as TypeError
            raise BuildError(
                f"[{self.package.backend}] expected a builder, got: {error}; {self.log.errors()}"
            ) from None

    def decoder(
        self,
        directory: Path,
        options: DecoderOptions,
        network: type[DecoderNetwork] = DecoderNetwork,
    ) -> Decoder:
        """Write the decoder network of a checkpoint."""
        check_with_runtime(directory)
        config = read_model_config(directory)
        checkpoint = MappedCheckpoint(directory)
        definition = network(self.package, self.builder, config, checkpoint, options).write()
        graph = read_graph(self.package.trt, definition.network)
        return Decoder(config, checkpoint, definition, graph)

    def codec(self, directory: Path, network: type[CodecNetwork] = CodecNetwork) -> Codec:
        """Write the codec decoder's network."""
        config, tensors = read_codec(directory)
        definition = network(self.package, self.builder, config, tensors).write()
        return Codec(
            config, directory, definition, read_graph(self.package.trt, definition.network)
        )


def decoder_profiles(options: DecoderOptions) -> list[Profile]:
    """Prefill (index 0) and decode (index 1); docs/tensorrt.md states the rules."""
    batch, width, rows = options.max_batch, options.max_prefill_batch, options.max_prefill
    most = width * rows
    table = options.max_prompt_table
    prefill = {
        "B": (1, 1, width),
        "S": (1, rows, rows),
        "Nt": (1, max(rows // 2, 1), most),
        "Na": (0, rows // 2, most),
        "P": (1, 1, table),
        "C": (1, max(rows // 2, 1), most + batch),
        "R": (1, batch, batch),
        "L": (1, 1, most),
    }
    decode = {
        "B": (1, batch, batch),
        "S": (1, 1, 1),
        "Nt": (0, 0, 0),
        "Na": (1, batch, batch),
        "P": (1, 1, 1),
        "C": (batch, batch, batch),
        "R": (1, batch, batch),
        "L": (1, batch, batch),
    }
    return [Profile("prefill", prefill), Profile("decode", decode)]


def codec_profiles() -> list[Profile]:
    """One profile for windows of every length."""
    dims = {"N": (1, 1, CODEC_MAX_BATCH), "T": (1, CODEC_USUAL_FRAMES, CODEC_MAX_FRAMES)}
    return [Profile("decode", dims)]


def build(
    model_dir: Path,
    codec_dir: Path,
    output: Path,
    options: BuildOptions,
    report: Report,
    *,
    check_available_memory: bool = True,
) -> Entry:
    """Build the wanted plans into `output` and write its manifest, which is returned.

    A component that is not wanted stays as it is in the folder, if it was built by the same package
    for the same targets. Raises BuildError or CheckpointError that names what is wrong.
    """
    package = load_package(options.backend)
    targets = resolve_targets(package, options.targets)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"[{output}] expected a directory, got: {error}") from None
    workshop = Workshop(package)
    manifest = header(package, targets)
    kept = _kept(output, manifest)
    # A folder whose plans are being replaced has no manifest.
    (output / FILE).unlink(missing_ok=True)
    run = _Run(workshop, targets, output, report, check_available_memory)
    if options.component in ("decoder", "all"):
        kept["decoder"] = run.decoder(model_dir, options.decoder)
    if options.component in ("codec", "all"):
        kept["codec"] = run.codec(codec_dir)
    manifest |= kept
    write_manifest(output, manifest)
    return manifest


def _kept(output: Path, wanted: Entry) -> dict[str, Entry]:
    """Plans that are in the folder already and belong to the same package and targets."""
    try:
        there = json.loads((output / FILE).read_text(encoding="utf-8"))
        same = all(there.get(name) == value for name, value in wanted.items())
        return {name: there[name] for name in ("decoder", "codec") if same and name in there}
    except (OSError, ValueError, AttributeError):
        return {}


@dataclass
class _Run:
    workshop: Workshop
    targets: tuple[str, ...]
    output: Path
    report: Report
    check_available_memory: bool

    def decoder(self, directory: Path, options: DecoderOptions) -> Entry:
        made = self.workshop.decoder(directory, options)
        profiles = decoder_profiles(options)
        built = self._build("decoder", made.definition, profiles)
        return decoder_entry(
            self.workshop.package,
            made.config,
            options,
            made.checkpoint,
            made.definition,
            profiles,
            built,
            made.graph.hash(),
        )

    def codec(self, directory: Path) -> Entry:
        made = self.workshop.codec(directory)
        profiles = codec_profiles()
        built = self._build("codec", made.definition, profiles)
        return codec_entry(
            made.config, directory, made.definition, profiles, built, made.graph.hash()
        )

    def _build(self, name: str, definition: Definition, profiles: list[Profile]) -> BuiltPlan:
        need = memory_need(definition)
        self.report.plan_of(name, constant_bytes(definition), need)
        if self.check_available_memory:
            check_memory(need, name)
        built = build_plan(
            self.workshop.package,
            self.workshop.builder,
            self.workshop.log,
            definition,
            profiles,
            self.targets,
            self.output / f"{name}.plan",
            self.report.progress,
        )
        self.report.built(name, built)
        return built
