//! The demo's provincial systems: their certificates, grants and tokens.

use super::week;
use crate::admin::{self, StaffDraft, api};
use crate::caller::{CallerFiles, CompleteResponse, GatewayClient};
use crate::cli::CliError;
use crate::cli::session::{RemoteGateway, Session};
use crate::config::Config;
use crate::identity::{Thumbprint, tls};
use crate::issuer::{IssueRequest, Issuer, KeyAlgorithm};
use crate::keyfile::write_private;
use crate::pki::{CertificateRole, DEFAULT_DAYS};
use crate::registry::sqlite::SqliteStore;
use crate::registry::{Page, Store};
use crate::sandbox::folder::DevFolder;
use crate::server::registry_path;
use bytes::Bytes;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Registered systems, and the paths of their files.
pub struct Participants<'c> {
    folder: DevFolder,
    config: &'c Config,
    store: SqliteStore,
}

/// A system that calls.
pub struct DemoClient {
    caller: GatewayClient,
    token: String,
}

struct DemoRole {
    id: &'static str,
    agency: &'static str,
    scopes: &'static [&'static str],
    purposes: &'static [&'static str],
    rate: u32,
    burst: u32,
    daily_quota: u64,
}

/// The agency of the tour's systems.
const AGENCY: &str = "H49.12";
const LEGAL_BASIS: &str = "Nghị định 278/2025/NĐ-CP";

/// The roles: one system with all rights, and some that lack something.
const PARTS: [DemoRole; 5] = [
    DemoRole {
        id: "one-stop-shop",
        agency: AGENCY,
        scopes: &["*"],
        purposes: &["*"],
        rate: 1_000,
        burst: 1_000,
        daily_quota: 0,
    },
    DemoRole {
        id: "registry-office",
        agency: AGENCY,
        scopes: &["population:verify"],
        purposes: &["procedure:1.001193"],
        rate: 100,
        burst: 100,
        daily_quota: 0,
    },
    DemoRole {
        id: "slow-lane",
        agency: AGENCY,
        scopes: &["catalogue:read"],
        purposes: &[],
        rate: 1,
        burst: 0,
        daily_quota: 0,
    },
    DemoRole {
        id: "small-quota",
        agency: AGENCY,
        scopes: &["catalogue:read"],
        purposes: &[],
        rate: 100,
        burst: 100,
        daily_quota: 1,
    },
    DemoRole {
        id: "left-alone",
        agency: AGENCY,
        scopes: &["catalogue:read"],
        purposes: &[],
        rate: 100,
        burst: 100,
        daily_quota: 0,
    },
];

/// The two people who grant rights: one requests, the other approves, each with a separate certificate.
struct DemoStaff {
    administrator: Session,
    approver: Session,
}

/// How long the gateway may take to load the two people.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

impl DemoStaff {
    fn appoint(folder: &DevFolder, store: &SqliteStore, base: &str) -> Result<Self, CliError> {
        let (administrator, approver) = ("lan", "minh");
        let draft = |id: &str| StaffDraft { id: id.to_owned(), ..StaffDraft::default() };
        admin::bootstrap(store, draft(administrator), draft(approver))
            .map_err(|error| CliError::Failed(error.to_string()))?;
        let session = |id: &str| {
            let (certificate, key) = folder.pki().issue(id, &CertificateRole::Staff(id.into()), DEFAULT_DAYS)?;
            let files = CallerFiles { ca: folder.pki().ca(), certificate, key };
            Session::remote(&RemoteGateway { url: base.to_owned(), files, log: None, vkey: None })
        };
        let people = DemoStaff { administrator: session(administrator)?, approver: session(approver)? };
        let began = Instant::now();
        while let Err(error) = people.approver.read(people.approver.admin().list_staff(api::ListStaffRequest {})) {
            if began.elapsed() > KNOWN_WITHIN {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(people)
    }

    /// Registers a person with a role and issues their certificate.
    fn employ(&self, folder: &DevFolder, id: &str, role: api::Role) -> Result<(), CliError> {
        folder.pki().issue(id, &CertificateRole::Staff(id.into()), DEFAULT_DAYS)?;
        let request = api::AddStaffRequest { id: id.into(), roles: vec![role.into()], names: vec![] };
        let waits = self.administrator.change(self.administrator.admin().add_staff(request))?;
        let approved = api::ApproveChangeRequest { id: waits.pending_change };
        self.approver.change(self.approver.admin().approve_change(approved)).map(|_| ())
    }

    fn grant(&self, request: api::AddGrantRequest) -> Result<(), CliError> {
        let grant = self.administrator.change(self.administrator.admin().add_grant(request))?;
        if grant.needs_approval {
            let id = api::GrantId { id: grant.id };
            self.approver.change(self.approver.admin().approve_grant(id))?;
        }
        Ok(())
    }
}

impl<'c> Participants<'c> {
    /// Registers the two people and everybody else, makes grants, and issues a token each; where the demo stays, also an auditor, an
    /// operator and the systems of the week.
    pub fn enter(config: &'c Config, folder: &DevFolder, base: &str, stays: bool) -> Result<Self, CliError> {
        let store = SqliteStore::open_with(&registry_path(&config.data), &config.vault)?;
        let people = DemoStaff::appoint(folder, &store, base)?;
        let participants = Participants { folder: folder.clone(), config, store };
        participants.issuer().rotate(KeyAlgorithm::default())?;
        for part in &PARTS {
            participants.register(part, &people)?;
            let token = participants.token(part.id, Duration::from_secs(3_600), Duration::ZERO)?;
            write_private(&participants.token_file(part.id), token.as_bytes())?;
        }
        if stays {
            people.employ(folder, "kiem", api::Role::Auditor)?;
            people.employ(folder, "van", api::Role::Operator)?;
            for client in &week::CLIENTS {
                let week::WeekClient { id, agency, scopes, .. } = *client;
                let part = DemoRole { id, agency, scopes, purposes: &["*"], rate: 50, burst: 50, daily_quota: 0 };
                participants.register(&part, &people)?;
            }
        }
        participants.folder.pki().issue("stranger", &CertificateRole::Client("stranger".into()), DEFAULT_DAYS)?;
        Ok(participants)
    }

    fn issuer(&self) -> Issuer<'_> {
        Issuer::new(&self.store, self.config.issuer_settings())
    }

    fn register(&self, part: &DemoRole, people: &DemoStaff) -> Result<(), CliError> {
        self.folder.pki().issue(part.id, &CertificateRole::Client(part.id.into()), DEFAULT_DAYS)?;
        let contact = "hotro@quangninh.gov.vn".to_owned();
        let client = api::AddClientRequest { id: part.id.into(), agency: part.agency.into(), contact, names: vec![] };
        people.administrator.change(people.administrator.admin().add_client(client))?;
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        people.grant(api::AddGrantRequest {
            client: part.id.into(),
            scopes: texts(part.scopes),
            purposes: texts(part.purposes),
            fields: vec!["*".into()],
            rate: part.rate,
            burst: part.burst,
            daily_quota: part.daily_quota,
            legal_basis: LEGAL_BASIS.into(),
            ..api::AddGrantRequest::default()
        })
    }

    fn certificate(&self, id: &str) -> PathBuf {
        self.folder.path.join("pki").join(format!("{id}.pem"))
    }

    /// The file with a system's token.
    pub fn token_file(&self, id: &str) -> PathBuf {
        self.folder.path.join("tokens").join(format!("{id}.jwt"))
    }

    /// A fresh token for a system.
    pub fn token(&self, id: &str, lifetime: Duration, starts_in: Duration) -> Result<String, CliError> {
        let chain = tls::certificates(&self.certificate(id)).map_err(|fault| CliError::Failed(fault.to_string()))?;
        let view = self.store.view(id)?;
        let request = IssueRequest { scopes: vec![], certificate: Thumbprint::of(&chain[0]), lifetime, starts_in };
        Ok(self.issuer().issue(&view, request)?.0)
    }

    /// Revokes a system's newest token.
    pub fn revoke_newest(&self, id: &str) -> Result<(), CliError> {
        if let Some(newest) = self.store.tokens(Some(id), Page { max: 1, ..Page::ALL })?.first() {
            self.store.revoke_token(&newest.id)?;
        }
        Ok(())
    }

    /// Suspends a system.
    pub fn suspend(&self, id: &str) -> Result<(), CliError> {
        Ok(self.store.suspend_client(id, true)?)
    }

    /// Returns a system with a separate connection, and the token from its file.
    pub fn actor(&self, base: &str, id: &str) -> Result<DemoClient, CliError> {
        let file = self.token_file(id);
        let token = if file.exists() { std::fs::read_to_string(file)? } else { String::new() };
        self.actor_with(base, id, &token)
    }

    /// A system with another token.
    pub fn actor_with(&self, base: &str, id: &str, token: &str) -> Result<DemoClient, CliError> {
        let certificate = self.certificate(id);
        let files = CallerFiles { ca: self.folder.pki().ca(), key: certificate.with_extension("key"), certificate };
        Ok(DemoClient { caller: GatewayClient::new(base, &files)?, token: token.to_owned() })
    }
}

/// The people of a demo that stays: their ids, as they sign in at the console, and their roles.
pub const PEOPLE: [(&str, &str); 4] =
    [("lan", "administrator"), ("minh", "approver"), ("kiem", "auditor"), ("van", "operator")];

impl DemoClient {
    /// Makes one call; an empty token, purpose or official is not sent.
    pub async fn call(
        &self,
        path: &str,
        purpose: &str,
        official: &str,
        requests: Vec<Bytes>,
    ) -> Result<CompleteResponse, CliError> {
        let bearer = format!("Bearer {}", self.token);
        let mut metadata: Vec<(&str, &str)> = Vec::new();
        if !self.token.is_empty() {
            metadata.push(("authorization", &bearer));
        }
        for (name, value) in [("ndxp-purpose", purpose), ("ndxp-official", official)] {
            if !value.is_empty() {
                metadata.push((name, value));
            }
        }
        Ok(self.caller.call(path, &metadata, requests).await?)
    }
}
