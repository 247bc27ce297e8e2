#!/usr/bin/env bash
# Which folder may include which: greps #include lines. Prints each breach and exits 1.
set -u
shopt -s lastpipe # so that breach() runs in this shell and its verdict stays
cd "$(dirname "$0")/.." || exit 2
bad=0

# breach FILES... : reads "file:line:#include ..." on stdin, prints what is left, remembers.
breach() {
    local found
    found=$(cat)
    if [ -n "$found" ]; then
        printf '%s\n' "$found" | sed "s|^|$1: |"
        bad=1
    fi
}
includes() { # folder pattern-of-forbidden
    grep -rnE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]($2)" "$1" --include='*.c' \
        --include='*.h' --include='*.cu' --include='*.cuh' 2>/dev/null
}

includes format 'fs/|infer/|kernels/|tests/|fuse|cuda|pthread|sys/socket|microhttpd' |
    breach 'format/ is the lowest layer: libc, cJSON, libcrypto, libdeflate, zlib, and no threads'
includes fs 'infer/|kernels/|tests/|cuda|microhttpd' |
    breach 'fs/ includes format/ and libfuse3 only'
includes kernels 'fs/|infer/|tests/|fuse|cjson' |
    breach 'kernels/ includes CUDA and, of format/, err.h and quant.h'
includes kernels 'format/' | grep -vE '"format/(err|quant)\.h"' |
    breach 'kernels/ includes, of format/, err.h and quant.h only'
includes infer 'fs/|tests/|fuse|cuda' |
    breach 'infer/ knows neither fs/ nor FUSE nor CUDA headers'
includes infer 'kernels/' | grep -vE '"kernels/gpu(_ops)?\.h"' |
    breach 'infer/ sees of kernels/ gpu.h and gpu_ops.h only'
includes infer 'microhttpd' | grep -v '^infer/serve/http\.c:' |
    breach 'infer/serve/http.c alone includes libmicrohttpd'
[ -d infer/text ] && includes infer/text 'infer/(cpu|serve)/|infer/[a-z_]+\.h' |
    breach 'infer/text/ knows nothing of cpu/, serve/ or the engine'
includes infer 'infer/serve/' | grep -vE '^infer/(main\.c|serve/)' |
    breach 'nothing but infer/main.c includes serve/'
grep -nE '(^|[^_a-zA-Z])mmap\(' infer -r --include='*.c' 2>/dev/null | grep -v 'MAP_ANONYMOUS' |
    breach 'infer/ reads with pread, never by mapping a file'

# The dialect of kernel sources (kernels/dialect.cuh), which keeps them compiling under nvcc and the
# emulation alike. Comment lines are left out; dialect.cuh and ptx.cuh are where the exceptions live.
dialect() { # pattern-of-forbidden [file-that-may]
    grep -nE "$1" $cuda_sources 2>/dev/null | grep -vE '^[^:]*:[0-9]+:[[:space:]]*(/\*|\*|//)' |
        grep -v "^kernels/${2:-nothing}:"
}
cuda_sources=$(ls kernels/*.cu kernels/*.cuh tests/*.cu 2>/dev/null)
if [ -n "$cuda_sources" ]; then
    dialect '<<<|>>>[[:space:]]*\(' |
        breach 'kernels are launched with GPU_LAUNCH'
    dialect '__shared__' dialect.cuh |
        breach 'shared memory is SHARED or SHARED_DYN'
    dialect '(^|[^_[:alnum:]])(asm|__asm__)([^_[:alnum:]]|$)' ptx.cuh |
        breach 'asm stands in kernels/ptx.cuh only'
    dialect 'cooperative_groups|cub::|<cub/|thrust|cuda::|<cuda/|cudaTextureObject|tex[123]D|cudaMallocManaged|__managed__|__constant__' |
        breach 'no library, texture, managed or constant memory in kernels'
    dialect '^[[:space:]]*(static |extern |const )*__device__[^(]*(=|;|\[)' |
        breach 'no __device__ variables'
    dialect '__activemask' |
        breach 'lane masks are written out'
fi
exit $bad
