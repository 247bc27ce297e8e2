/* The table of pretok.h. Adding a pre-tokenizer is adding a row; a rule of its own is a list here
 * and, only if a regex would be quadratic, a case in infer/text/pretok_run.c. */
#include "format/pretok.h"

#include <stddef.h>
#include <string.h>

/* Contractions: lower case only, and in any ASCII case. */
#define CONTR_LC  "'(?:[sdmt]|ll|ve|re)"
#define CONTR     "'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])"

#define SPACES    "\\s+(?!\\S)|\\s+"
#define NL_SPACES "\\s*[\\r\\n]+|" SPACES

/* A word with at most one character before it that is no letter, number, CR or LF. */
#define LEAD                "[^\\r\\n\\p{L}\\p{N}]?"
#define WORD                LEAD "\\p{L}+"
#define OTHER               " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"

#define GPT2                CONTR_LC "| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|" SPACES
#define LLAMA3_HEAD(number) CONTR "|" WORD "|" number "|" OTHER "|\\s*[\\r\\n]+|"
#define LLAMA3(number)      LLAMA3_HEAD(number) SPACES

/* Words cut where lower case goes over into upper case. Only ASCII is told apart: every other
 * letter counts as both. */
#define UPPER          "[\\p{L}&&[^a-z]]"
#define LOWER          "[\\p{L}&&[^A-Z]]"
#define UPPER_M        "[\\p{L}\\p{M}&&[^a-z]]"
#define LOWER_M        "[\\p{L}\\p{M}&&[^A-Z]]"
#define OTHER_SLASH    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*"
#define CASED(u, l, c) LEAD u "*" l "+" c "|" LEAD u "+" l "*" c

/* DeepSeek V3 and what follows it: ASCII punctuation opens a word; marks are letters. */
#define PUNCT_WORD "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
#define MARK_WORD  "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
#define V3         PUNCT_WORD "|" MARK_WORD "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" NL_SPACES
#define CJK        "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+"

/* The first lists had U+3000 and other blanks inside their ranges; a blank is a blank first. */
#define DEEPSEEK_CJK "[\\x{800}-\\x{9FA5}\\x{AC00}-\\x{D7FF}&&[^\\s]]+"
#define DEEPSEEK_LETTERS                                                                           \
    "A-Za-z"                                                                                       \
    "\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}"      \
    "\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}"          \
    "\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}"                 \
    "\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}"                     \
    "\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}"                 \
    "\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}"                 \
    "\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}"         \
    "\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}"        \
    "\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}"                 \
    "\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}"         \
    "\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}"         \
    "\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}"                   \
    "\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}"                  \
    "\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}"                 \
    "\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}"                 \
    "\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}"             \
    "\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}"         \
    "\\x{1E900}-\\x{1E943}"

/* The characters after which BLOOM's family breaks. */
#define BLOOM " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+"

/* Ideographs as llama.cpp draws them: blocks, not the Script property. */
#define HAN_RANGES                                                                                 \
    "\\x{4E00}-\\x{9FFF}\\x{3400}-\\x{4DBF}\\x{20000}-\\x{2A6DF}\\x{2A700}-\\x{2EBEF}"             \
    "\\x{F900}-\\x{FAFF}\\x{2F800}-\\x{2FA1F}"

/* One regex that is the whole rule. */
#define ONE(id, re) static const struct pretok_split id[] = {{re, 0}, {0}}

ONE(split_gpt2, GPT2);
ONE(split_llama3, LLAMA3("\\p{N}{1,3}"));
ONE(split_qwen2, LLAMA3("\\p{N}"));
ONE(split_qwen35,
    CONTR "|" LEAD "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" NL_SPACES);
ONE(split_ufakzeka, WORD "|\\p{N}|" OTHER "|" NL_SPACES);
ONE(split_seed_coder, CONTR "|" WORD "|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" NL_SPACES);
ONE(split_bailing, CONTR "|" WORD "|\\p{N}|" OTHER "|\\s*[\\r\\n]|" SPACES);
ONE(split_tekken, CASED(UPPER, LOWER, "") "|\\p{N}|" OTHER_SLASH "|" NL_SPACES);
ONE(split_gpt4o, CASED(UPPER, LOWER, "(?:" CONTR ")?") "|\\p{N}{1,3}|" OTHER_SLASH "|" NL_SPACES);
ONE(split_granite_97m,
    CASED(UPPER_M, LOWER_M, "(?:" CONTR ")?") "|\\p{N}{1,3}|" OTHER_SLASH "|" NL_SPACES);
ONE(split_bloom, BLOOM);
/* A word runs on over single spaces. The upstream's nested repeat, without its ambiguity. */
ONE(split_exaone_moe, CONTR "|" LEAD "\\p{L}(?:[\\p{L}\\p{M}]| (?=\\p{L}))*+|\\p{N}|"
                            " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|" SPACES);
#define BLANKS(n) "\\s{" n "}(?!\\S)|"
ONE(split_jais2, LLAMA3_HEAD("\\p{N}{1,3}") BLANKS("512") BLANKS("256") BLANKS("128") BLANKS("64")
                     BLANKS("32") BLANKS("16") BLANKS("8") BLANKS("4") BLANKS("1,2") "\\s");
ONE(split_kimi_k2, "[" HAN_RANGES "]+|" LEAD "[\\p{L}&&[^" HAN_RANGES "]]+(?:" CONTR
                   ")?|\\p{N}{1,3}|" OTHER "|" NL_SPACES);

static const struct pretok_split split_digit_gpt2[] = {{"\\p{N}", 0}, {GPT2, 0}, {0}};
static const struct pretok_split split_lines_qwen2[] = {
    {"[^\\n]+|\\n+", 0}, {LLAMA3("\\p{N}"), 0}, {0}};
static const struct pretok_split split_minicpm5[] = {
    {"\\p{N}{1,3}", 0}, {LLAMA3("\\p{N}+"), 0}, {0}};
static const struct pretok_split split_viking[] = {{BLOOM, 0}, {"\\p{N}", 0}, {0}};
static const struct pretok_split split_superbpe[] = {
    {"\\p{N}+", 0}, {"(?=(?:\\d{3})+(?!\\d))", PRETOK_RUN_ASCII_DIGITS}, {0}};
static const struct pretok_split split_v3[] = {{"\\p{N}{1,3}", 0}, {CJK, 0}, {V3, 0}, {0}};

static const struct pretok_split split_spark[] = {
    {"\\p{N}{1,3}", 0},
    {CJK, 0},
    {PUNCT_WORD "|" MARK_WORD "| ?[\\p{P}\\p{S}]+|[\\r\\n]|" SPACES, 0},
    {"\\p{N}", 0},
    {0},
};

static const struct pretok_split split_tiny_aya[] = {
    {"\\d{1,3}(?=(?:\\d{3})*\\b)", PRETOK_RUN_DIGITS},
    {LEAD "[\\p{L}\\p{M}]+(?:" CONTR ")?|\\p{N}{1,3}|" OTHER_SLASH "|" NL_SPACES, 0},
    {0},
};

static const struct pretok_split split_afmoe[] = {
    {"\\p{N}{1,3}(?=(?:\\p{N}{3})*(?!\\p{N}))", PRETOK_RUN_DIGITS},
    {"[\\x{4E00}-\\x{9FFF}\\x{3400}-\\x{4DBF}\\x{8C48}-\\x{FAFF}\\x{3040}-\\x{30FF}"
     "\\x{FF65}-\\x{FF9F}\\x{2F00}-\\x{2FDF}\\x{E40}-\\x{EFF}\\x{1780}-\\x{17FF}"
     "\\x{1000}-\\x{109F}\\x{AA60}-\\x{AA7F}\\x{A9E0}-\\x{A9FF}\\x{1100}-\\x{11FF}]+",
     0},
    {V3, 0},
    {0},
};

static const struct pretok_split split_youtu[] = {
    {"[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+|"
     "[\\x{FF01}\\x{2026}\\x{201C}\\x{201D}\\x{2018}\\x{2019}\\x{2014}\\x{FF1A}\\x{FF1B}\\x{FF0C}"
     "\\x{3001}-\\x{303F}\\x{FE30}-\\x{FE4F}]+|[\\x{3105}-\\x{312F}]+|" CJK,
     0},
    {LEAD "[\\p{L}\\p{M}]+(?:" CONTR ")?|\\p{N}|" OTHER_SLASH "|" NL_SPACES, 0},
    {0},
};

static const struct pretok_split split_deepseek_llm[] = {
    {"[\\r\\n]", 0},
    {"\\s?[" DEEPSEEK_LETTERS "]+", 0},
    {"\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3001}\\x{3002}]+", 0},
    {"(?<!\\s)\\s+$", 0}, /* the lookbehind changes no match and keeps a run of blanks linear */
    {DEEPSEEK_CJK, 0},
    {"\\p{N}+", 0},
    {0},
};

static const struct pretok_split split_deepseek_coder[] = {
    {"[\\r\\n]", 0}, {"\\s?\\p{L}+", 0}, {"\\s?\\p{P}+", 0}, {DEEPSEEK_CJK, 0}, {"\\p{N}", 0}, {0},
};

static const struct pretok_split split_falcon[] = {
    {"[\\p{P}$+<=>^~|`]+", 0}, {GPT2, 0}, {"[0-9][0-9][0-9]", 0}, {0}};

static const struct pretok_split split_default[] = {
    {"[\\p{P}$+<=>^~|]+", 0}, {GPT2, 0}, {"\\p{N}+", 0}, {"[0-9][0-9][0-9]", 0}, {0}};

static const struct pretok_split split_chameleon[] = {
    {"<sentinel:[0-9]+>", 0},
    {"IMGIMG[A-I]{1,4}Z", 0},
    {"[\\t\\n]|    |  ", 0},
    {"\\p{N}", 0},
    {"[\\p{P}!-/:-@\\[-`{-~]", 0},
    {GPT2, 0},
    {0},
};

#define MERGES PRETOK_IGNORE_MERGES
#define BOS    PRETOK_ADD_BOS
#define CLEAN  PRETOK_CLEAN_SPACES

static const struct pretok table[] = {
    {"default", split_default, CLEAN},
    {"gpt-2", split_gpt2, CLEAN},
    {"phi-2", split_gpt2, CLEAN},
    {"jina-es", split_gpt2, CLEAN},
    {"jina-de", split_gpt2, CLEAN},
    {"jina-v1-en", split_gpt2, CLEAN},
    {"jina-v2-es", split_gpt2, CLEAN},
    {"jina-v2-de", split_gpt2, CLEAN},
    {"jina-v2-code", split_gpt2, CLEAN},
    {"roberta-bpe", split_gpt2, CLEAN},
    {"gigachat", split_gpt2, CLEAN},
    {"a.x-4.0", split_gpt2, CLEAN},
    {"mellum", split_gpt2, CLEAN},
    {"modern-bert", split_gpt2, CLEAN},
    {"exaone4", split_gpt2, CLEAN},
    {"mpt", split_gpt2, CLEAN},
    {"olmo", split_gpt2, CLEAN},
    {"jais", split_gpt2, CLEAN},
    {"trillion", split_gpt2, 0},
    {"granite-docling", split_gpt2, 0},

    {"smollm", split_digit_gpt2, 0},
    {"starcoder", split_digit_gpt2, CLEAN},
    {"refact", split_digit_gpt2, CLEAN},
    {"command-r", split_digit_gpt2, 0},
    {"codeshell", split_digit_gpt2, CLEAN},
    {"exaone", split_digit_gpt2, CLEAN},
    {"minerva-7b", split_digit_gpt2, CLEAN},
    {"mellum2", split_digit_gpt2, CLEAN},

    {"llama-bpe", split_llama3, CLEAN | MERGES | BOS},
    {"llama3", split_llama3, CLEAN | MERGES | BOS},
    {"llama-v3", split_llama3, CLEAN | MERGES | BOS},
    {"falcon3", split_llama3, CLEAN | MERGES | BOS},
    {"falcon-h1", split_llama3, CLEAN | MERGES | BOS},
    {"pixtral", split_llama3, CLEAN | MERGES | BOS},
    {"midm-2.0", split_llama3, CLEAN | MERGES | BOS},
    {"lfm2", split_llama3, CLEAN | MERGES | BOS},
    {"jina-v5-nano", split_llama3, CLEAN | MERGES | BOS},
    {"dbrx", split_llama3, CLEAN},
    {"smaug-bpe", split_llama3, CLEAN},
    {"chatglm-bpe", split_llama3, CLEAN | PRETOK_NO_BOS},
    {"glm4", split_llama3, CLEAN | MERGES | PRETOK_NO_BOS},
    {"glm5", split_llama3, CLEAN | MERGES | PRETOK_NO_BOS},
    {"jais-2", split_jais2, CLEAN},
    {"minicpm5", split_minicpm5, CLEAN | MERGES},

    {"qwen2", split_qwen2, 0},
    {"deepseek-r1-qwen", split_qwen2, 0},
    {"kormo", split_qwen2, 0},
    {"f2llmv2", split_qwen2, 0},
    {"megrez", split_qwen2, CLEAN},
    {"stablelm2", split_qwen2, CLEAN},
    {"hunyuan", split_qwen2, 0},
    {"solar-open", split_qwen2, 0},
    {"grok-2", split_qwen2, 0},
    {"qwen35", split_qwen35, 0},
    {"ufakzeka", split_ufakzeka, 0},
    {"seed-coder", split_seed_coder, 0},
    {"laguna", split_lines_qwen2, 0},
    {"bailingmoe", split_bailing, 0},
    {"bailingmoe2", split_bailing, 0},
    {"llada-moe", split_bailing, 0},
    {"exaone-moe", split_exaone_moe, CLEAN},

    {"tekken", split_tekken, MERGES | BOS},
    {"gpt-4o", split_gpt4o, 0},
    {"llama4", split_gpt4o, 0},
    {"kanana2", split_gpt4o, 0},
    {"talkie", split_gpt4o, 0},
    {"minimax-m2", split_gpt4o, 0},
    {"granite-embed-multi-97m", split_granite_97m, MERGES},
    {"tiny_aya", split_tiny_aya, 0},
    {"cohere2moe", split_tiny_aya, 0},
    {"youtu", split_youtu, MERGES},
    {"kimi-k2", split_kimi_k2, 0},

    {"deepseek-llm", split_deepseek_llm, 0},
    {"deepseek-coder", split_deepseek_coder, 0},
    {"deepseek-v3", split_v3, 0},
    {"hunyuan-dense", split_v3, 0},
    {"joyai-llm", split_v3, 0},
    {"hy_v4", split_v3, 0},
    {"spark2_5", split_spark, 0},
    {"afmoe", split_afmoe, 0},

    {"falcon", split_falcon, CLEAN},
    {"poro-chat", split_bloom, 0},
    {"bloom", split_bloom, CLEAN},
    {"gpt3-finnish", split_bloom, CLEAN},
    {"viking", split_viking, 0},
    {"superbpe", split_superbpe, 0},
    {"chameleon", split_chameleon, BOS},
};

const struct pretok *pretok_at(unsigned i)
{
    return i < sizeof table / sizeof *table ? &table[i] : NULL;
}

const struct pretok *pretok_find(const char *name)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}
