#!/usr/bin/env bash
# Compiles the hashed requirements files from pyproject.toml and the .in files beside this script.
set -euo pipefail
uv=$(realpath "${1:-.venv/bin/uv}")
cd "$(dirname "$0")/.."

compile() {
    "$uv" pip compile --quiet --universal --generate-hashes --python-version 3.11 \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make requirements" "$@"
}

compile pyproject.toml -o layers/dependencies/requirements.txt
compile pyproject.toml --extra development -c layers/dependencies/requirements.txt -o requirements/development.txt
for name in sam check uv; do
    compile "requirements/$name.in" -o "requirements/$name.txt"
done
