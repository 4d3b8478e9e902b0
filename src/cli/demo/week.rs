//! A lived-in province for `demo --stay`: a week of made-up exchanges in the demo's own log, of the node `demo`, with two anomalies.
//! They are written before the gateway starts, as entries of a past week would be: in the order of their times.

use crate::cli::CliError;
use crate::config::Config;
use crate::contract::options::DataClass;
use crate::contract::{CallShape, ContractSet, Operation};
use crate::exchange_log::pseudonym::{self, Direction, PeriodKeys, PersonKind, Pseudonyms, commit};
use crate::exchange_log::{Entry, ExchangeLog, Kind, clock, entry, key};
use crate::sandbox::province::{Province, Random};
use crate::status::Reason;
use crate::time_zone::{HO_CHI_MINH, day, day_begins};
use std::sync::Arc;

/// The node of made-up entries, by which everybody can tell them from the demo's real ones.
pub const NODE: &str = "demo";
/// Length of the past that is made up, in days.
const DAYS: i64 = 7;
const HOUR_S: i64 = 3_600;
/// Seed: the same week in every demo but for its dates.
const SEED: u64 = 49;

/// A system of the week.
pub struct WeekClient {
    /// Its id.
    pub id: &'static str,
    /// Its agency.
    pub agency: &'static str,
    /// Its scopes.
    pub scopes: &'static [&'static str],
    /// The procedures that it states.
    pub procedures: &'static [&'static str],
    /// Calls in a busy hour.
    hourly: usize,
}

/// The systems of the week.
pub const CLIENTS: [WeekClient; 4] = [
    WeekClient {
        id: "civil-status-office",
        agency: "H49.3",
        scopes: &["population:verify", "population:read", "civilstatus:read"],
        procedures: &["1.001193", "1.000894", "1.004873"],
        hourly: 24,
    },
    WeekClient {
        id: "land-office",
        agency: "H49.9",
        scopes: &["land:read", "land:owner", "population:verify"],
        procedures: &["1.012753"],
        hourly: 16,
    },
    WeekClient {
        id: "business-office",
        agency: "H49.5",
        scopes: &["business:read", "business:verify"],
        procedures: &["2.001610"],
        hourly: 12,
    },
    WeekClient {
        id: "service-centre",
        agency: "H49.12",
        scopes: &["publicservice:read", "publicservice:procedures", "insurance:read"],
        procedures: &["1.004222"],
        hourly: 30,
    },
];

/// Times of the day with the share of a busy hour's calls, in percent, by hour of Ho Chi Minh City.
const OFFICE_HOURS: [(i64, usize); 9] =
    [(7, 60), (8, 100), (9, 100), (10, 90), (11, 30), (13, 60), (14, 100), (15, 90), (16, 50)];

/// Writes the week up to a quarter of an hour ago; returns the number of its entries.
///
/// # Errors
/// The log or its keys cannot be used.
pub fn write(config: &Config, contracts: &ContractSet, province: &Province) -> Result<usize, CliError> {
    let log = ExchangeLog::open(&config.data, key::read(&config.data, &config.vault, &config.log.origin)?)?;
    let now = clock::now_us().div_euclid(1_000_000) - 900;
    let mut week = Week {
        contracts,
        province,
        keys: Pseudonyms::open(&pseudonym::folder(&config.data))?,
        random: Random(SEED),
        entries: Vec::new(),
    };
    let today = day(now);
    for day in today - DAYS..=today {
        week.office_day(day)?;
    }
    // Last night, a system that never works at night; and yesterday, one dossier for a queue of people.
    let night = |day| day_begins(day) + 2 * HOUR_S;
    week.at_night(&CLIENTS[1], if night(today) + HOUR_S < now { night(today) } else { night(today - 1) })?;
    week.one_dossier(&CLIENTS[3], day_begins(today - 1) + 14 * HOUR_S)?;
    week.entries.retain(|entry| entry.time_us < now * 1_000_000);
    week.entries.sort_by_key(|entry| entry.time_us);
    for entry in &week.entries {
        log.append_detached(entry)?;
    }
    log.seal_now()?;
    Ok(week.entries.len())
}

struct Week<'w> {
    contracts: &'w ContractSet,
    province: &'w Province,
    keys: Pseudonyms,
    random: Random,
    entries: Vec<Entry>,
}

impl Week<'_> {
    /// A day of office hours; on Saturday, a few calls in the morning; on Sunday, none.
    fn office_day(&mut self, day: i64) -> Result<(), CliError> {
        // 1970-01-01 was a Thursday.
        let weekday = (day + 3).rem_euclid(7);
        for (hour, share) in OFFICE_HOURS {
            let share = match weekday {
                5 if hour < 11 => share / 4,
                5 | 6 => 0,
                _ => share,
            };
            for client in &CLIENTS {
                for _ in 0..client.hourly * share / 100 {
                    let second = self.random.below(HOUR_S as usize) as i64;
                    let time = day_begins(day) + hour * HOUR_S + second;
                    let purpose = self.random.pick(client.procedures).to_owned();
                    let person = self.random.below(self.province.people.len());
                    self.exchange(client, time, (purpose, person))?;
                }
            }
        }
        Ok(())
    }

    fn at_night(&mut self, client: &WeekClient, from: i64) -> Result<(), CliError> {
        for call in 0..40 {
            let person = self.random.below(self.province.people.len());
            self.exchange(client, from + call * 60, (client.procedures[0].to_owned(), person))?;
        }
        Ok(())
    }

    fn one_dossier(&mut self, client: &WeekClient, from: i64) -> Result<(), CliError> {
        let local = HO_CHI_MINH.to_datetime(jiff::Timestamp::from_second(from).unwrap_or_default());
        let dossier = format!("{}-{}-0042", client.agency, local.strftime("%y%m%d"));
        for call in 0..40 {
            self.exchange(client, from + call * 45, (dossier.clone(), call as usize))?;
        }
        Ok(())
    }

    /// One exchange of an operation within the client's scopes.
    fn exchange(&mut self, client: &WeekClient, time: i64, (purpose, person): (String, usize)) -> Result<(), CliError> {
        let is_own = |operation: &Operation| {
            client.scopes.contains(&operation.scope.as_str()) && operation.shape == CallShape::Unary
        };
        let own: Vec<&Arc<Operation>> =
            self.contracts.operations().into_iter().filter(|operation| is_own(operation)).collect();
        let operation = own[self.random.below(own.len())].clone();
        let time_us = time * 1_000_000 + self.random.below(1_000_000) as i64;
        let keys = self.keys.keys(time_us)?;
        let mut entry = Entry {
            client: client.id.into(),
            agency: client.agency.into(),
            peer: format!("10.20.{}.7:{}", client.id.len(), 40_000 + self.random.below(20_000)),
            source: operation.source.id.clone(),
            operation: operation.full_name.clone(),
            scope: operation.scope.clone(),
            purpose,
            ..self.times(time_us)
        };
        if operation.data_class >= DataClass::Personal {
            self.people(&mut entry, &keys, (client, person));
        }
        self.outcome(&mut entry, &operation, &keys);
        self.entries.push(entry);
        Ok(())
    }

    /// An entry with its id, its time and that of its stages.
    fn times(&mut self, time_us: i64) -> Entry {
        let id = uuid::Builder::from_unix_timestamp_millis(
            time_us.unsigned_abs() / 1_000,
            &std::array::from_fn(|_| self.random.below(256) as u8),
        );
        let source_us = 8_000 + self.random.below(60_000) as u64;
        let (access_us, request_us, guard_us, response_us) = (20, 55, 3, 40);
        Entry {
            version: entry::VERSION,
            kind: Kind::Exchange as i32,
            exchange_id: id.into_uuid().into_bytes().to_vec(),
            time_us,
            node: NODE.into(),
            total_us: source_us + access_us + request_us + guard_us + response_us,
            source_us,
            access_us,
            request_us,
            guard_us,
            response_us,
            ..Entry::default()
        }
    }

    fn people(&mut self, entry: &mut Entry, keys: &PeriodKeys, (client, person): (&WeekClient, usize)) {
        let people = &self.province.people;
        if let Some(person) = people.get(person) {
            entry.subjects = vec![keys.pseudonym(PersonKind::Subject, &person.citizen_id)];
        }
        // Three officials of each system.
        let official = client.id.len() * 3 + self.random.below(3);
        if let Some(official) = people.get(official) {
            entry.official = Some(keys.pseudonym(PersonKind::Official, &official.citizen_id));
        }
    }

    /// Mostly a success; sometimes no record, and rarely a source that does not respond in time.
    fn outcome(&mut self, entry: &mut Entry, operation: &Operation, keys: &PeriodKeys) {
        let reason = match self.random.below(200) {
            0..6 => Some(Reason::RecordNotFound),
            6 => Some(Reason::SourceTimeout),
            _ => None,
        };
        let id: [u8; 16] = entry.exchange_id.as_slice().try_into().unwrap_or_default();
        entry.request_bytes = 40 + self.random.below(80) as u64;
        entry.request_messages = 1;
        entry.request_commitment = commit(&keys.salt(&id, Direction::Request), &id);
        match reason {
            Some(reason) => {
                entry.status = reason.code() as u32;
                entry.reason = reason.as_str().into();
                entry.fault = reason.fault().as_str().into();
            }
            None => {
                entry.fields = operation.response_fields.allowed(&operation.response_fields.mask(&["*"]));
                entry.response_bytes = 200 + self.random.below(900) as u64;
                entry.response_messages = 1;
                entry.response_commitment = commit(&keys.salt(&id, Direction::Response), &id);
            }
        }
    }
}
