"""A small OpenID Connect provider on loopback that signs everybody in as whom the test says; stands for Okta, Entra or Google."""

from __future__ import annotations

import base64
import json
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET = "add-on", "secret-of-the-add-on"


class IdentityProvider:
    """The provider.

    Attributes:
        claims: Whom it signs in.
    """

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {}
        self._key = RSAKey.generate_key(2048, parameters={"kid": "1", "alg": "RS256", "use": "sig"})
        self._nonces: dict[str, str] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider._get(self)

            def do_POST(self) -> None:
                provider._exchange(self)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop answering."""
        self._server.shutdown()

    def _get(self, request: BaseHTTPRequestHandler) -> None:
        parts = urllib.parse.urlsplit(request.path)
        if parts.path == "/jwks":
            _answer(request, {"keys": [self._key.as_dict(private=False)]})
        elif parts.path == "/authorize":
            asked = dict(urllib.parse.parse_qsl(parts.query))
            code = str(len(self._nonces))
            self._nonces[code] = asked.get("nonce", "")
            back = urllib.parse.urlencode({"code": code, "state": asked["state"]})
            request.send_response(302)
            request.send_header("location", f"{asked['redirect_uri']}?{back}")
            request.end_headers()
        else:
            _answer(
                request,
                {
                    "issuer": self.url,
                    "authorization_endpoint": f"{self.url}/authorize",
                    "token_endpoint": f"{self.url}/token",
                    "jwks_uri": f"{self.url}/jwks",
                    "id_token_signing_alg_values_supported": ["RS256"],
                },
            )

    def _exchange(self, request: BaseHTTPRequestHandler) -> None:
        form = dict(urllib.parse.parse_qsl(request.rfile.read(int(request.headers["content-length"])).decode()))
        given = base64.b64decode(request.headers.get("authorization", "").removeprefix("Basic ")).decode()
        assert f"{CLIENT_ID}:{CLIENT_SECRET}" == given
        now = int(time.time())
        standard = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 600,
            "nonce": self._nonces[form["code"]],
        }
        token = jwt.encode({"alg": "RS256", "kid": "1"}, {**standard, **self.claims}, self._key)
        _answer(request, {"access_token": "x", "token_type": "Bearer", "expires_in": 600, "id_token": token})


def _answer(request: BaseHTTPRequestHandler, document: dict[str, Any]) -> None:
    request.send_response(200)
    request.send_header("content-type", "application/json")
    request.end_headers()
    request.wfile.write(json.dumps(document).encode())
