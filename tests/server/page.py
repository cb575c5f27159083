#!/usr/bin/env python3
"""The page at "/" in a real browser (Chromium), on a wide window and on a small phone.

Usage: page.py NIBBLE MODEL [SCREENSHOTS]
(the program, a checkpoint directory with a tokenizer, and a folder for pictures to look at)
Exits with 77, saying why, where `playwright` or Chromium is missing; `./dev clients` installs them.
"""
import importlib.util
import pathlib
import re
import shutil
import sys
import time
import urllib.parse

from clients import KEY, Server

SIZES = {"wide": (1280, 800), "phone": (320, 568)}


def number(text):
    match = re.match(r"[\d.]+", text)
    assert match, f"no number: {text!r}"
    return float(match[0])


class Page:
    """The page in one window, with what it asked for and what went wrong."""

    def __init__(self, browser, address, size):
        self.tab = browser.new_page(viewport=dict(zip(("width", "height"), size)))
        self.asked, self.wrong = [], []
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.goto(address)

    def text(self, name):
        return self.tab.text_content("#" + name)

    def wait(self, condition, seconds=60):
        """By asking again and again: the page's policy forbids what playwright would install."""
        end = time.monotonic() + seconds
        while not self.tab.evaluate(condition):
            assert time.monotonic() < end, condition
            time.sleep(0.02)

    def send(self):
        self.tab.click("#send")

    def wait_for_end(self, label):
        self.wait(f"document.getElementById('send').textContent === '{label}'")

    def set(self, **settings):
        for name, value in settings.items():
            self.tab.evaluate("([id, value]) => { document.getElementById(id).value = value; }",
                              [name, str(value)])


def check_key(page):
    """Without a key nothing is named and a question gets the server's own words."""
    page.wait("document.getElementById('model').textContent.includes('API key')")
    assert page.tab.evaluate("document.querySelector('details').open")
    page.tab.fill("#say", "Hello")
    page.send()
    page.wait("document.querySelector('.turn.bad') !== null")
    assert page.tab.text_content(".turn.bad").strip()
    page.tab.click("#clear")
    page.tab.fill("#key", KEY)
    page.tab.dispatch_event("#key", "change")


def check_chat(page):
    page.set(max_tokens=24, temperature=0)
    page.tab.fill("#say", "It was a dark night")
    page.send()
    page.wait_for_end("Send")
    turns = page.tab.locator(".turn").all_text_contents()
    assert turns[0] == "It was a dark night" and len(turns) == 2 and turns[1].strip(), turns
    assert number(page.text("speed")) > 0 and number(page.text("first")) >= 0
    # The same question again, to the same model, greedily: the same answer.
    page.tab.click("#clear")
    assert page.tab.locator(".turn").count() == 0
    page.tab.fill("#say", "It was a dark night")
    page.send()
    page.wait_for_end("Send")
    assert page.tab.locator(".turn").all_text_contents() == turns


def check_completion(page):
    page.tab.click("#tab-text")
    page.set(max_tokens=16)
    page.tab.fill("#text", "Once upon a time")
    page.send()
    page.wait_for_end("Continue")
    text = page.tab.input_value("#text")
    assert text.startswith("Once upon a time") and len(text) > len("Once upon a time"), text


def check_stop(page):
    """A long answer is stopped by the button, and the server forgets it."""
    page.set(max_tokens=900, temperature=1)
    page.tab.fill("#text", "The sea")
    page.send()
    page.wait("document.getElementById('text').value.length > 40")
    page.send()
    page.wait_for_end("Continue")
    page.wait("document.getElementById('queue').textContent === '0 / 0'")
    assert number(page.text("cache")) == 0
    # One answer at a time: the server is hardly faster than what was seen of it.
    assert number(page.text("total")) <= 3 * number(page.text("speed"))


def check_error(page):
    page.set(max_tokens=0)
    page.send()
    page.wait("!document.getElementById('problem').hidden")
    assert page.text("problem").strip()
    page.wait_for_end("Continue")


def check_shape(page, address):
    """Nothing is cut off to the right, everything has a name, and all of it comes from here."""
    width = page.tab.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1], width
    for control in page.tab.locator("input, textarea, button").all():
        if not control.is_visible():
            continue
        box = control.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width[1] + 0.5, box
        named = control.evaluate(
            "e => e.labels?.length > 0 || e.ariaLabel || e.textContent.trim() !== ''")
        assert named, control.get_attribute("id")
    host = urllib.parse.urlsplit(address).netloc
    assert {urllib.parse.urlsplit(url).netloc for url in page.asked} == {host}, page.asked
    assert not page.wrong, page.wrong


def main(program, model, pictures=None):
    if importlib.util.find_spec("playwright") is None:
        print("SKIPPED: the Python package playwright is not installed (see ./dev clients)")
        return 77
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("SKIPPED: there is no Chromium")
        return 77
    from playwright.sync_api import sync_playwright

    with Server(program, model) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, size in SIZES.items():
            page = Page(browser, server.address, size)
            for check in (check_key, check_chat, check_completion, check_stop, check_error):
                check(page)
                if pictures:
                    page.tab.screenshot(
                        path=pathlib.Path(pictures) / f"{name}_{check.__name__[6:]}.png")
            check_shape(page, server.address)
            page.tab.close()
            print(f"{name}: ok")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
