#include "infer/cpu/ops.h"

#include <math.h>
#include <string.h>

#define RUN  256
#define LANE 16

/* Four lanes in one register on every machine we know (SSE2, NEON); plain C elsewhere. Element-wise
 * + and * only, so the result is the scalar definition's, bit for bit. */
typedef float v4 __attribute__((vector_size(16)));

static inline v4 v4_load(const float *p)
{
    v4 v;
    memcpy(&v, p, sizeof v);
    return v;
}

static void dot_run(double sum[LANE], const float *w, const float *x, uint32_t n)
{
    v4 a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0};
    uint32_t i = 0;
    for (; i + LANE <= n; i += LANE) {
        a0 += v4_load(w + i) * v4_load(x + i);
        a1 += v4_load(w + i + 4) * v4_load(x + i + 4);
        a2 += v4_load(w + i + 8) * v4_load(x + i + 8);
        a3 += v4_load(w + i + 12) * v4_load(x + i + 12);
    }
    float lane[LANE];
    memcpy(lane, &a0, sizeof a0);
    memcpy(lane + 4, &a1, sizeof a1);
    memcpy(lane + 8, &a2, sizeof a2);
    memcpy(lane + 12, &a3, sizeof a3);
    for (uint32_t j = 0; i < n; i++, j++)
        lane[j] += w[i] * x[i];
    for (int j = 0; j < LANE; j++)
        sum[j] += (double)lane[j];
}

double cpu_dot(const float *w, const float *x, uint32_t n)
{
    double sum[LANE] = {0};
    for (uint32_t i = 0; i < n; i += RUN)
        dot_run(sum, w + i, x + i, n - i < RUN ? n - i : RUN);
    for (int half = LANE / 2; half; half /= 2)
        for (int j = 0; j < half; j++)
            sum[j] += sum[j + half];
    return sum[0];
}

static void row_f32(float *dst, const struct backend_matrix *w, const struct quant_type *qt,
                    uint32_t row)
{
    qt->f32(dst, (const uint8_t *)w->data + row * w->row_bytes, w->n_in / qt->block_len);
}

void cpu_embed_row(float *y, const struct backend_matrix *w, const struct quant_type *qt,
                   uint32_t id, float scale)
{
    row_f32(y, w, qt, id);
    if (scale != 1.0f)
        for (uint32_t i = 0; i < w->n_in; i++)
            y[i] *= scale;
}

void cpu_rmsnorm_row(float *y, const float *x, const float *w, uint32_t n, float eps)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    double inv = 1.0 / sqrt(sum / n + (double)eps);
    for (uint32_t i = 0; i < n; i++)
        y[i] = (float)((double)x[i] * inv * (double)w[i]);
}

void cpu_linear_rows(float *y, const struct backend_linear *lin, const struct quant_type *qt,
                     const float *x, uint32_t n_tok, uint32_t r0, uint32_t r1, float *row)
{
    const struct backend_matrix *w = lin->w;
    double scale = (double)lin->scale;
    for (uint32_t r = r0; r < r1; r++) {
        const float *wr = row;
        if (w->type == QUANT_F32)
            wr = (const float *)(const void *)((const uint8_t *)w->data + r * w->row_bytes);
        else
            row_f32(row, w, qt, r);
        double bias = lin->bias ? (double)lin->bias[r] : 0;
        for (uint32_t t = 0; t < n_tok; t++) {
            double d = cpu_dot(wr, x + (size_t)t * w->n_in, w->n_in);
            d = lin->bias_first ? (d + bias) * scale : d * scale + bias;
            y[(size_t)t * w->n_out + r] = (float)d;
        }
    }
}

void cpu_rope_token(float *x, const struct backend_rope *r, int32_t pos, uint32_t n_head,
                    uint32_t head_dim)
{
    uint32_t half = r->n_rot / 2;
    for (uint32_t i = 0; i < half; i++) {
        double angle = (double)pos * (double)r->omega[i];
        float c = (float)((double)r->mu * cos(angle));
        float s = (float)((double)r->mu * sin(angle));
        uint32_t iu = r->neox ? i : 2 * i;
        uint32_t iv = r->neox ? i + half : 2 * i + 1;
        for (uint32_t h = 0; h < n_head; h++) {
            float *p = x + (size_t)h * head_dim;
            float u = p[iu], v = p[iv];
            p[iu] = u * c - v * s;
            p[iv] = u * s + v * c;
        }
    }
}

void cpu_attention_head(float *o, const float *q, const float *k, size_t k_stride, const float *v,
                        size_t v_stride, const struct backend_attn *a, int32_t pos, float *score,
                        double *mix)
{
    uint32_t n = (uint32_t)pos + 1;
    uint32_t first = a->window && n > a->window ? n - a->window : 0;
    float max = -INFINITY;
    for (uint32_t j = first; j < n; j++) {
        double s = (double)a->scale * cpu_dot(q, k + j * k_stride, a->head_dim_k);
        if (a->softcap > 0)
            s = (double)a->softcap * tanh(s / (double)a->softcap);
        score[j] = (float)s;
        if (score[j] > max)
            max = score[j];
    }
    double sum = 0;
    memset(mix, 0, a->head_dim_v * sizeof *mix);
    for (uint32_t j = first; j < n; j++) {
        double p = exp((double)score[j] - (double)max);
        const float *vj = v + j * v_stride;
        sum += p;
        for (uint32_t d = 0; d < a->head_dim_v; d++)
            mix[d] += p * (double)vj[d];
    }
    for (uint32_t d = 0; d < a->head_dim_v; d++)
        o[d] = (float)(mix[d] / sum);
}

void cpu_act_mul(float *y, const float *gate, const float *up, uint64_t n, enum backend_act act)
{
    for (uint64_t i = 0; i < n; i++) {
        double u = (double)gate[i], f;
        if (act == BACKEND_SILU)
            f = u / (1.0 + exp(-u));
        else
            f = 0.5 * u * (1.0 + tanh(0.79788456080286535588 * (u + 0.044715 * u * u * u)));
        y[i] = (float)(f * (double)up[i]);
    }
}

void cpu_add(float *y, const float *x, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        y[i] += x[i];
}

void cpu_softcap(float *y, uint64_t n, float c)
{
    for (uint64_t i = 0; i < n; i++)
        y[i] = (float)((double)c * tanh((double)y[i] / (double)c));
}

int32_t cpu_argmax(const float *x, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!isfinite(x[i]))
            return -1;
        if (x[i] > x[best])
            best = i;
    }
    return (int32_t)best;
}

void cpu_advance(int32_t *id, int32_t *pos, const int32_t *best, int32_t *history,
                 uint32_t n_history)
{
    int32_t p = pos[0];
    if (p >= 0 && (uint32_t)p < n_history)
        history[p] = best[0];
    id[0] = best[0];
    pos[0] = p < INT32_MAX ? p + 1 : p;
}
