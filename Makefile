# aprfs: see README.md. `make` prints help.
config ?= debug
B := build/$(config)
CC ?= gcc
CXX ?= g++
PREFIX ?= /usr/local
DESTDIR ?=
VERSION := 0.1.0

CSTD := -std=gnu11
WARN := -Wall -Wextra -Werror -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes \
        -Wformat=2 -Wvla -Wundef -Wno-format-nonliteral
# f32 reference arithmetic: no contraction into fma behind our back, so that every build agrees.
FP := -ffp-contract=off
CPPFLAGS := -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DAPRFS_VERSION='"$(VERSION)"'
OPT_debug := -O1 -g
OPT_release := -O2 -g -DNDEBUG
OPT_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT_tsan := -O1 -g -fsanitize=thread
OPT := $(OPT_$(config))
ifeq ($(OPT),)
$(error config=$(config): expected debug, release, asan or tsan)
endif
# Loops over weights: vectorising changes their speed, not their bits (no -ffast-math anywhere).
ifeq ($(config),release)
$(B)/format/quant%.o $(B)/infer/cpu/ops.o: OPT += -O3
endif
CFLAGS = $(CSTD) $(WARN) $(FP) $(OPT) -pthread
LDFLAGS = $(OPT) -pthread

FUSE_CFLAGS := $(shell pkg-config --cflags fuse3 2>/dev/null)
FUSE_LIBS := $(shell pkg-config --libs fuse3 2>/dev/null)
FORMAT_LIBS := -lcjson -lcrypto -ldeflate -lz -lpcre2-8 -lm
INFER_LIBS := -lpcre2-8 -lm

APRTOOL_SRC := $(wildcard format/aprtool*.c)
FORMAT_SRC := $(filter-out $(APRTOOL_SRC),$(wildcard format/*.c))
FS_SRC := $(filter-out fs/main.c,$(wildcard fs/*.c))
INFER_SRC := $(filter-out infer/main.c,$(wildcard infer/*.c infer/cpu/*.c infer/text/*.c))
KERNELS_SRC := $(wildcard kernels/gpu_none.c)

# V=1 shows the commands.
Q := $(if $(V),,@)
say = $(if $(V),,@echo '  $(1) $@')

obj = $(patsubst %.c,$(B)/%.o,$(1))
FORMAT_A := $(B)/libformat.a
FS_A := $(B)/libfs.a
INFER_A := $(B)/libinfer.a

PROGS := $(B)/aprfs $(B)/aprtool $(B)/aprd
# One cmocka binary per module, linking only its layer.
TESTS_FS := $(filter tests/test_tree% tests/test_ops% tests/test_mount% tests/test_vcache% tests/test_fs_%,$(wildcard tests/test_*.c))
TESTS_INFER := $(filter tests/test_infer_% tests/test_tokenizer% tests/test_model% tests/test_forward% tests/test_sampler% tests/test_cpu_% tests/test_unicode%,$(wildcard tests/test_*.c))
TESTS_FORMAT := $(filter-out $(TESTS_FS) $(TESTS_INFER),$(wildcard tests/test_*.c))
TEST_SUPPORT := $(filter-out $(wildcard tests/test_*.c tests/fuzz_*.c tests/tool_*.c),$(wildcard tests/*.c))
tests_bin = $(patsubst tests/%.c,$(B)/tests/%,$(1))

.PHONY: help all test check check-long fuzz mutate bench-mount install uninstall clean format format-check
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16
	@echo; echo 'config=debug|release|asan|tsan builds into build/$$config/; PREFIX and DESTDIR as usual.'

all: $(PROGS) ## the three programs, in build/$(config)/

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(if $(filter fs/% tests/test_fs_%,$<),$(FUSE_CFLAGS)) -MMD -MP -c -o $@ $<

$(FORMAT_A): $(call obj,$(FORMAT_SRC))
$(FS_A): $(call obj,$(FS_SRC))
$(INFER_A): $(call obj,$(INFER_SRC) $(KERNELS_SRC))
$(FORMAT_A) $(FS_A) $(INFER_A):
	@rm -f $@
	$(call say,AR)
	$(Q)$(AR) rcs $@ $^

$(B)/aprfs: $(B)/fs/main.o $(FS_A) $(FORMAT_A)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(FUSE_LIBS) $(FORMAT_LIBS)
$(B)/aprtool: $(call obj,$(APRTOOL_SRC)) $(FORMAT_A)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(FORMAT_LIBS)
$(B)/aprd: $(B)/infer/main.o $(INFER_A) $(FORMAT_A)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(FORMAT_LIBS) $(INFER_LIBS)

$(call tests_bin,$(TESTS_FORMAT)): $(B)/tests/%: $(B)/tests/%.o $(call obj,$(TEST_SUPPORT)) $(FORMAT_A)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(FORMAT_LIBS)
$(call tests_bin,$(TESTS_FS)): $(B)/tests/%: $(B)/tests/%.o $(call obj,$(TEST_SUPPORT)) $(FS_A) $(FORMAT_A)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(FUSE_LIBS) $(FORMAT_LIBS)
$(call tests_bin,$(TESTS_INFER)): $(B)/tests/%: $(B)/tests/%.o $(call obj,$(TEST_SUPPORT)) $(INFER_A) $(FORMAT_A)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(FORMAT_LIBS) $(INFER_LIBS)
# Test programs that are no cmocka suites (randcmp and the like): tests/tool_NAME.c
$(call tests_bin,$(filter-out tests/tool_tokens.c,$(wildcard tests/tool_*.c))): $(B)/tests/%: $(B)/tests/%.o $(FORMAT_A)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(FORMAT_LIBS)
$(B)/tests/tool_seeds $(B)/tests/tool_store: $(call obj,$(wildcard tests/gguf_build*.c))
$(B)/tests/tool_tokens: $(B)/tests/tool_tokens.o $(B)/tests/token_meta.o $(INFER_A) $(FORMAT_A)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(FORMAT_LIBS) $(INFER_LIBS)

TESTS := $(call tests_bin,$(TESTS_FORMAT) $(TESTS_FS) $(TESTS_INFER))
TOOLS := $(call tests_bin,$(wildcard tests/tool_*.c))

-include $(wildcard $(B)/*/*.d $(B)/*/*/*.d)

E2E := $(sort $(wildcard tests/e2e_*.sh))
# What a test program may need to find: the build, the real models.
export B
export APRFS_MODELS ?= $(CURDIR)/.cache/models

test: all $(TESTS) $(TOOLS) ## all tests of one config
	@scripts/run_tests --log $(B)/tests.tap --timeout $(if $(LONG),7200,900) $(TESTS) $(E2E)
	@scripts/check_contract $(B)/tests.tap

check: ## what CI runs: style, layers, all tests plain, under ASan+UBSan and under TSan
	@$(MAKE) --no-print-directory format-check
	@scripts/check_layers.sh
	@scripts/check_all debug asan tsan

check-long: ## all real models and the full counts: hours
	@command -v clang >/dev/null || { echo 'check-long: fuzzing needs clang (apt-get install clang)' >&2; exit 1; }
	scripts/fetch_models all
	LONG=1 scripts/check_all debug asan tsan
	$(MAKE) mutate
	$(MAKE) fuzz FUZZ_SECONDS=600

FUZZ_SECONDS ?= 60
FUZZ := $(patsubst tests/%.c,build/fuzz/%,$(wildcard tests/fuzz_*.c))
FUZZ_SRC := $(FORMAT_SRC) $(wildcard infer/text/*.c)
FUZZ_CFLAGS := $(CSTD) $(FP) -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
build/fuzz/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)clang $(CPPFLAGS) $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link -MMD -MP -c -o $@ $<
build/fuzz/fuzz_%: build/fuzz/tests/fuzz_%.o $(patsubst %.c,build/fuzz/%.o,$(FUZZ_SRC))
	$(call say,LD)
	$(Q)clang $(FUZZ_CFLAGS) -fsanitize=fuzzer -o $@ $^ $(FORMAT_LIBS) $(INFER_LIBS)
-include $(wildcard build/fuzz/*/*.d build/fuzz/*/*/*.d)
.SECONDARY: $(patsubst %.c,build/fuzz/%.o,$(FUZZ_SRC) $(wildcard tests/fuzz_*.c))
.PHONY: fuzz-tools
fuzz-tools:
	@command -v clang >/dev/null || { echo 'fuzz: clang with libFuzzer is needed (apt-get install clang)' >&2; exit 1; }
$(FUZZ): | fuzz-tools
fuzz: $(FUZZ) $(B)/tests/tool_seeds ## every libFuzzer target for FUZZ_SECONDS (60); needs clang
	@scripts/fuzz $(FUZZ_SECONDS) $(FUZZ)

mutate: ## named mutations, each of which a test must kill
	scripts/mutate

bench-mount: ## the mount against the raw file, alternating: a CSV on stdout
	$(MAKE) config=release all
	scripts/bench_mount

install: ## programs into $(DESTDIR)$(PREFIX)/bin, built as release; texts into share/doc/aprfs
	$(MAKE) config=release all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/doc/aprfs
	install -m 755 build/release/aprfs build/release/aprtool build/release/aprd $(DESTDIR)$(PREFIX)/bin/
	install -m 644 README.md LICENSE $(wildcard docs/*.md) $(DESTDIR)$(PREFIX)/share/doc/aprfs/
uninstall: ## removes what install put there
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,aprfs aprtool aprd)
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/aprfs

C_FILES = $(wildcard format/*.[ch] fs/*.[ch] infer/*.[ch] infer/*/*.[ch] kernels/*.[ch] tests/*.[ch])
format: ## clang-format every source in place
	clang-format -i $(C_FILES)
format-check: ## whether make format would change anything
	@clang-format --dry-run --Werror $(C_FILES) && echo 'format-check: $(words $(C_FILES)) files, as clang-format has them'

clean: ## remove build/
	rm -rf build
