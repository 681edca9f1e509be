//! Each known bug, and the test that must find it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::concurrent_crash_test as concurrent;
use super::crash_test as crash;
use super::device_test as device;
use super::fault::{self, Fault};
use super::log_test as log;
use super::prepare_test as prepare;
use super::tail_test as tail;

/// Puts the bug in, runs the test, and demands that it fails, saying this among other things.
fn caught(fault: Fault, test: fn(), saying: &str) {
    fault::set(Some(fault));
    let result = catch_unwind(AssertUnwindSafe(test));
    fault::set(None);
    let Err(panic) = result else { panic!("{fault:?} was not found") };
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    assert!(text.unwrap_or_default().contains(saying), "{fault:?} was found by something else: {text:?}");
}

macro_rules! each {
    ($($name:ident: $fault:ident by $test:path $(, saying $text:literal)?;)*) => {
        $(#[test]
        fn $name() {
            caught(Fault::$fault, $test, concat!("", $($text)?));
        })*
    };
}

each! {
    durable_before_sync: DurableBeforeSync by log::nothing_is_durable_before_its_sync_is_over, saying "before it is synced";
    durable_before_sync_by_crashes: DurableBeforeSync by concurrent::every_crash_point_with_concurrent_appenders;
    durable_before_failed_sync: DurableBeforeSync by crash::after_a_failed_sync_nothing_is_acknowledged_and_what_was_stays, saying "durable in spite of that";
    failed_sync_retried: FailedSyncRetried by crash::after_a_failed_sync_nothing_is_acknowledged_and_what_was_stays;
    poison_forgotten: PoisonForgotten by crash::after_a_failed_sync_nothing_is_acknowledged_and_what_was_stays;
    buffer_not_written: BufferNotWritten by log::a_sync_that_has_nothing_of_its_own_makes_others_records_durable, saying "left: 0";
    failed_write_forgotten: FailedWriteForgotten by crash::after_a_failed_write_nothing_is_acknowledged_and_what_was_stays, saying "acknowledged after that";
    unwinding_forgotten: UnwindingForgotten by tail::a_flush_that_unwinds_leaves_a_failed_log, saying "as if all were written";
    taken_too_early: TakenTooEarly by tail::nothing_is_put_where_a_flush_still_takes_from, saying "lost or mixed";
    written_ahead_forgotten: WrittenAheadForgotten by tail::what_finds_no_room_in_the_buffer_is_written_at_once, saying "lost or mixed";
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
    hole_passed: HolePassed by log::a_flush_that_waits_for_a_copy_that_hangs_is_noticed, saying "it did not wait";
    hole_passed_by_crashes: HolePassed by concurrent::every_crash_point_with_concurrent_appenders;
    recycled_too_far_by_crashes: RecycledTooFar by concurrent::every_crash_point_with_concurrent_appenders;
    recycled_not_synced_by_crashes: RecycledNotSynced by concurrent::every_crash_point_with_concurrent_appenders;
    stale_bytes_trusted_by_crashes: StaleBytesTrusted by concurrent::every_crash_point_with_concurrent_appenders;
    recycling_failure_forgotten: RecyclingFailureForgotten by device::a_failed_sync_of_the_directory_in_recycling_poisons_the_log;
    recycled_not_synced: RecycledNotSynced by crash::a_recycled_segment_is_durably_out_of_the_log_before_it_is_used_again;
    stale_bytes_trusted: StaleBytesTrusted by log::recycled_segments_are_filled_and_used_again;
}
