# shellcheck shell=sh
# The one environment in which Mainstay is built. Source it in the clone's folder: `. tools/environment.sh`
#
# RocksDB takes about 15 minutes to compile on two cores. A machine pays that once because everybody compiles C and C++
# with one command through ccache, which answers when another clone or another profile asks for the same objects again.
#
# Clones do not share a target directory. Cargo gives the crates of a workspace the same file names in every clone and
# tells fresh from stale by the time of the sources alone: in a shared directory, a clone would link and test what
# another one built last.

if [ ! -f tools/environment.sh ]; then
    echo "tools/environment.sh: source this in the folder of the clone" >&2
fi
MAINSTAY_CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/mainstay"
mainstay_clone="$(pwd -P)"
# A name per clone that people recognise: its folder's, and a checksum of the whole path.
mainstay_clone_id="${mainstay_clone##*/}-$(printf %s "$mainstay_clone" | cksum | cut -d ' ' -f 1)"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$MAINSTAY_CACHE/targets/$mainstay_clone_id}"
unset mainstay_clone mainstay_clone_id

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
