/* The operations of ptx.cuh: see there for the fragments. Integer sums are exact; floats are summed in
 * f64 and rounded once, which is not the GPU's rounding. */
#include "kernels/emu/sched.h"

#include "kernels/ptx.cuh"

void emu_check_aligned(const void *p, size_t n, const char *file, int line)
{
    if ((uintptr_t)p % n)
        emu_fail("aligned", "a load of %zu bytes at %s:%d from an address that is %zu modulo %zu",
                 n, file, line, (size_t)((uintptr_t)p % n), n);
}

void griddep_wait()
{
    emu_set_pdl_waited();
}

struct mma_int {
    int *c;
    const unsigned *a, *b;
    bool a_signed;
};

/* Byte k of row r of A, in a lane's four registers. */
static int a_byte(void *const *arg, int r, int k)
{
    const mma_int *m = (const mma_int *)arg[r % 8 * 4 + k % 16 / 4];
    unsigned byte = m->a[(k / 16) * 2 + r / 8] >> k % 4 * 8 & 0xff;
    return m->a_signed ? (int8_t)byte : (int)byte;
}

static int b_byte(void *const *arg, int k, int col)
{
    const mma_int *m = (const mma_int *)arg[col * 4 + k % 16 / 4];
    return (int8_t)(m->b[k / 16] >> k % 4 * 8 & 0xff);
}

static void run_int(void *const *arg)
{
    for (int r = 0; r < 16; r++)
        for (int col = 0; col < 8; col++) {
            mma_int *out = (mma_int *)arg[r % 8 * 4 + col / 2];
            unsigned sum = (unsigned)out->c[r / 8 * 2 + col % 2];
            for (int k = 0; k < 32; k++)
                sum += (unsigned)(a_byte(arg, r, k) * b_byte(arg, k, col));
            out->c[r / 8 * 2 + col % 2] = (int)sum;
        }
}

void emu_mma_u8s8_16832(int c[4], const unsigned a[4], const unsigned b[2], const char *file,
                        int line)
{
    mma_int m = {c, a, b, false};
    emu_collective(run_int, &m, file, line);
}

void emu_mma_s8s8_16832(int c[4], const unsigned a[4], const unsigned b[2], const char *file,
                        int line)
{
    mma_int m = {c, a, b, true};
    emu_collective(run_int, &m, file, line);
}

struct mma_float {
    float *c;
    const unsigned *a, *b;
    bool bf16;
};

static double value16(const mma_float *m, unsigned reg, int k)
{
    unsigned h = reg >> k % 2 * 16 & 0xffff;
    return m->bf16 ? __uint_as_float(h << 16) : half_to_float(h);
}

static void run_float(void *const *arg)
{
    for (int r = 0; r < 16; r++)
        for (int col = 0; col < 8; col++) {
            mma_float *out = (mma_float *)arg[r % 8 * 4 + col / 2];
            double sum = out->c[r / 8 * 2 + col % 2];
            for (int k = 0; k < 16; k++) {
                const mma_float *ma = (const mma_float *)arg[r % 8 * 4 + k % 8 / 2];
                const mma_float *mb = (const mma_float *)arg[col * 4 + k % 8 / 2];
                sum += value16(ma, ma->a[k / 8 * 2 + r / 8], k) * value16(mb, mb->b[k / 8], k);
            }
            out->c[r / 8 * 2 + col % 2] = (float)sum;
        }
}

void emu_mma_f16_16816(float c[4], const unsigned a[4], const unsigned b[2], const char *file,
                       int line)
{
    mma_float m = {c, a, b, false};
    emu_collective(run_float, &m, file, line);
}

void emu_mma_bf16_16816(float c[4], const unsigned a[4], const unsigned b[2], const char *file,
                        int line)
{
    mma_float m = {c, a, b, true};
    emu_collective(run_float, &m, file, line);
}
