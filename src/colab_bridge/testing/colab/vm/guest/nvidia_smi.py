"""Says what ``nvidia-smi`` says on a machine with the cards that ``gpus.json`` beside it lists."""

import json
import os
import sys

MIB = 1024 * 1024
DRIVER, CUDA = "580.82.07", "13.0"


def facts(index, gpu):
    """Return every field that can be asked for, each with its unit."""
    total, used = gpu["memory_total_bytes"] // MIB, gpu["memory_used_bytes"] // MIB
    return {
        "index": (str(index), ""),
        "count": (str(len(load())), ""),
        "name": (gpu["name"], ""),
        "gpu_name": (gpu["name"], ""),
        "uuid": (f"GPU-00000000-0000-0000-0000-{index:012d}", ""),
        "gpu_uuid": (f"GPU-00000000-0000-0000-0000-{index:012d}", ""),
        "driver_version": (DRIVER, ""),
        "memory.total": (str(total), "MiB"),
        "memory.used": (str(used), "MiB"),
        "memory.free": (str(total - used), "MiB"),
        "utilization.gpu": (str(round(gpu["utilisation"] * 100)), "%"),
        "utilization.memory": (str(round(100 * used / total)), "%"),
        "temperature.gpu": ("45", ""),
        "power.draw": ("30.00", "W"),
        "pstate": ("P8", ""),
    }


def load():
    """Return the cards of this machine."""
    with open(os.path.join(os.path.dirname(os.path.realpath(__file__)), "gpus.json"), encoding="utf-8") as file:
        return json.load(file)


def main(arguments):
    """Answer one call; return its exit status."""
    gpus = load()
    if not gpus:
        print("No devices were found")
        return 6
    options = dict(argument.partition("=")[::2] for argument in arguments)
    if "-L" in options or "--list-gpus" in options:
        for index, gpu in enumerate(gpus):
            print(f"GPU {index}: {gpu['name']} (UUID: {facts(index, gpu)['uuid'][0]})")
        return 0
    if "--query-gpu" in options:
        return query(gpus, options["--query-gpu"].split(","), options.get("--format", ""))
    if any(name.startswith("--query-compute-apps") for name in options):
        if "noheader" not in options.get("--format", ""):
            print(options["--query-compute-apps"].replace(",", ", "))
        return 0
    if arguments:
        print(f"Option not recognised: {arguments[0]}", file=sys.stderr)
        return 2
    table(gpus)
    return 0


def query(gpus, fields, form):
    """Answer ``--query-gpu``."""
    known = facts(0, gpus[0])
    for field in fields:
        if field.strip() not in known:
            print(f'Field "{field}" is not a valid field to query.')
            return 2
    names = [field.strip() for field in fields]
    if "noheader" not in form:
        print(", ".join(f"{name} [{known[name][1]}]" if known[name][1] else name for name in names))
    for index, gpu in enumerate(gpus):
        row = facts(index, gpu)
        plain = "nounits" in form
        print(", ".join(row[name][0] if plain or not row[name][1] else " ".join(row[name]) for name in names))
    return 0


def table(gpus):
    """Print the overview for people."""
    line = "+" + "-" * 78 + "+"
    print(line)
    print(f"| {f'NVIDIA-SMI {DRIVER}   Driver Version: {DRIVER}   CUDA Version: {CUDA}':<76} |")
    print(line)
    for index, gpu in enumerate(gpus):
        row = facts(index, gpu)
        memory = f"{row['memory.used'][0]}MiB / {row['memory.total'][0]}MiB"
        print(f"| {index:>3}  {gpu['name']:<40} {memory:>22} {row['utilization.gpu'][0]:>5}% |")
    print(line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
