use super::*;
use crate::cluster::state::WriterProgress;

const TOOK: Duration = Duration::from_millis(3);

fn progress() -> (Progress, Incarnation) {
    let writer = Incarnation::parse("dc1.0123456789abcdef").unwrap();
    (Progress::new(writer.clone(), 10, BTreeMap::new()), writer)
}

/// A batch of this number begins.
fn begin(progress: &Progress, seq: u64) {
    let (writer, bytes) = (progress.writer.clone(), Vec::new());
    progress.begin(|| Ok(EncodedBatch { writer, seq, bytes })).unwrap();
}

/// A state of so many entries, in which the batches up to a number are sealed.
fn state(writer: &Incarnation, size: u64, mark: u64) -> SealedState {
    let mut state = SealedState::begin([3; 16]);
    (0..size).for_each(|number| state.peaks.push(&number.to_be_bytes()));
    state.writers.insert(writer.clone(), WriterProgress { mark, ..WriterProgress::default() });
    state
}

#[test]
fn a_batch_that_is_stuck_keeps_others_out_until_it_is_through() {
    let (progress, _) = progress();
    begin(&progress, 1);
    assert!(progress.refuse(1, "no quorum") && !progress.refuse(1, "again"), "its appenders are told once");
    assert!(matches!(progress.admits(), Err(LogError::Unavailable(reason)) if reason == "no quorum"));
    assert!(!progress.is_writable());
    progress.is_durable(1, (5, 500), TOOK, true);
    assert!(progress.admits().is_ok() && progress.is_writable());
    // A batch that has come through is not refused afterwards, and keeps nothing out.
    begin(&progress, 2);
    progress.is_durable(2, (1, 100), TOOK, true);
    assert!(!progress.refuse(2, "late") && progress.admits().is_ok());
}

#[test]
fn a_batch_waits_for_the_one_before_only_where_that_takes_no_time() {
    let (progress, _) = progress();
    let room = || locked(&progress.now).has_room();
    begin(&progress, 1);
    progress.is_kept(1);
    assert!(!room(), "nothing is known of the members: one at a time");
    progress.is_durable(1, (1, 1), Duration::from_millis(85), true);
    for seq in 2..10 {
        assert!(room());
        begin(&progress, seq);
        assert!(!room(), "batch {seq} is not on the own disk yet: a crash would leave a gap");
        progress.is_kept(seq);
    }
    assert!(!room(), "no more than {MAX_IN_FLIGHT}");
    // Those behind it are through: a batch that is missing is not left further behind.
    (3..10).for_each(|seq| progress.is_durable(seq, (1, 1), Duration::from_millis(85), true));
    assert!(!room() && !progress.is_last(9) && progress.is_last(2));
    progress.is_durable(2, (1, 1), Duration::from_millis(85), true);
    assert!(room());
    progress.press(Pressure::Slow(TOOK));
    begin(&progress, 10);
    progress.is_kept(10);
    assert!(!room(), "while there is little room in etcd, each batch waits for its delay");
}

#[test]
fn entries_are_refused_until_each_batch_that_was_refused_is_through() {
    let (progress, _) = progress();
    three_under_way(&progress);
    assert!(progress.refuse(2, "no quorum") && progress.refuse(1, "no quorum"));
    assert!(progress.may_spool().is_ok_and(|kept| !kept));
    assert!(progress.number_spooled(|| panic!("batch 3 is not on the own disk")).is_err());
    progress.is_kept(3);
    assert!(progress.may_spool().is_ok_and(|kept| kept));
    progress.is_durable(2, (1, 1), TOOK, true);
    progress.is_durable(3, (1, 1), TOOK, true);
    assert!(progress.admits().is_err(), "batch 1 is not through");
    progress.is_durable(1, (1, 1), TOOK, true);
    assert!(progress.admits().is_ok() && progress.may_spool().is_err());
    progress.wait_until_told();
}

#[test]
fn nothing_is_accepted_that_could_get_ahead_of_what_is_spooled() {
    let (progress, _) = progress();
    three_under_way(&progress);
    progress.is_kept(3);
    // One of them alone is refused, and is through; what was spooled behind them waits for the last one.
    assert!(progress.refuse(1, "no quorum"));
    progress.is_durable(1, (1, 1), TOOK, false);
    assert!(progress.admits().is_err() && !progress.is_last(2));
    progress.is_durable(3, (1, 1), TOOK, false);
    assert!(progress.admits().is_err() && progress.is_last(2));
    assert!(progress.begin(|| panic!("nothing begins")).is_err());
    progress.is_durable(2, (1, 1), TOOK, true);
    assert!(progress.admits().is_ok());
}

/// Batches 1, 2 and 3 are under way; the last one is not on the own disk.
fn three_under_way(progress: &Progress) {
    locked(&progress.now).last_sync = Duration::from_millis(85);
    for seq in 1..=3 {
        (1..seq).for_each(|before| progress.is_kept(before));
        begin(progress, seq);
    }
}

#[test]
fn entries_are_counted_until_they_are_sealed_and_sizes_never_fall() {
    let (progress, writer) = progress();
    let mut sealed = progress.watch_sealed();
    for seq in 1..=3 {
        begin(&progress, seq);
        progress.is_durable(seq, (2, 50), TOOK, true);
    }
    assert_eq!((progress.durable(), progress.health().unsealed_bytes), (16, 150));
    // Entries of others between those of this gateway.
    progress.is_stored(&state(&writer, 25, 2));
    assert_eq!((*sealed.borrow_and_update(), progress.durable()), (25, 27));
    progress.is_stored(&state(&writer, 20, 2));
    assert!(!sealed.has_changed().unwrap());
    assert!(progress.wait_until_sealed(Duration::from_millis(1)).is_err());
    progress.is_stored(&state(&writer, 30, 3));
    assert_eq!((progress.durable(), progress.health().unsealed_entries), (30, 0));
    assert_eq!(progress.wait_until_sealed(Duration::ZERO).unwrap(), 30);
}

#[test]
fn where_entries_of_earlier_starts_are_is_known_once_all_are_sealed() {
    let earlier = Incarnation::parse("dc1.00000000000000aa").unwrap();
    let writer = Incarnation::parse("dc1.00000000000000bb").unwrap();
    let progress = Progress::new(writer, 10, BTreeMap::from([(earlier.clone(), 3)]));
    progress.is_stored(&state(&earlier, 12, 2));
    assert_eq!(progress.earlier(), None, "its last batch is not sealed yet");
    progress.is_stored(&state(&earlier, 15, 3));
    progress.is_stored(&state(&earlier, 20, 3));
    assert_eq!(progress.earlier(), Some(15));
}

#[test]
fn a_log_that_has_stopped_says_why_and_does_not_go_on() {
    let (progress, writer) = progress();
    begin(&progress, 1);
    progress.stop(&ClusterError::RolledBack("revision 7 was seen, it is 5".into()));
    progress.stop(&ClusterError::NoLog);
    progress.is_durable(1, (1, 1), TOOK, true);
    progress.is_stored(&state(&writer, 30, 1));
    let reason = progress.admits().unwrap_err().to_string();
    assert!(reason.contains("ETCD_ROLLED_BACK") && progress.health().is_behind(), "{reason}");
    assert_eq!(progress.health().stopped, Some("ETCD_ROLLED_BACK"));
    assert!(progress.wait_until_sealed(Duration::ZERO).is_err());
}

#[test]
fn batches_wait_and_end_as_the_room_in_etcd_says() {
    let (progress, _) = progress();
    progress.press(Pressure::Slow(TOOK));
    assert!(progress.admits().is_ok() && progress.delay() == TOOK);
    progress.press(Pressure::Refuse);
    assert!(matches!(progress.admits(), Err(LogError::Full)) && progress.health().is_full);
    progress.press(Pressure::None);
    assert!(progress.admits().is_ok() && progress.delay().is_zero());
}
