//! One refusal of each kind that needs no fault of a source.

use super::participants::{DemoClient, Participants};
use super::{CATALOGUES, IN_FORCE_WITHIN, TourLine};
use crate::cli::CliError;
use crate::cli::call::encode;
use crate::contract::ContractSet;
use crate::sandbox::Province;
use crate::sandbox::samples::OFFICIAL;
use crate::status::Reason;
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const VERIFY: &str = "/ndxp.population.v1.PopulationService/VerifyCitizen";
const CITIZEN: &str = "/ndxp.population.v1.PopulationService/GetCitizen";
const ENTERPRISE: &str = "/ndxp.business.v1.BusinessService/GetEnterprise";

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a call may still be served before it is refused for this reason: what is in force from the beginning refuses the first one.
fn served_for(reason: Reason) -> Duration {
    match reason {
        // On a busy machine a second call may come a second later than the first, and a third is the one too many.
        Reason::TokenExpired | Reason::TokenRevoked | Reason::ClientSuspended | Reason::RateLimited => IN_FORCE_WITHIN,
        _ => Duration::ZERO,
    }
}

struct RefusalTrial<'t> {
    participants: &'t Participants<'t>,
    base: &'t str,
    contracts: &'t ContractSet,
    lines: Vec<TourLine>,
}

/// A request of the trial.
struct TrialRequest<'w> {
    title: &'w str,
    path: &'w str,
    purpose: &'w str,
    official: &'w str,
    request: Value,
}

impl<'w> TrialRequest<'w> {
    fn catalogues(title: &'w str) -> Self {
        TrialRequest { title, path: CATALOGUES, purpose: "", official: "", request: json!({}) }
    }
}

/// Tries everything; one line each.
pub async fn all(
    participants: &Participants<'_>,
    base: &str,
    contracts: &ContractSet,
    province: &Province,
) -> Result<Vec<TourLine>, CliError> {
    let mut tries = RefusalTrial { participants, base, contracts, lines: Vec::new() };
    tries.tokens().await?;
    tries.access(province).await?;
    tries.requests(province).await?;
    Ok(tries.lines)
}

impl RefusalTrial<'_> {
    /// A call that is refused as soon as what refuses it is in force: until then it is repeated while it is served.
    async fn with(
        &mut self,
        who: &str,
        actor: &DemoClient,
        what: TrialRequest<'_>,
        expected: Reason,
    ) -> Result<(), CliError> {
        let request = match self.contracts.operation(what.path) {
            Some(operation) => encode(&operation.request.message, &what.request).map_err(CliError::Failed)?,
            None => Bytes::new(),
        };
        let first = Instant::now();
        let (began, answered) = loop {
            let began = Instant::now();
            let answered = actor.call(what.path, what.purpose, what.official, vec![request.clone()]).await?;
            if !answered.reason().is_empty() || first.elapsed() >= served_for(expected) {
                break (began, answered);
            }
            tokio::time::sleep(PAUSE).await;
        };
        let reason = answered.reason();
        let logged = !answered.text(crate::server::LOG_INDEX).is_empty();
        self.lines.push(TourLine {
            source: who.to_owned(),
            operation: what.title.to_owned(),
            protocol: expected.as_str().to_owned(),
            result: format!("{:?} {reason}{}", answered.status.code(), if logged { "" } else { " (not logged)" }),
            elapsed: began.elapsed(),
            ok: reason == expected.as_str() && answered.status.code() == expected.code() && logged,
        });
        Ok(())
    }

    async fn token(&mut self, who: &str, token: &str, title: &str, expected: Reason) -> Result<(), CliError> {
        let actor = self.participants.actor_with(self.base, who, token)?;
        self.with(who, &actor, TrialRequest::catalogues(title), expected).await
    }

    async fn tokens(&mut self) -> Result<(), CliError> {
        let shop = "one-stop-shop";
        let second = Duration::from_secs(1);
        let good = self.participants.token(shop, second * 3_600, Duration::ZERO)?;
        let expired = self.participants.token(shop, second, Duration::ZERO)?;
        let early = self.participants.token(shop, second * 3_600, second * 3_600)?;
        let revoked = self.participants.token("left-alone", second * 3_600, Duration::ZERO)?;
        self.participants.revoke_newest("left-alone")?;
        let forged = {
            // Another signature of the right length.
            let (head, signature) = good.rsplit_once('.').unwrap_or((&good, ""));
            let first = if signature.starts_with('A') { 'B' } else { 'A' };
            format!("{head}.{first}{}", signature.get(1..).unwrap_or(""))
        };
        self.token("stranger", &good, "calls without being registered", Reason::ClientUnknown).await?;
        self.token(shop, "", "calls without a token", Reason::TokenMissing).await?;
        self.token(shop, "not-a-token", "sends something else as token", Reason::TokenMalformed).await?;
        self.token(shop, &forged, "forges a token", Reason::TokenInvalid).await?;
        self.token(shop, &early, "uses a token that begins in an hour", Reason::TokenNotYetValid).await?;
        self.token("registry-office", &good, "uses another system's token", Reason::TokenNotBound).await?;
        self.token(shop, &expired, "uses an expired token", Reason::TokenExpired).await?;
        self.token("left-alone", &revoked, "uses a revoked token", Reason::TokenRevoked).await?;
        let still_good = self.participants.actor(self.base, "left-alone")?;
        self.participants.suspend("left-alone")?;
        let what = TrialRequest::catalogues("calls while suspended");
        self.with("left-alone", &still_good, what, Reason::ClientSuspended).await
    }

    async fn access(&mut self, province: &Province) -> Result<(), CliError> {
        let office = self.participants.actor(self.base, "registry-office")?;
        let person = &province.people[0];
        let claim = json!({
            "citizenId": person.citizen_id, "fullName": person.full_name(), "birthDate": { "year": person.birth.0 },
        });
        let what =
            |title, path, purpose| TrialRequest { title, path, purpose, official: OFFICIAL, request: claim.clone() };
        let record = what("asks for a record, may only verify", CITIZEN, "1.001193");
        self.with("registry-office", &office, record, Reason::ScopeNotGranted).await?;
        let unsaid = what("does not say why", VERIFY, "");
        self.with("registry-office", &office, unsaid, Reason::PurposeRequired).await?;
        let other = what("asks for another procedure", VERIFY, "1.000894");
        self.with("registry-office", &office, other, Reason::PurposeNotGranted).await?;
        let nobody = TrialRequest { official: "", ..what("does not say who asks", VERIFY, "1.001193") };
        self.with("registry-office", &office, nobody, Reason::OfficialRequired).await?;
        for (who, title, reason) in [
            ("slow-lane", "calls twice in a second, may once", Reason::RateLimited),
            ("small-quota", "calls twice a day, may once", Reason::QuotaExceeded),
        ] {
            let actor = self.participants.actor(self.base, who)?;
            actor.call(CATALOGUES, "", "", vec![Bytes::new()]).await?;
            self.with(who, &actor, TrialRequest::catalogues(title), reason).await?;
        }
        Ok(())
    }

    async fn requests(&mut self, province: &Province) -> Result<(), CliError> {
        let shop = self.participants.actor(self.base, "one-stop-shop")?;
        let wrong =
            json!({ "citizenId": "12345", "fullName": "R2D2", "birthDate": { "year": 2024, "month": 2, "day": 30 } });
        let (purpose, official) = ("1.004222", OFFICIAL);
        let what = TrialRequest { title: "sends three wrong fields", path: CITIZEN, purpose, official, request: wrong };
        self.with("one-stop-shop", &shop, what, Reason::FieldInvalid).await?;
        let path = "/ndxp.population.v1.PopulationService/DeleteCitizen";
        let what = TrialRequest { title: "calls what no contract has", path, purpose, official, request: json!({}) };
        self.with("one-stop-shop", &shop, what, Reason::OperationUnknown).await?;
        // A valid code that does not exist.
        let code = (0..99)
            .map(|serial| format!("57999{serial:04}"))
            .find_map(|head| Some(format!("{head}{}", crate::contract::formats::tax_check_digit(&head)?)))
            .filter(|code| province.enterprises.iter().all(|one| one.code != *code));
        let request = json!({ "enterpriseCode": code });
        let what =
            TrialRequest { title: "asks for an enterprise that is not", path: ENTERPRISE, purpose, official, request };
        self.with("one-stop-shop", &shop, what, Reason::RecordNotFound).await
    }
}
