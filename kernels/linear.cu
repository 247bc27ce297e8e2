/* Quantised weights times f32 columns: gpu_linear, for one column and for many.
 *
 * The judge of the fast kernels, not one of them: it computes cpu_dot() to the bit. A warp has one row.
 * Per step it dequantises two runs of 256 weights, 16 a lane, into shared memory, and each half of the
 * warp dots one run: lane j of a half adds in f32 what cpu_dot's lane j adds. The f64 sum of lane j is
 * kept by the first half, which takes its own run first, then the other's. All columns share the two
 * meetings of the warp that a step costs. So the order of every sum is
 * that of cpu_dot, and a column never knows of the columns beside it. */
#include "kernels/dequant.cuh"

#define WARPS 4   /* rows per block */
#define COLS  8   /* columns that share one dequantised run; more would cost occupancy */
#define RUN   256 /* cpu_dot's */
/* Between the runs, so that the halves of a warp read different banks. */
#define SKEW 16

struct linear_args {
    float *y;
    const uint8_t *w;
    uint64_t row_bytes = 0;
    uint32_t n_out, n_in, n_tok;
    const float *bias, *x;
    float scale;
    int bias_first;
};

/* This lane's share of a run: weights lane, lane + 16, ... of w against x, which has n elements left. */
static __device__ __forceinline__ float lane_dot(const float *w, const float *x, uint32_t lane,
                                                 uint32_t n)
{
    float sum = 0;
    for (uint32_t i = lane; i < n; i += 16)
        sum += w[i] * x[i];
    return sum;
}

/* The 16 lanes' sums, halves first, as cpu_dot adds them. */
static __device__ __forceinline__ double lanes_sum(double *v)
{
    for (uint32_t half = 8; half; half /= 2)
        for (uint32_t j = 0; j < half; j++)
            v[j] += v[j + half];
    return v[0];
}

template <uint32_t Type, uint32_t Len, uint32_t Bytes>
static __global__ void __launch_bounds__(32 * WARPS) linear_kernel(struct linear_args a)
{
    SHARED(float, run, [WARPS][2 * RUN + SKEW]);
    SHARED(float, other, [WARPS][COLS][16]);  /* the second half's lanes, on their way to the first */
    SHARED(double, total, [WARPS][COLS][16]); /* the first half's, at the end */
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, half = lane / 16, j = lane % 16;
    uint32_t row = blockIdx.x * WARPS + warp, col0 = blockIdx.y * COLS;
    uint32_t n_col = a.n_tok - col0 < COLS ? a.n_tok - col0 : COLS;
    if (row >= a.n_out)
        return; /* whole warps, and no barrier of the block follows */
    float *mine = run[warp];
    const uint8_t *w = a.w + row * a.row_bytes;
    for (uint32_t i0 = 0; i0 < a.n_in; i0 += 2 * RUN) {
        uint32_t i = i0 + 16 * lane, at = half * RUN, left = a.n_in - i0;
        if (i < a.n_in)
            dequant16<Type, Len, Bytes>(mine + 16 * lane + half * SKEW, w, i, a.n_in);
        __syncwarp();
        uint32_t n = left <= at ? 0 : left - at < RUN ? left - at : RUN;
        for (uint32_t c = 0; c < n_col; c++) {
            float dot = lane_dot(mine + at + half * SKEW,
                                 a.x + (uint64_t)(col0 + c) * a.n_in + i0 + at, j, n);
            if (half == 0)
                total[warp][c][j] = i0 ? total[warp][c][j] + (double)dot : (double)dot;
            else
                other[warp][c][j] = dot;
        }
        __syncwarp();
        for (uint32_t c = 0; c < n_col && left > RUN && half == 0; c++)
            total[warp][c][j] += (double)other[warp][c][j];
    }
    __syncwarp();
    if (lane < n_col) {
        double d = lanes_sum(total[warp][lane]), scale = (double)a.scale;
        double bias = a.bias ? (double)a.bias[row] : 0;
        d = a.bias_first ? (d + bias) * scale : d * scale + bias;
        a.y[(uint64_t)(col0 + lane) * a.n_out + row] = (float)d;
    }
}

int gpu_linear(struct gpu_stream *s, float *y, const struct gpu_matrix *w, const float *bias,
               float scale, bool bias_first, const float *x, uint32_t n_tok)
{
    uint64_t row_bytes = 0;
    int rc = dequant_check("linear", w, &row_bytes);
    if (rc < 0)
        return rc;
    if (n_tok == 0 || n_tok > COLS * GPU_MAX_GRID_Y)
        return gpu_fail(-EINVAL, "linear: %u columns, at most %u", n_tok, COLS * GPU_MAX_GRID_Y);
    struct linear_args a = {
        y, (const uint8_t *)w->data, row_bytes, w->n_out, w->n_in, n_tok, bias, x, scale, bias_first,
    };
    cudaLaunchConfig_t cfg = gpu_shape(s, ((uint64_t)w->n_out + WARPS - 1) / WARPS,
                                       (n_tok + COLS - 1) / COLS, 32 * WARPS);
    switch (w->type) {
#define X(t, l, b)                                                                                 \
    case QUANT_##t:                                                                                \
        GPU_LAUNCH(&cfg, (linear_kernel<QUANT_##t, l, b>), a);                                     \
        break;
        DEQUANT_TYPES(X)
#undef X
    }
    return gpu_launched("linear");
}
