#!/usr/bin/env bash
# Finds out what is missing on this machine and installs it, or says exactly what to install and fails.
#
#   tools/bootstrap.sh [build|test|check]
#
# build: what compiling needs.  test: that, and the programs that tests drive.  check: that of build, and cargo deny.
# Says nothing when nothing is missing.
set -euo pipefail

readonly MINIMUM_RUST_MINOR=95 # as rust-version in Cargo.toml
readonly PYTHON_PACKAGES=('psycopg[binary]>=3.1,<4' 'sqlalchemy>=2,<3')
readonly NODE_PACKAGE='pg@8'

cd "$(dirname "$0")/.."
. tools/environment.sh

say() { printf 'bootstrap: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

package_manager() {
    local manager
    for manager in apt-get dnf brew; do
        if have "$manager"; then
            echo "$manager"
            return
        fi
    done
    echo none
}

# The packages that hold a thing, per package manager: apt-get, dnf, brew. A dash: it comes with something else there.
packages_of() {
    case "$1" in
        compiler) set -- "build-essential" "gcc gcc-c++" "-" ;;
        make) set -- "make" "make" "make" ;;
        ccache) set -- "ccache" "ccache" "ccache" ;;
        protoc) set -- "protobuf-compiler" "protobuf-compiler" "protobuf" ;;
        libclang) set -- "libclang-dev" "clang-devel" "llvm" ;;
        postgresql) set -- "postgresql" "postgresql postgresql-contrib" "libpq" ;;
        python) set -- "python3 python3-venv" "python3 python3-pip" "python3" ;;
    esac
    case "$manager" in
        apt-get) echo "$1" ;;
        dnf) echo "$2" ;;
        brew) echo "$3" ;;
        none) echo "$1" ;;
    esac
}

# bindgen loads libclang at build time; these are the places where it looks. libclang-cpp, which machines have that lack
# libclang, is something else.
have_libclang() {
    local pattern
    for pattern in "${LIBCLANG_PATH:-/nonexistent}"/libclang[.-][s0-9]* /usr/lib/llvm*/lib/libclang.so* /usr/lib*/libclang.so* \
        /usr/lib/*-linux-gnu/libclang.so* /usr/lib/*-linux-gnu/libclang-[0-9]*.so* /usr/local/lib/libclang.so* /usr/local/opt/llvm/lib/libclang.dylib \
        /opt/homebrew/opt/llvm/lib/libclang.dylib /Library/Developer/CommandLineTools/usr/lib/libclang.dylib; do
        if [ -e "$pattern" ]; then return 0; fi
    done
    return 1
}

# Debian puts a wrapper of that name into PATH even when the program behind it is not installed.
have_postgresql_program() {
    local path candidate
    path="$(command -v "$1" 2>/dev/null)" || return 1
    case "$(readlink "$path" 2>/dev/null)" in
        *pg_wrapper) ;;
        *) return 0 ;;
    esac
    for candidate in /usr/lib/postgresql/*/bin/"$1"; do
        if [ -x "$candidate" ]; then return 0; fi
    done
    return 1
}

have_postgresql() {
    have_postgresql_program psql && have_postgresql_program pgbench && have_postgresql_program pg_isready
}

# A venv can only be made where ensurepip is: Debian ships it apart from python3.
have_python() {
    have python3 && { have_python_package psycopg_binary || python3 -c 'import ensurepip, venv' 2>/dev/null; }
}

have_python_package() {
    [ -x "$MAINSTAY_CACHE/venv/bin/python3" ] && compgen -G "$MAINSTAY_CACHE/venv/lib/python3*/site-packages/$1" >/dev/null
}

have_python_packages() {
    have_python_package psycopg_binary && have_python_package sqlalchemy
}

check_rust() {
    local version minor
    if ! have cargo; then
        say "cargo is missing. Install Rust 1.$MINIMUM_RUST_MINOR or newer from https://rustup.rs and run this again."
        exit 1
    fi
    version="$(cargo --version)"
    minor="${version#cargo 1.}"
    minor="${minor%%.*}"
    if ! [ "$minor" -ge "$MINIMUM_RUST_MINOR" ] 2>/dev/null; then
        say "$version is too old: Rust 1.$MINIMUM_RUST_MINOR or newer is needed. With rustup: rustup update stable"
        exit 1
    fi
}

# Prints the things that this machine lacks for the given purpose, one word each.
missing_things() {
    if ! { have cc && have c++; }; then echo compiler; fi
    if ! have make; then echo make; fi
    if ! have ccache; then echo ccache; fi
    if ! have protoc; then echo protoc; fi
    if ! have_libclang; then echo libclang; fi
    if [ "$1" = test ]; then
        if ! have_postgresql; then echo postgresql; fi
        if ! have_python; then echo python; fi
    fi
}

install_packages() {
    local packages=("$@") root=()
    if [ "$manager" != brew ] && [ "$(id -u)" -ne 0 ]; then
        if ! have sudo; then return 1; fi
        root=(sudo)
    fi
    case "$manager" in
        apt-get)
            "${root[@]}" apt-get update -q >&2 || return 1
            # Only the programs are wanted: without this, Debian also makes a database cluster and starts it.
            if ! have pg_createcluster; then
                "${root[@]}" sh -c 'mkdir -p /etc/postgresql-common/createcluster.d &&
                    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/mainstay.conf' || return 1
            fi
            "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
                apt-get install -q -y --no-install-recommends "${packages[@]}" >&2
            ;;
        dnf) "${root[@]}" dnf install -y "${packages[@]}" >&2 ;;
        brew) brew install "${packages[@]}" >&2 ;;
        none) return 1 ;;
    esac
}

install_things() {
    local things=("$@") packages=() thing words still
    for thing in "${things[@]}"; do
        words="$(packages_of "$thing")"
        if [ "$words" = - ]; then
            say "a C++ compiler is missing. Run: xcode-select --install"
            exit 1
        fi
        # shellcheck disable=SC2206 # one word per package
        packages+=($words)
    done
    say "missing: ${things[*]}; installing ${packages[*]}"
    if install_packages "${packages[@]}"; then
        still="$(missing_things "$purpose")"
        if [ -z "$still" ]; then return; fi
        say "still missing after that: ${still//$'\n'/ }"
    fi
    case "$manager" in
        none) say "install what these Debian packages hold and run this again: ${packages[*]}" ;;
        brew) say "run this, then try again: brew install ${packages[*]}" ;;
        *) say "run this as root, then try again: $manager install -y ${packages[*]}" ;;
    esac
    exit 1
}

# Installs a program from crates.io, once per machine.
install_cargo_tool() {
    say "installing $1 with cargo; this takes minutes, once per machine"
    CARGO_TARGET_DIR="$MAINSTAY_CACHE/tools-target" \
        cargo install --quiet --locked --root "$MAINSTAY_CACHE/tools" "$1" >&2 || return 1
    rm -rf "$MAINSTAY_CACHE/tools-target"
}

install_python_packages() {
    say "installing ${PYTHON_PACKAGES[*]} into $MAINSTAY_CACHE/venv"
    # In place of whatever half of it an interrupted run left.
    if ! have_python_package psycopg_binary; then rm -rf "$MAINSTAY_CACHE/venv"; fi
    if ! { { [ -x "$MAINSTAY_CACHE/venv/bin/python3" ] || python3 -m venv "$MAINSTAY_CACHE/venv"; } &&
        "$MAINSTAY_CACHE/venv/bin/python3" -m pip install --quiet --disable-pip-version-check "${PYTHON_PACKAGES[@]}"; } >&2; then
        say "that failed. Make a Python with psycopg 3 and SQLAlchemy and name it: MAINSTAY_TEST_PYTHON=/path/to/python3"
        exit 1
    fi
}

# Node.js is not asked for: without it, the tests of its driver say that they were skipped.
install_node_package() {
    if [ -d "$MAINSTAY_CACHE/node/node_modules/pg" ]; then return; fi
    if ! { have node && have npm; }; then
        say "node and npm are not there: the tests of node-postgres will be skipped"
        return
    fi
    say "installing $NODE_PACKAGE into $MAINSTAY_CACHE/node"
    mkdir -p "$MAINSTAY_CACHE/node"
    if ! npm install --silent --no-audit --no-fund --prefix "$MAINSTAY_CACHE/node" "$NODE_PACKAGE" >&2; then
        say "that failed: the tests of node-postgres will be skipped"
    fi
}

# Each clone has its own target directory in the cache; those of clones that are gone would stay for ever.
sweep_targets() {
    local note clone
    if [ "${CARGO_TARGET_DIR%/*}" != "$MAINSTAY_CACHE/targets" ]; then return; fi
    if [ ! -e "$CARGO_TARGET_DIR/clone" ]; then
        mkdir -p "$CARGO_TARGET_DIR"
        pwd -P >"$CARGO_TARGET_DIR/clone"
    fi
    for note in "$MAINSTAY_CACHE"/targets/*/clone; do
        read -r clone <"$note" || continue
        if [ -n "$clone" ] && [ ! -d "$clone" ]; then
            say "removing ${note%/clone}: its clone $clone is gone"
            rm -rf "${note%/clone}"
        fi
    done
}

purpose="${1:-build}"
case "$purpose" in
    build | test | check) ;;
    *)
        say "usage: tools/bootstrap.sh [build|test|check]"
        exit 2
        ;;
esac
manager="$(package_manager)"

check_rust
sweep_targets
missing="$(missing_things "$purpose")"
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 # one word per thing
    install_things $missing
    . tools/environment.sh
fi
if [ "$purpose" = test ]; then
    if [ "$MAINSTAY_TEST_PYTHON" = "$MAINSTAY_CACHE/venv/bin/python3" ] && ! have_python_packages; then install_python_packages; fi
    install_node_package
    if ! have cargo-nextest; then
        install_cargo_tool cargo-nextest || say "cargo-nextest cannot be had; tests will run under plain cargo test"
    fi
fi
if [ "$purpose" = check ] && ! have cargo-deny; then
    if ! install_cargo_tool cargo-deny; then
        say "run this, then try again: cargo install --locked cargo-deny"
        exit 1
    fi
fi
