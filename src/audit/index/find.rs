//! Searching and counting.

use super::{AuditError, Index, Name, Person};
use crate::audit::odd::{Crowd, SHOWN};
use crate::audit::query::Query;
use crate::exchange_log::entry::Pseudonym;
use rusqlite::types::Value;
use rusqlite::{OptionalExtension, params, params_from_iter};
use std::time::Instant;

/// Entries that are looked through before the time is looked at.
const WINDOW: u64 = 1 << 18;

/// Exchanges of one kind in one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hour {
    /// Hours since 1970.
    pub hour: i64,
    /// The client; empty where nobody was identified.
    pub client: String,
    /// Its agency code.
    pub agency: String,
    /// The source.
    pub source: String,
    /// The operation.
    pub operation: String,
    /// `OK`, or the reason.
    pub outcome: String,
    /// How many.
    pub exchanges: u64,
    /// Their time together, in microseconds.
    pub total_us: u64,
    /// Bytes of their answers.
    pub answer_bytes: u64,
}

/// Conditions on a row, and their values.
#[derive(Default)]
struct Conditions {
    sql: String,
    values: Vec<Value>,
}

impl Conditions {
    fn one_of(&mut self, column: &str, numbers: Vec<i64>) {
        let places = vec!["?"; numbers.len()].join(", ");
        self.sql.push_str(&format!(" AND {column} IN ({places})"));
        self.values.extend(numbers.into_iter().map(Value::Integer));
    }

    fn person(&mut self, roles: &[Person], ids: &[Pseudonym]) {
        let places = vec!["?"; ids.len()].join(", ");
        let roles: Vec<String> = roles.iter().map(|role| (*role as i64).to_string()).collect();
        let roles = roles.join(", ");
        self.sql
            .push_str(&format!(" AND idx IN (SELECT idx FROM people WHERE role IN ({roles}) AND value IN ({places}))"));
        self.values.extend(ids.iter().map(|id| Value::Blob(id.value.clone())));
    }
}

impl Index {
    /// Entries that fit, below `before` and newest first; and below which index to go on.
    pub fn find(
        &self,
        query: &Query,
        before: u64,
        limit: usize,
        patience: Option<Instant>,
    ) -> Result<(Vec<u64>, Option<u64>), AuditError> {
        let mut found = Vec::new();
        let Some(conditions) = self.conditions(query)? else { return Ok((found, None)) };
        let (low, high) = self.bounds(query)?;
        let mut at = before.min(high);
        let sql =
            format!("SELECT idx FROM entries WHERE idx >= ? AND idx < ?{} ORDER BY idx DESC LIMIT ?", conditions.sql);
        let mut statement = self.connection.prepare_cached(&sql)?;
        // A person has few entries, which are found at once: no need to go step by step.
        let window = if query.names_somebody() { u64::MAX } else { WINDOW };
        while at > low && found.len() < limit {
            let from = at.saturating_sub(window).max(low);
            let rest = limit - found.len();
            let range = [Value::Integer(from as i64), Value::Integer(at as i64)];
            let values = range.into_iter().chain(conditions.values.iter().cloned());
            let values = values.chain([Value::Integer(i64::try_from(rest).unwrap_or(i64::MAX))]);
            let rows = statement.query_map(params_from_iter(values), |row| row.get::<_, i64>(0))?;
            let rows: Vec<u64> = rows.map(|row| row.map(i64::unsigned_abs)).collect::<Result<_, _>>()?;
            at = if rows.len() == rest { rows.last().copied().unwrap_or(from) } else { from };
            found.extend(rows);
            if patience.is_some_and(|until| Instant::now() >= until) {
                break;
            }
        }
        Ok((found, (at > low).then_some(at)))
    }

    /// The entries of an exchange, oldest first.
    pub fn exchange(&self, id: &[u8; 16]) -> Result<Vec<u64>, AuditError> {
        let mut statement = self.connection.prepare_cached("SELECT idx FROM exchanges WHERE id = ?1 ORDER BY idx")?;
        let rows = statement.query_map(params![id.as_slice()], |row| row.get::<_, i64>(0))?;
        Ok(rows.map(|row| row.map(i64::unsigned_abs)).collect::<Result<_, _>>()?)
    }

    /// Exchanges by the hour, from one hour (since 1970) until before another, until `take` says stop.
    pub fn hours(
        &self,
        query: &Query,
        from: i64,
        to: i64,
        mut take: impl FnMut(Hour) -> bool,
    ) -> Result<(), AuditError> {
        let Some(conditions) = self.conditions(query)? else { return Ok(()) };
        let sql = format!(
            "SELECT hour, c.text, a.text, s.text, o.text, r.text, exchanges, total_us, answer_bytes FROM hours
             JOIN names c ON c.id = client JOIN names a ON a.id = agency JOIN names s ON s.id = source
             JOIN names o ON o.id = operation JOIN names r ON r.id = outcome
             WHERE hour >= ? AND hour < ?{} ORDER BY hour",
            conditions.sql
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let values = [Value::Integer(from), Value::Integer(to)].into_iter().chain(conditions.values);
        let count =
            |row: &rusqlite::Row<'_>, at: usize| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)?.unsigned_abs());
        let rows = statement.query_map(params_from_iter(values), |row| {
            Ok(Hour {
                hour: row.get(0)?,
                client: row.get(1)?,
                agency: row.get(2)?,
                source: row.get(3)?,
                operation: row.get(4)?,
                outcome: row.get(5)?,
                exchanges: count(row, 6)?,
                total_us: count(row, 7)?,
                answer_bytes: count(row, 8)?,
            })
        })?;
        for row in rows {
            if !take(row?) {
                break;
            }
        }
        Ok(())
    }

    /// The places between which entries of a time must be. Entries stand in the order of their ends, but a clock may go
    /// back: marks tell the latest time before each bundle, and the state how far an entry ever was behind it.
    pub(in crate::audit) fn bounds(&self, query: &Query) -> Result<(u64, u64), AuditError> {
        let mark = |sql: &str, time: i64| -> Result<Option<u64>, AuditError> {
            let found: Option<i64> = self.connection.prepare_cached(sql)?.query_row([time], |row| row.get(0))?;
            Ok(found.map(i64::unsigned_abs))
        };
        let low = match query.from_us {
            Some(from) => mark("SELECT MAX(idx) FROM marks WHERE high_us < ?1", from)?.unwrap_or(0),
            None => 0,
        };
        let high = match query.to_us {
            Some(to) => {
                let late = self.connection.query_row("SELECT late_us FROM state", [], |row| row.get::<_, i64>(0));
                let last = to.saturating_add(late.optional()?.unwrap_or(0));
                mark("SELECT MIN(idx) FROM marks WHERE high_us > ?1", last)?.unwrap_or(u64::MAX)
            }
            None => u64::MAX,
        };
        Ok((low, high.min(self.indexed()?)))
    }

    /// What a query asks of a row; `None` where it names what no entry has.
    fn conditions(&self, query: &Query) -> Result<Option<Conditions>, AuditError> {
        let mut all = Conditions::default();
        let exact = [
            ("client", Name::Client, &query.client),
            ("source", Name::Source, &query.source),
            ("scope", Name::Scope, &query.scope),
            ("purpose", Name::Purpose, &query.purpose),
            ("outcome", Name::Outcome, &query.outcome),
        ];
        for (column, kind, text) in exact {
            let Some(text) = text else { continue };
            let numbers = self.numbers(kind, "text = ?2", text)?;
            if numbers.is_empty() {
                return Ok(None);
            }
            all.one_of(column, numbers);
        }
        let parts = [
            ("agency", Name::Agency, "text = ?2 OR substr(text, 1, length(?2) + 1) = ?2 || '.'", &query.agency),
            ("operation", Name::Operation, "instr(text, ?2) > 0", &query.operation),
        ];
        for (column, kind, condition, text) in parts {
            let Some(text) = text else { continue };
            let numbers = self.numbers(kind, condition, text)?;
            if numbers.is_empty() {
                return Ok(None);
            }
            all.one_of(column, numbers);
        }
        if let Some(ids) = &query.subject {
            all.person(&[Person::Subject, Person::Answered], ids);
        }
        if let Some(ids) = &query.official {
            all.person(&[Person::Official], ids);
        }
        Ok(Some(all))
    }

    fn numbers(&self, kind: Name, condition: &str, text: &str) -> Result<Vec<i64>, AuditError> {
        let sql = format!("SELECT id FROM names WHERE kind = ?1 AND ({condition})");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params![kind as i64, text], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// A day in Ho Chi Minh City, of a row of `entries e`.
const DAY: &str = "(e.time_us + 25200000000) / 86400000000";

impl Index {
    /// People about whom at least so many clients asked on one day.
    pub(in crate::audit) fn clients_of_one_person(
        &self,
        period: &Query,
        most: usize,
    ) -> Result<Vec<Crowd>, AuditError> {
        let sql = format!(
            "SELECT '', COUNT(DISTINCT e.client) AS others, COUNT(*), MIN(e.idx), MAX(e.idx), p.value
             FROM entries e JOIN people p ON p.idx = e.idx AND p.role = 0
             WHERE e.idx >= ?1 AND e.idx < ?2 AND e.time_us >= ?3 AND e.time_us < ?4 AND e.kind = 1
             GROUP BY p.value, {DAY} HAVING others >= ?5"
        );
        self.crowds(
            &sql,
            "SELECT idx FROM people WHERE value = ?1 AND role = 0 AND idx BETWEEN ?2 AND ?3",
            period,
            most,
        )
    }

    /// Dossiers under which at least so many people were asked about.
    pub(in crate::audit) fn people_of_one_dossier(
        &self,
        period: &Query,
        most: usize,
    ) -> Result<Vec<Crowd>, AuditError> {
        let sql = "SELECT n.text, COUNT(DISTINCT p.value) AS others, COUNT(*), MIN(e.idx), MAX(e.idx), e.purpose
             FROM entries e JOIN people p ON p.idx = e.idx AND p.role = 0 JOIN names n ON n.id = e.purpose
             WHERE e.idx >= ?1 AND e.idx < ?2 AND e.time_us >= ?3 AND e.time_us < ?4 AND n.text LIKE '%-%'
             GROUP BY e.purpose HAVING others >= ?5";
        self.crowds(sql, "SELECT idx FROM entries WHERE purpose = ?1 AND idx BETWEEN ?2 AND ?3", period, most)
    }

    /// Officials who asked about at least so many people on one day.
    pub(in crate::audit) fn people_of_one_official(
        &self,
        period: &Query,
        most: usize,
    ) -> Result<Vec<Crowd>, AuditError> {
        let sql = format!(
            "SELECT n.text, COUNT(DISTINCT p.value) AS others, COUNT(*), MIN(e.idx), MAX(e.idx), o.value
             FROM entries e JOIN people p ON p.idx = e.idx AND p.role = 0
             JOIN people o ON o.idx = e.idx AND o.role = 1 JOIN names n ON n.id = e.client
             WHERE e.idx >= ?1 AND e.idx < ?2 AND e.time_us >= ?3 AND e.time_us < ?4
             GROUP BY o.value, {DAY} HAVING others >= ?5"
        );
        self.crowds(
            &sql,
            "SELECT idx FROM people WHERE value = ?1 AND role = 1 AND idx BETWEEN ?2 AND ?3",
            period,
            most,
        )
    }

    fn crowds(&self, sql: &str, entries: &str, period: &Query, most: usize) -> Result<Vec<Crowd>, AuditError> {
        let (low, high) = self.bounds(period)?;
        let high = i64::try_from(high).unwrap_or(i64::MAX);
        let (from, to) = (period.from_us.unwrap_or(i64::MIN), period.to_us.unwrap_or(i64::MAX));
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut behind = self.connection.prepare_cached(&format!("{entries} ORDER BY idx DESC LIMIT ?4"))?;
        let mut rows = statement.query(params![low as i64, high, from, to, most as i64])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (first, last, key): (i64, i64, Value) = (row.get(3)?, row.get(4)?, row.get(5)?);
            let places = behind.query_map(params![key, first, last, SHOWN as i64], |row| row.get::<_, i64>(0))?;
            found.push(Crowd {
                name: row.get(0)?,
                others: row.get::<_, i64>(1)?.unsigned_abs(),
                count: row.get::<_, i64>(2)?.unsigned_abs(),
                entries: places.map(|place| place.map(i64::unsigned_abs)).collect::<Result<_, _>>()?,
            });
        }
        Ok(found)
    }
}
