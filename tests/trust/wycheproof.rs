//! Project Wycheproof's vectors against the verification of access tokens, with keys read as the registry reads them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use wycheproof::{TestResult, ecdsa, eddsa};

fn verifies(key: &DecodingKey, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
    crypto::verify(&URL_SAFE_NO_PAD.encode(signature), message, key, algorithm).unwrap_or(false)
}

#[test]
fn es256_signatures_match_wycheproof() {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let mut count = 0;
    for group in &set.test_groups {
        let key = DecodingKey::from_ec_pem(group.pem.as_bytes()).unwrap();
        for test in &group.tests {
            let expected = test.result == TestResult::Valid;
            assert_eq!(
                verifies(&key, Algorithm::ES256, &test.msg, &test.sig),
                expected,
                "{}: {}",
                test.tc_id,
                test.comment
            );
            count += 1;
        }
    }
    assert!(count > 200, "{count}");
}

#[test]
fn eddsa_signatures_match_wycheproof() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut count = 0;
    for group in &set.test_groups {
        let key = DecodingKey::from_ed_pem(group.pem.as_bytes()).unwrap();
        for test in &group.tests {
            let expected = test.result == TestResult::Valid;
            assert_eq!(
                verifies(&key, Algorithm::EdDSA, &test.msg, &test.sig),
                expected,
                "{}: {}",
                test.tc_id,
                test.comment
            );
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}
