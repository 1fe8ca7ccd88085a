#!/usr/bin/env bash
# A head and a worker node of Ray on this machine, with token authentication and the jobs server:
# what a cluster is to a sweep, small enough for a laptop. `cluster/local.sh -h` says how.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: cluster/local.sh start [options] | status [--dir DIR] | stop [--dir DIR] | env [--dir DIR]

  start    start a head and a worker node, then print the next command
  status   show the nodes and their jobs
  stop     end both nodes, and no other Ray on this machine
  env      print what a shell needs to talk to them: eval "$(cluster/local.sh env)"

options of start:
  --head-cpus N        CPUs of the head (default 1)
  --worker-cpus N      CPUs of the worker (default 1)
  --runs DIR           where jobs write, as SWEEPS_RUNS (default ./runs)
  --port N             of the head (default 6379)
  --dashboard-port N   of the jobs server (default 8265)
  --dir DIR            state, token, logs: your own folder, a short path
                       (default sweeps-ray in $XDG_RUNTIME_DIR, or ~/.sweeps-ray)

PYTHON names the interpreter (default .venv/bin/python, or python3).
TEXT
}

fail() {
    echo "error: $*" >&2
    exit 2
}

command=${1:-}
[ $# -gt 0 ] && shift
# A folder that no other user can have made: whose token is in it may run code as us.
usual=${HOME:-}/.sweeps-ray
if [ -n "${XDG_RUNTIME_DIR:-}" ] && [ -d "$XDG_RUNTIME_DIR" ] && [ -O "$XDG_RUNTIME_DIR" ]; then
    usual=$XDG_RUNTIME_DIR/sweeps-ray
fi
head_cpus=1 worker_cpus=1 runs=runs port=6379 dashboard=8265 dir=$usual
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --head-cpus | --worker-cpus | --runs | --port | --dashboard-port | --dir)
        [ $# -ge 2 ] || fail "$1: got nothing; expected a value; try cluster/local.sh -h"
        case $1 in
        --head-cpus) head_cpus=$2 ;;
        --worker-cpus) worker_cpus=$2 ;;
        --runs) runs=$2 ;;
        --port) port=$2 ;;
        --dashboard-port) dashboard=$2 ;;
        --dir) dir=$2 ;;
        esac
        shift 2
        ;;
    *) fail "$1: got an unknown option; expected one of those of cluster/local.sh -h" ;;
    esac
done

if [ -z "${PYTHON:-}" ]; then
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi
python=$(command -v "$PYTHON") || fail "PYTHON: got $PYTHON; expected an interpreter; try make install"
bin=$(cd "$(dirname "$python")" && pwd)

case $dir in /*) ;; *) dir=$PWD/$dir ;; esac

# Every process of these two nodes carries the folder in its environment; nothing else does.
marker="SWEEPS_LOCAL_CLUSTER=$dir"

ours() {
    # Not grep itself, which has the marker once `start` has exported it.
    { env -u SWEEPS_LOCAL_CLUSTER grep -lzxF "$marker" /proc/[0-9]*/environ 2>/dev/null || true; } | cut -d/ -f3
}

# Ours and all below them: Ray's agents write their titles over their environment.
family() {
    "$python" - $(ours) <<'TEXT'
import pathlib, sys
parents = {}
for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
        parents[int(stat.parent.name)] = int(stat.read_text("ascii", "replace").rpartition(")")[2].split()[1])
    except OSError:
        pass  # it has just ended
found = {int(pid) for pid in sys.argv[1:]}
while more := {pid for pid, parent in parents.items() if parent in found} - found:
    found |= more
print(*sorted(found))
TEXT
}

# Those of the given processes that are still there.
alive() {
    local pid
    for pid in "$@"; do
        if [ -e "/proc/$pid/cwd" ]; then echo "$pid"; fi
    done | sort -u
}

# The folder is ours, is no link, and no other user may look into it.
ours_alone() {
    "$python" - "$dir" <<'TEXT'
import os, stat, sys
found = os.lstat(sys.argv[1])
sys.exit(not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077 != 0)
TEXT
}

check_folder() {
    [ -e "$dir" ] || [ -L "$dir" ] || fail "$dir: got no local cluster; expected one; try cluster/local.sh start"
    ours_alone || fail "--dir: got $dir, which other users may use; expected a folder of your own with mode 700; try --dir DIR that is not there yet"
}

taken() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

environment() {
    echo "export RAY_AUTH_MODE=token"
    printf 'export RAY_AUTH_TOKEN_PATH=%q\n' "$dir/token"
    echo "export RAY_API_SERVER_ADDRESS=http://127.0.0.1:$(tr -cd 0-9 <"$dir/dashboard-port")"
}

start() {
    [ -z "$(ours)" ] || fail "$dir: got a cluster that runs already; expected none; try cluster/local.sh stop"
    [ ${#dir} -le 38 ] || fail "--dir: got $dir; expected at most 38 characters, for Ray's sockets; try a new folder in /tmp"
    [ -x "$bin/ray" ] || fail "PYTHON: got $python without Ray; expected one with it; try pip install '.[sweeps]'"
    local each
    for each in $port $((port + 1)) $((port + 2)) $((port + 3)); do
        taken "$each" && fail "--port: got $port, and something listens on $each; expected four free ones in a row; try another"
    done
    taken "$dashboard" && fail "--dashboard-port: got $dashboard, and something listens there; expected a free one; try another"
    [ -e "$dir" ] || [ -L "$dir" ] || mkdir -m 700 "$dir" || fail "--dir: got $dir, which cannot be made; expected a new folder in one that is there; try another"
    check_folder
    mkdir -p "$runs"
    runs=$(cd "$runs" && pwd)
    rm -f "$dir/token" "$dir/dashboard-port"
    (umask 077 && set -o noclobber &&
        "$python" -c 'import secrets; print(secrets.token_hex(32), end="")' >"$dir/token" &&
        echo "$dashboard" >"$dir/dashboard-port") || fail "$dir: got no token; expected to write one"

    # Jobs inherit the environment of the node they run on: this Python, these runs, one thread a trial.
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$dir/token PATH=$bin:$PATH SWEEPS_RUNS=$runs
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "${marker?}"
    unset RAY_ADDRESS RAY_API_SERVER_ADDRESS RAY_AUTH_TOKEN
    # A folder for each node: in a shared one the worker would replace the working folder under a job's feet.
    local common=(--block --disable-usage-stats --node-ip-address 127.0.0.1
        --object-store-memory 200000000)
    setsid "$bin/ray" start --head --port "$port" --dashboard-host 127.0.0.1 --dashboard-port "$dashboard" \
        --ray-client-server-port $((port + 1)) --dashboard-agent-listen-port $((port + 2)) \
        --temp-dir "$dir/h" --num-cpus "$head_cpus" "${common[@]}" >"$dir/head.log" 2>&1 </dev/null &
    await 1 "$dir/head.log"
    setsid "$bin/ray" start --address "127.0.0.1:$port" --dashboard-agent-listen-port $((port + 3)) \
        --temp-dir "$dir/w" --num-cpus "$worker_cpus" "${common[@]}" >"$dir/worker.log" 2>&1 </dev/null &
    await 2 "$dir/worker.log"

    echo "Ray runs here: a head with $head_cpus CPUs and a worker with $worker_cpus; jobs write to $runs"
    echo
    echo "  eval \"\$(cluster/local.sh env${1:-})\""
    echo "  ray job submit --working-dir . -- python -m sweeps run quickstart-small"
    echo
    echo "page: http://127.0.0.1:$dashboard (it asks for the token: cat $dir/token)"
    echo "end it: cluster/local.sh stop${1:-}"
}

# Wait until so many nodes are alive and the jobs server has an agent to give jobs to.
await() {
    local _
    for _ in $(seq 120); do
        if "$python" - "$1" "$dashboard" "$dir/token" 2>/dev/null <<'TEXT'; then
import json, sys, urllib.request
nodes, port, token = int(sys.argv[1]), sys.argv[2], open(sys.argv[3]).read()
def get(path):
    headers = {"Authorization": f"Bearer {token}"}
    url = f"http://127.0.0.1:{port}{path}"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
        return json.load(answer)
get("/api/version")
summary = get("/nodes?view=summary")["data"]["summary"]
alive = [node for node in summary if node.get("raylet", {}).get("state") == "ALIVE"]
sys.exit(len(alive) < nodes)
TEXT
            return
        fi
        if [ -z "$(ours)" ]; then break; fi
        sleep 0.5
    done
    tail -n 20 "$2" >&2
    stop >/dev/null
    fail "$dir: got no answer from Ray; expected $1 nodes; try another --port, and see ${2}"
}

status() {
    [ -n "$(ours)" ] || { echo "no local cluster in $dir" && exit 1; }
    eval "$(environment)"
    "$bin/ray" job list 2>/dev/null | grep -o "JobDetails.*" || echo "no jobs yet"
    "$bin/ray" status --address "127.0.0.1:$(gcs_port)"
}

gcs_port() {
    "$python" - "$dir" <<'TEXT'
import pathlib, sys
print(pathlib.Path(sys.argv[1], "h", "ray_current_cluster").read_text().strip().rpartition(":")[2])
TEXT
}

stop() {
    local pids signal
    pids=$(family)
    for signal in TERM KILL; do
        # shellcheck disable=SC2086
        [ -z "$pids" ] || kill -$signal $pids 2>/dev/null || true
        for _ in $(seq 50); do
            # shellcheck disable=SC2086
            pids=$(alive $pids $(ours))
            [ -n "$pids" ] || break 2
            sleep 0.1
        done
    done
    [ -z "$pids" ] || fail "$dir: got processes that do not end: ${pids//$'\n'/ }"
    rm -f "$dir/token" "$dir/dashboard-port"
    echo "no process of the cluster in $dir is left; its logs stay there"
}

case $command in
start) if [ "$dir" = "$usual" ]; then start; else start " --dir $(printf %q "$dir")"; fi ;;
status) check_folder && status ;;
stop) check_folder && stop ;;
env)
    check_folder
    [ -f "$dir/token" ] || fail "$dir: got no local cluster; expected one; try cluster/local.sh start"
    environment
    ;;
-h | --help) usage ;;
*) usage >&2 && exit 2 ;;
esac
