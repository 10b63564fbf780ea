# shellcheck shell=bash
# Sourced by what a person types (scripts/try, scripts/test): makes the machine
# this runs on able to run it. Bash, because it runs before there is a Python
# environment; everything after it is Python.
#
#   say TEXT...                 a progress line
#   refuse TEXT...              one clear line, exit 2, nothing done
#   need_root_on_debian         refuse anything else
#   need_packages NAME...       Debian packages, installed if missing
#   need_environment control|dev   .venv from requirements/<name>.lock

ptslink_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
ptslink_command=$(basename "$0")
ptslink_started=$SECONDS

say() { printf '[%3ds] %s\n' "$((SECONDS - ptslink_started))" "$*"; }

refuse() {
    printf '%s: %s\n' "scripts/$ptslink_command" "$*" >&2
    exit 2
}

need_root_on_debian() {
    [ "$(id -u)" -eq 0 ] ||
        refuse "needs root: it makes machines and network namespaces. Run: sudo scripts/$ptslink_command"
    local id=unknown version=unknown
    if [ -r /etc/os-release ]; then
        id=$(. /etc/os-release && printf '%s' "${ID:-unknown}")
        version=$(. /etc/os-release && printf '%s' "${VERSION_ID:-unknown}")
    fi
    case "$id:$version" in
        debian:12 | debian:13) ;;
        *) refuse "runs on Debian 12 or 13, this is $id $version. (The playbooks themselves need" \
            "no more than Python 3.11 and what requirements/control.lock holds: see README.md," \
            "\"Provision a real server\".)" ;;
    esac
}

need_packages() {
    local missing=() name
    for name in "$@"; do
        dpkg-query --show --showformat='${db:Status-Abbrev}' "$name" 2>/dev/null | grep -q '^ii' || missing+=("$name")
    done
    [ "${#missing[@]}" -eq 0 ] && return
    say "installing Debian packages: ${missing[*]}"
    local log
    log=$(mktemp)
    if ! {
        DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 update &&
            DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 \
                install --no-install-recommends "${missing[@]}"
    } >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        refuse "apt-get could not install ${missing[*]} (its last lines are above, the rest in $log)." \
            "Mend that, then run this again."
    fi
    rm -f "$log"
}

# What an environment is made from: the lock, where the checkout is, and the commands it declares.
environment_stamp() { # LOCK
    { cat "$1"; pwd; sed -n '/^\[project\]/,/^\[dependency-groups\]/p' pyproject.toml; } | sha256sum | cut -d' ' -f1
}

need_environment() {
    local lock="$ptslink_root/requirements/$1.lock" venv="$ptslink_root/.venv" wanted
    # Making it anew would empty the directory at the other end of the link.
    [ ! -L "$venv" ] || refuse "$venv is a symbolic link: remove it; each checkout has an environment of its own."
    exec {ptslink_lock_fd}>"$ptslink_root/.venv.lock"
    flock "$ptslink_lock_fd"
    wanted=$(environment_stamp "$lock")
    # The dev environment holds all of control, so either stamp will do for control.
    if ! { [ -x "$venv/bin/python" ] && "$venv/bin/python" -c '' 2>/dev/null &&
        grep -qsx "$1 $wanted" "$venv/.ptslink-stamp"; }; then
        say "making the Python environment ($1: $(grep -c '==' "$lock") pinned packages)"
        local log
        log=$(mktemp)
        if ! {
            /usr/bin/python3 -m venv --clear "$venv" &&
                "$venv/bin/python" -m pip install --disable-pip-version-check --require-hashes -r "$lock" &&
                "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps --no-build-isolation \
                    --editable "$ptslink_root"
        } >"$log" 2>&1; then
            tail -n 15 "$log" >&2
            refuse "could not make the Python environment from requirements/$1.lock" \
                "(last lines above, the rest in $log). Is a Python package index reachable?"
        fi
        rm -f "$log"
        printf '%s %s\n' "$1" "$wanted" >>"$venv/.ptslink-stamp"
        if [ "$1" = dev ]; then
            printf 'control %s\n' "$(environment_stamp "$ptslink_root/requirements/control.lock")" \
                >>"$venv/.ptslink-stamp"
        fi
    fi
    flock --unlock "$ptslink_lock_fd"
    exec {ptslink_lock_fd}>&-
    # An empty part of it would mean the working directory.
    export PATH="$venv/bin${PATH:+:$PATH}"
}
