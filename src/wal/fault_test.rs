//! Each known bug, and the test that must find it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::crash_test as crash;
use super::device_test as device;
use super::fault::{self, Fault};
use super::log_test as log;
use super::prepare_test as prepare;

/// Puts the bug in, runs the test, and demands that it fails.
fn caught(fault: Fault, test: fn()) {
    fault::set(Some(fault));
    let result = catch_unwind(AssertUnwindSafe(test));
    fault::set(None);
    assert!(result.is_err(), "{fault:?} was not found");
}

macro_rules! each {
    ($($name:ident: $fault:ident by $test:path;)*) => {
        $(#[test]
        fn $name() {
            caught(Fault::$fault, $test);
        })*
    };
}

each! {
    durable_before_sync: DurableBeforeSync by crash::every_crash_point_with_concurrent_appenders;
    failed_sync_retried: FailedSyncRetried by crash::after_a_failed_sync_nothing_is_acknowledged_and_what_was_stays;
    poison_forgotten: PoisonForgotten by crash::after_a_failed_sync_nothing_is_acknowledged_and_what_was_stays;
    older_not_synced: OlderNotSynced by crash::every_crash_point_keeps_what_was_acknowledged_and_invents_nothing;
    name_not_synced: NameNotSynced by crash::every_crash_point_keeps_what_was_acknowledged_and_invents_nothing;
    header_not_synced: HeaderNotSynced by crash::every_crash_point_keeps_what_was_acknowledged_and_invents_nothing;
    last_step_not_synced: LastStepNotSynced by prepare::a_segment_has_its_name_only_when_all_of_it_is_filled;
    mark_too_high: MarkTooHigh by crash::every_crash_point_keeps_what_was_acknowledged_and_invents_nothing;
    mark_missing: MarkMissing by crash::a_flip_before_the_last_flush_is_damage;
    tail_not_erased: TailNotErased by crash::nothing_of_a_cut_tail_is_left_on_the_disk;
    tail_not_erased_by_crashes: TailNotErased by crash::a_hole_between_parallel_copies_hides_the_whole_records_behind_it;
    later_segments_kept: LaterSegmentsKept by crash::nothing_of_a_cut_tail_is_left_on_the_disk;
    not_settled: NotSettled by crash::after_a_failed_sync_nothing_is_acknowledged_and_what_was_stays;
    close_not_flushed: CloseNotFlushed by crash::every_crash_point_keeps_what_was_acknowledged_and_invents_nothing;
    recycled_too_far: RecycledTooFar by log::nothing_behind_the_checkpoint_is_recycled;
    hole_passed: HolePassed by crash::every_crash_point_with_concurrent_appenders;
    recycling_failure_forgotten: RecyclingFailureForgotten by device::a_failed_sync_of_the_directory_in_recycling_poisons_the_log;
    recycled_not_synced: RecycledNotSynced by crash::a_recycled_segment_is_durably_out_of_the_log_before_it_is_used_again;
    stale_bytes_trusted: StaleBytesTrusted by log::recycled_segments_are_filled_and_used_again;
}
