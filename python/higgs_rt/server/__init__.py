"""`higgs-rt serve`: an OpenAI-compatible HTTP server over the runtime (extra `[serve]`).

from higgs_rt import Runtime
from higgs_rt.server import ServerSettings, create_app

app = create_app(Runtime.load(), ServerSettings())   # any ASGI server runs it
"""

from higgs_rt.server.app import create_app
from higgs_rt.server.settings import ServerSettings

__all__ = ["ServerSettings", "create_app"]
