#!/bin/sh
# Numba keeps compiled loops where it can write. The image is read-only and holds them ready: a copy saves a
# container the seconds that compiling takes. On another processor than the image was built on, they are compiled.
cp -R /opt/stream-ad/kernels "$NUMBA_CACHE_DIR" 2>/dev/null || true
exec stream-ad "$@"
