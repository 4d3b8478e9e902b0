//! The log's record of files below `state` that hold the result of events: the legal holds and the fork alarm. Each
//! event names the SHA-256 of the content that it wrote, so a file that was edited, put back or removed differs from
//! the log.

use super::holds::{Hold, Holds, hold_of, word};
use super::logged_files::LoggedFiles;
use super::{AuditError, scan};
use crate::exchange_log::LogPaths;
use crate::exchange_log::file_events::{
    ACKNOWLEDGE_EVENT, FILE_EVENT, FORK_EVENT, FileEvent, HOLD_EVENT, RELEASE_EVENT,
};
use crate::exchange_log::reader::LogReader;
use crate::keyfile::Vault;
use crate::registry::sqlite::{FILE, RegistryFile};
use crate::registry::{AdminEventKey, LoggedEvent};
use crate::witness::alarm;
use std::collections::BTreeMap;
use std::path::Path;

/// A hold by its number and digest: a number may be reused if the file was lost.
type HoldKey = (u64, String);

/// The state according to the log.
#[derive(Debug, Default)]
pub struct LoggedState {
    /// Holds in force, with the event of each: its index and the case.
    holds: BTreeMap<HoldKey, (u64, String)>,
    /// The largest number of a hold that was ever placed or released.
    last_hold: u64,
    /// The alarm that is not acknowledged: id, digest, and the index of the event.
    alarm: Option<(String, String, u64)>,
    files: LoggedFiles,
}

/// Describes an event's position.
fn place(index: u64) -> String {
    if index == u64::MAX { "an admin event that waits for the log".into() } else { format!("entry {index}") }
}

impl LoggedState {
    /// Returns the state after these events.
    pub fn after(admin_events: &[FileEvent]) -> Self {
        let mut logged = LoggedState::default();
        admin_events.iter().for_each(|event| logged.take(event));
        logged
    }

    fn take(&mut self, FileEvent { index, event, object, .. }: &FileEvent) {
        match (event.as_str(), hold_of(object)) {
            (HOLD_EVENT, Some((id, digest))) => {
                self.last_hold = self.last_hold.max(id);
                self.holds.insert((id, digest.to_owned()), (*index, word(object, "reason:").to_owned()));
            }
            (RELEASE_EVENT, Some((id, digest))) => {
                self.last_hold = self.last_hold.max(id);
                self.holds.retain(|(other, standing), _| {
                    *other != id || !digest.is_empty() && standing != digest && !standing.is_empty()
                });
            }
            (FORK_EVENT, None) => {
                self.alarm = Some((word(object, "alarm:").into(), word(object, "sha256:").into(), *index));
            }
            (ACKNOWLEDGE_EVENT, None) if self.alarm.as_ref().is_some_and(|(id, ..)| id == word(object, "alarm:")) => {
                self.alarm = None;
            }
            (FILE_EVENT, None) => self.files.take(*index, event, object),
            _ => {}
        }
    }

    /// Returns the log's records of files that the gateway keeps for itself.
    pub fn files(&self) -> &LoggedFiles {
        &self.files
    }

    fn stands(&self, hold: &Hold) -> Option<HoldKey> {
        let (exact, earlier) = ((hold.id, hold.digest()), (hold.id, String::new()));
        if self.holds.contains_key(&exact) {
            return Some(exact);
        }
        self.holds.get(&earlier).is_some_and(|(_, case)| *case == hold.case).then_some(earlier)
    }

    /// Lists holds that are in force by the log and missing or different in the file: what they protect could be pruned.
    fn lost(&self, holds: &Holds) -> Vec<String> {
        let there: Vec<HoldKey> = holds.holds.iter().filter_map(|hold| self.stands(hold)).collect();
        let lost = self.holds.iter().filter(|(key, _)| !there.contains(key));
        let text = |((id, _), (index, case)): (&HoldKey, &(u64, String))| {
            let by = place(*index);
            format!(
                "hold {id} for {case}, which {by} placed, is missing or another one: place it again (audit hold add), then end the \
                 lost one (audit hold release {id})"
            )
        };
        lost.map(text).collect()
    }

    /// Returns the object of the event that ends a hold that the file has lost; `None` if the log has no such hold.
    pub fn lost_hold(&self, id: u64) -> Option<String> {
        let (_, digest) = self.holds.keys().find(|(other, _)| *other == id)?;
        Some(format!("hold:{id} sha256:{digest}"))
    }

    /// Lists the differences of the file of holds from the log.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn faults_of_holds(&self, data: &Path) -> Result<Vec<String>, AuditError> {
        let holds = Holds::read(data)?;
        let mut faults = self.lost(&holds);
        let invented = holds.holds.iter().filter(|hold| self.stands(hold).is_none());
        faults.extend(invented.map(|hold| {
            let Hold { id, case, by, .. } = hold;
            format!(
                "no entry records hold {id} for {case} by {by} as it is there: release it (audit hold release {id})"
            )
        }));
        if holds.last != self.last_hold && faults.is_empty() {
            let (last, logged) = (holds.last, self.last_hold);
            faults
                .push(format!("it says that {last} holds were placed, the log that {logged} were: put the file back"));
        }
        Ok(faults)
    }

    /// Returns how the alarm's file differs from the log.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn fault_of_alarm(&self, data: &Path) -> Result<Option<String>, AuditError> {
        let there = alarm::digest_of_file(data)?;
        Ok(match (&self.alarm, there) {
            (None, None) => None,
            (Some((_, digest, _)), Some(there)) if *digest == there => None,
            (Some((id, _, index)), None) => Some(format!(
                "the alarm {id}, which {} records, is gone, and nobody acknowledged it: a witness has another history of this log",
                place(*index)
            )),
            (Some((id, _, index)), Some(_)) => {
                Some(format!("it is not the alarm {id} that {} records: somebody changed it", place(*index)))
            }
            (None, Some(_)) => {
                Some("an alarm is there that no entry records: investigate it, then run audit acknowledge".into())
            }
        })
    }
}

/// Events of the registry beside a log that are on their way into it.
fn waiting(data: &Path, key: Option<&AdminEventKey>) -> Result<Vec<FileEvent>, AuditError> {
    let registry = data.join(FILE);
    if !registry.exists() {
        return Ok(Vec::new());
    }
    let noted = RegistryFile::open(&registry)?.admin_events(key)?;
    let event = |noted| match noted {
        LoggedEvent::Authentic(event) => FileEvent::new(u64::MAX, event.event, event.object),
        LoggedEvent::Upgraded(_) | LoggedEvent::Refused(_) => None,
    };
    Ok(noted.into_iter().filter_map(event).collect())
}

/// Returns the state by the log of a data folder and by the events on their way into it; `known`: the records that were
/// read from the log already.
///
/// # Errors
/// The log or the registry cannot be read.
pub fn logged_state_with(
    data: &Path,
    key: Option<&AdminEventKey>,
    known: Option<&[FileEvent]>,
) -> Result<LoggedState, AuditError> {
    // Read first: an event that is in neither place a moment later is in the log by then.
    let waiting = waiting(data, key)?;
    let mut admin_events = match known {
        Some(known) => known.to_vec(),
        None => {
            let mut admin_events = Vec::new();
            let take = |index, entry| admin_events.extend(FileEvent::of(index, entry));
            scan::administrative(&LogReader::open(data)?, &mut 0, |_, _| true, take)?;
            admin_events
        }
    };
    for event in waiting {
        if !admin_events.iter().any(|other| other.event == event.event && other.object == event.object) {
            admin_events.push(event);
        }
    }
    let own = LogPaths::new(data).own_gateway()?;
    admin_events.retain(|event| FileEvent::is_of(&event.node, own.as_deref()));
    Ok(LoggedState::after(&admin_events))
}

/// The same, with the key of the folder.
///
/// # Errors
/// As for [`logged_state_with`].
pub fn logged_state(data: &Path, vault: &Vault) -> Result<LoggedState, AuditError> {
    logged_state_with(data, AdminEventKey::read(&data.join(FILE), vault)?.as_ref(), None)
}

/// Describes a hold that is in force by the log and not in the file; checked twice, since one may be placed at this moment.
///
/// # Errors
/// The log, the registry or the file of the holds cannot be read.
pub fn lost_hold(data: &Path, key: &AdminEventKey, pause: impl FnOnce()) -> Result<Option<String>, AuditError> {
    let first = || Ok::<_, AuditError>(logged_state_with(data, Some(key), None)?.lost(&Holds::read(data)?));
    if first()?.is_empty() {
        return Ok(None);
    }
    pause();
    Ok(first()?.into_iter().next())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::audit::query::Query;
    use crate::witness::alarm::ForkAlarm;

    fn event(index: u64, event: &str, object: &str) -> FileEvent {
        FileEvent { index, event: event.into(), object: object.into(), node: String::new() }
    }

    #[test]
    fn l9_a_hold_that_was_edited_removed_or_invented_differs_from_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        std::fs::create_dir_all(data.join("state")).unwrap();
        let query = |client: &str| Query { client: Some(client.into()), ..Query::default() };
        let place = |client: &str| {
            Holds::change(data, |holds| holds.add(&query(client), "9/TA", "lan").cloned().unwrap()).unwrap()
        };
        let (one, two) = (place("one"), place("two"));
        let mut admin_events = vec![event(5, HOLD_EVENT, &one.object()), event(6, HOLD_EVENT, &two.object())];
        let faults = |admin_events: &[FileEvent]| LoggedState::after(admin_events).faults_of_holds(data).unwrap();
        assert_eq!(faults(&admin_events), Vec::<String>::new());
        // Another query under the same number and case.
        let (file, good) =
            (data.join("state/holds.json"), std::fs::read_to_string(data.join("state/holds.json")).unwrap());
        for edited in [
            good.replace("\"two\"", "\"ten\""),
            good.replace("9/TA", "8/TA"),
            good.replacen("\"lan\"", "\"bob\"", 1),
            good.replace("\"last\": 2", "\"last\": 1"),
        ] {
            std::fs::write(&file, &edited).unwrap();
            assert!(!faults(&admin_events).is_empty(), "{edited}");
        }
        std::fs::write(&file, format!("{good}\n")).unwrap();
        assert!(Holds::read(data).is_err(), "something beside it");
        std::fs::write(&file, &good).unwrap();
        assert!(faults(&admin_events[..1])[0].contains("no entry records hold 2"));
        // Removed; the log's own is ended by its number, in the file or not.
        std::fs::remove_file(&file).unwrap();
        assert!(faults(&admin_events)[0].contains("hold 1 for 9/TA, which entry 5 placed, is missing"));
        let logged = LoggedState::after(&admin_events);
        admin_events.push(event(7, RELEASE_EVENT, &logged.lost_hold(1).unwrap()));
        assert_eq!(faults(&admin_events).len(), 1);
        admin_events.push(event(8, RELEASE_EVENT, &two.released_object()));
        assert!(faults(&admin_events)[0].contains("the log that 2 were"));
        // Events of earlier versions name no digest, and their release ends every hold of its number.
        std::fs::write(&file, &good).unwrap();
        let earlier = [event(1, HOLD_EVENT, "hold:1 reason:9/TA"), event(2, HOLD_EVENT, "hold:2 reason:9/TA")];
        assert_eq!(faults(&earlier), Vec::<String>::new());
        assert!(!faults(&[&earlier[..], &[event(3, RELEASE_EVENT, "hold:2")]].concat()).is_empty());
        // A release with a digest leaves the other hold of its number.
        let both =
            [event(1, HOLD_EVENT, "hold:1 reason:x sha256:aa"), event(2, HOLD_EVENT, "hold:1 reason:x sha256:bb")];
        let one_left = LoggedState::after(&[&both[..], &[event(3, RELEASE_EVENT, "hold:1 sha256:aa")]].concat());
        assert_eq!(one_left.lost_hold(1).unwrap(), "hold:1 sha256:bb");
    }

    #[test]
    fn w_an_alarm_that_was_removed_or_edited_differs_from_the_log_until_it_is_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let raised = ForkAlarm { witness: "dc2".into(), time: 7, detail: "x".into(), evidence: Some("note".into()) };
        let object = alarm::raise(data, &raised).unwrap().unwrap();
        assert_eq!(alarm::raise(data, &raised).unwrap(), None, "it stands already");
        let admin_events = [event(9, FORK_EVENT, &object)];
        let fault = |admin_events: &[FileEvent]| LoggedState::after(admin_events).fault_of_alarm(data).unwrap();
        assert_eq!(fault(&admin_events), None);
        assert!(fault(&[]).unwrap().contains("no entry records"));
        let file = data.join("state/fork-alarm.json");
        let good = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, good.replace("note", "vote")).unwrap();
        assert!(fault(&admin_events).unwrap().contains("somebody changed it"));
        alarm::clear(data).unwrap();
        assert!(fault(&admin_events).unwrap().contains("entry 9"));
        let other = event(10, ACKNOWLEDGE_EVENT, "alarm:fork-dc2-8");
        assert!(fault(&[admin_events[0].clone(), other]).is_some(), "another alarm's acknowledgement");
        let own = event(10, ACKNOWLEDGE_EVENT, "alarm:fork-dc2-7");
        assert_eq!(fault(&[admin_events[0].clone(), own]), None);
    }
}
