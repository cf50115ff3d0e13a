"""The text tokenizer of a checkpoint, and the special tokens of the prompt format (spec 1.2)."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from higgs_rt.errors import CheckpointError

BEGIN_OF_TEXT = "<|begin_of_text|>"
START_HEADER = "<|start_header_id|>"
END_HEADER = "<|end_header_id|>"
END_OF_MESSAGE = "<|eom_id|>"
END_OF_TURN = "<|eot_id|>"
AUDIO_BOS = "<|audio_bos|>"
AUDIO_EOS = "<|audio_eos|>"
AUDIO_OUT_BOS = "<|audio_out_bos|>"
AUDIO_DELAY = "<|reserved_special_token_6|>"
AUDIO_IN = "<|AUDIO|>"
AUDIO_OUT = "<|AUDIO_OUT|>"
RECIPIENT = "<|recipient|>"
SCENE_START = "<|scene_desc_start|>"
SCENE_END = "<|scene_desc_end|>"

# Every special token that a prompt of this package can contain; a tokenizer must have them all.
REQUIRED = (
    BEGIN_OF_TEXT,
    START_HEADER,
    END_HEADER,
    END_OF_MESSAGE,
    END_OF_TURN,
    AUDIO_BOS,
    AUDIO_EOS,
    AUDIO_OUT_BOS,
    AUDIO_DELAY,
    AUDIO_IN,
    AUDIO_OUT,
    RECIPIENT,
    SCENE_START,
    SCENE_END,
)


class TextTokenizer:
    """Text to ids. Ids of special tokens are looked up by string, never assumed."""

    def __init__(self, tokenizer: Tokenizer, where: str) -> None:
        """`where` names the source in errors. CheckpointError for a missing special token."""
        self._tokenizer = tokenizer
        self._where = where
        self._special = {token: self._find(token) for token in REQUIRED}

    @classmethod
    def load(cls, path: str | Path) -> TextTokenizer:
        """Read a `tokenizer.json` or the one in a directory; CheckpointError names the fault."""
        path = Path(path)
        if path.is_dir():
            path = path / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(f"[{path}] expected a tokenizer file, got none")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"[{path}] expected a tokenizer.json, got: {error}") from None
        return cls(tokenizer, str(path))

    def encode(self, piece: str) -> list[int]:
        """Ids of one literal piece. Special tokens in it are recognised, none are added."""
        return list(self._tokenizer.encode(piece, add_special_tokens=False).ids)

    def special_id(self, token: str) -> int:
        """Id of a special token, one of `REQUIRED` or any other; CheckpointError if absent."""
        known = self._special.get(token)
        return self._find(token) if known is None else known

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def _find(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(f"[{self._where}] expected the special token {token}, got none")
        return int(found)
