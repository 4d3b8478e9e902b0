//! When clients, grants and tokens were used last: a column of their lists.

use super::failure::{Failure, message_of};
use super::session::SignedIn;
use super::text::Locale;
use super::{Console, request};
use crate::admin::api::ListLastUseRequest;
use crate::admin::api::admin_service_server::AdminService;
use maud::{Markup, html};
use std::collections::HashMap;

/// What a page knows of its objects.
pub struct LastUses {
    /// Unix time in seconds; 0: not within the period.
    times: HashMap<String, i64>,
    days: u64,
}

impl LastUses {
    /// Asks for these objects, as `client:ID`, `grant:ID` or `token:ID`.
    ///
    /// # Errors
    /// The page that says why there is no answer.
    pub async fn of(console: &Console, session: &SignedIn, objects: Vec<String>) -> Result<Self, Failure> {
        let message = ListLastUseRequest { objects };
        let found = message_of(session, console.admin.list_last_use(request(session, message)).await)?;
        let times = found.uses.into_iter().map(|one| (one.object, one.time)).collect();
        Ok(LastUses { times, days: found.period_days.into() })
    }

    /// When an object was used last, in words.
    pub fn cell(&self, locale: Locale, object: &str) -> Markup {
        match self.times.get(object) {
            Some(0) => {
                let days = locale.number(self.days);
                html! { span.state.later { (locale.with("last-use-none", "days", days)) } }
            }
            Some(time) => html! { (locale.timestamp(*time)) },
            None => html! { span.hint { (locale.text("last-use-unknown")) } },
        }
    }

    /// How many of the objects were not used within the period, and whether this is known of all.
    pub fn unused(&self, objects: &[String]) -> (u64, bool) {
        let unused = objects.iter().filter(|object| self.times.get(*object) == Some(&0)).count();
        (unused as u64, objects.iter().all(|object| self.times.contains_key(object)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_yet_is_not_said_to_be_unused() {
        let times = HashMap::from([("grant:a".to_owned(), 0), ("grant:b".to_owned(), 1_795_712_400)]);
        let uses = LastUses { times, days: 90 };
        let objects = ["grant:a", "grant:b"].map(str::to_owned);
        assert_eq!(uses.unused(&objects), (1, true));
        assert_eq!(uses.unused(&["grant:c".to_owned()]), (0, false));
        assert!(uses.cell(Locale::English, "grant:a").into_string().contains("90"));
        assert!(uses.cell(Locale::English, "grant:b").into_string().contains("2026-11-27"));
    }
}
