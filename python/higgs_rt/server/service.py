"""What all endpoints share: the runtime, the limits, and requests as options of the runtime."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, cast

from higgs_rt.audio import Audio, read_audio_bytes
from higgs_rt.errors import InvalidRequestError, VoiceError
from higgs_rt.options import SpeakOptions
from higgs_rt.prompt import Reference, check_text
from higgs_rt.prompt.chatml import Codes
from higgs_rt.runtime import Runtime
from higgs_rt.server.encoding import EncodingQueue, to_its_end
from higgs_rt.server.metrics import Metrics
from higgs_rt.server.pacing import Pacer
from higgs_rt.server.problems import Problem, is_fault, problem_of
from higgs_rt.server.schemas import RequestReport, SamplingFields, VoiceId
from higgs_rt.server.settings import ServerSettings
from higgs_rt.voices.recordings import NoRecordings, RecordingCache

_MAX_URI_HEADER = 200  # characters before the comma of a data: URI
# MP3 in base64 may begin with a slash, so a path that does is found out as no recording.
_PLACE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|[.~\\]")
_KEPT_SECONDS = 3600.0
_BROKEN_AFTER = 3  # requests in a row that failed for no fault of theirs

_Kept = TypeVar("_Kept")
Gone = Callable[[], Awaitable[bool]]


class Kept(Generic[_Kept]):
    """The latest few things by id, for an hour."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[str, tuple[float, _Kept]] = OrderedDict()

    def put(self, key: str, item: _Kept) -> None:
        """Keep `item`; the oldest makes room."""
        self._items[key] = (time.monotonic() + _KEPT_SECONDS, item)
        self._items.move_to_end(key)
        while len(self._items) > self._size:
            self._items.popitem(last=False)

    def get(self, key: str) -> _Kept | None:
        """The item, while it is kept."""
        until, item = self._items.get(key, (0.0, None))
        return item if until > time.monotonic() else None


class Service:
    """One loaded model behind a server."""

    def __init__(self, runtime: Runtime, settings: ServerSettings, metrics: Metrics) -> None:
        self.runtime = runtime
        self.settings = settings
        self.metrics = metrics
        self.adapters = tuple(runtime.info.adapters)
        taken = {settings.model_name, *settings.model_aliases}.intersection(self.adapters)
        if taken:
            raise InvalidRequestError(
                f"[adapters] expected other names than the model's, got {min(taken)}"
            )
        self.created = int(time.time())
        self.reports: Kept[RequestReport] = Kept(2000)
        self.spoken: Kept[Reference] = Kept(64)  # codes of chat answers, by audio id
        self._references: Kept[Reference] = Kept(256)  # voices and encoded recordings
        self._recordings = self._open_recordings()  # the same on disk
        self._pacer = Pacer(runtime)
        self._in_flight = 0
        self._failures = 0
        places = runtime.max_batch + runtime.max_queue
        self._places = settings.max_requests or places
        self._encoding = EncodingQueue(self._places, metrics)

    @property
    def full(self) -> bool:
        """Whether one more request would be refused."""
        return self._in_flight >= self._places

    def refuse_when_full(self) -> None:
        """Problem 503 when there is no place; asked before any work is done."""
        if self.full:
            self.metrics.refused.labels("queue_full").inc()
            raise Problem(503, "all places are taken", "queue_full", retry_after=1)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among the requests at a time; Problem 503 when there is none."""
        self.refuse_when_full()
        self._in_flight += 1
        self.metrics.in_flight.set(self._in_flight)
        try:
            yield
        finally:
            self._in_flight -= 1
            self.metrics.in_flight.set(self._in_flight)

    def note(self, error: Exception | None) -> None:
        """How a request went: an error, or None."""
        if error is None:
            self._failures = 0
        elif is_fault(error):
            self._failures += 1

    @property
    def broken(self) -> bool:
        """Whether requests only fail any more, as after an error of the device."""
        return self._failures >= _BROKEN_AFTER

    def check_model(self, model: str) -> None:
        """Problem 404 for another model than the loaded one and its adapters."""
        own = self.settings.model_name
        if model not in (own, *self.settings.model_aliases, *self.adapters):
            others = f" or one of its adapters ({', '.join(self.adapters)})"
            raise Problem(
                404,
                f"expected the model {own}{others if self.adapters else ''}, got {model[:128]}",
                "model_not_found",
                "model",
            )

    def check_input(self, text: str, field: str = "input") -> None:
        """Problem 400 for a text that is too long."""
        limit = self.settings.max_input_chars
        if len(text) > limit:
            raise Problem(
                400,
                f"[{field}] expected at most {limit} characters, got {len(text)}",
                "string_above_max_length",
                field,
            )

    async def options(
        self,
        body: SamplingFields,
        voice: str | VoiceId | None,
        *,
        model: str | None,
        scene: str | None = None,
    ) -> SpeakOptions:
        """The fields of a request as options of the runtime. `model` has passed `check_model`."""
        fields = body.model_dump(
            include=set(SamplingFields.model_fields) - {"ref_audio", "ref_text", "speakers"},
            exclude_none=True,
        )
        first, most = self._pacer.chunk_frames(self.settings)
        options: dict[str, Any] = {"first_chunk_frames": first, "max_chunk_frames": most, **fields}
        options["max_chunk_frames"] = max(
            options["max_chunk_frames"], options["first_chunk_frames"]
        )
        if model in self.adapters:
            options["adapter"] = model
        if scene and scene.strip():
            options["scene"] = scene
        name = voice.id if isinstance(voice, VoiceId) else voice
        if name in ("", "default"):
            name = None
        given = [value for value in (name, body.ref_audio, body.speakers) if value]
        if len(given) > 1:
            raise Problem(
                400,
                "[voice, ref_audio, speakers] expected one of them, got more",
                "invalid_value",
                "voice",
            )
        if body.ref_audio:
            options["speakers"] = [await self.reference(body.ref_audio, body.ref_text)]
        elif body.ref_text is not None:
            raise Problem(400, "[ref_text] expected a ref_audio beside it", "invalid_value")
        elif body.speakers:
            options["speakers"] = [self._named(one) for one in body.speakers]
        elif name is not None:
            options["speakers"] = [self._named(name)]
        return cast(SpeakOptions, options)

    def _named(self, name: str) -> Reference:
        store = self.runtime.voices
        try:
            path = store.path(name)
            state = path.stat()
        except (VoiceError, OSError):
            known = ", ".join(store.names()) or "none"
            raise Problem(
                400,
                f"[voice] expected one of the stored voices ({known}), got {name[:64]!r}",
                "voice_not_found",
                "voice",
            ) from None
        key = f"{path} {state.st_mtime_ns} {state.st_size}"  # as long as the file stays the same
        if (known_voice := self._references.get(key)) is not None:
            return known_voice
        reference = store.load(name).reference()
        self._references.put(key, reference)
        return reference

    def _open_recordings(self) -> RecordingCache | NoRecordings:
        folder = self.settings.recordings
        if folder is None:
            return NoRecordings()
        codec = self.runtime.voices.encoder.fingerprint
        return RecordingCache(folder, codec, max_bytes=self.settings.max_recordings_bytes)

    async def reference(
        self, data: str, transcript: str | None, field: str = "ref_audio"
    ) -> Reference:
        """A recording in base64 as a reference; encoded once for equal bytes and words."""
        if transcript is None or not transcript.strip():
            raise Problem(400, f"[ref_text] expected the words spoken in {field}", "invalid_value")
        audio_bytes = self.decode_base64(data, field)
        key = hashlib.sha256(audio_bytes + b"\0" + transcript.encode()).hexdigest()
        if (known := self._references.get(key)) is not None:
            return known
        check_text(transcript, field="ref_text")
        codes = await asyncio.to_thread(self._known_codes, audio_bytes)
        if codes is None:
            async with self._encoding.turn():
                # Another request may have brought the same recording meanwhile.
                if (known := self._references.get(key)) is not None:
                    return known
                try:
                    codes = await to_its_end(lambda: self._codes(audio_bytes, transcript, field))
                except Exception as error:  # not the model's, which would make it `broken`
                    raise problem_of(error) from error
                return self._keep(key, codes, transcript)  # the next one finds it
        return self._keep(key, codes, transcript)

    def _keep(self, key: str, codes: Codes, transcript: str) -> Reference:
        reference = Reference(codes, transcript.strip())
        self._references.put(key, reference)
        return reference

    def _known_codes(self, data: bytes) -> Codes | None:
        """The codes of a recording on disk, unless it is longer than what is taken now."""
        codes = self._recordings.get(data)
        longest = self.settings.max_reference_seconds * self.runtime.frame_rate
        return None if codes is None or codes.shape[1] > longest + 1 else codes

    def _codes(self, data: bytes, transcript: str, field: str) -> Codes:
        """The codes of a recording, encoded unless that has been done meanwhile."""
        if (known := self._known_codes(data)) is not None:
            return known
        audio = self.read_recording(data, field)
        codes = self.runtime.voices.encoder.encode("reference", audio, transcript).codes
        self._recordings.put(data, codes)
        return codes

    async def add_voice(
        self, name: str, data: bytes, transcript: str, *, replace: bool, gone: Gone
    ) -> None:
        """Encode a recording and store it; Problem 409 when the name is taken.

        Nothing is done for a client that is `gone` when its turn comes.
        """
        self._check_new(name, replace)
        async with self._encoding.turn():
            if await gone():
                raise Problem(499, "the client has gone", "client_gone")
            self._check_new(name, replace)
            await to_its_end(lambda: self._add(name, data, transcript, replace))

    def _add(self, name: str, data: bytes, transcript: str, replace: bool) -> None:
        audio = self.read_recording(data, "ref_audio")
        self.runtime.voices.add(name, audio, transcript, force=replace)

    def _check_new(self, name: str, replace: bool) -> None:
        store = self.runtime.voices
        if not replace and name in store and not store.is_packaged(name):
            raise Problem(409, f"[name] expected a new name, got {name[:64]!r}", "voice_exists")

    def decode_base64(self, data: str, field: str) -> bytes:
        """Bytes of a base64 string or data: URI. Paths and addresses are not followed."""
        text = data.strip()
        inside = _inside_data_uri(text)
        if inside is not None:
            text = inside
        elif _PLACE.match(text):
            raise Problem(
                400,
                f"[{field}] expected the recording itself in base64 or as a data: URI, "
                "got an address or a path; the server opens neither",
                "invalid_value",
                field,
            )
        limit = self.settings.max_reference_bytes
        if len(text) > limit * 4 // 3 + 4:
            raise Problem(413, f"[{field}] expected at most {limit} bytes", "too_large", field)
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise Problem(400, f"[{field}] expected base64", "invalid_value", field) from None

    def read_recording(self, data: bytes, field: str) -> Audio:
        """Samples of an audio file in memory."""
        limit = self.settings.max_reference_bytes
        if len(data) > limit:
            raise Problem(413, f"[{field}] expected at most {limit} bytes", "too_large", field)
        return read_audio_bytes(data, max_seconds=self.settings.max_reference_seconds, where=field)


def _inside_data_uri(text: str) -> str | None:
    """What is behind "data:…;base64,"; None without that header."""
    if not text.startswith("data:"):
        return None
    header, comma, inside = text.partition(",")
    is_header = comma and len(header) < _MAX_URI_HEADER and header.endswith(";base64")
    return inside if is_header else None
