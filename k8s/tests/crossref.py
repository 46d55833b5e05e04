#!/usr/bin/env python3
"""Whatever one object says about another must hold: selectors, ports, probes, accounts, ConfigMaps, Secrets, policies,
budgets, classes, quotas, and the numbers that stand in several places.
"""
import re
import tomllib
from math import ceil

from objects import OVERLAYS, Findings, Overlay, Pod, pending, selects, sources

# Made by others: by Kubernetes, by the ingress controller's certificate, and by hand where no component makes them.
FOREIGN_CONFIG_MAPS = {"kube-root-ca.crt"}
FOREIGN_SECRETS = {"millstream-ingress-tls"}
# The leader puts this label on its own pod.
RUNTIME_LABELS = {"millstream/role"}
# Executors that end while their successors start, and drivers.
SURGE = {"millstream-executor": 2, "millstream-driver": 1}
DRAIN_SECONDS = 30
UNITS = {"": 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def quantity(text) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)(m|[KMGT]i)?", str(text)).groups()
    return float(number) * UNITS[unit or ""]


def same_namespace(o: Overlay, f: Findings) -> None:
    for x in o.objects:
        namespace = x["metadata"].get("namespace")
        cluster_wide = x["kind"] in {
            "Namespace", "StorageClass", "PriorityClass", "VolumeSnapshotClass",
            "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
        }
        right = namespace is None if cluster_wide else namespace == ("velero" if x["kind"] == "Schedule" else "millstream")
        f.check(right, f"{x['kind']} {x['metadata']['name']} is in namespace {namespace}")


def workloads(o: Overlay, pods: list[Pod], f: Findings) -> None:
    for p in pods:
        if p.kind != "CronJob":
            f.check(selects(p.owner_spec["selector"], p.labels), f"{p.owner} does not select its own pods")
        if p.kind == "StatefulSet":
            f.check(p.owner_spec["serviceName"] in o.names("Service"), f"{p.owner}: no service {p.owner_spec['serviceName']}")
            seconds = {t["key"]: t.get("tolerationSeconds") for t in p.spec["tolerations"]}
            for key in ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"):
                f.check(seconds.get(key) == 10, f"{p.owner}: leaves a lost node after {seconds.get(key)} s ({key})")
            before = max(c.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0) for c in p.containers)
            grace = p.spec["terminationGracePeriodSeconds"]
            f.check(grace >= before + DRAIN_SECONDS, f"{p.owner}: {grace} s do not suffice to drain")
            spread = p.spec.get("topologySpreadConstraints", []) + p.spec.get("affinity", {}).get("podAntiAffinity", {}).get(
                "requiredDuringSchedulingIgnoredDuringExecution", []) + [
                x["podAffinityTerm"] for x in p.spec.get("affinity", {}).get("podAntiAffinity", {}).get(
                    "preferredDuringSchedulingIgnoredDuringExecution") or []]
            f.check(any(s["topologyKey"] == "topology.kubernetes.io/zone" for s in spread), f"{p.owner}: not spread over zones")
            for s in spread:
                f.check(selects(s["labelSelector"], p.labels), f"{p.owner}: spreads over pods that are not its own")
        if p.component != "dev":
            f.check(p.spec.get("priorityClassName") in o.names("PriorityClass"), f"{p.owner}: priority class")
        for claim in p.claims:
            name = claim["spec"]["storageClassName"]
            f.check(name in o.names("StorageClass"), f"{p.owner}: no storage class {name}")
        volumes = {v["name"] for v in p.spec.get("volumes", [])} | {c["metadata"]["name"] for c in p.claims}
        for c in p.containers:
            mounts = [m["name"] for m in c.get("volumeMounts", [])]
            f.check(set(mounts) <= volumes, f"{p.owner}: mounts {set(mounts) - volumes} that are no volumes")
            paths = [m["mountPath"] for m in c.get("volumeMounts", [])]
            f.check(len(paths) == len(set(paths)), f"{p.owner}: two volumes at one path")
        used = {m["name"] for c in p.containers for m in c.get("volumeMounts", [])}
        f.check(volumes <= used, f"{p.owner}: nobody mounts {volumes - used}")


def restricted(p: Pod, f: Findings) -> None:
    """Pod Security `restricted`, and the read-only root that it does not ask for."""
    security = p.spec.get("securityContext", {})
    f.check(security.get("seccompProfile", {}).get("type") == "RuntimeDefault", f"{p.owner}: seccomp")
    f.check(security.get("runAsNonRoot") is True and security.get("runAsUser") == 65532, f"{p.owner}: user")
    for key in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        f.check(not p.spec.get(key), f"{p.owner}: {key}")
    for v in p.spec.get("volumes", []):
        kind = (set(v) - {"name"}).pop()
        f.check(kind in {"configMap", "secret", "emptyDir", "projected"}, f"{p.owner}: volume {v['name']} is a {kind}")
        if kind == "emptyDir":
            f.check("sizeLimit" in v["emptyDir"], f"{p.owner}: emptyDir {v['name']} has no limit")
    for c in p.containers:
        own = c.get("securityContext", {})
        f.check(own.get("allowPrivilegeEscalation") is False, f"{p.owner}: may gain privileges")
        f.check(own.get("readOnlyRootFilesystem") is True, f"{p.owner}: root can be written")
        f.check(own.get("capabilities") == {"drop": ["ALL"]}, f"{p.owner}: capabilities")
        for kind in ("requests", "limits"):
            f.check(set(c["resources"].get(kind, {})) >= {"cpu", "memory"}, f"{p.owner}: {kind}")
        f.check(c["resources"]["limits"]["memory"] == c["resources"]["requests"]["memory"] or p.component in ("backup", "dev"),
                f"{p.owner}: memory limit and request differ")
        image = c["image"].rsplit("/", 1)[-1]
        f.check(":" in image and not image.endswith(":latest"), f"{p.owner}: image {image} has no tag")
    f.check(p.spec.get("automountServiceAccountToken") is False, f"{p.owner}: token is mounted by default")
    projected = [s for v in p.spec.get("volumes", []) for s in v.get("projected", {}).get("sources", [])]
    token = any("serviceAccountToken" in s for s in projected)
    f.check(token == (p.component == "driver" or p.labels.get("millstream/job") == "snapshots"), f"{p.owner}: API token")


def ports(pods: list[Pod], o: Overlay, f: Findings) -> None:
    for s in o.of("Service"):
        name = s["metadata"]["name"]
        selector = {k: v for k, v in s["spec"]["selector"].items() if k not in RUNTIME_LABELS}
        chosen = [p for p in pods if selects({"matchLabels": selector}, p.labels)]
        f.check(bool(chosen), f"service {name} selects nothing")
        for p in chosen:
            for port in s["spec"]["ports"]:
                f.check(p.ports().get(port["targetPort"]) == port["port"], f"service {name}: port {port['name']} of {p.owner}")
    for p in pods:
        for c in p.containers:
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                if p.kind == "CronJob":
                    continue
                probe = c.get(kind)
                f.check(probe is not None, f"{p.owner}: no {kind}")
                if probe:
                    f.check(probe["httpGet"]["port"] in p.ports(), f"{p.owner}: {kind} asks port {probe['httpGet']['port']}")
                    if p.component in ("driver", "executor"):
                        want = {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}[kind]
                        f.check(probe["httpGet"]["path"] == want, f"{p.owner}: {kind} asks {probe['httpGet']['path']}")
            if p.kind == "StatefulSet":
                live = c["livenessProbe"]
                slowest = live["periodSeconds"] * live["failureThreshold"] + live["timeoutSeconds"] + live["terminationGracePeriodSeconds"]
                f.check(slowest <= 30, f"{p.owner}: a hung process is restarted after {slowest} s")
            # A variable may only name those before it.
            seen: set[str] = set()
            for e in c.get("env", []):
                named = set(re.findall(r"\$\(([A-Za-z_0-9]+)\)", e.get("value") or ""))
                f.check(named <= seen, f"{p.owner}: {e['name']} names {named - seen}, which comes later or not at all")
                f.check(e["name"] not in seen, f"{p.owner}: {e['name']} twice")
                seen.add(e["name"])
            # What a program is told to listen on is what the pod says.
            for e in c.get("env", []):
                address = re.fullmatch(r"(?:0\.0\.0\.0|\[::\]):(\d+)", e.get("value") or "")
                if address:
                    f.check(int(address[1]) in p.ports(), f"{p.owner}: {e['name']} listens on {address[1]}, which is no port")
                other = re.fullmatch(r"(millstream-[a-z]+):(\d+)", e.get("value") or "")
                if other:
                    reach(o, f, p.owner, other[1], int(other[2]))
            for argument in c.get("args", []):
                other = re.fullmatch(r"https?://(millstream-[a-z]+):(\d+)", argument)
                if other:
                    reach(o, f, p.owner, other[1], int(other[2]))
    for i in o.of("Ingress"):
        for rule in i["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                service = o.get("Service", backend["name"])
                f.check(service is not None and backend["port"]["name"] in {p["name"] for p in service["spec"]["ports"]}, "ingress: backend")
        hosts = {r["host"] for r in i["spec"]["rules"]}
        f.check(hosts == {h for t in i["spec"]["tls"] for h in t["hosts"]}, "ingress: a host without TLS")


def reach(o: Overlay, f: Findings, who: str, service: str, port: int) -> None:
    found = o.get("Service", service)
    f.check(found is not None and port in {p["port"] for p in found["spec"]["ports"]}, f"{who}: nothing is at {service}:{port}")


def accounts(o: Overlay, pods: list[Pod], f: Findings) -> None:
    for p in pods:
        if p.component != "dev":
            f.check(p.spec["serviceAccountName"] in o.names("ServiceAccount"), f"{p.owner}: no account {p.spec['serviceAccountName']}")
    f.check(not o.of("ClusterRole", "ClusterRoleBinding"), "a cluster-wide role")
    for a in o.of("ServiceAccount"):
        f.check(a["automountServiceAccountToken"] is False, f"account {a['metadata']['name']} mounts its token")
    for r in o.of("Role"):
        for rule in r["rules"]:
            for key in ("apiGroups", "resources", "verbs"):
                f.check("*" not in rule[key], f"role {r['metadata']['name']}: a wildcard in {key}")
            f.check(not {"secrets", "pods/exec"} & set(rule["resources"]), f"role {r['metadata']['name']}: {rule['resources']}")
    bound = set()
    for b in o.of("RoleBinding"):
        f.check(b["roleRef"]["name"] in o.names("Role"), f"binding {b['metadata']['name']}: no role {b['roleRef']['name']}")
        for s in b["subjects"]:
            f.check(s["name"] in o.names("ServiceAccount"), f"binding {b['metadata']['name']}: no account {s['name']}")
            bound.add(s["name"])
    f.check("millstream-executor" not in bound, "executors may do something at the API")
    driver = o.get("Role", "millstream-driver")
    leases = [n for r in driver["rules"] if "leases" in r["resources"] for n in r.get("resourceNames", [])]
    f.check(bool(leases) and set(leases) <= o.names("Lease"), "the driver's role names a lease that is not there")
    pods_named = {n for r in driver["rules"] if "pods" in r["resources"] for n in r.get("resourceNames", [])}
    count = max(o.get("StatefulSet", "millstream-driver")["spec"]["replicas"], 1)
    f.check({f"millstream-driver-{i}" for i in range(count)} <= pods_named, "a driver may not label itself")


def references(o: Overlay, pods: list[Pod], f: Findings) -> None:
    maps = o.names("ConfigMap") | FOREIGN_CONFIG_MAPS
    secrets = o.names("Secret") | FOREIGN_SECRETS
    secrets |= {c["spec"]["secretName"] for c in o.of("Certificate")}
    secrets |= {e["spec"]["target"]["name"] for e in o.of("ExternalSecret")}

    def config_map(who, ref, key="name"):
        f.check(ref.get("optional") or ref[key] in maps, f"{who}: no ConfigMap {ref[key]}")

    def secret(who, ref, key="name"):
        f.check(ref.get("optional") or ref[key] in secrets, f"{who}: no secret {ref[key]}")

    for p in pods:
        for v in p.spec.get("volumes", []):
            if "configMap" in v:
                config_map(p.owner, v["configMap"])
            if "secret" in v:
                secret(p.owner, v["secret"], "secretName")
            for s in v.get("projected", {}).get("sources", []):
                if "configMap" in s:
                    config_map(p.owner, s["configMap"])
        for c in p.containers:
            for e in c.get("envFrom", []):
                if "configMapRef" in e:
                    config_map(p.owner, e["configMapRef"])
                if "secretRef" in e:
                    secret(p.owner, e["secretRef"])
            for e in c.get("env", []):
                source = e.get("valueFrom", {})
                if "secretKeyRef" in source:
                    secret(p.owner, source["secretKeyRef"])
                if "configMapKeyRef" in source:
                    config_map(p.owner, source["configMapKeyRef"])
    for i in o.of("Ingress"):
        for t in i["spec"]["tls"]:
            secret("ingress", t, "secretName")
    for a in o.of("AlertmanagerConfig"):
        for r in a["spec"]["receivers"]:
            for s in r.get("slackConfigs", []):
                secret("AlertmanagerConfig", s["apiURL"])
            for s in r.get("pagerdutyConfigs", []):
                secret("AlertmanagerConfig", s["routingKey"])
    issuers = o.names("Issuer")
    for c in o.of("Certificate"):
        f.check(c["spec"]["issuerRef"]["name"] in issuers, f"certificate {c['metadata']['name']}: issuer")
    for m in o.of("PodMonitor"):
        chosen = [p for p in pods if selects(m["spec"]["selector"], p.labels)]
        f.check({p.component for p in chosen} == {"driver", "executor"}, "PodMonitor: it selects other pods")
        for e in m["spec"]["podMetricsEndpoints"]:
            f.check(all(e["port"] in p.ports() for p in chosen), f"PodMonitor: no port {e['port']}")


def policies(o: Overlay, pods: list[Pod], f: Findings) -> None:
    all_of_them = o.of("NetworkPolicy")
    deny = [n for n in all_of_them if n["spec"]["podSelector"] == {} and set(n["spec"]["policyTypes"]) == {"Ingress", "Egress"}
            and not n["spec"].get("ingress") and not n["spec"].get("egress")]
    f.check(len(deny) == 1, "no policy denies everything both ways")

    def chosen(selector):
        return [p for p in pods if selects(selector, p.labels)]

    paths = {"egress": set(), "ingress": set()}
    for n in all_of_them:
        name, spec = n["metadata"]["name"], n["spec"]
        f.check(bool(chosen(spec["podSelector"])), f"policy {name} selects nothing")
        f.check({t.lower() for t in spec["policyTypes"]} >= set(spec) & {"ingress", "egress"}, f"policy {name}: types")
        for direction, peer_key in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(direction, []):
                f.check(bool(rule.get("ports")) and bool(rule.get(peer_key)), f"policy {name}: everything is allowed")
                if direction == "ingress":
                    reached = {number for p in chosen(spec["podSelector"]) for number in p.ports()}
                    for port in rule["ports"]:
                        f.check(port["port"] in reached, f"policy {name}: nobody listens on {port['port']}")
                for peer in rule.get(peer_key, []):
                    if set(peer) == {"podSelector"}:
                        others = chosen(peer["podSelector"])
                        f.check(bool(others), f"policy {name}: its peer is nobody")
                        for own in chosen(spec["podSelector"]):
                            for other in others:
                                for port in rule["ports"]:
                                    ends = (own, other) if direction == "egress" else (other, own)
                                    paths[direction].add((ends[0].owner, ends[1].owner, port["port"]))
                    block = peer.get("ipBlock")
                    if block and block["cidr"] == "0.0.0.0/0":
                        f.check("169.254.169.254/32" in block.get("except", []), f"policy {name}: the node's credentials can be reached")
    # A path inside the namespace needs both halves.
    for path in sorted(paths["egress"] ^ paths["ingress"]):
        half = "send" if path in paths["egress"] else "receive"
        f.check(False, f"{path[0]} → {path[1]}:{path[2]} may only {half}")
    expected = {
        ("millstream-executor", "millstream-driver", 7070), ("millstream-executor", "millstream-executor", 7071),
        ("millstream-driver", "millstream-executor", 8081), ("millstream-savepoint", "millstream-driver", 8080),
    }
    f.check(expected <= paths["egress"], f"paths that are not allowed: {expected - paths['egress']}")
    shuffle = {p for p in paths["egress"] if p[2] == 7071}
    f.check(shuffle == {("millstream-executor", "millstream-executor", 7071)}, "others than executors reach the shuffle")


def scaling(o: Overlay, pods: list[Pod], f: Findings) -> None:
    executors = next(p for p in pods if p.owner == "millstream-executor")
    driver = next(p for p in pods if p.owner == "millstream-driver")
    hpa = o.get("HorizontalPodAutoscaler", "millstream-executor")
    keda = o.get("ScaledObject", "millstream-executor")
    f.check((hpa is None) != (keda is None), "exactly one scaler is needed")
    if hpa:
        target, least, most = hpa["spec"]["scaleTargetRef"], hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]
        behavior = hpa["spec"]["behavior"]
        described = [m["object"]["describedObject"]["name"] for m in hpa["spec"]["metrics"] if m["type"] == "Object"]
        f.check(set(described) <= o.names("Service"), "the autoscaler describes a service that is not there")
        adapter = o.get("ConfigMap", "millstream-custom-metrics")
        wanted = [m["object"]["metric"]["name"] for m in hpa["spec"]["metrics"] if m["type"] == "Object"]
        f.check(all(adapter and f"as: {w}" in adapter["data"]["config.yaml"] for w in wanted), f"no adapter serves {wanted}")
    else:
        target, least, most = keda["spec"]["scaleTargetRef"], keda["spec"]["minReplicaCount"], keda["spec"]["maxReplicaCount"]
        behavior = keda["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    f.check(target["kind"] == "StatefulSet" and target["name"] == executors.owner, "the autoscaler scales something else")
    env = {e["name"]: e.get("value") for e in driver.containers[0]["env"]}
    f.check(env["MILLSTREAM__DRIVER__MAX_EXECUTORS"] == str(most), f"MAX_EXECUTORS is not {most}")
    f.check(env["MILLSTREAM__DRIVER__EXECUTORS"] == str(least), f"the driver waits for {env['MILLSTREAM__DRIVER__EXECUTORS']} executors, the least is {least}")
    f.check(executors.replicas in (0, least), f"{executors.replicas} executors at the start, the least is {least}")
    if o.name != "dev":
        f.check(climb(least, most, behavior["scaleUp"]) <= 90, f"{least} → {most} takes {climb(least, most, behavior['scaleUp'])} s")
        f.check((least, most) == (3, 20), f"{least} to {most} executors instead of 3 to 20")
    config = next(m for m in o.of("ConfigMap") if "millstream.toml" in m["data"])
    parallelism = tomllib.loads(config["data"]["millstream.toml"])["parallelism"]
    f.check(parallelism >= most, f"parallelism {parallelism} leaves some of {most} executors without work")
    quota(o, pods, most, f)


def climb(least: int, most: int, up: dict) -> int:
    """Seconds of policy time from the least to the most replicas, with the fastest policy, all periods being equal."""
    period = up["policies"][0]["periodSeconds"]
    assert all(p["periodSeconds"] == period for p in up["policies"])
    now, seconds = least, up["stabilizationWindowSeconds"]
    while True:
        now += max(p["value"] if p["type"] == "Pods" else ceil(now * p["value"] / 100) for p in up["policies"])
        if now >= most:
            return seconds
        seconds += period


def quota(o: Overlay, pods: list[Pod], most: int, f: Findings) -> None:
    """The quota fits the most replicas, their successors, every job twice (one that runs and one by hand)."""
    hard = o.get("ResourceQuota", "millstream")["spec"]["hard"]
    vertical = {}
    for v in o.of("VerticalPodAutoscaler"):
        for c in v["spec"].get("resourcePolicy", {}).get("containerPolicies", []):
            vertical[v["spec"]["targetRef"]["name"]] = c.get("maxAllowed", {})
    need = {"pods": 0.0, "persistentvolumeclaims": 0.0, "requests.storage": 0.0}
    for p in pods:
        count = {"millstream-executor": most, "millstream-driver": 2}.get(p.owner, p.replicas if p.kind != "CronJob" else 2)
        claims = count
        count += SURGE.get(p.owner, 0)
        need["pods"] += count
        for claim in p.claims:
            need["persistentvolumeclaims"] += claims
            need["requests.storage"] += claims * quantity(claim["spec"]["resources"]["requests"]["storage"])
        for kind in ("requests", "limits"):
            for resource in ("cpu", "memory"):
                each = sum(quantity(c["resources"][kind][resource]) for c in p.containers)
                each = max(each, quantity(vertical.get(p.owner, {}).get(resource, 0)))
                need[f"{kind}.{resource}"] = need.get(f"{kind}.{resource}", 0) + count * each
    for resource, amount in need.items():
        f.check(amount <= quantity(hard[resource]), f"quota: {resource} needs {amount:g}, {hard[resource]} is allowed")


def budgets(o: Overlay, pods: list[Pod], f: Findings) -> None:
    covered = set()
    for b in o.of("PodDisruptionBudget"):
        name, spec = b["metadata"]["name"], b["spec"]
        chosen = [p for p in pods if selects(spec["selector"], p.labels)]
        f.check(len(chosen) == 1, f"budget {name} selects {[p.owner for p in chosen]}")
        f.check(spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow", f"budget {name}: broken pods cannot be evicted")
        for p in chosen:
            covered.add(p.owner)
            f.check(p.replicas == 0 or spec.get("minAvailable", 0) < p.replicas, f"budget {name}: no pod may ever be evicted")
    f.check({"millstream-driver", "millstream-executor"} <= covered, "a workload without a budget")


def programs(pods: list[Pod], f: Findings, source: str) -> None:
    """Variables and commands that the programs do not know must be on the list of what is pending."""
    variables, commands = pending("variable"), pending("command")
    # A setting `a.b-c` is the variable MILLSTREAM__A__B_C.
    for p in pods:
        for c in p.containers:
            for e in c.get("env", []):
                if e["name"].startswith("MILLSTREAM__"):
                    known = f'"{e["name"]}"' in source
                    f.check(known != (e["name"] in variables), f"{p.owner}: {e['name']} is {'known now' if known else 'unknown and not pending'}")
            if c["command"] == ["/usr/bin/millstream"]:
                name = " ".join(a for a in c["args"][:2] if not a.startswith("-"))
                f.check(c["args"][0] in {n.split("/")[0] for n in commands}, f"{p.owner}: is the command '{name}' known now?")


def main() -> None:
    findings = Findings()
    source = sources()
    for name in OVERLAYS:
        o = Overlay(name)
        pods = list(o.pods())
        f = Findings()
        same_namespace(o, f)
        workloads(o, pods, f)
        for p in pods:
            restricted(p, f)
        ports(pods, o, f)
        accounts(o, pods, f)
        references(o, pods, f)
        policies(o, pods, f)
        scaling(o, pods, f)
        budgets(o, pods, f)
        programs(pods, f, source)
        findings.checked += f.checked
        findings.found += [f"{name}: {message}" for message in f.found]
    findings.done("cross-references")


if __name__ == "__main__":
    main()
