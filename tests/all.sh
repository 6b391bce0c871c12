#!/usr/bin/env bash
# Runs every test of every feature. This is the README's one test command.
#
# Needs Rust and a C toolchain. What the tests stand on besides is installed where it is missing: redis-server and Chromium from
# the system's packages; Python arshai, MCP's Python SDK, a server made with it and two Milvus servers from PyPI; a server
# of models, MCP servers, MCP's conformance suite and the Node that it needs from npm; all pinned, into target/. A thing
# that cannot be installed fails this script: it never skips in silence. Where all is there it only looks.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "tests/all.sh: $*" >&2
    exit 1
}

command -v cargo >/dev/null ||
    fail "cargo is missing; install Rust 1.89 or newer from your system's packages or rustup"
command -v cc >/dev/null ||
    fail 'a C compiler is missing (the TLS library builds C); on Debian: apt-get install gcc'

# Installs packages of the system, if this user may.
system_install() {
    local as_root=()
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" != 0 ]; then
        as_root=(sudo -n)
        "${as_root[@]}" true 2>/dev/null || return 1
    fi
    echo "tests/all.sh: installing $*"
    "${as_root[@]}" apt-get update -qq &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"
}

# --- redis-server 7 or newer: the tests start their own, on free ports.
command -v redis-server >/dev/null || system_install redis-server || true
command -v redis-server >/dev/null ||
    fail 'redis-server is missing and could not be installed; on Debian: apt-get install redis-server'
redis=$(redis-server --version | sed -nE 's/.* v=([0-9]+)\..*/\1/p')
[ "${redis:-0}" -ge 7 ] ||
    fail "redis-server 7 or newer is needed, this is: $(redis-server --version); see https://redis.io/downloads"

# --- A browser for the page of the example web_service, and what drives it.
if ! { command -v chromium && command -v chromedriver; } >/dev/null; then
    system_install chromium chromium-driver || true
fi
{ command -v chromium && command -v chromedriver; } >/dev/null ||
    fail 'chromium and chromedriver are missing and could not be installed; on Debian: apt-get install chromium chromium-driver'
browser=$(chromium --version 2>/dev/null | sed -nE 's/^Chromium ([0-9]+)\..*/\1/p')
driver=$(chromedriver --version | sed -nE 's/^ChromeDriver ([0-9]+)\..*/\1/p')
[ "${browser:-0}" -ge 123 ] && [ "$browser" = "$driver" ] ||
    fail "Chromium 123 or newer and its own ChromeDriver are needed, these are: $browser and $driver"

# --- Python arshai, the reference for what both read and write.
# It imports pkg_resources, which setuptools 81 no longer has.
peer=('arshai[redis,vector-db]==1.15.0' 'pymilvus==2.6.17' 'setuptools<81')
peer_works() {
    target/python/bin/python -c 'import importlib.metadata as installed, pkg_resources, pymilvus, redis, sys
sys.exit((installed.version("arshai"), installed.version("pymilvus")) != ("1.15.0", "2.6.17"))' 2>/dev/null
}
# A version manager may put names on the path that run nothing, so each candidate is run.
find_python() {
    local candidate
    for candidate in python3.12 python3.11 python3; do
        if "$candidate" -c 'import ensurepip, sys, venv
sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}
# Installs the packages after $1 into a new virtual environment in $1.
install_python() {
    local python folder=$1
    shift
    echo "tests/all.sh: installing $* into $folder"
    python=$(find_python) || { system_install python3 python3-venv >&2 && python=$(find_python); } ||
        fail "Python 3.11 or 3.12 with venv is missing and could not be installed; on Debian 12: apt-get install python3-venv"
    rm -rf "$folder"
    "$python" -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "$@" ||
        fail "pip could not install $*; it needs a package index (PyPI, or the one that pip's configuration names)"
}
if ! peer_works; then
    install_python target/python "${peer[@]}"
    peer_works || fail "${peer[*]} are installed in target/python and do not work; remove that folder and try again"
fi

# --- The official Python SDK of MCP, for a server, and a server that others made with it.
mcp_python=('mcp==2.3.0' 'mcp-server-time==2026.10.19')
mcp_python_works() {
    target/mcp-python/bin/python -c 'import importlib.metadata as installed, mcp.server, mcp_server_time, sys
sys.exit(any(installed.version(name) != version for name, version in (pin.split("==") for pin in sys.argv[1:])))' \
        "${mcp_python[@]}" 2>/dev/null
}
if ! mcp_python_works; then
    install_python target/mcp-python "${mcp_python[@]}"
    mcp_python_works || fail "${mcp_python[*]} are installed in target/mcp-python and do not work; remove that folder and try again"
fi

# --- Two Milvus servers: a small one with sparse vectors, and the full one.
milvus_works() {
    "target/$1/bin/python" -c 'import importlib.metadata as installed, sys
sys.exit(installed.version(sys.argv[1]) != sys.argv[2])' "$2" "$3" 2>/dev/null
}
install_milvus() {
    milvus_works "$@" && return
    install_python "target/$1" "$2==$3"
    milvus_works "$@" || fail "$2==$3 is installed in target/$1 and does not work; remove that folder and try again"
}
install_milvus milvus-lite milvus-lite 2.5.1
install_milvus milvus-server milvus 2.3.5

# --- From npm: an independent server of models, MCP servers, and MCP's conformance suite. The suite needs Node 22, whose
# package downloads by a script what a package of each platform holds: the latter is installed, without scripts.
npm_packages=(
    '@copilotkit/aimock@1.43.0'
    '@modelcontextprotocol/server-everything@2026.8.31'
    '@modelcontextprotocol/server-filesystem@2026.8.31'
    '@modelcontextprotocol/server-memory@2026.8.31'
    '@modelcontextprotocol/conformance@0.2.0-alpha.12'
)
node22() {
    node -p '`node-${process.platform}-${process.arch}@22.23.3`'
}
npm_packages_work() {
    local package
    for package in "${npm_packages[@]}" "$(node22 2>/dev/null)"; do
        [ "$(node -p "JSON.parse(fs.readFileSync('target/node/node_modules/${package%@*}/package.json')).version" 2>/dev/null)" = "${package##*@}" ] || return 1
    done
}
if ! npm_packages_work; then
    echo "tests/all.sh: installing ${npm_packages[*]} into target/node"
    { command -v node && command -v npm; } >/dev/null || system_install nodejs npm || true
    { command -v node && command -v npm; } >/dev/null ||
        fail 'node and npm are missing and could not be installed; on Debian: apt-get install nodejs npm'
    node -e 'const [major, minor] = process.versions.node.split(".").map(Number)
process.exit(major > 20 || (major === 20 && minor >= 15) ? 0 : 1)' ||
        fail "Node 20.15 or newer is needed, this is $(node --version); see https://nodejs.org/en/download"
    mkdir -p target/node
    npm install --prefix target/node --no-audit --no-fund --ignore-scripts --silent "${npm_packages[@]}" "$(node22)" ||
        fail "npm could not install ${npm_packages[*]}; it needs a package index (npmjs.com, or the one that npm's configuration names)"
    npm_packages_work || fail "${npm_packages[*]} are installed in target/node and do not work; remove that folder and try again"
fi

# The ground first: a server that does not start fails here, not in some test of a client.
cargo test --package arshai-test-support
# All features together: the examples, which a test runs; every test binary; then the documentation's examples.
cargo build --package arshai --all-features --examples
cargo test --package arshai --all-features --tests
cargo test --package arshai --all-features --doc
