//! Changes of maintenance notices.

use super::super::notice::MAX_NOTICES;
use super::super::{MaintenanceNotice, RegistryError, now};
use super::changing::{Changing, TouchedObjects};
use super::rows::read_notice;
use super::{SqliteStore, all, one};
use rusqlite::{Connection, OptionalExtension, params};

const NOTICE: &str = "SELECT * FROM notices WHERE source = ?1";

pub(super) fn list(connection: &Connection) -> Result<Vec<MaintenanceNotice>, RegistryError> {
    all(connection, "SELECT * FROM notices ORDER BY source", [], read_notice)
}

fn remove(changing: &mut Changing<'_>, before: &MaintenanceNotice) -> Result<(), RegistryError> {
    changing.execute("DELETE FROM notices WHERE source = ?1", [&before.source])?;
    changing.record("notice", &before.source, Some(before), None)
}

/// Removes notices that are over: nobody has to.
fn remove_ended(changing: &mut Changing<'_>, now: i64) -> Result<(), RegistryError> {
    for ended in list(changing)?.iter().filter(|notice| notice.ends <= now) {
        remove(changing, ended)?;
    }
    Ok(())
}

pub(super) fn set(store: &SqliteStore, notice: &MaintenanceNotice) -> Result<(), RegistryError> {
    let now = now();
    store.change("notice.set", format!("notice:{}", notice.source), |changing| {
        remove_ended(changing, now)?;
        let before = changing.prepare_cached(NOTICE)?.query_row([&notice.source], read_notice).optional()?;
        let count: i64 = changing.query_row("SELECT COUNT(*) FROM notices", [], |row| row.get(0))?;
        if before.is_none() && count >= MAX_NOTICES as i64 {
            return Err(RegistryError::Invalid("there are 1,000 notices already"));
        }
        let sql = "INSERT INTO notices (source, starts, ends, text_vi, text_en) VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (source) DO UPDATE SET starts = ?2, ends = ?3, text_vi = ?4, text_en = ?5";
        changing.execute(sql, params![notice.source, notice.starts, notice.ends, notice.text_vi, notice.text_en])?;
        changing.touch(TouchedObjects::Notices);
        changing.record("notice", &notice.source, before.as_ref(), Some(notice))
    })
}

pub(super) fn clear(store: &SqliteStore, source: &str) -> Result<MaintenanceNotice, RegistryError> {
    store.change("notice.clear", format!("notice:{source}"), |changing| {
        let before = one(changing, NOTICE, "maintenance notice", source, read_notice)?;
        changing.touch(TouchedObjects::Notices);
        remove(changing, &before)?;
        Ok(before)
    })
}
