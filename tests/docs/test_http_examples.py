"""examples/http is a session that works when each request is sent in turn."""

import json
import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.support.client import Answer, OverHttp

SESSION = Path("examples/http/first-session.http")
PLACEHOLDER = re.compile(r"\{\{(.+?)\}\}")
OF_RESPONSE = re.compile(r"(\w+)\.response\.body\.\$\.(\w+)")


@dataclass
class HttpFile:
    """A file of the REST Client, with the variables and named responses so far."""

    variables: dict[str, str]
    responses: dict[str, Any]

    def fill(self, text: str) -> str:
        return PLACEHOLDER.sub(lambda found: self._value(found[1]), text)

    def _value(self, name: str) -> str:
        if name == "$guid":
            return str(uuid4())
        if of_response := OF_RESPONSE.fullmatch(name):
            return str(self.responses[of_response[1]][of_response[2]])
        return self.variables[name]

    def send(self, section: str, sender: OverHttp) -> Answer:
        """Send the request of a section, which begins with its title."""
        head, _, body = self.fill(section.partition("\n")[2]).partition("\n\n")
        named = re.search(r"# @name (\w+)", head)
        request, *headers = [line for line in head.splitlines() if not line.startswith("#")]
        method, url = request.split()
        fields = dict(line.split(": ", 1) for line in headers)
        path = url.removeprefix(self.variables["api"].removesuffix("/api/v1"))
        answer = sender.send(method, path, body.strip().encode() or None, fields)
        if named:
            self.responses[named[1]] = json.loads(answer.content)
        return answer


def test_requests_of_the_session_succeed(service: str) -> None:
    definitions, *sections = re.split(r"^### ", SESSION.read_text(), flags=re.MULTILINE)
    file = HttpFile(dict(re.findall(r"^@(\w+) = (.*)$", definitions, re.MULTILINE)), {})
    sender = OverHttp(service)
    with closing(sender.connection):
        answers = {section.splitlines()[0]: file.send(section, sender) for section in sections}
    assert {
        title: answer.status for title, answer in answers.items() if answer.status not in (200, 201)
    } == {}
    found = answers["Find everything that belongs to the order"].json["items"]
    assert [item["operationType"] for item in found] == ["REVERSAL_OUT", "DEPOSIT"]
    assert answers["Read the wallet"].json["balance"] == "59.50"
    assert answers["Download the statement"].content.count(b"\n") == 7
