#!/usr/bin/env python3
"""Renders every overlay into dist/, and the PrometheusRule out of base/monitoring. With --check nothing is written: it
ends with 1 if a file differs from what it would write.

The command that renders is in KUSTOMIZE (`kubectl kustomize` or `kustomize build`).
"""
import os
import subprocess
import sys

import yaml

from objects import K8S, OVERLAYS, Loader

RULE = K8S / "components" / "prometheus-operator" / "prometheus-rule.yaml"
HEAD = "# Made of base/monitoring/*.rules.yaml by dev/k8s-check.sh --write; do not edit.\n"


class Text(str):
    """A text that is written as a block if it has several lines."""


def write_text(dumper, value):
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(value), style="|" if "\n" in value else None)


yaml.SafeDumper.add_representer(Text, write_text)


def as_text(value):
    if isinstance(value, dict):
        return {k: as_text(v) for k, v in value.items()}
    if isinstance(value, list):
        return [as_text(v) for v in value]
    return Text(value) if isinstance(value, str) else value


def prometheus_rule() -> str:
    groups = []
    for name in ("recording.rules.yaml", "alerts.rules.yaml"):
        groups += yaml.safe_load((K8S / "base" / "monitoring" / name).read_text())["groups"]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "millstream", "namespace": "millstream"},
        "spec": {"groups": as_text(groups)},
    }
    return HEAD + yaml.safe_dump(rule, sort_keys=False, width=1000, allow_unicode=True)


def documents(text: str) -> list:
    return sorted((d for d in yaml.load_all(text, Loader) if d), key=lambda d: (d["kind"], d["metadata"]["name"]))


def main() -> None:
    check = "--check" in sys.argv
    wrong = []

    def put(path, text):
        if check:
            # Versions of kustomize differ in layout, not in content.
            if not path.exists() or documents(path.read_text()) != documents(text):
                wrong.append(str(path.relative_to(K8S.parent)))
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    put(RULE, prometheus_rule())
    command = os.environ.get("KUSTOMIZE", "kubectl kustomize").split()
    running = {
        o: subprocess.Popen(command + [str(K8S / "overlays" / o)], stdout=subprocess.PIPE, text=True) for o in OVERLAYS
    }
    # Components that no overlay takes.
    others = subprocess.Popen(command + [str(K8S / "tests" / "with-policy-engines")], stdout=subprocess.DEVNULL)
    for overlay, process in running.items():
        text, _ = process.communicate()
        if process.returncode != 0:
            sys.exit(f"the overlay {overlay} does not render")
        head = f"# Made of k8s/overlays/{overlay} by dev/k8s-check.sh --write; do not edit.\n"
        put(K8S / "dist" / f"{overlay}.yaml", head + text)
    if others.wait() != 0:
        sys.exit("the components for policy engines do not render")
    if wrong:
        sys.exit(f"not up to date, run dev/k8s-check.sh --write: {', '.join(wrong)}")
    print(f"{len(OVERLAYS)} overlays " + ("render as in dist/" if check else "written to dist/"))


if __name__ == "__main__":
    main()
