#!/usr/bin/env python3
"""Runs bots-mover beside rclone, mc and the bare requests on one throwaway MinIO.

'./build.sh bench [ROW [RUNS]]' calls it with everything it needs, './build.sh bench plots' draws
the tables of README.md anew. The programs take turns
(A B C A B C), every run starts from the same state and is checked: all files are at the
destination, byte for byte, and none at the source. Prints medians as a Markdown table.
Standard library only.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

KEY, SECRET = "bench-access-key", "bench-secret-key"
BUCKET = "bench"
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
ONE_WAY_MS = 5
MANY = 100
# Above the size from which the server copies.
TINY_BYTES = 20 * MIB
PEERS = ["rclone", "rclone-32", "mc"]
PROGRAMS = ["mover", *PEERS, "floor"]
START_PATIENCE_S = 60

# The shell forks the program, so its peak memory is its own: what a process was before exec counts
# too. The last line becomes the interpreter, which still knows what the shell's child used.
LAUNCHER = '"$@" 9>"$FIFO" >>"$OUTPUT" 2>&1; exec "$PYTHON" -I -S -c "$REPORT" $?'
REPORT = """
import resource, sys
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(sys.argv[1], used.ru_utime + used.ru_stime, used.ru_maxrss)
"""


class Row:
    """One kind of work, the same for every program."""

    def __init__(
        self, name, title, inwards, count, size, *,
        far=False, rules=1, extra=0, runs=None, concurrency=None, between=False,
    ):
        self.name, self.title, self.inwards = name, title, inwards
        # From a prefix to another one of the same bucket: 'inwards', but to no directory.
        self.between = between
        self.concurrency = concurrency
        # 'extra' files are there and are not to be moved.
        self.count, self.size, self.extra = count, size, extra
        self.far, self.rules, self.runs = far, rules, runs

    def make_tiny(self):
        self.count, self.extra = min(self.count, 10), min(self.extra, 10)
        self.size = min(self.size, TINY_BYTES)

    def programs(self):
        # mc has no order by age, and the floor no directory to list.
        without = ["mc"] if self.extra and not self.inwards else []
        # The bare requests from bucket to bucket are the server's own affair.
        without += ["floor"] if self.between else []
        return [name for name in PROGRAMS if name not in without]


ROWS = [
    Row("small-in", "1000 files of 4 KB in", True, 1000, 4 * KIB),
    Row("small-out", "1000 files of 4 KB out", False, 1000, 4 * KIB),
    Row("far-in", "the same in, 10 ms away", True, 1000, 4 * KIB, far=True),
    Row("far-out", "the same out, 10 ms away", False, 1000, 4 * KIB, far=True),
    Row("large-in", "one file of 1 GiB in", True, 1, GIB),
    Row("large-out", "one file of 1 GiB out", False, 1, GIB),
    Row("medium-in", "20 files of 50 MiB in", True, 20, 50 * MIB),
    Row("medium-out", "20 files of 50 MiB out", False, 20, 50 * MIB),
    Row("small-between", "1000 files of 4 KB between prefixes", True, 1000, 4 * KIB, between=True),
    Row("far-between", "the same, 10 ms away", True, 1000, 4 * KIB, between=True, far=True),
    Row("large-between", "one file of 1 GiB between prefixes", True, 1, GIB, between=True),
    Row("medium-between", "20 files of 50 MiB between prefixes", True, 20, 50 * MIB, between=True),
    Row("idle", "nothing to move", True, 0, 0),
    Row("rules-in", "ten rules at once, 100 files of 4 KB each, in", True, 1000, 4 * KIB, rules=10),
    Row("first-keys", "the first 100 of 100,000 keys in", True, 100, KIB, extra=99_900),
    Row("first-files", "the oldest 100 of 100,000 files out", False, 100, KIB, extra=99_900),
]


# How the cost of 'bots-mover' alone grows: with the number of files, with how many are in flight,
# and with their size.
SCALE = [
    *[("in flight", str(number), 1000, 4 * KIB, number) for number in (1, 2, 4, 8, 16, 32, 64)],
    *[
        ("size", f"{count} x {size} bytes", count, size, None)
        for count, size in [(100, 0), (100, 64 * KIB), (100, MIB), (10, 16 * MIB), (1, GIB), (1, 5 * GIB)]
    ],
    *[("files", str(count), count, 4 * KIB, None) for count in (100, 1000, 10_000, 100_000)],
]


def main():
    options = arguments()
    if options.row == "plots":
        plots(Path(options.readme))
        return
    if options.row == "scale":
        scale(options)
        return
    chosen = [row for row in ROWS if options.row in ("all", row.name)]
    if not chosen:
        names = ", ".join(row.name for row in ROWS)
        sys.exit(f"no row {options.row}; there are all, scale, plots, {names}")
    with tempfile.TemporaryDirectory(prefix="mover-bench.", dir=options.directory) as work:
        with Bench(options, Path(work)) as bench:
            print(machine(), flush=True)
            if options.tiny:
                print("tiny: shows that each row runs, the figures mean nothing")
            print(HEAD, flush=True)
            for row in chosen:
                if options.tiny:
                    row.make_tiny()
                print(table(row, bench.measure(row, options.runs)), flush=True)
    print(f"\nload at the end: {load()}")


def scale(options):
    with tempfile.TemporaryDirectory(prefix="mover-bench.", dir=options.directory) as work:
        with Bench(options, Path(work)) as bench:
            print(machine())
            print("| what grows | to | | wall s | CPU s | CPU ms an item | peak MiB |")
            print("| --- | ---: | --- | ---: | ---: | ---: | ---: |", flush=True)
            for what, to, count, size, concurrency in SCALE:
                for inwards in (True, False):
                    row = Row("scale", "", inwards, count, size, concurrency=concurrency)
                    wall, cpu, peak = bench.measure_scale(row)
                    direction = "in" if inwards else "out"
                    figures = f"{wall:.3f} | {cpu:.3f} | {cpu * 1000 / count:.2f} | {peak / 1024:.1f}"
                    print(f"| {what} | {to} | {direction} | {figures} |", flush=True)
    print(f"\nload at the end: {load()}")


def arguments(tools=("mover", "rclone", "mc", "minio", "delay", "floor")):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in tools:
        parser.add_argument(f"--{name}", type=os.path.abspath)
    parser.add_argument("--directory", help="where the files lie; default: TMPDIR")
    parser.add_argument("--only", help="only these programs, with commas between")
    parser.add_argument("--tiny", action="store_true", help="a few small files: try all rows out")
    readme = Path(__file__).with_name("README.md")
    parser.add_argument("--readme", default=readme, help="whose tables 'plots' draws")
    parser.add_argument("row", nargs="?", default="all")
    parser.add_argument("runs", nargs="?", type=int, default=3)
    options = parser.parse_args()
    missing = [name for name in tools if not getattr(options, name)]
    if missing and options.row != "plots":
        parser.error(f"missing: {', '.join(missing)}")
    return options


# --- what is measured ---


class Bench:
    """The server, the files, and the programs."""

    def __init__(self, options, work):
        self.tools, self.work = vars(options), work
        self.only = options.only.split(",") if options.only else PROGRAMS
        self.source, self.dest = work / "source", work / "dest"
        self.masters = {}
        self.children = []
        self.filled = None

    def __enter__(self):
        (self.work / "staging").mkdir()
        self.near = f"127.0.0.1:{free_port()}"
        self.start_minio()
        self.far = self.away(ONE_WAY_MS)
        for bucket in [BUCKET, "master"]:
            self.mc("mb", f"m/{bucket}")
        return self

    def __exit__(self, *_):
        for child in self.children:
            child.kill()
            child.wait()

    def away(self, one_way_ms):
        """The address of the same server, so far away."""
        delay = [self.tools["delay"], self.near, str(one_way_ms)]
        return self.child(delay, stdout=subprocess.PIPE).stdout.readline().decode().strip()

    def child(self, command, **how):
        child = subprocess.Popen(command, env=self.environment(), **how)
        self.children.append(child)
        return child

    def start_minio(self):
        console = f"127.0.0.1:{free_port()}"
        command = [self.tools["minio"], "server", "--address", self.near]
        command += ["--console-address", console, str(self.work / "minio")]
        with open(self.work / "minio.log", "wb") as log:
            self.minio = self.child(command, stdout=log, stderr=log)
        end = time.monotonic() + START_PATIENCE_S
        while self.mc("ls", "m", check=False).returncode != 0:
            if time.monotonic() > end:
                sys.exit(f"MinIO did not start: {(self.work / 'minio.log').read_text()}")
            time.sleep(0.1)

    def environment(self, address=None):
        address = address or self.near
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.work),
            "TMPDIR": str(self.work / "staging"),
            "MINIO_ROOT_USER": KEY,
            "MINIO_ROOT_PASSWORD": SECRET,
            "MINIO_BROWSER": "off",
            "MINIO_ENDPOINT": f"http://{address}",
            "MINIO_ACCESS_KEY": KEY,
            "MINIO_SECRET_KEY": SECRET,
            "MC_HOST_m": f"http://{KEY}:{SECRET}@{address}",
            "MC_CONFIG_DIR": str(self.work / "mc"),
            "RCLONE_CONFIG": str(self.work / "rclone.conf"),
            "RCLONE_CONFIG_M_TYPE": "s3",
            "RCLONE_CONFIG_M_PROVIDER": "Minio",
            "RCLONE_CONFIG_M_ENDPOINT": f"http://{address}",
            "RCLONE_CONFIG_M_ACCESS_KEY_ID": KEY,
            "RCLONE_CONFIG_M_SECRET_ACCESS_KEY": SECRET,
        }

    def mc(self, *words, check=True):
        command = [self.tools["mc"], "--quiet", *words]
        done = subprocess.run(command, env=self.environment(), capture_output=True, check=False)
        if check and done.returncode != 0:
            sys.exit(f"mc {' '.join(words)}: {done.stdout.decode()} {done.stderr.decode()}")
        return done

    def measure(self, row, runs):
        """All runs of all programs: program -> list of (wall s, CPU s, peak KiB)."""
        programs = [name for name in row.programs() if name in self.only]
        results = {name: [] for name in programs}
        for _ in range(row.runs or runs):
            for program in programs:
                self.prepare(row)
                results[program].append(self.run_one(row, program))
                self.check(row, program)
        shutil.rmtree(self.work / "aside", ignore_errors=True)
        return results

    def measure_scale(self, row):
        """One run of the mover over files that are made for it."""
        self.make_new(row)
        figures = self.run_one(row, "mover")
        self.check_new(row)
        return figures

    def make_new(self, row):
        for directory in (self.source, self.dest):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
        self.mc("rm", "--recursive", "--force", f"m/{BUCKET}/{row.name}/", check=False)
        self.fill(row, row.count)

    def check_new(self, row):
        brought = len(files(self.dest) if row.inwards else self.keys(row))
        left = len(self.keys(row) if row.inwards else files(self.source))
        if (brought, left) != (row.count, 0):
            sys.exit(f"{row.name}: brought {brought} of {row.count} and left {left}")

    def run_one(self, row, program):
        address = self.far if row.far else self.near
        return self.run_at_once([self.command(row, program)], address, f"{row.name}: {program}")

    def run_at_once(self, commands, address, what):
        """Wall time of them all, the CPU time of all together, the peak memory of the largest."""
        output = self.work / "output"
        output.write_bytes(b"")
        launchers, fifos = [], [self.work / f"fifo-{number}" for number in range(len(commands))]
        for command, fifo in zip(commands, fifos):
            if not fifo.exists():
                os.mkfifo(fifo)
            environment = self.environment(address)
            environment |= {
                "FIFO": str(fifo),
                "OUTPUT": str(output),
                "PYTHON": sys.executable,
                "REPORT": REPORT,
            }
            launch = ["sh", "-c", LAUNCHER, "sh", *command]
            launchers.append(subprocess.Popen(launch, env=environment, stdout=subprocess.PIPE))
        # Opening waits for a program's start, reading for its end.
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(open(fifos[0], "rb"))]
            started = time.monotonic()
            opened += [stack.enter_context(open(fifo, "rb")) for fifo in fifos[1:]]
            for fifo in opened:
                fifo.read()
            wall = time.monotonic() - started
        reports = [launcher.communicate()[0].split() for launcher in launchers]
        for status, _, _ in reports:
            if int(status) != 0:
                sys.exit(f"{what} ended with {status.decode()}: {output.read_text()}")
        return wall, sum(float(cpu) for _, cpu, _ in reports), max(int(peak) for *_, peak in reports)

    # --- the same work for each program ---

    def command(self, row, program):
        parts = [self.one_command(row, program, part) for part in range(row.rules)]
        if program == "mover":
            return self.mover(row)
        if len(parts) == 1:
            return parts[0]
        # They have no rules: as many processes.
        lines = "".join(f"{shell(part)} & pids=\"$pids $!\"\n" for part in parts)
        return ["sh", "-c", f"{lines}for pid in $pids; do wait $pid || exit 1; done"]

    def mover(self, row):
        rules = {}
        for part in range(row.rules):
            directory = {"type": "file"}
            keys = {"type": "s3", "path": self.prefix(row, part)}
            directory["path"] = str((self.dest if row.inwards else self.source) / self.sub(row, part))
            ends = (keys, directory) if row.inwards else (directory, keys)
            if row.between:
                ends = (keys, {"type": "s3", "path": self.target(row)})
            rules[f"rule-{part}"] = {"src": ends[0], "dest": ends[1]}
        defaults = {"default_bucket": BUCKET, "max_items": max(row.count, 1)}
        if row.concurrency:
            defaults["concurrency"] = row.concurrency
        config = self.work / "config.yaml"
        config.write_text(json.dumps({"config": {"defaults": defaults, **rules}}))
        return [self.tools["mover"], "--config", str(config)]

    def one_command(self, row, program, part):
        sub, prefix = self.sub(row, part), self.prefix(row, part)
        source, dest = str(self.source / sub), str(self.dest / sub)
        if program == "floor":
            direction = "in" if row.inwards else "out"
            count = str(row.count // row.rules)
            return [self.tools["floor"], direction, BUCKET, f"{prefix}/", count, str(row.size), "16"]
        if row.extra:
            return self.first(row, program, prefix, source, dest)
        if program == "mc":
            ends = [f"m/{BUCKET}/{prefix}/", f"{dest}/"]
            if row.between:
                ends[1] = f"m/{BUCKET}/{self.target(row)}/"
            if not row.inwards:
                ends = [f"{source}/", f"m/{BUCKET}/{prefix}/"]
            # It takes a prefix without keys for a mistake.
            if row.count == 0:
                return [self.tools["mc"], "--quiet", "ls", "--recursive", ends[0]]
            return [self.tools["mc"], "--quiet", "mv", "--recursive", *ends]
        ends = [f"m:{BUCKET}/{prefix}", dest] if row.inwards else [source, f"m:{BUCKET}/{prefix}"]
        if row.between:
            ends[1] = f"m:{BUCKET}/{self.target(row)}"
        return [self.tools["rclone"], "move", *transfers(program), *ends]

    def first(self, row, program, prefix, source, dest):
        """The first items of many: what a script around the program would do."""
        count, tool = row.count, self.tools["mc" if program == "mc" else "rclone"]
        listing, number = f"{self.work}/listing", f"head -n {count}"
        if program == "mc":
            find = f"{tool} find m/{BUCKET}/{prefix} | {number}"
            return ["sh", "-c", f"{find} | xargs sh -c '{tool} --quiet mv \"$@\" {dest}/' sh"]
        away, home = f"m:{BUCKET}/{prefix}", source
        move = [tool, "move", *transfers(program), "--files-from", listing]
        if row.inwards:
            listed = f"{tool} lsf --files-only {away} | {number}"
            move += [away, dest]
        else:
            listed = f"{tool} lsf --files-only --format tp {home} | sort | {number} | cut -d ';' -f 2"
            move += [home, away]
        return ["sh", "-c", f"{listed} >{listing} && exec {shell(move)}"]

    def sub(self, row, part):
        return f"{part:02}" if row.rules > 1 else "."

    def prefix(self, row, part):
        return f"{row.name}/{part:02}" if row.rules > 1 else row.name

    def target(self, row):
        """Where a row between prefixes goes to."""
        return f"to-{row.name}"

    # --- before and after a run ---

    def prepare(self, row):
        self.put_aside(self.dest, row)
        self.dest.mkdir()
        if row.between or not row.inwards:
            prefix = self.target(row) if row.between else row.name
            self.mc("rm", "--recursive", "--force", f"m/{BUCKET}/{prefix}/", check=False)
        if row.extra:
            # Many more are there than all runs will take.
            if self.filled != row.name:
                self.fill(row, row.count + row.extra)
            self.filled = row.name
            return
        master = self.master(row)
        if not row.inwards:
            self.put_aside(self.source, row)
            shutil.copytree(master, self.source, copy_function=os.link)
            for part in range(row.rules):
                (self.source / self.sub(row, part)).mkdir(exist_ok=True)
        elif row.count > 0:
            # The server copies from its own master.
            target = f"m/{BUCKET}/{row.name}/"
            self.mc("cp", "--recursive", f"m/master/{row.name}/", target)
        self.warm_up(row)
        subprocess.run(["sync"], check=True)

    def warm_up(self, row):
        """Touches as much memory as a run may fill, and frees it: a virtual machine pays for pages
        that it had not in use, and so would whoever comes first."""
        scratch = self.work / "scratch"
        with open(scratch, "wb") as file:
            for _ in range(0, 2 * row.count * row.size, MIB):
                file.write(bytes(MIB))
        scratch.unlink()

    def put_aside(self, directory, row):
        """Makes way for an empty directory. Many files are not removed before all runs are over:
        ext4 is slow to make files where it has just removed some, and the next program would be
        charged for it."""
        if not directory.exists():
            return
        if row.count < MANY:
            shutil.rmtree(directory)
            return
        aside = self.work / "aside"
        aside.mkdir(exist_ok=True)
        directory.rename(aside / f"{len(os.listdir(aside)):04}")

    def master(self, row):
        """A directory with the row's files, also in the master bucket where they come from there."""
        if row.name not in self.masters:
            for old in self.masters.values():
                shutil.rmtree(old[0])
            self.masters.clear()
            directory, sums = self.work / "master" / row.name, {}
            directory.mkdir(parents=True)
            for number in range(row.count):
                part = number % row.rules
                path = directory / self.sub(row, part) / f"{number:06}.edi"
                path.parent.mkdir(exist_ok=True)
                sums[path.relative_to(directory).as_posix()] = write_random(path, row.size, number)
            self.masters[row.name] = directory, sums
            if row.inwards and row.count > 0:
                self.mc("rm", "--recursive", "--force", "m/master/", check=False)
                self.mc("cp", "--recursive", f"{directory}/", f"m/master/{row.name}/")
        return self.masters[row.name][0]

    def fill(self, row, count):
        """So many files or objects of the row's size, whatever is in them."""
        if row.inwards:
            words = ["out", BUCKET, f"{row.name}/", str(count), str(row.size), "16"]
            subprocess.run([self.tools["floor"], *words], env=self.environment(), check=True)
            return
        shutil.rmtree(self.source, ignore_errors=True)
        self.source.mkdir()
        for number in range(count):
            with open(self.source / f"{number:06}.edi", "wb") as file:
                for start in range(0, row.size, MIB):
                    file.write(b"x" * min(MIB, row.size - start))
        subprocess.run(["sync"], check=True)

    def check(self, row, program):
        """Ends the benchmark where a run did not do all its work."""
        problem = self.problem(row, program)
        if problem:
            output = (self.work / "output").read_text(errors="replace")
            sys.exit(f"{row.name}: {program} {problem}\n{output[-4000:]}")

    def problem(self, row, program):
        keys = None
        if row.between:
            moved = self.keys(row, self.target(row))
        elif row.inwards:
            moved = {} if program == "floor" else files(self.dest)
        else:
            moved = keys = self.keys(row)
        if len(moved) != row.count and not (row.inwards and program == "floor"):
            return f"brought {len(moved)} of {row.count}"
        if any(size != row.size for size, _ in moved.values()):
            return "brought some cut short"
        if row.extra:
            return None
        if row.inwards:
            keys = self.keys(row)
            if keys:
                return f"left {len(keys)} at the source"
        elif program != "floor":
            left = files(self.source)
            if left:
                return f"left {len(left)} at the source"
        if program == "floor" or row.count == 0:
            return None
        sums = self.masters[row.name][1]
        if row.inwards and not row.between:
            wrong = [name for name in moved if crc_of(self.dest / name) != sums.get(name, (0,))[0]]
        else:
            # The ETag of an object that came in parts says nothing of its bytes.
            wrong = [name for name in moved if name not in sums or "-" not in moved[name][1]
                     and moved[name][1] != sums[name][1]]
        return f"changed {', '.join(wrong[:3])}" if wrong else None

    def keys(self, row, prefix=None):
        """What is in the bucket: name -> (size, ETag)."""
        place = f"m/{BUCKET}/{prefix or row.name}/"
        answer = self.mc("ls", "--json", "--recursive", place, check=False)
        lines = [json.loads(line) for line in answer.stdout.splitlines()]
        return {line["key"]: (line["size"], line["etag"]) for line in lines if "key" in line}


def transfers(program):
    return ["--transfers", "32"] if program == "rclone-32" else []


def shell(words):
    return " ".join(f"'{word}'" for word in words)


def files(directory):
    found = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): (path.stat().st_size, None) for path in found}


def write_random(path, size, seed):
    """Gives the CRC-32 and the MD5 of what was written."""
    numbers, crc, md5 = random.Random(seed), 0, hashlib.md5()
    with open(path, "wb") as file:
        while size > 0:
            chunk = numbers.randbytes(min(size, MIB))
            crc, size = zlib.crc32(chunk, crc), size - len(chunk)
            md5.update(chunk)
            file.write(chunk)
    return crc, md5.hexdigest()


def crc_of(path):
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(MIB):
            crc = zlib.crc32(chunk, crc)
    return crc


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# --- what is printed ---

HEAD = f"""
| work | | {' | '.join(PROGRAMS)} | mover : best peer |
| --- | --- | {' | '.join(['---:'] * len(PROGRAMS))} | ---: |"""


def table(row, results):
    """Three lines: medians of wall time, CPU time and peak memory."""
    scales = [("wall s", 1, 3), ("CPU s", 1, 3), ("peak MiB", 1 / 1024, 1)]
    lines = []
    for index, (what, scale, digits) in enumerate(scales):
        medians = {
            name: scale * statistics.median(run[index] for run in runs)
            for name, runs in results.items()
        }
        cells = [f"{medians[name]:.{digits}f}" if name in medians else "" for name in PROGRAMS]
        peers = [medians[name] for name in PEERS if name in medians]
        ratio = f"{medians['mover'] / min(peers):.2f}" if peers and "mover" in medians else ""
        title = f"{row.name}: {row.title}" if index == 0 else ""
        lines.append(f"| {title} | {what} | {' | '.join(cells)} | {ratio} |")
    return "\n".join(lines)


# --- what is drawn ---

PLOTS = ("<!-- plots: './build.sh bench plots' -->", "<!-- end of plots -->")
# Columns of the table of growth; that of the results ends with the ratio.
CPU_OF_ITEM, PEAK = 5, 6
# A column of the table of shards.
ITEMS_A_SECOND = 3


def plots(readme):
    """Draws the tables of the README between its two markers."""
    text = readme.read_text()
    head, rest = text.split(PLOTS[0])
    _, tail = rest.split(PLOTS[1])
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line] for line in lines]
    charts = [ratio_chart(rows, what) for what in ("wall s", "CPU s", "peak MiB")]
    for what in ("files", "in flight"):
        charts.append(growth_chart(rows, what, "CPU ms an item", CPU_OF_ITEM))
        charts.append(growth_chart(rows, what, "peak MiB", PEAK))
    charts += shard_charts(rows)
    readme.write_text("\n\n".join([head + PLOTS[0], *charts, PLOTS[1]]) + tail)


def ratio_chart(rows, what):
    """The mover against the best peer in each row of the results."""
    found, name = [], ""
    for cells in rows:
        if len(cells) != len(PROGRAMS) + 3:
            continue
        name = cells[0].split(":")[0] or name
        if cells[1] == what and cells[-1]:
            found.append((name, cells[-1]))
    names, ratios = zip(*found)
    one = ", ".join("1" for _ in ratios)
    title = f"{what.split()[0]}: mover (bars) to the best peer (line)"
    return chart(title, names, "mover : best peer", [f"bar [{', '.join(ratios)}]", f"line [{one}]"])


def growth_chart(rows, what, figure, column):
    """How a figure of the mover alone grows."""
    ends = {"in": [], "out": []}
    for cells in rows:
        if len(cells) == PEAK + 1 and cells[0] == what:
            ends[cells[2]].append((cells[1], cells[column]))
    names = [name for name, _ in ends["in"]]
    values = {end: ", ".join(value for _, value in found) for end, found in ends.items()}
    title = f"{figure} by {what}: in (bars), out (line)"
    return chart(title, names, figure, [f"bar [{values['in']}]", f"line [{values['out']}]"])


def shard_charts(rows):
    """Throughput against the number of shards, for each work that was done in both directions."""
    found, work = {}, ""
    for cells in rows:
        if len(cells) == PEAK + 1 and cells[1].isdigit() and cells[ITEMS_A_SECOND].isdigit():
            work = cells[0] or work
            found.setdefault(work, []).append((cells[1], cells[ITEMS_A_SECOND]))
    charts = []
    for work, figures in found.items():
        way_out = found.get(work.replace(" in", " out"))
        if " in" in work and way_out:
            title = f"items a second by shards, {work.replace(' in', '')}: in (bars), out (line)"
            series = [
                f"{how} [{', '.join(value for _, value in values)}]"
                for how, values in (("bar", figures), ("line", way_out))
            ]
            charts.append(chart(title, [name for name, _ in figures], "items a second", series))
    return charts


def chart(title, names, axis, series):
    """Bars and a line, for there is no legend; the colours are those of the reader's page."""
    labels = ", ".join(f'"{name}"' for name in names)
    lines = ["xychart-beta", f'    title "{title}"', f"    x-axis [{labels}]", f'    y-axis "{axis}"']
    lines += [f"    {line}" for line in series]
    return "\n".join(["```mermaid", *lines, "```"])


def machine():
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
    memory = Path("/proc/meminfo").read_text().split()[1]
    date = time.strftime("%Y-%m-%d")
    return (
        f"{date}, Linux {platform.release()}, {os.cpu_count()} x {model}, "
        f"{int(memory) // MIB} GiB, load {load()}"
    )


def load():
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


if __name__ == "__main__":
    main()
