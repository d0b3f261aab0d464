"""What tests of the live page in a real browser need: Chromium, the page's server as a process, and
a namespace with records."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from page_records import Writer
from playwright.sync_api import Error, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
MISSING = "no Chromium: install it by `make browser`"


def chromium_of(playwright):
    """The path of a Chromium on this machine, None without one."""
    for found in (*map(shutil.which, NAMES), playwright.chromium.executable_path):
        if found and Path(found).exists():
            return found
    return None


@pytest.fixture(scope="module")
def browser():
    """One Chromium for a module: Playwright keeps an event loop running in this thread meanwhile,
    beside which tests of other modules could start none of their own."""
    with sync_playwright() as playwright:
        path = chromium_of(playwright)
        if path is None:
            pytest.skip(MISSING)
        # root has no sandbox; only pages of ours are opened
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        try:
            running = playwright.chromium.launch(executable_path=path, args=arguments)
        except Error as error:
            pytest.skip(f"{path} does not start: {str(error).splitlines()[0]}")
        yield running
        running.close()


@pytest.fixture
def view(browser):
    """A browser's tab that fails the test for any error of the page's scripts."""
    context = browser.new_context(viewport={"width": 1600, "height": 950}, color_scheme="dark")
    tab = context.new_page()
    tab.set_default_timeout(30_000)
    errors = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    tab.page_errors = errors
    yield tab
    context.close()
    # a server that is away on purpose is an error in the console
    assert [each for each in errors if "WebSocket" not in each and "net::" not in each] == []


class Dashboard:
    """`infoway-streams dashboard` as a process."""

    def __init__(self, stack, names, port=0):
        self._stack, self._names, self.port = stack, names, port
        self.url = ""
        self.start()

    def start(self):
        """Start it, and wait for its address."""
        names = self._names
        self._process = subprocess.Popen(
            [sys.executable, "-m", "infra", "dashboard", "--port", str(self.port)],
            env={
                **os.environ,
                "INFOWAY_BOOTSTRAP": self._stack.bootstrap,
                "INFOWAY_REGISTRY": self._stack.registry_url,
                "INFOWAY_PREFIX": names.prefix,
                "INFOWAY_INTERVALS": ",".join(names.intervals),
                "INFOWAY_WINDOWS": ",".join(names.windows),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self._process.stdout.readline()
        assert line.startswith("page http://127.0.0.1:"), line
        self.url = line.removeprefix("page ").strip()
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    @property
    def pid(self):
        """The process's id."""
        return self._process.pid

    def stop(self):
        """End it."""
        self._process.terminate()
        assert self._process.wait(60) == 0
        self._process.stdout.close()


@pytest.fixture
def writer(stack, namespace):
    """A namespace's topics, and what writes to them."""
    return Writer(stack, namespace)


@pytest.fixture
def dashboard(stack, writer):
    """The page's server of the namespace."""
    running = Dashboard(stack, writer.names)
    yield running
    running.stop()


def evaluate(tab, expression):
    """What an expression of the page's modules is: `page` has what main.js exports."""
    return tab.evaluate(f"import('/static/main.js').then((page) => {expression})")


def wait_until(is_true, seconds=30.0, what="it"):
    """Wait until something holds, looking at it again and again."""
    give_up = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < give_up, f"{what} did not come within {seconds} s"
        time.sleep(0.05)


def wait_for(tab, expression, seconds=30.0):
    """Wait until an expression is true; Playwright's own waiting evaluates text in the page, which
    its policy forbids."""
    wait_until(lambda: tab.evaluate(expression), seconds, expression)
