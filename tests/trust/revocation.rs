//! Revocation lists: which clients are admitted when a list is missing, garbled, old, foreign or partial, and when a CA gets a new key.
//! Rows T1 and T5 of the findings.

use crate::support::ca::{Ca, HOUR, check, clients, crl, lay_cas, over, publish, ready, unready};
use crate::support::{LIMIT, Stage, UNIT, edit, ops_text, until};
use ndxp_gateway::audit::logged_files;
use ndxp_gateway::caller::CallerFiles;
use ndxp_gateway::config::Config;
use ndxp_gateway::sandbox::folder::DevFolder;
use ndxp_gateway::server::Gateway;
use rcgen::{CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

fn stage(cas: &[&Ca], lists: &str) -> Stage {
    Stage::prepared(&|folder| lay_cas(folder, cas, lists))
}

/// Whether a client's handshake passes: then it is refused for want of a token.
async fn passes(stage: &Stage, files: &CallerFiles) -> bool {
    let name = files.certificate.file_stem().unwrap().to_str().unwrap();
    let actor = stage.with_token(name, "");
    let message = actor.encode(UNIT, &json!({ "unitCode": "1057000" }));
    match actor.raw(UNIT, &[], vec![message]).await {
        Ok(told) => {
            assert_eq!(told.code(), tonic::Code::Unauthenticated);
            true
        }
        Err(_) => false,
    }
}

/// Waits until a client's handshake passes, or does not.
async fn becomes(stage: &Stage, files: &CallerFiles, passing: bool) {
    let end = tokio::time::Instant::now() + LIMIT;
    while passes(stage, files).await != passing {
        assert!(tokio::time::Instant::now() < end, "{}: passes is not {passing}", files.certificate.display());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn starts(folder: &DevFolder) -> Result<Gateway, String> {
    let config = Config::load(&folder.gateway_config()).map_err(crate::support::show)?;
    Gateway::start(config).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_unreadable_lists_keep_the_previous_ones_and_are_reported() {
    let stage = Stage::start();
    stage.client("clerk");
    stage.client("lost");
    let [clerk, lost] = ["clerk", "lost"].map(|name| crate::support::files(&stage.folder, name));
    let before = std::fs::read_to_string(crl(&stage.folder)).unwrap();
    stage.folder.pki().revoke(&lost.certificate).unwrap();
    becomes(&stage, &lost, false).await;
    let good = std::fs::read_to_string(crl(&stage.folder)).unwrap();
    let cut = &good[..good.len() / 2];
    let mistyped = good.replace("-----BEGIN X509 CRL-----", "----BEGIN X509 CRL-----");
    let nothing = "";
    let page = "<html>404 Not Found</html>";
    let bad: [(&str, &str); 6] = [
        (nothing, "no revocation list"),
        (page, "no revocation list"),
        (cut, "no whole revocation list"),
        (&mistyped, "BEGIN or END"),
        (&before, "older than the one in force"),
        (&good.replace("MII", "MIJ"), "list 1"),
    ];
    for (text, reason) in bad.iter().filter(|(text, _)| *text != good) {
        std::fs::write(crl(&stage.folder), text).unwrap();
        unready(&stage, reason);
        assert!(ops_text(&stage, "/readyz").contains("ca.crl"), "{}", ops_text(&stage, "/readyz"));
        assert!(ops_text(&stage, "/metrics").contains("ndxp_faults{part=\"tls_files\"} 1"));
        assert!(stage.gateway.as_ref().unwrap().reload().is_err());
        assert!(!passes(&stage, &lost).await, "the revoked one is let in: {reason}");
        assert!(passes(&stage, &clerk).await, "{reason}");
    }
    std::fs::remove_file(crl(&stage.folder)).unwrap();
    unready(&stage, "cannot be read");
    assert!(!passes(&stage, &lost).await);
    std::fs::write(crl(&stage.folder), good).unwrap();
    ready(&stage);
    assert!(ops_text(&stage, "/metrics").contains("ndxp_faults{part=\"tls_files\"} 0"));
    assert!(!passes(&stage, &lost).await);
    assert!(passes(&stage, &clerk).await);
    stage.verify();
}

#[test]
fn t1_without_a_list_for_each_ca_the_start_fails_and_check_reports_it() {
    let (one, other, stranger) = (Ca::root("one"), Ca::root("other"), Ca::root("stranger"));
    let both = format!("{}{}", one.list(1, &[]), other.list(1, &[]));
    let (_dir, folder) = crate::support::lay(&|folder| lay_cas(folder, &[&one, &other], &both));
    assert_eq!(check(&folder).0, 0, "{}", check(&folder).1);
    for (text, reason) in [
        (String::new(), "no revocation list"),
        ("garbage".into(), "no revocation list"),
        (one.list(1, &[]), "CN=other"),
        (stranger.list(1, &[]), "CN=one"),
        // Named as the other, and signed by another key.
        (one.list(1, &[]) + &Ca::root("other").list(1, &[]), "CN=other"),
        (both.clone() + "-----BEGIN X509 CRL-----\nMII", "no whole revocation list"),
    ] {
        std::fs::write(crl(&folder), text).unwrap();
        let (code, told) = check(&folder);
        assert!(code == 2 && told.contains(reason) && told.contains("ca.crl"), "{reason}: {code} {told}");
        let told = starts(&folder).err().expect(reason);
        assert!(told.contains(reason), "{told}");
    }
    std::fs::remove_file(crl(&folder)).unwrap();
    assert_eq!(check(&folder).0, 2);
    assert!(starts(&folder).is_err());
    std::fs::write(crl(&folder), both).unwrap();
    starts(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_revocation_checks_are_disabled_only_explicitly() {
    let ca = Ca::root("one");
    let (_dir, folder) = crate::support::lay(&|folder| lay_cas(folder, &[&ca], &ca.list(1, &[7])));
    let set = |text: &str| edit(&folder.gateway_config(), |all| all.replace("crl = \"pki/ca.crl\"", text));
    set("");
    let told = starts(&folder).err().unwrap();
    assert!(told.contains("tls.crl: is missing") && told.contains("revocation = \"none\""), "{told}");
    assert_eq!(check(&folder).0, 2);
    for (text, reason) in [
        ("revocation = \"off\"", "must be \"none\""),
        ("revocation = \"none\"\ncrl = \"pki/ca.crl\"", "exclude each other"),
        ("revocation = \"none\"\ncrl_url = \"http://127.0.0.1:1/ca.crl\"", "exclude each other"),
        ("crl = []", "tls.crl: is missing"),
    ] {
        let (_dir, folder) = crate::support::lay(&|folder| {
            edit(&folder.gateway_config(), |all| all.replace("crl = \"pki/ca.crl\"", text));
        });
        let told = starts(&folder).err().unwrap();
        assert!(told.contains(reason), "{text}: {told}");
    }
    let stage = Stage::prepared(&|folder| {
        lay_cas(folder, &[&ca], "");
        edit(&folder.gateway_config(), |all| all.replace("crl = \"pki/ca.crl\"", "revocation = \"none\""));
    });
    assert!(passes(&stage, &ca.client(&stage.folder, "seven", 7, "")).await);
    ready(&stage);
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_text_between_lists_is_ignored_and_a_ca_without_a_list_admits_nobody() {
    let (one, other) = (Ca::root("one"), Ca::root("other"));
    let lists = format!(
        "Lists of the province\n\n{}\nand of others:\r\n{}\ngood-bye\n",
        one.list(3, &[7]),
        other.list(9, &[8])
    );
    let stage = stage(&[&one, &other], &lists);
    for (ca, name, serial, passing) in
        [(&one, "a", 7, false), (&one, "b", 8, true), (&other, "c", 7, true), (&other, "d", 8, false)]
    {
        let files = ca.client(&stage.folder, name, serial, "");
        assert_eq!(passes(&stage, &files).await, passing, "{name}");
    }
    // A CA that is added without its list: what was loaded last stays, the new CA included.
    let third = Ca::root("third");
    let newcomer = third.client(&stage.folder, "e", 1, "");
    edit(&clients(&stage.folder), |text| text + &third.pem);
    unready(&stage, "CN=third");
    assert!(!passes(&stage, &newcomer).await);
    edit(&crl(&stage.folder), |text| text + &third.list(1, &[]));
    becomes(&stage, &newcomer, true).await;
    ready(&stage);
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_a_revocation_does_not_wait_for_the_rest_of_the_configuration_to_be_in_order() {
    let ca = Ca::root("one");
    let stage = stage(&[&ca], &ca.list(1, &[]));
    let (seven, eight) = (ca.client(&stage.folder, "seven", 7, ""), ca.client(&stage.folder, "eight", 8, ""));
    assert!(passes(&stage, &seven).await && passes(&stage, &eight).await);
    std::fs::write(stage.folder.path.join("sources/land.toml"), "what = is this").unwrap();
    std::fs::write(crl(&stage.folder), ca.list(2, &[7])).unwrap();
    let told = stage.gateway.as_ref().unwrap().reload().unwrap_err().to_string();
    assert!(told.contains("land.toml"), "{told}");
    assert!(!passes(&stage, &seven).await && passes(&stage, &eight).await);
    ready(&stage);
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_the_newest_list_of_an_issuer_applies_in_any_order_and_any_file() {
    let ca = Ca::root("one");
    let (old, new) = (ca.list(255, &[]), ca.list(256, &[7]));
    for lists in [format!("{old}{new}"), format!("{new}{old}")] {
        let stage = stage(&[&ca], &lists);
        assert!(!passes(&stage, &ca.client(&stage.folder, "seven", 7, "")).await);
        assert!(passes(&stage, &ca.client(&stage.folder, "eight", 8, "")).await);
    }
    // In two files, one of them DER, and by time where the numbers are the same.
    let der = ca.list_made(256, &[8], |params| params.this_update = (SystemTime::now() - HOUR / 2).into());
    let stage = Stage::prepared(&|folder| {
        lay_cas(folder, &[&ca], &new);
        std::fs::write(folder.path.join("pki/second.crl"), der.der()).unwrap();
        edit(&folder.gateway_config(), |all| {
            all.replace("crl = \"pki/ca.crl\"", "crl = [\"pki/ca.crl\", \"pki/second.crl\"]")
        });
    });
    assert!(passes(&stage, &ca.client(&stage.folder, "seven", 7, "")).await);
    let eight = ca.client(&stage.folder, "eight", 8, "");
    assert!(!passes(&stage, &eight).await);
    // Each of the files is followed.
    std::fs::write(stage.folder.path.join("pki/second.crl"), ca.list(300, &[7, 9])).unwrap();
    becomes(&stage, &eight, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_a_ca_with_the_same_name_and_a_new_key_is_rolled_over() {
    let (old, new) = (Ca::root("the CA"), Ca::root("the CA"));
    // Each numbers its certificates from 1.
    let lists = [old.list(50, &[1]), new.list(2, &[2])];
    for (cas, lists) in [
        ([&old, &new], format!("{}{}", lists[0], lists[1])),
        ([&new, &old], format!("{}{}", lists[0], lists[1])),
        ([&old, &new], format!("{}{}", lists[1], lists[0])),
    ] {
        let stage = stage(&cas, &lists);
        for (ca, name, serial, passing) in
            [(&old, "a", 1, false), (&old, "b", 2, true), (&new, "c", 1, true), (&new, "d", 2, false)]
        {
            assert_eq!(passes(&stage, &ca.client(&stage.folder, name, serial, "")).await, passing, "{name}");
        }
    }
    // Step by step, without a restart: the new one comes, the old one goes.
    let stage = stage(&[&old], &lists[0]);
    let (before, after) = (old.client(&stage.folder, "b", 2, ""), new.client(&stage.folder, "c", 1, ""));
    assert!(passes(&stage, &before).await && !passes(&stage, &after).await);
    edit(&crl(&stage.folder), |text| text + &lists[1]);
    edit(&clients(&stage.folder), |text| text + &new.pem);
    becomes(&stage, &after, true).await;
    assert!(passes(&stage, &before).await);
    std::fs::write(clients(&stage.folder), &new.pem).unwrap();
    becomes(&stage, &before, false).await;
    assert!(passes(&stage, &after).await);
    ready(&stage);
    // Neither key's list is accepted for the other's.
    std::fs::write(crl(&stage.folder), &lists[0]).unwrap();
    unready(&stage, "CN=the CA");
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_every_certificate_of_a_path_is_checked_with_its_issuer_s_list() {
    let root = Ca::root("root");
    let issuing = root.below("issuing", 40);
    let revoked = root.below("revoked", 41);
    let unlisted = root.below("unlisted", 42);
    let lists = format!("{}{}{}", root.list(1, &[41]), issuing.list(1, &[7]), revoked.list(1, &[]));
    let stage = stage(&[&root], &lists);
    for (ca, name, serial, passing) in [
        (&issuing, "a", 7, false),
        (&issuing, "b", 8, true),
        (&revoked, "c", 8, false),
        (&unlisted, "d", 8, false),
        // The root revokes its own certificates, not those below.
        (&issuing, "e", 41, true),
    ] {
        let files = ca.client(&stage.folder, name, serial, &ca.pem);
        assert_eq!(passes(&stage, &files).await, passing, "{name}");
    }
    // With the issuing CA itself in client_ca, what is above it does not matter.
    std::fs::write(clients(&stage.folder), &issuing.pem).unwrap();
    let other = root.client(&stage.folder, "of-the-root", 8, "");
    becomes(&stage, &other, false).await;
    assert!(passes(&stage, &issuing.client(&stage.folder, "f", 8, "")).await);
    assert!(!passes(&stage, &issuing.client(&stage.folder, "g", 7, "")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_partial_and_outdated_lists_are_refused_with_a_reason() {
    let ca = Ca::root("one");
    let point = |scope| {
        let distribution_point = CrlDistributionPoint { uris: vec!["http://ca/one.crl".into()] };
        Some(CrlIssuingDistributionPoint { distribution_point, scope })
    };
    let stage = stage(&[&ca], &ca.list(1, &[7]));
    let seven = ca.client(&stage.folder, "seven", 7, "");
    let eight = ca.client(&stage.folder, "eight", 8, "");
    let part = |scope| ca.list_with(2, &[], |params| params.issuing_distribution_point = point(Some(scope)));
    for (list, reason) in [
        (part(CrlScope::UserCertsOnly), "onlyContainsUserCerts"),
        (part(CrlScope::CaCertsOnly), "onlyContainsCACerts"),
        (ca.list_with(2, &[], over), "out of date"),
        (ca.list_with(2, &[], |params| params.this_update = (SystemTime::now() + HOUR).into()), "from the future"),
        (ca.list(0, &[]), "older than the one in force"),
    ] {
        std::fs::write(crl(&stage.folder), list).unwrap();
        unready(&stage, reason);
        assert!(!passes(&stage, &seven).await && passes(&stage, &eight).await, "{reason}");
    }
    // A complete list with its distribution point is accepted if it undoes no revocation.
    let part = |number, revoked: &[u64]| {
        ca.list_with(number, revoked, |params| params.issuing_distribution_point = point(None))
    };
    std::fs::write(crl(&stage.folder), part(2, &[8])).unwrap();
    unready(&stage, "cover other certificates");
    assert!(!passes(&stage, &seven).await && passes(&stage, &eight).await);
    std::fs::write(crl(&stage.folder), part(3, &[7, 8])).unwrap();
    becomes(&stage, &eight, false).await;
    assert!(!passes(&stage, &seven).await);
    ready(&stage);
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_lists_of_intermediate_cas_are_neither_rolled_back_nor_removed() {
    let root = Ca::root("root");
    let (issuing, quiet) = (root.below("issuing", 40), root.below("quiet", 41));
    let lists = |root: &str, issuing: &str, quiet: &str| format!("{root}{issuing}{quiet}");
    let (of_root, good, of_quiet) = (root.list(1, &[]), issuing.list(5, &[7]), quiet.list(9, &[3]));
    let stage = stage(&[&root], &lists(&of_root, &good, &of_quiet));
    let [seven, eight] = [7, 8].map(|serial| issuing.client(&stage.folder, &serial.to_string(), serial, &issuing.pem));
    assert!(!passes(&stage, &seven).await && passes(&stage, &eight).await);
    let part = issuing.list_with(6, &[], |params| {
        let distribution_point = CrlDistributionPoint { uris: vec!["http://ca/part.crl".into()] };
        params.issuing_distribution_point = Some(CrlIssuingDistributionPoint { distribution_point, scope: None });
    });
    for (text, reason) in [
        (lists(&of_root, &issuing.list(4, &[]), &of_quiet), "CN=issuing (number 04) is older"),
        (lists(&of_root, &issuing.list_with(6, &[], over), &of_quiet), "CN=issuing (number 06) is out of date"),
        (lists(&of_root, &part, &of_quiet), "cover other certificates"),
        (lists(&of_root, "", &of_quiet), "clients use that CA"),
        // A newer one by another key with that name does not belong to it.
        (lists(&of_root, &root.below("issuing", 42).list(9, &[]), &of_quiet), "clients use that CA"),
        // No client has used this one yet.
        (lists(&of_root, &good, &quiet.list(8, &[])), "CN=quiet (number 08) is older"),
    ] {
        std::fs::write(crl(&stage.folder), text).unwrap();
        unready(&stage, reason);
        assert!(!passes(&stage, &seven).await && passes(&stage, &eight).await, "{reason}");
    }
    // A newer one is accepted, and an unused one may be removed.
    std::fs::write(crl(&stage.folder), lists(&of_root, &issuing.list(6, &[7, 8]), "")).unwrap();
    becomes(&stage, &eight, false).await;
    ready(&stage);
    // So may that of a removed CA.
    std::fs::write(crl(&stage.folder), root.list(2, &[40])).unwrap();
    ready(&stage);
    until("taken", || ops_text(&stage, "/metrics").contains("ndxp_faults{part=\"tls_files\"} 0"));
    assert!(stage.gateway.as_ref().unwrap().reload().is_ok());
    let nine = issuing.client(&stage.folder, "9", 9, &issuing.pem);
    assert!(!passes(&stage, &nine).await);
    assert_eq!(check(&stage.folder).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_a_start_with_rolled_back_or_removed_lists_is_reported() {
    let root = Ca::root("root");
    let issuing = root.below("issuing", 40);
    let mut stage = stage(&[&root], &format!("{}{}", root.list(5, &[]), issuing.list(5, &[7])));
    let record = stage.folder.path.join("data/state/revocation.json");
    let recorded = |name: &str| std::fs::read_to_string(&record).is_ok_and(|text| text.contains(name));
    until("the record", || recorded("CN=root"));
    assert!(!recorded("CN=issuing"));
    let eight = issuing.client(&stage.folder, "eight", 8, &issuing.pem);
    assert!(passes(&stage, &eight).await);
    until("the record of a CA that a client came under", || recorded("CN=issuing"));
    for (lists, reason) in [
        (format!("{}{}", root.list(4, &[]), issuing.list(5, &[7])), "CN=root (number 04) is older"),
        (format!("{}{}", root.list(5, &[]), issuing.list(4, &[])), "CN=issuing (number 04) is older"),
        (root.list(6, &[]), "CN=issuing is missing"),
        (format!("{}{}", root.list(6, &[]), issuing.list_with(6, &[7], over)), "CN=issuing is out of date"),
    ] {
        stage.gateway.take().unwrap().stop();
        std::fs::write(crl(&stage.folder), lists).unwrap();
        let (code, told) = check(&stage.folder);
        assert!(code == 2 && told.contains(reason), "{reason}: {code} {told}");
        stage.gateway = Some(starts(&stage.folder).unwrap());
        unready(&stage, reason);
    }
    std::fs::write(crl(&stage.folder), format!("{}{}", root.list(7, &[]), issuing.list(7, &[7]))).unwrap();
    ready(&stage);
    assert_eq!(check(&stage.folder).0, 0);
    // An intended rollback by its CA is accepted once it is confirmed.
    stage.gateway.take().unwrap().stop();
    std::fs::write(crl(&stage.folder), format!("{}{}", root.list(1, &[]), issuing.list(7, &[7]))).unwrap();
    stage.gateway = Some(starts(&stage.folder).unwrap());
    unready(&stage, "CN=root (number 01) is older");
    std::fs::remove_file(&record).unwrap();
    ready(&stage);
    until("a new record", || recorded("CN=root"));
    stage.gateway.take().unwrap().stop();
    std::fs::write(&record, "spoilt").unwrap();
    assert!(check(&stage.folder).1.contains("revocation.json: cannot be read"));
    stage.gateway = Some(starts(&stage.folder).unwrap());
    unready(&stage, "nobody knows whether revocation lists went back");
    // Nor is a record trusted whose state was lowered, so that an older list could return.
    std::fs::remove_file(&record).unwrap();
    ready(&stage);
    until("a new record", || recorded("CN=root"));
    stage.gateway.take().unwrap().stop();
    let own = std::fs::read_to_string(&record).unwrap();
    let lowered = own.replace("\"01\"", "\"00\"");
    assert_ne!(lowered, own);
    std::fs::write(&record, lowered).unwrap();
    assert!(check(&stage.folder).1.contains("revocation.json: cannot be read"), "{}", check(&stage.folder).1);
    stage.gateway = Some(starts(&stage.folder).unwrap());
    unready(&stage, "was not written with keys/acts.key");
    stage.gateway.take().unwrap().stop();
    std::fs::write(&record, own).unwrap();
    stage.gateway = Some(starts(&stage.folder).unwrap());
    ready(&stage);
}

#[test]
fn d_lists_that_no_ca_of_the_clients_signed_are_bounded_in_number() {
    let (root, other) = (Ca::root("root"), Ca::root("other"));
    let lists = |count| (0..count).map(|number| other.list(number, &[])).collect::<String>();
    let (_dir, folder) = crate::support::lay(&|folder| lay_cas(folder, &[&root], &(root.list(1, &[]) + &lists(256))));
    assert_eq!(check(&folder).0, 0, "{}", check(&folder).1);
    edit(&crl(&folder), |text| text + &other.list(999, &[]));
    let (code, told) = check(&folder);
    assert!(code == 2 && told.contains("more than 256 revocation lists"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_an_outdated_list_admits_nobody_of_its_ca_and_check_and_readiness_report_it() {
    let (late, good) = (Ca::root("late"), Ca::root("good"));
    let stage = stage(&[&late, &good], &format!("{}{}", late.list_with(1, &[], over), good.list(1, &[])));
    unready(&stage, "the revocation list of CN=late is out of date");
    assert!(ops_text(&stage, "/metrics").contains("ndxp_faults{part=\"tls\"} 1"));
    let (code, told) = check(&stage.folder);
    assert!(code == 2 && told.contains("CN=late is out of date"), "{code} {told}");
    let of_late = late.client(&stage.folder, "a", 1, "");
    assert!(!passes(&stage, &of_late).await);
    assert!(passes(&stage, &good.client(&stage.folder, "b", 1, "")).await);
    std::fs::write(crl(&stage.folder), format!("{}{}", late.list(2, &[]), good.list(1, &[]))).unwrap();
    becomes(&stage, &of_late, true).await;
    ready(&stage);
    assert_eq!(check(&stage.folder).0, 0);
}

fn by_urls(folder: &DevFolder, urls: &[&str]) {
    edit(&folder.gateway_config(), |all| all.replace("crl = \"pki/ca.crl\"", &format!("crl_url = {urls:?}")));
}

fn kept(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder.join("data/state")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "crl")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_several_urls_are_fetched_and_only_valid_lists_are_used_and_cached() {
    let (one, other) = (Ca::root("one"), Ca::root("other"));
    let slots = [one.list(5, &[7]), other.list(5, &[])].map(|text| Arc::new(Mutex::new(text.into_bytes())));
    let (first, asked) = publish(slots[0].clone()).await;
    let (second, _) = publish(slots[1].clone()).await;
    let mut stage = Stage::prepared(&|folder| {
        lay_cas(folder, &[&one, &other], "");
        by_urls(folder, &[&first, &second]);
    });
    let [seven, eight] = [7, 8].map(|serial| one.client(&stage.folder, &format!("one-{serial}"), serial, ""));
    let nine = other.client(&stage.folder, "other-9", 9, "");
    assert!(!passes(&stage, &seven).await && passes(&stage, &eight).await && passes(&stage, &nine).await);
    // None of these replaces the current lists; valid ones among them are accepted.
    let part = one.list_with(9, &[], |params| {
        let distribution_point = CrlDistributionPoint { uris: vec!["http://ca/one.crl".into()] };
        params.issuing_distribution_point =
            Some(CrlIssuingDistributionPoint { distribution_point, scope: Some(CrlScope::UserCertsOnly) });
    });
    let (large, many) = (one.list(9, &[]) + &"\n".repeat(16 << 20), one.list(9, &[]).repeat(65));
    let foreign = Ca::root("one").list(9, &[]);
    for bad in [part, one.list(4, &[]), one.list_with(9, &[], over), foreign, "garbage".into(), large, many] {
        let before = asked.load(Ordering::Relaxed);
        *slots[0].lock().unwrap() = bad.into_bytes();
        until("asked again", || asked.load(Ordering::Relaxed) > before + 1);
        assert!(!passes(&stage, &seven).await && passes(&stage, &eight).await);
        until("told", || ops_text(&stage, "/metrics").contains(&format!("list_fetched{{url=\"{first}\"}} 0")));
    }
    *slots[0].lock().unwrap() =
        format!("{}{}{}{}", one.list(4, &[]), Ca::root("x").list(1, &[]), "\n".repeat(1 << 20), other.list(6, &[9]))
            .into_bytes();
    becomes(&stage, &nine, false).await;
    assert!(!passes(&stage, &seven).await);
    // The cache starts a gateway while the URLs do not respond, and a damaged file does not prevent the start.
    assert_eq!(kept(&stage.folder.path).len(), 2);
    stage.gateway.take().unwrap().stop();
    std::fs::write(stage.folder.path.join("data/state/fetched.crl"), "spoilt").unwrap();
    slots.iter().for_each(|slot| *slot.lock().unwrap() = b"nothing".to_vec());
    stage.gateway = Some(starts(&stage.folder).unwrap());
    assert!(!passes(&stage, &seven).await && passes(&stage, &eight).await && !passes(&stage, &nine).await);
    ready(&stage);
    assert_eq!(check(&stage.folder).0, 0);
    stage.gateway.take().unwrap().stop();
    kept(&stage.folder.path).iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let told = starts(&stage.folder).err().unwrap();
    assert!(told.contains("no revocation list") && told.contains(&second), "{told}");
    assert_eq!(check(&stage.folder).0, 2);
}

/// Whether the log records a file in its current state.
fn is_stated(stage: &Stage, file: &str) -> bool {
    let Some(digest) = logged_files::digest_of(&stage.data().join(file)).unwrap() else { return false };
    let object = logged_files::object(file, &digest);
    let last = stage.entries().into_iter().rfind(|one| one.entry.object.starts_with(&format!("file:{file} ")));
    last.is_some_and(|one| one.entry.object == object && one.entry.event == "log.file")
}

/// The output of `audit verify`.
fn verified(stage: &Stage) -> (bool, String) {
    let (content, _, told) = crate::support::audit_cli(stage, &["verify"]);
    (content, told)
}

const RECORD: &str = "state/revocation.json";

#[tokio::test(flavor = "multi_thread")]
async fn t5_an_older_record_of_the_lists_in_force_undoes_no_revocation_undetected() {
    let root = Ca::root("root");
    let mut stage = stage(&[&root], &root.list(5, &[]));
    let record = stage.data().join(RECORD);
    let recorded = |number: &str| std::fs::read_to_string(&record).is_ok_and(|text| text.contains(number));
    until("the record", || recorded("\"05\"") && is_stated(&stage, RECORD));
    let older = std::fs::read(&record).unwrap();
    let seven = root.client(&stage.folder, "seven", 7, "");
    std::fs::write(crl(&stage.folder), root.list(6, &[7])).unwrap();
    becomes(&stage, &seven, false).await;
    until("the newer record", || recorded("\"06\"") && is_stated(&stage, RECORD));
    let newer = std::fs::read(&record).unwrap();
    stage.gateway.take().unwrap().stop();
    assert!(verified(&stage).0, "{:?}", verified(&stage));
    // The list from before the revocation, and the gateway's own record of then.
    std::fs::write(crl(&stage.folder), root.list(5, &[])).unwrap();
    std::fs::write(&record, &older).unwrap();
    let (content, told) = verified(&stage);
    assert!(!content && told.contains(RECORD) && told.contains("is an older one"), "{told}");
    for _ in 0..2 {
        // However often it starts, nothing is overwritten, and it reports it.
        stage.gateway = Some(starts(&stage.folder).unwrap());
        unready(&stage, "is an older one, and the exchange log names a newer one");
        stage.gateway.take().unwrap().stop();
        assert_eq!(std::fs::read(&record).unwrap(), older);
        assert!(!verified(&stage).0);
    }
    // With the right record, the list itself is reported; with the right list, everything is in order.
    std::fs::write(&record, &newer).unwrap();
    assert!(verified(&stage).0, "{:?}", verified(&stage));
    stage.gateway = Some(starts(&stage.folder).unwrap());
    unready(&stage, "CN=root (number 05) is older");
    std::fs::write(crl(&stage.folder), root.list(6, &[7])).unwrap();
    ready(&stage);
    assert!(!passes(&stage, &seven).await);
    // To confirm it, the record is removed, and the log records the new one.
    stage.gateway.take().unwrap().stop();
    std::fs::remove_file(&record).unwrap();
    let (content, told) = verified(&stage);
    assert!(!content && told.contains(RECORD) && told.contains("is gone"), "{told}");
    std::fs::write(crl(&stage.folder), root.list(4, &[])).unwrap();
    stage.gateway = Some(starts(&stage.folder).unwrap());
    until("a new record", || recorded("\"04\"") && is_stated(&stage, RECORD));
    ready(&stage);
    stage.gateway.take().unwrap().stop();
    assert!(verified(&stage).0, "{:?}", verified(&stage));
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_a_rolled_back_or_altered_fetched_list_is_named_by_verify() {
    let one = Ca::root("one");
    let slot = Arc::new(Mutex::new(one.list(5, &[]).into_bytes()));
    let (url, _) = publish(slot.clone()).await;
    let mut stage = Stage::prepared(&|folder| {
        lay_cas(folder, &[&one], "");
        by_urls(folder, &[&url]);
    });
    let file = kept(&stage.folder.path).pop().unwrap();
    let name = file.strip_prefix(stage.data()).unwrap().to_str().unwrap().to_owned();
    until("it is stated", || is_stated(&stage, &name));
    let older = std::fs::read(&file).unwrap();
    let seven = one.client(&stage.folder, "seven", 7, "");
    *slot.lock().unwrap() = one.list(6, &[7]).into_bytes();
    becomes(&stage, &seven, false).await;
    until("the newer one is stated", || is_stated(&stage, &name) && is_stated(&stage, RECORD));
    let newer = std::fs::read(&file).unwrap();
    stage.gateway.take().unwrap().stop();
    assert!(verified(&stage).0, "{:?}", verified(&stage));
    // Another list of the same CA, which was never in force here.
    let never = one.list(7, &[]);
    for (bytes, says) in [
        (older.clone(), "is an older one"),
        (never.into_bytes(), "is not what entry"),
        (b"spoilt".to_vec(), "is not what entry"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let (content, told) = verified(&stage);
        assert!(!content && told.contains(&name) && told.contains(says), "{says}: {told}");
    }
    // A missing one is fetched again, and an unknown one is reported.
    std::fs::remove_file(&file).unwrap();
    let (content, told) = verified(&stage);
    assert!(content && told.contains("WARNING") && told.contains(&name), "{told}");
    std::fs::write(stage.data().join("state/fetched-0.crl"), &older).unwrap();
    std::fs::write(&file, &newer).unwrap();
    let (content, told) = verified(&stage);
    assert!(content && told.contains("state/fetched-0.crl"), "{told}");
    std::fs::remove_file(stage.data().join("state/fetched-0.crl")).unwrap();
    // An older one at a start while the URLs do not respond: the record of the lists in force reports it, and so does the log.
    std::fs::write(&file, &older).unwrap();
    *slot.lock().unwrap() = b"nothing".to_vec();
    stage.gateway = Some(starts(&stage.folder).unwrap());
    unready(&stage, "CN=one (number 05) is older");
    stage.gateway.take().unwrap().stop();
    assert!(verified(&stage).1.contains("is an older one"), "{:?}", verified(&stage));
}
