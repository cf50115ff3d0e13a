"""Stage 2: train the language model on the code cache. One time-bounded run.

    python stage_lm.py --lines lines.tsv --codes codes.npz --out FOLDER --seconds 560 [--resume
    lm.pt]

Plain prompts always carry the voice slt; every voice is cloned from a reference turn, a third of
them louder or softer than what is to be spoken. Writes ``lm.pt`` (fp32 weights) and ``lm_state.pt``
(optimizer, counts) once a minute, and ``lm.log``; a run with ``--resume lm.pt`` goes on as if there
had been no break, where ``lm_state.pt`` lies beside it. ``--total-seconds`` tells the schedule how
long all runs train. 512 clips of the cache are held out: their loss is logged with the right and
with a wrong text, whose gap on codebook 0 tells whether the model reads.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from demo_config import CODE_COUNT, language_model_config, token_id
from flite_speech import VOICES
from higgs_rt.training.lm_model import ForwardSettings, PackedBatch, losses
from higgs_rt.training.lm_train import LmSettings, Source, train_lm
from higgs_rt.training.turns import ClipTable, TurnShape, TurnTokens, compose, corrupt
from stage_codec import save

INSTRUCTION = "Generate audio following instruction."
SCENES = (
    "Audio is recorded from a quiet room.",
    "A calm voice speaks in a small room.",
    "Audio is recorded outside.",
    "A reader at home.",
)
TEXT_AT = 7  # tokens of a user turn before its text
HELD_OUT = 512
OTHER_LEVEL = 0.35  # share of the references that are louder or softer
# The first codebooks carry what is understood; the last ones are mostly noise.
BOOK_WEIGHTS = (1.6, 1.4, 1.2, 1.0, 0.8, 0.7, 0.7, 0.6)
LOGIT_WEIGHT = 2e-4


def header(role: str) -> list[int]:
    return [
        token_id("<|start_header_id|>"),
        *role.encode(),
        token_id("<|end_header_id|>"),
        token_id("\n\n"),
    ]


def user_turn(text: str) -> list[int]:
    """A user turn and the opening of the assistant's audio."""
    return [
        *header("user"),
        *text.encode(),
        token_id("<|eot_id|>"),
        *header("assistant"),
        token_id("<|audio_out_bos|>"),
    ]


def prefixes() -> list[list[int]]:
    """Beginnings of a prompt: none, instruction only, instruction with each scene."""
    begin = token_id("<|begin_of_text|>")
    eot = token_id("<|eot_id|>")
    system = [begin, *header("system"), token_id(INSTRUCTION)]
    rows = [[begin], [*system, eot]]
    for scene in SCENES:
        block = [token_id("<|scene_desc_start|>"), 10, *scene.encode(), 10]
        rows.append([*system, token_id("\n\n"), *block, token_id("<|scene_desc_end|>"), eot])
    return rows


def attended(text: str, spans: npt.NDArray[np.uint16], frames: int) -> npt.NDArray[np.float32]:
    """For each 40 ms frame the index of the character being spoken, from the words' spans (10 ms
    units).
    """
    moments = (np.arange(frames) + 0.5) * 4.0
    at_time: list[float] = [0.0]
    at_char: list[float] = [0.0]
    cursor = 0
    for word, (start, end) in zip(text.split(), spans.tolist(), strict=True):
        first = text.index(word, cursor)
        cursor = first + len(word)
        letters = len(word.rstrip(".,;!?"))
        if start == 65535 or end == 65535 or end <= start or start < at_time[-1]:
            continue
        at_time += [start, end]
        at_char += [float(first), first + max(letters - 1, 0)]
    at_time += [max(at_time[-1], moments[-1]) + 1.0]
    at_char += [float(len(text) - 1)]
    result: npt.NDArray[np.float32] = np.interp(moments, at_time, at_char).astype(np.float32)
    return result


def padded(rows: list[list[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """int16 [N, width] filled with 0 (room for 8 more), and lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    width = up8(int(lengths.max())) + 8
    table = np.zeros((len(rows), width), np.int16)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return torch.from_numpy(table).to(device), lengths.to(device)


def load_table(lines_file: Path, codes_file: Path, device: torch.device) -> tuple[ClipTable, int]:
    """Reads the code cache and its texts; also returns how many clips come before the copies of
    clips at another level.
    """
    lines = [row.split("\t") for row in lines_file.read_text(encoding="utf-8").splitlines()]
    with np.load(codes_file) as cache:
        data = {name: cache[name] for name in cache.files}
    frames = data["frames"].astype(np.int64)
    start = np.concatenate([[0], np.cumsum(frames)[:-1]])
    word_start = np.concatenate([[0], np.cumsum(data["words"].astype(np.int64))])
    texts = [lines[i][1] for i in data["lines"]]
    attend = [
        attended(text, data["spans"][word_start[i] : word_start[i + 1]], int(frames[i]))
        for i, text in enumerate(texts)
    ]
    turns, turn_length = padded([user_turn(text) for text in texts], device)
    beginnings, prefix_length = padded(prefixes(), device)
    voice = torch.tensor([VOICES.index(lines[i][0]) for i in data["lines"]])
    table = ClipTable(
        torch.from_numpy(data["codes"]).to(device),
        torch.from_numpy(start).to(device),
        torch.from_numpy(frames).to(device),
        voice.to(device),
        turns,
        turn_length,
        torch.from_numpy(np.concatenate(attend) + TEXT_AT).half().to(device),
        beginnings,
        prefix_length,
        TurnTokens(
            token_id("<|audio_eos|>"),
            token_id("<|eot_id|>"),
            token_id("<|audio_out_bos|>"),
            CODE_COUNT,
            CODE_COUNT + 1,
        ),
    )
    return table, int(data.get("originals", len(frames)))


def up8(value: int) -> int:
    return -(-value // 8) * 8


class Sampler:
    """Draws batches of one shape from the table, on the device."""

    def __init__(
        self,
        table: ClipTable,
        originals: int,
        positions: int,
        low: int,
        high: int,
        long_prefix: bool,
        clone: int,
    ) -> None:
        """Targets of `low` < frames <= `high` among the first `originals` clips; `clone` is the
        longest reference in frames, 0 for none.
        """
        self.table, self.clone = table, clone
        device = table.codes.device
        index = torch.arange(len(table.frames), device=device)
        usable = index < originals - HELD_OUT
        fits = usable & (table.frames > low) & (table.frames <= high)
        voices = range(len(VOICES)) if clone else [0]
        self.targets = self._by_voice([fits & (table.voice == v) for v in voices])
        members = self.targets.flatten()
        turns = [up8(int(table.turn_length[members].max()))]
        columns = [up8(high + 9)]
        if clone:
            short = table.frames <= clone
            others = index >= originals if len(index) > originals else usable
            self.references = self._by_voice([usable & short & (table.voice == v) for v in voices])
            self.others = self._by_voice([others & short & (table.voice == v) for v in voices])
            references = torch.cat([self.references.flatten(), self.others.flatten()])
            turns.insert(0, up8(int(table.turn_length[references].max())))
            columns.insert(0, up8(clone + 9))
        prefix = int(table.prefix_length.max()) if long_prefix else 16
        pad = -(prefix + sum(turns) + sum(columns) + 2 * len(turns)) % 8
        self.shape = TurnShape(0, prefix + pad, tuple(turns), tuple(columns))
        if self.shape.prefix > table.prefixes.shape[1]:
            raise ValueError(
                f"[Sampler] expected a prefix of at most {table.prefixes.shape[1]}, "
                f"got {self.shape.prefix}"
            )
        self.shape.rows = max(2, positions // self.shape.positions())
        choices = (0.5, 0.0) if clone else (0.0, 0.0) if long_prefix else (0.2, 0.8)
        if clone and not long_prefix:
            choices = (1.0, 0.0)
        scenes = 1.0 - sum(choices)
        shares = [*choices, 0.6 * scenes, *([0.4 * scenes / (len(SCENES) - 1)] * (len(SCENES) - 1))]
        self.prefix_edges = torch.tensor(shares, device=device).cumsum(0)[:-1]
        self.frames = int(table.frames[members].sum())

    @staticmethod
    def _by_voice(masks: list[torch.Tensor]) -> torch.Tensor:
        """[voices, M] indices, shorter lists repeated."""
        lists = [mask.nonzero()[:, 0] for mask in masks]
        most = max(len(row) for row in lists)
        return torch.stack([row[torch.arange(most, device=row.device) % len(row)] for row in lists])

    def __call__(self) -> PackedBatch:
        rows, device = self.shape.rows, self.table.codes.device
        voice = torch.randint(0, len(self.targets), (rows,), device=device)
        pick = torch.randint(0, self.targets.shape[1], (rows,), device=device)
        clips = [self.targets[voice, pick]]
        if self.clone:
            pick = torch.randint(0, self.references.shape[1], (rows,), device=device)
            other = torch.randint(0, self.others.shape[1], (rows,), device=device)
            leave = torch.rand(rows, device=device) < OTHER_LEVEL
            reference = torch.where(leave, self.others[voice, other], self.references[voice, pick])
            clips.insert(0, reference)
        prefix = torch.bucketize(torch.rand(rows, device=device), self.prefix_edges)
        return corrupt(compose(self.table, self.shape, prefix, clips, clips), CODE_COUNT, 0.25)


def held_out_batches(table: ClipTable, originals: int) -> dict[str, PackedBatch]:
    """Held-out slt clips in plain prompts, with their own and with another clip's text, and every
    voice cloned.
    """
    device = table.codes.device
    index = torch.arange(originals - HELD_OUT, originals, device=device)
    index = index[(table.frames[index] > 30) & (table.frames[index] <= 87)]
    result = {}
    shape = TurnShape(0, 16, (table.turns.shape[1],), (96,))
    plain = index[table.voice[index] == 0]
    prefix = torch.ones(len(plain), dtype=torch.long, device=device)
    result["right text"] = compose(table, shape, prefix, [plain], [plain])
    result["wrong text"] = compose(table, shape, prefix, [plain.roll(1)], [plain])
    shape = TurnShape(0, 16, (table.turns.shape[1],) * 2, (96, 96))
    for number, voice in enumerate(VOICES):
        other = index[table.voice[index] == number]
        prefix = torch.zeros(len(other), dtype=torch.long, device=device)
        pair = [other.roll(1), other]
        result[f"{voice} cloned"] = compose(table, shape, prefix, pair, pair)
    return result


def build_model(device: torch.device) -> Any:
    from transformers import HiggsAudioV2Config, HiggsAudioV2ForConditionalGeneration

    config = HiggsAudioV2Config(**language_model_config())
    model: Any = HiggsAudioV2ForConditionalGeneration(config, use_text_head=True)
    with torch.no_grad():
        for layer in model.model.layers:
            for out in (layer.self_attn.o_proj, layer.mlp.down_proj, layer.audio_mlp.down_proj):
                out.weight.mul_((2.0 * config.num_hidden_layers) ** -0.5)
    return model.to(device)


def load_model(model: Any, path: Path) -> None:
    """Loads ``lm.pt``, or the shipped ``model.safetensors``, whose text head starts anew."""
    if path.suffix != ".safetensors":
        model.load_state_dict(torch.load(path, map_location="cpu"))
        return
    from safetensors.torch import load_file

    state = {name: tensor.float() for name, tensor in load_file(path).items()}
    state["text_lm_head.weight"] = model.text_lm_head.weight
    model.load_state_dict(state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--codes", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=560.0, help="whole run")
    parser.add_argument("--positions", type=int, default=32_768, help="positions per step")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--learning-rate", type=float, default=LmSettings.learning_rate)
    parser.add_argument("--decay-from", type=float, default=LmSettings.decay_from)
    parser.add_argument(
        "--total-seconds", type=float, default=0.0, help="training in all runs; else up to here"
    )
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    begin = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    log_file = (args.out / "lm.log").open("a", encoding="utf-8")

    def log(text: str) -> None:
        line = f"[{time.monotonic() - begin:6.1f}] {text}"
        print(line, flush=True)
        print(line, file=log_file, flush=True)

    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cuda.enable_cudnn_sdp(False)  # the memory-efficient kernel takes any mask
    device = torch.device(args.device)
    table, originals = load_table(args.lines, args.codes, device)
    log(f"{originals} clips and {len(table.frames) - originals} copies at other levels")
    log(f"{len(table.codes)} frames ({len(table.codes) / 90_000:.1f} h)")
    model = build_model(device)
    if args.resume:
        load_model(model, args.resume)
    log(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters on {device}")
    kinds = (
        ("plain to 39", 0, 39, False, 0, 1.0),
        ("plain to 63", 39, 63, False, 0, 1.0),
        ("plain to 127", 63, 127, False, 0, 1.0),
        ("scene to 63", 0, 63, True, 0, 0.35),
        ("scene to 127", 63, 127, True, 0, 0.35),
        ("clone to 63", 0, 63, False, 95, 1.0),
        ("clone to 127", 63, 127, True, 95, 1.2),
    )
    sources = []
    for name, low, high, long_prefix, clone, scale in kinds:
        sampler = Sampler(table, originals, args.positions, low, high, long_prefix, clone)
        frames = sampler.frames if not clone else sampler.frames / 2
        sources.append(Source(name, sampler, scale * frames / sum(sampler.shape.columns)))
        log(f"{name}: {sampler.shape}, weight {sources[-1].weight:.0f}")
    held_out = held_out_batches(table, originals)
    numerics = ForwardSettings(
        dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
        guided=LmSettings.guided,
    )

    @torch.no_grad()
    def check(state: dict[str, Any]) -> None:
        for name, batch in held_out.items():
            part = losses(model, batch, numerics)
            books = " ".join(f"{v:.2f}" for v in part.audio.tolist())
            log(
                f"held out, {name}: {float(part.audio.mean()):.3f} [{books}] "
                f"guide {float(part.guide):.2f} square {float(part.square):.1f}"
            )
        save(model.state_dict(), args.out / "lm.pt")
        save(state, args.out / "lm_state.pt")

    beside = args.resume.with_name("lm_state.pt") if args.resume else None
    earlier = torch.load(beside, map_location="cpu") if beside and beside.exists() else None
    settings = LmSettings(
        seconds=args.seconds - (time.monotonic() - begin) - 12.0,
        max_steps=args.steps,
        total_seconds=args.total_seconds,
        learning_rate=args.learning_rate,
        decay_from=args.decay_from,
        book_weights=BOOK_WEIGHTS,
        logit_weight=LOGIT_WEIGHT,
    )
    if args.resume:
        log(f"goes on from {args.resume}, with its state: {earlier is not None}")
        if earlier is None:
            settings.guide_weight = settings.guide_weight_end
    steps = train_lm(model, sources, settings, device, log, check, earlier)
    log(f"{steps} steps")


if __name__ == "__main__":
    main()
