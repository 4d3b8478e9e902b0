//! Which lists of a CA may follow which: a revocation stays in force until the CA itself changes that in a newer list.

use super::list::List;
use std::collections::HashMap;
use std::sync::Arc;

/// Accepts a list if it is newer than the one of its scope.
pub(super) fn take_newest(lists: &mut Vec<Arc<List>>, list: &Arc<List>) {
    match lists.iter_mut().find(|one| one.has_scope_of(list)) {
        Some(one) if one.age(list).is_lt() => *one = list.clone(),
        Some(_) => {}
        None => lists.push(list.clone()),
    }
}

/// Returns why `after` must not replace `before`, both of one CA and with one list for each scope; `None` if it may.
///
/// A scope may disappear only if every revocation of its list stays in force: a complete list may be followed by one of
/// some distribution points only if that revokes everything that the complete one did.
pub(super) fn setback(ca: &str, before: &[Arc<List>], after: &[Arc<List>], now: i64) -> Option<String> {
    let ca = super::refused::plain(ca, 200);
    let about = |list: &List, what| Some(format!("the revocation list of {ca} (number {}) {what}", list.number_text()));
    for last in before {
        match after.iter().find(|list| list.has_scope_of(last)) {
            Some(list) if list.is_rollback(last) => return about(list, "is older than the one in force"),
            Some(list) if (list.is_over(now) || list.is_ahead(now)) && !last.is_over(now) => {
                return about(list, "is out of date, or from the future, and the one in force is not");
            }
            Some(_) => {}
            None if after.is_empty() => return about(last, "is gone, and clients use that CA"),
            None if last.serials().all(|serial| after.iter().any(|list| list.revokes(serial))) => {}
            None => {
                return about(
                    last,
                    "has gone: those in its place cover other certificates (issuing distribution point), and do not \
                     revoke all that it revokes",
                );
            }
        }
    }
    None
}

/// A list's issuer: its name (DER) and its authority key identifier.
type ClaimedIssuer<'l> = (&'l [u8], &'l [u8]);

/// Groups lists of issuers with unknown keys by their claims: the issuer's name and the authority key identifier; keeps
/// the newest of each scope.
pub(super) fn by_issuer<'l>(lists: impl Iterator<Item = &'l Arc<List>>) -> HashMap<ClaimedIssuer<'l>, Vec<Arc<List>>> {
    let mut groups: HashMap<ClaimedIssuer<'l>, Vec<Arc<List>>> = HashMap::new();
    for list in lists {
        take_newest(groups.entry((list.issuer_der(), list.authority_key())).or_default(), list);
    }
    groups
}
