//! The next epoch, after etcd was restored as a whole: one person requests it, another one approves it. Each signs with the
//! key of their own certificate, so that etcd, which holds the request in between, cannot make one up.
//!
//! | key in etcd | value |
//! | --- | --- |
//! | `epoch/request` | the last request |
//! | `epoch/begun/<epoch>` | what was approved, with both signatures |
//!
//! Both are given in the data folder of a gateway that is stopped: of one that stores most, and whose replica of the registry
//! is the newest. What the epoch begins from is in the request, and is found again by who approves.

use super::files::MigratingFiles;
use super::{MigratingGateway, MigrationError};
use crate::cluster::epoch::{self, EpochBasis};
use crate::cluster::keys;
use crate::cluster::member::{RangeRead, Txn, TxnOperation};
use crate::cluster::own_disk::Publication;
use crate::cluster::site::SiteTiles;
use crate::cluster::state::SealedState;
use crate::cluster::{ClusterError, version};
use crate::cluster_log::site_files::SiteFiles;
use crate::hex::{hex, unhex};
use crate::identity::Certificate;
use crate::identity::tls::{TlsAcceptors, certificates, private_key, provider};
use crate::registry::{NameOwner, Role, Snapshot, Staff, now};
use aws_lc_rs::digest::{SHA256, digest};
use rustls::SignatureScheme;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::path::Path;
use webpki::EndEntityCert;

/// The last request.
const REQUEST: &[u8] = b"epoch/request";
/// Maximum characters of a reason: those of a justification.
const MAX_REASON: usize = 500;
/// How long a request can be approved.
const VALID_S: i64 = 24 * 3_600;
/// What is signed begins with this, so that it is nothing else that is signed with these keys.
const REQUESTED: &[u8] = b"ndxp: begin the next epoch, requested\n";
/// See [`REQUESTED`].
const APPROVED: &[u8] = b"ndxp: begin the next epoch, approved\n";
/// Those of the certificates that clients and staff have.
const SCHEMES: [SignatureScheme; 6] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

/// What an epoch begins from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochPlan {
    /// The log's id.
    pub log: String,
    /// The epoch.
    pub epoch: u64,
    /// Entries that this site stores.
    pub size: u64,
    /// Their root.
    pub root: String,
    /// The last change of the registry that this replica has.
    pub change: u64,
    /// Whose data folder this is.
    pub gateway: String,
    /// Why etcd was restored.
    pub reason: String,
    /// When it was requested, in Unix seconds.
    pub time: i64,
}

/// A plan, as it was signed.
#[derive(Serialize, Deserialize)]
struct EpochRequest {
    plan: String,
    requested: PersonalSignature,
}

/// What was approved.
#[derive(Serialize, Deserialize)]
struct EpochRecord {
    plan: String,
    requested: PersonalSignature,
    approved: PersonalSignature,
    requested_by: String,
    approved_by: String,
    reason: String,
}

/// A signature by the key of a certificate.
#[derive(Serialize, Deserialize)]
struct PersonalSignature {
    /// The certificate with its chain, each in hexadecimal.
    chain: Vec<String>,
    signature: String,
}

/// How a person is known.
pub struct StaffKey<'k> {
    /// Their certificate, with its chain (PEM).
    pub certificate: &'k Path,
    /// Its key (PEM).
    pub key: &'k Path,
    /// Who certificates are trusted from.
    pub trust: &'k TlsAcceptors,
}

impl MigratingGateway<'_> {
    /// Requests the next epoch, as an administrator; returns what it would begin from, and who has requested it.
    ///
    /// # Errors
    /// [`MigrationError::Refused`] if the person may not, or the reason is missing or too long; as for [`SiteFiles::open`] and
    /// [`epoch::begin`].
    pub async fn request_epoch(
        &self,
        person: &StaffKey<'_>,
        reason: &str,
    ) -> Result<(EpochPlan, String), MigrationError> {
        if reason.trim().is_empty() || reason.chars().count() > MAX_REASON {
            return Err(refused(format!("give a reason (--why), of {MAX_REASON} characters at most")));
        }
        let (plan, _, _) = self.plan_epoch(reason, now()).await?;
        let text = serde_json::to_string(&plan).map_err(|error| refused(error.to_string()))?;
        let requested = sign(person, &[REQUESTED, text.as_bytes()].concat())?;
        let staff = self.signer_of(person, &requested, &[REQUESTED, text.as_bytes()].concat(), Role::Administrator)?;
        let request = EpochRequest { plan: text, requested };
        let value = serde_json::to_vec(&request).map_err(|error| refused(error.to_string()))?;
        let then = vec![TxnOperation::Put(REQUEST.to_vec(), value, 0)];
        self.members.settle(&Txn { then, ..Txn::default() }).await?;
        Ok((plan, staff.id))
    }

    /// Approves the request, as an approver, and begins the epoch; returns what it has begun from, and both people.
    ///
    /// # Errors
    /// [`MigrationError::Refused`] if nothing was requested, the person may not or has requested it, or what is found here is
    /// not what was requested; as for [`epoch::begin`].
    pub async fn approve_epoch(&self, person: &StaffKey<'_>) -> Result<(EpochPlan, [String; 2]), MigrationError> {
        let there = self.members.range(&RangeRead::key(REQUEST)).await?.entries.into_iter().next();
        let there = there.ok_or_else(|| refused("no epoch was requested: cluster epoch --request".into()))?;
        let malformed = |_| refused("the request in etcd is not one: request it again".into());
        let request: EpochRequest = serde_json::from_slice(&there.value).map_err(malformed)?;
        let plan: EpochPlan = serde_json::from_str(&request.plan).map_err(malformed)?;
        if !(0..VALID_S).contains(&now().saturating_sub(plan.time)) {
            return Err(refused("the request is older than a day: request it again".into()));
        }
        let signed = [REQUESTED, request.plan.as_bytes()].concat();
        let requester = self.signer_of(person, &request.requested, &signed, Role::Administrator)?;
        let (found, basis, files) = self.plan_epoch(&plan.reason, plan.time).await?;
        if found != plan {
            return Err(refused(format!(
                "epoch {} of {} entries was requested at {}, here it would be epoch {} of {}",
                plan.epoch, plan.size, plan.gateway, found.epoch, found.size
            )));
        }
        let signed = [APPROVED, request.plan.as_bytes(), request.requested.signature.as_bytes()].concat();
        let approved = sign(person, &signed)?;
        let approver = self.signer_of(person, &approved, &signed, Role::Approver)?;
        if approver.id == requester.id {
            return Err(refused(format!("{} has requested it: another person approves", approver.id)));
        }
        // Before the epoch is begun: gateways that enter it read it. Without the epoch nobody does.
        let (requested_by, approved_by) = (format!("staff:{}", requester.id), format!("staff:{}", approver.id));
        let EpochRequest { plan: text, requested } = request;
        // The same at each repetition.
        let number =
            digest(&SHA256, text.as_bytes()).as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        let reason = plan.reason.clone();
        let record = EpochRecord { plan: text, requested, approved, requested_by, approved_by, reason };
        let value = serde_json::to_vec(&record).map_err(|error| refused(error.to_string()))?;
        let then = vec![TxnOperation::Put(keys::epoch_record(plan.epoch), value, 0)];
        self.members.settle(&Txn { then, ..Txn::default() }).await?;
        // What came after the copy is lost there, keys included.
        (self.share_keys)().map_err(MigrationError::Keys)?;
        self.put_registry((number, plan.change + 1), plan.time, &mut |_| ()).await?;
        epoch::begin(&self.members, &basis).await?;
        drop(files);
        Ok((plan, [requester.id, approver.id]))
    }

    /// Finds out what the next epoch would begin from, here.
    async fn plan_epoch(
        &self,
        reason: &str,
        time: i64,
    ) -> Result<(EpochPlan, EpochBasis, MigratingFiles), MigrationError> {
        version::check(&self.members).await?;
        let files = MigratingFiles::lock(self.data)?;
        if !files.is_site()? {
            return Err(refused("this data folder is not a site of a cluster".into()));
        }
        let tiles = SiteFiles::open(&files.paths, (self.signer)()?, self.others.clone())?;
        let stored = tiles.stored().await?;
        let cosigned = tiles.last_cosigned().await?;
        let root_at_cosigned = match cosigned {
            Some((size, _)) => tiles.root_at(size).await?,
            None => None,
        };
        let basis = EpochBasis { stored: stored.clone(), cosigned, root_at_cosigned };
        let restored = match self.confirmed().await {
            Ok(restored) => restored.state,
            Err(ClusterError::NoLog) => SealedState::default(),
            Err(error) => return Err(error.into()),
        };
        let change = self.store.replica_state()?.map_or(0, |(number, _)| number);
        let plan = EpochPlan {
            log: hex(&stored.log),
            epoch: restored.epoch.max(stored.epoch) + 1,
            size: stored.size(),
            root: hex(&stored.root()),
            change,
            gateway: self.gateway.to_string(),
            reason: reason.to_owned(),
            time,
        };
        Ok((plan, basis, files))
    }

    /// The person who has signed this, if they may: their certificate is trusted now, and is staff's with this role.
    fn signer_of(
        &self,
        person: &StaffKey<'_>,
        by: &PersonalSignature,
        message: &[u8],
        role: Role,
    ) -> Result<Staff, MigrationError> {
        let chain = by.chain.iter().map(|one| unhex(one).map(CertificateDer::from)).collect::<Option<Vec<_>>>();
        let chain = chain.ok_or_else(|| refused("a certificate of the request is not one".into()))?;
        let signature = unhex(&by.signature).unwrap_or_default();
        if !is_signed(&chain, message, &signature) {
            return Err(refused("the signature is not by the certificate beside it".into()));
        }
        person
            .trust
            .still_admits(&chain)
            .map_err(|refusal| refused(format!("the certificate is refused: {:?}", refusal.cause)))?;
        let names = Certificate::of(&chain).map(|certificate| certificate.names).unwrap_or_default();
        match Snapshot::read(self.store)?.owner_of(&names) {
            NameOwner::Staff(staff) if staff.roles.contains(&role) => Ok(Staff::clone(staff)),
            NameOwner::Staff(staff) => Err(refused(format!("{} is not {role:?}", staff.id))),
            _ => Err(refused("the certificate is not that of a member of staff".into())),
        }
    }
}

fn refused(what: String) -> MigrationError {
    MigrationError::Refused(what)
}

fn sign(person: &StaffKey<'_>, message: &[u8]) -> Result<PersonalSignature, MigrationError> {
    let fail = |error: String| refused(format!("{}: {error}", person.key.display()));
    let chain = certificates(person.certificate).map_err(|error| refused(error.to_string()))?;
    let key = private_key(person.key).map_err(|error| refused(error.to_string()))?;
    let key = provider().key_provider.load_private_key(key).map_err(|error| fail(error.to_string()))?;
    let signer = key.choose_scheme(&SCHEMES).ok_or_else(|| fail("is of a kind that signs nothing here".into()))?;
    let signature = signer.sign(message).map_err(|error| fail(error.to_string()))?;
    Ok(PersonalSignature { chain: chain.iter().map(|one| hex(one)).collect(), signature: hex(&signature) })
}

fn is_signed(chain: &[CertificateDer<'_>], message: &[u8], signature: &[u8]) -> bool {
    let Some(certificate) = chain.first().and_then(|first| EndEntityCert::try_from(first).ok()) else { return false };
    let algorithms = provider().signature_verification_algorithms.mapping;
    let mut of_schemes =
        algorithms.iter().filter(|(scheme, _)| SCHEMES.contains(scheme)).flat_map(|(_, all)| all.iter());
    of_schemes.any(|algorithm| certificate.verify_signature(*algorithm, message, signature).is_ok())
}
