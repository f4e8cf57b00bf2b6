"""Prints "passed failed skipped" of a JUnit report, as written by ctest and by pytest."""

import sys
import xml.etree.ElementTree as ElementTree


def count(report: str) -> tuple[int, int, int]:
    passed = failed = skipped = 0
    for case in ElementTree.parse(report).iter("testcase"):
        # ctest marks a failed case with a status as well as an element; pytest has elements only.
        if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
            failed += 1
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


if __name__ == "__main__":
    print(*count(sys.argv[1]))
