"""Every example, as a user runs it: a process of its own, against a gateway with the real local model."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NODE_FOLDER = ROOT / ".cache" / "node-examples"
# The first start on a machine downloads the weights, and the first Node test downloads the SDK.
pytestmark = pytest.mark.timeout(400)


@dataclass(frozen=True)
class Addresses:
    rest: str
    grpc: str


def clean_environment() -> dict[str, str]:
    """The environment without keys, proxies and settings that could lead a process elsewhere."""
    foreign = re.compile(r"HEADGATE_(?!CACHE$)|.*(_API_KEY|_BASE_URL|_PROXY|_proxy)$|MODEL$")
    return {name: value for name, value in os.environ.items() if not foreign.match(name)}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    log = tmp_path_factory.mktemp("gateway") / "stderr"
    command = [sys.executable, "-m", "headgate.cli", "serve"]
    command += ["--grpc", "127.0.0.1:0", "--rest", "127.0.0.1:0"]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=clean_environment()
        ) as process,
    ):
        try:
            assert process.stdout is not None
            found: dict[str, str] = {}
            for line in process.stdout:
                if match := re.match(r" +(REST|gRPC) +(\S+)", line):
                    found[match[1]] = match[2]
                if line.lstrip().startswith("curl "):
                    break
            assert set(found) == {"REST", "gRPC"}, f"no banner; stderr: {log.read_text()}"
            yield Addresses(found["REST"], found["gRPC"])
            process.terminate()
            assert process.wait(40) == 0, log.read_text()
        finally:
            process.kill()


def run(command: list[str], gateway: Addresses) -> str:
    """The output of an example that ends well."""
    tools = str(Path(sys.executable).parent)  # where buf is
    environment = clean_environment() | {
        "HEADGATE_REST_URL": gateway.rest,
        "HEADGATE_TARGET": gateway.grpc,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
    }
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert ended.returncode == 0, f"{command}: {ended.stdout}\n{ended.stderr}"
    return ended.stdout


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_python_example(gateway: Addresses, name: str) -> None:
    assert "Paris" in run([sys.executable, str(EXAMPLES / name)], gateway)


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.sh")))
def test_shell_example(gateway: Addresses, name: str) -> None:
    output = run([str(EXAMPLES / name)], gateway)
    assert "Paris" in output
    if name == "curl.sh":
        assert output.rstrip().endswith("data: [DONE]")


@pytest.fixture(scope="module")
def node_folder() -> Path:
    """A folder with OpenAI's Node SDK in it, kept between runs."""
    npm = shutil.which("npm")
    if npm is None and not os.environ.get("CI"):
        pytest.skip("no npm here")
    if not (NODE_FOLDER / "node_modules" / "openai" / "package.json").exists():
        assert npm is not None
        NODE_FOLDER.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--no-save", "--no-audit", "--no-fund", "openai@7"]
        subprocess.run([*command, "--prefix", str(NODE_FOLDER)], check=True, timeout=300)
    return NODE_FOLDER


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.mjs")))
def test_node_example(gateway: Addresses, node_folder: Path, name: str) -> None:
    # Node looks for packages beside the script, so the script goes to where the package is.
    script = shutil.copy(EXAMPLES / name, node_folder / name)
    assert "Paris" in run(["node", str(script)], gateway)


def readme(language: str) -> list[str]:
    """The programs in the README, in one language."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def at(gateway: Addresses, program: str) -> str:
    """The same program with this gateway's addresses in the place of the usual ones."""
    program = program.replace("http://127.0.0.1:8080", gateway.rest)
    return program.replace("127.0.0.1:50051", gateway.grpc)


def test_python_programs_in_the_readme(gateway: Addresses) -> None:
    programs = readme("python")
    assert len(programs) == 3
    for program in programs:
        assert "Paris" in run([sys.executable, "-c", at(gateway, program)], gateway)


def test_curl_in_the_readme(gateway: Addresses) -> None:
    command = at(gateway, readme("sh")[0])
    assert command.startswith("curl ")
    assert "Paris" in run(["bash", "-c", command], gateway)


def test_node_program_in_the_readme(gateway: Addresses, node_folder: Path) -> None:
    script = node_folder / "readme.mjs"
    (program,) = readme("js")
    script.write_text(at(gateway, program))
    assert "Paris" in run(["node", str(script)], gateway)


def test_there_is_an_example_of_each_way_to_call() -> None:
    kinds = {path.suffix for path in EXAMPLES.iterdir() if path.is_file()}
    assert kinds == {".py", ".sh", ".mjs", ".yaml"}
    for path in EXAMPLES.iterdir():
        if path.is_file() and path.suffix != ".yaml":
            assert len(path.read_text().splitlines()) < 30, f"{path.name} is too long to be read"
