# shellcheck shell=sh
# The one environment in which Mainstay is built. Source it: `. tools/environment.sh`
#
# RocksDB takes about 15 minutes to compile on two cores. A machine pays that once because everybody builds into one
# target directory outside the clone, with one compiler command: cargo rebuilds RocksDB when CC or CXX changes, and
# ccache answers when another profile or a cleaned target directory asks for the same objects again.

MAINSTAY_CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/mainstay"
export MAINSTAY_CACHE
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$MAINSTAY_CACHE/target}"

if command -v ccache >/dev/null 2>&1; then
    export CC="${CC:-ccache cc}" CXX="${CXX:-ccache c++}"
fi

# Tools that bootstrap installed with cargo, and the Python that has psycopg.
case ":$PATH:" in
    *":$MAINSTAY_CACHE/tools/bin:"*) ;;
    *) export PATH="$MAINSTAY_CACHE/tools/bin:$PATH" ;;
esac
export MAINSTAY_TEST_PYTHON="${MAINSTAY_TEST_PYTHON:-$MAINSTAY_CACHE/venv/bin/python3}"

# Homebrew keeps these two out of PATH and out of where bindgen looks.
if [ -d /opt/homebrew/opt/libpq/bin ]; then
    export PATH="/opt/homebrew/opt/libpq/bin:$PATH"
fi
if [ -d /opt/homebrew/opt/llvm/lib ]; then
    export LIBCLANG_PATH="${LIBCLANG_PATH:-/opt/homebrew/opt/llvm/lib}"
fi
