#!/usr/bin/env bash
# Robustness tests of mount.md §9 that no other script holds, by its numbers; seconds here, whole with
# LONG=1 (scripts/check_mount_long runs all 23). HOUR=SECONDS: the long runs under memory pressure too.
# Prints TAP. Names of tests as arguments: only these. See tests/mount.sh.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/mount.sh
for part in tests/robust/*.sh; do
    # shellcheck disable=SC1090 # each of them
    . "$part"
done

HOUR=${HOUR:-}
run robust_02_random_reads_in_every_mode r_random_reads $((LONG ? 14400 : 120))
run robust_03_fio_reads_the_pattern r_fio $((LONG ? 1200 : 100))
run robust_07_model_moved_in_is_seen r_moved_in
run robust_07_replaced_often_under_readers r_replaced_often $((LONG ? 600 : 100))
run robust_14_many_files_odd_names_changes_while_listing r_many_files $((LONG ? 900 : 100))
run robust_17_mmap_storm_ends_in_half_the_memory r_mmap_storm $((LONG ? 300 : 100))
run robust_18_no_byte_is_stored_twice r_zero_copy $((LONG ? 600 : 100))
run robust_19_descriptors_are_emfile_alone r_descriptors
run robust_20_bind_and_namespace_see_the_mount r_bind_and_namespace
run robust_20_source_on_overlayfs r_overlay
run robust_22_random_reads_for_an_hour r_hour_random_reads $((${HOUR:-0} + 900))
run robust_22_changes_for_an_hour r_hour_changes $((${HOUR:-0} + 900))
tests_end
