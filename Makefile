# aprfs: see README.md. `make` prints help.
config ?= debug
B := build/$(config)
# What stands behind kernels/gpu.h: none, cuda, or the emulation (emu, emu-asan, emu-hooks).
# auto: cuda where nvcc is, else none.
GPU ?= auto
NVCC ?= nvcc
ifeq ($(GPU),auto)
override GPU := $(if $(shell command -v $(NVCC) 2>/dev/null),cuda,none)
endif
ifeq ($(filter none cuda emu emu-asan emu-hooks,$(GPU)),)
$(error GPU=$(GPU): expected auto, none, cuda, emu, emu-asan or emu-hooks)
endif
G := $(B)/gpu-$(GPU)
# Tests that link it stand apart, but for GPU=none.
GB := $(if $(filter none,$(GPU)),$(B),$(G))
CC ?= gcc
CXX ?= g++
PREFIX ?= /usr/local
DESTDIR ?=
VERSION := 0.1.0

, := ,
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
# The build id names the build that a verdict of the gate was given under.
LDFLAGS = $(OPT) -pthread -Wl,--build-id=sha1

FUSE_CFLAGS := $(shell pkg-config --cflags fuse3 2>/dev/null)
FUSE_LIBS := $(shell pkg-config --libs fuse3 2>/dev/null)
# Optional: without it aprfs has no filter of system calls, and says so.
SECCOMP ?= $(shell pkg-config --exists libseccomp 2>/dev/null && echo yes)
ifeq ($(SECCOMP),yes)
FUSE_CFLAGS += -DHAVE_SECCOMP $(shell pkg-config --cflags libseccomp)
FUSE_LIBS += $(shell pkg-config --libs libseccomp)
endif
FORMAT_LIBS := -lcjson -lcrypto -ldeflate -lz -lpcre2-8 -lm
INFER_LIBS := -lpcre2-8 -lm

APRTOOL_SRC := $(wildcard format/aprtool*.c)
FORMAT_SRC := $(filter-out $(APRTOOL_SRC),$(wildcard format/*.c))
FS_SRC := $(filter-out fs/main.c,$(wildcard fs/*.c))
APRD_SRC := infer/main.c $(wildcard infer/aprd_*.c)
INFER_SRC := $(filter-out $(APRD_SRC),$(wildcard infer/*.c infer/cpu/*.c infer/text/*.c))

# V=1 shows the commands.
Q := $(if $(V),,@)
say = $(if $(V),,@echo '  $(1) $@')

obj = $(patsubst %.c,$(B)/%.o,$(1))
# FORMAT_LIB: one that is there already, of the same flags.
FORMAT_A := $(or $(FORMAT_LIB),$(B)/libformat.a)
FS_A := $(B)/libfs.a
INFER_A := $(B)/libinfer.a
GPU_A := $(G)/libgpu.a

# aprd stands beside its libgpu.a, one per GPU; $(B)/aprd is a user's, never the emulation's.
PROGS := $(B)/aprfs $(B)/aprtool $(G)/aprd $(if $(filter none cuda,$(GPU)),$(B)/aprd)
# One cmocka binary per module, linking only its layer.
TESTS_FS := $(filter tests/test_tree% tests/test_ops% tests/test_mount% tests/test_vcache% tests/test_fs_%,$(wildcard tests/test_*.c))
TESTS_INFER := $(filter tests/test_infer_% tests/test_tokenizer% tests/test_model% tests/test_forward% tests/test_sampler% tests/test_cpu_% tests/test_unicode%,$(wildcard tests/test_*.c))
TESTS_GPU := $(wildcard tests/test_gpu_*.c)
TESTS_FORMAT := $(filter-out $(TESTS_FS) $(TESTS_INFER) $(TESTS_GPU),$(wildcard tests/test_*.c))
TEST_SUPPORT_INFER := tests/loaded.c
TEST_SUPPORT_GPU := tests/gpu_arrays.c
TEST_SUPPORT := $(filter-out $(TEST_SUPPORT_INFER) $(TEST_SUPPORT_GPU) $(wildcard tests/test_*.c tests/fuzz_*.c tests/tool_*.c),$(wildcard tests/*.c))
tests_bin = $(patsubst tests/%.c,$(B)/tests/%,$(1))

.PHONY: FORCE help all test gpu-tests test-gpu check-emu nvcc-compile nvcc-objects check check-long check-mount-long fuzz mutate bench-mount install uninstall clean format format-check
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16
	@echo; echo 'config=debug|release|asan|tsan builds into build/$$config/; PREFIX and DESTDIR as usual.'
	@echo 'GPU=auto|none|cuda|emu|emu-asan|emu-hooks (auto: cuda where nvcc is, else none; now: $(GPU)).'

all: $(PROGS) ## the three programs, in build/$(config)/

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(if $(filter fs/% tests/test_fs_%,$<),$(FUSE_CFLAGS)) -MMD -MP -c -o $@ $<

$(B)/libformat.a: $(call obj,$(FORMAT_SRC))
$(FS_A): $(call obj,$(FS_SRC))
$(INFER_A): $(call obj,$(INFER_SRC))
$(FORMAT_A) $(FS_A) $(INFER_A) $(GPU_A):
	@mkdir -p $(@D)
	@rm -f $@
	$(call say,AR)
	$(Q)$(AR) rcs $@ $^

$(B)/aprfs: $(B)/fs/main.o $(FS_A) $(FORMAT_A)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(FUSE_LIBS) $(FORMAT_LIBS)
$(B)/aprtool: $(call obj,$(APRTOOL_SRC)) $(FORMAT_A)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(FORMAT_LIBS)
$(G)/aprd: $(call obj,$(APRD_SRC)) $(INFER_A) $(GPU_A) $(FORMAT_A)
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(GPU_LD) $(LDFLAGS) -o $@ $^ $(FORMAT_LIBS) $(INFER_LIBS) $(GPU_LIBS)
ifneq ($(filter none cuda,$(GPU)),)
# The stamp changes with GPU, so that a build after one with another GPU puts its own aprd here.
$(B)/aprd: $(G)/aprd $(B)/gpu.stamp
	$(Q)cp -f $< $@
$(B)/gpu.stamp: FORCE
	@mkdir -p $(@D)
	@echo $(GPU) | cmp -s - $@ || echo $(GPU) >$@
endif

$(call tests_bin,$(TESTS_FORMAT)): $(B)/tests/%: $(B)/tests/%.o $(call obj,$(TEST_SUPPORT)) $(FORMAT_A)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(FORMAT_LIBS)
$(call tests_bin,$(TESTS_FS)): $(B)/tests/%: $(B)/tests/%.o $(call obj,$(TEST_SUPPORT)) $(FS_A) $(FORMAT_A)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(FUSE_LIBS) $(FORMAT_LIBS)
GPU_NONE_O := $(B)/kernels/gpu_none.o
$(call tests_bin,$(TESTS_INFER)): $(B)/tests/%: $(B)/tests/%.o $(call obj,$(TEST_SUPPORT) $(TEST_SUPPORT_INFER)) $(INFER_A) $(GPU_NONE_O) $(FORMAT_A)
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


# --- the GPU: kernels/*.cu under nvcc, or under g++ against the emulation ---------------------------
CU_SRC := $(wildcard kernels/*.cu)
CU_OBJ := $(CU_SRC:%.cu=$(G)/%.o)
CU_STD := -std=c++17 -I. -D_GNU_SOURCE
# Machine code, and PTX of the last for what comes after, of the first for what lies between.
CU_ARCHS := 80 86 89 90 100 120
ifeq ($(GPU),cuda) # an older toolkit knows fewer
CU_ARCHS := $(or $(filter $(patsubst compute_%,%,$(shell $(NVCC) --list-gpu-arch 2>/dev/null)),$(CU_ARCHS)),$(CU_ARCHS))
endif
CU_GEN := $(foreach a,$(CU_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) $(foreach a,$(firstword $(CU_ARCHS)) $(lastword $(CU_ARCHS)),-gencode arch=compute_$(a),code=compute_$(a))
# No fma but where the source says fmaf: results agree with the C twin bit for bit.
NVCC_FLAGS := $(CU_STD) -O2 -lineinfo -fmad=false -Werror all-warnings
# Spills are errors where we check; another toolkit's are no reason to refuse a user's build.
NVCC_FLAGS += $(if $(filter nvcc-objects,$(MAKECMDGOALS)),-Xptxas -warn-spills)
CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(realpath $(shell command -v $(NVCC) 2>/dev/null)))
# The emulation's own parts never carry the access hooks, only kernels do (emulation.md, section 5).
EMU_SRC := $(addprefix kernels/emu/,sched.cc fiber.cc warp.cc shared.cc grid.cc runtime.cc ptx.cc) $(if $(filter emu-hooks,$(GPU)),kernels/emu/hooks.cc,kernels/emu/hooks_none.cc)
EMU_OBJ := $(EMU_SRC:%.cc=$(G)/%.o)
EMU_FLAGS := $(CU_STD) -Wall -Wextra -Werror -Wno-unknown-pragmas -g -ffp-contract=off -Ikernels/emu/include
EMU_OPT := $(if $(filter emu-asan,$(GPU)),-O1 -fsanitize=address$(,)undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer,-O2)
EMU_OPT_CU := $(EMU_OPT) $(if $(filter emu-hooks,$(GPU)),-O1 -fsanitize=thread)
GPU_LIBS_cuda := -L$(CUDA_HOME)/lib64 -lcudart_static -lrt -ldl -lstdc++ -lm
GPU_LIBS := $(if $(filter none,$(GPU)),,$(or $(GPU_LIBS_$(GPU)),-lstdc++ -ldl -lm))
# The emulation's own compiler links it: clang's UBSan has a library of its own for C++.
GPU_LD := $(if $(filter emu%,$(GPU)),$(CXX),$(CC))
ifeq ($(GPU),none)
$(GPU_A): $(GPU_NONE_O)
else
$(GPU_A): $(CU_OBJ) $(if $(filter cuda,$(GPU)),,$(EMU_OBJ))
endif
$(G)/%.o: %.cc
	@mkdir -p $(@D)
	$(call say,CXX)
	$(Q)$(CXX) $(EMU_FLAGS) $(EMU_OPT) -MMD -MP -c -o $@ $<
$(G)/%.o: %.cu
	@mkdir -p $(@D)
	$(call say,CU)
	$(Q)$(if $(filter cuda,$(GPU)),$(NVCC) $(NVCC_FLAGS) $(CU_GEN) -MMD -MP -c -o $@ $<,$(CXX) $(EMU_FLAGS) $(EMU_OPT_CU) -x c++ -MMD -MP -c -o $@ $<)

gpu_tests_bin = $(patsubst tests/%.c,$(GB)/tests/%,$(1))
$(call gpu_tests_bin,$(TESTS_GPU)): $(GB)/tests/%: $(B)/tests/%.o $(call obj,$(TEST_SUPPORT) $(TEST_SUPPORT_INFER) $(TEST_SUPPORT_GPU)) $(INFER_A) $(GPU_A) $(FORMAT_A)
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(GPU_LD) $(LDFLAGS) -o $@ $^ -lcmocka $(FORMAT_LIBS) $(INFER_LIBS) $(GPU_LIBS)
# Tests that hold kernels of their own; the seeded bugs are the emulation's to find.
CU_TESTS := $(if $(filter none,$(GPU)),,$(G)/tests/ptx_conf $(if $(filter cuda,$(GPU)),,$(G)/tests/emu_bugs))
$(G)/tests/ptx_conf $(G)/tests/emu_bugs: %: %.o $(GPU_A)
	$(call say,LD)
	$(Q)$(GPU_LD) $(if $(filter emu-asan,$(GPU)),$(EMU_OPT)) -pthread -o $@ $^ $(GPU_LIBS)

# Programs that start no thread: nothing of theirs can race. Those of format/, whose rule that is, but
# for tests that start threads themselves; and what runs aprtool alone. Under TSan, many times slower than
# anything else, they are left out and counted as skipped; LONG=1 runs them all the same.
UNTHREADED := $(filter-out $(shell grep -l pthread_create $(TESTS_FORMAT) /dev/null),$(TESTS_FORMAT))
UNTHREADED_SH := tests/e2e_aprtool.sh tests/e2e_witness.sh
LONG_RUN := $(filter-out 0,$(LONG))
LEFT_OUT := $(if $(filter-out tsan,$(config))$(LONG_RUN),,$(UNTHREADED) $(UNTHREADED_SH))
# So many programs at a time, where each of them is one of many; the full counts want the machine for themselves.
JOBS ?= $(if $(LONG_RUN),1,$(shell n=$$(nproc); echo $$((n < 4 ? n : 4))))
run_tests = scripts/run_tests --log $(1)/tests.tap --timeout $(if $(LONG_RUN),7200,$(2))

# Without a GPU, real or emulated, test_infer_no_gpu says all there is to say.
TESTS := $(call tests_bin,$(TESTS_FORMAT) $(TESTS_FS) $(TESTS_INFER)) $(if $(filter none,$(GPU)),,$(call gpu_tests_bin,$(TESTS_GPU)))
TOOLS := $(call tests_bin,$(wildcard tests/tool_*.c))

-include $(wildcard $(B)/*/*.d $(B)/*/*/*.d $(G)/*/*/*.d)

E2E_GPU := tests/e2e_gpu.sh
E2E := $(filter-out $(E2E_GPU),$(sort $(wildcard tests/e2e_*.sh)))
# Obligations that only a device can break are checked where there is one, or its emulation.
CONTRACTS_GPU := $(wildcard contracts/gpu-*.yaml)
CONTRACTS := $(filter-out $(CONTRACTS_GPU),$(wildcard contracts/*.yaml))
# What a test program may need to find: the build, what stands behind kernels/, the real models.
export B
export G
export APRFS_MODELS ?= $(CURDIR)/.cache/models

test: all $(filter-out $(call tests_bin,$(LEFT_OUT)),$(TESTS)) $(TOOLS) ## all tests of one config
ifeq ($(LEFT_OUT),)
	@scripts/check_unthreaded $(B)/aprtool $(call tests_bin,$(UNTHREADED))
	@$(call run_tests,$(B),900) --jobs $(JOBS) $(TESTS) $(E2E)
	@scripts/check_contract $(B)/tests.tap $(CONTRACTS)
else
	@$(call run_tests,$(B),900) --jobs $(JOBS) --because 'starts no thread, so that nothing can race (LONG=1 runs it)' \
	$(addprefix --leave-out ,$(call tests_bin,$(UNTHREADED)) $(UNTHREADED_SH)) $(filter-out $(call tests_bin,$(UNTHREADED)) $(UNTHREADED_SH),$(TESTS) $(E2E))
	@echo 'check_contract: not here, where tests are left out'
endif

check: ## what CI runs: style, layers, nvcc, all tests plain, under ASan+UBSan and TSan, kernels emulated
	@$(MAKE) --no-print-directory format-check
	@scripts/check_layers.sh
	@scripts/mutate --check
	@$(MAKE) --no-print-directory -j$$(nproc) nvcc-compile
	@$(MAKE) --no-print-directory -j$$(nproc) sass
	@scripts/check_all debug fuse-new asan tsan emu emu-seed emu-asan emu-hooks

# The steps of the one command for a GPU, tried where there is none: once, in the plain emulation.
PROVE := $(if $(filter emu,$(GPU)),$(if $(EMU_SEED),,tests/prove_gpu.sh))
gpu-tests: $(PROGS) $(B)/tests/test_forward $(call gpu_tests_bin,$(TESTS_GPU)) $(CU_TESTS) ## builds what test-gpu runs
test-gpu: gpu-tests ## tests of kernels/ behind GPU=cuda, emu, emu-asan or emu-hooks
	@$(call run_tests,$(G),1800) --jobs $(if $(filter cuda,$(GPU)),1,$(JOBS)) $(call gpu_tests_bin,$(TESTS_GPU)) $(CU_TESTS) $(E2E_GPU) $(PROVE)
	@if grep -q 'e2e_gpu.sh::gpu # SKIP' $(G)/tests.tap; then echo 'check_contract: no GPU: not checked: $(CONTRACTS_GPU)'; \
	else scripts/check_contract $(G)/tests.tap $(CONTRACTS_GPU); fi

# The second variant of fs/compat.c: a libfuse that knows passthrough, built for the test.
.PHONY: test-fuse-new
test-fuse-new: ## the mount's tests against a newer libfuse, built below build/fuse-new
	@pc=$$(scripts/build_fuse 2>build/fuse-new.txt); rc=$$?; cat build/fuse-new.txt; \
	if [ $$rc -eq 77 ]; then echo "skipped: fuse-new: $$(tail -n 1 build/fuse-new.txt)"; echo '0 passed, 0 failed, 1 skipped'; \
	elif [ $$rc -ne 0 ]; then exit $$rc; \
	else $(MAKE) --no-print-directory GPU=none config=debug build/debug/libformat.a && PKG_CONFIG_PATH=$$pc \
		$(MAKE) --no-print-directory GPU=none config=debug B=build/fuse-new/debug FORMAT_LIB=build/debug/libformat.a fuse-new-tests; fi
.PHONY: fuse-new-tests
fuse-new-tests: $(B)/aprfs $(B)/aprtool $(TOOLS) $(B)/tests/test_fs_compat $(B)/tests/test_fs_tier
	@$(call run_tests,$(B),900) --jobs $(JOBS) $(B)/tests/test_fs_compat $(B)/tests/test_fs_tier $(if $(LONG_RUN),tests/e2e_mount.sh tests/e2e_mount_changes.sh tests/e2e_daemon.sh) tests/e2e_tiers.sh

check-emu: ## kernels/ without a GPU: plain in order and at random, under ASan+UBSan, with hooks
	@scripts/check_all emu emu-seed emu-asan emu-hooks

nvcc-compile: ## every .cu with nvcc, for every architecture, warnings as errors
	@if ! command -v $(NVCC) >/dev/null; then echo 'nvcc-compile: skipped, no $(NVCC) on PATH'; \
	else $(MAKE) --no-print-directory GPU=cuda config=$(config) nvcc-objects; fi
nvcc-objects: $(CU_OBJ) $(G)/tests/ptx_conf.o
	@echo 'nvcc-compile: $(words $^) files, each for $(words $(CU_ARCHS)) architectures ($(CU_ARCHS)) and PTX'

# Compiled apart, for one architecture: what the table is of does not depend on config.
CUBINS := $(CU_SRC:%.cu=build/sass/%.cubin)
build/sass/%.cubin: %.cu
	@mkdir -p $(@D)
	$(call say,CUBIN)
	$(Q)$(NVCC) $(NVCC_FLAGS) -arch=sm_90 -cubin -Xptxas -v -MMD -MP -MF $(@:.cubin=.d) -o $@ $< 2>$(@:.cubin=.ptxas) || { cat $(@:.cubin=.ptxas) >&2; rm -f $@; exit 1; }
-include $(wildcard build/sass/*/*.d)
.PHONY: sass sass-table
sass: ## the kernels' machine code against tests/sass.tsv (SASS=--write makes that anew)
	@if ! command -v $(NVCC) >/dev/null; then echo 'sass: skipped, no $(NVCC) on PATH'; \
	else $(MAKE) --no-print-directory sass-table; fi
sass-table: $(CUBINS)
	@scripts/sass_table --nvcc $(NVCC) $(SASS) $(CUBINS)

check-long: ## all real models and the full counts: hours
	@command -v clang >/dev/null || { echo 'check-long: fuzzing needs clang (apt-get install clang)' >&2; exit 1; }
	scripts/fetch_models all
	LONG=1 scripts/check_all debug asan tsan
	scripts/check_gpu_long
	$(MAKE) check-mount-long MOUNT_TESTS='--hour $(filter-out 10 21,$(shell seq 23))'
	$(MAKE) mutate
	$(MAKE) fuzz FUZZ_SECONDS=600

check-mount-long: all $(TOOLS) $(TESTS) ## the mount's robustness tests 1 to 23, whole: hours (MOUNT_TESTS=NUMBERS)
	scripts/check_mount_long $(MOUNT_TESTS)

FUZZ_SECONDS ?= 60
FUZZ := $(patsubst tests/%.c,build/fuzz/%,$(wildcard tests/fuzz_*.c))
FUZZ_SRC := $(FORMAT_SRC) $(wildcard infer/text/*.c) infer/extent.c infer/published.c
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
	$(MAKE) --no-print-directory install-mount
# mount(8) looks for its helpers in /sbin and nowhere else.
SBIN ?= /sbin
UNITS ?= $(PREFIX)/lib/systemd/system
.PHONY: install-mount
install-mount: # what mount(8), systemd and man(1) look for
	install -d $(DESTDIR)$(SBIN) $(DESTDIR)$(UNITS) $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(PREFIX)/share/doc/aprfs/examples
	ln -sf $(PREFIX)/bin/aprfs $(DESTDIR)$(SBIN)/mount.aprfs
	sed 's|/usr/local/bin/|$(PREFIX)/bin/|' deploy/aprfs@.service >$(DESTDIR)$(UNITS)/aprfs@.service
	install -m 644 docs/aprfs.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 644 docs/mount.aprfs.8 $(DESTDIR)$(PREFIX)/share/man/man8/
	install -m 644 $(wildcard deploy/*.conf) $(DESTDIR)$(PREFIX)/share/doc/aprfs/examples/
uninstall: ## removes what install put there
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,aprfs aprtool aprd)
	rm -f $(DESTDIR)$(SBIN)/mount.aprfs $(DESTDIR)$(UNITS)/aprfs@.service
	rm -f $(DESTDIR)$(PREFIX)/share/man/man1/aprfs.1 $(DESTDIR)$(PREFIX)/share/man/man8/mount.aprfs.8
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/aprfs

C_FILES = $(wildcard format/*.[ch] fs/*.[ch] infer/*.[ch] infer/*/*.[ch] kernels/*.[ch] tests/*.[ch])
format: ## clang-format every source in place
	clang-format -i $(C_FILES)
format-check: ## whether make format would change anything
	@clang-format --dry-run --Werror $(C_FILES) && echo 'format-check: $(words $(C_FILES)) files, as clang-format has them'

clean: ## remove build/
	rm -rf build
