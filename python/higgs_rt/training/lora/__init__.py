"""Fine-tuning with LoRA: data in, adapter out (docs/training.md).

Prompts and columns come from `higgs_rt.prompt`, labels from `higgs_rt.training.labels`, the model
from transformers with peft. Nothing here needs the native library, except validation speech.
"""
