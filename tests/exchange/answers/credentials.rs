//! Credentials on the wire: each kind by each protocol, renewed once where it can be, and only what works is kept.

use super::{Raw, answer, call, outcome};
use base64::Engine;
use ndxp_gateway::drivers::credentials::{
    Credentials, HashedBasic, Lgsp, LoginSession, OAuth2, Secret, UsernameToken, wsse_digest,
};
use serde_json::json;

/// Calls with OAuth2: the responses in turn, the outcomes of the calls, and the number of token requests.
async fn with_tokens(answers: &[(&str, &str)], calls: usize) -> (Vec<String>, usize) {
    let raw = Raw::start().await;
    let oauth2 = OAuth2::new("/token".into(), "key".into(), Secret::new("secret"), None);
    let adapter = raw.adapter(Credentials::OAuth2(oauth2));
    answers.iter().for_each(|(status, body)| raw.says(answer(status, body)));
    let mut said = Vec::new();
    for _ in 0..calls {
        said.push(outcome(&call(&adapter, "Rest/Plain", json!({})).await));
    }
    let tokens = raw.requests.lock().unwrap().iter().filter(|request| request.starts_with(b"POST /token")).count();
    (said, tokens)
}

#[tokio::test(flavor = "multi_thread")]
async fn u9_tokens_are_checked_and_only_a_working_one_is_cached() {
    const OK: (&str, &str) = ("200", "{\"text\": \"a\"}");
    let good = "OK {\"text\":\"a\"}";
    for token in [
        r#"{"access_token": "T", "token_type": "Bearer", "expires_in": 3600}"#,
        r#"{"access_token": "T", "expires_in": "3600"}"#,
        r#"{"access_token": "T", "token_type": "bearer", "expires_in": 3599.0}"#,
        r#"\xef\xbb\xbf{"access_token": "T"}"#,
        r#"{"access_token": "T", "expires_in": null, "error": null}"#,
    ] {
        assert_eq!(with_tokens(&[("200", token), OK, OK], 2).await, (vec![good.into(), good.into()], 1), "{token}");
    }
    for (status, answer, expected) in [
        ("200", r#"{"error": "invalid_client"}"#, "SOURCE_CREDENTIALS_REFUSED gateway invalid_client"),
        ("400", r#"{"error": "invalid_client"}"#, "SOURCE_CREDENTIALS_REFUSED gateway invalid_client"),
        ("401", "", "SOURCE_CREDENTIALS_REFUSED gateway 401"),
        ("404", "<html/>", "SOURCE_PROTOCOL_ERROR hub 404"),
        ("200", r#"{"access_token": ""}"#, "SOURCE_PROTOCOL_ERROR hub"),
        ("200", r#"{"access_token": "a b"}"#, "SOURCE_PROTOCOL_ERROR hub"),
        ("200", r#"{"access_token": "a\\nb"}"#, "SOURCE_PROTOCOL_ERROR hub"),
        ("200", r#"{"access_token": 7}"#, "SOURCE_PROTOCOL_ERROR hub"),
        ("200", r#"{"access_token": "T", "token_type": "mac"}"#, "SOURCE_PROTOCOL_ERROR hub"),
        ("200", r#"{"access_token": "T", "expires_in": 0}"#, "SOURCE_PROTOCOL_ERROR hub"),
        ("200", r#"{"access_token": "T", "expires_in": "soon"}"#, "SOURCE_PROTOCOL_ERROR hub"),
        ("200", "<html/>", "SOURCE_PROTOCOL_ERROR hub"),
        ("503 retry-after: 5", "", "SOURCE_UNAVAILABLE hub 503 retry 5"),
    ] {
        let again = r#"{"access_token": "T"}"#;
        // A failed token is not cached: the next call gets another.
        let (said, tokens) = with_tokens(&[(status, answer), ("200", again), OK], 2).await;
        assert_eq!((said[0].as_str(), said[1].as_str(), tokens), (expected, good, 2), "{status} {answer}");
    }
}

/// An operation of each protocol, with a valid response.
const PROTOCOLS: [(&str, &str, &str); 5] = [
    ("Rest/Plain", "200", r#"{"text": "a"}"#),
    ("Rest/Put", "200", r#"{"code": 0, "number": "7"}"#),
    ("Soap/Get", "200", "RECORD(<text>a</text>)"),
    ("Road/Get", "200 XR", r#"{"text": "a"}"#),
    ("Road/GetBySoap", "200", r#"XROAD(<o:GetResponse xmlns:o="urn:out"><text>a</text></o:GetResponse>)"#),
];

/// The requests of one call, with these responses in turn, and its outcome.
async fn sent(credentials: Credentials, operation: &str, answers: &[(&str, &str)]) -> (Vec<String>, String) {
    let raw = Raw::start().await;
    let adapter = raw.adapter(credentials);
    answers.iter().for_each(|(status, body)| raw.says(answer(status, body)));
    let said = outcome(&call(&adapter, operation, json!({ "name": "x" })).await);
    let requests = raw.requests.lock().unwrap().iter().map(|one| String::from_utf8(one.clone()).unwrap()).collect();
    (requests, said)
}

fn header<'r>(request: &'r str, name: &str) -> &'r str {
    let found = request.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    found.unwrap_or_else(|| panic!("no {name}: {request}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn u12_what_can_be_renewed_is_renewed_once_by_every_protocol() {
    const LGSP: &str = "eyJBY2Nlc3NLZXkiOiJBIiwiU2VjcmV0S2V5IjoiUyIsIkFwcE5hbWUiOiJOIiwiUGFydG5lckNvZGUiOiJQIiwiUGFydG5lckNvZGVDdXMiOiJDIn0=";
    let oauth2 = || {
        let (access_key, secret_key) = (Secret::new("A"), Secret::new("S"));
        let lgsp = Lgsp {
            access_key,
            secret_key,
            app_name: "N".into(),
            partner_code: "P".into(),
            partner_code_cus: "C".into(),
        };
        Credentials::OAuth2(OAuth2::new("/token".into(), "key".into(), Secret::new("secret"), Some(lgsp)))
    };
    let token = |name: &'static str| ("200", name);
    let (first, second) = (token(r#"{"access_token": "T1"}"#), token(r#"{"access_token": "T2"}"#));
    for (operation, status, body) in PROTOCOLS {
        let (requests, said) = sent(oauth2(), operation, &[first, ("401", ""), second, (status, body)]).await;
        assert!(said.starts_with("OK"), "{operation}: {said}");
        assert_eq!(requests.len(), 4, "{operation}");
        assert_eq!(header(&requests[0], "authorization"), "Basic a2V5OnNlY3JldA==");
        assert_eq!(header(&requests[1], "authorization"), "Bearer T1", "{operation}");
        assert_eq!(header(&requests[3], "authorization"), "Bearer T2", "{operation}");
        assert!(requests.iter().all(|request| header(request, "lgspaccesstoken") == LGSP), "{operation}");
        // Once: a second refusal is returned.
        let (requests, said) = sent(oauth2(), operation, &[first, ("401", ""), second, ("401", "")]).await;
        assert_eq!((requests.len(), said.as_str()), (4, "SOURCE_CREDENTIALS_REFUSED gateway 401"), "{operation}");
        // A known but unauthorised caller does not retry with another token.
        let (requests, said) = sent(oauth2(), operation, &[first, ("403", "")]).await;
        assert_eq!((requests.len(), said.as_str()), (2, "SOURCE_CREDENTIALS_REFUSED gateway 403"), "{operation}");
    }
    // A session is in the body, if there is one; a login without an id is invalid.
    let session =
        || Credentials::Session(LoginSession::new("/login".into(), "u".into(), Secret::new("p"), "session".into()));
    let done = ("200", PROTOCOLS[1].2);
    let logins = [("200", r#"{"session": " S1 "}"#), ("200", r#"{"session": 52}"#)];
    let (requests, said) = sent(session(), "Rest/Put", &[logins[0], ("401", ""), logins[1], done]).await;
    assert!(said.starts_with("OK") && requests.len() == 4, "{said}");
    assert!(requests[0].ends_with(r#"{"username":"u","password":"p"}"#), "{}", requests[0]);
    assert!(requests[1].contains(r#""session":"S1""#) && requests[3].contains(r#""session":"52""#), "{requests:?}");
    for login in [r#"{"session": " "}"#, r#"{"session": null}"#, "{}"] {
        let (requests, said) = sent(session(), "Rest/Put", &[("200", login)]).await;
        assert_eq!(requests.len(), 1);
        assert!(said.starts_with("SOURCE_CREDENTIALS_REFUSED"), "{login}: {said}");
    }
}

/// A request refused for its credentials was not done: if there are no others, a write has certainly not happened.
#[tokio::test(flavor = "multi_thread")]
async fn u12_a_refused_request_does_not_count_as_sent() {
    let token = ("200", r#"{"access_token": "T1"}"#);
    for (operation, ..) in PROTOCOLS {
        for (answers, sent) in [
            (&[token, ("401", ""), ("503", "")][..], false),
            (&[("503", "")], false),
            (&[token, ("401", ""), token, ("500", "")], true),
            (&[token, ("500", "")], true),
        ] {
            let raw = Raw::start().await;
            let oauth2 = OAuth2::new("/token".into(), "key".into(), Secret::new("secret"), None);
            let adapter = raw.adapter(Credentials::OAuth2(oauth2));
            answers.iter().for_each(|(status, body)| raw.says(answer(status, body)));
            let said = call(&adapter, operation, json!({ "name": "x" })).await;
            assert!(said.result.is_err(), "{operation} {answers:?}");
            assert_eq!(said.sent, sent, "{operation} {answers:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn u12_what_cannot_be_renewed_is_sent_once_and_is_another_proof_each_time() {
    let key = || Credentials::ApiKey { header: http::HeaderName::from_static("apikey"), key: Secret::new("secret") };
    let basic = || {
        let (secret, api_key) = (Secret::new("s"), Secret::new("k"));
        Credentials::HashedBasic(HashedBasic { user: "u".into(), secret, xroad_client: "VN/A".into(), api_key })
    };
    for (operation, status, body) in PROTOCOLS {
        let (requests, said) = sent(key(), operation, &[("401", ""), (status, body)]).await;
        assert_eq!((requests.len(), said.as_str()), (1, "SOURCE_CREDENTIALS_REFUSED gateway 401"), "{operation}");
        assert_eq!(header(&requests[0], "apikey"), "secret", "{operation}");
        // X-Road has a client header of its own.
        if operation.starts_with("Road") {
            continue;
        }
        let (requests, said) = sent(basic(), operation, &[(status, body)]).await;
        assert!(said.starts_with("OK"), "{operation}: {said}");
        let (path, time) = (requests[0].split(' ').nth(1).unwrap(), header(&requests[0], "timestamp"));
        // An endpoint at the root has no path of its own.
        let path = if operation.starts_with("Soap") { "" } else { path };
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("{path}u{time}s").as_bytes());
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let wanted = base64::engine::general_purpose::STANDARD.encode(format!("u:{hex}"));
        assert_eq!(header(&requests[0], "authorization"), format!("Basic {wanted}"), "{operation}");
        assert_eq!((header(&requests[0], "x-road-client"), header(&requests[0], "apikey")), ("VN/A", "k"));
    }
    let token = || Credentials::UsernameToken(UsernameToken { username: "u<".into(), password: Secret::new("p") });
    let mut nonces = Vec::new();
    for (operation, status, body) in [PROTOCOLS[2], PROTOCOLS[4], PROTOCOLS[2]] {
        let (requests, said) = sent(token(), operation, &[(status, body)]).await;
        assert!(said.starts_with("OK"), "{operation}: {said}");
        let text = |name: &str| {
            let (_, rest) = requests[0].split_once(&format!("<{name}")).unwrap_or_else(|| panic!("{}", requests[0]));
            rest.split_once('>').unwrap().1.split_once('<').unwrap().0.to_owned()
        };
        let (nonce, created) = (text("wsse:Nonce"), text("wsu:Created"));
        let bytes = base64::engine::general_purpose::STANDARD.decode(&nonce).unwrap();
        assert_eq!(text("wsse:Password"), wsse_digest(&bytes, &created, "p"), "{operation}");
        assert!(requests[0].contains("<wsse:Username>u&lt;</wsse:Username>"), "{operation}");
        assert!(!nonces.contains(&nonce), "a nonce is used once");
        nonces.push(nonce);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn u9_401_renews_the_token_once_and_403_does_not() {
    const OK: (&str, &str) = ("200", "{\"text\": \"a\"}");
    const TOKEN: (&str, &str) = ("200", r#"{"access_token": "T"}"#);
    let good = "OK {\"text\":\"a\"}".to_owned();
    assert_eq!(with_tokens(&[TOKEN, ("401", ""), TOKEN, OK], 1).await, (vec![good.clone()], 2));
    let refused = "SOURCE_CREDENTIALS_REFUSED gateway 401".to_owned();
    assert_eq!(with_tokens(&[TOKEN, ("401", ""), TOKEN, ("401", "")], 1).await, (vec![refused], 2));
    let forbidden = "SOURCE_CREDENTIALS_REFUSED gateway 403".to_owned();
    assert_eq!(with_tokens(&[TOKEN, ("403", ""), OK], 2).await, (vec![forbidden, good], 1), "the token is kept");
}
