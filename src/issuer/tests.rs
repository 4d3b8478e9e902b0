//! The content of tokens, by the grants of their clients.

use super::*;
use crate::registry::sqlite::SqliteStore;
use crate::registry::{Client, Grant};

const HOUR: Duration = Duration::from_secs(3_600);

struct Office {
    folder: tempfile::TempDir,
    store: SqliteStore,
}

impl Office {
    /// A client with a grant in force, one that has ended, and one that begins later.
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("registry.sqlite")).unwrap();
        let names = vec!["spiffe://province/client/shop".to_owned()];
        let client = Client {
            id: "shop".into(),
            agency: "H49.12".into(),
            names,
            contact: "hotro@example.vn".into(),
            created: now(),
            ..Client::default()
        };
        store.add_client(&client).unwrap();
        let office = Office { folder, store };
        office.grant("now", &["land:read", "tide:read"], -5, 86_400);
        office.grant("over", &["tax:read"], -86_400, -5);
        office.grant("later", &["health:read"], 86_400, 172_800);
        office
    }

    fn grant(&self, id: &str, scopes: &[&str], from: i64, until: i64) {
        let grant = Grant {
            id: id.into(),
            client: "shop".into(),
            scopes: scopes.iter().map(|&scope| scope.into()).collect(),
            purposes: vec!["*".into()],
            fields: vec!["*".into()],
            rate: 10,
            burst: 10,
            not_before: now() + from,
            not_after: now() + until,
            legal_basis: "test".into(),
            ..Grant::default()
        };
        self.store.add_grant(&grant).unwrap();
    }

    fn issuer(&self) -> Issuer<'_> {
        let settings = IssuerSettings {
            keys: self.folder.path().to_owned(),
            vault: Vault::default(),
            shared: None,
            hsm: None,
            issuer: "https://ndxp.example".into(),
            audience: "ndxp".into(),
            longest: HOUR,
            jwks_max_age: Duration::ZERO,
        };
        Issuer::new(&self.store, settings)
    }
}

fn request(scopes: &[&str]) -> IssueRequest {
    let scopes = scopes.iter().map(|&scope| scope.into()).collect();
    IssueRequest { scopes, certificate: Thumbprint([7; 32]), lifetime: HOUR, starts_in: Duration::ZERO }
}

#[test]
fn a_token_carries_scopes_of_grants_in_force_each_once_and_lives_as_long_as_the_policy_says() {
    let office = Office::open();
    let (issuer, view) = (office.issuer(), office.store.view("shop").unwrap());
    let second = Duration::from_secs(1);
    for (request, wanted) in [
        (request(&[]), Ok(vec!["land:read", "tide:read"])),
        (request(&["tide:read"]), Ok(vec!["tide:read"])),
        (request(&["tide:read", "land:read", "tide:read"]), Ok(vec!["tide:read", "land:read"])),
        (request(&["tax:read"]), Err("grant over ended at ")),
        (request(&["tide:read", "health:read"]), Err("grant later begins at ")),
        (request(&["water:read"]), Err("no grant has it")),
        (request(&["tide"]), Err("no grant has it")),
        (IssueRequest { lifetime: HOUR + second, ..request(&[]) }, Err("at most 60 minutes")),
        (IssueRequest { starts_in: MAX_LIFETIME + second, ..request(&[]) }, Err("begins within")),
    ] {
        let prepared = issuer.prepare(&view, request.clone());
        match (&prepared, wanted) {
            (Ok(record), Ok(scopes)) => {
                assert_eq!(record.scopes, scopes);
                assert_eq!((record.expires - record.starts, record.starts), (3_600, record.issued));
            }
            (Err(error), Err(wanted)) => assert!(error.to_string().contains(wanted), "{request:?}: {error}"),
            other => panic!("{request:?}: {other:?}"),
        }
    }
    // Earlier tokens are revoked with all of this client's; new ones begin with the next second.
    let mut view = view;
    view.client.tokens_from = now() + 2;
    let record = issuer.prepare(&view, request(&[])).unwrap();
    assert_eq!((record.issued, record.starts), (view.client.tokens_from, view.client.tokens_from));
    view.client.suspended = true;
    assert!(matches!(issuer.prepare(&view, request(&[])), Err(IssueError::Suspended(id)) if id == "shop"));
}

#[test]
fn a_token_that_no_call_could_carry_is_not_made_and_none_is_without_a_key() {
    let office = Office::open();
    let view = office.store.view("shop").unwrap();
    assert!(matches!(office.issuer().issue(&view, request(&[])), Err(IssueError::NoKey)));
    office.issuer().rotate_key(KeyAlgorithm::default(), true).unwrap();
    let (token, record) = office.issuer().issue(&view, request(&["tide:read"])).unwrap();
    assert!(token.len() < 1_000 && record.scopes == ["tide:read"]);
    let many: Vec<String> = (0..500).map(|number| format!("source{number:04}:read-everything")).collect();
    office.grant("many", &many.iter().map(String::as_str).collect::<Vec<_>>(), -5, 86_400);
    let view = office.store.view("shop").unwrap();
    let refused = office.issuer().issue(&view, request(&[]));
    assert!(matches!(refused, Err(IssueError::TooLarge { scopes: 502, bytes }) if bytes > MAX_TOKEN), "{refused:?}");
    assert!(office.issuer().issue(&view, request(&["tide:read"])).is_ok(), "a smaller one is made");
}

#[test]
fn an_audience_is_one_or_several() {
    for (audience, wanted) in [
        (Audience::One("ndxp".into()), true),
        (Audience::Many(vec!["x".into(), "ndxp".into()]), true),
        (Audience::One("ndxp2".into()), false),
        (Audience::Many(vec![]), false),
    ] {
        assert_eq!(audience.has("ndxp"), wanted, "{audience:?}");
    }
}
