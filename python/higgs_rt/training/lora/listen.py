"""Speech of a run, by the native runtime with the adapter of the moment, and its word error rate.

The samples are what a caller would hear: the same prompts, sampler and codec as in service.
"""

from __future__ import annotations

from pathlib import Path

from higgs_rt.audio import write_audio
from higgs_rt.evaluation.recognisers import make_recogniser
from higgs_rt.evaluation.wer import read_lines, score, spoken_words
from higgs_rt.training.lora.config import ValidationConfig


def speak_samples(
    settings: ValidationConfig, model_dir: Path, adapter: Path, output: Path
) -> float:
    """Speaks the first `speak_lines` of `speak_file` to `output`; the word error rate of all."""
    from higgs_rt.runtime import Runtime

    lines = read_lines(settings.speak_file)[: settings.speak_lines]
    words = [spoken_words(line) for line in lines]
    ears = make_recogniser(settings.recogniser, (word for line in words for word in line))
    output.mkdir(parents=True, exist_ok=True)
    heard = []
    with Runtime.load(model_dir, device=settings.speak_device, adapter=adapter) as runtime:
        streams = [
            runtime.submit(line, seed=0, temperature=settings.speak_temperature) for line in lines
        ]
        for number, stream in enumerate(streams):
            speech = stream.result()
            write_audio(output / f"{number:03d}.wav", speech.samples, speech.sample_rate)
            heard.append(ears.transcribe(speech.samples, speech.sample_rate))
    return score(words, heard).wer
