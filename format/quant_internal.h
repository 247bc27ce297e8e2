/* The dequantisers of quant_small.c and quant_k.c, for the table in quant.c alone. Each has the
 * contract of quant_dequant_fn (quant.h). */
#ifndef APRFS_FORMAT_QUANT_INTERNAL_H
#define APRFS_FORMAT_QUANT_INTERNAL_H

#include "format/bytes.h"
#include "format/quant.h"

/* quant_small.c: plain numbers, and blocks of 32, 64 and 128 */
quant_dequant_fn quant_f32_f32, quant_f64_f32, quant_f16_f32, quant_bf16_f32;
quant_dequant_fn quant_q4_0_f32, quant_q4_1_f32, quant_q5_0_f32, quant_q5_1_f32, quant_q8_0_f32;
quant_dequant_fn quant_iq4_nl_f32, quant_mxfp4_f32, quant_nvfp4_f32, quant_q1_0_f32, quant_q2_0_f32;

/* quant_k.c: blocks of 256 */
quant_dequant_fn quant_q2_k_f32, quant_q3_k_f32, quant_q4_k_f32, quant_q5_k_f32, quant_q6_k_f32;
quant_dequant_fn quant_q8_k_f32, quant_iq4_xs_f32, quant_tq1_0_f32, quant_tq2_0_f32;

static inline float load_f16(const uint8_t *p)
{
    return f16_to_f32(load_u16(p));
}

/* The 16 values of IQ4_NL and IQ4_XS. */
extern const int8_t quant_iq4_value[16];

#endif
