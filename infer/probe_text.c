/* What the probe feeds: a text of our own, or fixed ids. */
#include "infer/probe.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* Prose and code by turns, numbers, quotes, indentation and a few letters beyond ASCII. 256 tokens
 * are its first 850 to 884 bytes (SmolLM2, Qwen2.5, Gemma 3), all of it 371 to 405 tokens: prose, C
 * and prose again. Changing a byte makes every kept verdict one of another probe. */
static const char text[] =
    "The ferry left at 7:45, a little late, because the pilot was waiting for a letter from "
    "Malm\xc3\xb6. It came in a blue envelope: \"Do not open before the lighthouse,\" said the "
    "cover, and nobody on board could tell whether that was a joke or a warning.\n\n"
    "static size_t count_lines(const char *p, size_t n)\n{\n"
    "    size_t lines = 0;\n"
    "    for (size_t i = 0; i < n; i++)\n"
    "        if (p[i] == '\\n')\n"
    "            lines++;\n"
    "    return lines;\n}\n\n"
    "Half an hour later the fog was gone. Three islands lay ahead, 12 km apart, and on the "
    "smallest one stood the tower, white with a red stripe; its lamp had been dark since 1968. "
    "He broke the seal. Inside were two pages of figures and one line of plain writing.\n\n"
    "def mean(values):\n"
    "    \"\"\"Average of a list; 0.0 if it is empty.\"\"\"\n"
    "    total = sum(float(v) for v in values)\n"
    "    return total / len(values) if values else 0.0\n\n"
    "print(mean([3, 1.5, -2e3]))  # -665.1666666666666\n\n"
    "It said: \"If you can read this by daylight, you have come too early. "
    "\xe6\x9d\xb1\xe4\xba\xac "
    "will not answer until the tide turns at 23:10; go home, feed the cat, and try again "
    "tomorrow.\" The pilot folded the paper, laughed, and asked for coffee with two sugars. "
    "Nobody spoke until the harbour was in sight, and then everyone spoke at once.\n\n"
    "SELECT name, COUNT(*) AS n FROM visits WHERE year >= 2019 GROUP BY name ORDER BY n DESC;\n";

/* Three steps at the least: the first is queued, the second recorded and replayed, and only the third
 * goes on from where a replay left the device (forward.h). */
struct probe_split probe_split(uint32_t n)
{
    struct probe_split s = {.n_step = n < 3 ? n : n < 48 ? 3 : n / 16};
    uint32_t left = n - s.n_step;
    s.chunk[0] = left * 4 / 5;
    s.chunk[1] = left - s.chunk[0];
    return s;
}

/* Spread over the vocabulary, each below n_vocab: multiples of 2^32 / golden ratio (Knuth,
 * TAOCP 6.4), scaled down. */
static void fixed_ids(int32_t *id, uint32_t n, uint32_t n_vocab)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t h = (i + 1) * UINT32_C(2654435769);
        id[i] = (int32_t)((uint64_t)h * n_vocab >> 32);
    }
}

int probe_ids(int32_t *id, uint32_t n, const struct tokenizer *tok, uint32_t n_vocab,
              bool *from_text, struct err *e)
{
    int32_t *of_text = NULL;
    size_t n_text = 0;
    int rc = 0;
    if (tok)
        rc = tokenizer_encode(tok, text, sizeof text - 1, TOKENIZER_ADD_SPECIAL, &of_text, &n_text,
                              e);
    bool fits = n_text > 0;
    for (size_t i = 0; i < n_text; i++)
        fits = fits && of_text[i] >= 0 && (uint32_t)of_text[i] < n_vocab;
    if (rc == 0 && fits)
        for (uint32_t i = 0; i < n; i++)
            id[i] = of_text[i % n_text];
    else if (rc == 0)
        fixed_ids(id, n, n_vocab);
    *from_text = rc == 0 && fits;
    free(of_text);
    return rc;
}
