"""A whole store as the README says it is started, and a person who is signed in to it."""

from __future__ import annotations

import re
import ssl

import httpx

from tests.operations.production import migrated
from tests.operations.running import Quickstart, sign_in


class Store(Quickstart):
    """A running store, and a browser without a screen (httpx) of its first administrator."""

    def __init__(self, folder, *options, **environment):
        migrated(folder)
        super().__init__(folder, *options, environment=environment)
        self.authority = folder / "tls" / "authority.pem"
        self.wait_for("Press Ctrl-C")
        context = ssl.create_default_context(cafile=self.authority) if "--tls" in options else True
        self.serving(verify=context)
        self.browser = httpx.Client(base_url=self.address, verify=context, follow_redirects=True)

    def sign_in(self):
        answer = sign_in(self.browser, self.link)
        assert answer.status_code == 200, answer.text[-2000:]

    def post(self, path, form, *, status=200):
        """Send a form as a page would, with the token that every page carries."""
        token = re.search(r'x-csrftoken": "(\w+)', self.browser.get("/").text).group(1)
        said = {**form, "csrfmiddlewaretoken": token}
        answer = self.browser.post(path, data=said, headers={"referer": f"{self.address}/"})
        assert answer.status_code == status, (path, answer.status_code, answer.text[-2000:])
        return answer

    def close(self):
        self.browser.close()
        self.end()
