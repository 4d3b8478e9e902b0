//! What people remember of the tour: a receipt that its owner checks alone, an altered byte that is named, a revocation that is timed, and
//! the sheet for a citizen.

use super::participants::Participants;
use super::{CATALOGUES, IN_FORCE_WITHIN, TourLine};
use crate::audit::service::api::{GetReceiptRequest, GetReceiptResponse, get_receipt_request::Of};
use crate::cli::CliError;
use crate::cli::audit::{SheetCatalogue, SubjectArgs, subject_document};
use crate::cli::session::Session;
use crate::config::Config;
use crate::exchange_log::checkpoint::LogVerifier;
use crate::exchange_log::receipt::Receipt;
use crate::exchange_log::verify::{Against, LogFolder, verify};
use crate::keyfile::NewFile;
use crate::status::Reason;
use bytes::Bytes;
use prost::Message;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const RECEIPT: &str = "/ndxp.audit.v1.AuditService/GetReceipt";
/// How long the log may take to seal an entry.
const SEALED_WITHIN: Duration = Duration::from_secs(10);
const ALTERS: [&str; 3] = ["somebody", "alters a byte of a copy of the log", "named"];
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(5);

/// A line: who, what they do, and what is to come of it.
fn line([who, does, expected]: [&str; 3], result: String, began: Instant, ok: bool) -> TourLine {
    let [source, operation, protocol] = [who, does, expected].map(str::to_owned);
    TourLine { source, operation, protocol, result, elapsed: began.elapsed(), ok }
}

/// A system fetches the receipt of a call of its own, and checks it with the log's key alone.
pub async fn receipt(participants: &Participants<'_>, base: &str, key: &LogVerifier) -> Result<TourLine, CliError> {
    let shop = participants.actor(base, "one-stop-shop")?;
    let exchange = shop.call(CATALOGUES, "", "", vec![Bytes::new()]).await?.text(crate::server::EXCHANGE_ID).to_owned();
    let request: Bytes = GetReceiptRequest { of: Some(Of::ExchangeId(exchange.clone())) }.encode_to_vec().into();
    let began = Instant::now();
    let text = loop {
        let got = shop.call(RECEIPT, "", "", vec![request.clone()]).await?;
        match got.messages.first().map(|message| GetReceiptResponse::decode(message.clone())) {
            Some(Ok(got)) => break got.receipt,
            _ if began.elapsed() > SEALED_WITHIN => break String::new(),
            _ => tokio::time::sleep(PAUSE).await,
        }
    };
    let checked = Receipt::parse(&text).and_then(|receipt| receipt.verify(key));
    let (ok, result) = match checked {
        Ok((entry, under)) => (
            entry.id_text() == exchange,
            format!("entry under a checkpoint of {} entries, signature and path verified", under.size),
        ),
        Err(error) => (false, error.to_string()),
    };
    Ok(line(["one-stop-shop", "checks its receipt, offline", "verified"], result, began, ok))
}

/// A token is revoked while it is in use.
pub async fn revocation(participants: &Participants<'_>, base: &str) -> Result<TourLine, CliError> {
    let token = participants.token("one-stop-shop", Duration::from_secs(60), Duration::ZERO)?;
    let caller = participants.actor_with(base, "one-stop-shop", &token)?;
    let before = caller.call(CATALOGUES, "", "", vec![Bytes::new()]).await?;
    participants.revoke_newest("one-stop-shop")?;
    let began = Instant::now();
    loop {
        let reason = caller.call(CATALOGUES, "", "", vec![Bytes::new()]).await?.reason();
        let took = began.elapsed();
        if reason == Reason::TokenRevoked.as_str() || took > IN_FORCE_WITHIN {
            let ok = before.reason().is_empty() && took <= IN_FORCE_WITHIN;
            let result = format!("{reason} {} ms after the revocation", took.as_millis());
            return Ok(line(["one-stop-shop", "calls on with a revoked token", "TOKEN_REVOKED"], result, began, ok));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Somebody alters one byte in a copy of the log.
pub fn altered_byte(config: &Config, key: &LogVerifier) -> Result<TourLine, CliError> {
    let began = Instant::now();
    let copy = tempfile::Builder::new().prefix("ndxp-altered-").tempdir()?;
    copied(&config.data.join("log"), copy.path())?;
    let bundles = files(&copy.path().join("tile/entries"))?;
    let Some(bundle) = bundles.first() else {
        return Ok(line(ALTERS, "nothing is sealed yet".into(), began, false));
    };
    let mut bytes = std::fs::read(bundle)?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    std::fs::write(bundle, bytes)?;
    let found = verify(&LogFolder::with(copy.path(), None), key, Against::default(), |_, _| {});
    let (ok, result) = match found {
        Ok(_) => (false, "not noticed".to_owned()),
        Err(error) => (true, error.to_string().replace(&format!("{}/", copy.path().display()), "")),
    };
    Ok(line(ALTERS, result, began, ok))
}

/// An auditor writes the sheet that a citizen gets who asks who has looked them up.
pub fn sheet(config: &Config, folder: &Path, citizen: &str) -> Result<TourLine, CliError> {
    let began = Instant::now();
    let file = folder.join("citizen-sheet.pdf");
    let args = SubjectArgs {
        ids: vec![citizen.to_owned()],
        case: "1/DEMO".to_owned(),
        sheet: Some(file.clone()),
        ..SubjectArgs::default()
    };
    let catalogue = config.catalogue()?;
    let words = || Ok(SheetCatalogue { contracts: catalogue.contracts, names: (*catalogue.names).clone() });
    let session = Session::audit_of(&config.data, &config.vault)?;
    let (entries, document) = subject_document(&session, args, words)?;
    NewFile::write(&file, &document, true)?;
    let result = format!("{entries} exchanges about {citizen}, {} kB in {}", document.len() / 1_000, file.display());
    Ok(line(["an auditor", "writes a citizen's sheet", "a PDF"], result, began, entries > 0))
}

/// Copies a folder with everything in it.
fn copied(from: &Path, to: &Path) -> std::io::Result<()> {
    for file in files(from)? {
        let Ok(name) = file.strip_prefix(from) else { continue };
        let copy = to.join(name);
        copy.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::copy(&file, copy)?;
    }
    Ok(())
}

/// The files below a folder, in order of their names.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    found.sort();
    Ok(found)
}
