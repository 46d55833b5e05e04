#!/usr/bin/env python3
"""Evaluates the admission policy (CEL) and the Gatekeeper template (Rego) on the fixtures in policies/, and on the pods of
every overlay, which must be admitted. The engines are those of PyPI's cel-python and regopy, not those of a cluster.
"""
import copy
import json

import celpy
import yaml
from regopy import Interpreter

from objects import K8S, OVERLAYS, Findings, Loader, Overlay

FIXTURES = K8S / "tests" / "policies"


class AdmissionPolicy:
    """The ValidatingAdmissionPolicy: variables first, then each validation."""

    def __init__(self) -> None:
        documents = yaml.load_all((K8S / "base" / "09-security.yaml").read_text(), Loader)
        self.spec = next(d for d in documents if d["kind"] == "ValidatingAdmissionPolicy")["spec"]
        self.environment = celpy.Environment()
        self.variables = [(v["name"], self.program(v["expression"])) for v in self.spec["variables"]]
        self.validations = [(self.program(v["expression"]), v["message"]) for v in self.spec["validations"]]

    def program(self, expression: str):
        return self.environment.program(self.environment.compile(expression))

    def refusals(self, pod: dict) -> list[str]:
        scope = {"object": celpy.json_to_cel(pod), "variables": celpy.json_to_cel({})}
        for name, program in self.variables:
            scope["variables"][celpy.celtypes.StringType(name)] = program.evaluate(scope)
        messages = []
        for program, message in self.validations:
            try:
                holds = bool(program.evaluate(scope))
            except celpy.CELEvalError:  # as with failurePolicy Fail
                holds = False
            if not holds:
                messages.append(message)
        return messages


class Gatekeeper:
    """The Rego of the constraint template."""

    def __init__(self) -> None:
        template = yaml.load((K8S / "components" / "gatekeeper" / "template.yaml").read_text(), Loader)
        self.rego = Interpreter()
        self.rego.add_module("template", template["spec"]["targets"][0]["code"][0]["source"]["rego"])

    def refusals(self, pod: dict) -> list[str]:
        self.rego.set_input({"review": {"object": pod}})
        answer = json.loads(str(self.rego.query("data.millstreampods.violation")))
        found = answer["result"][0]["expressions"][0] if "result" in answer else answer["expressions"][0]
        return [v["msg"] for v in found]


def changed(pod: dict, change: dict) -> dict:
    """The pod with other values at some paths; None takes a field away."""
    pod = copy.deepcopy(pod)
    for path, value in change.items():
        steps, here = path.split("."), pod
        for step in steps[:-1]:
            here = here[int(step)] if isinstance(here, list) else here.setdefault(step, {})
        if value is None:
            here.pop(steps[-1], None)
        else:
            here[steps[-1]] = value
    return pod


def main() -> None:
    f = Findings()
    engines = [("ValidatingAdmissionPolicy", AdmissionPolicy()), ("Gatekeeper", Gatekeeper())]
    good = yaml.load((FIXTURES / "good.yaml").read_text(), Loader)
    bad = yaml.load((FIXTURES / "bad.yaml").read_text(), Loader)
    admitted = [("good.yaml", good)]
    for name in OVERLAYS:
        for p in Overlay(name).pods():
            admitted.append((f"{name}: {p.owner}", {"metadata": {"name": p.owner, "labels": p.labels}, "spec": p.spec}))
    for engine, policy in engines:
        for name, pod in admitted:
            refusals = policy.refusals(pod)
            f.check(not refusals, f"{engine} refuses {name}: {refusals}")
        for fixture in bad:
            if fixture["refused-by"] != "policy":
                continue
            refusals = policy.refusals(changed(good, fixture["change"]))
            f.check(any(fixture["message"] in r for r in refusals), f"{engine} admits {fixture['name']}: {refusals}")
    f.done("policies")


if __name__ == "__main__":
    main()
