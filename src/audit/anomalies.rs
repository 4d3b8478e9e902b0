//! Unusual use: simple rules, each finding explained and with its entries. A finding is a question, not an answer: an
//! auditor reviews the entries.
//!
//! Times are those of Ho Chi Minh City. A client's usual behaviour is that of the 28 days before.

use super::AuditError;
pub use super::clusters::SHOWN;
use super::clusters::{Cluster, Clusters};
use super::index::{Hour, SearchIndex};
use super::query::Query;
use super::search;
use super::statistics::{HOUR_US, statistics};
use crate::exchange_log::reader::LogReader;
use crate::hex::sha256;
use std::collections::{BTreeMap, BTreeSet};

/// Hours from which a client's usual behaviour is taken.
const BEFORE_H: i64 = 28 * 24;
/// Minimum hours of history: with fewer, nothing is usual yet.
const KNOWN_H: usize = 40;
/// Minimum number of exchanges in an hour for the rules.
const FEW: u64 = 20;
/// Factor over the usual hour (the busiest but a twentieth) that makes a rate unusual.
const TIMES: u64 = 5;
/// Number of clients that request data of one person within a day.
const CLIENTS: usize = 4;
/// Number of persons under one dossier.
const PEOPLE: usize = 10;
/// Number of persons for whom one official requests data in a day.
const BY_OFFICIAL: usize = 200;
/// Longest period that is searched, in microseconds: rules about people work within a month.
pub const LONGEST_US: i64 = 31 * 86_400_000_000;

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A client makes requests at an hour of the day without any earlier request.
    UnusualHour,
    /// A client makes far more requests than in its busy hours.
    UnusualRate,
    /// Many clients request data of the same person within a day.
    OnePersonManyClients,
    /// Data of many persons is requested under one dossier.
    ManyPeopleOneDossier,
    /// One official requests data of many persons in a day.
    ManyPeopleOneOfficial,
}

impl Rule {
    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::UnusualHour => "UNUSUAL_HOUR",
            Rule::UnusualRate => "UNUSUAL_RATE",
            Rule::OnePersonManyClients => "ONE_PERSON_MANY_CLIENTS",
            Rule::ManyPeopleOneDossier => "MANY_PEOPLE_ONE_DOSSIER",
            Rule::ManyPeopleOneOfficial => "MANY_PEOPLE_ONE_OFFICIAL",
        }
    }
}

/// A finding of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// The observed and the usual value.
    pub explanation: Explanation,
    /// The client; empty if there are several.
    pub client: String,
    /// Its entries, newest first, at most [`SHOWN`].
    pub entries: Vec<u64>,
    /// The total number of its entries.
    pub count: u64,
    /// What it is about, among the findings of its rule: a client's hour, a person's day, a dossier, an official's day.
    key: String,
}

/// What a rule has seen, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// In English.
    pub english: String,
    /// In Vietnamese.
    pub vietnamese: String,
}

impl Finding {
    /// Returns what it is about, as `RULE-DIGEST`: the same in every period that has it, and without a name or a pseudonym.
    pub fn group(&self) -> String {
        let digest = sha256(format!("{} {}", self.rule.as_str(), self.key).as_bytes());
        format!("{}-{}", self.rule.as_str(), digest.get(..16).unwrap_or_default())
    }

    /// Returns the index of its newest entry.
    pub fn newest(&self) -> u64 {
        self.entries.first().copied().unwrap_or_default()
    }

    /// Returns the id to review it by, as `RULE-DIGEST-NEWEST`: another one once it has a newer entry.
    pub fn id(&self) -> String {
        format!("{}-{}", self.group(), self.newest())
    }
}

/// Returns the anomalies from one time until before another (Unix microseconds).
///
/// # Errors
/// The index or the log cannot be read.
pub fn findings(reader: &LogReader, index: &SearchIndex, from_us: i64, to_us: i64) -> Result<Vec<Finding>, AuditError> {
    let (from, to) = (from_us.div_euclid(HOUR_US), to_us.saturating_add(HOUR_US - 1).div_euclid(HOUR_US));
    let mut found = Vec::new();
    let mut clients: BTreeMap<String, BTreeMap<i64, u64>> = BTreeMap::new();
    let period = |from: i64, to: i64| Query { from_us: Some(from), to_us: Some(to), ..Query::default() };
    let hours = period((from - BEFORE_H) * HOUR_US, to * HOUR_US);
    let counted = statistics(reader, Some(index), &hours, false, usize::MAX)?.counts.unwrap_or_default();
    for Hour { hour, client, exchanges, .. } in counted {
        if !client.is_empty() {
            *clients.entry(client).or_default().entry(hour).or_default() += exchanges;
        }
    }
    for (client, hours) in &clients {
        for (hour, (rule, explanation)) in unusual(hours, from) {
            let query = Query {
                client: Some(client.clone()),
                from_us: Some(hour * HOUR_US),
                to_us: Some((hour + 1) * HOUR_US),
                ..Query::default()
            };
            let page = search::page(reader, Some(index), &query, None, SHOWN, None)?;
            let entries = page.found.iter().map(|one| one.index).collect();
            let count = hours.get(&hour).copied().unwrap_or(0);
            let key = format!("{client} {hour}");
            found.push(Finding { rule, explanation, client: client.clone(), entries, count, key });
        }
    }
    found.extend(crowds(&Clusters::read(reader, Some(index), &period(from_us, to_us))?)?);
    found.sort_by_key(|finding| (finding.rule, std::cmp::Reverse(finding.count)));
    Ok(found)
}

/// Returns the hour of the day in Ho Chi Minh City, and the day.
fn local(hour: i64) -> (i64, i64) {
    ((hour + 7).rem_euclid(24), (hour + 7).div_euclid(24))
}

/// Returns a client's hours from `from` on that differ from those before.
fn unusual(hours: &BTreeMap<i64, u64>, from: i64) -> Vec<(i64, (Rule, Explanation))> {
    let mut found = Vec::new();
    for (hour, count) in hours.range(from..).filter(|(_, count)| **count >= FEW) {
        let before = || hours.range(hour - BEFORE_H..*hour);
        let mut counts: Vec<u64> = before().map(|(_, count)| *count).collect();
        if counts.len() < KNOWN_H {
            continue;
        }
        counts.sort_unstable();
        let busy = counts[counts.len() * 19 / 20];
        let (of_day, _) = local(*hour);
        if *count > TIMES * busy {
            let reason = Explanation {
                english: format!("{count} exchanges in the hour from {of_day}:00; in its busy hours it makes {busy}"),
                vietnamese: format!("{count} lượt trong giờ từ {of_day}:00; giờ cao điểm thường có {busy} lượt"),
            };
            found.push((*hour, (Rule::UnusualRate, reason)));
        }
        let days: BTreeSet<i64> = before().map(|(other, _)| local(*other).1).collect();
        let same = before().filter(|(other, _)| local(**other).0 == of_day).count();
        if same == 0 {
            let days = days.len();
            let reason = Explanation {
                english: format!(
                    "{count} exchanges in the hour from {of_day}:00, in which it made none on the {days} earlier days with calls"
                ),
                vietnamese: format!(
                    "{count} lượt trong giờ từ {of_day}:00; {days} ngày có hoạt động trước đó không có lượt nào vào giờ này"
                ),
            };
            found.push((*hour, (Rule::UnusualHour, reason)));
        }
    }
    found
}

/// Many clients for one person, and many persons for one official or dossier.
fn crowds(crowds: &Clusters) -> Result<Vec<Finding>, AuditError> {
    let mut found = Vec::new();
    for crowd in crowds.clients_of_one_person(CLIENTS)? {
        let explanation = Explanation {
            english: format!("{} clients looked up the same person on one day", crowd.others),
            vietnamese: format!("{} hệ thống tra cứu cùng một người trong một ngày", crowd.others),
        };
        found.push(crowd.finding(Rule::OnePersonManyClients, explanation, String::new()));
    }
    for crowd in crowds.people_of_one_dossier(PEOPLE)? {
        let explanation = Explanation {
            english: format!("{} people were looked up under the dossier {}", crowd.others, crowd.name),
            vietnamese: format!("{} người được tra cứu theo cùng hồ sơ {}", crowd.others, crowd.name),
        };
        found.push(crowd.finding(Rule::ManyPeopleOneDossier, explanation, String::new()));
    }
    for crowd in crowds.people_of_one_official(BY_OFFICIAL)? {
        let explanation = Explanation {
            english: format!("one official of {} looked up {} people on one day", crowd.name, crowd.others),
            vietnamese: format!("một cán bộ của {} tra cứu {} người trong một ngày", crowd.name, crowd.others),
        };
        let client = crowd.name.clone();
        found.push(crowd.finding(Rule::ManyPeopleOneOfficial, explanation, client));
    }
    Ok(found)
}

impl Cluster {
    fn finding(self, rule: Rule, explanation: Explanation, client: String) -> Finding {
        Finding { rule, explanation, client, entries: self.entries, count: self.count, key: self.key }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Office hours on 20 days, 30 exchanges each.
    fn office() -> BTreeMap<i64, u64> {
        (0..20).flat_map(|day| (1..9).map(move |hour| (day * 24 + hour, 30))).collect()
    }

    #[test]
    fn what_a_client_always_does_is_not_odd() {
        let mut hours = office();
        hours.extend((1..9).map(|hour| (20 * 24 + hour, 60)));
        assert_eq!(unusual(&hours, 20 * 24), []);
    }

    #[test]
    fn a_night_and_a_flood_are_odd_and_told_in_local_time() {
        let mut hours = office();
        // 18:00 UTC is one o'clock at night there.
        hours.insert(20 * 24 + 18, 25);
        hours.insert(20 * 24 + 3, 500);
        let found = unusual(&hours, 20 * 24);
        assert_eq!(
            found.iter().map(|(_, (rule, _))| *rule).collect::<Vec<_>>(),
            [Rule::UnusualRate, Rule::UnusualHour]
        );
        assert!(
            found[0].1.1.english.contains("from 10:00") && found[1].1.1.vietnamese.contains("giờ từ 1:00"),
            "{found:?}"
        );
        assert_eq!(unusual(&office().into_iter().take(20).chain([(99, 5_000)]).collect(), 90), []);
    }
}
