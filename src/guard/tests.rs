//! What the guard admits, and what it counts.

use super::*;
use futures_util::FutureExt;
use proptest::prelude::*;

/// What callers can do to a call.
#[derive(Debug, Clone, Copy)]
enum CallerInfluence {
    Leaves,
    RunsOut,
    SendsWhatCannotBeSent,
    /// An upload, however it ends.
    Uploads(SourceHealth),
    /// A call that the gateway might have continued.
    LeavesLate,
}

fn by_caller() -> impl Strategy<Value = CallerInfluence> {
    use SourceHealth::{Failed, Responded, Unknown, Unreachable};
    prop_oneof![
        Just(CallerInfluence::Leaves),
        Just(CallerInfluence::RunsOut),
        Just(CallerInfluence::SendsWhatCannotBeSent),
        Just(CallerInfluence::LeavesLate),
        prop::sample::select(vec![Responded, Failed, Unknown, Unreachable]).prop_map(CallerInfluence::Uploads),
    ]
}

proptest! {
    #[test]
    fn nothing_that_callers_do_changes_what_is_thought_of_a_source(
        steps in prop::collection::vec((0usize..2, by_caller()), 0..100), ill in any::<bool>(),
    ) {
        let guard = Guard::new("test", GuardSettings::default());
        let operations = [guard.before("Get", true), guard.before("List", true)];
        let now = Instant::now();
        let far = Deadline::own(now, Duration::from_secs(60));
        let admit = |at: usize| operations[at].admit("one", far, |_| true).now_or_never().unwrap();
        if ill {
            (0..20).for_each(|_| admit(0).unwrap().record(SourceHealth::Unreachable, Duration::ZERO, now));
        }
        let thought = || (guard.breaker_state(), guard.concurrency_limit(), guard.wait.expected(100, 1), guard.streams());
        let before = thought();
        for (at, step) in steps {
            // While the breaker is open, no call is admitted.
            let (late, unknown) = (Duration::from_secs(59), SourceHealth::Unknown);
            match step {
                CallerInfluence::Leaves => drop(admit(at)),
                CallerInfluence::RunsOut => admit(at).iter_mut().for_each(|permit| permit.record(unknown, late, now)),
                CallerInfluence::SendsWhatCannotBeSent => {
                    admit(at).iter_mut().for_each(|permit| permit.record(unknown, Duration::ZERO, now));
                }
                CallerInfluence::LeavesLate => admit(at).iter_mut().for_each(|permit| {
                    permit.survives_caller();
                }),
                CallerInfluence::Uploads(health) => {
                    operations[at].admit_stream("one").iter_mut().for_each(|permit| permit.record(health, late, now));
                }
            }
            prop_assert_eq!(thought(), before);
        }
        prop_assert!(!guard.goes_on.load(Ordering::Relaxed));
    }
}

#[test]
fn one_call_at_a_time_goes_on_where_callers_left_all() {
    let guard = Guard::new("test", GuardSettings::default());
    let operation = guard.before("Get", true);
    let far = Deadline::own(Instant::now(), Duration::from_secs(60));
    let admit = || operation.admit("one", far, |_| true).now_or_never().unwrap().unwrap();
    for _ in 0..SILENT_AFTER {
        assert!(!admit().survives_caller());
    }
    let (mut first, mut second) = (admit(), admit());
    assert!(first.survives_caller() && first.survives_caller() && !second.survives_caller());
    first.record(SourceHealth::Responded, Duration::from_millis(1), Instant::now());
    drop((first, second));
    // It responds, so callers only have short deadlines.
    assert!(!admit().survives_caller());
}

#[tokio::test]
async fn a_full_source_queues_and_then_refuses() {
    let settings = GuardSettings { concurrency: 1, queue: 1, ..GuardSettings::default() };
    let guard = Guard::new("test", settings).before("Get", true);
    let soon = Deadline::own(Instant::now(), Duration::from_millis(30));
    let first = guard.admit("one", soon, |_| true).await.unwrap();
    let hasty = Deadline { owner: DeadlineOwner::Caller, ..soon };
    let (waits, refused) = tokio::join!(guard.admit("one", hasty, |_| true), async {
        tokio::task::yield_now().await;
        guard.admit("one", soon, |_| true).await.err().map(|refusal| refusal.reason)
    });
    assert_eq!(waits.err().map(|refusal| refusal.reason), Some(Reason::CallerDeadline));
    assert_eq!(refused, Some(Reason::GatewayOverloaded));
    drop(first);
    assert!(guard.admit("one", Deadline::own(Instant::now(), Duration::from_secs(1)), |_| true).await.is_ok());
}
