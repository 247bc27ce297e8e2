#include "infer/build_id.h"

#include <elf.h>
#include <link.h>
#include <string.h>

struct found {
    uint8_t *id;
    size_t n;
};

/* Notes are words: header, name, description, the last two padded to 4 bytes. */
static size_t find_note(const uint8_t *p, size_t len, uint8_t *id)
{
    ElfW(Nhdr) h;
    for (size_t at = 0; len - at >= sizeof h;) {
        memcpy(&h, p + at, sizeof h);
        at += sizeof h;
        uint64_t name = (h.n_namesz + UINT64_C(3)) / 4 * 4, desc = h.n_descsz;
        if (name > len - at || desc > len - at - name)
            return 0;
        if (h.n_type == NT_GNU_BUILD_ID && h.n_namesz == 4 && memcmp(p + at, "GNU", 4) == 0 &&
            desc > 0 && desc <= BUILD_ID_MAX) {
            memcpy(id, p + at + name, desc);
            return desc;
        }
        uint64_t step = name + (desc + 3) / 4 * 4;
        at = step < len - at ? at + step : len;
    }
    return 0;
}

/* Called for the program itself first; libraries come behind it and are not asked. */
static int of_program(struct dl_phdr_info *info, size_t size, void *ctx)
{
    (void)size;
    struct found *f = ctx;
    for (int i = 0; i < info->dlpi_phnum && f->n == 0; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        if (h->p_type == PT_NOTE)
            f->n = find_note((const uint8_t *)(info->dlpi_addr + h->p_vaddr), h->p_memsz, f->id);
    }
    return 1;
}

size_t build_id(uint8_t id[BUILD_ID_MAX])
{
    struct found f = {.id = id};
    dl_iterate_phdr(of_program, &f);
    return f.n;
}
