# shellcheck shell=bash
# Control groups for the end-to-end scripts: what a test started is killed with its group, and can be
# given a limit of memory. Version 1 (its memory hierarchy) and 2. Where there is none, or none may be
# made, cg_new says so and the callers go on without.

# cg_root: the folder below which groups are made, or nothing.
cg_root() {
    if [ -d /sys/fs/cgroup/memory ] && [ -w /sys/fs/cgroup/memory/cgroup.procs ]; then
        echo /sys/fs/cgroup/memory
    elif [ -w /sys/fs/cgroup/cgroup.subtree_control ]; then
        echo /sys/fs/cgroup
    fi
}

# cg_new NAME: makes a group, prints its folder; false where that cannot be.
cg_new() {
    local root dir
    root=$(cg_root)
    [ -n "$root" ] || return 1
    dir=$root/aprfs-test.$$.$1
    mkdir "$dir" 2>/dev/null || return 1
    echo "$dir"
}

# cg_limit DIR BYTES: false where memory cannot be limited.
cg_limit() {
    if [ -e "$1/memory.limit_in_bytes" ]; then
        echo "$2" 2>/dev/null >"$1/memory.limit_in_bytes"
        return
    fi
    [ -e "$1/memory.max" ] || echo +memory 2>/dev/null >"$(dirname "$1")/cgroup.subtree_control"
    [ -e "$1/memory.max" ] && echo "$2" 2>/dev/null >"$1/memory.max" &&
        { echo 0 >"$1/memory.swap.max"; } 2>/dev/null
}

# cg_enter DIR: the calling shell, and what it starts from now on.
cg_enter() { echo 0 2>/dev/null >"$1/cgroup.procs"; }

# cg_oom_kills DIR: how many processes the kernel killed there for memory.
cg_oom_kills() { cat "$1/memory.oom_control" "$1/memory.events" 2>/dev/null | awk '$1 == "oom_kill" { print $2 }'; }

# cg_kill DIR: everything in it, then the group itself.
cg_kill() {
    local i p
    for i in {1..100}; do
        if [ -e "$1/cgroup.kill" ]; then
            echo 1 2>/dev/null >"$1/cgroup.kill"
        else
            for p in $(cat "$1/cgroup.procs" 2>/dev/null); do kill -9 "$p" 2>/dev/null; done
        fi
        rmdir "$1" 2>/dev/null && return
        [ -d "$1" ] || return
        sleep 0.05
    done
    echo "# $1: processes that do not end: $(cat "$1/cgroup.procs")"
}
