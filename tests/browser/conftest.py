"""One running store with the demo organization, and Chromium."""

import os
import shutil

import pytest
from playwright.sync_api import sync_playwright

from tests.end_to_end.running import Store

# A refusal that a test asks for, and a request that ends because its page is left.
EXPECTED = ("status of 4", "htmx:sendAbort", "htmx:afterRequest")


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    running = Store(tmp_path_factory.mktemp("store"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def chromium():
    path = shutil.which("chromium")
    assert path, "Chromium is missing; install Debian's chromium"
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    # Playwright leaves an event loop in this process, in which Django would refuse the database of later tests.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


def sign_in(store, chromium):
    """What a browser knows once its person has followed the store's sign-in link."""
    context = chromium.new_context(base_url=store.address)
    page = context.new_page()
    page.goto(store.link)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/policy-store/")
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture(scope="session")
def signed_in(store, chromium):
    return sign_in(store, chromium)


@pytest.fixture
def open_page(store, chromium, signed_in):
    """Makes pages of a browser that is signed in; complaints of any of them fail the test."""
    contexts, complaints = [], []

    def make(**options):
        context = chromium.new_context(base_url=store.address, storage_state=signed_in, **options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.complaints = complaints
        return page

    yield make
    for context in contexts:
        context.close()
    assert [text for text in complaints if not any(words in text for words in EXPECTED)] == []
