"""The rendered overlays as Python objects, for the other checks."""
from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

import yaml

# YAML 1.1 has a type for a plain `=`, which PyYAML cannot make.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: loader.construct_scalar(node))

K8S = Path(__file__).resolve().parent.parent
REPOSITORY = K8S.parent
OVERLAYS = ["dev", "prod-aws", "prod-gcp", "prod-azure", "dr-standby"]


@dataclass
class Pod:
    """A pod template: who makes such pods, how many at most, and what is in it."""

    owner: str
    kind: str
    labels: dict
    spec: dict
    replicas: int
    claims: list = field(default_factory=list)
    owner_spec: dict = field(default_factory=dict)

    @property
    def containers(self) -> list[dict]:
        return self.spec["containers"] + self.spec.get("initContainers", [])

    @property
    def component(self) -> str:
        return self.labels.get("app.kubernetes.io/component", "")

    def ports(self) -> dict:
        """Container ports by name and by number."""
        named = {p["name"]: p["containerPort"] for c in self.containers for p in c.get("ports", [])}
        return named | {number: number for number in named.values()}


class Overlay:
    """All objects of one rendered overlay."""

    def __init__(self, name: str):
        self.name = name
        text = (K8S / "dist" / f"{name}.yaml").read_text()
        self.objects = [o for o in yaml.load_all(text, Loader) if o]

    def of(self, *kinds: str) -> list[dict]:
        return [o for o in self.objects if o["kind"] in kinds]

    def names(self, *kinds: str) -> set[str]:
        return {o["metadata"]["name"] for o in self.of(*kinds)}

    def get(self, kind: str, name: str) -> dict | None:
        return next((o for o in self.of(kind) if o["metadata"]["name"] == name), None)

    def pods(self) -> Iterator[Pod]:
        for o in self.of("StatefulSet", "Deployment"):
            template = o["spec"]["template"]
            yield Pod(
                o["metadata"]["name"], o["kind"], template["metadata"]["labels"], template["spec"],
                o["spec"].get("replicas", 1), o["spec"].get("volumeClaimTemplates", []), o["spec"],
            )
        for o in self.of("CronJob"):
            job = o["spec"]["jobTemplate"]["spec"]
            template = job["template"]
            yield Pod(o["metadata"]["name"], "CronJob", template["metadata"]["labels"], template["spec"], 1, [], job)


def selects(selector: dict, labels: dict) -> bool:
    """Whether a label selector (matchLabels, matchExpressions with In) takes these labels."""
    if any(labels.get(k) != v for k, v in (selector.get("matchLabels") or {}).items()):
        return False
    for e in selector.get("matchExpressions") or []:
        if e["operator"] != "In":
            raise ValueError(f"operator {e['operator']} of a selector is not known to the checks")
        if labels.get(e["key"]) not in e["values"]:
            return False
    return True


class Findings:
    """What is wrong. `done` ends the program with 1 if there is anything."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.checked = 0

    def check(self, holds: bool, message: str) -> None:
        self.checked += 1
        if not holds:
            self.found.append(message)

    def done(self, what: str) -> None:
        for message in self.found:
            print(f"  {message}", file=sys.stderr)
        if self.found:
            sys.exit(f"{what}: {len(self.found)} of {self.checked} checks failed")
        print(f"{what}: {self.checked} checks")


def pending(kind: str) -> set[str]:
    """Names of one kind (metric, variable, command) that the manifests use and the engine does not have yet."""
    lines = (Path(__file__).parent / "pending.txt").read_text().splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    return {w[1] for w in words if w[0] == kind}


def sources() -> str:
    """The text of the engine's own source files."""
    return "\n".join(p.read_text() for p in sorted((REPOSITORY / "crates").glob("*/src/**/*.rs")))
