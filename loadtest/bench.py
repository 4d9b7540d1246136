"""`make bench`: measures the service and the compared services, all rows in turn, for several rounds."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from loadtest import attack, big_ledger, cache, delivery, drain, machine, stale_reads, verification, wrk
from loadtest.crowd import Crowd, database_connections
from loadtest.figures import Figures
from loadtest.servers import (
    BARE,
    KEYED,
    LIMITED,
    NAIVE,
    REDIS,
    REDIS_RAW,
    SERVICE,
    THREADS,
    UNCHAINED,
    UNGROUPED,
    UNMETERED,
    Server,
    ServerKind,
    running,
    scratch_cluster,
)
from loadtest.wrk import Post, Result
from local import STATE, LocalError
from local.files import plain_errors
from local.postgres import SUPERUSER, Cluster
from local.service import Address, environment, manage

FOLDER = STATE / "bench"
WALLETS = 10_000
READ_WALLETS = 1000  # few enough for a cache to have all of them after the first second
MEMORY_OPERATIONS = 1_000_000
WARM_UP_SECONDS = 1.0  # of each row before the first round: prepares statements and allocates memory
SETTLE_SECONDS = 0.5  # until the connections of the last row are closed, so that new ones are balanced
CROWD_SIZE = 1000
CROWD_SECONDS = 30.0


@dataclass(frozen=True)
class Row:
    """A load that wrk puts on one of the servers."""

    title: str
    kind: ServerKind = SERVICE
    method: str = "POST"
    wallets: int = 1
    connections: int = 64
    disk_is_slow: bool = False
    with_keys: bool = False
    is_async: bool = False
    operations: int = 1  # in one request
    is_written: bool = False  # a client deposits while the wallet is read


ROWS = {
    "hot": Row("one hot wallet"),
    "unmetered": Row("the same, without metrics", UNMETERED),
    "unchained": Row("the same, without hashes", UNCHAINED),
    "key": Row("one hot wallet, by an API key", KEYED),
    "limited": Row("the same, with a rate limit", LIMITED),
    "keys": Row("one hot wallet, with keys", with_keys=True),
    "bulk": Row("one hot wallet, 1,000 a request", connections=8, operations=1000),
    "bulk-keys": Row("the same, with keys", connections=8, operations=1000, with_keys=True),
    "accept": Row("one hot wallet, asynchronous", is_async=True),
    "naive": Row("one hot wallet, naive", NAIVE),
    "threads": Row("one hot wallet, on threads", THREADS),
    "bare": Row("one hot wallet, no database", BARE),
    "spread": Row("10,000 wallets", wallets=WALLETS),
    "slow-disk": Row("one hot wallet, slow disk", disk_is_slow=True),
    "get": Row("GET of a wallet", method="GET"),
    "get-query": Row("GET, a query for each request", UNGROUPED, "GET"),
    "get-threads": Row("GET, on threads", THREADS, "GET"),
    "get-bare": Row("GET, no database", BARE, "GET"),
    "get-redis": Row("GET, from Redis", REDIS, "GET"),
    "get-redis-raw": Row("GET, from Redis, unpickled", REDIS_RAW, "GET"),
    "get-spread": Row("GET of 1,000 wallets", method="GET", wallets=READ_WALLETS),
    "get-spread-redis": Row("GET of 1,000, from Redis", REDIS, "GET", READ_WALLETS),
    "get-written": Row("GET while it is written", method="GET", connections=16, is_written=True),
    "get-written-redis": Row("the same, from Redis", REDIS, "GET", connections=16, is_written=True),
    "lone": Row("one client", connections=1),
    "lone-naive": Row("one client, naive", NAIVE, connections=1),
}
DRAIN_ROWS = {  # by wallets and processes
    "drain": (1, 1),
    "drain-2": (1, 2),
    "drain-spread": (WALLETS, 1),
    "drain-spread-2": (WALLETS, 2),
}
RELAY_ROWS = ("relay", "relay-delay")
CONSTANT_RATE_ROWS = ("calm", "attack")
OTHER_ROWS = {  # not measured by wrk alone
    "drain": "drained, one hot wallet",
    "drain-2": "drained by two, one hot wallet",
    "drain-spread": "drained, 10,000 wallets",
    "drain-spread-2": "drained by two, 10,000 wallets",
    "relay": "delivered to a webhook",
    "relay-delay": "delivered, 1,000 a second",
    "calm": "50 deposits a second, by a key",
    "attack": "the same, under a flood",
    "crowd": "1,000 connections",
    "empty-ledger": "one hot wallet, small ledger",
    "big-ledger": "one hot wallet, big ledger",
}
TITLES = {name: row.title for name, row in ROWS.items()} | OTHER_ROWS


class Bench:
    """The servers on one cluster, and their figures."""

    def __init__(self, cluster: Cluster, stack: ExitStack, kinds: set[ServerKind]) -> None:
        self.figures = Figures()
        self._cluster = cluster
        self._wallets = create_wallets(cluster)
        self._unchained = create_wallets(cluster, 1)
        self._key = create_key(cluster)
        self._servers = {kind: stack.enter_context(running(kind, cluster.url())) for kind in kinds}

    def measure(self, name: str, seconds: float) -> Result:
        if name in DRAIN_ROWS:
            return self._measure_drain(*DRAIN_ROWS[name])
        if name in RELAY_ROWS:
            return self._measure_relay(name, seconds)
        if name in CONSTANT_RATE_ROWS:
            return self._measure_constant_rate(seconds, is_flooded=name == "attack")
        row = ROWS[name]
        server = self._servers[row.kind]
        paths, post = self._requests(row)
        time.sleep(SETTLE_SECONDS)
        with self._row_conditions(row) as read_checks:
            before = self._cpu(server)
            result = wrk.load(server.url, row.method, paths, row.connections, seconds, post)
            service, database = (now - then for now, then in zip(self._cpu(server), before, strict=True))
        operations = result.requests * row.operations
        each = 1e6 / max(1, operations)  # on a slow machine a warm-up may end before its first response
        if row.kind == SERVICE and row.method == "POST":
            self._record_memory(server, operations)
        return replace(
            result,
            requests=operations,
            service_cpu=service * each,
            database_cpu=database * each,
            checked_reads=read_checks.count,
            stale=read_checks.stale,
        )

    @contextmanager
    def _row_conditions(self, row: Row) -> Iterator[stale_reads.ReadChecks]:
        with ExitStack() as stack:
            if row.disk_is_slow:
                stack.enter_context(slow_disk(self._cluster))
            read_checks = stale_reads.ReadChecks()
            if row.is_written:
                address = self._servers[row.kind].address.bind
                read_checks = stack.enter_context(stale_reads.deposit_and_check(address, self._wallets[0]))
            yield read_checks

    def _requests(self, row: Row) -> tuple[Path, Post]:
        """Return the file with the paths of the row's requests, and their content."""
        wallets = self._wallets[: row.wallets] if row.kind.is_chained else self._unchained
        post = Post(
            with_keys=row.with_keys,
            prefer="respond-async" if row.is_async else None,
            api_key=self._key if row.kind in (KEYED, LIMITED) else None,
        )
        if row.operations > 1:
            paths = FOLDER / "bulk.paths"
            paths.write_text("/api/v1/operations\n")
            return paths, replace(post, body=bulk_file(wallets[0], row.operations))
        end = "/operation" if row.method == "POST" else ""
        return paths_file(f"{row.method}-{row.wallets}-{row.kind.is_chained}", wallets, end), post

    def _measure_drain(self, wallets: int, processes: int) -> Result:
        env = environment(self._cluster.url(), self._servers[SERVICE].address)
        return drain.run(self._cluster, {"LOG_LEVEL": "WARNING"} | env, self._wallets[:wallets], processes)

    def _measure_relay(self, name: str, seconds: float) -> Result:
        server = self._servers[SERVICE]
        env = {"LOG_LEVEL": "WARNING"} | environment(self._cluster.url(), server.address)
        if name == "relay-delay":
            return delivery.delay(self._cluster, env, server.address, self._wallets[0], seconds)
        paths, post = self._requests(ROWS["hot"])
        return delivery.catch_up(
            self._cluster, env, lambda: wrk.load(server.url, "POST", paths, 64, seconds, post)
        )

    def _measure_constant_rate(self, seconds: float, is_flooded: bool) -> Result:
        address = self._servers[KEYED].address
        with attack.flood(address) if is_flooded else nullcontext():
            return attack.deposit_steadily(address, self._wallets[0], self._key, seconds)

    def measure_crowd(self) -> None:
        """Measure the row `crowd`. First stop the other servers, whose connections would count."""
        address = self._servers[SERVICE].address
        for kind, server in self._servers.items():
            if kind is not SERVICE:
                server.stop()
        with database_connections(self._cluster.url(SUPERUSER)) as sampled:
            crowd = Crowd(address.host, address.port, f"/api/v1/wallets/{self._wallets[0]}/operation")
            self.figures.results["crowd"].append(crowd.run(CROWD_SIZE, CROWD_SECONDS))
        self.figures.database_connections = sampled.maximum

    def measure_big_ledger(self, rounds: int, seconds: float) -> None:
        with big_ledger.running(FOLDER) as cluster, running(SERVICE, cluster.url()) as server:
            wallet = big_ledger.hot_wallet(cluster)
            paths = paths_file("big-ledger", [wallet], "/operation")
            wrk.load(server.url, "POST", paths, ROWS["hot"].connections, WARM_UP_SECONDS)
            for _ in range(rounds):
                self.figures.results["empty-ledger"].append(self.measure("hot", seconds))
                result = wrk.load(server.url, "POST", paths, ROWS["hot"].connections, seconds)
                self.figures.results["big-ledger"].append(result)
            self.figures.big_ledger_ms = big_ledger.query_ms(cluster, wallet)
            self._verify(cluster)

    def verify(self) -> None:
        """Verify the ledger. Raises LocalError if a wallet differs from it."""
        remove_wallets(self._cluster, self._unchained)
        self._verify(self._cluster)

    def _verify(self, cluster: Cluster) -> None:
        env = environment(cluster.url(), self._servers[SERVICE].address)
        self.figures.verified.append(verification.run(cluster, env))

    def _cpu(self, server: Server) -> tuple[float, float]:
        """Return the CPU time of the service, and of the server that stores its data."""
        assert self._cluster.process
        storage = machine.cpu_seconds(self._cluster.process.pid)
        if server.cache:
            storage += machine.cpu_seconds(server.cache.process.pid)
        return machine.cpu_seconds(server.process.pid), storage

    def _record_memory(self, server: Server, operations: int) -> None:
        memory = self.figures.memory
        done = memory[-1][0] if memory else 0
        memory.append((done + operations, machine.memory(server.process.pid)))


def create_wallets(cluster: Cluster, number: int = WALLETS) -> list[str]:
    with psycopg.connect(cluster.url(SUPERUSER)) as db:
        rows = db.execute(
            "INSERT INTO wallet (id, currency, label) SELECT uuidv7(), 'RUB', 'bench'"
            " FROM generate_series(1, %s) RETURNING id::text",
            [number],
        ).fetchall()
    return [row[0] for row in rows]


def remove_wallets(cluster: Cluster, wallets: list[str]) -> None:
    with psycopg.connect(cluster.url(SUPERUSER)) as db:
        # A server that has just stopped may still be committing: the lock waits for that.
        db.execute("SELECT FROM wallet WHERE id = ANY(%s::uuid[]) FOR UPDATE", [wallets])
        db.execute("DELETE FROM operation WHERE wallet_id = ANY(%s::uuid[])", [wallets])
        db.execute("DELETE FROM wallet WHERE id = ANY(%s::uuid[])", [wallets])


def create_key(cluster: Cluster) -> str:
    arguments = ("--name", "bench", "--scope", "operations:deposit")
    return manage(environment(cluster.url(), Address("127.0.0.1", 1)), "create_api_key", *arguments).strip()


def paths_file(name: str, wallets: Sequence[str], end: str) -> Path:
    file = FOLDER / f"{name}.paths"
    file.write_text("".join(f"/api/v1/wallets/{wallet}{end}\n" for wallet in wallets))
    return file


def bulk_file(wallet: str, operations: int) -> Path:
    file = FOLDER / "bulk.json"
    deposit = {"walletId": wallet, "operationType": "DEPOSIT", "amount": "1.50"}
    file.write_text(json.dumps({"operations": [deposit] * operations}))
    return file


@contextmanager
def slow_disk(cluster: Cluster) -> Iterator[None]:
    """Delay every flush of the log by 5 ms, as a slower disk would."""
    alter_system(cluster, "ALTER SYSTEM SET commit_delay = 5000", "ALTER SYSTEM SET commit_siblings = 0")
    try:
        yield
    finally:
        alter_system(cluster, "ALTER SYSTEM RESET commit_delay", "ALTER SYSTEM RESET commit_siblings")


def alter_system(cluster: Cluster, *statements: str) -> None:
    with psycopg.connect(cluster.url(SUPERUSER), autocommit=True) as db:
        for statement in (*statements, "SELECT pg_reload_conf()"):
            db.execute(statement.encode())
    time.sleep(0.2)  # until the open sessions have reloaded the settings


# --- A run ------------------------------------------------------------------------------------------
def main() -> None:
    options = parse(sys.argv[1:])
    try:
        wrk.program()
        with plain_errors(), ExitStack() as stack:
            figures = run(options, stack)
    except LocalError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit("bench: stopped")
    sys.exit(any(result.failures for results in figures.results.values() for result in results))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    names = [*ROWS, *DRAIN_ROWS, *RELAY_ROWS, *CONSTANT_RATE_ROWS, "crowd"]
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of load for each row in a round")
    parser.add_argument("--long", action="store_true", help="a million operations; a ledger of ten million")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.rows if name not in names]:
        parser.error(f"unknown rows {', '.join(unknown)}: choose from {', '.join(names)}")
    options.rows = options.rows or names
    return options


def run(options: argparse.Namespace, stack: ExitStack) -> Figures:
    names = [name for name in options.rows if name != "crowd"]
    kinds = {SERVICE} | {ROWS[name].kind for name in names if name in ROWS}
    kinds |= {KEYED for name in names if name in CONSTANT_RATE_ROWS}
    if any(kind.has_cache for kind in kinds):
        cache.program()  # fails now if redis-server is missing
    file = FOLDER / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}.json"
    cluster = stack.enter_context(scratch_cluster(FOLDER / "postgres"))
    described = machine.describe(cluster.url(SUPERUSER))
    print(machine.one_line(described), flush=True)
    bench = Bench(cluster, stack, kinds)
    measure_rounds(bench, names, options.rounds, options.seconds)
    if options.long:
        measure_memory_growth(bench)
        bench.measure_big_ledger(options.rounds, options.seconds)
    if "crowd" in options.rows:
        print(f"{CROWD_SIZE:,} connections for {CROWD_SECONDS:.0f} s", flush=True)
        bench.measure_crowd()
    bench.verify()
    print(f"\n{bench.figures.tables(TITLES)}\n", *bench.figures.verified, sep="\n")
    file.write_text(json.dumps({"machine": described, **bench.figures.as_json()}, indent=1))
    print(f"All figures: {file}")
    return bench.figures


def measure_rounds(bench: Bench, names: Sequence[str], rounds: int, seconds: float) -> None:
    total = len(names) * (rounds * seconds + WARM_UP_SECONDS)
    print(f"{len(names)} rows, {rounds} rounds of {seconds:g} s: {total / 60:.1f} minutes", flush=True)
    for name in names:
        if name in ROWS:
            bench.measure(name, WARM_UP_SECONDS)
    for number in range(1, rounds + 1):
        others = machine.cpu_usage()
        bench.figures.others.append(others)
        print(f"  round {number} of {rounds}: other work takes {others:.0%} of the cores", flush=True)
        for name in names:
            result = bench.measure(name, seconds)
            bench.figures.results[name].append(result)
            print(f"    {TITLES[name]:<30}{result.rate:>7,.0f} a second", flush=True)


def measure_memory_growth(bench: Bench) -> None:
    memory = bench.figures.memory
    while not memory or memory[-1][0] < MEMORY_OPERATIONS:
        bench.measure("hot", 20)
        operations, megabytes = memory[-1]
        print(f"  {operations:>9,} operations, {megabytes:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
