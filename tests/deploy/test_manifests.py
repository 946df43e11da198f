"""What stands in deploy/ is what the tools that read it expect: Compose, Kubernetes, Dask operator, hadolint, AWS."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lab import free_port, until

import pickcal
from pickcal.cli.jobs import ANOTHER_CLUSTER
from pickcal.engine.clusters._dask import WORKER_ENVIRONMENT
from pickcal.job_file import load_job
from pickcal.settings import ClusterSettings

jsonschema = pytest.importorskip("jsonschema", reason="the manifests are held against published schemas")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="brings the schemas of Kubernetes")

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
KUBERNETES = "1.31"
FILLED = {"S3_USER": "someone", "S3_PASSWORD": "planted-secret", "PICKCAL_PASSWORD": "another"}


def documents():
    return [(path.name, document) for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


def crd(kind):
    """Schema of a kind of the Dask operator, from the package that installs it."""
    package = Path(importlib.util.find_spec("dask_kubernetes").submodule_search_locations[0])
    (found,) = [
        document
        for path in package.rglob("customresources/*.yaml")
        for document in yaml.safe_load_all(path.read_text())
        if isinstance(document, dict) and document.get("spec", {}).get("names", {}).get("kind") == kind
    ]
    return found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def strict(schema):
    """The same schema, with names that it does not know refused."""
    if isinstance(schema, dict):
        schema = {key: strict(value) for key, value in schema.items()}
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
    return [strict(item) for item in schema] if isinstance(schema, list) else schema


def pods():
    """Every pod that a manifest makes, with a name for messages."""
    for name, document in documents():
        spec = document.get("spec", {})
        if document["kind"] == "DaskCluster":
            yield from ((f"{name} {part}", spec[part]["spec"]) for part in ("worker", "scheduler"))
        elif "template" in spec:
            yield f"{name} {document['kind']}", spec["template"]["spec"]


@pytest.mark.parametrize(
    ("name", "document"), documents(), ids=lambda part: part if isinstance(part, str) else part["kind"]
)
def test_manifests_fit_their_schemas(name, document):
    """Strictly: a misspelt key is an error."""
    if "dask.org" not in document["apiVersion"]:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        return
    schema = strict(crd(document["kind"]))
    if "properties" not in schema:
        pytest.skip("this dask-kubernetes gives the schema by reference; its pods are checked as pods")
    schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
    jsonschema.validate(document, schema)


def test_a_misspelt_key_is_noticed():
    """The checks above can fail."""
    document = dict(documents())["job.yaml"]
    document["spec"]["template"]["spec"]["containers"][0]["imagge"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    cluster = dict(documents())["cluster.yaml"]
    cluster["spec"]["workers"] = 3
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster, strict(crd(cluster["kind"])))


def test_pods_of_dask_are_pods():
    """The operator's schema leaves much open: their pods are checked as such."""
    for name, spec in pods():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        context = {**spec["securityContext"], **spec["containers"][0]["securityContext"]}
        assert context["runAsNonRoot"] and context["readOnlyRootFilesystem"], name
        assert context["allowPrivilegeEscalation"] is False and context["capabilities"] == {"drop": ["ALL"]}, name
        assert spec["containers"][0]["image"] == f"pickcal:{pickcal.__version__}", name
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        assert {mount["name"] for mount in spec["containers"][0]["volumeMounts"]} <= volumes, name


def test_only_the_namespace_reaches_the_scheduler():
    """And nothing is a load balancer or a node's port."""
    found = [document for _, document in documents()]
    everything = next(d for d in found if d["kind"] == "NetworkPolicy" and d["spec"]["podSelector"] == {})
    assert everything["spec"]["ingress"] == [{"from": [{"podSelector": {}}]}]
    services = [d["spec"] for d in found if d["kind"] == "Service"]
    services += [d["spec"]["scheduler"]["service"] for d in found if d["kind"] == "DaskCluster"]
    assert all(service.get("type", "ClusterIP") == "ClusterIP" for service in services)


def test_job_files_of_the_folder_can_be_read(tmp_path):
    """Also that within the config map."""
    config = next(document for _, document in documents() if document["kind"] == "ConfigMap")
    (tmp_path / "job.toml").write_text(config["data"]["job.toml"])
    assert load_job(tmp_path / "job.toml").cluster.wait == 600
    for path in (DEPLOY / "compose/compose.toml", DEPLOY / "slurm/slurm.toml"):
        assert load_job(path).pick is not None
    assert load_job(DEPLOY / "slurm/slurm.toml").cluster.options["queue"] == "main"


def test_a_job_moves_to_another_cluster():
    """What its file says of its own kind stays with that kind; the number of workers goes along, not to one machine."""
    file = DEPLOY / "slurm/slurm.toml"
    assert load_job(file, cluster="local").cluster == ClusterSettings()
    assert load_job(file, cluster="slurm").cluster == load_job(file).cluster
    assert load_job(file, cluster="tls://h:1").cluster == ClusterSettings(kind="tls://h:1", workers=64)
    assert load_job(file, cluster="serial").cluster == ClusterSettings(kind="serial")
    set_too = load_job(file, ("cluster.workers=3", "cluster.memory=2 GB"), "local").cluster
    assert set_too == ClusterSettings(workers=3, memory="2 GB")
    # the help of `pickcal run --cluster` names each setting that is kept or left out
    assert [name for name in ClusterSettings.model_fields if name not in ANOTHER_CLUSTER] == []


@pytest.fixture(scope="module")
def compose(tmp_path_factory):
    """The compose file as Compose understands it."""
    command = ["docker", "compose"]
    if (
        shutil.which("docker") is None
        or subprocess.run([*command, "version"], capture_output=True, check=False).returncode
    ):
        command = ["docker-compose"]
        if shutil.which(command[0]) is None:
            pytest.skip("neither docker compose nor docker-compose installed (make system, as root)")
    env = tmp_path_factory.mktemp("env") / ".env"
    env.write_text("".join(f"{key}={value}\n" for key, value in FILLED.items()))
    arguments = ["--file", str(DEPLOY / "compose.yaml"), "--env-file", str(env)]

    def run(*more):
        clean = {key: value for key, value in os.environ.items() if key not in FILLED}
        return subprocess.run(
            [*command, *arguments, *more, "config"], capture_output=True, text=True, check=False, timeout=60, env=clean
        )

    done = run("--profile", "job", "--profile", "dashboard") if command[0] == "docker" else run()
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def test_compose_publishes_to_this_machine_only(compose):
    """Nothing at all of scheduler, workers and store but the two dashboards."""
    text = (DEPLOY / "compose.yaml").read_text()
    assert set(re.findall(r'- "([0-9.]*):\d+:\d+"', text)) == {"127.0.0.1"}
    published = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert not any(published[name] for name in ("worker", "s3"))
    assert "127.0.0.1" in json.dumps(published["scheduler"])
    for name in ("scheduler", "worker"):
        assert compose["services"][name]["read_only"] and compose["services"][name]["cap_drop"] == ["ALL"]


def test_compose_holds_no_password():
    """They come from a file that git does not take."""
    text = (DEPLOY / "compose.yaml").read_text() + (DEPLOY / "compose/example.env").read_text()
    for name in FILLED:
        assert not re.search(rf"{name}=\S", text)
    assert ".env" in (DEPLOY / ".gitignore").read_text().split()


def test_dockerfile():
    """hadolint finds nothing; the image is of two stages, pinned, and nobody is root in it."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (DEPLOY / "Dockerfile").read_text()
    assert text.count("\nFROM ") == 2 and "--constraint constraints.txt" in text
    assert re.search(r"^ARG PYTHON=python:\d+\.\d+\.\d+-slim", text, re.M)
    assert re.findall(r"^USER (.*)$", text, re.M) == ["10001:10001"]
    assert f"pickcal:{pickcal.__version__}" in text
    assert all(f"{name}={value} " in text for name, value in WORKER_ENVIRONMENT.items())


def test_the_image_gets_what_it_is_built_from():
    """Every file that pip needs passes .dockerignore, and no more."""
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == {"pickcal", "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "wheels"}


def test_batch_job_definition():
    """AWS's own description of its interface takes it."""
    import botocore.session
    from botocore.validate import ParamValidator

    model = botocore.session.get_session().get_service_model("batch")
    values = json.loads((DEPLOY / "aws/batch-job.json").read_text())
    report = ParamValidator().validate(values, model.operation_model("RegisterJobDefinition").input_shape)
    assert not report.has_errors(), report.generate_report()
    assert values["containerProperties"]["user"] == "10001:10001"


def commands():
    """Lines of the README's code: those that need a service, and those to run, by their section."""
    needs, ours = [], {}
    for section in (DEPLOY / "README.md").read_text().split("\n## ")[1:]:
        for block in re.findall(r"```bash\n(.*?)```", section, re.S):
            for line in block.splitlines():
                (needs if re.search(r"  # needs \w", line) else ours.setdefault(section.splitlines()[0], [])).append(
                    line
                )
    return needs, ours


def test_every_command_of_the_readme_is_run_or_marked():
    """Sections with commands that need nothing each have their test."""
    needs, ours = commands()
    assert len(needs) >= 10
    assert set(ours) == {"Machines of yours", "SLURM", "Compose"}
    assert all(line.startswith("sbatch --test-only") for line in ours["SLURM"])  # tests/deploy/test_slurm.py


def test_commands_for_machines_of_yours(tmp_path):
    """As they stand, in a folder that holds the job, on ports that are free."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    ports = {"8786": str(free_port()), "8787": str(free_port())}
    lines = "\n".join(commands()[1]["Machines of yours"])
    for known, port in ports.items():
        lines = lines.replace(f":{known}", f":{port}").replace(f"port {known}", f"port {port}")
    # the worker first: without its scheduler it takes its time to end
    ended = "set -- $(jobs -p); kill $2; wait $2 || true; kill $1"
    script = f"set -e\ntrap '{ended}' EXIT\n{lines}\n"
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "pick template: 4 done" in done.stdout and "template:" in done.stdout
    until(lambda: subprocess.run(["pgrep", "-f", f":{ports['8786']}"], capture_output=True, check=False).returncode)


def test_commands_for_compose(tmp_path):
    """Passwords are made, and the file is read with them."""
    if shutil.which("docker-compose") is None or shutil.which("openssl") is None:
        pytest.skip("docker-compose or openssl not installed (make system, as root)")
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    script = "set -e\n" + "\n".join(commands()[1]["Compose"])
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    made = dict(
        line.split("=", 1) for line in (tmp_path / "deploy/compose/.env").read_text().splitlines() if "=" in line
    )
    assert len(made["S3_PASSWORD"]) == 32 and made["S3_USER"] == "pickcal"
