"""A mock in a separate process, as `chartferry mock serve` runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mocks.mock_config import MockConfig
from mocks.serving import serve
from mocks.web_server import ServingError
from tests.integration.mocks.raw_client import Http

PROGRAM = """
import sys
from mocks.mock_config import MockConfig
from mocks.serving import run_forever
data = [{"resourceType": "Patient", "id": "p1"}]
run_forever(MockConfig(data=data, open=True), "127.0.0.1", 0, lambda served: print(served.base_url, flush=True))
"""


def test_it_announces_itself_answers_and_ends_quickly_on_an_interrupt() -> None:
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        base_url = process.stdout.readline().strip()
        with Http() as http:
            assert http.get(f"{base_url}/Patient/p1").json()["id"] == "p1"
            process.send_signal(signal.SIGINT)
            assert process.wait() == 0
        assert process.stderr.read() == ""


def test_a_port_in_use_is_reported() -> None:
    config = MockConfig(data=[{"resourceType": "Patient", "id": "p1"}], open=True)
    with serve(config) as first:
        port = int(first.base_url.split(":")[2].split("/")[0])
        with pytest.raises(ServingError, match=rf"cannot listen on 127\.0\.0\.1:{port}"), serve(config, port=port):
            pass
