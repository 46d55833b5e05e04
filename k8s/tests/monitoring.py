#!/usr/bin/env python3
"""Alerts, recording rules, routes, dashboard and runbooks fit each other and the metrics that the engine has.

    monitoring.py [AMTOOL]     the tool checks and asks the routes; without it they are only compared
"""
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from objects import K8S, OVERLAYS, REPOSITORY, Findings, Loader, Overlay, pending, sources

MONITORING = K8S / "base" / "monitoring"
RUNBOOKS = REPOSITORY / "docs" / "runbooks"
# The alerts of the specification, with their severities.
EXPECTED = {
    "DriverDown": {"critical"}, "SplitBrain": {"critical"}, "NoStandby": {"warning"}, "LeaderFlapping": {"warning"},
    "ExecutorsBelowMin": {"critical"}, "ExecutorLossRate": {"critical"}, "HighTaskFailure": {"critical"},
    "StreamingDelay": {"critical"}, "BacklogGrowing": {"warning"}, "CheckpointStale": {"critical"},
    "CheckpointFailing": {"warning"}, "RecoveryLoop": {"critical"}, "MemoryPressure": {"warning"},
    "DiskFilling": {"warning"}, "ObjectStoreErrors": {"critical"}, "DeadLetterRate": {"warning"},
    "BackpressureSustained": {"warning"}, "AtMaxReplicas": {"warning"}, "BackupMissed": {"critical"},
    "RestoreDrillFailed": {"critical"}, "CertificateExpiring": {"warning", "critical"}, "SLOBurn": {"critical"},
    "Watchdog": {"none"},
}
RECEIVER = {"warning": "millstream-slack", "critical": "millstream-pagerduty", "none": "millstream-watchdog"}
HEADINGS = ["What it means", "What users see", "How to check", "What to do"]


def load(path: Path):
    return yaml.load(path.read_text(), Loader)


def rules(name: str) -> list[dict]:
    return [r for g in load(MONITORING / name)["groups"] for r in g["rules"]]


def used(expression: str) -> tuple[set[str], set[str]]:
    """Metrics of the engine and recorded series that an expression names."""
    recorded = set(re.findall(r"millstream:[a-z0-9_:]+", expression))
    plain = set(re.findall(r"(?<![:\w])millstream_[a-z0-9_]+", expression))
    return {re.sub(r"_(bucket|sum|count)$", "", m) for m in plain}, recorded


def metrics(f: Findings) -> None:
    known = set(re.findall(r'"(millstream_[a-z0-9_]+)"', sources()))
    waiting = pending("metric")
    for name in sorted(waiting & known):
        f.check(False, f"{name} is there now: take it off k8s/tests/pending.txt")
    recorded = {r["record"] for r in rules("recording.rules.yaml")}
    needed, places = set(), []
    for rule in rules("recording.rules.yaml") + rules("alerts.rules.yaml"):
        places.append((rule.get("alert") or rule["record"], rule["expr"]))
    dashboard = json.loads((MONITORING / "millstream-dashboard.json").read_text())
    ids = [p["id"] for p in dashboard["panels"]]
    f.check(len(ids) == len(set(ids)), "dashboard: two panels of one id")
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            places.append((f"panel '{panel['title']}'", target["expr"]))
            f.check('namespace="$namespace"' in target["expr"], f"panel '{panel['title']}' shows all namespaces")
    places += [("annotation", a["expr"]) for a in dashboard["annotations"]["list"]]
    for place, expression in places:
        plain, series = used(expression)
        needed |= plain
        f.check(plain <= known | waiting, f"{place}: nobody exports {plain - known - waiting}")
        f.check(series <= recorded, f"{place}: nobody records {series - recorded}")
    f.check(waiting <= needed, f"pending, but nobody uses {waiting - needed}")


def alerts(f: Findings) -> None:
    found: dict[str, set] = {}
    for rule in rules("alerts.rules.yaml"):
        name = rule["alert"].removeprefix("Millstream")
        found.setdefault(name, set()).add(rule["labels"]["severity"])
        url = rule["annotations"]["runbook_url"]
        f.check(url.endswith(f"/docs/runbooks/{rule['alert']}.md"), f"{name}: {url}")
        f.check({"summary", "description"} <= set(rule["annotations"]), f"{name}: texts")
        page = RUNBOOKS / f"{rule['alert']}.md"
        f.check(page.exists(), f"{name}: there is no {page.relative_to(REPOSITORY)}")
        if page.exists():
            headings = re.findall(r"^## (.*)$", page.read_text(), re.M)
            f.check(headings == HEADINGS, f"{page.name}: headings {headings}")
    f.check(found == EXPECTED, f"alerts differ from the specification: {sorted(k for k in found.keys() | EXPECTED.keys() if found.get(k) != EXPECTED.get(k))}")
    for page in RUNBOOKS.glob("Millstream*.md"):
        f.check(page.stem.removeprefix("Millstream") in found, f"{page.name} belongs to no alert")

    fired, silent, recorded = set(), set(), set()
    for path in (K8S / "tests" / "rules").glob("*.test.yaml"):
        for test in load(path)["tests"]:
            for case in test.get("alert_rule_test", []):
                (fired if case["exp_alerts"] else silent).add(case["alertname"])
            recorded |= {case["expr"] for case in test.get("promql_expr_test", [])}
    for name in found:
        f.check(f"Millstream{name}" in fired, f"{name}: no test in which it fires")
        f.check(f"Millstream{name}" in silent or name == "Watchdog", f"{name}: no test in which it keeps silent")
    for rule in rules("recording.rules.yaml"):
        f.check(rule["record"] in recorded, f"{rule['record']}: no test")


def commands(f: Findings) -> None:
    """What the runbooks' commands name is there: objects, and addresses of the programs."""
    objects = {(o["kind"].lower(), o["metadata"]["name"]) for name in OVERLAYS for o in Overlay(name).objects}
    pages = {"livez", "readyz", "startupz", "metrics"} | {"api/v1/jobs"}
    for page in sorted(RUNBOOKS.glob("*.md")):
        text = page.read_text()
        for kind, name in re.findall(r"\b(statefulset|service|cronjob)/(millstream-[a-z-]+[a-z])", text):
            f.check((kind, name) in objects, f"{page.name}: no {kind} {name}")
        for kind, name in re.findall(r"\b(configmap|lease|resourcequota|serviceaccount|certificate) (millstream[a-z-]*)", text):
            f.check((kind, name) in objects, f"{page.name}: no {kind} {name}")
        for path in re.findall(r"curl -s localhost:18?08[01]/([^ \n]+)", text):
            f.check(path in pages or path.startswith("api/v1/jobs/PIPELINE/"), f"{page.name}: no page /{path}")
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            f.check((page.parent / link).exists(), f"{page.name}: no page {link}")


def as_file(config: dict) -> dict:
    """The routing tree of an AlertmanagerConfig in the words of Alertmanager's own file."""
    snake = {"groupBy": "group_by", "groupWait": "group_wait", "groupInterval": "group_interval", "repeatInterval": "repeat_interval"}

    def matchers(given):
        return [f'{m["name"]} {m["matchType"]} "{m["value"]}"' for m in given]

    def route(r):
        out = {snake.get(k, k): v for k, v in r.items() if k not in ("routes", "matchers")}
        if "matchers" in r:
            out["matchers"] = matchers(r["matchers"])
        if "routes" in r:
            out["routes"] = [route(x) for x in r["routes"]]
        return out

    inhibit = [
        {"source_matchers": matchers(i["sourceMatch"]), "target_matchers": matchers(i["targetMatch"]), "equal": i["equal"]}
        for i in config["inhibitRules"]
    ]
    return {"route": route(config["route"]), "inhibit_rules": inhibit, "receivers": sorted(r["name"] for r in config["receivers"])}


def routes(f: Findings, amtool: str | None) -> None:
    path = MONITORING / "alertmanager.yaml"
    plain = load(path)
    operator = as_file(load(K8S / "components" / "prometheus-operator" / "alertmanager-config.yaml")["spec"])
    f.check(plain["route"] == operator["route"], "AlertmanagerConfig and alertmanager.yaml route differently")
    f.check(plain["inhibit_rules"] == operator["inhibit_rules"], "AlertmanagerConfig and alertmanager.yaml inhibit differently")
    f.check(sorted(r["name"] for r in plain["receivers"]) == operator["receivers"], "their receivers differ")
    if not amtool:
        return
    checked = subprocess.run([amtool, "check-config", str(path)], capture_output=True, text=True)
    f.check(checked.returncode == 0, f"amtool check-config: {checked.stderr or checked.stdout}")
    for rule in rules("alerts.rules.yaml"):
        severity = rule["labels"]["severity"]
        asked = subprocess.run(
            [amtool, "config", "routes", "test", f"--config.file={path}", f"--verify.receivers={RECEIVER[severity]}",
             f"alertname={rule['alert']}", f"severity={severity}", "namespace=millstream"],
            capture_output=True, text=True,
        )
        f.check(asked.returncode == 0, f"{rule['alert']} {severity}: goes to {asked.stdout.strip()}")


def scrape(f: Findings, promtool: str | None) -> None:
    if not promtool:
        return
    config = yaml.load(load(K8S / "base" / "08-monitoring.yaml")["data"]["millstream.scrape.yaml"], Loader)
    # Debian builds Prometheus without the discovery of Kubernetes: what is left is checked.
    discovery = config["scrape_configs"][0].pop("kubernetes_sd_configs")
    f.check(discovery == [{"role": "pod", "namespaces": {"names": ["millstream"]}}], f"scrape configuration: {discovery}")
    text = yaml.safe_dump(config)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        checked = subprocess.run([promtool, "check", "config", "--syntax-only", file.name], capture_output=True, text=True)
        f.check(checked.returncode == 0, f"scrape configuration: {checked.stderr}")


def main() -> None:
    tools = dict(zip(("amtool", "promtool"), sys.argv[1:]))
    f = Findings()
    metrics(f)
    alerts(f)
    commands(f)
    routes(f, tools.get("amtool"))
    scrape(f, tools.get("promtool"))
    f.done("monitoring")


if __name__ == "__main__":
    main()
