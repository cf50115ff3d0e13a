"""The configuration of `higgs-rt train lora`: one YAML file, every field checked and documented."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from higgs_rt.errors import HiggsError

MISSING = dataclasses.MISSING


class TrainingConfigError(HiggsError, ValueError):
    """A field of the training configuration is missing, unknown or out of range."""


def _doc(
    text: str,
    default: Any = MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    factory: Any = MISSING,
) -> Any:
    metadata = {"doc": text, "low": low, "high": high}
    if factory is not MISSING:
        return field(default_factory=factory, metadata=metadata)
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


Networks = Literal["text", "audio", "both", "none"]


@dataclass(frozen=True)
class LoraConfig:
    """What is adapted."""

    rank: int = _doc("Rank of every adapter.", 16, low=1, high=1024)
    alpha: float = _doc("Scale: the adapter's output is multiplied by alpha / rank.", 32.0, low=0)
    dropout: float = _doc("Dropout before the adapters.", 0.05, low=0, high=0.99)
    rslora: bool = _doc("Scale by alpha / sqrt(rank) instead.", False)
    attention: bool = _doc("Adapt q, k, v, o (shared by text and audio).", True)
    mlp: Networks = _doc(  # noqa: RUF009
        "Which feed-forward networks to adapt: text, audio, both, none.", "both"
    )
    audio_embeddings: bool = _doc("Train the codebook embeddings in full besides.", False)
    audio_head: bool = _doc("Train the audio head in full besides.", False)


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised."""

    codebook_weights: tuple[float, ...] = _doc(
        "Weight of each codebook; scaled to sum to one. Empty: equal.", ()
    )
    text_weight: float = _doc("Weight of the text loss, where there is a text head.", 1.0, low=0)
    speaker_weight: float = _doc(
        "Weight of the speaker-consistency term (training/lora/speaker.py); 0 is off.", 0.0, low=0
    )


@dataclass(frozen=True)
class BatchConfig:
    """How examples are put together."""

    max_positions: int = _doc(
        "Positions of one batch on one process, padding included.", 8192, low=16
    )
    max_rows: int = _doc("Examples of one batch.", 64, low=1)
    accumulation: int = _doc("Batches of one step, on each process.", 1, low=1)
    max_length: int = _doc("Longer examples are left out, counted and named.", 2048, low=16)


@dataclass(frozen=True)
class OptimizerConfig:
    """How the weights move. AdamW; cosine after a linear warm-up."""

    learning_rate: float = _doc("At the end of the warm-up.", 2e-4, low=0)
    steps: int = _doc("Steps of the whole run.", 1000, low=1)
    warmup_steps: int = _doc("Steps until the full learning rate.", 50, low=0)
    final_share: float = _doc("Learning rate at the end, as a share.", 0.1, low=0, high=1)
    weight_decay: float = _doc("Of AdamW.", 0.0, low=0)
    beta1: float = _doc("Of AdamW.", 0.9, low=0, high=0.9999)
    beta2: float = _doc("Of AdamW.", 0.95, low=0, high=0.99999)
    clip: float = _doc("Joint norm of the gradients; 0 is off.", 1.0, low=0)
    max_bad_steps: int = _doc(
        "Steps in a row whose loss is not finite: skipped and counted up to this, then an error.",
        3,
        low=1,
    )


@dataclass(frozen=True)
class ValidationConfig:
    """How the run is watched."""

    share: float = _doc(
        "Share of the training samples held out, where validation_data is empty.",
        0.05,
        low=0,
        high=0.5,
    )
    every: int = _doc("Steps between validation losses; 0 is never.", 100, low=0)
    patience: int = _doc("Stop after so many validations without a better one; 0: never.", 0, low=0)
    speak_every: int = _doc(
        "Steps between spoken samples with word error rate, by the native runtime; 0 is never.",
        0,
        low=0,
    )
    speak_file: str = _doc("Lines to speak; needed for speak_every.", "")
    speak_lines: int = _doc("How many of them.", 8, low=1)
    speak_device: str = _doc("Where the runtime speaks: cpu, or cuda[:N].", "cpu")
    speak_temperature: float = _doc("Sampling temperature of the samples.", 0.3, low=0, high=2)
    recogniser: str = _doc("As for `higgs-rt evaluate wer`.", "pocketsphinx")


@dataclass(frozen=True)
class TrainingConfig:
    """A LoRA run."""

    model: str = _doc("Model directory, in either layout; 'demo' is the packaged one.")
    data: tuple[str, ...] = _doc("Folders made by `higgs-rt train prepare`.")
    output: str = _doc("Folder of the run: adapters, state, logs. Resumes what lies there.")
    validation_data: tuple[str, ...] = _doc("Folders to validate with.", ())
    codec: str = _doc("Codec directory, for the speaker term; empty: codec/ in the model's.", "")
    convention: Literal["original", "transformers"] = _doc("Prompt format.", "original")
    dtype: Literal["bfloat16", "float32"] = _doc("Of the frozen weights.", "bfloat16")
    gradient_checkpointing: bool = _doc("Recompute layers: less memory, a third slower.", False)
    compile_layers: bool = _doc("torch.compile the layers: slow to begin, then faster.", False)
    seed: int = _doc("Of the order, the dropout and the adapters.", 0, low=0)
    save_every: int = _doc("Steps between states to resume from; 0: at the end only.", 200, low=0)
    log_every: int = _doc("Steps between lines of losses.jsonl and TensorBoard.", 1, low=1)
    tensorboard: bool = _doc("Write TensorBoard files.", True)
    lora: LoraConfig = _doc("What is adapted.", factory=LoraConfig)  # noqa: RUF009
    objective: ObjectiveConfig = _doc("What is minimised.", factory=ObjectiveConfig)  # noqa: RUF009
    batch: BatchConfig = _doc("How examples are put together.", factory=BatchConfig)  # noqa: RUF009
    optimizer: OptimizerConfig = _doc("How the weights move.", factory=OptimizerConfig)  # noqa: RUF009
    validation: ValidationConfig = _doc("How the run is watched.", factory=ValidationConfig)  # noqa: RUF009


def read_config(path: Path) -> TrainingConfig:
    """The configuration in a YAML file; relative paths are relative to it.

    Raises TrainingConfigError naming file, field, value and limit.
    """
    try:
        import yaml
    except ImportError as error:
        raise TrainingConfigError(
            f"[train] expected PyYAML (pip install 'higgs-rt[train]'), got: {error}"
        ) from None
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        summary = " ".join(str(error).split())
        raise TrainingConfigError(f"[{path}] expected a YAML file, got: {summary}") from None
    config = parse_config(stored, str(path))

    def placed(name: str) -> str:
        return str((path.parent / Path(name).expanduser()).resolve()) if name else name

    return dataclasses.replace(
        config,
        model=config.model if config.model == "demo" else placed(config.model),
        data=tuple(map(placed, config.data)),
        output=placed(config.output),
        codec=placed(config.codec),
        validation_data=tuple(map(placed, config.validation_data)),
        validation=dataclasses.replace(
            config.validation, speak_file=placed(config.validation.speak_file)
        ),
    )


def parse_config(stored: Any, where: str) -> TrainingConfig:
    """The configuration in a parsed YAML document; `where` begins the messages."""
    config: TrainingConfig = _parse(TrainingConfig, stored, where, "")
    weights = config.objective.codebook_weights
    if weights and (min(weights) < 0 or sum(weights) <= 0):
        raise TrainingConfigError(
            f"[{where}: objective.codebook_weights] expected none negative and a sum above 0, "
            f"got {list(weights)}"
        )
    if not config.data:
        raise TrainingConfigError(f"[{where}: data] expected a folder or more, got none")
    lora = config.lora
    if not (lora.attention or lora.mlp != "none" or lora.audio_embeddings or lora.audio_head):
        raise TrainingConfigError(f"[{where}: lora] expected something to train, got nothing")
    if config.validation.speak_every and not config.validation.speak_file:
        raise TrainingConfigError(
            f"[{where}: validation.speak_file] expected lines for speak_every, got none"
        )
    return config


def _parse(kind: Any, stored: Any, where: str, prefix: str) -> Any:
    place = f"{where}: {prefix.rstrip('.')}" if prefix else where
    if not isinstance(stored, dict):
        raise TrainingConfigError(f"[{place}] expected fields, got {stored!r}")
    hints = typing.get_type_hints(kind)
    known = {one.name: one for one in dataclasses.fields(kind)}
    unknown = [str(name) for name in stored if name not in known]
    if unknown:
        raise TrainingConfigError(f"[{place}] expected fields {sorted(known)}, got {unknown}")
    values = {}
    for name, one in known.items():
        if name in stored:
            values[name] = _value(hints[name], stored[name], one.metadata, where, prefix + name)
        elif one.default is MISSING and one.default_factory is MISSING:
            raise TrainingConfigError(f"[{where}: {prefix}{name}] expected a value, got none")
    return kind(**values)


def _value(hint: Any, value: Any, limits: Any, where: str, name: str) -> Any:
    def refuse(expected: str) -> TrainingConfigError:
        return TrainingConfigError(f"[{where}: {name}] expected {expected}, got {value!r}")

    if dataclasses.is_dataclass(hint):
        return _parse(hint, value, where, name + ".")
    origin = typing.get_origin(hint)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise refuse(f"one of {', '.join(choices)}")
        return value
    if origin is tuple:
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list):
            raise refuse("a list")
        inner = typing.get_args(hint)[0]
        return tuple(_value(inner, one, limits, where, name) for one in value)
    if hint is bool:
        if not isinstance(value, bool):
            raise refuse("true or false")
        return value
    if hint is str:
        if not isinstance(value, str):
            raise refuse("a string")
        return value
    return _number(hint, value, limits, refuse)


def _number(
    hint: Any, value: Any, limits: Any, refuse: Callable[[str], TrainingConfigError]
) -> int | float:
    if isinstance(value, str) and hint is float:  # YAML 1.1 reads 2e-4 as a string
        try:
            value = float(value)
        except ValueError:
            raise refuse("a number") from None
    kinds = int if hint is int else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
        raise refuse("an integer" if hint is int else "a finite number")
    low, high = limits["low"], limits["high"]
    if (low is not None and value < low) or (high is not None and value > high):
        span = f"{low:g} or more" if high is None else f"{low:g}..{high:g}"
        raise refuse(span)
    result: int | float = hint(value)
    return result


def template() -> str:
    """A YAML file with every field, its meaning and its default."""
    lines: list[str] = []
    _describe(TrainingConfig, lines, "")
    return "\n".join(lines) + "\n"


def _describe(kind: Any, lines: list[str], indent: str) -> None:
    hints = typing.get_type_hints(kind)
    for one in dataclasses.fields(kind):
        hint = hints[one.name]
        lines.append(f"{indent}# {one.metadata['doc']}")
        if dataclasses.is_dataclass(hint):
            lines.append(f"{indent}{one.name}:")
            _describe(hint, lines, indent + "  ")
            continue
        default = "  # required" if one.default is MISSING else _yaml(one.default)
        lines.append(f"{indent}{one.name}: {default}")


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
