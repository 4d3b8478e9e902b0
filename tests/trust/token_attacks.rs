//! Attacks on tokens, each through the real listener: refused with its status and reason, and logged. The tokens are signed with the
//! gateway's own key: only the form is wrong.

use crate::support::{Actor, Stage, UNIT, files};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use ndxp_gateway::identity::{Thumbprint, tls};
use ndxp_gateway::pki::{CertificateRole, client_uri};
use ndxp_gateway::registry::{Store, now};
use ndxp_gateway::status::Reason;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tonic::Code;

struct Forge {
    kid: String,
    key: EcdsaKeyPair,
    public_pem: String,
    x5t: String,
    issuer: String,
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Forge {
    fn new(stage: &Stage) -> Self {
        let key = stage.store.keys().unwrap().pop().unwrap();
        let path = stage.data().join("keys/signing").join(format!("{}.pem", key.kid));
        let PrivateKeyDer::Pkcs8(der) = tls::private_key(&path).unwrap() else { panic!("no PKCS#8") };
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der()).unwrap();
        let chain = tls::certificates(&files(&stage.folder, "shop").certificate).unwrap();
        let config =
            ndxp_gateway::config::Config::load(&stage.folder.gateway_config()).map_err(crate::support::show).unwrap();
        let issuer = config.tokens.issuer;
        Forge {
            kid: key.kid,
            key: pair,
            public_pem: key.public_pem,
            x5t: Thumbprint::of(&chain[0]).base64url(),
            issuer,
        }
    }

    fn header(&self) -> Value {
        json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.kid })
    }

    fn claims(&self) -> Value {
        json!({
            "iss": self.issuer, "aud": "ndxp-gateway", "sub": "shop", "client_id": "shop",
            "scope": "budgetunit:read", "jti": "01a2-forged", "iat": now() - 1, "exp": now() + 600,
            "cnf": { "x5t#S256": self.x5t },
        })
    }

    fn sign(&self, input: &str) -> Vec<u8> {
        self.key.sign(&SystemRandom::new(), input.as_bytes()).unwrap().as_ref().to_vec()
    }

    /// A well-signed token of these two texts.
    fn raw(&self, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
        let input = format!("{}.{}", b64(header), b64(claims));
        let signature = b64(self.sign(&input));
        format!("{input}.{signature}")
    }

    fn with_header(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut header = self.header();
        change(&mut header);
        self.raw(header.to_string(), self.claims().to_string())
    }

    fn with_claims(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = self.claims();
        change(&mut claims);
        self.raw(self.header().to_string(), claims.to_string())
    }

    fn good(&self) -> String {
        self.with_claims(|_| {})
    }

    /// The good token with another signature.
    fn signed_with(&self, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> String {
        let good = self.good();
        let (input, signature) = good.rsplit_once('.').unwrap();
        format!("{input}.{}", b64(change(URL_SAFE_NO_PAD.decode(signature).unwrap())))
    }
}

/// The order of P-256 (SEC 2, section 2.4.2).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7,
    0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// n − s, big-endian.
fn negated(s: &[u8]) -> Vec<u8> {
    let (mut out, mut borrow) = (vec![0; 32], 0i16);
    for at in (0..32).rev() {
        let difference = i16::from(ORDER[at]) - i16::from(s[at]) - borrow;
        borrow = i16::from(difference < 0);
        out[at] = (difference + 256 * borrow) as u8;
    }
    out
}

type Case = (&'static str, String, Reason);

fn header_cases(forge: &Forge) -> Vec<Case> {
    use Reason::{TokenInvalid as Invalid, TokenMalformed as Malformed};
    let mut cases: Vec<Case> = Vec::new();
    for alg in ["none", "None", "NONE", "nOnE", "HS256", "RS256", "PS256", "ES384", "ES512", "EdDSA", "es256", ""] {
        cases.push(("another alg", forge.with_header(|header| header["alg"] = json!(alg)), Invalid));
    }
    let unsigned = format!(
        "{}.{}.",
        b64(json!({ "alg": "none", "typ": "at+jwt", "kid": forge.kid }).to_string()),
        b64(forge.claims().to_string())
    );
    cases.push(("alg none without a signature", unsigned, Invalid));
    let hs = {
        let header = json!({ "alg": "HS256", "typ": "at+jwt", "kid": forge.kid }).to_string();
        let input = format!("{}.{}", b64(header), b64(forge.claims().to_string()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, forge.public_pem.as_bytes()), input.as_bytes());
        format!("{input}.{}", b64(tag.as_ref()))
    };
    cases.push(("HS256 with the public key as secret", hs, Invalid));
    let set = |name: &str, value: Value| forge.with_header(|header| header[name] = value);
    let without = |name: &str| forge.with_header(|header| drop(header.as_object_mut().unwrap().remove(name)));
    cases.extend([
        ("no alg", without("alg"), Malformed),
        ("alg as a number", set("alg", json!(256)), Malformed),
        ("alg as a list", set("alg", json!(["ES256"])), Malformed),
        ("embedded jwk", set("jwk", json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" })), Invalid),
        ("jku", set("jku", json!("https://attacker.example/jwks")), Invalid),
        ("x5u", set("x5u", json!("https://attacker.example/cert")), Invalid),
        ("x5c", set("x5c", json!(["MIIB"])), Invalid),
        ("crit", set("crit", json!(["exp"])), Invalid),
        ("empty crit", set("crit", json!([])), Invalid),
        ("no kid", without("kid"), Invalid),
        ("unknown kid", set("kid", json!("ffffffffffffffffffffffffffffffff")), Invalid),
        ("kid as a path", set("kid", json!("../../../../dev/null")), Invalid),
        ("kid as SQL", set("kid", json!("' OR 1=1 --")), Invalid),
        ("empty kid", set("kid", json!("")), Invalid),
        ("kid as a number", set("kid", json!(1)), Malformed),
        ("no typ", without("typ"), Invalid),
        ("typ JWT", set("typ", json!("JWT")), Invalid),
        ("typ of an id token", set("typ", json!("id+jwt")), Invalid),
        ("typ as a number", set("typ", json!(1)), Malformed),
        (
            "alg twice",
            forge.raw(
                format!(r#"{{"alg":"none","alg":"ES256","typ":"at+jwt","kid":"{}"}}"#, forge.kid),
                forge.claims().to_string(),
            ),
            Malformed,
        ),
        ("header no JSON", forge.raw("{", forge.claims().to_string()), Malformed),
        ("header a list", forge.raw("[]", forge.claims().to_string()), Malformed),
        ("header not UTF-8", forge.raw([0xff, 0xfe], forge.claims().to_string()), Malformed),
    ]);
    cases
}

fn claim_cases(forge: &Forge) -> Vec<Case> {
    use Reason::{TokenExpired, TokenInvalid as Invalid, TokenNotBound, TokenNotYetValid};
    let set = |name: &str, value: Value| forge.with_claims(|claims| claims[name] = value);
    let without = |name: &str| forge.with_claims(|claims| drop(claims.as_object_mut().unwrap().remove(name)));
    let head = forge.header().to_string();
    let mut cases: Vec<Case> = Vec::new();
    for name in ["iss", "aud", "sub", "client_id", "scope", "jti", "iat", "exp", "cnf"] {
        cases.push(("a claim is missing", without(name), Invalid));
        cases.push(("a claim is null", set(name, Value::Null), Invalid));
    }
    cases.extend([
        ("aud of another", set("aud", json!("other")), Invalid),
        ("aud list without us", set("aud", json!(["a", "b"])), Invalid),
        ("aud empty list", set("aud", json!([])), Invalid),
        ("aud as a number", set("aud", json!(1)), Invalid),
        ("iss with a slash", set("iss", json!(format!("{}/", forge.issuer))), Invalid),
        ("iss in capitals", set("iss", json!(forge.issuer.to_uppercase())), Invalid),
        ("iss without its schema", set("iss", json!(forge.issuer.trim_start_matches("https://"))), Invalid),
        ("iss as a list", set("iss", json!([forge.issuer])), Invalid),
        ("exp as a fraction", set("exp", json!(now() as f64 + 600.5)), Invalid),
        ("exp as a text", set("exp", json!((now() + 600).to_string())), Invalid),
        ("exp too far", set("exp", json!(now() + 90_000)), Invalid),
        ("exp the largest number", set("exp", json!(i64::MAX)), Invalid),
        (
            "exp larger than any",
            forge.raw(&head, forge.claims().to_string().replacen("\"exp\":", "\"exp\":99999999999", 1)),
            Invalid,
        ),
        ("exp negative", set("exp", json!(-1)), Invalid),
        ("exp the smallest number", set("exp", json!(i64::MIN)), Invalid),
        ("exp past", set("exp", json!(now() - 60)), TokenExpired),
        ("nbf to come", set("nbf", json!(now() + 300)), TokenNotYetValid),
        ("nbf as a text", set("nbf", json!("now")), Invalid),
        ("iat to come", set("iat", json!(now() + 300)), TokenNotYetValid),
        ("sub not the client", set("sub", json!("other")), Invalid),
        (
            "another client",
            forge.with_claims(|claims| {
                claims["sub"] = json!("other");
                claims["client_id"] = json!("other");
            }),
            TokenNotBound,
        ),
        ("empty jti", set("jti", json!("")), Invalid),
        ("cnf empty", set("cnf", json!({})), Invalid),
        ("cnf of another kind", set("cnf", json!({ "jkt": forge.x5t })), Invalid),
        ("cnf of another certificate", set("cnf", json!({ "x5t#S256": b64([7; 32]) })), TokenNotBound),
        ("cnf with padding", set("cnf", json!({ "x5t#S256": format!("{}=", forge.x5t) })), TokenNotBound),
        ("cnf in another case", set("cnf", json!({ "x5t#S256": forge.x5t.to_uppercase() })), TokenNotBound),
        ("a claim twice", forge.raw(&head, forge.claims().to_string().replacen('{', "{\"sub\":\"shop\",", 1)), Invalid),
        ("claims no JSON", forge.raw(&head, "{"), Invalid),
        ("claims a list", forge.raw(&head, "[]"), Invalid),
        ("claims not UTF-8", forge.raw(&head, [0xff, 0xfe]), Invalid),
        ("a token in a token", forge.raw(&head, forge.good()), Invalid),
    ]);
    cases
}

fn form_cases(forge: &Forge) -> Vec<Case> {
    use Reason::{TokenInvalid as Invalid, TokenMalformed as Malformed};
    let good = forge.good();
    let parts: Vec<&str> = good.split('.').collect();
    let [head, claims, signature] = parts.as_slice() else { panic!() };
    // A base64 text whose last character carries bits that belong to no byte.
    let trailing = {
        let mut text = head.to_string();
        let last = text.pop().unwrap();
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let at = alphabet.find(last).unwrap();
        text.push(alphabet.chars().nth(at ^ 1).unwrap());
        (text.len() % 4 != 0).then(|| format!("{text}.{claims}.{signature}"))
    };
    let mut cases: Vec<Case> = vec![
        ("signature of zeros", forge.signed_with(|_| vec![0; 64]), Invalid),
        ("r zero", forge.signed_with(|old| [&[0; 32], &old[32..]].concat()), Invalid),
        ("s zero", forge.signed_with(|old| [&old[..32], &[0; 32]].concat()), Invalid),
        ("r the order", forge.signed_with(|old| [&ORDER, &old[32..]].concat()), Invalid),
        ("s the order", forge.signed_with(|old| [&old[..32], &ORDER].concat()), Invalid),
        ("signature cut", forge.signed_with(|old| old[..63].to_vec()), Invalid),
        ("signature longer", forge.signed_with(|old| [old.as_slice(), &[0]].concat()), Invalid),
        (
            "signature in DER",
            forge.signed_with(|old| [&[0x30, 68, 2, 32], &old[..32], &[2, 32], &old[32..]].concat()),
            Invalid,
        ),
        ("no signature", format!("{head}.{claims}."), Invalid),
        ("two parts", format!("{head}.{claims}"), Malformed),
        ("four parts", format!("{good}.x"), Malformed),
        ("five parts, as a JWE has", format!("{good}.x.y"), Malformed),
        (
            "padded base64",
            format!("{}.{claims}.{signature}", URL_SAFE.encode(URL_SAFE_NO_PAD.decode(head).unwrap()) + "="),
            Malformed,
        ),
        ("a line break inside", format!("{head}.{claims}.{signature}").replacen('.', ".%0a", 1), Invalid),
        ("another alphabet", format!("{head}.{}.{signature}", STANDARD.encode([0xfb, 0xff, 0xfe])), Invalid),
        (
            "a changed claim",
            format!("{head}.{}.{signature}", b64(forge.claims().to_string().replace("shop", "ship"))),
            Invalid,
        ),
        ("huge", format!("{head}.{}.{signature}", "A".repeat(9_000)), Malformed),
        ("empty parts", "..".into(), Malformed),
    ];
    if let Some(trailing) = trailing {
        cases.push(("trailing bits", trailing, Malformed));
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn no_known_attack_passes_and_each_is_logged_or_counted() {
    let mut stage = Stage::start();
    let actor = stage.system("shop");
    let forge = Forge::new(&stage);
    let request = actor.encode(UNIT, &json!({ "unitCode": "1057000" }));
    let with = |token: String| Actor { token, ..actor.clone() };
    // The test's own signer works: its valid token passes, and so do forms that the standards allow.
    for good in [
        forge.good(),
        forge.with_header(|header| header["typ"] = json!("AT+JWT")),
        forge.with_header(|header| header["typ"] = json!("application/at+jwt")),
        forge.with_claims(|claims| claims["aud"] = json!(["other", "ndxp-gateway"])),
        // (r, n − s) is a valid signature of the same message; it is the same token by its jti.
        forge.signed_with(|old| [&old[..32], &negated(&old[32..])].concat()),
    ] {
        with(good).raw(UNIT, &[], vec![request.clone()]).await.unwrap().ok();
    }
    let mut cases = header_cases(&forge);
    cases.extend(claim_cases(&forge));
    cases.extend(form_cases(&forge));
    assert!(cases.len() >= 60, "{}", cases.len());
    let mut expected = Vec::new();
    for (title, token, reason) in cases {
        let told = with(token).raw(UNIT, &[], vec![request.clone()]).await.unwrap();
        assert_eq!((told.reason().as_str(), told.code()), (reason.as_str(), reason.code()), "{title}");
        assert!(told.messages.is_empty());
        expected.push((title, told.exchange(), reason));
    }
    // Sixty at once have their own entries, the others are counted in one: refusals do not fill the disk.
    let attacks = expected.len() as u64;
    stage.gateway.take().unwrap().stop();
    let logged = stage.entries();
    let mut alone = 0;
    for (title, id, reason) in expected {
        let Some(found) = logged.iter().find(|one| one.entry.id_text() == id) else { continue };
        assert_eq!(found.entry.reason, reason.as_str(), "{title}");
        assert_eq!(found.entry.client, "shop");
        alone += 1;
    }
    assert!(alone >= 60, "only {alone} have an entry");
    let refused = logged.iter().filter(|one| one.entry.reason.starts_with("TOKEN_"));
    assert_eq!(refused.map(|one| 1 + one.entry.suppressed).sum::<u64>(), attacks);
    stage.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_counts_only_where_it_belongs() {
    let stage = Stage::start();
    let actor = stage.system("shop");
    let request = || vec![actor.encode(UNIT, &json!({ "unitCode": "1057000" }))];
    let nobody = Actor { token: String::new(), ..actor.clone() };
    let basic = format!("Basic {}", actor.token);
    let (bare, bearer) = (actor.token.clone(), format!("bearer {}", actor.token));
    for (name, value, reason) in [
        ("access_token", actor.token.as_str(), "TOKEN_MISSING"),
        ("x-authorization", bearer.as_str(), "TOKEN_MISSING"),
        ("authorization", basic.as_str(), "TOKEN_MALFORMED"),
        ("authorization", bare.as_str(), "TOKEN_MALFORMED"),
        ("authorization", "Bearer", "TOKEN_MALFORMED"),
        ("authorization", "Bearer ", "TOKEN_MALFORMED"),
        ("authorization", "", "TOKEN_MALFORMED"),
    ] {
        let told = nobody.raw(UNIT, &[(name, value)], request()).await.unwrap();
        assert_eq!(told.reason(), reason, "{name}");
    }
    // The scheme's case does not matter (RFC 9110, section 11.1).
    nobody.raw(UNIT, &[("authorization", &bearer)], request()).await.unwrap().ok();
    let twice = actor.raw(UNIT, &[("authorization", &bearer)], request()).await.unwrap();
    assert_eq!(twice.reason(), "TOKEN_MALFORMED");
    // Another certificate of the same client: the key is another one.
    let second = stage.folder.pki().issue("shop-2", &CertificateRole::Client("shop".into()), 30).unwrap();
    assert!(ndxp_gateway::pki::show(&second.0).unwrap().names.contains(&client_uri("shop")));
    let stolen = stage.with_token("shop-2", &actor.token);
    let told = stolen.raw(UNIT, &[], request()).await.unwrap();
    assert_eq!((told.code(), told.reason().as_str()), (Code::Unauthenticated, "TOKEN_NOT_BOUND_TO_CERTIFICATE"));
}
