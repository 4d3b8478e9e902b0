//! Certificates that must not pass: each is refused at the handshake, or at the call if the certificate itself is in order, and logged.

use crate::support::ca::{Ca, ca_params, publish};
use crate::support::{Actor, SECOND, STALL, Stage, UNIT, files, until};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

const DAY: Duration = Duration::from_secs(86_400);

/// A client's certificate that is valid except for `change`; `above` follows it in the chain.
fn made(stage: &Stage, name: &str, by: &Ca, above: &str, change: impl FnOnce(&mut CertificateParams)) {
    by.client_with(&stage.folder, name, 7, above, change);
}

async fn handshake_fails(stage: &Stage, token: &str, name: &str) {
    let failed = |stage: &Stage| stage.entries().iter().filter(|one| one.entry.reason == "HANDSHAKE_FAILED").count();
    let before = failed(stage);
    let actor = stage.with_token(name, token);
    let message = actor.encode(UNIT, &json!({ "unitCode": "1057000" }));
    assert!(actor.raw(UNIT, &[], vec![message]).await.is_err(), "{name} passes");
    until(name, || failed(stage) > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_certificates_are_refused_at_the_handshake_and_logged() {
    let stage = Stage::start();
    let actor = stage.system("clerk");
    let own = Ca::of_folder(&stage.folder);
    // The test's issuer works: a valid certificate connects, and differs from the one that the token is bound to.
    made(&stage, "in-order", &own, "", |_| {});
    let told = stage.with_token("in-order", &actor.token).call(UNIT, json!({ "unitCode": "1057000" })).await;
    assert_eq!(told.reason(), "TOKEN_NOT_BOUND_TO_CERTIFICATE");

    made(&stage, "expired", &own, "", |params| {
        params.not_before = (SystemTime::now() - DAY).into();
        params.not_after = (SystemTime::now() - DAY / 2).into();
    });
    made(&stage, "not-yet-valid", &own, "", |params| {
        params.not_before = (SystemTime::now() + DAY / 2).into();
        params.not_after = (SystemTime::now() + DAY).into();
    });
    made(&stage, "a-server", &own, "", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let stranger = Ca::root("NDXP gateway development CA");
    made(&stage, "of-another-ca", &stranger, "", |_| {});
    // The CA allows no CA below it (path length 0).
    let middle = own.below("in the middle", 8);
    made(&stage, "chain-too-long", &middle, &middle.pem, |_| {});
    // A client that signs as if it were a CA.
    let clerk = KeyPair::from_pem(&std::fs::read_to_string(files(&stage.folder, "clerk").key).unwrap()).unwrap();
    let chain = std::fs::read_to_string(files(&stage.folder, "clerk").certificate).unwrap();
    let as_clerk = Ca { issuer: Issuer::new(ca_params("clerk"), clerk), pem: chain };
    made(&stage, "of-a-client", &as_clerk, &as_clerk.pem, |_| {});
    for name in ["expired", "not-yet-valid", "a-server", "of-another-ca", "chain-too-long", "of-a-client"] {
        handshake_fails(&stage, &actor.token, name).await;
    }
    stage.client("lost-laptop");
    stage.folder.pki().revoke(&files(&stage.folder, "lost-laptop").certificate).unwrap();
    stage.gateway.as_ref().unwrap().reload().unwrap();
    handshake_fails(&stage, &actor.token, "lost-laptop").await;
    actor.call(UNIT, json!({ "unitCode": "1057000" })).await.ok();
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unregistered_certificate_is_refused_at_the_call_and_logged() {
    let stage = Stage::start();
    let actor = stage.system("clerk");
    for (name, san) in [
        ("nobody", SanType::URI("spiffe://ndxp.quangninh.gov.vn/client/nobody".try_into().unwrap())),
        ("other-domain", SanType::URI("spiffe://elsewhere/client/clerk".try_into().unwrap())),
        ("as-dns", SanType::DnsName("clerk".try_into().unwrap())),
    ] {
        made(&stage, name, &Ca::of_folder(&stage.folder), "", |params| params.subject_alt_names = vec![san]);
        let told = stage.with_token(name, &actor.token).call(UNIT, json!({ "unitCode": "1057000" })).await;
        assert_eq!(told.reason(), "CLIENT_UNKNOWN", "{name}");
        assert_eq!(stage.entry(&told.exchange()).entry.reason, "CLIENT_UNKNOWN");
    }
    made(&stage, "nameless", &Ca::of_folder(&stage.folder), "", |params| params.subject_alt_names = vec![]);
    let nameless: Actor = stage.with_token("nameless", &actor.token);
    assert_eq!(nameless.call(UNIT, json!({ "unitCode": "1057000" })).await.reason(), "CLIENT_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_revocation_list_is_applied_within_a_second_and_a_bad_one_is_rejected() {
    let slot = Arc::new(Mutex::new(Vec::new()));
    let (url, asked) = publish(slot.clone()).await;
    let stage = Stage::prepared(&|folder| {
        crate::support::edit(&folder.gateway_config(), |text| {
            text.replace("crl = \"pki/ca.crl\"", &format!("crl_url = \"{url}\""))
        });
        *slot.lock().unwrap() = std::fs::read(folder.pki().crl()).unwrap();
    });
    let (actor, other) = (stage.system("clerk"), stage.system("other"));
    let ask = json!({ "unitCode": "1057000" });
    actor.call(UNIT, ask.clone()).await.ok();
    // A list signed by another CA, garbage, nothing: the current list stays.
    let stranger = ndxp_gateway::pki::Pki::at(&stage.folder.path.join("stranger"));
    std::fs::create_dir_all(stage.folder.path.join("stranger")).unwrap();
    stranger.init().unwrap();
    let foreign = std::fs::read(stranger.crl()).unwrap();
    for bad in [foreign, b"garbage".to_vec(), vec![0x30; 100], Vec::new()] {
        let before = asked.load(Ordering::Relaxed);
        *slot.lock().unwrap() = bad;
        until("asked again", || asked.load(Ordering::Relaxed) > before + 1);
        actor.call(UNIT, ask.clone()).await.ok();
    }
    stage.folder.pki().revoke(&files(&stage.folder, "clerk").certificate).unwrap();
    *slot.lock().unwrap() = std::fs::read(stage.folder.pki().crl()).unwrap();
    let published = Instant::now();
    while actor.raw(UNIT, &[], vec![actor.encode(UNIT, &ask)]).await.is_ok() {
        assert!(published.elapsed() < SECOND + STALL, "the revoked one is still let in");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    other.call(UNIT, ask).await.ok();
}
