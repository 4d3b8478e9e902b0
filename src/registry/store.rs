//! The contract of the registry's storage, for every engine.

use super::view::{ClientView, GrantView};
use super::{
    Actor, AdminEvent, ChangeOutcome, Client, ClientFilter, Grant, GrantFilter, ListPage, LoggedEvent,
    MaintenanceNotice, Page, PendingChange, RegistryError, SigningKey, Staff, TokenFilter, TokenRecord,
};
#[cfg(doc)]
use super::{admin_event, pending};

/// An item that a gateway needs, as [`Store::read`] passes it on.
pub enum Item<'r> {
    /// A client; its present grants follow.
    Client(Client),
    /// A grant that is approved if it must be, not withdrawn and not expired, of a client that was passed before.
    Grant(&'r str, GrantView),
    /// A token was revoked, and would expire then (Unix time in seconds).
    Revoked(String, i64),
    /// All signing keys, oldest first.
    Keys(Vec<SigningKey>),
    /// All members of staff.
    Staff(Vec<Staff>),
    /// All maintenance notices.
    Notices(Vec<MaintenanceNotice>),
}

/// The registry's storage. Every change is durable when its call returns, is seen by every read that begins later, in any process, and
/// increases the registry's revision.
///
/// Calls block: none is made on a thread that serves calls. [`Store::revision`] and [`Store::read`], by which a gateway
/// follows changes, wait for no other call; listings and single reads wait for no change.
pub trait Store: Send + Sync {
    /// Returns the revision: it grows with every change that a gateway must follow.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn revision(&self) -> Result<u64, RegistryError>;
    /// Visits everything (`None`), or what changed after a revision, and returns the revision that was read. All of it belongs to one
    /// moment.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails. Items that `take` has received by then stay passed.
    fn read(&self, after: Option<u64>, take: &mut dyn FnMut(Item<'_>)) -> Result<u64, RegistryError>;

    /// One client.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such client; [`RegistryError::Store`] if the storage fails.
    fn client(&self, id: &str) -> Result<Client, RegistryError>;
    /// One client with the grants that may be in force, as a gateway sees it.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such client; [`RegistryError::Store`] if the storage fails.
    fn view(&self, id: &str) -> Result<ClientView, RegistryError>;
    /// Clients by id.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn clients(&self, page: Page<'_, ClientFilter<'_>>) -> Result<ListPage<Client>, RegistryError>;
    /// Adds a client.
    ///
    /// # Errors
    /// [`RegistryError::Exists`] if the id is taken, retired clients included; [`RegistryError::NameTaken`] if a
    /// certificate name is another's; [`RegistryError::Store`] if the storage fails.
    fn add_client(&self, client: &Client) -> Result<(), RegistryError>;
    /// Changes a client's agency, contact and names. A name that it did not have waits for a second person while it has a
    /// grant, approved or not, that needs approval.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such client or it is retired; [`RegistryError::NameTaken`] if a
    /// certificate name is another's; [`RegistryError::Full`] if the change would wait and too many do;
    /// [`RegistryError::Store`] if the storage fails.
    fn change_client(&self, client: &Client) -> Result<ChangeOutcome, RegistryError>;
    /// Suspends a client, or resumes it as [`Store::resume_client`] does.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such client or it is retired; those of [`Store::resume_client`];
    /// [`RegistryError::Store`] if the storage fails.
    fn suspend_client(&self, id: &str, suspended: bool) -> Result<(), RegistryError>;
    /// Lets a suspended client call again. While it has an approved grant that needed approval, this waits for a second
    /// person.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such client or it is retired; [`RegistryError::Full`] if the
    /// change would wait and too many do; [`RegistryError::Store`] if the storage fails.
    fn resume_client(&self, id: &str) -> Result<ChangeOutcome, RegistryError>;
    /// Retires a client permanently, with its grants.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such client or it is retired; [`RegistryError::Store`] if the
    /// storage fails.
    fn retire_client(&self, id: &str) -> Result<(), RegistryError>;

    /// One grant.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such grant; [`RegistryError::Store`] if the storage fails.
    fn grant(&self, id: &str) -> Result<Grant, RegistryError>;
    /// Grants of one client or of all by id, those that wait for approval and those withdrawn included.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn grants(&self, client: Option<&str>, page: Page<'_, GrantFilter>) -> Result<ListPage<Grant>, RegistryError>;
    /// Adds a grant.
    ///
    /// # Errors
    /// [`RegistryError::Exists`] if the id is taken; [`RegistryError::Unknown`] if there is no such client or it
    /// is retired; [`RegistryError::Full`] if the grant would wait and too many changes do; [`RegistryError::Store`]
    /// if the storage fails.
    fn add_grant(&self, grant: &Grant) -> Result<(), RegistryError>;
    /// Approves a pending grant; not in the name of its requester.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if no such grant waits; [`RegistryError::Forbidden`] if the actor is its
    /// requester, no approver, or nobody with a certificate; [`RegistryError::Store`] if the storage fails.
    fn approve_grant(&self, id: &str) -> Result<(), RegistryError>;
    /// Replaces the grant of this id. New rights wait for a second person, if the old or the new grant needs approval.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such grant or it is withdrawn; [`RegistryError::Full`] if the
    /// change would wait and too many do; [`RegistryError::Store`] if the storage fails.
    fn change_grant(&self, grant: &Grant) -> Result<ChangeOutcome, RegistryError>;
    /// Withdraws a grant.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such grant; [`RegistryError::Store`] if the storage fails.
    fn withdraw_grant(&self, id: &str) -> Result<(), RegistryError>;

    /// One issued token.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such token; [`RegistryError::Store`] if the storage fails.
    fn token(&self, id: &str) -> Result<TokenRecord, RegistryError>;
    /// Tokens of one client or of all, newest first.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn tokens(&self, client: Option<&str>, page: Page<'_, TokenFilter>)
    -> Result<ListPage<TokenRecord>, RegistryError>;
    /// Returns how many tokens on record expired before a time (Unix time in seconds).
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn ended_tokens(&self, before: i64) -> Result<u64, RegistryError>;
    /// Removes tokens that expired before a time (Unix time in seconds), the oldest first, with their revocations; at
    /// most `most`. Returns their number.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn remove_ended_tokens(&self, before: i64, most: usize) -> Result<usize, RegistryError>;
    /// Records tokens that clients fetched; not an admin event. Ids are drawn at random, and the issuer has just read the client:
    /// whether that is still there is not judged again.
    ///
    /// # Errors
    /// [`RegistryError::Exists`] if an id is known to be taken, and none of them is recorded; [`RegistryError::Store`] if the
    /// storage fails.
    fn add_tokens(&self, tokens: &[TokenRecord]) -> Result<(), RegistryError>;
    /// Records a token that an administrator issued.
    ///
    /// # Errors
    /// As for [`Store::add_tokens`].
    fn add_token(&self, token: &TokenRecord) -> Result<(), RegistryError>;
    /// Revokes a token.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such token; [`RegistryError::Store`] if the storage fails.
    fn revoke_token(&self, id: &str) -> Result<(), RegistryError>;
    /// Revokes a token that its owner presents, even if its record was lost: then the token's claims stand for it.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn revoke_shown_token(&self, shown: &TokenRecord) -> Result<(), RegistryError>;
    /// Returns the present owners of certificate names (in canonical form), as `kind:id`: clients, retired ones
    /// included, and staff.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn owners(&self, names: &[String]) -> Result<Vec<String>, RegistryError>;
    /// Revokes every token of a client, and returns how many were in force.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such client; [`RegistryError::Store`] if the storage fails.
    fn revoke_client_tokens(&self, client: &str) -> Result<u64, RegistryError>;

    /// Signing keys, oldest first.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn keys(&self) -> Result<Vec<SigningKey>, RegistryError>;
    /// Adds a signing key; the others are trusted until `others_until`.
    ///
    /// # Errors
    /// [`RegistryError::Exists`] if the id is taken; [`RegistryError::Store`] if the storage fails.
    fn add_key(&self, key: &SigningKey, others_until: i64) -> Result<(), RegistryError>;
    /// Ends the trust in a key at once.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such key; [`RegistryError::Store`] if the storage fails.
    fn retire_key(&self, kid: &str) -> Result<(), RegistryError>;

    /// Returns the maintenance notices, by source, those that are over included.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn notices(&self) -> Result<Vec<MaintenanceNotice>, RegistryError>;
    /// Sets a source's checked maintenance notice in place of its present one, and removes all that are over.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] if there are too many; [`RegistryError::Store`] if the storage fails.
    fn set_notice(&self, notice: &MaintenanceNotice) -> Result<(), RegistryError>;
    /// Removes a source's maintenance notice and returns it.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if the source has none; [`RegistryError::Store`] if the storage fails.
    fn clear_notice(&self, source: &str) -> Result<MaintenanceNotice, RegistryError>;

    /// Returns all members of staff.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn staff(&self) -> Result<Vec<Staff>, RegistryError>;
    /// Registers the first administrator and the first approver, two people, while there is no approver yet.
    ///
    /// # Errors
    /// [`RegistryError::Forbidden`] if there is an approver, or if both are one person;
    /// [`RegistryError::NameTaken`] if a certificate name is another's; [`RegistryError::Store`] if the storage
    /// fails.
    fn bootstrap(&self, administrator: &Staff, approver: &Staff) -> Result<(), RegistryError>;
    /// Requests the registration of a person: a second person approves.
    ///
    /// # Errors
    /// [`RegistryError::Exists`] if the id is taken; [`RegistryError::NameTaken`] if a certificate name is
    /// another's; [`RegistryError::Full`] if too many changes wait; [`RegistryError::Store`] if the storage
    /// fails.
    fn add_staff(&self, staff: &Staff) -> Result<PendingChange, RegistryError>;
    /// Replaces a person's roles and names. A new role or name waits for a second person.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such person; [`RegistryError::NameTaken`] if a certificate name
    /// is another's; [`RegistryError::Forbidden`] if no administrator or no approver would be left;
    /// [`RegistryError::Full`] if the change would wait and too many do; [`RegistryError::Store`] if the storage
    /// fails.
    fn change_staff(&self, staff: &Staff) -> Result<ChangeOutcome, RegistryError>;
    /// Removes a person; not the last administrator or approver. Their names stay reserved.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if there is no such person; [`RegistryError::Forbidden`] if no administrator or
    /// no approver would be left; [`RegistryError::Store`] if the storage fails.
    fn remove_staff(&self, id: &str) -> Result<(), RegistryError>;

    /// Returns changes that wait for a second person, oldest first: those after an id, at most `most`.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn pending_changes(&self, after: &str, most: usize) -> Result<Vec<PendingChange>, RegistryError>;
    /// Makes a pending change, in the name of another person than its requester, if its object is unchanged.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if no such change waits; [`RegistryError::Forbidden`] if the actor is its
    /// requester, no approver, or nobody with a certificate; [`RegistryError::Outdated`] if its object has changed
    /// since; those of the change itself; [`RegistryError::Store`] if the storage fails.
    fn approve_change(&self, id: &str) -> Result<PendingChange, RegistryError>;
    /// Rejects a pending change.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] if no such change waits; [`RegistryError::Forbidden`] if the actor is neither
    /// its requester nor an approver; [`RegistryError::Store`] if the storage fails.
    fn reject_change(&self, id: &str) -> Result<PendingChange, RegistryError>;
    /// Ends expired changes, withdraws grants that were not approved in time, and returns how many.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn end_pending_changes(&self) -> Result<usize, RegistryError>;
    /// Returns how many changes and grants wait for a second person; at most [`pending::MAX_PENDING`].
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn count_pending(&self) -> Result<u64, RegistryError>;

    /// Returns the actor of its changes.
    fn actor(&self) -> &Actor;
    /// Returns the same store, for changes in another actor's name, with their reason (at most
    /// [`admin_event::MAX_JUSTIFICATION`] characters, or it is refused).
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] if the reason is longer.
    fn named(&self, actor: Actor, justification: &str) -> Result<Box<dyn Store>, RegistryError>;
    /// Returns the oldest events that are not in the exchange log yet, at most some hundred. Each change records its
    /// event in the same transaction. Rows that cannot be authenticated are skipped.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn admin_events(&self) -> Result<Vec<AdminEvent>, RegistryError> {
        let admin_events = self.logged_events(0)?.into_iter().filter_map(|noted| match noted {
            LoggedEvent::Authentic(event) | LoggedEvent::Upgraded(event) => Some(event),
            LoggedEvent::Refused(_) => None,
        });
        Ok(admin_events.collect())
    }
    /// Returns the oldest rows of events after a number in their sequence, at most some hundred, each with whether it
    /// is authenticated.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn logged_events(&self, after: u64) -> Result<Vec<LoggedEvent>, RegistryError>;
    /// Returns how many rows of events remain up to a number in their sequence, and the first of them: logged events
    /// are deleted, so these are not the original ones.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn remaining_events(&self, until: u64) -> Result<(u64, Option<LoggedEvent>), RegistryError>;
    /// Sets the minimum number of the next event to one after this: the log has reached it.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn note_events_after(&self, sequence: u64) -> Result<(), RegistryError>;
    /// Deletes an event that is in the exchange log now.
    ///
    /// # Errors
    /// [`RegistryError::Store`] if the storage fails.
    fn forget_event(&self, id: &[u8; 16]) -> Result<(), RegistryError>;
}
