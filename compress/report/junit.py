"""JUnit XML, as build servers read it: suites of cases that passed, failed or were skipped."""

import xml.etree.ElementTree as xml
from collections.abc import Iterable, Mapping
from typing import Literal

from compress.report.table import printable

Outcome = Literal["passed", "failure", "skipped"]


def testsuites(title: str, suites: Iterable[xml.Element]) -> str:
    """The XML document of some suites, with the counts that readers want at the top."""
    root = xml.Element("testsuites", name=printable(title))
    root.extend(suites)
    for count in ("tests", "failures", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    xml.indent(root)
    return xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def suite(
    name: str, cases: Iterable[tuple[str, Outcome, str]], properties: Mapping[str, str] | None = None
) -> xml.Element:
    """A suite of cases, each with its name, its outcome and why it came out so."""
    listed = list(cases)
    count = {outcome: sum(case[1] == outcome for case in listed) for outcome in ("failure", "skipped")}
    element = xml.Element(
        "testsuite",
        name=printable(name),
        tests=str(len(listed)),
        failures=str(count["failure"]),
        skipped=str(count["skipped"]),
        errors="0",
    )
    if properties:
        inner = xml.SubElement(element, "properties")
        for key, value in properties.items():
            xml.SubElement(inner, "property", name=printable(key), value=printable(value))
    for title, outcome, why in listed:
        case = xml.SubElement(element, "testcase", name=printable(title), classname=printable(name))
        if outcome != "passed":
            xml.SubElement(case, outcome, message=printable(why))
        elif why:
            xml.SubElement(case, "system-out").text = printable(why)
    return element
