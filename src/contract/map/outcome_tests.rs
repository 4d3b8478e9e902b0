//! Success, failure and absence, rule by rule of `docs/contracts.md`: each with what it must accept and what it must
//! not.
#![allow(clippy::unwrap_used)]

use super::outcome::{OutcomeRules, OutcomeVerdict, evaluate, meaning_of, named_failure};
use crate::contract::options::{Failure, Meaning, NoRecord, Outcome};
use serde_json::{Value, json};

fn rules(outcome: &Outcome) -> OutcomeRules {
    OutcomeRules::compile(Some(outcome)).unwrap()
}

fn sign(path: &str, missing: bool, text: &[&str]) -> OutcomeRules {
    let text = text.iter().map(|text| (*text).to_owned()).collect();
    rules(&Outcome { no_record: vec![NoRecord { path: path.into(), missing, text }], ..Outcome::default() })
}

fn failure(codes: &[&str], words: &[&str], meaning: Meaning) -> Failure {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let message_path = if words.is_empty() { String::new() } else { "/message".to_owned() };
    Failure { codes: texts(codes), message_contains: texts(words), message_path, meaning: meaning as i32 }
}

fn coded(success: &[&str], failure: Vec<Failure>) -> Outcome {
    let success = success.iter().map(|code| (*code).to_owned()).collect();
    Outcome { code: vec!["/code".into()], success, failure, ..Outcome::default() }
}

fn said(rules: &OutcomeRules, document: &Value) -> OutcomeVerdict {
    evaluate(rules, document, document)
}

#[test]
fn a_sign_of_absence_is_what_the_contract_says_and_nothing_else() {
    let empty = sign("/data", false, &[]);
    let missing = sign("/data/record", true, &[]);
    let text = sign("/count", false, &["0"]);
    for (rules, document, absent) in [
        (&empty, json!({ "data": null }), true),
        (&empty, json!({ "data": [] }), true),
        (&empty, json!({ "data": { "a": null } }), true),
        (&empty, json!({ "data": 0 }), false),
        (&empty, json!({ "other": 1 }), false),
        (&empty, json!({}), false),
        (&missing, json!({ "data": { "other": 1 } }), true),
        // The structure around it must be present and not empty.
        (&missing, json!({ "data": {} }), false),
        (&missing, json!({ "data": { "other": null } }), false),
        (&missing, json!({ "data": null }), false),
        (&missing, json!({ "data": { "record": null } }), false),
        (&missing, json!({ "other": 1 }), false),
        (&text, json!({ "count": 0 }), true),
        (&text, json!({ "count": " 0 " }), true),
        (&text, json!({ "count": 10 }), false),
        (&text, json!({ "count": "" }), false),
        (&text, json!({}), false),
    ] {
        assert_eq!(rules.signals_no_record(&document, None), absent, "{document}");
    }
    // Of SOAP, the path may begin with the body element.
    let soap = sign("/Records/Row", false, &[]);
    assert!(soap.signals_no_record(&json!({ "Row": "" }), Some("Records")));
    assert!(!soap.signals_no_record(&json!({ "Row": "" }), Some("Others")));
    assert!(!soap.signals_no_record(&json!({ "Row": "" }), None));
}

#[test]
fn an_empty_code_is_one_only_where_success_names_it_and_it_is_there() {
    let named = rules(&coded(&["", "0"], Vec::new()));
    assert_eq!(said(&named, &json!({ "code": "" })), OutcomeVerdict::Success { coded: true });
    assert_eq!(said(&named, &json!({ "code": null })), OutcomeVerdict::Success { coded: true });
    assert_eq!(said(&named, &json!({ "other": 1 })), OutcomeVerdict::NoCode, "an absent code is no empty one");
    let other = rules(&coded(&["0"], Vec::new()));
    assert_eq!(said(&other, &json!({ "code": "" })), OutcomeVerdict::NoCode);
    assert_eq!(said(&other, &json!({ "code": " 0 " })), OutcomeVerdict::Success { coded: true });
    let absent = rules(&Outcome { absent_is_success: true, ..coded(&["0"], Vec::new()) });
    assert_eq!(said(&absent, &json!({})), OutcomeVerdict::Success { coded: false });
}

#[test]
fn words_narrow_their_rule_and_alone_they_decide_before_success() {
    let exists = failure(&["3"], &["đã tồn tại"], Meaning::Exists);
    let alone = failure(&[], &["đã được tiếp nhận"], Meaning::Exists);
    let plain = failure(&["3"], &[], Meaning::Rejected);
    // In whatever order the contract has them, rules with message patterns come first.
    let rules = rules(&coded(&["0"], vec![plain, exists, alone]));
    let is = |code: Value, message: &str| said(&rules, &json!({ "code": code, "message": message }));
    let failed = |meaning, code: &str| OutcomeVerdict::Failure(meaning, code.to_owned());
    assert_eq!(is(json!(3), "Hồ sơ ĐÃ TỒN TẠI"), failed(Meaning::Exists, "3"));
    assert_eq!(is(json!("3"), "Hồ sơ đa\u{303} tồn tại"), failed(Meaning::Exists, "3"), "in whichever form of Unicode");
    assert_eq!(is(json!(3), "Thiếu trường"), failed(Meaning::Rejected, "3"));
    assert_eq!(is(json!(5), "đã tồn tại"), failed(Meaning::Failed, "5"), "another code is another failure");
    assert_eq!(is(json!(0), "Hồ sơ đã được tiếp nhận"), failed(Meaning::Exists, "0"), "before success");
    assert_eq!(is(json!(0), "đã tồn tại"), OutcomeVerdict::Success { coded: true });
}

#[test]
fn a_code_that_stands_nowhere_is_the_sources_unless_the_contract_says_otherwise() {
    let plain = coded(&["0"], vec![failure(&["1"], &[], Meaning::NotFound)]);
    let said_of = |outcome: &Outcome, code: &str| said(&rules(outcome), &json!({ "code": code }));
    assert_eq!(said_of(&plain, "9"), OutcomeVerdict::Failure(Meaning::Failed, "9".into()));
    let otherwise = Outcome { otherwise: Meaning::Rejected as i32, ..plain.clone() };
    assert_eq!(said_of(&otherwise, "9"), OutcomeVerdict::Failure(Meaning::Rejected, "9".into()));
    assert_eq!(said_of(&otherwise, "1"), OutcomeVerdict::Failure(Meaning::NotFound, "1".into()));
    // With a status of HTTP's own, only a code that the contract names counts.
    let named = |code: &str| named_failure(&rules(&otherwise), &json!({ "code": code }));
    assert_eq!(named("1"), Some((Meaning::NotFound, "1".into())));
    assert_eq!((named("9"), named("0")), (None, None));
}

#[test]
fn the_longest_family_that_is_named_counts_in_both_spellings() {
    let families = ["Client", "Server.ServerProxy.AccessDenied", "Server.ServerProxy"];
    let meanings = [Meaning::Rejected, Meaning::Credentials, Meaning::Busy];
    let failures = families.iter().zip(meanings).map(|(code, meaning)| failure(&[code], &[], meaning)).collect();
    let rules = rules(&coded(&[], failures));
    for (code, meaning) in [
        ("Client", Some(Meaning::Rejected)),
        ("Client.Other.More", Some(Meaning::Rejected)),
        ("Server.ServerProxy.AccessDenied", Some(Meaning::Credentials)),
        ("server.serverproxy.access_denied", Some(Meaning::Credentials)),
        ("Server.ServerProxy.Else", Some(Meaning::Busy)),
        ("server.server_proxy.else", Some(Meaning::Busy)),
        ("Server.Else", None),
        ("Clients", None),
        ("client", None),
    ] {
        assert_eq!(meaning_of(&rules, code), meaning, "{code}");
    }
}
