#include "infer/text/unicode.h"

#include "infer/text/unicode_tables.h"

#define N_RUN (sizeof unicode_runs / sizeof *unicode_runs)

enum unicode_kind unicode_kind(uint32_t cp)
{
    if (cp >= UNICODE_END)
        return UNICODE_OTHER;
    size_t lo = 0, hi = N_RUN; /* unicode_runs[lo] opens at or before cp, [hi] after it */
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (unicode_runs[mid] >> 3 <= cp)
            lo = mid;
        else
            hi = mid;
    }
    return (enum unicode_kind)(unicode_runs[lo] & 7);
}

void unicode_kinds(uint8_t *kind)
{
    for (size_t i = 0; i < N_RUN; i++) {
        uint32_t end = i + 1 < N_RUN ? unicode_runs[i + 1] >> 3 : UNICODE_END;
        for (uint32_t cp = unicode_runs[i] >> 3; cp < end; cp++)
            kind[cp] = unicode_runs[i] & 7;
    }
}

uint32_t unicode_decode(const uint8_t *p, size_t len, size_t *n)
{
    *n = 1;
    uint8_t b = p[0];
    if (b < 0x80)
        return b;
    size_t want = unicode_len(b);
    if (want == 1 || b >= 0xF8 || want > len)
        return UNICODE_REPLACEMENT;
    uint32_t cp = b & (0xFFu >> (want + 1));
    for (size_t i = 1; i < want; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return UNICODE_REPLACEMENT;
        cp = cp << 6 | (p[i] & 0x3F);
    }
    if (cp >= UNICODE_END)
        return UNICODE_REPLACEMENT;
    *n = want;
    return cp;
}

size_t unicode_encode(uint32_t cp, uint8_t out[4])
{
    if (cp < 0x80) {
        out[0] = (uint8_t)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (uint8_t)(0xC0 | cp >> 6);
        out[1] = (uint8_t)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (uint8_t)(0xE0 | cp >> 12);
        out[1] = (uint8_t)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | cp >> 18);
    out[1] = (uint8_t)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (uint8_t)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (uint8_t)(0x80 | (cp & 0x3F));
    return 4;
}
