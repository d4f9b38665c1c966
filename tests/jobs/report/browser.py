"""A page in headless Chromium, driven over the DevTools protocol: evaluate, click, press keys."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

START_S, ANSWER_S = 90, 60


def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium is installed")


class Page:
    """One open page."""

    def __init__(self, address: str, loop: asyncio.AbstractEventLoop) -> None:
        self._address, self._loop, self._number = address, loop, 0
        self.errors: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, params), ANSWER_S))

    async def open(self) -> None:
        import aiohttp

        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(self._address, max_msg_size=64 << 20)

    async def close(self) -> None:
        await self._socket.close()
        await self._session.close()

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            answer = json.loads((await self._socket.receive()).data)
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(answer["params"]["exceptionDetails"]["exception"].get("description", "error"))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def evaluate(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def click(self, selector: str, x_share: float = 0.5, y_share: float = 0.5) -> None:
        """A real mouse click in the middle of the first element that fits, or elsewhere in it."""
        box = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            "return [b.left, b.top, b.width, b.height]; })()"
        )
        at = {"x": box[0] + x_share * box[2], "y": box[1] + y_share * box[3]}
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = "none" if kind == "mouseMoved" else "left"
            self.call("Input.dispatchMouseEvent", type=kind, button=button, clickCount=1, **at)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)


@contextmanager
def opened(page: Path, profile: Path, *, width_px: int = 1200) -> Iterator[Page]:
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    command += [f"--user-data-dir={profile}", f"--window-size={width_px},900", page.as_uri()]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loop = asyncio.new_event_loop()
    try:
        address = _address_of(profile, browser)
        view = Page(address, loop)
        loop.run_until_complete(view.open())
        view.call("Runtime.enable")
        until_s = time.monotonic() + START_S
        # The first page of a new browser is an empty one.
        while not view.evaluate("location.protocol === 'file:' && document.readyState === 'complete'"):
            assert time.monotonic() < until_s, "the page never loaded"
            time.sleep(0.1)
        yield view
        loop.run_until_complete(view.close())
    finally:
        browser.terminate()
        browser.wait(timeout=30)
        loop.close()


def _address_of(profile: Path, browser: subprocess.Popen[bytes]) -> str:
    """Of the page's debugger, once the browser has said on which port it listens."""
    import urllib.request

    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        assert browser.poll() is None, "Chromium ended"
        try:
            port = (profile / "DevToolsActivePort").read_text().split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
                targets = json.load(answer)
            return next(str(t["webSocketDebuggerUrl"]) for t in targets if t["type"] == "page")
        except (OSError, IndexError, StopIteration):
            time.sleep(0.2)
    raise AssertionError("Chromium did not open its debugger")
